//! Amounts of a chain's native unit.
//!
//! Amounts arrive as decimal strings of whole units (`"0.05"` ETH) and are integers of wei from then on. Neither floats nor
//! `rust_decimal` nor a library's `parse_ether` reads them: the first two round, and the last takes `"-1"` for 2^256 − 10^18
//! and `""` for zero.

use std::fmt;

use alloy::primitives::U256;
use serde::{Serialize, Serializer};

/// Decimals of every native unit of an EVM chain.
pub const DECIMALS: usize = 18;
/// Longest amount that is read, in characters.
pub const AMOUNT_CHARS_MAX: usize = 60;

/// An amount in wei. Arithmetic is checked: an overflow is an error, never a wrap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wei(pub U256);

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not `digits` or `digits.digits`.
    #[error(
        "must be a plain decimal number such as \"0.05\": digits, then optionally a point and 1 to 18 digits (no sign, exponent, hex, spaces or separators)"
    )]
    Grammar,
    /// More than [`AMOUNT_CHARS_MAX`] characters.
    #[error("is longer than {AMOUNT_CHARS_MAX} characters")]
    TooLong,
    /// More decimals than the unit has.
    #[error("has more than 18 decimals: the smallest unit is 1 wei (0.000000000000000001)")]
    TooPrecise,
    /// Above 2^256 − 1 wei.
    #[error("is larger than any chain can carry (2^256 - 1 wei)")]
    TooLarge,
}

impl Wei {
    /// Nothing.
    pub const ZERO: Self = Self(U256::ZERO);

    /// Reads whole units: `digits[.digits{1,18}]`, at most [`AMOUNT_CHARS_MAX`] characters, nothing else.
    ///
    /// # Errors
    /// [`AmountError`], whose text completes the sentence "value …".
    pub fn from_units(text: &str) -> Result<Self, AmountError> {
        if text.len() > AMOUNT_CHARS_MAX {
            return Err(AmountError::TooLong);
        }
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return Err(AmountError::Grammar),
            None => (text, ""),
        };
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) {
            return Err(AmountError::Grammar);
        }
        if fraction.len() > DECIMALS {
            return Err(AmountError::TooPrecise);
        }
        let padded = format!("{whole}{fraction:0<DECIMALS$}");
        Self::from_digits(&padded)
    }

    /// Reads an integer number of wei in decimal digits.
    ///
    /// # Errors
    /// [`AmountError`] as [`Wei::from_units`].
    pub fn from_wei_text(text: &str) -> Result<Self, AmountError> {
        if text.len() > 78 {
            return Err(AmountError::TooLong);
        }
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AmountError::Grammar);
        }
        Self::from_digits(text)
    }

    fn from_digits(digits: &str) -> Result<Self, AmountError> {
        U256::from_str_radix(digits, 10).map(Self).map_err(|_| AmountError::TooLarge)
    }

    /// The sum, or `None` past 2^256 − 1.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` below zero.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// A product with a count (gas, for instance), or `None` past 2^256 − 1.
    #[must_use]
    pub fn checked_mul(self, count: u64) -> Option<Self> {
        self.0.checked_mul(U256::from(count)).map(Self)
    }

    /// Whole units in the shortest exact form: `"0.05"`, `"1"`, `"0"`.
    #[must_use]
    pub fn to_units(self) -> String {
        let digits = format!("{:0>width$}", self.0.to_string(), width = DECIMALS + 1);
        let (whole, fraction) = digits.split_at(digits.len() - DECIMALS);
        match fraction.trim_end_matches('0') {
            "" => whole.to_owned(),
            fraction => format!("{whole}.{fraction}"),
        }
    }
}

impl From<u64> for Wei {
    fn from(wei: u64) -> Self {
        Self(U256::from(wei))
    }
}

impl From<u128> for Wei {
    fn from(wei: u128) -> Self {
        Self(U256::from(wei))
    }
}

/// The integer of wei.
impl fmt::Display for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wei", self.0)
    }
}

/// A decimal string of wei: a JSON number would lose precision beyond 2^53.
impl Serialize for Wei {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn threat_06_only_the_strict_grammar_is_an_amount() {
        let accepted = [
            ("0", "0"),
            ("1", "1000000000000000000"),
            ("01", "1000000000000000000"),
            ("0.1", "100000000000000000"),
            ("0.10", "100000000000000000"),
            ("0.000000000000000001", "1"),
            ("1.500000000000000001", "1500000000000000001"),
        ];
        for (text, wei) in accepted {
            assert_eq!(Wei::from_units(text).map(|w| w.to_string()).as_deref(), Ok(wei), "{text:?}");
        }
        let refused = [
            "",
            " ",
            "-1",
            "+1",
            "1e18",
            "1E2",
            "0x1",
            "0x0",
            "1_000",
            "1,000",
            "1.",
            ".5",
            ".",
            "1.2.3",
            " 1",
            "1 ",
            "\t1",
            "٣",
            "NaN",
            "inf",
            "Infinity",
            "1.-5",
            "--1",
            "0.0000000000000000001",
            "１",
        ];
        for text in refused {
            assert!(Wei::from_units(text).is_err(), "{text:?} was accepted");
        }
        let huge = "9".repeat(60);
        assert!(Wei::from_units(&"9".repeat(61)).is_err());
        assert_eq!(Wei::from_units(&huge), Err(AmountError::TooLarge));
        let max = "115792089237316195423570985008687907853269984665640564039457.584007913129639935";
        assert_eq!(Wei::from_units(max), Err(AmountError::TooLong));
    }

    #[test]
    fn threat_07_a_negative_amount_is_never_its_absolute_value() {
        for text in ["-1", "-0", "-0.5", "−1", "- 1"] {
            assert_eq!(Wei::from_units(text), Err(AmountError::Grammar), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_what_was_written_gives_the_same_amount(wei in any::<u128>()) {
            let wei = Wei::from(wei);
            prop_assert_eq!(Wei::from_units(&wei.to_units()), Ok(wei));
        }

        /// The oracle: integer arithmetic on the two halves.
        #[test]
        fn threat_06_agrees_with_an_integer_oracle(whole in 0u64..1_000_000_000, fraction in "[0-9]{1,18}") {
            let text = format!("{whole}.{fraction}");
            let scale = 10u128.pow(18 - fraction.len() as u32);
            let oracle = u128::from(whole) * 10u128.pow(18) + fraction.parse::<u128>().unwrap_or_default() * scale;
            prop_assert_eq!(Wei::from_units(&text), Ok(Wei::from(oracle)));
        }

        #[test]
        fn threat_06_no_text_outside_the_grammar_is_accepted(text in ".{0,24}") {
            let grammar = {
                let mut parts = text.split('.');
                let whole = parts.next().unwrap_or_default();
                let fraction = parts.next();
                let rest = parts.next();
                let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
                digits(whole) && rest.is_none() && fraction.is_none_or(|f| digits(f) && f.len() <= 18)
            };
            prop_assert_eq!(Wei::from_units(&text).is_ok(), grammar);
        }
    }
}
