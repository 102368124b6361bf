//! Everything of a replacement that asks the chain, under one deadline and with no lock.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Address, Bytes};

use super::super::authorise::{HeldClaim, why_not_signing};
use super::super::bound::Bound;
use super::super::calldata::{self, Calls};
use super::super::check::{self, NonceView};
use super::super::effects::Effects;
use super::super::error::IntentError;
use super::super::guardrails::{self, Facts, Seen};
use super::super::proposed::Proposed;
use super::super::state::SlotState;
use super::super::store as rows;
use super::rules::{self, Reason};
use super::store::{Owner, Target};
use super::{By, store};
use crate::agents::{self, Agent};
use crate::app::App;
use crate::chain::fees;
use crate::chain::{
    Account, Ceilings, Chain, FeeQuote, FeeRequest, Fees, Kind, Market, Rpc, RpcError, TxRequest, UnsignedTx,
};
use crate::money::Wei;
use crate::simulate::{SimulationStatus, Trial};
use crate::vaults::keys::{self, SigningKey};

/// A replacement that may be signed if its slot is still as it was read, and the rules still say so.
pub(super) struct Replacement {
    pub(super) proposed: Proposed,
    pub(super) target: Target,
    pub(super) reason: Reason,
    pub(super) is_noop: bool,
    /// Whether the agent's rules decide. They do not decide about a no-op that a human or the daemon wants.
    pub(super) governed: bool,
    pub(super) balance: Wei,
    /// Below it every nonce is used.
    pub(super) latest: u64,
    pub(super) claim: Option<HeldClaim>,
}

impl Deref for Replacement {
    type Target = Proposed;

    fn deref(&self) -> &Proposed {
        &self.proposed
    }
}

/// Reads the chain, and makes the transaction.
pub(super) async fn prepare(
    app: &Arc<App>,
    by: By<'_>,
    chain: &Arc<Chain>,
    target: Target,
    reason: Reason,
    wanted: FeeRequest,
    claim: Option<HeldClaim>,
) -> Result<Replacement, IntentError> {
    let deadline = Duration::from_millis(app.config.intents.read_deadline_ms);
    let name = chain.spec().name.clone();
    let work = prepare_within(app, by, Arc::clone(chain), target, reason, wanted, claim);
    tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
        Err(IntentError::could_not_check(format!("chain {name} did not answer within {} ms", deadline.as_millis())))
    })
}

async fn prepare_within(
    app: &Arc<App>,
    by: By<'_>,
    chain: Arc<Chain>,
    target: Target,
    reason: Reason,
    wanted: FeeRequest,
    claim: Option<HeldClaim>,
) -> Result<Replacement, IntentError> {
    let spec = chain.spec();
    let is_noop = rules::signs_noop(reason, &target.standing);
    let by_agent = matches!(by, By::Principal(_)) && !by.is_human();
    let governed = !is_noop || (reason == Reason::Cancel && by_agent);
    let (key, agent) = whose(app, &target).await?;
    let agent = agent.filter(|_| governed);
    if governed && agent.is_none() {
        return Err(IntentError::NotFound("no such agent".to_owned()));
    }
    if governed && !chain.is_enabled() && !is_noop {
        return Err(IntentError::ChainDisabled(spec.name.clone()));
    }
    if let Some(why) = agent.as_ref().and_then(|agent| why_not_signing(agent, crate::clock::now())) {
        return Err(IntentError::NotAllowed(why.to_owned()));
    }
    let rpc = chain.rpc().await.map_err(|error| IntentError::could_not_check(error.to_string()))?;
    let from = target.lane.address;
    let reads = async { rpc.account(from, None).await.map_err(unreachable) };
    let gas = async {
        match (&target.owner, is_noop) {
            (Some(owner), false) => Ok(owner.tx.gas_limit),
            _ => transfer_gas(&chain, rpc, from).await,
        }
    };
    let (
        Account { pending_nonce: pending, latest_nonce: latest, balance, market: Market { quote, head }, .. },
        gas_limit,
    ) = tokio::try_join!(reads, gas)?;
    if target.standing.nonce < latest {
        return Err(IntentError::Conflict(format!(
            "nonce {} is used on {} already: ask for the transaction again in a moment",
            target.standing.nonce, spec.name
        )));
    }
    let ceilings = match &agent {
        Some(agent) => check::ceilings(agent, spec),
        None => Ceilings { chain_wei: spec.max_fee_per_gas_ceiling_wei, agent_wei: None },
    };
    let fees = choose_fees(&target, reason, wanted, &quote, ceilings)?;
    let tx = match &target.owner {
        Some(owner) if !is_noop => UnsignedTx { fees, ..owner.tx.clone() },
        _ => UnsignedTx {
            chain_id: spec.chain_id,
            from,
            to: from,
            value: Wei::ZERO,
            data: Bytes::new(),
            gas_limit,
            fees,
        },
    };
    let max_fee = tx.max_fee().ok_or_else(|| IntentError::Doomed("the fee exceeds 2^256 wei".to_owned()))?;
    // A no-op of ours calls nobody and pays nobody: what is left of the rules is about chains, gas and fees.
    let calls = if is_noop { Calls::default() } else { calldata::read(tx.to, tx.value.0, &tx.data) };
    let seen = NonceView { pending, latest, agreed: latest, block: head.number };
    let (tx, effects, units) =
        hold_to_the_rules(app, &chain, agent.as_ref(), &target, tx, max_fee, &calls, is_noop, seen).await?;
    let proposed = Proposed { chain, key, tx, max_fee, calls, effects, units };
    Ok(Replacement { proposed, target, reason, is_noop, governed, balance, latest, claim })
}

fn unreachable(error: RpcError) -> IntentError {
    IntentError::could_not_check(error.to_string())
}

/// The key of the slot, whatever became of it but destroyed, and the agent whose transaction it is.
async fn whose(app: &App, target: &Target) -> Result<(SigningKey, Option<Agent>), IntentError> {
    let gone = || IntentError::Conflict("the key of this transaction is not there any more".to_owned());
    let mut conn = app.db.acquire().await?;
    let key = keys::get(&mut conn, target.key_id.ok_or_else(gone)?).await?.ok_or_else(gone)?;
    if key.address != target.lane.address {
        return Err(gone());
    }
    let agent = match &target.owner {
        Some(owner) => agents::store::any(&mut conn, owner.agent_id).await?,
        None => None,
    };
    Ok((key, agent))
}

fn choose_fees(
    target: &Target,
    reason: Reason,
    wanted: FeeRequest,
    quote: &FeeQuote,
    ceilings: Ceilings,
) -> Result<Fees, IntentError> {
    let before = rules::to_outbid(&target.attempts);
    let fresh = || fees::choose(FeeRequest::default(), quote, ceilings);
    Ok(match (before, reason) {
        (None, _) => fresh()?,
        // Bytes that we do not send, or that no node is known to have, may be in no pool: at the ceiling, the no-op is tried all the same.
        (Some(_), Reason::Cancel | Reason::Close)
            if target.standing.sign_only || matches!(target.standing.state, SlotState::Signed | SlotState::Foreign) =>
        {
            fees::noop_fees(before, fresh()?, ceilings.chain_wei.min(ceilings.agent_wei.unwrap_or(u128::MAX)))
        }
        (Some(before), _) => fees::bump_to(before, wanted, quote, ceilings)?,
    })
}

/// The gas of a transfer to oneself: 21000 by Ethereum's rules, and what the node says where data on a parent chain is paid in gas.
async fn transfer_gas(chain: &Chain, rpc: &Rpc, address: Address) -> Result<u64, IntentError> {
    match chain.spec().kind {
        Kind::Ethereum | Kind::Op => Ok(21_000),
        Kind::Arbitrum | Kind::Zksync => {
            let call = TxRequest { from: address, to: address, value: Wei::ZERO, data: Bytes::new(), gas_limit: None };
            let estimate = rpc.estimate_gas(&call).await.map_err(unreachable)?;
            Ok(estimate.saturating_add(estimate / 5))
        }
    }
}

/// The rules, on the new payload; with a simulation of exactly it where one is required.
#[expect(clippy::too_many_arguments, reason = "all of it is looked at")]
async fn hold_to_the_rules(
    app: &Arc<App>,
    chain: &Arc<Chain>,
    agent: Option<&Agent>,
    target: &Target,
    tx: UnsignedTx,
    max_fee: Wei,
    calls: &Calls,
    is_noop: bool,
    nonces: NonceView,
) -> Result<(Bound, Option<Effects>, Vec<String>), IntentError> {
    let units = own_units(app, target.owner.as_ref()).await?;
    let Some(agent) = agent else { return Ok((Bound::new(tx, None)?, None, units.into_iter().collect())) };
    let (spec, from) = (chain.spec(), tx.from);
    let group = target.owner.as_ref().map_or(spec.spend_group.as_str(), |owner| owner.spend_group.as_str());
    let allow = |tx: &UnsignedTx, seen: Seen<'_>| {
        let facts = Facts::of(&spec.name, tx, max_fee, calls, seen);
        let violations = guardrails::check(&agent.guardrails, &facts);
        if !violations.is_empty() {
            return Err(IntentError::Guardrail(violations));
        }
        Ok(guardrails::charges(&agent.guardrails, group, &facts).into_iter().map(|charge| charge.unit))
    };
    drop(allow(&tx, Seen::Later)?);
    let needed = guardrails::needs_effects(&agent.guardrails, &spec.name, calls);
    let standing = rows::standing(&mut *app.db.acquire().await?, agent.org_id, agent.id, target.lane).await?;
    standing.refuse_frozen()?;
    let asked = app.config.intents.require_simulation || standing.simulation_required;
    let tx = if !is_noop && (asked || needed) {
        let trial = Trial { tx, paid: true };
        let nonce = Some(target.standing.nonce);
        let (simulation, ahead) = check::simulate_after(app, agent, chain, &trial, (nonces, nonce)).await?;
        if simulation.status != SimulationStatus::Success {
            let reason = simulation.reason();
            return Err(IntentError::Doomed(format!("it would fail by now, so nothing was signed: {reason}")));
        }
        Bound::new(trial.tx, Some((simulation, ahead)))?
    } else {
        Bound::new(tx, None)?
    };
    let effects = tx.simulation().and_then(|simulation| Effects::of_simulation(simulation, from));
    let charged: BTreeSet<String> = allow(&tx, Seen::of(effects.as_ref()))?.chain(units).collect();
    Ok((tx, effects, charged.into_iter().collect()))
}

/// The windows that the intent has entries in.
async fn own_units(app: &App, owner: Option<&Owner>) -> Result<BTreeSet<String>, IntentError> {
    let Some(owner) = owner else { return Ok(BTreeSet::new()) };
    let entries = store::entries(&mut *app.db.acquire().await?, owner.intent).await?;
    Ok(entries.into_keys().collect())
}
