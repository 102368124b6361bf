//! Device grants in the database.

use sqlx::{FromRow, PgConnection};

use crate::db::DbError;
use crate::ids::{ApiKeyId, OrgId, UserId};

/// A pair of codes that is asked for.
pub struct NewGrant<'a> {
    /// Of the program's code.
    pub device_hash: [u8; 32],
    /// Of the human's code.
    pub user_hash: [u8; 32],
    /// What the program says it is.
    pub client_id: &'a str,
    /// Whom it says it is for.
    pub email: Option<&'a str>,
}

/// Keeps a pair of codes. Some that have ended go.
///
/// # Errors
/// As any statement.
pub async fn put(
    conn: &mut PgConnection,
    grant: &NewGrant<'_>,
    lifetime_s: i32,
    interval_s: i32,
) -> Result<(), DbError> {
    sqlx::query(
        "DELETE FROM device_grants WHERE device_hash IN
           (SELECT device_hash FROM device_grants WHERE expires_at < now() ORDER BY expires_at LIMIT 16 FOR UPDATE SKIP LOCKED)",
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "INSERT INTO device_grants (device_hash, user_hash, client_id, email, interval_s, expires_at)
         VALUES ($1, $2, $3, $4, $5, now() + $6 * interval '1 second')",
    )
    .bind(grant.device_hash.as_slice())
    .bind(grant.user_hash.as_slice())
    .bind(grant.client_id)
    .bind(grant.email)
    .bind(interval_s)
    .bind(lifetime_s)
    .execute(conn)
    .await?;
    Ok(())
}

/// What a human sees of a grant.
#[derive(Debug, FromRow)]
pub struct Grant {
    /// What the program says it is.
    pub client_id: String,
    /// `pending`, `approved` or `denied`.
    pub state: String,
    /// Seconds until it ends.
    pub expires_in_s: i32,
}

/// The live grant of a user code, if it is for this human or for anybody.
///
/// # Errors
/// As any statement.
pub async fn find(conn: &mut PgConnection, user_hash: [u8; 32], id: UserId) -> Result<Option<Grant>, DbError> {
    let grant = sqlx::query_as(
        "SELECT client_id, state, extract(epoch FROM expires_at - now())::int4 AS expires_in_s FROM device_grants
         WHERE user_hash = $1 AND expires_at > now() AND (email IS NULL OR email = (SELECT email FROM users WHERE id = $2))
           AND (user_id IS NULL OR user_id = $2)",
    )
    .bind(user_hash.as_slice())
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(grant)
}

/// What a yes rests on.
pub struct RestsOn {
    /// Who says it.
    pub user_id: UserId,
    /// The epoch in which.
    pub epoch: i32,
    /// The key with which, if with one.
    pub key: Option<ApiKeyId>,
}

/// A human's yes (with what it rests on) or no. Returns what the program says it is.
///
/// # Errors
/// As any statement. `Ok(None)`: there is no such grant for this human that waits for an answer.
pub async fn answer(
    conn: &mut PgConnection,
    user_hash: [u8; 32],
    id: UserId,
    yes: Option<RestsOn>,
) -> Result<Option<String>, DbError> {
    let client_id = sqlx::query_scalar(
        "UPDATE device_grants SET state = CASE WHEN $3::uuid IS NULL THEN 'denied' ELSE 'approved' END, user_id = $3, epoch = $4,
                key_prefix = (SELECT key_prefix FROM user_api_keys WHERE id = $5)
         WHERE user_hash = $1 AND state = 'pending' AND expires_at > clock_timestamp()
           AND (email IS NULL OR email = (SELECT email FROM users WHERE id = $2))
         RETURNING client_id",
    )
    .bind(user_hash.as_slice())
    .bind(id)
    .bind(yes.as_ref().map(|yes| yes.user_id))
    .bind(yes.as_ref().map(|yes| yes.epoch))
    .bind(yes.as_ref().and_then(|yes| yes.key))
    .fetch_optional(conn)
    .await?;
    Ok(client_id)
}

/// What a grant has come to.
#[derive(Debug)]
pub enum State {
    /// Nobody has answered.
    Pending,
    /// Yes. The grant is gone: this is told once.
    Approved(Approved),
    /// No.
    Denied,
}

/// A yes.
#[derive(Debug, FromRow)]
pub struct Approved {
    /// Whose.
    pub user_id: UserId,
    /// The organisation.
    pub org_id: OrgId,
    /// The epoch it rests on.
    pub epoch: i32,
    /// The key it rests on, if on one.
    pub key_prefix: Option<String>,
}

/// One question of the program.
#[derive(Debug)]
pub struct Poll {
    /// What has come of it.
    pub state: State,
    /// It asks more often than it may.
    pub too_soon: bool,
    /// Seconds between two questions, from now on.
    pub interval_s: i32,
}

/// Notes that the program asks, and says what there is. Holds the grant's row; of several questions at once, one is told the yes.
///
/// # Errors
/// As any statement. `Ok(None)`: there is no such grant any more.
pub async fn poll(conn: &mut PgConnection, device_hash: [u8; 32]) -> Result<Option<Poll>, DbError> {
    let row: Option<(String, bool, i32)> = sqlx::query_as(
        "SELECT state, COALESCE(clock_timestamp() < polled_at + interval_s * interval '1 second', false), interval_s
         FROM device_grants WHERE device_hash = $1 AND expires_at > now() FOR UPDATE",
    )
    .bind(device_hash.as_slice())
    .fetch_optional(&mut *conn)
    .await?;
    let Some((state, too_soon, interval_s)) = row else { return Ok(None) };
    if too_soon || state == "pending" {
        // RFC 8628 §3.5: five seconds more for each question that came too soon. Bounded by the grant's own lifetime.
        let interval_s = if too_soon { (interval_s + 5).min(60) } else { interval_s };
        sqlx::query("UPDATE device_grants SET polled_at = clock_timestamp(), interval_s = $2 WHERE device_hash = $1")
            .bind(device_hash.as_slice())
            .bind(interval_s)
            .execute(conn)
            .await?;
        return Ok(Some(Poll { state: State::Pending, too_soon, interval_s }));
    }
    let approved: Option<Approved> = sqlx::query_as(
        "DELETE FROM device_grants d USING users u
         WHERE d.device_hash = $1 AND d.state = 'approved' AND u.id = d.user_id RETURNING d.user_id, u.org_id, d.epoch, d.key_prefix",
    )
    .bind(device_hash.as_slice())
    .fetch_optional(conn)
    .await?;
    let state = approved.map_or(State::Denied, State::Approved);
    Ok(Some(Poll { state, too_soon, interval_s }))
}
