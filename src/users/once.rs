//! Secrets that are good for one thing, once: links in letters, login challenges, device codes.
//!
//! As with API keys, 256 random bits need no slow hash. What a token is for is part of what is hashed, so that none opens another door.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Characters of a token: base64url over 32 bytes.
const CHARS: usize = 43;

/// What a token or code is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Proves an address at sign-up.
    SignUp,
    /// Sets a new password.
    Reset,
    /// Goes on with a login whose password was right.
    Challenge,
    /// A device's own half of the device flow.
    Device,
    /// The half of the device flow that a human types.
    UserCode,
    /// Stands in for a lost authenticator app.
    Recovery,
}

/// What is stored of a token or code.
#[must_use]
pub fn hash(purpose: Purpose, text: &str) -> [u8; 32] {
    let name = match purpose {
        Purpose::SignUp => "sign-up",
        Purpose::Reset => "reset",
        Purpose::Challenge => "challenge",
        Purpose::Device => "device",
        Purpose::UserCode => "user code",
        Purpose::Recovery => "recovery",
    };
    Sha256::new()
        .chain_update(b"intentd once 1")
        .chain_update([0])
        .chain_update(name)
        .chain_update([0])
        .chain_update(text)
        .finalize()
        .into()
}

/// A token as its holder has it. It has no SQL form.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct OneTime(String);

impl OneTime {
    /// A new one from 32 random bytes.
    #[must_use]
    pub fn mint(random: &[u8; 32]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(random))
    }

    /// Reads what a client sent; `None` when it has not the form of one. A token that was copied with a space is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let form = text.len() == CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        form.then(|| Self(text.to_owned()))
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self, purpose: Purpose) -> [u8; 32] {
        hash(purpose, &self.0)
    }

    /// The token itself, for the one reply or letter that carries it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OneTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTime(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_purpose_alone() {
        let token = OneTime::mint(&[7; 32]);
        assert_eq!(
            OneTime::parse(&format!(" {}\n", token.reveal())).unwrap().hash(Purpose::Reset),
            token.hash(Purpose::Reset)
        );
        assert_ne!(token.hash(Purpose::SignUp), token.hash(Purpose::Reset));
        assert_eq!(format!("{token:?}"), "OneTime(…)");
        for text in ["", &token.reveal()[1..], &format!("{}A", token.reveal()), &"é".repeat(22), &"=".repeat(43)] {
            assert!(OneTime::parse(text).is_none(), "{text:?}");
        }
    }
}
