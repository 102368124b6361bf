//! What is kept of an intent that was refused: an audit row with its claim's release in one transaction, and, when a simulation
//! refused it, the intent itself.

use std::sync::Arc;

use sqlx::PgConnection;

use super::authorise::HeldClaim;
use super::error::IntentError;
use super::parse::Kind;
use super::store::{self, IntentRow, NewIntent};
use crate::access::Principal;
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::freezes;
use crate::ids::AgentId;

/// Writes the audit row and gives the claim back, unless something may have been signed under it.
pub(super) async fn write(
    conn: &mut PgConnection,
    principal: &Principal,
    agent_id: AgentId,
    kind: Kind,
    claim: Option<HeldClaim>,
    error: &IntentError,
) -> Result<(), DbError> {
    let event = Event::by(principal, kind.action(), Resource::new("agent", agent_id))
        .with("outcome", "refused")
        .with("why", error.label())
        .with("detail", error.to_string());
    audit::record(conn, event).await?;
    if matches!(error, IntentError::Guardrail(_)) {
        freezes::count_denial(conn, principal.org_id, agent_id).await?;
    }
    if let Some(claim) = claim.filter(|_| !error.keeps_claim()) {
        store::release_claim(conn, agent_id, claim.key_hash, claim.token).await?;
    }
    Ok(())
}

/// Records a refusal that happened outside T1.
pub(super) async fn record(
    app: &Arc<App>,
    principal: &Principal,
    agent_id: AgentId,
    kind: Kind,
    claim: Option<HeldClaim>,
    error: &IntentError,
) {
    let written = async {
        let mut tx = app.db.begin().await?;
        write(&mut tx, principal, agent_id, kind, claim, error).await?;
        tx.commit().await?;
        Ok::<(), DbError>(())
    };
    if let Err(cause) = written.await {
        // Nothing was done, so nothing is lost but the row; the claim is free again after its lease.
        tracing::error!(agent = %agent_id, error = %cause, refused = %error, "a refusal could not be recorded");
    }
}

/// Keeps an intent whose simulation reverted, as a row without a slot.
pub(super) async fn keep_simulated(app: &Arc<App>, new: &NewIntent<'_>) -> Result<IntentRow, IntentError> {
    let at = crate::clock::now();
    let mut tx = app.db.begin().await?;
    store::insert_intent(&mut tx, new, at).await?;
    tx.commit().await?;
    Ok(IntentRow::new(new, at, None))
}
