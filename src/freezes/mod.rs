//! The kill switch: an organisation, an agent, a key or a chain that signs nothing new until a human lifts it. What is signed, and no
//! node is known to have, is held as long (`intents::store::to_send`), and as long as its agent is to pay it no more; what a node has is
//! followed to its end.
//!
//! A freeze that has been answered holds on every daemon: whatever signs goes through the organisation's gate ([`store::pass_gate`]; T1 in its
//! first statement, `intents::store::hold`) before it reads what is in force, and whoever freezes writes it, and then closes the gate once
//! before it answers. Postgres serves those who wait for an advisory lock in turn, so a freeze waits for the transactions that are being
//! signed and never for those that come after.

pub mod api;
pub mod http;
pub mod store;

pub use store::Freeze;

use alloy::primitives::Address;
use sqlx::PgConnection;

use crate::access::throttle::{self, Throttle};
use crate::audit::{self, Actor, Event, Resource};
use crate::chain::ChainId;
use crate::db::DbError;
use crate::ids::{AgentId, OrgId};

/// Longest reason, in characters.
pub const REASON_CHARS_MAX: usize = 500;

/// What is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything of the organisation.
    Organisation(OrgId),
    /// One agent.
    Agent(AgentId),
    /// One key, whoever uses it.
    Key(Address),
    /// One chain, for this organisation.
    Chain(ChainId),
}

impl Scope {
    /// As the API and the table name the kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Organisation(_) => "organisation",
            Self::Agent(_) => "agent",
            Self::Key(_) => "key",
            Self::Chain(_) => "chain",
        }
    }

    /// As the table names the one.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Organisation(id) => id.to_string(),
            Self::Agent(id) => id.to_string(),
            Self::Key(address) => format!("{address:#x}"),
            Self::Chain(id) => id.0.to_string(),
        }
    }
}

/// Counts a denial of an agent by its guardrails, and freezes the agent when there were as many within an hour as its human has set. In
/// the transaction that records the denial.
///
/// # Errors
/// As any statement.
pub async fn count_denial(conn: &mut PgConnection, org_id: OrgId, agent: AgentId) -> Result<(), DbError> {
    let Some(most) = store::denials_allowed(conn, agent).await? else { return Ok(()) };
    // The last that is allowed is the one that freezes.
    let denials = Throttle::Denials(most.saturating_sub(1));
    if throttle::take(conn, denials, denials_of(agent)).await?.is_none() {
        return Ok(());
    }
    let reason = format!("{most} transactions were denied by guardrails within an hour");
    let (freeze, new) = store::put(conn, org_id, Scope::Agent(agent), &reason, Actor::System).await?;
    if new {
        tracing::warn!(%agent, "agent frozen: {reason}; a human lifts it with DELETE /v1/freezes/{}", freeze.id);
        let event = Event::by_system(org_id, "freeze.create", Resource::new("freeze", freeze.id));
        audit::record(conn, told(event, &freeze)).await?;
    }
    Ok(())
}

fn denials_of(agent: AgentId) -> [u8; 32] {
    throttle::key(&[agent.0.as_bytes()])
}

/// An event with what it is about.
fn told(event: Event, freeze: &Freeze) -> Event {
    event
        .with("scope", freeze.scope.as_str())
        .with("subject", freeze.subject.as_str())
        .with("reason", freeze.reason.as_str())
}
