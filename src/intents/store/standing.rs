//! What the organisation and the installation say of an intent.

use sqlx::{FromRow, PgConnection};

use super::super::error::IntentError;
use super::super::lanes::Lane;
use super::signed;
use crate::freezes::Scope;
use crate::ids::{AgentId, OrgId};

/// What the organisation and the installation say of an intent, as it is now. What the organisation says holds behind its gate; what the
/// installation says goes through no gate, and T1 reads it once more as late as it can ([`LaneLook`](super::LaneLook)).
#[derive(Clone, Debug, FromRow)]
pub struct Standing {
    /// Every intent is simulated before it is signed: the organisation's setting, or the installation's.
    pub simulation_required: bool,
    /// Nothing new is signed for the chain.
    pub chain_disabled: bool,
    /// What of it is frozen: `organisation`, `agent`, `key` or `chain`.
    frozen: Option<String>,
    /// Why, in a human's words.
    frozen_reason: Option<String>,
}

impl Standing {
    /// Nothing new is signed for what is frozen.
    pub fn refuse_frozen(&self) -> Result<(), IntentError> {
        let Some(what) = &self.frozen else { return Ok(()) };
        let reason = self.frozen_reason.as_deref().filter(|reason| !reason.is_empty());
        Err(IntentError::NotAllowed(format!(
            "this {what} is frozen{}: nothing new is signed until a human lifts the freeze, see GET /v1/freezes",
            reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
        )))
    }
}

/// Whether the installation wants every intent simulated.
macro_rules! all_are_simulated {
    () => {
        "EXISTS (SELECT 1 FROM platform_settings WHERE key = 'intents_api.require_simulation' AND value = 'true')"
    };
}
pub(super) use all_are_simulated;

/// Whether nothing new is signed for the chain with this id.
macro_rules! is_disabled {
    ($chain:literal) => {
        concat!("EXISTS (SELECT 1 FROM chains WHERE chain_id = ", $chain, " AND NOT is_enabled)")
    };
}
pub(super) use is_disabled;

/// What [`Standing`] says of an organisation, a chain's id, and kinds and subjects of freezes.
macro_rules! standing_of {
    ($org:literal, $chain:literal, $kinds:literal, $subjects:literal) => {
        concat!(
            "SELECT o.require_simulation OR ",
            $crate::intents::store::standing::all_are_simulated!(),
            " AS simulation_required, ",
            $crate::intents::store::standing::is_disabled!($chain),
            " AS chain_disabled, f.scope AS frozen, f.reason AS frozen_reason
         FROM organisations o LEFT JOIN LATERAL (
             SELECT f.scope, f.reason FROM unnest(",
            $kinds,
            "::text[], ",
            $subjects,
            "::text[]) AS s (scope, subject)
             JOIN freezes f ON f.org_id = o.id AND f.scope = s.scope AND f.subject = s.subject LIMIT 1) f ON true
         WHERE o.id = ",
            $org
        )
    };
}
pub(super) use standing_of;

/// The freezes that would hold an intent: kinds and subjects, for [`standing_of`](macro@standing_of).
pub(super) fn freezes_of(org: OrgId, agent: AgentId, lane: Lane) -> (Vec<&'static str>, Vec<String>) {
    let scopes = [Scope::Organisation(org), Scope::Agent(agent), Scope::Key(lane.address), Scope::Chain(lane.chain_id)];
    (scopes.iter().map(Scope::kind).collect(), scopes.iter().map(Scope::subject).collect())
}

/// Reads it. In T1 behind the organisation's gate, so that its settings and freezes, once answered, hold.
pub async fn standing(
    conn: &mut PgConnection,
    org: OrgId,
    agent: AgentId,
    lane: Lane,
) -> Result<Standing, sqlx::Error> {
    let (kinds, subjects) = freezes_of(org, agent, lane);
    sqlx::query_as(standing_of!("$1", "$2", "$3", "$4"))
        .bind(org)
        .bind(signed(lane.chain_id.0))
        .bind(kinds)
        .bind(subjects)
        .fetch_one(conn)
        .await
}
