//! What moved: the sums of all transfers, by account and asset. Pure.

use std::collections::BTreeMap;
use std::fmt;

use alloy::primitives::{Address, B256, Sign, Signed, U256, Uint, address, b256};

use super::EventLog;

/// Where `eth_simulateV1` reports native transfers, as if it were a token.
pub const NATIVE: Address = address!("eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee");
/// `Transfer(address,address,uint256)`, of ERC-20 with three topics and of ERC-721 with four.
pub const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
/// A signed sum of 256-bit amounts, in smallest units. With 64 bits to spare no number of transfers overflows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(Signed<320, 5>);

impl Delta {
    /// The amount as a gain.
    #[must_use]
    pub fn gain(amount: U256) -> Self {
        let [a, b, c, d] = *amount.as_limbs();
        Self(Signed::from_raw(Uint::from_limbs([a, b, c, d, 0])))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The opposite.
    #[must_use]
    pub fn negated(self) -> Self {
        Self(-self.0)
    }

    /// Whether nothing moved in the end.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// How much was lost, 0 where there is a gain; `None` above 2^256 − 1, which only a token that lies can reach.
    #[must_use]
    pub fn loss(self) -> Option<U256> {
        let (sign, size) = self.0.into_sign_and_abs();
        match (sign, size.into_limbs()) {
            (Sign::Positive, _) => Some(U256::ZERO),
            (Sign::Negative, [a, b, c, d, 0]) => Some(U256::from_limbs([a, b, c, d])),
            (Sign::Negative, _) => None,
        }
    }

    /// An exact decimal with this many decimals and no trailing zeros: `"-0.51"`, `"0.5"`, `"0"`.
    #[must_use]
    pub fn to_units(self, decimals: u8) -> String {
        let (sign, size) = self.0.into_sign_and_abs();
        let digits = format!("{:0>width$}", size.to_string(), width = usize::from(decimals) + 1);
        let (whole, fraction) = digits.split_at(digits.len() - usize::from(decimals));
        let sign = if sign == Sign::Negative { "-" } else { "" };
        match fraction.trim_end_matches('0') {
            "" => format!("{sign}{whole}"),
            fraction => format!("{sign}{whole}.{fraction}"),
        }
    }

    /// As [`Delta::to_units`], with a `+` before a gain.
    #[must_use]
    pub fn to_signed_units(self, decimals: u8) -> String {
        let text = self.to_units(decimals);
        if self.0.is_positive() && !self.0.is_zero() { format!("+{text}") } else { text }
    }
}

impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_signed_units(0))
    }
}

/// An account and an asset; `None` is the native unit.
pub type Position = (Address, Option<Address>);

/// What moved, by account and asset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved(BTreeMap<Position, Delta>);

impl Moved {
    /// One transfer. The zero address mints and burns: it has no balance of its own.
    pub fn transfer(&mut self, token: Option<Address>, from: Address, to: Address, amount: U256) {
        let gain = Delta::gain(amount);
        self.add((from, token), gain.negated());
        self.add((to, token), gain);
    }

    /// One position changes by this much.
    pub fn change(&mut self, position: Position, delta: Delta) {
        self.add(position, delta);
    }

    /// What an event says moved; an event that is no transfer says nothing.
    pub fn log(&mut self, log: &EventLog) {
        let Ok(amount) = <[u8; 32]>::try_from(log.data.as_ref()).map(U256::from_be_bytes) else { return };
        let token = (log.address != NATIVE).then_some(log.address);
        if let [TRANSFER, from, to] = log.topics.as_slice() {
            self.transfer(token, Address::from_word(*from), Address::from_word(*to), amount);
        }
    }

    /// All that is in `other` too.
    pub fn merge(&mut self, other: &Self) {
        for (position, delta) in &other.0 {
            self.add(*position, *delta);
        }
    }

    /// The change of one position.
    #[must_use]
    pub fn of(&self, position: Position) -> Delta {
        self.0.get(&position).copied().unwrap_or_default()
    }

    /// All positions that changed in the end, by address and asset.
    pub fn changes(&self) -> impl Iterator<Item = (Position, Delta)> {
        self.0.iter().filter(|(_, delta)| !delta.is_zero()).map(|(position, delta)| (*position, *delta))
    }

    fn add(&mut self, position: Position, delta: Delta) {
        let (account, token) = position;
        if account.is_zero() && token.is_some() {
            return;
        }
        let sum = self.0.entry(position).or_default();
        *sum = sum.plus(delta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Address = Address::repeat_byte(0xa);
    const B: Address = Address::repeat_byte(0xb);
    const TOKEN: Address = Address::repeat_byte(0xc);

    fn log(address: Address, topics: &[B256], amount: U256) -> EventLog {
        EventLog { address, topics: topics.to_vec(), data: amount.to_be_bytes::<32>().into() }
    }

    #[test]
    fn decimals_are_exact_and_carry_their_sign() {
        let delta = |amount: u128| Delta::gain(U256::from(amount));
        let table = [
            (delta(500_000_000_000_000_000), 18, "+0.5"),
            (delta(510_000_000_000_000_000).negated(), 18, "-0.51"),
            (delta(1).negated(), 18, "-0.000000000000000001"),
            (delta(5_000_000), 6, "+5"),
            (delta(0), 18, "0"),
            (delta(7), 0, "+7"),
            (delta(100).negated(), 0, "-100"),
            (delta(1), 77, "+0.00000000000000000000000000000000000000000000000000000000000000000000000000001"),
        ];
        for (delta, decimals, expected) in table {
            assert_eq!(delta.to_signed_units(decimals), expected);
        }
        let twice = Delta::gain(U256::MAX).plus(Delta::gain(U256::MAX)).negated();
        assert_eq!(twice.loss(), None);
        assert_eq!(Delta::gain(U256::MAX).negated().loss(), Some(U256::MAX));
        assert_eq!(Delta::gain(U256::MAX).loss(), Some(U256::ZERO));
    }

    #[test]
    fn transfers_mints_and_burns_are_summed_and_nft_transfers_are_not_amounts() {
        let (a, b, ten) = (A.into_word(), B.into_word(), U256::from(10));
        let mut moved = Moved::default();
        moved.log(&log(NATIVE, &[TRANSFER, a, b], ten));
        moved.log(&log(TOKEN, &[TRANSFER, a, b], ten));
        moved.log(&log(TOKEN, &[TRANSFER, b, a], U256::from(3)));
        moved.log(&log(TOKEN, &[TRANSFER, B256::ZERO, b], ten));
        moved.log(&log(TOKEN, &[TRANSFER, a, B256::ZERO], U256::from(1)));
        moved.log(&log(TOKEN, &[TRANSFER, a, b, B256::with_last_byte(9)], U256::ZERO));
        moved.log(&EventLog { address: TOKEN, topics: vec![TRANSFER, a, b], data: Default::default() });
        let changes: Vec<_> = moved.changes().map(|((who, token), delta)| (who, token, delta.to_string())).collect();
        let text = |text: &str| text.to_owned();
        assert_eq!(
            changes,
            [
                (A, None, text("-10")),
                (A, Some(TOKEN), text("-8")),
                (B, None, text("+10")),
                (B, Some(TOKEN), text("+17")),
            ]
        );
    }

    proptest! {
        #[test]
        fn transfers_between_accounts_sum_to_nothing(
            transfers in prop::collection::vec((1u8..5, 1u8..5, any::<[u64; 4]>()), 0..20)
        ) {
            let mut moved = Moved::default();
            for (from, to, amount) in transfers {
                let amount = U256::from_limbs(amount);
                moved.transfer(Some(TOKEN), Address::repeat_byte(from), Address::repeat_byte(to), amount);
            }
            let sum = moved.changes().fold(Delta::default(), |sum, (_, delta)| sum.plus(delta));
            prop_assert!(sum.is_zero());
        }

        #[test]
        fn an_amount_reads_as_the_money_module_writes_it(wei: u128) {
            let text = Delta::gain(U256::from(wei)).to_units(18);
            prop_assert_eq!(text, crate::money::Wei::from(wei).to_units());
        }
    }
}
