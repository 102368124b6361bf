//! What would a transaction do? Asked before it is signed.
//!
//! - [`node`]: the chain's own node, by the best method it has.
//! - [`tenderly`]: a service that speaks Tenderly's HTTP API: Tenderly, or [`server`].
//! - [`server`]: `intentd simulator`, which serves [`node`] in that API.
//! - [`effects`], [`frame`], [`revert`], [`names`], [`local`]: pure: what moved, by which calls, why not, what it is called, and what needs
//!   no asking.
//! - [`settings`]: which of them an organisation uses.
//!
//! A transaction that would revert is an answer; a simulator that cannot say is an error. Nothing here signs or reserves.

mod balances;
pub mod call;
pub mod effects;
mod error;
pub mod frame;
pub mod local;
pub mod names;
mod node;
pub mod price;
pub mod revert;
pub mod server;
pub mod settings;
pub mod tenderly;

use std::time::Instant;

use alloy::primitives::{Address, B256, Bytes};
use serde::Serialize;
use time::OffsetDateTime;

use self::call::Call;
use self::names::{Kind as NameKind, Names};
use crate::chain::{Chain, UnsignedTx};
use crate::ids::SimulationId;
use crate::telemetry::record;

pub use effects::{Delta, Moved};
pub use error::SimulateError;

/// Most of our own unmined transactions that are applied first.
pub const UNMINED_MAX: usize = 16;
/// Most transactions of a bundle, without those that are applied first.
pub const BUNDLE_MAX: usize = 32;

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

/// Who answered, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// `eth_simulateV1`: every transfer is known.
    SimulateV1,
    /// `debug_traceCall`: every transfer is known.
    TraceCall,
    /// `eth_call` and `eth_estimateGas`: of the transfers only the transaction's own value is known.
    Call,
    /// A service that speaks Tenderly's API: every transfer is known, if its answer agrees with itself.
    Tenderly,
    /// Nobody: it needed no asking.
    Local,
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

/// What a transaction would do. Only this module makes one, so its [`Simulation::checked_hash`] is that of what was simulated.
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
    /// Why it failed, in the words of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it failed, as a sentence for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_human_readable: Option<String>,
    /// What the contract said: the text of `Error(string)`, the meaning of `Panic(uint256)`, the name or bytes of any other error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revert_reason: Option<String>,
    /// Where a person can look at it, if the simulator keeps it.
    #[serde(rename = "tenderly_dashboard_url", skip_serializing_if = "Option::is_none")]
    pub dashboard_url: Option<String>,
    /// Return data of the call; on a revert, the error's bytes.
    #[serde(skip)]
    pub output: Bytes,
    /// Events that it would emit. Empty with [`Method::Call`].
    #[serde(skip)]
    pub logs: Vec<EventLog>,
    /// Who found out, and how.
    #[serde(skip)]
    pub method: Method,
    /// When.
    #[serde(serialize_with = "time::serde::rfc3339::serialize")]
    pub simulated_at: OffsetDateTime,
    #[serde(skip)]
    complete: bool,
    #[serde(skip)]
    checked_hash: Option<B256>,
}

impl Simulation {
    /// Whether the balance changes and logs are all there are: a rule about effects may rely on them.
    #[must_use]
    pub fn effects_are_complete(&self) -> bool {
        self.complete
    }

    /// The same, not to be relied on for effects: what comes before it may never come.
    #[must_use]
    pub fn without_effects(self) -> Self {
        Self { complete: false, ..self }
    }

    /// [`UnsignedTx::checked_hash`] of exactly what was simulated; `None` where gas or fees were only guessed.
    #[must_use]
    pub fn checked_hash(&self) -> Option<B256> {
        self.checked_hash
    }

    /// One sentence of why it failed, for a refusal.
    #[must_use]
    pub fn reason(&self) -> String {
        let reason = self.revert_reason.as_ref().or(self.error.as_ref());
        reason.cloned().unwrap_or_else(|| "no reason given".to_owned())
    }

    /// Puts the name of a contract's own error in place of its bytes, where `names` knows it.
    pub fn name_error(&mut self, names: &Names, contract: Address) {
        if self.error_code != Some("execution_reverted") {
            return;
        }
        if let Some(named) = names.decode(NameKind::Error, &self.output, Some(contract)) {
            self.error = Some(format!("execution reverted: {named}"));
            self.error_human_readable = Some(balances::contract_refused(&named));
            self.revert_reason = Some(named);
        }
    }
}

/// Who is asked.
#[derive(Clone, Debug)]
pub enum Backend {
    /// The chain's own node.
    Node,
    /// A service, with an account there.
    Tenderly(std::sync::Arc<tenderly::Session>),
}

impl Backend {
    fn name(&self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Tenderly(_) => "tenderly",
        }
    }
}

/// A transaction to be simulated.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What it says.
    pub tx: UnsignedTx,
    /// Whether its gas limit and fees are meant; otherwise they are a guess that is not held against the balance.
    pub paid: bool,
}

impl Trial {
    fn call(&self) -> Call {
        let call = Call::from(&self.tx);
        if self.paid { call } else { call.unpaid() }
    }
}

/// Simulates `tx` on the latest block, after `prior`: our own unmined transactions of the key, in nonce order.
///
/// # Errors
/// [`SimulateError`]: could not check. A revert is not an error but [`SimulationStatus::Reverted`].
pub async fn simulate(
    backend: &Backend,
    chain: &Chain,
    prior: &[UnsignedTx],
    tx: &UnsignedTx,
) -> Result<Simulation, SimulateError> {
    let trial = Trial { tx: tx.clone(), paid: true };
    simulate_bundle(backend, chain, prior, std::slice::from_ref(&trial)).await.map(|mut one| one.remove(0))
}

/// Simulates `trials` one after the other, each on the state that the one before left, after `prior`. One result each, in order, up
/// to the first that does not succeed: at least one.
///
/// # Errors
/// As [`simulate`].
pub async fn simulate_bundle(
    backend: &Backend,
    chain: &Chain,
    prior: &[UnsignedTx],
    trials: &[Trial],
) -> Result<Vec<Simulation>, SimulateError> {
    let began = Instant::now();
    let result = run_bundle(backend, chain, prior, trials).await;
    let outcomes = match &result {
        Ok(all) => all.iter().map(|one| one.status.as_str()).collect(),
        Err(_) => vec!["could_not_check"],
    };
    record::simulation(backend.name(), outcomes, began.elapsed());
    result
}

async fn run_bundle(
    backend: &Backend,
    chain: &Chain,
    prior: &[UnsignedTx],
    trials: &[Trial],
) -> Result<Vec<Simulation>, SimulateError> {
    if prior.len() > UNMINED_MAX {
        return Err(SimulateError::TooManyUnmined { count: prior.len() });
    }
    let rpc = chain.rpc().await?;
    let calls: Vec<Call> = trials.iter().map(Trial::call).collect();
    let run = match backend {
        Backend::Node => node::run(rpc, prior, calls).await?,
        Backend::Tenderly(session) => tenderly::run(session, chain.spec(), prior, calls).await?,
    };
    balances::finish(chain.spec(), rpc, run, trials).await
}

/// A success with this hash, for the tests of what is bound to it.
#[cfg(test)]
pub(crate) fn simulated_for_tests(checked_hash: Option<B256>) -> Simulation {
    Simulation { checked_hash, status: SimulationStatus::Success, ..refused_locally("", String::new()) }
}

/// What needed no asking, as a result.
#[must_use]
pub fn refused_locally(code: &'static str, error: String) -> Simulation {
    balances::local(code, error)
}
