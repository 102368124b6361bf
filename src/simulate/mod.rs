//! What would a transaction do? Asked before it is signed.
//!
//! - [`backend`]: the chain's own node, by the best method it has.
//! - [`effects`], [`revert`]: pure: what moved, and why not.
//!
//! A transaction that would revert is an answer; a node that cannot say is an error. Nothing here signs or reserves.

mod backend;
mod balances;
pub mod effects;
pub mod revert;

use alloy::primitives::{Address, B256, Bytes};
use serde::Serialize;
use time::OffsetDateTime;

use crate::chain::{Chain, ChainUnavailable, RpcError, UnsignedTx};
use crate::ids::SimulationId;

pub use effects::{Delta, Moved};

/// Most of our own unmined transactions that are applied first.
pub const UNMINED_MAX: usize = 16;

/// How a simulation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SimulationStatus {
    /// It would do what it should.
    Success,
    /// It would be mined, do nothing, and cost its gas: `REVERT`, or out of gas, or another fault of the code.
    Reverted,
    /// It could not even start: not enough funds, or less gas than it costs before it executes.
    Error,
}

impl SimulationStatus {
    /// As the table and the API write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Reverted => "reverted",
            Self::Error => "error",
        }
    }
}

/// The node's method that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// `eth_simulateV1`: every transfer is known.
    SimulateV1,
    /// `debug_traceCall`: every transfer is known.
    TraceCall,
    /// `eth_call` and `eth_estimateGas`: of the transfers only the transaction's own value is known.
    Call,
}

/// An event that the transaction would emit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLog {
    /// The contract.
    pub address: Address,
    /// Topics, at most four.
    pub topics: Vec<B256>,
    /// The rest.
    pub data: Bytes,
}

/// One account's balance of one asset, before and after. Texts are exact decimals in the asset's unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BalanceChange {
    /// Whose.
    pub address: Address,
    /// The ERC-20 contract; `None` is the native unit.
    pub token: Option<Address>,
    /// What the token calls itself. Anybody can choose any symbol.
    pub token_symbol: Option<String>,
    /// Decimals of the texts: the token's own, 0 where it does not say.
    #[serde(skip)]
    pub decimals: u8,
    /// In mined blocks and after our unmined transactions; `None` where the token does not say.
    pub before: Option<String>,
    /// `before` and `change` together.
    pub after: Option<String>,
    /// With its sign: `"-0.51"`, `"+0.5"`. The network's fee is not in it.
    pub change: String,
    /// The change in the smallest units, for rules.
    #[serde(skip)]
    pub delta: Delta,
}

/// What a transaction would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Simulation {
    /// Its id.
    #[serde(rename = "simulation_id")]
    pub id: SimulationId,
    /// How it ended.
    pub status: SimulationStatus,
    /// Gas used, or 0 where it could not start or the node does not say.
    pub gas_used: u64,
    /// Who gains and loses what. Empty unless it succeeds.
    pub balance_changes: Vec<BalanceChange>,
    /// Why it failed, as a short word: `execution_reverted`, `out_of_gas`, `insufficient_funds` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<&'static str>,
    /// Why it failed, as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the contract said: the text of `Error(string)`, the meaning of `Panic(uint256)`, the bytes of any other error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revert_reason: Option<String>,
    /// Return data of the call; on a revert, the error's bytes.
    #[serde(skip)]
    pub output: Bytes,
    /// Events that it would emit. Empty with [`Method::Call`].
    #[serde(skip)]
    pub logs: Vec<EventLog>,
    /// How the node found out. With [`Method::Call`] the effects are not all known.
    #[serde(skip)]
    pub method: Method,
    /// When.
    #[serde(serialize_with = "time::serde::rfc3339::serialize")]
    pub simulated_at: OffsetDateTime,
}

impl Simulation {
    /// Whether the balance changes and logs are all there are: a rule about effects may rely on them.
    #[must_use]
    pub fn effects_are_complete(&self) -> bool {
        self.method != Method::Call
    }
}

/// Why there is no answer. Always "could not check" (503), never "refused".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimulateError {
    /// The node is out of reach, overloaded, answers garbage, or serves another chain.
    #[error("could not simulate: {0}")]
    CouldNotCheck(#[source] ChainUnavailable),
    /// More of our own transactions are unmined than are applied first.
    #[error(
        "could not simulate: {count} transactions of this key are not mined yet (at most {UNMINED_MAX} can be simulated ahead)"
    )]
    TooManyUnmined {
        /// How many.
        count: usize,
    },
    /// Only `eth_simulateV1` can apply our unmined transactions first, and the node lacks it.
    #[error(
        "could not simulate: {count} transactions of this key are not mined yet, and the node of chain {chain} cannot simulate after them (it lacks eth_simulateV1)"
    )]
    UnminedNotSupported {
        /// The chain's name.
        chain: String,
        /// How many.
        count: usize,
    },
}

impl From<ChainUnavailable> for SimulateError {
    fn from(error: ChainUnavailable) -> Self {
        Self::CouldNotCheck(error)
    }
}

impl From<RpcError> for SimulateError {
    fn from(error: RpcError) -> Self {
        Self::CouldNotCheck(error.into())
    }
}

/// Simulates `tx` on the latest block, after `prior`: our own unmined transactions of the key, in nonce order.
///
/// # Errors
/// [`SimulateError`]: could not check. A revert is not an error but [`SimulationStatus::Reverted`].
pub async fn simulate(chain: &Chain, prior: &[UnsignedTx], tx: &UnsignedTx) -> Result<Simulation, SimulateError> {
    let rpc = chain.rpc().await?;
    let run = backend::run(rpc, prior, std::slice::from_ref(tx)).await?;
    balances::finish(chain.spec(), rpc, run).await.map(|mut simulations| simulations.remove(0))
}

/// Simulates `txs` one after the other, each on the state that the one before left, after `prior`. One result each, in order.
///
/// # Errors
/// As [`simulate`]; without `eth_simulateV1` a bundle of more than one has no answer.
pub async fn simulate_bundle(
    chain: &Chain,
    prior: &[UnsignedTx],
    txs: &[UnsignedTx],
) -> Result<Vec<Simulation>, SimulateError> {
    let rpc = chain.rpc().await?;
    let run = backend::run(rpc, prior, txs).await?;
    balances::finish(chain.spec(), rpc, run).await
}
