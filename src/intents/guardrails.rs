//! The rules that only humans can set, applied to an intent. Pure; every violation is found, and the strictest rule wins.

use alloy::primitives::Address;

use crate::agents::Guardrails;
use crate::money::Wei;

/// What of an intent the rules look at.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The chain's registry name.
    pub chain: &'a str,
    /// The recipient.
    pub to: Address,
    /// The amount.
    pub value: Wei,
    /// Gas limit and the fee it can cost at most (gas limit × fee cap), once they are known.
    pub gas: Option<(u64, Wei)>,
}

/// What of the rolling 24 hours counts already, this intent not included.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Sum of amounts.
    pub value_sum: Wei,
    /// Sum of the fees that could have been paid.
    pub fee_sum: Wei,
}

/// One broken rule. Its text follows "Transaction denied by guardrail: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// `tx_allowed_chains`.
    #[error("chain {0} is not in tx_allowed_chains")]
    Chain(String),
    /// `tx_to_allowlist`.
    #[error("destination {0} is not in tx_to_allowlist")]
    Recipient(Address),
    /// `tx_max_value_eth`.
    #[error("value {} ETH exceeds tx_max_value_eth {} ETH", .value.to_units(), .limit.to_units())]
    Value {
        /// Asked for.
        value: Wei,
        /// The cap.
        limit: Wei,
    },
    /// `tx_daily_limit_eth`.
    #[error("rolling 24h total {} ETH would exceed tx_daily_limit_eth {} ETH", .total.to_units(), .limit.to_units())]
    DailyValue {
        /// With this intent.
        total: Wei,
        /// The limit.
        limit: Wei,
    },
    /// `tx_max_gas_limit`.
    #[error("gas_limit {gas_limit} exceeds tx_max_gas_limit {limit}")]
    GasLimit {
        /// Asked for, or estimated.
        gas_limit: u64,
        /// The cap.
        limit: u64,
    },
    /// `tx_max_fee_eth`.
    #[error("fee of up to {} ETH exceeds tx_max_fee_eth {} ETH", .fee.to_units(), .limit.to_units())]
    Fee {
        /// Gas limit × fee cap.
        fee: Wei,
        /// The cap.
        limit: Wei,
    },
    /// `tx_daily_fee_limit_eth`.
    #[error("rolling 24h fees of up to {} ETH would exceed tx_daily_fee_limit_eth {} ETH", .total.to_units(), .limit.to_units())]
    DailyFee {
        /// With this intent.
        total: Wei,
        /// The limit.
        limit: Wei,
    },
    /// The sums themselves would overflow: no rule can be applied to that.
    #[error("the rolling 24h total would exceed 2^256 wei")]
    Overflow,
}

/// Everything that can be told of the intent alone.
#[must_use]
pub fn check(rules: &Guardrails, facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !rules.allowed_chains.is_empty() && !rules.allowed_chains.iter().any(|name| name == facts.chain) {
        violations.push(Violation::Chain(facts.chain.to_owned()));
    }
    if !rules.to_allowlist.is_empty() && !rules.to_allowlist.contains(&facts.to) {
        violations.push(Violation::Recipient(facts.to));
    }
    if let Some(limit) = rules.max_value.filter(|limit| facts.value > *limit) {
        violations.push(Violation::Value { value: facts.value, limit });
    }
    if let Some((gas_limit, fee)) = facts.gas {
        if let Some(limit) = rules.max_gas_limit.filter(|limit| gas_limit > *limit) {
            violations.push(Violation::GasLimit { gas_limit, limit });
        }
        if let Some(limit) = rules.max_fee.filter(|limit| fee > *limit) {
            violations.push(Violation::Fee { fee, limit });
        }
    }
    violations
}

/// What depends on the rolling 24 hours, and what the sums become. Called with the window's row locked.
///
/// # Errors
/// The broken rules, or [`Violation::Overflow`].
pub fn check_window(rules: &Guardrails, window: Window, value: Wei, fee: Wei) -> Result<Window, Vec<Violation>> {
    let (Some(value_sum), Some(fee_sum)) = (window.value_sum.checked_add(value), window.fee_sum.checked_add(fee))
    else {
        return Err(vec![Violation::Overflow]);
    };
    let mut violations = Vec::new();
    if let Some(limit) = rules.daily_limit.filter(|limit| value_sum > *limit) {
        violations.push(Violation::DailyValue { total: value_sum, limit });
    }
    if let Some(limit) = rules.daily_fee_limit.filter(|limit| fee_sum > *limit) {
        violations.push(Violation::DailyFee { total: fee_sum, limit });
    }
    if violations.is_empty() { Ok(Window { value_sum, fee_sum }) } else { Err(violations) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::address;
    use proptest::prelude::*;

    const A: Address = address!("00000000000000000000000000000000000000aa");
    const B: Address = address!("00000000000000000000000000000000000000bb");

    fn facts(to: Address, value: u64) -> Facts<'static> {
        Facts { chain: "base", to, value: Wei::from(value), gas: Some((21_000, Wei::from(1_000_000_000u64))) }
    }

    #[test]
    fn each_rule_refuses_what_it_names_and_nothing_else() {
        let open = Guardrails::default();
        let cases = [
            (open.clone(), facts(A, 5), None),
            (Guardrails { to_allowlist: vec![A], ..open.clone() }, facts(A, 5), None),
            (Guardrails { to_allowlist: vec![A], ..open.clone() }, facts(B, 5), Some("is not in tx_to_allowlist")),
            (Guardrails { allowed_chains: vec!["base".into()], ..open.clone() }, facts(A, 5), None),
            (
                Guardrails { allowed_chains: vec!["polygon".into()], ..open.clone() },
                facts(A, 5),
                Some("chain base is not in"),
            ),
            (Guardrails { max_value: Some(Wei::from(5u64)), ..open.clone() }, facts(A, 5), None),
            (Guardrails { max_value: Some(Wei::from(4u64)), ..open.clone() }, facts(A, 5), Some("tx_max_value_eth")),
            (Guardrails { max_value: Some(Wei::ZERO), ..open.clone() }, facts(A, 0), None),
            (Guardrails { max_gas_limit: Some(20_999), ..open.clone() }, facts(A, 5), Some("tx_max_gas_limit")),
            (Guardrails { max_fee: Some(Wei::from(999_999_999u64)), ..open }, facts(A, 0), Some("tx_max_fee_eth")),
        ];
        for (rules, facts, expected) in cases {
            let texts: Vec<String> = check(&rules, &facts).iter().map(ToString::to_string).collect();
            match expected {
                None => assert!(texts.is_empty(), "{rules:?}: {texts:?}"),
                Some(part) => assert!(texts.len() == 1 && texts[0].contains(part), "{rules:?}: {texts:?}"),
            }
        }
    }

    #[test]
    fn threat_09_every_rule_that_is_broken_refuses_whatever_the_others_allow() {
        let rules = Guardrails {
            to_allowlist: vec![A],
            allowed_chains: vec!["polygon".into()],
            max_value: Some(Wei::from(1u64)),
            ..Guardrails::default()
        };
        assert_eq!(check(&rules, &facts(B, 5)).len(), 3);
        assert_eq!(check(&rules, &facts(A, 1)).len(), 1);
    }

    #[test]
    fn the_window_counts_to_the_limit_and_not_past_it() {
        let rules = Guardrails { daily_limit: Some(Wei::from(10u64)), ..Guardrails::default() };
        let at = |sum: u64| Window { value_sum: Wei::from(sum), fee_sum: Wei::ZERO };
        assert!(check_window(&rules, at(9), Wei::from(1u64), Wei::ZERO).is_ok());
        assert!(check_window(&rules, at(9), Wei::from(2u64), Wei::ZERO).is_err());
        let full = Window { value_sum: Wei(alloy::primitives::U256::MAX), fee_sum: Wei::ZERO };
        assert_eq!(
            check_window(&Guardrails::default(), full, Wei::from(1u64), Wei::ZERO).map(|_| ()),
            Err(vec![Violation::Overflow])
        );
    }

    #[test]
    fn refusals_carry_the_words_that_clients_look_for() {
        let error = crate::intents::IntentError::Guardrail(vec![Violation::Recipient(A)]);
        let text = error.to_string();
        assert!(text.starts_with("Transaction denied by guardrail: destination 0x"), "{text}");
        for word in ["no scopes", "scopes do not cover", "token has been revoked"] {
            assert!(!text.contains(word));
        }
    }

    proptest! {
        /// If an amount passes, every smaller one does.
        #[test]
        fn a_guardrail_is_monotone_in_value(limit in any::<u64>(), sum in any::<u64>(), value in any::<u64>(), less in any::<u64>()) {
            let rules = Guardrails {
                max_value: Some(Wei::from(limit)),
                daily_limit: Some(Wei::from(limit)),
                ..Guardrails::default()
            };
            let passes = |value: u64| {
                let window = Window { value_sum: Wei::from(sum), fee_sum: Wei::ZERO };
                check(&rules, &facts(A, value)).is_empty() && check_window(&rules, window, Wei::from(value), Wei::ZERO).is_ok()
            };
            prop_assert!(!passes(value) || passes(value.min(less)));
        }
    }
}
