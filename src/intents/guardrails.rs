//! The rules that only humans can set, applied to an intent. Pure; every violation is found, and the strictest rule wins.
//!
//! [`judge`] is the one policy function: whatever makes, changes or only looks at a payload asks it about that payload. Its parts are
//! [`check`], for what needs no sums, and [`check_window`] for each of the [`charges`]. What is in the calldata and what a simulation
//! shows are held to the same rules; where both tell of the same token, the larger amount counts.

mod tokens;
mod violation;
mod window;

use alloy::primitives::{Address, U256};

use super::calldata::{Call, Calls, Kind};
use super::effects::Effects;
use crate::agents::{ChainGuardrails, Guardrails};
use crate::chain::{ChainId, Fees, UnsignedTx};
use crate::money::Wei;

pub use tokens::needs_effects;
pub use violation::Violation;
pub use window::{COUNT_UNIT, Charge, Judged, TOKEN_UNITS, Window, chain_unit, charges, check_window, judge};

/// Most violations that one refusal names.
const VIOLATIONS_MAX: usize = 12;

/// What of an intent the rules look at.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The chain's registry name.
    pub chain: &'a str,
    /// Its id.
    pub chain_id: ChainId,
    /// The address that signs; `None` while it is not known, and then what depends on it is left for later.
    pub signer: Option<Address>,
    /// What the calldata says; the first call is the transaction's own.
    pub calls: &'a Calls,
    /// Gas and fees, once they are known.
    pub gas: Option<Gas>,
    /// What a simulation showed.
    pub seen: Seen<'a>,
}

/// Gas and fees of an intent.
#[derive(Clone, Copy, Debug)]
pub struct Gas {
    /// The gas limit.
    pub limit: u64,
    /// The fee that it can cost at most: gas limit × fee cap.
    pub max_fee: Wei,
    /// The fee cap, in wei per gas.
    pub per_gas_wei: u128,
}

/// What is known beside the calldata.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// It is not simulated yet: what depends on that is left for later.
    Later,
    /// It is not, or not completely, simulated.
    Nothing,
    /// All that it would do.
    Effects(&'a Effects),
}

impl<'a> Seen<'a> {
    /// Of a simulation that was complete, if there was one.
    #[must_use]
    pub fn of(effects: Option<&'a Effects>) -> Self {
        effects.map_or(Self::Nothing, Self::Effects)
    }

    fn effects(self) -> Option<&'a Effects> {
        if let Self::Effects(effects) = self { Some(effects) } else { None }
    }
}

impl<'a> Facts<'a> {
    /// The facts of a transaction as it will be signed. `calls` are its calldata's.
    #[must_use]
    pub fn of(chain: &'a str, tx: &UnsignedTx, max_fee: Wei, calls: &'a Calls, seen: Seen<'a>) -> Self {
        let per_gas_wei = match tx.fees {
            Fees::Legacy { gas_price } => gas_price,
            Fees::Eip1559 { max_fee_per_gas, .. } => max_fee_per_gas,
        };
        let gas = Some(Gas { limit: tx.gas_limit, max_fee, per_gas_wei });
        Self { chain, chain_id: tx.chain_id, signer: Some(tx.from), calls, gas, seen }
    }

    /// The native value that counts: the transaction's own, or more where its inner calls or the simulation say so.
    #[must_use]
    pub fn value(&self) -> Wei {
        Wei(self.seen.effects().map_or(U256::ZERO, |effects| effects.native).max(self.calls.native))
    }
}

/// One chain's view of the rules.
#[derive(Clone, Copy)]
struct Rules<'a> {
    all: &'a Guardrails,
    own: Option<&'a ChainGuardrails>,
    chain: &'a str,
}

impl<'a> Rules<'a> {
    fn on(all: &'a Guardrails, chain: &'a str) -> Self {
        Self { all, own: all.per_chain.get(chain), chain }
    }

    fn field(&self, name: &str) -> String {
        format!("per_chain_guardrails.{}.{name}", self.chain)
    }

    /// A cap for all chains and one for this chain, each with its field.
    fn both<T>(
        &self,
        name: &str,
        all: Option<T>,
        own: impl Fn(&ChainGuardrails) -> Option<T>,
        own_name: &str,
    ) -> Vec<(String, T)> {
        let all = all.map(|cap| (name.to_owned(), cap));
        let own = self.own.and_then(own).map(|cap| (self.field(own_name), cap));
        all.into_iter().chain(own).collect()
    }

    /// The recipient allowlists that are in force, each with its field. Whom one of them lacks is refused.
    fn recipients(&self) -> Vec<(String, &'a [Address])> {
        let all = [("tx_to_allowlist".to_owned(), &self.all.to_allowlist[..])];
        let own = self.own.map(|own| (self.field("to_allowlist"), &own.to_allowlist[..]));
        all.into_iter().chain(own).filter(|(_, list)| !list.is_empty()).collect()
    }

    fn callable(&self, call: &Call) -> bool {
        self.all.contract_allowlist.iter().any(|listed| listed.is(self.chain, call.target, call.selector))
    }
}

/// Everything that can be told of the intent alone.
#[must_use]
pub fn check(rules: &Guardrails, facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let on_chain = Rules::on(rules, facts.chain);
    if !rules.allowed_chains.is_empty() && !rules.allowed_chains.iter().any(|name| name == facts.chain) {
        violations.push(Violation::Chain(facts.chain.to_owned()));
    }
    let value = facts.value();
    for (field, limit) in on_chain.both("tx_max_value_eth", rules.max_value, |own| own.max_value, "max_value") {
        if value > limit {
            violations.push(Violation::Value { value, limit, field });
        }
    }
    check_gas(on_chain, facts, &mut violations);
    for call in &facts.calls.calls {
        check_call(on_chain, call, &mut violations);
    }
    if let Some(effects) = facts.seen.effects().filter(|_| !rules.allow_privileged_calls) {
        violations.extend(effects.privileged.iter().map(|contract| Violation::GivenAway(*contract)));
    }
    tokens::check(on_chain, facts, &mut violations);
    bounded(violations)
}

/// Each once, and not more than a reply can carry.
fn bounded(violations: Vec<Violation>) -> Vec<Violation> {
    let mut distinct: Vec<Violation> = Vec::new();
    for violation in violations {
        if distinct.len() < VIOLATIONS_MAX && !distinct.contains(&violation) {
            distinct.push(violation);
        }
    }
    distinct
}

fn check_gas(rules: Rules<'_>, facts: &Facts<'_>, violations: &mut Vec<Violation>) {
    let Some(gas) = facts.gas else { return };
    for (field, limit) in
        rules.both("tx_max_gas_limit", rules.all.max_gas_limit, |own| own.max_gas_limit, "max_gas_limit")
    {
        if gas.limit > limit {
            violations.push(Violation::GasLimit { gas_limit: gas.limit, limit, field });
        }
    }
    if let Some(limit) = rules.own.and_then(|own| own.max_fee_per_gas_wei).filter(|limit| gas.per_gas_wei > *limit) {
        let field = rules.field("max_fee_per_gas_gwei");
        violations.push(Violation::FeePerGas { per_gas_wei: gas.per_gas_wei, limit, field });
    }
    if let Some(limit) = rules.all.max_fee.filter(|limit| gas.max_fee > *limit) {
        violations.push(Violation::Fee { fee: gas.max_fee, limit });
    }
}

/// Who is called, and whether what is called there is known.
///
/// `tx_contract_allowlist` is the one rule that can also allow: under a recipient allowlist it lets calls through that carry no value and
/// whose contract is no recipient, or whose function is not known. Every other rule only takes away.
fn check_call(rules: Rules<'_>, call: &Call, violations: &mut Vec<Violation>) {
    if let Some(what) = call.privileged.filter(|_| !rules.all.allow_privileged_calls) {
        violations.push(Violation::Privileged { what, contract: call.target });
    }
    let callable = rules.callable(call);
    let recipients = rules.recipients();
    let restricted = !rules.all.contract_allowlist.is_empty() || !recipients.is_empty();
    if let Kind::Unreadable(why) = call.kind
        && (restricted || tokens::matter(rules))
    {
        violations.push(Violation::Unreadable { contract: call.target, selector: call.selector, why });
    }
    if call.kind != Kind::Plain && !callable && !rules.all.contract_allowlist.is_empty() {
        violations.push(Violation::NotCallable { contract: call.target, selector: call.selector });
    }
    let pays = call.kind == Kind::Plain || !call.value.is_zero();
    let known = matches!(call.kind, Kind::Plain | Kind::Understood);
    for (field, list) in recipients {
        if (pays || !callable) && !list.contains(&call.target) {
            violations.push(Violation::Recipient { to: call.target, field });
        } else if !known && !callable {
            violations.push(Violation::UnknownCall { contract: call.target, selector: call.selector, field });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::{Callable, OnChain, TokenLimit};
    use crate::intents::calldata::{self, Change, TokenEffect};
    use alloy::primitives::{Bytes, address};
    use alloy::sol;
    use alloy::sol_types::SolCall;
    use proptest::prelude::*;

    sol! {
        function transfer(address to, uint256 amount);
        function approve(address spender, uint256 amount);
        function setApprovalForAll(address operator, bool allowed);
        function multicall(bytes[] calls);
        function transferOwnership(address owner);
        function execTransaction(
            address to, uint256 value, bytes data, uint8 operation, uint256 safeTxGas, uint256 baseGas, uint256 gasPrice,
            address gasToken, address refundReceiver, bytes signatures);
    }

    const S: Address = address!("0000000000000000000000000000000000000055");
    const A: Address = address!("00000000000000000000000000000000000000aa");
    const B: Address = address!("00000000000000000000000000000000000000bb");
    const T: Address = address!("00000000000000000000000000000000000000cc");
    const U: Address = address!("00000000000000000000000000000000000000dd");

    fn facts(calls: &Calls) -> Facts<'_> {
        let gas = Gas { limit: 21_000, max_fee: Wei::from(1_000_000_000u64), per_gas_wei: 50_000 };
        Facts { chain: "base", chain_id: ChainId(8453), signer: Some(S), calls, gas: Some(gas), seen: Seen::Nothing }
    }

    fn pay(to: Address, value: u64) -> Calls {
        calldata::read(to, U256::from(value), &[])
    }

    fn call(to: Address, data: &impl SolCall) -> Calls {
        calldata::read(to, U256::ZERO, &data.abi_encode())
    }

    fn send(to: Address, amount: u64) -> transferCall {
        transferCall { to, amount: U256::from(amount) }
    }

    fn safe(to: Address, value: u64, data: Vec<u8>, operation: u8) -> Calls {
        let data = Bytes::from(data);
        call(
            U,
            &execTransactionCall {
                to,
                value: U256::from(value),
                data,
                operation,
                safeTxGas: U256::ZERO,
                baseGas: U256::ZERO,
                gasPrice: U256::ZERO,
                gasToken: Address::ZERO,
                refundReceiver: Address::ZERO,
                signatures: Bytes::new(),
            },
        )
    }

    fn anywhere(address: Address) -> OnChain {
        OnChain { chain: None, address }
    }

    fn texts(rules: &Guardrails, calls: &Calls) -> Vec<String> {
        check(rules, &facts(calls)).iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn expect(rules: &Guardrails, calls: &Calls, expected: Option<&str>) {
        let texts = texts(rules, calls);
        match expected {
            None => assert!(texts.is_empty(), "{rules:?}: {texts:?}"),
            Some(part) => assert!(texts.len() == 1 && texts[0].contains(part), "{rules:?}: {texts:?}"),
        }
    }

    #[test]
    fn each_rule_refuses_what_it_names_and_nothing_else() {
        let open = Guardrails::default();
        let own = |own: ChainGuardrails| Guardrails { per_chain: [("base".to_owned(), own)].into(), ..open.clone() };
        let none = ChainGuardrails::default();
        let cases = [
            (open.clone(), pay(A, 5), None),
            (Guardrails { to_allowlist: vec![A], ..open.clone() }, pay(A, 5), None),
            (Guardrails { to_allowlist: vec![A], ..open.clone() }, pay(B, 5), Some("is not in tx_to_allowlist")),
            (Guardrails { allowed_chains: vec!["base".into()], ..open.clone() }, pay(A, 5), None),
            (
                Guardrails { allowed_chains: vec!["polygon".into()], ..open.clone() },
                pay(A, 5),
                Some("chain base is not in"),
            ),
            (Guardrails { max_value: Some(Wei::from(5u64)), ..open.clone() }, pay(A, 5), None),
            (
                Guardrails { max_value: Some(Wei::from(4u64)), ..open.clone() },
                pay(A, 5),
                Some("exceeds tx_max_value_eth"),
            ),
            (Guardrails { max_value: Some(Wei::ZERO), ..open.clone() }, pay(A, 0), None),
            (Guardrails { max_gas_limit: Some(20_999), ..open.clone() }, pay(A, 5), Some("tx_max_gas_limit")),
            (
                Guardrails { max_fee: Some(Wei::from(999_999_999u64)), ..open.clone() },
                pay(A, 0),
                Some("tx_max_fee_eth"),
            ),
            (
                own(ChainGuardrails { max_value: Some(Wei::from(4u64)), ..none.clone() }),
                pay(A, 5),
                Some("per_chain_guardrails.base.max_value"),
            ),
            (
                own(ChainGuardrails { to_allowlist: vec![A], ..none.clone() }),
                pay(B, 5),
                Some("per_chain_guardrails.base.to_allowlist"),
            ),
            (
                own(ChainGuardrails { max_gas_limit: Some(20_999), ..none.clone() }),
                pay(A, 5),
                Some("base.max_gas_limit"),
            ),
            (
                own(ChainGuardrails { max_fee_per_gas_wei: Some(49_999), ..none.clone() }),
                pay(A, 5),
                Some("max_fee_per_gas_gwei"),
            ),
            (
                own(ChainGuardrails { token_allowlist: vec![U], ..none }),
                call(T, &send(A, 1)),
                Some("per_chain_guardrails.base.token_allowlist"),
            ),
            (Guardrails { token_allowlist: vec![anywhere(T)], ..open.clone() }, call(T, &send(A, 1)), None),
            (
                Guardrails {
                    token_allowlist: vec![OnChain { chain: Some("polygon".into()), address: T }],
                    ..open.clone()
                },
                call(T, &send(A, 1)),
                Some("is not in tx_token_allowlist"),
            ),
        ];
        for (rules, calls, expected) in cases {
            expect(&rules, &calls, expected);
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
        assert_eq!(texts(&rules, &pay(B, 5)).len(), 3);
        assert_eq!(texts(&rules, &pay(A, 1)).len(), 1);
        // One list for all chains and one for this: only who is on both.
        let own = ChainGuardrails { to_allowlist: vec![A, B], ..ChainGuardrails::default() };
        let both = Guardrails {
            to_allowlist: vec![A, T],
            per_chain: [("base".to_owned(), own)].into(),
            ..Guardrails::default()
        };
        for (to, refused) in [(A, 0), (B, 1), (T, 1), (U, 2)] {
            assert_eq!(texts(&both, &pay(to, 1)).len(), refused, "{to}");
        }
    }

    #[test]
    fn threat_16_recipients_and_spenders_in_calldata_are_held_to_the_allowlist() {
        let rules = Guardrails { to_allowlist: vec![A, T], ..Guardrails::default() };
        let cases = [
            (call(T, &send(A, 1)), None),
            (call(T, &send(S, 1)), None),
            (call(T, &send(B, 1)), Some("recipient")),
            (call(T, &approveCall { spender: B, amount: U256::from(1) }), Some("spender")),
            (call(T, &approveCall { spender: B, amount: U256::ZERO }), Some("spender")),
            (call(T, &setApprovalForAllCall { operator: B, allowed: true }), Some("spender")),
            (call(T, &setApprovalForAllCall { operator: B, allowed: false }), None),
            (call(U, &send(A, 1)), Some("destination")),
            (calldata::read(T, U256::ZERO, &[1, 2, 3, 4]), Some("is not understood")),
            (calldata::read(T, U256::ZERO, &[1, 2]), Some("is not understood")),
        ];
        for (calls, expected) in cases {
            expect(&rules, &calls, expected);
        }
        let block = Guardrails { block_unlimited_approvals: true, ..Guardrails::default() };
        for (amount, refused) in [
            (calldata::UNLIMITED, true),
            (U256::MAX, true),
            (calldata::UNLIMITED_96, true),
            (calldata::UNLIMITED_96 + U256::from(1), false),
            (calldata::UNLIMITED - U256::from(1), false),
        ] {
            let calls = call(T, &approveCall { spender: B, amount });
            expect(&block, &calls, refused.then_some("tx_block_unlimited_approvals"));
        }
        expect(
            &block,
            &call(T, &setApprovalForAllCall { operator: B, allowed: true }),
            Some("tx_block_unlimited_approvals"),
        );
    }

    #[test]
    fn threat_17_what_is_nested_is_held_to_the_same_rules() {
        let rules = Guardrails { to_allowlist: vec![A, T, U], ..Guardrails::default() };
        let inner = |to| vec![send(A, 1).abi_encode().into(), send(to, 1).abi_encode().into()];
        expect(&rules, &call(T, &multicallCall { calls: inner(A) }), None);
        expect(&rules, &call(T, &multicallCall { calls: inner(B) }), Some("recipient"));
        let unknown = vec![Bytes::from_static(&[1, 2, 3, 4])];
        expect(&rules, &call(T, &multicallCall { calls: unknown }), Some("is not understood"));
        expect(&rules, &safe(T, 0, send(A, 1).abi_encode(), 0), None);
        expect(&rules, &safe(T, 0, send(B, 1).abi_encode(), 0), Some("recipient"));
        expect(&rules, &safe(B, 7, vec![], 0), Some("destination"));
        let capped = Guardrails { max_value: Some(Wei::from(6u64)), ..Guardrails::default() };
        expect(&capped, &safe(B, 7, vec![], 0), Some("value 0.000000000000000007 ETH exceeds tx_max_value_eth"));
        // Cut off in the middle: nothing is believed of it.
        let mut cut = multicallCall { calls: inner(A) }.abi_encode();
        cut.truncate(cut.len() - 40);
        let texts = texts(&rules, &calldata::read(T, U256::ZERO, &cut));
        assert!(texts.iter().any(|text| text.contains("cannot be read")), "{texts:?}");
    }

    #[test]
    fn threat_18_privileged_calls_are_off_unless_they_are_allowed() {
        let open = Guardrails::default();
        let allowed = Guardrails { allow_privileged_calls: true, ..Guardrails::default() };
        let own = transferOwnershipCall { owner: B };
        let mut unreadable = call(U, &multicallCall { calls: vec![] }).calls;
        unreadable.truncate(0);
        let cut = calldata::read(U, U256::ZERO, &multicallCall::SELECTOR);
        let cases = [
            call(T, &own),
            call(T, &multicallCall { calls: vec![own.abi_encode().into()] }),
            safe(T, 0, own.abi_encode(), 0),
            safe(T, 0, vec![], 1),
            safe(T, 0, send(A, 1).abi_encode(), 1),
            cut,
        ];
        for calls in cases {
            expect(&open, &calls, Some("tx_allow_privileged_calls"));
            expect(&allowed, &calls, None);
        }
        // Allowed, and under a recipient allowlist all the same not known to be harmless.
        let listed = Guardrails { to_allowlist: vec![T, U, B], ..allowed };
        expect(&listed, &call(T, &own), Some("is not understood"));
    }

    #[test]
    fn threat_17_what_a_commanded_wallet_does_unseen_is_refused_by_rules_about_tokens() {
        let rules = limited(None, Some(5));
        let nothing = Effects::default();
        let unknown = Bytes::from_static(&[1, 2, 3, 4]);
        let on = |calls: &Calls, seen| {
            let found = check(&rules, &Facts { seen, ..facts(calls) });
            found.into_iter().map(|violation| violation.to_string()).collect::<Vec<_>>()
        };
        let hidden = safe(T, 0, unknown.to_vec(), 0);
        for seen in [Seen::Effects(&nothing), Seen::Nothing, Seen::Later] {
            let texts = on(&hidden, seen);
            assert!(texts.len() == 1 && texts[0].contains(&format!("that {U} would make")), "{texts:?}");
        }
        assert!(check(&Guardrails::default(), &facts(&hidden)).is_empty());
        // The signer's own call, and a contract's own functions called for the signer, a simulation shows.
        for calls in [calldata::read(T, U256::ZERO, &unknown), call(T, &multicallCall { calls: vec![unknown.clone()] })]
        {
            assert!(on(&calls, Seen::Effects(&nothing)).is_empty());
            assert!(!on(&calls, Seen::Nothing).is_empty());
        }
        assert!(on(&safe(T, 0, send(A, 1).abi_encode(), 0), Seen::Nothing).is_empty());
    }

    #[test]
    fn a_contract_list_lets_through_what_it_names_and_no_more() {
        let one = Callable { contract: anywhere(T), selectors: Some(vec![[1, 2, 3, 4]]) };
        let any = Callable { contract: anywhere(U), selectors: None };
        let alone = Guardrails { contract_allowlist: vec![one, any], ..Guardrails::default() };
        let listed = Guardrails { to_allowlist: vec![A], ..alone.clone() };
        let raw = |to, value: u64, data: &[u8]| calldata::read(to, U256::from(value), data);
        let cases = [
            (raw(T, 0, &[1, 2, 3, 4, 5]), None, None),
            (raw(T, 0, &[1, 2, 3, 5]), Some("is not in tx_contract_allowlist"), Some("2")),
            (raw(T, 0, &[1]), Some("is not in tx_contract_allowlist"), Some("2")),
            (raw(U, 0, &[9, 9, 9, 9]), None, None),
            (raw(U, 0, &[9]), None, None),
            // Value goes to recipients only.
            (raw(U, 1, &[9]), None, Some("destination")),
            (pay(U, 0), None, Some("destination")),
            (pay(A, 1), None, None),
            // What is understood is held to the recipients even so.
            (call(U, &send(A, 1)), None, None),
            (call(U, &send(B, 1)), None, Some("recipient")),
            (call(A, &send(A, 1)), Some("is not in tx_contract_allowlist"), Some("is not in tx_contract_allowlist")),
        ];
        for (calls, without, with) in cases {
            expect(&alone, &calls, without);
            match with {
                Some("2") => assert_eq!(texts(&listed, &calls).len(), 2),
                with => expect(&listed, &calls, with),
            }
        }
    }

    fn limited(max_value: Option<u64>, daily_limit: Option<u64>) -> Guardrails {
        let limit = TokenLimit {
            token: anywhere(T),
            max_value: max_value.map(U256::from),
            daily_limit: daily_limit.map(U256::from),
            decimals: 0,
        };
        Guardrails { token_limits: vec![limit], ..Guardrails::default() }
    }

    #[test]
    fn threat_16_the_larger_of_what_is_said_and_what_is_seen_counts() {
        let rules = limited(Some(10), Some(10));
        let calls = call(T, &send(A, 4));
        let effect =
            |amount: u64, party| TokenEffect { token: T, change: Change::Transfer, party, amount: U256::from(amount) };
        let taken = |tokens: Vec<TokenEffect>| {
            let effects = Effects { tokens, ..Effects::default() };
            let facts = Facts { seen: Seen::Effects(&effects), ..facts(&calls) };
            let charge = charges(&rules, "eth", &facts).into_iter().find(|charge| charge.unit.starts_with("token:"));
            (check(&rules, &facts).len(), charge.map(|charge| charge.value))
        };
        assert_eq!(taken(vec![]), (0, Some(Wei::from(4u64))));
        assert_eq!(taken(vec![effect(4, A)]), (0, Some(Wei::from(4u64))));
        assert_eq!(taken(vec![effect(4, A), effect(6, B)]), (0, Some(Wei::from(10u64))));
        assert_eq!(taken(vec![effect(4, A), effect(7, B)]), (1, Some(Wei::from(11u64))));
        assert_eq!(taken(vec![effect(4, A), effect(100, S)]), (0, Some(Wei::from(4u64))));
        // Not understood: nothing without a simulation, and with one what it shows.
        let unknown = calldata::read(U, U256::ZERO, &[1, 2, 3, 4]);
        assert!(needs_effects(&rules, "base", &unknown) && !needs_effects(&rules, "base", &calls));
        expect(&rules, &unknown, Some("no complete simulation"));
        let effects = Effects { tokens: vec![effect(10, B)], ..Effects::default() };
        assert!(check(&rules, &Facts { seen: Seen::Effects(&effects), ..facts(&unknown) }).is_empty());
        assert!(check(&rules, &Facts { seen: Seen::Later, ..facts(&unknown) }).is_empty());
    }

    #[test]
    fn an_intent_is_charged_where_a_rule_counts_in_the_order_of_the_locks() {
        let calls = call(T, &send(A, 4));
        let units =
            |rules: &Guardrails| charges(rules, "eth", &facts(&calls)).into_iter().map(|c| c.unit).collect::<Vec<_>>();
        assert_eq!(units(&Guardrails::default()), ["eth"]);
        assert_eq!(units(&limited(Some(5), None)), ["eth"]);
        let own = ChainGuardrails {
            daily_limit: Some(Wei::from(1u64)),
            max_per_day: Some(1),
            gas_daily_budget: Some(Wei::ZERO),
            ..ChainGuardrails::default()
        };
        let all =
            Guardrails { max_per_day: Some(1), per_chain: [("base".to_owned(), own)].into(), ..limited(None, Some(5)) };
        let token = window::token_unit(ChainId(8453), T);
        assert_eq!(units(&all), ["chain:8453", "count:8453", "count:all", "eth", &token]);
        let broken: Vec<String> = charges(&all, "eth", &facts(&calls))
            .iter()
            .filter_map(|charge| check_window(charge, Window { value_sum: Wei::from(2u64), fee_sum: Wei::ZERO }).err())
            .flatten()
            .map(|violation| violation.to_string())
            .collect();
        assert_eq!(broken.len(), 5, "{broken:?}");
        for part in [
            "gas_daily_budget_native",
            "base.daily_limit",
            "transaction 3 within 24 hours, more than per_chain",
            "tx_max_per_day 1",
            "daily_limit of 5",
        ] {
            assert!(broken.iter().any(|text| text.contains(part)), "{part}: {broken:?}");
        }
    }

    #[test]
    fn the_window_counts_to_the_limit_and_not_past_it() {
        let rules = Guardrails { daily_limit: Some(Wei::from(10u64)), ..Guardrails::default() };
        let at = |rules: &Guardrails, sum: U256, value: u64| {
            let calls = pay(A, value);
            check_window(&charges(rules, "eth", &facts(&calls))[0], Window { value_sum: Wei(sum), fee_sum: Wei::ZERO })
        };
        assert!(at(&rules, U256::from(9), 1).is_ok());
        assert!(at(&rules, U256::from(9), 2).is_err());
        assert_eq!(at(&Guardrails::default(), U256::MAX, 1).map(|_| ()), Err(vec![Violation::Overflow]));
    }

    #[test]
    fn refusals_carry_the_words_that_clients_look_for() {
        let broken = Violation::Recipient { to: A, field: "tx_to_allowlist".to_owned() };
        let error = crate::intents::IntentError::Guardrail(vec![broken]);
        let text = error.to_string();
        assert!(text.starts_with("Transaction denied by guardrail: destination 0x"), "{text}");
        for word in ["no scopes", "scopes do not cover", "token has been revoked"] {
            assert!(!text.contains(word));
        }
    }

    /// One of a few addresses, so that lists hit and miss.
    fn someone() -> impl Strategy<Value = Address> {
        prop::sample::select(vec![S, A, B, T, U])
    }

    fn payloads() -> impl Strategy<Value = Calls> {
        let leaf = prop_oneof![
            Just(vec![]),
            (someone(), 0u64..20).prop_map(|(to, amount)| send(to, amount).abi_encode()),
            (someone(), any::<bool>())
                .prop_map(|(operator, allowed)| setApprovalForAllCall { operator, allowed }.abi_encode()),
            (someone(), prop_oneof![Just(U256::MAX), (0u64..20).prop_map(U256::from)])
                .prop_map(|(spender, amount)| approveCall { spender, amount }.abi_encode()),
            someone().prop_map(|owner| transferOwnershipCall { owner }.abi_encode()),
            prop::collection::vec(any::<u8>(), 0..8),
        ];
        let data = leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::vec(inner, 0..3)
                .prop_map(|calls| multicallCall { calls: calls.into_iter().map(Bytes::from).collect() }.abi_encode())
        });
        (someone(), 0u64..3, data).prop_map(|(to, value, data)| calldata::read(to, U256::from(value), &data))
    }

    /// A restriction of every kind, and what is left of the rules with it.
    fn restrictions() -> impl Strategy<Value = fn(&mut Guardrails)> {
        prop::sample::select(vec![
            (|r| r.to_allowlist = vec![A, T]) as fn(&mut Guardrails),
            |r| r.allowed_chains = vec!["polygon".into()],
            |r| r.max_value = Some(Wei::from(1u64)),
            |r| r.max_fee = Some(Wei::ZERO),
            |r| r.token_allowlist = vec![anywhere(T)],
            |r| r.token_limits = limited(Some(5), Some(7)).token_limits,
            |r| r.block_unlimited_approvals = true,
            |r| r.allow_privileged_calls = false,
            |r| r.max_per_day = Some(0),
            |r| r.per_chain.entry("base".into()).or_default().to_allowlist = vec![A, B],
            |r| r.per_chain.entry("base".into()).or_default().token_allowlist = vec![T],
            |r| r.per_chain.entry("base".into()).or_default().daily_limit = Some(Wei::ZERO),
        ])
    }

    fn passes(rules: &Guardrails, facts: &Facts<'_>, window: Window) -> bool {
        judge(rules, "eth", facts, |_| Some(window)).allows()
    }

    proptest! {
        /// If an amount passes, every smaller one does.
        #[test]
        fn a_guardrail_is_monotone_in_value(limit in any::<u64>(), sum in any::<u64>(), value in any::<u64>(), less in any::<u64>()) {
            let rules = Guardrails {
                max_value: Some(Wei::from(limit)),
                daily_limit: Some(Wei::from(limit)),
                ..limited(Some(limit), Some(limit))
            };
            let window = Window { value_sum: Wei::from(sum), fee_sum: Wei::ZERO };
            let native = |value: u64| passes(&rules, &facts(&pay(A, value)), window);
            let token = |amount: u64| passes(&rules, &facts(&call(T, &send(A, amount))), window);
            prop_assert!(!native(value) || native(value.min(less)));
            prop_assert!(!token(value) || token(value.min(less)));
        }

        /// A restriction more never lets more through; nor does an entry less in the list of contracts, once there is one.
        #[test]
        fn threat_09_no_restriction_ever_allows_more(
            calls in payloads(),
            before in prop::collection::vec(restrictions(), 0..4),
            added in restrictions(),
            privileged in any::<bool>(),
            listed in prop::collection::vec(someone(), 0..3),
            seen in prop::option::of(prop::collection::vec((someone(), someone(), 0u64..20), 0..3)),
        ) {
            let mut rules = Guardrails { allow_privileged_calls: privileged, ..Guardrails::default() };
            rules.contract_allowlist =
                listed.iter().map(|contract| Callable { contract: anywhere(*contract), selectors: None }).collect();
            before.iter().for_each(|restrict| restrict(&mut rules));
            let effects = seen.map(|seen| Effects {
                tokens: seen.into_iter().map(|(token, party, amount)| {
                    TokenEffect { token, change: Change::Transfer, party, amount: U256::from(amount) }
                }).collect(),
                ..Effects::default()
            });
            let facts = Facts { seen: Seen::of(effects.as_ref()), ..facts(&calls) };
            let mut stricter = rules.clone();
            added(&mut stricter);
            prop_assert!(passes(&rules, &facts, Window::default()) || !passes(&stricter, &facts, Window::default()));
            let mut fewer = rules.clone();
            fewer.contract_allowlist.pop();
            if !fewer.contract_allowlist.is_empty() {
                prop_assert!(passes(&rules, &facts, Window::default()) || !passes(&fewer, &facts, Window::default()));
            }
            // What a simulation shows only takes away, where the calldata is understood.
            if calls.understood() {
                let unseen = Facts { seen: Seen::Nothing, ..facts.clone() };
                prop_assert!(passes(&rules, &unseen, Window::default()) || !passes(&rules, &facts, Window::default()));
            }
        }
    }
}
