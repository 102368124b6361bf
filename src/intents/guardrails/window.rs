//! What depends on the rolling 24 hours. Pure.
//!
//! Every sum is of the same kind: a window of an agent in some unit, with entries that leave it after 24 hours. The units are the
//! chain's spend group, where each intent has an entry, and, where a rule counts there: a chain by itself, a token on a chain, and the
//! number of transactions.

use std::collections::BTreeMap;

use alloy::primitives::{Address, U256};

use super::{Facts, Rules, Violation, tokens};
use crate::agents::Guardrails;
use crate::chain::ChainId;
use crate::money::Wei;

/// What of the rolling 24 hours counts already, this intent not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Sum of amounts, in the smallest unit of whatever is counted.
    pub value_sum: Wei,
    /// Sum of the fees that could have been paid, in wei.
    pub fee_sum: Wei,
}

/// What an intent takes of one window, and what the window may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The window: a spend group's name, or a unit with a colon in it, which no group has.
    pub unit: String,
    /// The amount. Given back when our own no-op takes the nonce.
    pub value: Wei,
    /// The fee, in wei. Never given back.
    pub fee: Wei,
    limits: Vec<Limit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    most: Wei,
    of: Of,
    field: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Value,
    Fee,
    Token(Address),
    Count,
}

/// How the units of tokens begin.
pub const TOKEN_UNITS: &str = "token:";

/// The window of a token on a chain.
#[must_use]
pub fn token_unit(chain_id: ChainId, token: Address) -> String {
    format!("{TOKEN_UNITS}{}:{token:#x}", chain_id.0)
}

/// The window of a chain.
#[must_use]
pub fn chain_unit(chain_id: ChainId) -> String {
    format!("chain:{}", chain_id.0)
}

/// The window that counts an agent's transactions on all chains.
pub const COUNT_UNIT: &str = "count:all";

/// What an intent takes of the rolling 24 hours: of its spend group always, of other windows only where a rule counts there. In the
/// order of the units' bytes, which is the order of their locks.
#[must_use]
pub fn charges(rules: &Guardrails, spend_group: &str, facts: &Facts<'_>) -> Vec<Charge> {
    let on_chain = Rules::on(rules, facts.chain);
    let (value, fee) = (facts.value(), facts.gas.map_or(Wei::ZERO, |gas| gas.max_fee));
    let limit = |most: Option<Wei>, of: Of, field: String| most.map(|most| Limit { most, of, field });
    let mut all: BTreeMap<String, Charge> = BTreeMap::new();
    let mut charge = |unit: String, value: Wei, fee: Wei, limits: Vec<Option<Limit>>| {
        let limits: Vec<Limit> = limits.into_iter().flatten().collect();
        if !limits.is_empty() || unit == spend_group {
            all.insert(unit.clone(), Charge { unit, value, fee, limits });
        }
    };
    let named = str::to_owned;
    charge(
        named(spend_group),
        value,
        fee,
        vec![
            limit(rules.daily_limit, Of::Value, named("tx_daily_limit_eth")),
            limit(rules.daily_fee_limit, Of::Fee, named("tx_daily_fee_limit_eth")),
        ],
    );
    let one = Wei::from(1u64);
    charge(
        named(COUNT_UNIT),
        one,
        Wei::ZERO,
        vec![limit(rules.max_per_day.map(Wei::from), Of::Count, named("tx_max_per_day"))],
    );
    if let Some(own) = on_chain.own {
        charge(
            chain_unit(facts.chain_id),
            value,
            fee,
            vec![
                limit(own.daily_limit, Of::Value, on_chain.field("daily_limit")),
                limit(own.gas_daily_budget, Of::Fee, on_chain.field("gas_daily_budget_native")),
            ],
        );
        let count = limit(own.max_per_day.map(Wei::from), Of::Count, on_chain.field("max_per_day"));
        charge(format!("count:{}", facts.chain_id.0), one, Wei::ZERO, vec![count]);
    }
    for (token, amount) in tokens::amounts(facts) {
        let limits = tokens::limits(on_chain, token)
            .map(|own| limit(own.daily_limit.map(Wei), Of::Token(token), String::new()))
            .collect();
        charge(token_unit(facts.chain_id, token), Wei(amount), Wei::ZERO, limits);
    }
    all.into_values()
        .filter(|charge| charge.unit == spend_group || charge.value.0 != U256::ZERO || charge.fee.0 != U256::ZERO)
        .collect()
}

/// What the sums of a charge's window become with it. Called with the window's row locked.
///
/// # Errors
/// The broken rules, or [`Violation::Overflow`].
pub fn check_window(charge: &Charge, window: Window) -> Result<Window, Vec<Violation>> {
    let (Some(value_sum), Some(fee_sum)) =
        (window.value_sum.checked_add(charge.value), window.fee_sum.checked_add(charge.fee))
    else {
        return Err(vec![Violation::Overflow]);
    };
    let mut violations = Vec::new();
    for Limit { most: limit, of, field } in charge.limits.iter().cloned() {
        let total = if of == Of::Fee { fee_sum } else { value_sum };
        if total > limit {
            violations.push(match of {
                Of::Value => Violation::DailyValue { total, limit, field },
                Of::Fee => Violation::DailyFee { total, limit, field },
                Of::Token(token) => Violation::DailyToken { token, total, limit },
                Of::Count => Violation::DailyCount { total, limit, field },
            });
        }
    }
    if violations.is_empty() { Ok(Window { value_sum, fee_sum }) } else { Err(violations) }
}

/// An intent under the rules, beside what counts already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// What it takes of each window, and the window's sums with it, in the order of the locks. Only what fits.
    pub charges: Vec<(Charge, Window)>,
    /// The rules that it breaks by itself.
    pub broken: Vec<Violation>,
    /// The rules that it breaks together with what counts already.
    pub exceeded: Vec<Violation>,
    /// Whether a window was not given: the rules that count there are not applied.
    pub unknown: bool,
}

impl Judged {
    /// Whether every rule was applied and none is broken.
    #[must_use]
    pub fn allows(&self) -> bool {
        self.broken.is_empty() && self.exceeded.is_empty() && !self.unknown
    }

    /// All broken rules.
    #[must_use]
    pub fn violations(self) -> Vec<Violation> {
        self.broken.into_iter().chain(self.exceeded).collect()
    }
}

/// The whole judgement: what a submit, a signature, a simulation and each of a bundle are held to. `windows` are the sums as they are.
#[must_use]
pub fn judge(
    rules: &Guardrails,
    spend_group: &str,
    facts: &Facts<'_>,
    windows: impl Fn(&str) -> Option<Window>,
) -> Judged {
    let mut judged = Judged { broken: super::check(rules, facts), ..Judged::default() };
    for charge in charges(rules, spend_group, facts) {
        match windows(&charge.unit).map(|window| check_window(&charge, window)) {
            None => judged.unknown = true,
            Some(Ok(sums)) => judged.charges.push((charge, sums)),
            Some(Err(broken)) => judged.exceeded.extend(broken),
        }
    }
    judged
}
