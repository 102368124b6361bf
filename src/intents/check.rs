//! Everything that asks the chain, before any lock, under one deadline: nonce, fees, balance, gas, simulation. What a node's pool
//! would refuse is refused here, so that no doomed intent takes a nonce.

mod simulated;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::Address;

use super::authorise::{HeldClaim, Keyed};
use super::bound::Bound;
use super::effects::Effects;
use super::error::IntentError;
use super::frozen;
use super::guardrails::{self, Facts, Seen};
use super::lanes::{Lane, Turn};
use super::parse::{Kind, Request};
use super::proposed::Proposed;
use super::store;
use crate::access::Principal;
use crate::agents::Agent;
use crate::app::App;
use crate::chain::fees;
use crate::chain::tx::TX_GAS_MAX;
use crate::chain::{
    Account, Ceilings, Chain, ChainSpec, FeeQuote, Head, Kind as ChainKind, Market, NodeError, Rpc, RpcError,
    TxRequest, UnsignedTx,
};
use crate::ids::{AgentId, OrgId};
use crate::money::Wei;
use crate::simulate::Trial;
use crate::telemetry::story::{Stage, stage};

pub(super) use simulated::simulate_after;
use simulated::simulate_first;

/// An intent that may be signed if the rules still say so when its nonce is taken. What is in here is what is signed: only the
/// nonce is added (I7).
pub struct Checked {
    pub(super) principal: Principal,
    pub(super) org_id: OrgId,
    pub(super) agent_id: AgentId,
    pub(super) kind: Kind,
    pub(super) claim: Option<HeldClaim>,
    pub(super) proposed: Proposed,
    pub(super) funds: Funds,
    pub(super) nonce: NonceView,
    pub(super) explicit_nonce: Option<u64>,
    /// The lane's turn in this daemon, where the check needed it already: what was simulated first is what comes first.
    pub(super) turn: Option<Turn>,
}

impl Deref for Checked {
    type Target = Proposed;

    fn deref(&self) -> &Proposed {
        &self.proposed
    }
}

impl Checked {
    /// The lane that will sign it.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane { chain_id: self.tx.chain_id, address: self.tx.from }
    }
}

/// The chain's view of the lane, read before the lock: a floor, never a choice.
#[derive(Clone, Copy, Debug)]
pub struct NonceView {
    /// `eth_getTransactionCount(pending)`.
    pub pending: u64,
    /// `eth_getTransactionCount(latest)`: below it every nonce is used.
    pub latest: u64,
    /// As much of `latest` as a second node says too, where there is one and it matters: what is ahead of our rows.
    pub agreed: u64,
    /// The block at which it was read.
    pub block: u64,
}

/// Reads the chain and builds the transaction. One that is simulated takes the lane's turn first, before the deadline begins: with others
/// of its key in between, it would have been simulated for nothing.
///
/// # Errors
/// Refused by its content (422), by a rule (403), by its simulation (422), or could not be checked (503).
pub async fn check(app: &Arc<App>, keyed: Keyed) -> Result<Checked, IntentError> {
    let deadline = Duration::from_millis(app.config.intents.read_deadline_ms);
    let name = keyed.chain.spec().name.clone();
    let asked = keyed.request.simulate_first || app.config.intents.require_simulation || keyed.simulation_required;
    let needed = guardrails::needs_effects(&keyed.agent.guardrails, &name, &keyed.calls);
    let lane = Lane { chain_id: keyed.chain.spec().chain_id, address: keyed.key.address };
    let turn = if asked || needed { Some(turn_to_simulate(app, lane).await?) } else { None };
    let mut checked = tokio::time::timeout(deadline, check_within(app, keyed, asked)).await.unwrap_or_else(|_| {
        Err(IntentError::could_not_check(format!("chain {name} did not answer within {} ms", deadline.as_millis())))
    })?;
    if let Some(turn) = &turn {
        turn.simulated();
    }
    checked.turn = turn;
    Ok(checked)
}

/// How long a turn is waited for: half a lease at most. Whoever waits longer would be overtaken by its own retry, again and again.
fn patience(app: &App) -> Duration {
    Duration::from_millis(500 * app.config.intents.claim_lease_s.clamp(1, 60))
}

fn too_many<T>(_: T) -> IntentError {
    IntentError::could_not_check("too many intents of this key are waiting: try again later")
}

/// Waits for the lane's turn in this daemon, to sign. Whose simulation hangs is passed by: the row's lock decides, and T1 tells that
/// one that others came before it.
pub(super) async fn take_turn(app: &App, lane: Lane) -> Result<Turn, IntentError> {
    stage(Stage::Turn, turn(app, lane)).await
}

/// As [`take_turn`], within a stage.
pub(super) async fn turn(app: &App, lane: Lane) -> Result<Turn, IntentError> {
    tokio::time::timeout(patience(app), app.lanes.turn_or_beside(lane)).await.map_err(too_many)
}

/// Waits for the lane's turn in this daemon, to simulate; not behind a simulation that hangs.
async fn turn_to_simulate(app: &App, lane: Lane) -> Result<Turn, IntentError> {
    let turn = tokio::time::timeout(patience(app), app.lanes.turn(lane));
    let turn = stage(Stage::Turn, turn).await.map_err(too_many)?;
    let turn = turn.ok_or_else(|| {
        IntentError::could_not_check("another intent of this key is being simulated, which takes long: try again")
    })?;
    turn.simulates();
    Ok(turn)
}

/// What a node says, all of it the same node.
struct Reads {
    nonce: NonceView,
    quote: FeeQuote,
    balance: Wei,
    head: Head,
    gas: Gas,
}

/// Asks one node for everything; when it goes away meanwhile, the next.
async fn read(app: &App, chain: &Chain, request: &Request, lane: Lane) -> Result<Reads, IntentError> {
    let mut left = chain.node_count();
    loop {
        let rpc = chain.rpc().await.map_err(|error| IntentError::could_not_check(error.to_string()))?;
        left = left.saturating_sub(1);
        match read_from(app, chain, rpc, request, lane).await {
            Err(IntentError::CouldNotCheck { .. }) if left > 0 && rpc.is_down() => {}
            reads => return reads,
        }
    }
}

async fn read_from(app: &App, chain: &Chain, rpc: &Rpc, request: &Request, lane: Lane) -> Result<Reads, IntentError> {
    let from = lane.address;
    let account = async |code_at| {
        let account = rpc.account(from, code_at).await;
        account.map_err(|error| IntentError::could_not_check(error.to_string()))
    };
    // A payment's gas needs no estimate where the recipient has no code: one request tells everything.
    let (account, gas) = if request.gas_limit.is_none() && is_plain(chain.spec().kind, request) {
        let account = account(Some(request.to)).await?;
        (account, gas_limit(chain, rpc, request, from, account.has_code).await?)
    } else {
        tokio::try_join!(account(None), gas_limit(chain, rpc, request, from, None))?
    };
    let Account { pending_nonce: pending, latest_nonce: latest, balance, market: Market { quote, head }, .. } = account;
    let agreed = agreed(app, chain, rpc, lane, latest).await?;
    Ok(Reads { nonce: NonceView { pending, latest, agreed, block: head.number }, quote, balance, head, gas })
}

/// A count far ahead of our rows freezes the lane, and the first use of a key begins there, so where there is a second node it must say so
/// too.
async fn agreed(app: &App, chain: &Chain, rpc: &Rpc, lane: Lane, latest: u64) -> Result<u64, IntentError> {
    if chain.node_count() < 2 {
        return Ok(latest);
    }
    let ours = store::next_nonce(&mut *app.db.acquire().await?, lane).await?;
    if latest <= ours.unwrap_or_default() {
        return Ok(latest);
    }
    // Who cannot be asked says nothing.
    Ok(frozen::said_by_two(chain, rpc, lane.address, latest).await.unwrap_or_default())
}

async fn check_within(app: &Arc<App>, keyed: Keyed, asked: bool) -> Result<Checked, IntentError> {
    let Keyed { request, calls, principal, agent, chain, claim, key, .. } = keyed;
    let spec = chain.spec();
    let from = key.address;
    let lane = Lane { chain_id: spec.chain_id, address: from };
    let Reads { nonce, quote, balance, head, gas } = read(app, &chain, &request, lane).await?;
    let nonces = (nonce, request.nonce);
    let fees = fees::choose(request.fees, &quote, ceilings(&agent, spec))?;
    let build = |gas_limit| UnsignedTx {
        chain_id: spec.chain_id,
        from,
        to: request.to,
        value: request.value,
        data: request.data.clone(),
        gas_limit,
        fees,
    };
    let tx = match gas {
        Gas::Limit(gas_limit) => build(gas_limit),
        Gas::WouldFail(words) => {
            // Whoever wants it simulated gets the simulation's reason.
            if asked {
                let trial = Trial { tx: build(most_gas(spec, &head)), paid: false };
                simulate_first(app, request.kind, &agent, &chain, &key, &trial, nonces).await?;
            }
            return Err(IntentError::Doomed(format!(
                "the gas of this transaction cannot be estimated, because it would fail: {words}"
            )));
        }
    };
    tx.check_limits(spec.kind, spec.max_gas_limit, head.gas_limit)
        .map_err(|error| IntentError::Doomed(error.to_string()))?;
    let too_large = || IntentError::Doomed("value plus fee exceeds 2^256 wei".to_owned());
    let max_fee = tx.max_fee().ok_or_else(too_large)?;
    let max_cost = tx.max_cost().ok_or_else(too_large)?;
    let allow = |tx: &UnsignedTx, seen: Seen<'_>| {
        let facts = Facts::of(&spec.name, tx, max_fee, &calls, seen);
        let violations = guardrails::check(&agent.guardrails, &facts);
        if !violations.is_empty() {
            return Err(IntentError::Guardrail(violations));
        }
        let charges = guardrails::charges(&agent.guardrails, &spec.spend_group, &facts);
        Ok(charges.into_iter().map(|charge| charge.unit).collect())
    };
    // What can be refused without a simulation is.
    let _: Vec<String> = allow(&tx, Seen::Later)?;
    let funds = Funds { balance, max_cost, unit: spec.native_currency.clone() };
    let simulates = asked || guardrails::needs_effects(&agent.guardrails, &spec.name, &calls);
    // T1 looks at what is open, with the lane locked. A simulation for nothing is worth a look before.
    let (open_cost, open) = match simulates {
        true => store::open_cost(&mut *app.db.acquire().await?, lane, nonce.latest).await?,
        false => (Wei::ZERO, 0),
    };
    check_depth(app, open, &spec.name)?;
    if request.kind == Kind::Submit {
        funds.check(key.address, open_cost)?;
    }
    let trial = Trial { tx, paid: true };
    let simulation = match simulates {
        true => Some(simulate_first(app, request.kind, &agent, &chain, &key, &trial, nonces).await?),
        false => None,
    };
    let tx = Bound::new(trial.tx, simulation)?;
    let effects = tx.simulation().and_then(|simulation| Effects::of_simulation(simulation, from));
    let units = allow(&tx, Seen::of(effects.as_ref()))?;
    Ok(Checked {
        org_id: agent.org_id,
        agent_id: agent.id,
        kind: request.kind,
        nonce: nonces.0,
        explicit_nonce: request.nonce,
        principal,
        claim,
        proposed: Proposed { chain, key, tx, max_fee, calls, effects, units },
        funds,
        turn: None,
    })
}

/// How many unmined transactions a lane may hold, those that are only signed included. Asked again with the lane locked.
pub(super) fn check_depth(app: &App, open: u64, chain: &str) -> Result<(), IntentError> {
    if open < app.config.intents.lane_depth_max {
        return Ok(());
    }
    Err(IntentError::could_not_check(format!(
        "{open} transactions of this key are not mined yet on {chain}: no more are taken until some are"
    )))
}

/// The most that may be paid per gas: the chain's ceiling, and the agent's own there.
pub(super) fn ceilings(agent: &Agent, spec: &ChainSpec) -> Ceilings {
    let own_rules = agent.guardrails.per_chain.get(&spec.name);
    Ceilings {
        chain_wei: spec.max_fee_per_gas_ceiling_wei,
        agent_wei: own_rules.and_then(|own| own.max_fee_per_gas_wei),
    }
}

/// A gas limit, or why none can be chosen.
pub(super) enum Gas {
    /// What is signed.
    Limit(u64),
    /// The call itself fails; the node's words.
    WouldFail(String),
}

/// Whether it is a transfer that costs 21000, if the recipient has no code. On a rollup with its own gas accounting none does.
pub(super) fn is_plain(kind: ChainKind, request: &Request) -> bool {
    request.data.is_empty() && matches!(kind, ChainKind::Ethereum | ChainKind::Op)
}

/// The most gas that a transaction may ask for now.
pub(super) fn most_gas(spec: &ChainSpec, head: &Head) -> u64 {
    let protocol_gas_max = if spec.kind == ChainKind::Ethereum { TX_GAS_MAX } else { u64::MAX };
    spec.max_gas_limit.min(head.gas_limit).min(protocol_gas_max)
}

/// The caller's limit, or 21000 for a plain transfer to an address without code, or the node's estimate and a fifth.
/// Whether the recipient has code is asked unless it is known.
pub(super) async fn gas_limit(
    chain: &Chain,
    rpc: &Rpc,
    request: &Request,
    from: Address,
    has_code: Option<bool>,
) -> Result<Gas, IntentError> {
    if let Some(limit) = request.gas_limit {
        return Ok(Gas::Limit(limit));
    }
    let unreachable = |error: RpcError| IntentError::could_not_check(error.to_string());
    if is_plain(chain.spec().kind, request) {
        let has_code = match has_code {
            Some(known) => known,
            None => rpc.has_code(request.to).await.map_err(unreachable)?,
        };
        if !has_code {
            return Ok(Gas::Limit(21_000));
        }
    }
    let call = TxRequest { from, to: request.to, value: request.value, data: request.data.clone(), gas_limit: None };
    match rpc.estimate_gas(&call).await {
        Ok(estimate) => Ok(Gas::Limit(estimate.saturating_add(estimate / 5))),
        Err(RpcError::Node { ref error, .. }) if would_fail(error) => Ok(Gas::WouldFail(error.message.clone())),
        Err(error) => Err(unreachable(error)),
    }
}

/// Whether the node says that the call itself fails, and not that it could not try (a quota, a missing method or block).
fn would_fail(error: &NodeError) -> bool {
    const WORDS: [&str; 5] = ["revert", "insufficient", "gas required exceeds", "out of gas", "invalid opcode"];
    let message = error.message.to_lowercase();
    error.code == 3 || error.data.is_some() || WORDS.iter().any(|word| message.contains(word))
}

/// What the key has, read together with the mined nonce, and what the intent can cost.
#[derive(Clone, Debug)]
pub(super) struct Funds {
    balance: Wei,
    max_cost: Wei,
    unit: String,
}

impl Funds {
    /// Whether it is enough beside what the key's unmined transactions can still cost, and what they can cost with this one.
    pub(super) fn check(&self, address: Address, open_cost: Wei) -> Result<Wei, IntentError> {
        match open_cost.checked_add(self.max_cost) {
            Some(cost) if cost <= self.balance || self.max_cost == Wei::ZERO => return Ok(cost),
            _ => {}
        }
        let Self { balance, max_cost, unit } = self;
        Err(IntentError::Doomed(format!(
            "insufficient funds: {address} has {} {unit}, {} of it taken by its unmined transactions, and this one needs up to {} with its fee",
            balance.to_units(),
            open_cost.to_units(),
            max_cost.to_units(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_call_that_fails_is_doomed() {
        let error = |code, message: &str| NodeError { code, message: message.to_owned(), data: None };
        assert!(
            would_fail(&error(3, "execution reverted")) && would_fail(&error(-32000, "insufficient funds for gas"))
        );
        for message in ["daily request count exceeded", "header not found", "the method does not exist"] {
            assert!(!would_fail(&error(-32000, message)), "{message}");
        }
    }
}
