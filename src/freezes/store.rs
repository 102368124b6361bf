//! Freezes in the database.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Scope;
use crate::audit::Actor;
use crate::db::DbError;
use crate::ids::{AgentId, FreezeId, OrgId};

/// Sets the gates of organisations apart from whatever else may use advisory locks of this database.
pub(crate) const GATE: i64 = 0x696e_7465_6e74_6401;

macro_rules! columns {
    () => {
        "id, scope, subject, reason, actor_type, actor_id, created_at"
    };
}

/// A freeze in force.
#[derive(Clone, Debug, FromRow)]
pub struct Freeze {
    /// Its id, by which it is lifted.
    pub id: FreezeId,
    /// `organisation`, `agent`, `key` or `chain`.
    pub scope: String,
    /// Which one: an id, an address in lower case, or a chain's id.
    pub subject: String,
    /// Why, in the words of whoever did it.
    pub reason: String,
    /// `user` or `system`.
    pub actor_type: String,
    /// Who, if it was a human.
    pub actor_id: Option<Uuid>,
    /// Since when.
    pub created_at: OffsetDateTime,
}

/// Passes the gate of the organisation in one parameter, with [`GATE`] in another: for a statement that does more.
macro_rules! the_gate {
    ($org:literal, $gate:literal) => {
        concat!("pg_advisory_xact_lock_shared(hashtextextended(", $org, "::text, ", $gate, "))")
    };
}
pub(crate) use the_gate;

/// Goes through the organisation's gate, until the transaction ends: beside all others that sign, never beside a change of what may be
/// signed. What is read in a *later* statement holds until the COMMIT.
///
/// Locks: the organisation's advisory lock, shared, of the transaction (so it works behind pgbouncer).
///
/// # Errors
/// As any statement.
pub async fn pass_gate(conn: &mut PgConnection, org_id: OrgId) -> Result<(), DbError> {
    sqlx::query(concat!("SELECT ", the_gate!("$1", "$2"))).bind(org_id).bind(GATE).execute(conn).await?;
    Ok(())
}

/// Closes the organisation's gate until the transaction ends: waits for what is being signed, and holds up what comes after. First in a
/// transaction that holds no row which T1 asks for. Waits longer than any T1 can last, one of a daemon that hangs included.
///
/// Locks: the organisation's advisory lock, exclusive, of the transaction.
///
/// # Errors
/// As any statement.
pub async fn close_gate(conn: &mut PgConnection, org_id: OrgId) -> Result<(), DbError> {
    sqlx::query("SELECT set_config('statement_timeout', '30s', true)").execute(&mut *conn).await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1::text, $2))")
        .bind(org_id)
        .bind(GATE)
        .execute(conn)
        .await?;
    Ok(())
}

/// Freezes, and tells whether it was not frozen before: then the row is the older one.
///
/// # Errors
/// As any statement.
pub async fn put(
    conn: &mut PgConnection,
    org_id: OrgId,
    scope: Scope,
    reason: &str,
    by: Actor,
) -> Result<(Freeze, bool), DbError> {
    #[derive(FromRow)]
    struct Put {
        #[sqlx(flatten)]
        freeze: Freeze,
        is_new: bool,
    }
    let put: Put = sqlx::query_as(concat!(
        "INSERT INTO freezes (id, org_id, scope, subject, reason, actor_type, actor_id) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (org_id, scope, subject) DO UPDATE SET subject = excluded.subject RETURNING ",
        columns!(),
        ", xmax = 0 AS is_new"
    ))
    .bind(FreezeId::random())
    .bind(org_id)
    .bind(scope.kind())
    .bind(scope.subject())
    .bind(reason)
    .bind(by.kind())
    .bind(by.id())
    .fetch_one(conn)
    .await?;
    Ok((put.freeze, put.is_new))
}

/// One of the organisation's.
///
/// # Errors
/// As any statement.
pub async fn get(conn: &mut PgConnection, org_id: OrgId, id: FreezeId) -> Result<Option<Freeze>, DbError> {
    let freeze = sqlx::query_as(concat!("SELECT ", columns!(), " FROM freezes WHERE org_id = $1 AND id = $2"))
        .bind(org_id)
        .bind(id)
        .fetch_optional(conn)
        .await?;
    Ok(freeze)
}

/// Lifts one. `None`: the organisation has none with this id.
///
/// # Errors
/// As any statement.
pub async fn lift(conn: &mut PgConnection, org_id: OrgId, id: FreezeId) -> Result<Option<Freeze>, DbError> {
    let freeze = sqlx::query_as(concat!("DELETE FROM freezes WHERE org_id = $1 AND id = $2 RETURNING ", columns!()))
        .bind(org_id)
        .bind(id)
        .fetch_optional(conn)
        .await?;
    Ok(freeze)
}

/// The organisation's, newest first, before a place if one is given.
///
/// # Errors
/// As any statement.
pub async fn list(
    conn: &mut PgConnection,
    org_id: OrgId,
    before: Option<(OffsetDateTime, FreezeId)>,
    limit: i64,
) -> Result<Vec<Freeze>, DbError> {
    let freezes = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM freezes WHERE org_id = $1 AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
          ORDER BY created_at DESC, id DESC LIMIT $4"
    ))
    .bind(org_id)
    .bind(before.map(|(at, _)| at))
    .bind(before.map(|(_, id)| id))
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(freezes)
}

/// After how many denials within an hour the agent is frozen, if its human has set it.
///
/// # Errors
/// As any statement.
pub async fn denials_allowed(conn: &mut PgConnection, agent: AgentId) -> Result<Option<u16>, DbError> {
    let most: Option<Option<i32>> =
        sqlx::query_scalar("SELECT (tx_rules ->> 'tx_suspend_after_denials')::int FROM agents WHERE id = $1")
            .bind(agent)
            .fetch_optional(conn)
            .await?;
    Ok(most.flatten().and_then(|most| u16::try_from(most).ok()))
}

/// Whether an agent of the organisation, or a key of it with this address, is there.
///
/// # Errors
/// As any statement.
pub async fn is_there(conn: &mut PgConnection, org_id: OrgId, scope: Scope) -> Result<bool, DbError> {
    let found: Option<i32> = match scope {
        Scope::Organisation(id) => return Ok(id == org_id),
        Scope::Chain(_) => return Ok(true),
        Scope::Agent(id) => {
            sqlx::query_scalar("SELECT 1 FROM agents WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL")
                .bind(org_id)
                .bind(id)
                .fetch_optional(conn)
                .await?
        }
        Scope::Key(address) => {
            sqlx::query_scalar("SELECT 1 FROM signing_keys WHERE org_id = $1 AND address = $2 LIMIT 1")
                .bind(org_id)
                .bind(address.as_slice())
                .fetch_optional(conn)
                .await?
        }
    };
    Ok(found.is_some())
}
