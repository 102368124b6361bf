//! Everything that asks the chain, before any lock, under one deadline: nonce, fees, balance, gas, simulation. What a node's pool
//! would refuse is refused here, so that no doomed intent takes a nonce.

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::Address;

use super::authorise::{HeldClaim, Keyed};
use super::bound::{Ahead, Bound};
use super::calldata::Calls;
use super::effects::Effects;
use super::error::IntentError;
use super::guardrails::{self, Facts, Seen};
use super::lanes::Lane;
use super::parse::{Kind, Request};
use super::refuse;
use super::store::{self, NewIntent, SimulationNote};
use super::view;
use crate::access::Principal;
use crate::agents::Agent;
use crate::app::App;
use crate::chain::fees;
use crate::chain::tx::TX_GAS_MAX;
use crate::chain::{
    Ceilings, Chain, ChainSpec, Head, Kind as ChainKind, NodeError, Rpc, RpcError, TxRequest, UnsignedTx,
};
use crate::contracts;
use crate::ids::{AgentId, IntentId, OrgId};
use crate::money::Wei;
use crate::simulate::{self, Simulation, SimulationStatus, Trial, UNMINED_MAX, settings};
use crate::vaults::keys::SigningKey;

/// An intent that may be signed if the rules still say so when its nonce is taken. What is in here is what is signed: only the
/// nonce is added (I7).
pub struct Checked {
    pub(super) principal: Principal,
    pub(super) org_id: OrgId,
    pub(super) agent_id: AgentId,
    pub(super) kind: Kind,
    pub(super) chain: Arc<Chain>,
    pub(super) claim: Option<HeldClaim>,
    pub(super) key: SigningKey,
    pub(super) tx: Bound,
    pub(super) max_fee: Wei,
    pub(super) funds: Funds,
    pub(super) nonce: NonceView,
    pub(super) explicit_nonce: Option<u64>,
    pub(super) calls: Calls,
    /// Of the simulation, where it tells everything.
    pub(super) effects: Option<Effects>,
    /// The windows that it is charged to, by the rules as they were read here.
    pub(super) units: Vec<String>,
}

impl Checked {
    /// What the rules look at.
    pub(super) fn facts(&self) -> Facts<'_> {
        let seen = Seen::of(self.effects.as_ref());
        Facts::of(&self.chain.spec().name, &self.tx, self.max_fee, &self.calls, seen)
    }

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
    /// The block at which it was read.
    pub block: u64,
}

/// Reads the chain and builds the transaction.
///
/// # Errors
/// Refused by its content (422), by a rule (403), by its simulation (422), or could not be checked (503).
pub async fn check(app: &Arc<App>, keyed: Keyed) -> Result<Checked, IntentError> {
    let deadline = Duration::from_millis(app.config.intents.read_deadline_ms);
    let name = keyed.chain.spec().name.clone();
    tokio::time::timeout(deadline, check_within(app, keyed)).await.unwrap_or_else(|_| {
        Err(IntentError::could_not_check(format!("chain {name} did not answer within {} ms", deadline.as_millis())))
    })
}

async fn check_within(app: &Arc<App>, keyed: Keyed) -> Result<Checked, IntentError> {
    let Keyed { request, calls, principal, agent, chain, claim, key, simulation_required } = keyed;
    let spec = chain.spec();
    let rpc = chain.rpc().await.map_err(|error| IntentError::could_not_check(error.to_string()))?;
    let from = key.address;
    let lane = Lane { chain_id: spec.chain_id, address: from };
    let asked = request.simulate_first || app.config.intents.require_simulation || simulation_required;
    let unreachable = |error: RpcError| IntentError::could_not_check(error.to_string());
    let reads = async {
        tokio::try_join!(
            rpc.pending_nonce(from),
            rpc.latest_nonce(from),
            rpc.fee_quote(),
            rpc.balance(from),
            rpc.head()
        )
        .map_err(unreachable)
    };
    let ((pending, latest, quote, balance, head), gas) =
        tokio::try_join!(reads, gas_limit(&chain, rpc, &request, from))?;
    let nonces = (NonceView { pending, latest, block: head.number }, request.nonce);
    let (open_cost, open) = store::open_cost(&mut *app.db.acquire().await?, lane, latest).await?;
    if open >= app.config.intents.lane_depth_max {
        return Err(IntentError::could_not_check(format!(
            "{open} transactions of this key are not mined yet on {}: no more are taken until some are",
            spec.name
        )));
    }
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
    if request.kind == Kind::Submit {
        funds.check(key.address, open_cost)?;
    }
    let trial = Trial { tx, paid: true };
    let needed = guardrails::needs_effects(&agent.guardrails, &spec.name, &calls);
    let simulation = match asked || needed {
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
        chain,
        claim,
        key,
        tx,
        max_fee,
        funds,
        calls,
        effects,
        units,
    })
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
pub(super) async fn gas_limit(chain: &Chain, rpc: &Rpc, request: &Request, from: Address) -> Result<Gas, IntentError> {
    if let Some(limit) = request.gas_limit {
        return Ok(Gas::Limit(limit));
    }
    let unreachable = |error: RpcError| IntentError::could_not_check(error.to_string());
    if is_plain(chain.spec().kind, request) && !rpc.has_code(request.to).await.map_err(unreachable)? {
        return Ok(Gas::Limit(21_000));
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
    /// Whether it is enough beside what the key's unmined transactions can still cost.
    pub(super) fn check(&self, address: Address, open_cost: Wei) -> Result<(), IntentError> {
        let free = self.balance.checked_sub(open_cost).unwrap_or(Wei::ZERO);
        if self.max_cost <= free {
            return Ok(());
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

/// How often a simulation is made again when one of what it applied first was mined meanwhile, and may have been applied twice.
const SIMULATIONS_MAX: u32 = 3;

/// Simulates after the key's own transactions that will run before it. Where one of them is only signed and may never be sent, the
/// result is not taken to tell all effects.
async fn simulate_after(
    app: &Arc<App>,
    agent: &Agent,
    chain: &Arc<Chain>,
    trial: &Trial,
    (NonceView { mut latest, pending, .. }, explicit): (NonceView, Option<u64>),
) -> Result<(Simulation, Ahead), IntentError> {
    let lane = Lane { chain_id: trial.tx.chain_id, address: trial.tx.from };
    let unreachable = |error: &dyn std::fmt::Display| IntentError::could_not_check(error.to_string());
    let backend = settings::backend(app, agent.org_id).await?;
    for _ in 0..SIMULATIONS_MAX {
        let mut conn = app.db.acquire().await?;
        let own = match explicit {
            Some(nonce) => nonce,
            None => store::likely_nonce(&mut conn, lane, pending, latest).await?,
        };
        let prior = store::ahead_of(&mut conn, lane, latest, own, UNMINED_MAX as u64 + 1).await?;
        drop(conn);
        if prior.len() > UNMINED_MAX {
            return Err(IntentError::could_not_check(format!(
                "more than {UNMINED_MAX} transactions of this key are not mined yet: a simulation could not apply them first"
            )));
        }
        let ahead = Ahead { mined: latest, list: prior.iter().map(|one| (one.nonce, one.tx_hash)).collect() };
        let withheld = prior.iter().any(|one| one.withheld);
        let first: Vec<UnsignedTx> = prior.into_iter().map(|one| one.tx).collect();
        let mut simulations = simulate::simulate_bundle(&backend, chain, &first, std::slice::from_ref(trial)).await?;
        let simulation = simulations.remove(0);
        if first.is_empty() {
            return Ok((simulation, ahead));
        }
        let rpc = chain.rpc().await.map_err(|error| unreachable(&error))?;
        let now = rpc.latest_nonce(lane.address).await.map_err(|error| unreachable(&error))?;
        if now == latest {
            return Ok((if withheld { simulation.without_effects() } else { simulation }, ahead));
        }
        latest = now;
    }
    Err(IntentError::could_not_check(
        "transactions of this key are mined faster than this could be simulated: try again",
    ))
}

/// Simulates after the key's unmined transactions. A failure is recorded and refused.
async fn simulate_first(
    app: &Arc<App>,
    kind: Kind,
    agent: &Agent,
    chain: &Arc<Chain>,
    key: &SigningKey,
    trial: &Trial,
    nonces: (NonceView, Option<u64>),
) -> Result<(Simulation, Ahead), IntentError> {
    let (mut simulation, ahead) = simulate_after(app, agent, chain, trial, nonces).await?;
    if simulation.status == SimulationStatus::Success {
        return Ok((simulation, ahead));
    }
    contracts::name_error(app, agent.org_id, &mut simulation, trial.tx.to).await;
    let reason = simulation.reason();
    let spec = chain.spec();
    let refused = NewIntent {
        id: IntentId::random(),
        org_id: agent.org_id,
        agent_id: agent.id,
        kind,
        chain: &spec.name,
        spend_group: &spec.spend_group,
        key_id: key.id,
        tx: &trial.tx,
        simulation: Some(SimulationNote::from(&simulation)),
    };
    let row = refuse::keep_simulated(app, &refused).await?;
    let transaction = view::transaction(&row, false);
    Err(IntentError::SimulationReverted { reason, transaction })
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
