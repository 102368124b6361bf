//! API keys: `ocv_…` for agents, `1ck_…` for humans.
//!
//! A key is 256 random bits, so a plain SHA-256 protects it at rest (a slow hash is for what people choose). The first 12
//! characters are public and indexed; the whole is compared in constant time.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Characters of the public part: 4 of the kind, 8 random.
pub const PREFIX_CHARS: usize = 12;
/// Characters of a whole key: 4 of the kind, 43 of base64url over 32 bytes.
pub const KEY_CHARS: usize = 47;

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `ocv_`
    Agent,
    /// `1ck_`
    User,
}

impl KeyKind {
    /// What such keys begin with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Agent => "ocv_",
            Self::User => "1ck_",
        }
    }
}

/// A key as its holder has it. It has no SQL form: only its hash is stored.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PlainKey(String);

/// The SHA-256 of a key: what is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(pub [u8; 32]);

impl PlainKey {
    /// A new key from 32 random bytes.
    #[must_use]
    pub fn mint(kind: KeyKind, random: &[u8; 32]) -> Self {
        Self(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(random)))
    }

    /// Reads what a client sent; `None` when it has not the form of a key of this kind.
    #[must_use]
    pub fn parse(kind: KeyKind, text: &str) -> Option<Self> {
        let random = text.strip_prefix(kind.prefix())?;
        let form =
            text.len() == KEY_CHARS && random.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        form.then(|| Self(text.to_owned()))
    }

    /// The public part.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0[..PREFIX_CHARS]
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The key itself, for the one reply that shows it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl KeyHash {
    /// Nobody's hash: compared with when a prefix is unknown, so that a miss does the same work as a hit.
    pub const DUMMY: Self = Self([0; 32]);

    /// Whether `key` is the key with this hash, in constant time. [`Self::DUMMY`] matches nothing.
    #[must_use]
    pub fn matches(&self, key: &PlainKey) -> bool {
        let equal = self.0.ct_eq(&key.hash().0);
        let dummy = self.0.ct_eq(&Self::DUMMY.0);
        bool::from(equal & !dummy)
    }
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", &self.0[..4])
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn threat_26_only_the_form_of_a_key_is_looked_up() {
        let good = PlainKey::mint(KeyKind::Agent, &[7; 32]);
        assert_eq!(good.reveal().len(), KEY_CHARS);
        assert!(PlainKey::parse(KeyKind::Agent, good.reveal()).is_some());
        assert!(PlainKey::parse(KeyKind::User, good.reveal()).is_none(), "an agent's key is no human's");
        let (short, long) = (&good.reveal()[..46], format!("{}A", good.reveal()));
        for text in
            [short, &long, "", "ocv_", "ocv_ü", &format!("ocv_{}", "=".repeat(43)), &format!("ocv_{}", "é".repeat(21))]
        {
            assert!(PlainKey::parse(KeyKind::Agent, text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn threat_23_a_key_does_not_show_in_debug_output() {
        let key = PlainKey::mint(KeyKind::User, &[9; 32]);
        assert_eq!(format!("{key:?} {:?}", key.hash()), "1ck_… KeyHash(…)");
    }

    #[test]
    fn threat_26_the_dummy_matches_nothing() {
        assert!(!KeyHash::DUMMY.matches(&PlainKey::mint(KeyKind::Agent, &[0; 32])));
    }

    proptest! {
        #[test]
        fn a_key_matches_its_own_hash_and_no_other(a in any::<[u8; 32]>(), b in any::<[u8; 32]>()) {
            let (key, other) = (PlainKey::mint(KeyKind::Agent, &a), PlainKey::mint(KeyKind::Agent, &b));
            prop_assert!(key.hash().matches(&key));
            prop_assert_eq!(key.hash().matches(&other), a == b);
        }
    }
}
