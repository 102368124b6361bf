//! What a mined transaction has really done, held against the rules once more. A contract may do something else when it is mined than
//! it did when it was simulated: that cannot be undone, but it counts, and it is told.

use std::sync::Arc;

use alloy::primitives::U256;

use super::store::OpenSlot;
use crate::agents;
use crate::app::App;
use crate::chain::{ChainSpec, Receipt};
use crate::db::DbError;
use crate::intents::calldata;
use crate::intents::effects::Effects;
use crate::intents::guardrails::{self, Facts, Seen};
use crate::intents::store;
use crate::money::Wei;
use crate::simulate::EventLog;

/// The most that an entry is raised to: beyond it every limit is exceeded, and a token that lies must not overflow a sum.
const RAISE_MAX: U256 = U256::from_limbs([u64::MAX, u64::MAX, 0, 0]);

/// What came out otherwise than the rules want it.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// By token window, in the order of their locks: what the transaction took, at least.
    pub(super) taken: Vec<(String, Wei)>,
    /// The rules, as they are now, that its events break and its calldata does not.
    pub(super) broken: Vec<String>,
}

impl Aftermath {
    /// Whether it came out as it should.
    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.broken.is_empty()
    }
}

/// Looks at the events of an intent's transaction. Most have none that concern the signer: then nothing is asked of the database.
pub(super) async fn look(
    app: &Arc<App>,
    spec: &ChainSpec,
    slot: &OpenSlot,
    receipt: &Receipt,
) -> Result<Aftermath, DbError> {
    let signer = slot.lane.address;
    let event =
        |log: &crate::chain::Log| EventLog { address: log.address, topics: log.topics.clone(), data: log.data.clone() };
    let logs: Vec<EventLog> = receipt.logs.iter().map(event).collect();
    let effects = Effects::of_logs(&logs, signer);
    let Some(intent) = slot.intent.filter(|_| !effects.tokens.is_empty() || !effects.privileged.is_empty()) else {
        return Ok(Aftermath::default());
    };
    let mut conn = app.db.acquire().await?;
    let Some((agent_id, tx)) = store::signed_tx(&mut conn, intent).await? else { return Ok(Aftermath::default()) };
    let Some(agent) = agents::store::any(&mut conn, agent_id).await? else { return Ok(Aftermath::default()) };
    let calls = calldata::read(tx.to, tx.value.0, &tx.data);
    let said = Facts { gas: None, ..Facts::of(&spec.name, &tx, Wei::ZERO, &calls, Seen::Later) };
    let done = Facts { seen: Seen::Effects(&effects), ..said.clone() };
    let known = guardrails::check(&agent.guardrails, &said);
    let broken = guardrails::check(&agent.guardrails, &done).into_iter().filter(|violation| !known.contains(violation));
    let charges = guardrails::charges(&agent.guardrails, &spec.spend_group, &done).into_iter();
    let tokens = charges.filter(|charge| charge.unit.starts_with(guardrails::TOKEN_UNITS));
    Ok(Aftermath {
        taken: tokens.map(|charge| (charge.unit, Wei(charge.value.0.min(RAISE_MAX)))).collect(),
        broken: broken.map(|violation| violation.to_string()).collect(),
    })
}
