//! Broken rules, in the words that the caller reads.

use alloy::primitives::{Address, U256};

use crate::intents::calldata::{TokenEffect, show};
use crate::money::Wei;

/// One broken rule. Its text follows "Transaction denied by guardrail: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// `tx_allowed_chains`.
    #[error("chain {0} is not in tx_allowed_chains")]
    Chain(String),
    /// A recipient allowlist: who is called or paid.
    #[error("destination {to} is not in {field}")]
    Recipient {
        /// Who.
        to: Address,
        /// The list's field.
        field: String,
    },
    /// A recipient allowlist: who gets or may take a token.
    #[error("{} {} of token {} is not in {field}", .role, .effect.party, .effect.token)]
    TokenParty {
        /// `recipient` or `spender`.
        role: &'static str,
        /// What happens.
        effect: TokenEffect,
        /// The list's field.
        field: String,
    },
    /// A recipient allowlist: nobody knows whom the call pays.
    #[error(
        "the call {} of {contract} is not understood, so {field} cannot be applied to it; a human may list it in tx_contract_allowlist",
        show(*.selector)
    )]
    UnknownCall {
        /// What is called.
        contract: Address,
        /// Its function.
        selector: Option<[u8; 4]>,
        /// The list's field.
        field: String,
    },
    /// A known function whose arguments cannot be read: a contract may read them otherwise.
    #[error("the arguments of the call {} of {contract} cannot be read: {why}", show(*.selector))]
    Unreadable {
        /// What is called.
        contract: Address,
        /// Its function.
        selector: Option<[u8; 4]>,
        /// What is wrong with them.
        why: &'static str,
    },
    /// `tx_contract_allowlist`.
    #[error("the call {} of {contract} is not in tx_contract_allowlist", show(*.selector))]
    NotCallable {
        /// What is called.
        contract: Address,
        /// Its function.
        selector: Option<[u8; 4]>,
    },
    /// A call that changes who commands a contract, or its code.
    #[error("{what} on {contract} is a privileged call, which is off unless a human sets tx_allow_privileged_calls")]
    Privileged {
        /// Which.
        what: &'static str,
        /// On what.
        contract: Address,
    },
    /// As before, seen in the simulation.
    #[error(
        "it would give away ownership of, or a role in, {0}, which is off unless a human sets tx_allow_privileged_calls"
    )]
    GivenAway(Address),
    /// A token allowlist.
    #[error("token {token} is not in {field}")]
    Token {
        /// Which.
        token: Address,
        /// The list's field.
        field: String,
    },
    /// `tx_block_unlimited_approvals`.
    #[error("{0}: tx_block_unlimited_approvals refuses unlimited approvals")]
    Unlimited(TokenEffect),
    /// `max_value` of `tx_token_limits`.
    #[error("{amount} of token {token} exceeds its max_value of {limit} in tx_token_limits (smallest units)")]
    TokenValue {
        /// Which.
        token: Address,
        /// Transferred and approved.
        amount: U256,
        /// The cap.
        limit: U256,
    },
    /// Rules about tokens, and a call that a wallet or a batch makes and that may do anything to what it has.
    #[error(
        "the call {} of {contract} that {by} would make is not understood, so the rules about tokens cannot be applied to what {by} holds: let the tokens be moved by calls that are understood",
        show(*.selector)
    )]
    UnseenWallet {
        /// The wallet or batch.
        by: Address,
        /// What it would call.
        contract: Address,
        /// Its function.
        selector: Option<[u8; 4]>,
    },
    /// Rules about tokens, and a call that may do anything to them.
    #[error(
        "the call {} of {contract} is not understood and no complete simulation shows which tokens it moves, as the rules about tokens need: the chain's node must offer eth_simulateV1 or debug_traceCall, or the tokens be moved by calls that are understood",
        show(*.selector)
    )]
    Unseen {
        /// What is called.
        contract: Address,
        /// Its function.
        selector: Option<[u8; 4]>,
    },
    /// A cap on the value of one transaction.
    #[error("value {} ETH exceeds {field} {} ETH", .value.to_units(), .limit.to_units())]
    Value {
        /// Asked for, inner calls and simulation considered.
        value: Wei,
        /// The cap.
        limit: Wei,
        /// The cap's field.
        field: String,
    },
    /// A cap on gas.
    #[error("gas_limit {gas_limit} exceeds {field} {limit}")]
    GasLimit {
        /// Asked for, or estimated.
        gas_limit: u64,
        /// The cap.
        limit: u64,
        /// The cap's field.
        field: String,
    },
    /// A cap on the price of gas.
    #[error("a fee of {per_gas_wei} wei per gas exceeds {field}, which is {limit} wei")]
    FeePerGas {
        /// The fee cap.
        per_gas_wei: u128,
        /// The most.
        limit: u128,
        /// The cap's field.
        field: String,
    },
    /// `tx_max_fee_eth`.
    #[error("fee of up to {} ETH exceeds tx_max_fee_eth {} ETH", .fee.to_units(), .limit.to_units())]
    Fee {
        /// Gas limit × fee cap.
        fee: Wei,
        /// The cap.
        limit: Wei,
    },
    /// A limit on the value of 24 hours.
    #[error("rolling 24h total {} ETH would exceed {field} {} ETH", .total.to_units(), .limit.to_units())]
    DailyValue {
        /// With this intent.
        total: Wei,
        /// The limit.
        limit: Wei,
        /// The limit's field.
        field: String,
    },
    /// A limit on the fees of 24 hours.
    #[error("rolling 24h fees of up to {} ETH would exceed {field} {} ETH", .total.to_units(), .limit.to_units())]
    DailyFee {
        /// With this intent.
        total: Wei,
        /// The limit.
        limit: Wei,
        /// The limit's field.
        field: String,
    },
    /// `daily_limit` of `tx_token_limits`.
    #[error(
        "rolling 24h total {total} of token {token} would exceed its daily_limit of {limit} in tx_token_limits (smallest units)"
    )]
    DailyToken {
        /// Which.
        token: Address,
        /// With this intent.
        total: Wei,
        /// The limit.
        limit: Wei,
    },
    /// A limit on the count of 24 hours.
    #[error("it would be transaction {total} within 24 hours, more than {field} {limit}")]
    DailyCount {
        /// With this intent.
        total: Wei,
        /// The limit.
        limit: Wei,
        /// The limit's field.
        field: String,
    },
    /// The sums themselves would overflow: no rule can be applied to that.
    #[error("a rolling 24h total would exceed 2^256")]
    Overflow,
}
