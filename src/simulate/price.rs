//! What gas costs in dollars: only where chains.toml names a price or an on-chain feed. For people; no rule rests on it.

use alloy::primitives::{Address, Bytes, I256, U256};
use rust_decimal::Decimal;
use serde_json::json;

use crate::chain::{ChainSpec, FeeQuote, Fees, Rpc};
use crate::money::Wei;

/// `latestRoundData()` of a Chainlink price feed.
const LATEST_ROUND_DATA: &str = "0xfeaf968c";
/// `decimals()`.
const DECIMALS: &str = "0x313ce567";
/// A feed that has not moved for longer than this, in seconds, says nothing: two heartbeats of the slowest.
const AGE_MAX_S: u64 = 2 * 86_400;
/// Decimals of the texts.
const USD_DECIMALS: u32 = 6;

/// Dollars for one native unit, where the chain has a source; `None` too where the feed cannot be read or is stale.
pub async fn usd_per_unit(spec: &ChainSpec, rpc: &Rpc, now_s: u64) -> Option<Decimal> {
    if let Some(feed) = spec.usd_feed {
        return read_feed(rpc, feed, now_s).await;
    }
    spec.usd_per_unit
}

async fn read_feed(rpc: &Rpc, feed: Address, now_s: u64) -> Option<Decimal> {
    let view = |data: &str| ("eth_call", json!([{"to": feed, "data": data}, "latest"]));
    let answers = rpc.batch(&[view(LATEST_ROUND_DATA), view(DECIMALS)]).await.ok()?;
    let mut answers = answers.into_iter().map(|answer| answer.ok()?.as_str()?.parse::<Bytes>().ok());
    let (round, decimals) = (answers.next()??, answers.next()??);
    price_of(&round, &decimals, now_s)
}

/// `(roundId, answer, startedAt, updatedAt, answeredInRound)` and the feed's decimals, as words.
fn price_of(round: &[u8], decimals: &[u8], now_s: u64) -> Option<Decimal> {
    let word = |data: &[u8], index: usize| -> Option<U256> {
        Some(U256::from_be_slice(data.get(32 * index..32 * (index + 1))?))
    };
    let answer = i128::try_from(I256::from_raw(word(round, 1)?)).ok()?;
    let updated_s: u64 = word(round, 3)?.try_into().ok()?;
    let scale: u32 = word(decimals, 0)?.try_into().ok()?;
    if answer <= 0 || updated_s.saturating_add(AGE_MAX_S) < now_s {
        return None;
    }
    Decimal::try_from_i128_with_scale(answer, scale).ok()
}

/// What `gas` costs at the prices of now, in dollars with at most six decimals. `None` beyond what a decimal holds.
#[must_use]
pub fn gas_in_usd(gas: u64, fees: Fees, quote: &FeeQuote, usd_per_unit: Decimal) -> Option<String> {
    let per_gas = match (fees, quote.base_fee) {
        (Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas }, Some(base_fee)) => {
            max_fee_per_gas.min(base_fee.saturating_add(max_priority_fee_per_gas))
        }
        (fees, _) => fees.max_per_gas(),
    };
    let wei = Wei::from(per_gas).checked_mul(gas)?;
    let wei = i128::try_from(wei.0).ok()?;
    let units = Decimal::try_from_i128_with_scale(wei, 18).ok()?;
    let usd = units.checked_mul(usd_per_unit)?.round_dp(USD_DECIMALS).normalize();
    Some(usd.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u128]) -> Vec<u8> {
        words.iter().flat_map(|word| U256::from(*word).to_be_bytes::<32>()).collect()
    }

    #[test]
    fn gas_is_priced_as_it_would_be_paid_now() {
        let quote = FeeQuote { base_fee: Some(10_000_000_000), gas_price: 0, priority_fee: 0 };
        let usd = Decimal::new(250_000, 2);
        let two = |max, tip| Fees::Eip1559 { max_fee_per_gas: max, max_priority_fee_per_gas: tip };
        let gwei = 1_000_000_000;
        assert_eq!(gas_in_usd(21_000, two(50 * gwei, gwei), &quote, usd).unwrap(), "0.5775");
        assert_eq!(gas_in_usd(21_000, two(10 * gwei, gwei), &quote, usd).unwrap(), "0.525");
        assert_eq!(gas_in_usd(21_000, Fees::Legacy { gas_price: 1 }, &quote, usd).unwrap(), "0");
        assert_eq!(gas_in_usd(u64::MAX, two(u128::MAX, 0), &quote, usd), None);
    }

    #[test]
    fn a_feed_is_read_while_it_is_fresh_and_above_zero() {
        let now = 1_800_000_000;
        let round = |answer: u128, updated: u64| words(&[1, answer, 0, u128::from(updated), 1]);
        let decimals = words(&[8]);
        assert_eq!(price_of(&round(250_012_000_000, now), &decimals, now), Some(Decimal::new(250_012_000_000, 8)));
        for (round, decimals) in [
            (round(0, now), decimals.clone()),
            (round(1, now - AGE_MAX_S - 1), decimals.clone()),
            (words(&[1, 5, 0]), decimals.clone()),
            (round(1, now), words(&[99])),
            (round(1, now), vec![]),
        ] {
            assert_eq!(price_of(&round, &decimals, now), None);
        }
    }
}
