//! What can be told of a transaction without simulating it: that no node's pool would take it. Pure.

use super::Trial;
use crate::chain::{Kind, LimitError};
use crate::money::Wei;

/// What the chain and the key are like.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The chain's family.
    pub kind: Kind,
    /// Symbol of the native unit.
    pub unit: &'a str,
    /// The registry's most gas of one transaction.
    pub chain_gas_max: u64,
    /// The latest block's gas limit.
    pub block_gas_limit: u64,
    /// The latest block's base fee, in wei per gas.
    pub base_fee: Option<u128>,
    /// What the key has in mined blocks.
    pub balance: Wei,
    /// What its unmined transactions can still cost, and those before this one in its bundle.
    pub taken: Wei,
}

/// Why it could not even start, as a short word and a sentence; `None` when only a simulation can tell.
#[must_use]
pub fn refusal(trial: &Trial, facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let tx = &trial.tx;
    match tx.check_limits(facts.kind, facts.chain_gas_max, facts.block_gas_limit) {
        Err(error) => {
            let code = match error {
                LimitError::GasBelowIntrinsic { .. } => "intrinsic_gas",
                LimitError::GasAboveLimit { .. } => "gas_limit",
                LimitError::TooLong { .. } => "too_long",
                LimitError::CostOverflow => "insufficient_funds",
            };
            return Some((code, error.to_string()));
        }
        Ok(()) if !trial.paid => {}
        Ok(()) => {
            let offered = tx.fees.max_per_gas();
            if let Some(base_fee) = facts.base_fee.filter(|base_fee| offered < *base_fee) {
                let text = format!("the fee of {offered} wei per gas is below the chain's base fee of {base_fee}");
                return Some(("fee_below_base_fee", text));
            }
        }
    }
    let cost = if trial.paid { tx.max_cost()? } else { tx.value };
    let free = facts.balance.checked_sub(facts.taken).unwrap_or(Wei::ZERO);
    (cost > free).then(|| {
        let Facts { balance, taken, unit, .. } = facts;
        let text = format!(
            "insufficient funds: {} has {} {unit}, {} of it taken by what comes first, and this one needs up to {}",
            tx.from,
            balance.to_units(),
            taken.to_units(),
            cost.to_units()
        );
        ("insufficient_funds", text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{ChainId, Fees, UnsignedTx};
    use alloy::primitives::{Address, Bytes};

    #[test]
    fn what_no_pool_takes_is_told_without_asking() {
        let tx = UnsignedTx {
            chain_id: ChainId(1),
            from: Address::ZERO,
            to: Address::ZERO,
            value: Wei::from(100u64),
            data: Bytes::new(),
            gas_limit: 21_000,
            fees: Fees::Legacy { gas_price: 10 },
        };
        let facts = Facts {
            kind: Kind::Ethereum,
            unit: "ETH",
            chain_gas_max: 30_000_000,
            block_gas_limit: 30_000_000,
            base_fee: Some(10),
            balance: Wei::from(210_100u64),
            taken: Wei::ZERO,
        };
        let paid = |tx: UnsignedTx| Trial { tx, paid: true };
        let code = |trial: &Trial, facts: &Facts<'_>| refusal(trial, facts).map(|(code, _)| code);
        assert_eq!(code(&paid(tx.clone()), &facts), None);
        let cheap = Facts { base_fee: Some(11), ..facts };
        let poor = Facts { taken: Wei::from(1u64), ..facts };
        let table = [
            (paid(UnsignedTx { gas_limit: 20_999, ..tx.clone() }), facts, "intrinsic_gas"),
            (paid(UnsignedTx { gas_limit: 30_000_001, ..tx.clone() }), facts, "gas_limit"),
            (paid(tx.clone()), cheap, "fee_below_base_fee"),
            (paid(tx.clone()), poor, "insufficient_funds"),
        ];
        for (trial, facts, expected) in table {
            assert_eq!(code(&trial, &facts), Some(expected));
        }
        // A guess is not held against fee and balance, but the value is.
        let guess = Trial { tx, paid: false };
        assert_eq!(code(&guess, &cheap), None);
        assert_eq!(code(&guess, &poor), None);
        assert_eq!(code(&guess, &Facts { balance: Wei::from(99u64), ..facts }), Some("insufficient_funds"));
    }
}
