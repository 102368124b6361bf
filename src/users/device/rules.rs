//! User codes: eight letters out of twenty that make no words and are not mistaken for each other (RFC 8628 §6.1).

use zeroize::{Zeroize, ZeroizeOnDrop};

const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const CHARS: usize = 8;

/// A user code.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct UserCode(String);

impl UserCode {
    /// A new one from 16 random bytes: 34 bits, with a bias of less than 2^-90.
    #[must_use]
    pub fn mint(random: &[u8; 16]) -> Self {
        let mut number = u128::from_be_bytes(*random);
        let mut text = String::with_capacity(CHARS);
        for _ in 0..CHARS {
            text.push(char::from(ALPHABET[(number % 20) as usize]));
            number /= 20;
        }
        Self(text)
    }

    /// Reads one as people type it: in any case, with hyphens and spaces. `None`: not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        let plain: String =
            text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase()).collect();
        (plain.len() == CHARS && plain.bytes().all(|b| ALPHABET.contains(&b))).then_some(Self(plain))
    }

    /// As it is compared.
    #[must_use]
    pub fn plain(&self) -> &str {
        &self.0
    }

    /// As it is shown: `XXXX-XXXX`.
    #[must_use]
    pub fn shown(&self) -> String {
        let (first, second) = self.0.split_at(CHARS / 2);
        format!("{first}-{second}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_people_type_them() {
        let code = UserCode::mint(&[0x5a; 16]);
        assert_eq!(code.shown().len(), 9);
        for typed in [code.shown(), code.shown().to_lowercase(), format!(" {} ", code.shown().replace('-', " - "))] {
            assert_eq!(UserCode::parse(&typed).unwrap().plain(), code.plain(), "{typed}");
        }
        for text in ["", "BCDF-GHJ", "BCDF-GHJKL", "AAAA-AAAA", "BCDF_GHJK", "BCDF-GHJ\u{212a}", &"B".repeat(100)] {
            assert!(UserCode::parse(text).is_none(), "{text}");
        }
        assert_eq!(UserCode::mint(&[0; 16]).plain(), "BBBBBBBB");
    }
}
