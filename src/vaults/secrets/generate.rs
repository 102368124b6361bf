//! Random values, made from the HSM's random bytes.

use zeroize::Zeroizing;

use crate::hsm::{Hsm, HsmError};

/// Shortest and longest value, in characters.
pub const LENGTH: std::ops::RangeInclusive<usize> = 8..=1_024;
/// Random bytes drawn at a time.
const CHUNK: usize = 256;

/// What a random value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// `0-9a-f`.
    Hex,
    /// `A-Za-z0-9+/` (RFC 4648 §4).
    Base64,
    /// `A-Za-z0-9`.
    Alphanumeric,
    /// Every printable character of ASCII but the space.
    Ascii,
}

impl Charset {
    /// Reads one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "hex" => Some(Self::Hex),
            "base64" => Some(Self::Base64),
            "alphanumeric" => Some(Self::Alphanumeric),
            "ascii" => Some(Self::Ascii),
            _ => None,
        }
    }

    fn alphabet(self) -> &'static [u8] {
        match self {
            Self::Hex => b"0123456789abcdef",
            Self::Base64 => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
            Self::Alphanumeric => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            Self::Ascii => {
                br##"!"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefghijklmnopqrstuvwxyz{|}~"##
            }
        }
    }
}

/// A value of `length` characters, each equally likely and by itself.
///
/// # Errors
/// Any [`HsmError`].
pub async fn value(hsm: &Hsm, charset: Charset, length: usize) -> Result<Zeroizing<String>, HsmError> {
    // Its place is taken at once: growing would leave copies behind.
    let mut value = Zeroizing::new(String::with_capacity(length));
    while value.len() < length {
        draw(charset.alphabet(), &*hsm.random::<CHUNK>().await?, length, &mut value);
    }
    Ok(value)
}

/// One character for each byte that is below the largest multiple of the alphabet's size. The others are left out: a remainder
/// would make the first characters of the alphabet likelier.
fn draw(alphabet: &[u8], bytes: &[u8], length: usize, value: &mut String) {
    let fair = 256 - 256 % alphabet.len();
    let fair_bytes = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair);
    value.extend(fair_bytes.take(length - value.len()).map(|byte| char::from(alphabet[byte % alphabet.len()])));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ALL: [(&str, usize); 4] = [("hex", 16), ("base64", 64), ("alphanumeric", 62), ("ascii", 94)];

    #[test]
    fn every_byte_once_gives_every_character_equally_often() {
        let every_byte: Vec<u8> = (0..=255).collect();
        for (name, size) in ALL {
            let alphabet = Charset::parse(name).unwrap().alphabet();
            let mut value = String::new();
            draw(alphabet, &every_byte, 256, &mut value);
            let mut counts = BTreeMap::new();
            for c in value.chars() {
                assert!(c.is_ascii_graphic());
                *counts.entry(c).or_insert(0) += 1;
            }
            assert_eq!((alphabet.len(), counts.len()), (size, size), "{name}");
            assert!(counts.values().all(|count| *count == 256 / size), "{name}: {counts:?}");
        }
        assert_eq!(Charset::parse("utf8"), None);
    }

    #[test]
    fn it_stops_at_the_length() {
        let mut value = "abc".to_owned();
        draw(b"01", &[0; 256], 5, &mut value);
        assert_eq!(value, "abc00");
        draw(b"01", &[0; 256], 5, &mut value);
        assert_eq!(value, "abc00");
    }
}
