//! Why a call failed, from the bytes that it returned. Pure.

use alloy::primitives::{Bytes, U256, hex};
use alloy::sol_types::{Panic, Revert, SolError};

/// Longest text that is passed on, in characters.
const TEXT_CHARS_MAX: usize = 1_000;
/// Longest return data that is shown, in bytes.
const DATA_BYTES_MAX: usize = 256;

/// What a contract said as it reverted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing.
    Empty,
    /// `Error(string)`: `require` and `revert` with a text.
    Text(String),
    /// `Panic(uint256)`: a check that the compiler put there.
    Panic(U256),
    /// An error of the contract's own: four bytes of selector, and its arguments.
    Custom {
        /// The selector.
        selector: [u8; 4],
        /// The encoded arguments.
        arguments: Bytes,
    },
    /// Fewer than four bytes.
    Other(Bytes),
}

impl Reason {
    /// Reads return data. Total: what is no well-formed standard error is a custom one.
    #[must_use]
    pub fn decode(data: &[u8]) -> Self {
        let Some((selector, arguments)) = data.split_first_chunk::<4>() else {
            return if data.is_empty() { Self::Empty } else { Self::Other(Bytes::copy_from_slice(data)) };
        };
        if let Ok(revert) = Revert::abi_decode(data) {
            return Self::Text(clean(&revert.reason));
        }
        match Panic::abi_decode(data) {
            Ok(panic) => Self::Panic(panic.code),
            Err(_) => Self::Custom { selector: *selector, arguments: Bytes::copy_from_slice(arguments) },
        }
    }
}

/// As it is shown: the text, the panic's meaning, or the bytes.
impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("no reason given"),
            Self::Text(text) => f.write_str(text),
            Self::Panic(code) => {
                let meaning = Panic { code: *code }.kind().map_or("unknown code", |kind| kind.as_str());
                write!(f, "Panic(0x{code:02x}): {meaning}")
            }
            Self::Custom { selector, arguments } if arguments.is_empty() => {
                write!(f, "custom error {}", hex::encode_prefixed(selector))
            }
            Self::Custom { selector, arguments } => {
                write!(f, "custom error {} with data {}", hex::encode_prefixed(selector), shortened(arguments))
            }
            Self::Other(data) => write!(f, "return data {}", shortened(data)),
        }
    }
}

/// A contract's text: one line of bounded length.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect()
}

fn shortened(data: &[u8]) -> String {
    match data.get(..DATA_BYTES_MAX) {
        Some(start) if data.len() > DATA_BYTES_MAX => {
            format!("{}… ({} bytes)", hex::encode_prefixed(start), data.len())
        }
        _ => hex::encode_prefixed(data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn standard_errors_are_read_and_others_are_shown() {
        let custom = [&hex!("a8b21345")[..], &[0x11; 32]].concat();
        let table: [(Vec<u8>, &str); 9] = [
            (vec![], "no reason given"),
            (vec![1, 2], "return data 0x0102"),
            (Revert::from("ERC20: insufficient allowance").abi_encode(), "ERC20: insufficient allowance"),
            (Revert::from("two\nlines\0").abi_encode(), "two lines "),
            (Panic::from(0x11).abi_encode(), "Panic(0x11): arithmetic underflow or overflow"),
            (Panic::from(0x99).abi_encode(), "Panic(0x99): unknown code"),
            (hex!("aabbccdd").to_vec(), "custom error 0xaabbccdd"),
            (
                custom,
                "custom error 0xa8b21345 with data 0x1111111111111111111111111111111111111111111111111111111111111111",
            ),
            // The selector of Error(string), and no string.
            (hex!("08c379a0ff").to_vec(), "custom error 0x08c379a0 with data 0xff"),
        ];
        for (data, expected) in table {
            assert_eq!(Reason::decode(&data).to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn no_return_data_breaks_it_or_makes_a_long_text(data in prop::collection::vec(any::<u8>(), 0..2_000), standard: bool) {
            let data = if standard { [&Revert::SELECTOR[..], &data].concat() } else { data };
            prop_assert!(Reason::decode(&data).to_string().chars().count() <= TEXT_CHARS_MAX);
        }

        #[test]
        fn a_text_comes_back_as_it_was(text in "[ -~]{0,200}") {
            prop_assert_eq!(Reason::decode(&Revert::from(text.clone()).abi_encode()), Reason::Text(text));
        }
    }
}
