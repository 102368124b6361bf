//! Personal API keys in the database.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use crate::access::tokens::PlainKey;
use crate::db::DbError;
use crate::ids::{ApiKeyId, OrgId, UserId};

/// A key, without what opens anything.
#[derive(Debug, FromRow)]
pub struct Key {
    /// Its id.
    pub id: ApiKeyId,
    /// What it is for.
    pub name: String,
    /// Its public beginning.
    pub key_prefix: String,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// Not revoked, and not ended.
    pub is_active: bool,
    /// Since when.
    pub created_at: OffsetDateTime,
    /// When it stops.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was used last, to the minute.
    pub last_used_at: Option<OffsetDateTime>,
}

/// A human's keys that are not revoked, oldest first.
///
/// # Errors
/// As any statement.
pub async fn list(conn: &mut PgConnection, org_id: OrgId, user_id: UserId) -> Result<Vec<Key>, DbError> {
    let keys = sqlx::query_as(
        "SELECT id, name, key_prefix, scopes, (expires_at IS NULL OR expires_at > now()) AS is_active, created_at, expires_at,
                last_used_at
         FROM user_api_keys WHERE user_id = $1 AND org_id = $2 AND is_active ORDER BY created_at, id",
    )
    .bind(user_id)
    .bind(org_id)
    .fetch_all(conn)
    .await?;
    Ok(keys)
}

/// How many there are of them. Hold the human's row.
///
/// # Errors
/// As any statement.
pub async fn count(conn: &mut PgConnection, user_id: UserId) -> Result<i64, DbError> {
    let count = sqlx::query_scalar("SELECT count(*) FROM user_api_keys WHERE user_id = $1 AND is_active")
        .bind(user_id)
        .fetch_one(conn)
        .await?;
    Ok(count)
}

/// When a key ends, if it does.
///
/// # Errors
/// As any statement.
pub async fn end_of(conn: &mut PgConnection, id: ApiKeyId) -> Result<Option<OffsetDateTime>, DbError> {
    let end: Option<Option<OffsetDateTime>> =
        sqlx::query_scalar("SELECT expires_at FROM user_api_keys WHERE id = $1").bind(id).fetch_optional(conn).await?;
    Ok(end.flatten())
}

/// A new key, by its hash.
///
/// # Errors
/// As any statement.
pub async fn insert(
    conn: &mut PgConnection,
    org_id: OrgId,
    user_id: UserId,
    name: &str,
    scopes: &[String],
    expires_at: Option<OffsetDateTime>,
    key: &PlainKey,
) -> Result<Key, DbError> {
    let key = sqlx::query_as(
        "INSERT INTO user_api_keys (id, org_id, user_id, name, scopes, expires_at, key_prefix, key_hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         RETURNING id, name, key_prefix, scopes, is_active, created_at, expires_at, last_used_at",
    )
    .bind(ApiKeyId::random())
    .bind(org_id)
    .bind(user_id)
    .bind(name)
    .bind(scopes)
    .bind(expires_at)
    .bind(key.prefix())
    .bind(key.hash().0.as_slice())
    .fetch_one(conn)
    .await?;
    Ok(key)
}

/// Revokes a key of a human. Waits for what is being done with it.
///
/// # Errors
/// As any statement. `Ok(false)`: there is none, or it is revoked.
pub async fn revoke(conn: &mut PgConnection, org_id: OrgId, user_id: UserId, id: ApiKeyId) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE user_api_keys SET is_active = false WHERE id = $1 AND user_id = $2 AND org_id = $3 AND is_active",
    )
    .bind(id)
    .bind(user_id)
    .bind(org_id)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
