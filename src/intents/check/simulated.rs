//! Simulating an intent before it is signed, after the key's own transactions that will run before it.

use std::sync::Arc;

use super::super::bound::Ahead;
use super::super::error::IntentError;
use super::super::lanes::Lane;
use super::super::parse::Kind;
use super::super::store::{self, NewIntent, SimulationNote};
use super::super::{refuse, view};
use super::NonceView;
use crate::agents::Agent;
use crate::app::App;
use crate::chain::{Chain, UnsignedTx};
use crate::contracts;
use crate::ids::IntentId;
use crate::simulate::{self, Simulation, SimulationStatus, Trial, UNMINED_MAX, settings};
use crate::vaults::keys::SigningKey;

/// How often a simulation is made again when one of what it applied first was mined meanwhile, and may have been applied twice.
const SIMULATIONS_MAX: u32 = 3;

/// Simulates after the key's own transactions that will run before it. Where one of them is only signed and may never be sent, the
/// result is not taken to tell all effects.
pub(in crate::intents) async fn simulate_after(
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
pub(super) async fn simulate_first(
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
