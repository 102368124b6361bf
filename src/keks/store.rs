//! Rotations, and the daemons that take part in them, in the database.

mod sealed;

use sqlx::{FromRow, PgConnection, PgPool};
use time::OffsetDateTime;

use super::rules::Daemon;
use crate::db::DbError;
use crate::ids::{DaemonId, KekId};

pub use sealed::{Sample, SealedRow, SealedTable};

/// A daemon that was not heard of for so long does not hold up a rotation, in seconds.
pub const LIVE_S: f64 = 15.0;
/// How long a daemon keeps the rotation's work once it has it, in seconds.
const LEASE_S: f64 = 15.0;
const LEASE: &str = "rotation";

/// A daemon begins: before it reads the rows of the keys, so that none becomes active without it.
///
/// # Errors
/// As any statement.
pub async fn register(pool: &PgPool, id: DaemonId) -> Result<(), DbError> {
    sqlx::query("INSERT INTO daemons (id) VALUES ($1) ON CONFLICT (id) DO NOTHING").bind(id).execute(pool).await?;
    Ok(())
}

/// What a daemon has now, and when that is, as stored. Forgets those that have not been heard of for an hour.
///
/// # Errors
/// As any statement.
pub async fn report(pool: &PgPool, daemon: &Daemon) -> Result<OffsetDateTime, DbError> {
    let seen_at = sqlx::query_scalar(
        "INSERT INTO daemons (id, keks, active_keks, note) VALUES ($1, $2, $3, $4)
         ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), keks = $2, active_keks = $3, note = $4
         RETURNING seen_at",
    )
    .bind(daemon.id)
    .bind(&daemon.keks)
    .bind(&daemon.active_keks)
    .bind(daemon.note.as_deref())
    .fetch_one(pool)
    .await?;
    sqlx::query("DELETE FROM daemons WHERE seen_at < clock_timestamp() - interval '1 hour'").execute(pool).await?;
    Ok(seen_at)
}

/// A daemon ends in order: it is not waited for, and neither is its lease.
///
/// # Errors
/// As any statement.
pub async fn leave(pool: &PgPool, id: DaemonId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM kek_leases WHERE holder = $1").bind(id).execute(pool).await?;
    sqlx::query("DELETE FROM daemons WHERE id = $1").bind(id).execute(pool).await?;
    Ok(())
}

#[derive(FromRow)]
struct DaemonRow {
    id: DaemonId,
    keks: Vec<KekId>,
    active_keks: Vec<KekId>,
    note: Option<String>,
}

/// The daemons that run.
///
/// # Errors
/// As any statement.
pub async fn live(conn: &mut PgConnection) -> Result<Vec<Daemon>, DbError> {
    let rows: Vec<DaemonRow> = sqlx::query_as(
        "SELECT id, keks, active_keks, note FROM daemons WHERE seen_at > clock_timestamp() - make_interval(secs => $1)
         ORDER BY started_at, id",
    )
    .bind(LIVE_S)
    .fetch_all(conn)
    .await?;
    let read = |row: DaemonRow| Daemon { id: row.id, keks: row.keks, active_keks: row.active_keks, note: row.note };
    Ok(rows.into_iter().map(read).collect())
}

/// Takes or keeps the rotation's work.
///
/// # Errors
/// As any statement.
pub async fn take_lease(pool: &PgPool, holder: DaemonId) -> Result<bool, DbError> {
    let done = sqlx::query(
        "INSERT INTO kek_leases (name, holder, until) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
         ON CONFLICT (name) DO UPDATE SET holder = $2, until = EXCLUDED.until
         WHERE kek_leases.holder = $2 OR kek_leases.until < clock_timestamp()",
    )
    .bind(LEASE)
    .bind(holder)
    .bind(LEASE_S)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The times of a key's life, and what keeps it.
#[derive(Clone, Debug, FromRow)]
pub struct Life {
    /// Which.
    pub id: KekId,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it took its predecessor's place.
    pub activated_at: Option<OffsetDateTime>,
    /// When its successor took its place.
    pub retiring_at: Option<OffsetDateTime>,
    /// Since when nothing needs it.
    pub retired_at: Option<OffsetDateTime>,
    /// Since when it is off the token.
    pub destroyed_at: Option<OffsetDateTime>,
    /// Rows that do not open under it.
    pub stuck_rows: i64,
    /// One of them.
    pub stuck_note: Option<String>,
    /// The database's clock.
    pub now: OffsetDateTime,
}

/// The lives of all keys, oldest first.
///
/// # Errors
/// As any statement.
pub async fn lives(conn: &mut PgConnection) -> Result<Vec<Life>, DbError> {
    let lives = sqlx::query_as(
        "SELECT id, created_at, activated_at, retiring_at, retired_at, destroyed_at, stuck_rows, stuck_note,
                clock_timestamp() AS now FROM keks ORDER BY created_at, id",
    )
    .fetch_all(conn)
    .await?;
    Ok(lives)
}

/// How many rows name a key, and where.
///
/// # Errors
/// As any statement.
pub async fn uses(conn: &mut PgConnection, id: KekId) -> Result<Vec<(String, i64)>, DbError> {
    let uses = sqlx::query_as("SELECT place, named FROM kek_uses($1) WHERE named > 0").bind(id).fetch_all(conn).await?;
    Ok(uses)
}

/// The new key takes the old one's place. Under the installation lock. `false`: it has already.
///
/// # Errors
/// As any statement.
pub async fn activate(conn: &mut PgConnection, new: KekId) -> Result<bool, DbError> {
    sqlx::query(
        "UPDATE keks SET state = 'retiring', retiring_at = clock_timestamp()
         WHERE state = 'active' AND purpose = (SELECT purpose FROM keks WHERE id = $1 AND state = 'adding')",
    )
    .bind(new)
    .execute(&mut *conn)
    .await?;
    let done = sqlx::query(
        "UPDATE keks SET state = 'active', activated_at = clock_timestamp() WHERE id = $1 AND state = 'adding'",
    )
    .bind(new)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Moves a key on in its life. Under the installation lock. `false`: it is elsewhere, or rows still name it. The key's row is held first and
/// the rows are counted in a later statement: who is just storing something made with it commits before it is counted.
///
/// # Errors
/// As any statement.
pub async fn end(conn: &mut PgConnection, id: KekId, step: End) -> Result<bool, DbError> {
    let (from, sql) = match step {
        End::Retire => (
            ["retiring", "retiring"],
            "UPDATE keks SET state = 'retired', retired_at = clock_timestamp(), stuck_rows = 0, stuck_note = NULL WHERE id = $1",
        ),
        End::BeginDestroy => (["retired", "destroying"], "UPDATE keks SET state = 'destroying' WHERE id = $1"),
        End::Destroyed => (
            ["destroying", "destroying"],
            "UPDATE keks SET state = 'destroyed', destroyed_at = clock_timestamp() WHERE id = $1",
        ),
    };
    let held = sqlx::query("SELECT 1 FROM keks WHERE id = $1 AND state = ANY($2) FOR UPDATE")
        .bind(id)
        .bind(from.as_slice())
        .execute(&mut *conn)
        .await?;
    if held.rows_affected() == 0 || !uses(conn, id).await?.is_empty() {
        return Ok(false);
    }
    sqlx::query(sql).bind(id).execute(conn).await?;
    Ok(true)
}

/// The end of a key's life, step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing needs it any more.
    Retire,
    /// It is to be taken off the token.
    BeginDestroy,
    /// It is off the token.
    Destroyed,
}

/// What a round could not open.
///
/// # Errors
/// As any statement.
pub async fn note_stuck(conn: &mut PgConnection, id: KekId, rows: i64, note: Option<&str>) -> Result<(), DbError> {
    sqlx::query("UPDATE keks SET stuck_rows = $2, stuck_note = $3 WHERE id = $1 AND (stuck_rows <> $2 OR stuck_note IS DISTINCT FROM $3)")
        .bind(id)
        .bind(rows)
        .bind(note)
        .execute(conn)
        .await?;
    Ok(())
}

/// Puts a canary in the place of exactly `old`. `false`: somebody else has.
///
/// # Errors
/// As any statement.
pub async fn replace_canary(
    conn: &mut PgConnection,
    id: KekId,
    old: &serde_json::Value,
    new: &serde_json::Value,
) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE keks SET canary = $3 WHERE id = $1 AND canary = $2")
        .bind(id)
        .bind(old)
        .bind(new)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// A single number.
async fn count(conn: &mut PgConnection, sql: &'static str) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar(sql).fetch_one(conn).await?)
}

/// Sealed versions, and signing keys that can sign.
///
/// # Errors
/// As any statement.
pub async fn totals(conn: &mut PgConnection) -> Result<(i64, i64), DbError> {
    let secrets = count(&mut *conn, "SELECT count(*) FROM secret_versions WHERE ciphertext IS NOT NULL").await?;
    let keys = count(conn, "SELECT count(*) FROM signing_keys WHERE state <> 'destroyed'").await?;
    Ok((secrets, keys))
}

/// What no sound database has, by a sentence for each, with how many rows have it.
///
/// # Errors
/// As any statement.
pub async fn inconsistencies(conn: &mut PgConnection) -> Result<Vec<(&'static str, i64)>, DbError> {
    let mut found = Vec::new();
    for (what, sql) in INCONSISTENCIES {
        found.push((*what, count(&mut *conn, sql).await?));
    }
    Ok(found)
}

const INCONSISTENCIES: &[(&str, &str)] = &[
    (
        "rows name a key of the token that is not in use",
        "SELECT coalesce(sum(u.named), 0)::bigint FROM keks k CROSS JOIN LATERAL kek_uses(k.id) u
         WHERE k.state NOT IN ('active', 'retiring')",
    ),
    (
        "secrets without their current version",
        "SELECT count(*) FROM secrets s WHERE NOT EXISTS
            (SELECT 1 FROM secret_versions v WHERE v.secret_id = s.id AND v.version = s.version)",
    ),
    (
        "active signing keys that are not their path's current version",
        "SELECT count(*) FROM signing_keys k JOIN secrets s ON s.id = k.secret_id
         WHERE k.state = 'active' AND (k.version <> s.version OR k.path <> s.path OR k.vault_id <> s.vault_id OR k.org_id <> s.org_id)",
    ),
    (
        "lanes with a nonce that nobody accounts for",
        "SELECT count(*) FROM lanes l WHERE l.next_nonce - l.first_nonce >
            (SELECT count(*) FROM slots s WHERE s.chain_id = l.chain_id AND s.address = l.address
             AND s.nonce >= l.first_nonce AND s.nonce < l.next_nonce)",
    ),
    (
        "transactions without their signed bytes",
        "SELECT count(*) FROM slots s WHERE s.intent_id IS NOT NULL AND NOT EXISTS
            (SELECT 1 FROM attempts a WHERE a.chain_id = s.chain_id AND a.address = s.address AND a.nonce = s.nonce)",
    ),
    (
        "transactions whose key is destroyed before they are final",
        "SELECT count(*) FROM slots s JOIN signing_keys k ON k.id = s.key_id WHERE s.state <> 'final' AND k.state = 'destroyed'",
    ),
];
