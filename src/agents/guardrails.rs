//! What an agent's transactions are held to. Pure.

mod json;

use std::collections::BTreeMap;

use alloy::primitives::{Address, U256};

use crate::money::Wei;

/// What an agent's transactions are held to. Empty and `None` mean unrestricted, as the wire contract has it. Amounts are in the
/// native unit of the chain's spend group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guardrails {
    /// Whom it may send to: the recipients of native value, and of tokens, and those who may take tokens.
    pub to_allowlist: Vec<Address>,
    /// On which chains, by the registry's names.
    pub allowed_chains: Vec<String>,
    /// The most value of one transaction.
    pub max_value: Option<Wei>,
    /// The most value in any 24 hours.
    pub daily_limit: Option<Wei>,
    /// The most that one transaction may cost in fees (gas limit × fee cap).
    pub max_fee: Option<Wei>,
    /// The most that may be spent on fees in any 24 hours.
    pub daily_fee_limit: Option<Wei>,
    /// The most gas of one transaction.
    pub max_gas_limit: Option<u64>,
    /// The most transactions in any 24 hours.
    pub max_per_day: Option<u64>,
    /// Which tokens it may move or approve.
    pub token_allowlist: Vec<OnChain>,
    /// How much of which token.
    pub token_limits: Vec<TokenLimit>,
    /// Which contracts it may call. Under a recipient allowlist also: which it may call although what the call does is not known.
    pub contract_allowlist: Vec<Callable>,
    /// Nobody may be given leave to take any amount of a token.
    pub block_unlimited_approvals: bool,
    /// Calls that change who commands a contract, or its code, and delegatecalls, are off unless this is set.
    pub allow_privileged_calls: bool,
    /// So many denials within an hour, and the agent is frozen.
    pub suspend_after_denials: Option<u16>,
    /// Further restrictions by chain (the registry's name). Of these and the above both hold.
    pub per_chain: BTreeMap<String, ChainGuardrails>,
}

/// What holds on one chain beside everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainGuardrails {
    /// The most value of one transaction.
    pub max_value: Option<Wei>,
    /// The most value in any 24 hours.
    pub daily_limit: Option<Wei>,
    /// Whom it may send to.
    pub to_allowlist: Vec<Address>,
    /// Which tokens it may move or approve.
    pub token_allowlist: Vec<Address>,
    /// The most transactions in any 24 hours.
    pub max_per_day: Option<u64>,
    /// The most wei per gas.
    pub max_fee_per_gas_wei: Option<u128>,
    /// The most gas of one transaction.
    pub max_gas_limit: Option<u64>,
    /// The most that may be spent on fees in any 24 hours.
    pub gas_daily_budget: Option<Wei>,
}

/// A contract, on one chain or at that address on every chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnChain {
    /// The registry's name; `None` is every chain.
    pub chain: Option<String>,
    /// The contract.
    pub address: Address,
}

impl OnChain {
    /// Whether it is this contract on this chain.
    #[must_use]
    pub fn is(&self, chain: &str, address: Address) -> bool {
        self.address == address && self.chain.as_deref().is_none_or(|own| own == chain)
    }
}

/// How much of a token, in its smallest unit. Transferred and approved amounts count alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenLimit {
    /// Which token. Without a chain, each chain's counts by itself.
    pub token: OnChain,
    /// The most of one transaction.
    pub max_value: Option<U256>,
    /// The most in any 24 hours.
    pub daily_limit: Option<U256>,
    /// With how many decimals the amounts are written; 0 is the smallest unit.
    pub decimals: u8,
}

/// A contract that may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callable {
    /// Which.
    pub contract: OnChain,
    /// By which functions; `None` is by any, and by its fallback.
    pub selectors: Option<Vec<[u8; 4]>>,
}

impl Callable {
    /// Whether it is this function of this contract. `None` is the fallback.
    #[must_use]
    pub fn is(&self, chain: &str, contract: Address, selector: Option<[u8; 4]>) -> bool {
        let listed = |list: &Vec<[u8; 4]>| selector.is_some_and(|selector| list.contains(&selector));
        self.contract.is(chain, contract) && self.selectors.as_ref().is_none_or(listed)
    }
}

impl Callable {
    /// Whether it allows all that `other` allows.
    fn covers(&self, other: &Self) -> bool {
        let chain = self.contract.chain.is_none() || self.contract.chain == other.contract.chain;
        let selectors = match (&self.selectors, &other.selectors) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => others.iter().all(|selector| own.contains(selector)),
        };
        chain && self.contract.address == other.contract.address && selectors
    }
}

fn gone<T>(before: &[T], after: &[T]) -> bool {
    !before.is_empty() && after.is_empty()
}

fn lost<T>(before: Option<T>, after: Option<T>) -> bool {
    before.is_some() && after.is_none()
}

impl Guardrails {
    /// Whether anything is set that clients of the first hour do not know.
    #[must_use]
    pub fn has_rules_beyond_amounts(&self) -> bool {
        !self.to_json().is_empty()
    }

    /// Under a recipient allowlist a listed contract is called although what the call does is not known: there an entry more, or one for
    /// more functions, lets through what nothing let through before.
    fn lets_more_through(&self, after: &Self) -> bool {
        let recipients =
            !self.to_allowlist.is_empty() || self.per_chain.values().any(|own| !own.to_allowlist.is_empty());
        recipients
            && !after.contract_allowlist.iter().all(|new| self.contract_allowlist.iter().any(|old| old.covers(new)))
    }

    /// The restrictions that `after` no longer has at all, and those by which it allows more, by their fields.
    #[must_use]
    pub fn lifted(&self, after: &Self) -> Vec<&'static str> {
        let (old, new) = (self, after);
        let limit_gone = |limit: &TokenLimit| {
            let kept = new.token_limits.iter().find(|other| other.token == limit.token);
            let (value, daily) = kept.map_or((None, None), |kept| (kept.max_value, kept.daily_limit));
            lost(limit.max_value, value) || lost(limit.daily_limit, daily)
        };
        let none = ChainGuardrails::default();
        let chain_lifted =
            old.per_chain.iter().any(|(chain, rails)| rails.lifts(new.per_chain.get(chain).unwrap_or(&none)));
        let lifted = [
            ("tx_to_allowlist", gone(&old.to_allowlist, &new.to_allowlist)),
            ("tx_allowed_chains", gone(&old.allowed_chains, &new.allowed_chains)),
            ("tx_max_value_eth", lost(old.max_value, new.max_value)),
            ("tx_daily_limit_eth", lost(old.daily_limit, new.daily_limit)),
            ("tx_max_fee_eth", lost(old.max_fee, new.max_fee)),
            ("tx_daily_fee_limit_eth", lost(old.daily_fee_limit, new.daily_fee_limit)),
            ("tx_max_gas_limit", lost(old.max_gas_limit, new.max_gas_limit)),
            ("tx_max_per_day", lost(old.max_per_day, new.max_per_day)),
            ("tx_token_allowlist", gone(&old.token_allowlist, &new.token_allowlist)),
            ("tx_token_limits", old.token_limits.iter().any(limit_gone)),
            (
                "tx_contract_allowlist",
                gone(&old.contract_allowlist, &new.contract_allowlist) || old.lets_more_through(new),
            ),
            ("tx_block_unlimited_approvals", old.block_unlimited_approvals && !new.block_unlimited_approvals),
            ("tx_allow_privileged_calls", !old.allow_privileged_calls && new.allow_privileged_calls),
            ("tx_suspend_after_denials", lost(old.suspend_after_denials, new.suspend_after_denials)),
            ("per_chain_guardrails", chain_lifted),
        ];
        lifted.into_iter().filter(|(_, lifted)| *lifted).map(|(name, _)| name).collect()
    }
}

impl ChainGuardrails {
    fn lifts(&self, after: &Self) -> bool {
        lost(self.max_value, after.max_value)
            || lost(self.daily_limit, after.daily_limit)
            || gone(&self.to_allowlist, &after.to_allowlist)
            || gone(&self.token_allowlist, &after.token_allowlist)
            || lost(self.max_per_day, after.max_per_day)
            || lost(self.max_fee_per_gas_wei, after.max_fee_per_gas_wei)
            || lost(self.max_gas_limit, after.max_gas_limit)
            || lost(self.gas_daily_budget, after.gas_daily_budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_09_a_contract_or_function_more_under_a_recipient_list_is_a_widening() {
        let entry = |chain: Option<&str>, selectors: Option<Vec<[u8; 4]>>| Callable {
            contract: OnChain { chain: chain.map(str::to_owned), address: Address::repeat_byte(7) },
            selectors,
        };
        let rules = |recipients: bool, list: Vec<Callable>| Guardrails {
            to_allowlist: if recipients { vec![Address::repeat_byte(1)] } else { vec![] },
            contract_allowlist: list,
            ..Guardrails::default()
        };
        let one = || Some(vec![[1, 2, 3, 4]]);
        let two = || Some(vec![[1, 2, 3, 4], [5, 6, 7, 8]]);
        let cases = [
            (vec![], vec![entry(None, one())], true),
            (vec![entry(None, one())], vec![entry(None, two())], true),
            (vec![entry(None, two())], vec![entry(None, None)], true),
            (vec![entry(Some("base"), None)], vec![entry(None, None)], true),
            (vec![entry(None, two())], vec![entry(Some("base"), one())], false),
            (vec![entry(None, None)], vec![entry(None, None)], false),
        ];
        for (before, after, widens) in cases {
            for recipients in [true, false] {
                let lifted = rules(recipients, before.clone()).lifted(&rules(recipients, after.clone()));
                let expected: &[&str] = if widens && recipients { &["tx_contract_allowlist"] } else { &[] };
                assert_eq!(lifted, expected, "{before:?} {after:?}");
            }
        }
    }
}
