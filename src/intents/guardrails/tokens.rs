//! The rules about tokens, on what the calldata says and on what a simulation showed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, U256};

use super::{Facts, Rules, Seen, Violation};
use crate::agents::{Guardrails, TokenLimit};
use crate::intents::calldata::{Calls, Change, Kind, TokenEffect};

/// Whether any rule about tokens is in force.
pub(super) fn matter(rules: Rules<'_>) -> bool {
    rules.all.block_unlimited_approvals
        || !rules.all.token_allowlist.is_empty()
        || rules.own.is_some_and(|own| !own.token_allowlist.is_empty())
        || rules.all.token_limits.iter().any(|limit| on_this_chain(rules, limit))
}

/// Whether these rules cannot be applied to these calls without a simulation.
#[must_use]
pub fn needs_effects(rules: &Guardrails, chain: &str, calls: &Calls) -> bool {
    !calls.understood() && matter(Rules::on(rules, chain))
}

fn on_this_chain(rules: Rules<'_>, limit: &TokenLimit) -> bool {
    limit.token.is(rules.chain, limit.token.address)
}

/// The token allowlists that are in force and lack a token, by their fields.
fn lists_without(rules: Rules<'_>, token: Address) -> Vec<String> {
    let all = &rules.all.token_allowlist;
    let lacks_all = !all.is_empty() && !all.iter().any(|listed| listed.is(rules.chain, token));
    let lacks_own =
        rules.own.is_some_and(|own| !own.token_allowlist.is_empty() && !own.token_allowlist.contains(&token));
    let names = [("tx_token_allowlist".to_owned(), lacks_all), (rules.field("token_allowlist"), lacks_own)];
    names.into_iter().filter(|(_, lacks)| *lacks).map(|(field, _)| field).collect()
}

pub(super) fn check(rules: Rules<'_>, facts: &Facts<'_>, violations: &mut Vec<Violation>) {
    let Some(signer) = facts.signer else { return };
    let recipients = rules.recipients();
    let seen = facts.seen.effects().map_or(&[][..], |effects| &effects.tokens);
    let said = facts.calls.tokens.iter().map(|effect| (effect, false));
    for (effect, simulated) in said.chain(seen.iter().map(|effect| (effect, true))) {
        let lists = lists_without(rules, effect.token).into_iter();
        violations.extend(lists.map(|field| Violation::Token { token: effect.token, field }));
        if !counts(effect, signer) {
            continue;
        }
        if rules.all.block_unlimited_approvals && effect.is_unlimited() {
            violations.push(Violation::Unlimited(*effect));
        }
        // What a simulation shows to go to nobody is burnt: it counts, but nobody gets it.
        let burnt = simulated && effect.change == Change::Transfer && effect.party.is_zero();
        for (field, list) in recipients.iter().filter(|_| !burnt) {
            if !list.contains(&effect.party) {
                let role = if effect.change == Change::Transfer { "recipient" } else { "spender" };
                violations.push(Violation::TokenParty { role, effect: *effect, field: field.clone() });
            }
        }
    }
    for (token, amount) in amounts(facts) {
        for limit in limits(rules, token).filter_map(|limit| limit.max_value) {
            if amount > limit {
                violations.push(Violation::TokenValue { token, amount, limit });
            }
        }
    }
    if matter(rules) {
        let unknown = facts.calls.calls.iter().filter(|call| call.kind == Kind::Unknown);
        // A simulation shows what goes from the signer, not what goes from a wallet that it commands.
        violations.extend(unknown.filter_map(|call| match call.by {
            Some(by) => Some(Violation::UnseenWallet { by, contract: call.target, selector: call.selector }),
            None if matches!(facts.seen, Seen::Nothing) => {
                Some(Violation::Unseen { contract: call.target, selector: call.selector })
            }
            None => None,
        }));
    }
}

/// What comes to the signer, and what nobody may take any more, costs nothing.
fn counts(effect: &TokenEffect, signer: Address) -> bool {
    effect.party != signer && effect.change != Change::Revocation
}

/// The limits that hold for a token here: one for every chain and one for this may both be there.
pub(super) fn limits<'a>(rules: Rules<'a>, token: Address) -> impl Iterator<Item = &'a TokenLimit> {
    rules.all.token_limits.iter().filter(move |limit| limit.token.is(rules.chain, token))
}

/// How much of each token the transaction takes: what is transferred and approved together, by the calldata or by the simulation,
/// whichever says more.
pub(super) fn amounts(facts: &Facts<'_>) -> BTreeMap<Address, U256> {
    let Some(signer) = facts.signer else { return BTreeMap::new() };
    let sums = |effects: &[TokenEffect]| {
        let mut sums: BTreeMap<Address, U256> = BTreeMap::new();
        for effect in effects.iter().filter(|effect| counts(effect, signer)) {
            let sum = sums.entry(effect.token).or_default();
            *sum = sum.saturating_add(effect.amount);
        }
        sums
    };
    let said = sums(&facts.calls.tokens);
    let seen = facts.seen.effects().map(|effects| sums(&effects.tokens)).unwrap_or_default();
    let tokens: BTreeSet<Address> = said.keys().chain(seen.keys()).copied().collect();
    let of = |sums: &BTreeMap<Address, U256>, token| sums.get(&token).copied().unwrap_or_default();
    tokens.into_iter().map(|token| (token, of(&said, token).max(of(&seen, token)))).collect()
}
