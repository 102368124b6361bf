//! Reading Ethereum addresses: 20 bytes from the moment they are read.
//!
//! Compared as text, an address in another case slips past a list. A mixed-case address carries a checksum (EIP-55), so a wrong
//! one is a typing error and refused; all-lower and all-upper carry none and are taken.

use alloy::primitives::Address;

/// Why a text is not an address. The text completes the sentence "to …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `0x` and 40 hex digits.
    #[error("must be 0x followed by 40 hex digits (20 bytes); names are not resolved")]
    Form,
    /// Mixed case, and not the case that EIP-55 gives it.
    #[error("is mixed-case with a wrong EIP-55 checksum: check it for a typing error, or write it in lower case")]
    Checksum,
}

/// Reads an address: lower case, upper case, or mixed case with its EIP-55 checksum.
///
/// # Errors
/// [`AddressError`].
pub fn parse_address(text: &str) -> Result<Address, AddressError> {
    let digits = text.strip_prefix("0x").ok_or(AddressError::Form)?;
    if digits.len() != 40 {
        return Err(AddressError::Form);
    }
    let mut bytes = [0u8; 20];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| AddressError::Form)?;
    let address = Address::from(bytes);
    let mixed = digits.bytes().any(|b| b.is_ascii_lowercase()) && digits.bytes().any(|b| b.is_ascii_uppercase());
    if mixed && address.to_checksum(None) != text {
        return Err(AddressError::Checksum);
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From EIP-55.
    const GOOD: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

    #[test]
    fn threat_08_any_spelling_is_the_same_twenty_bytes() {
        let expected = GOOD.parse::<Address>().unwrap();
        let upper = format!("0x{}", GOOD[2..].to_uppercase());
        for text in [GOOD, &GOOD.to_lowercase(), &upper] {
            assert_eq!(parse_address(text), Ok(expected), "{text}");
        }
        assert!(parse_address("0x0000000000000000000000000000000000000000").is_ok());
    }

    #[test]
    fn threat_08_everything_else_is_refused() {
        let flipped = GOOD.replacen('A', "a", 1);
        assert_eq!(parse_address(&flipped), Err(AddressError::Checksum));
        let (nineteen, twenty_one) = (&GOOD[..40], format!("{GOOD}00"));
        let bare = &GOOD[2..];
        let capital = format!("0X{bare}");
        let spaced = format!(" {GOOD}");
        let non_hex = GOOD.replacen('5', "g", 1);
        let wide = "0x５aAeb6053F3E94C9b9A09f33669435E7Ef1BeA";
        for text in [nineteen, &twenty_one, bare, &capital, &spaced, &non_hex, wide, "vitalik.eth", "", "0x", "0x12"] {
            assert_eq!(parse_address(text), Err(AddressError::Form), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn threat_08_reading_a_checksummed_address_gives_it_back(bytes in any::<[u8; 20]>()) {
            let address = Address::from(bytes);
            prop_assert_eq!(parse_address(&address.to_checksum(None)), Ok(address));
            prop_assert_eq!(parse_address(&format!("{address:#x}")), Ok(address));
        }
    }
}
