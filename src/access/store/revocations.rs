//! Tokens that end before their time.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::access::{Actor, KeyRoot, Principal};
use crate::db::DbError;

/// Whether a token was revoked.
///
/// # Errors
/// As any statement.
pub async fn is_revoked(conn: &mut PgConnection, jti: Uuid) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM revoked_tokens WHERE jti = $1").bind(jti).fetch_optional(conn).await?;
    Ok(row.is_some())
}

/// Holds the row that a principal's credential rests on, against transactions that sign with it: what they began ends first, and what
/// they begin later sees what is written now.
///
/// # Errors
/// As any statement.
pub async fn lock_root(conn: &mut PgConnection, principal: &Principal) -> Result<(), DbError> {
    let (sql, id) = match principal.credential.root() {
        KeyRoot::Agent(_) => ("SELECT 1 FROM agents WHERE id = $1 FOR UPDATE", principal.actor.uuid()),
        KeyRoot::User(key_id) => ("SELECT 1 FROM user_api_keys WHERE id = $1 FOR UPDATE", key_id.0),
        KeyRoot::Epoch(_) => match principal.actor {
            Actor::Agent(id) => ("SELECT 1 FROM agents WHERE id = $1 FOR UPDATE", id.0),
            Actor::User(id) => ("SELECT 1 FROM users WHERE id = $1 FOR UPDATE", id.0),
        },
    };
    sqlx::query(sql).bind(id).execute(conn).await?;
    Ok(())
}

/// Revokes a token for good. Also forgets revocations of tokens that have ended by themselves.
///
/// # Errors
/// As any statement.
pub async fn revoke(conn: &mut PgConnection, jti: Uuid, expires_at: OffsetDateTime) -> Result<(), DbError> {
    sqlx::query("DELETE FROM revoked_tokens WHERE expires_at < now() - interval '1 day'").execute(&mut *conn).await?;
    sqlx::query("INSERT INTO revoked_tokens (jti, expires_at) VALUES ($1, $2) ON CONFLICT (jti) DO NOTHING")
        .bind(jti)
        .bind(expires_at)
        .execute(conn)
        .await?;
    Ok(())
}
