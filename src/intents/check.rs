//! Everything that asks the chain, before any lock, under one deadline: nonce, fees, balance, gas, simulation. What a node's pool
//! would refuse is refused here, so that no doomed intent takes a nonce.

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Address, B256};

use super::authorise::{HeldClaim, Keyed};
use super::error::IntentError;
use super::guardrails::{self, Facts};
use super::lanes::Lane;
use super::parse::{Kind, Request};
use super::refuse;
use super::store::{self, NewIntent};
use super::view;
use crate::access::Principal;
use crate::app::App;
use crate::chain::fees;
use crate::chain::{Ceilings, Chain, Kind as ChainKind, NodeError, Rpc, RpcError, TxRequest, UnsignedTx};
use crate::ids::{AgentId, IntentId, OrgId};
use crate::money::Wei;
use crate::simulate::{self, Simulation, SimulationStatus, UNMINED_MAX};
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
    pub(super) tx: UnsignedTx,
    pub(super) hash: B256,
    pub(super) max_fee: Wei,
    pub(super) funds: Funds,
    pub(super) nonce: NonceView,
    pub(super) explicit_nonce: Option<u64>,
    pub(super) simulation: Option<Simulation>,
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
    let Keyed { request, principal, agent, chain, claim, key } = keyed;
    let spec = chain.spec();
    let rpc = chain.rpc().await.map_err(|error| IntentError::could_not_check(error.to_string()))?;
    let from = key.address;
    let lane = Lane { chain_id: spec.chain_id, address: from };
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
    let ((pending, latest, quote, balance, head), gas_limit) =
        tokio::try_join!(reads, gas_limit(&chain, rpc, &request, from))?;
    let (open_cost, open) = store::open_cost(&mut *app.db.acquire().await?, lane, latest).await?;
    if open >= app.config.intents.lane_depth_max {
        return Err(IntentError::could_not_check(format!(
            "{open} transactions of this key are not mined yet on {}: no more are taken until some are",
            spec.name
        )));
    }
    let ceilings = Ceilings { chain_wei: spec.max_fee_per_gas_ceiling_wei, agent_wei: None };
    let fees = fees::choose(request.fees, &quote, ceilings)?;
    let tx = UnsignedTx {
        chain_id: spec.chain_id,
        from,
        to: request.to,
        value: request.value,
        data: request.data.clone(),
        gas_limit,
        fees,
    };
    tx.check_limits(spec.kind, spec.max_gas_limit, head.gas_limit)
        .map_err(|error| IntentError::Doomed(error.to_string()))?;
    let too_large = || IntentError::Doomed("value plus fee exceeds 2^256 wei".to_owned());
    let max_fee = tx.max_fee().ok_or_else(too_large)?;
    let max_cost = tx.max_cost().ok_or_else(too_large)?;
    let facts = Facts { chain: &spec.name, to: tx.to, value: tx.value, gas: Some((tx.gas_limit, max_fee)) };
    let violations = guardrails::check(&agent.guardrails, &facts);
    if !violations.is_empty() {
        return Err(IntentError::Guardrail(violations));
    }
    let funds = Funds { balance, max_cost, unit: spec.native_currency.clone() };
    if request.kind == Kind::Submit {
        funds.check(key.address, open_cost)?;
    }
    let simulation = simulate_if_asked(app, &request, &agent, &chain, &key, &tx).await?;
    Ok(Checked {
        org_id: agent.org_id,
        agent_id: agent.id,
        kind: request.kind,
        hash: tx.checked_hash(),
        nonce: NonceView { pending, latest, block: head.number },
        explicit_nonce: request.nonce,
        principal,
        chain,
        claim,
        key,
        tx,
        max_fee,
        funds,
        simulation,
    })
}

/// The caller's limit, or 21000 for a plain transfer to an address without code, or the node's estimate and a fifth.
async fn gas_limit(chain: &Chain, rpc: &Rpc, request: &Request, from: Address) -> Result<u64, IntentError> {
    if let Some(limit) = request.gas_limit {
        return Ok(limit);
    }
    let unreachable = |error: RpcError| IntentError::could_not_check(error.to_string());
    // On a rollup with its own gas accounting a transfer does not cost 21000.
    let plain = request.data.is_empty() && matches!(chain.spec().kind, ChainKind::Ethereum | ChainKind::Op);
    if plain && !rpc.has_code(request.to).await.map_err(unreachable)? {
        return Ok(21_000);
    }
    let call = TxRequest { from, to: request.to, value: request.value, data: request.data.clone(), gas_limit: None };
    let estimate = rpc.estimate_gas(&call).await.map_err(|error| match error {
        RpcError::Node { ref error, .. } if would_fail(error) => IntentError::Doomed(format!(
            "the gas of this transaction cannot be estimated, because it would fail: {}",
            error.message
        )),
        other => unreachable(other),
    })?;
    Ok(estimate.saturating_add(estimate / 5))
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

/// Simulates when the request, the organisation or the daemon wants it. A revert is recorded and refused.
async fn simulate_if_asked(
    app: &Arc<App>,
    request: &Request,
    agent: &crate::agents::Agent,
    chain: &Arc<Chain>,
    key: &SigningKey,
    tx: &UnsignedTx,
) -> Result<Option<Simulation>, IntentError> {
    let asked = request.simulate_first || app.config.intents.require_simulation;
    if !asked {
        let standing = store::standing(&mut *app.db.acquire().await?, agent.org_id, tx.chain_id).await?;
        if !standing.simulation_required {
            return Ok(None);
        }
    }
    let lane = Lane { chain_id: tx.chain_id, address: tx.from };
    let prior = store::unmined_of(&app.db, lane, UNMINED_MAX as u64 + 1).await?;
    if prior.len() > UNMINED_MAX {
        return Err(IntentError::could_not_check(format!(
            "more than {UNMINED_MAX} transactions of this key are not mined yet: a simulation could not apply them first"
        )));
    }
    let simulation = simulate::simulate(chain, &prior, tx)
        .await
        .map_err(|error| IntentError::CouldNotCheck { detail: error.to_string(), retry_after_s: 2 })?;
    match simulation.status {
        SimulationStatus::Success => Ok(Some(simulation)),
        SimulationStatus::Reverted | SimulationStatus::Error => {
            let reason = simulation.revert_reason.clone().unwrap_or_else(|| "no reason given".to_owned());
            let spec = chain.spec();
            let refused = NewIntent {
                id: IntentId::random(),
                org_id: agent.org_id,
                agent_id: agent.id,
                kind: request.kind,
                chain: &spec.name,
                spend_group: &spec.spend_group,
                key_id: key.id,
                tx,
                simulation: Some((simulation.id, simulation.status.as_str(), Some(reason.clone()))),
            };
            let row = refuse::keep_simulated(app, &refused).await?;
            let transaction = view::transaction(&row, false);
            Err(IntentError::SimulationReverted { reason, transaction })
        }
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
