//! Agents without a key, and assertions that were used, in the database.

use sqlx::{FromRow, PgConnection};

use super::Once;
use crate::access::store::AgentIdentity;
use crate::db::DbError;
use crate::ids::AgentId;

/// An agent that has no key, and what it is known by instead.
#[derive(Clone, Debug, FromRow)]
pub struct KeylessAgent {
    /// Who. Its key's hash is one that no key has.
    #[sqlx(flatten)]
    pub identity: AgentIdentity,
    /// `mtls` or `oidc_client_credentials`; `api_key` when it has none yet.
    pub auth_method: String,
    /// 64 hex digits in lower case.
    pub client_cert_fingerprint: Option<String>,
    /// To the letter.
    pub oidc_issuer: Option<String>,
    /// Likewise.
    pub oidc_client_id: Option<String>,
    /// What tokens rest on: raised when any of the above changes.
    pub auth_epoch: i32,
}

/// The agent with this id, unless it has a key. Nothing is proven by it.
///
/// # Errors
/// As any statement.
pub async fn keyless_agent(conn: &mut PgConnection, id: AgentId) -> Result<Option<KeylessAgent>, DbError> {
    let agent = sqlx::query_as(
        "SELECT id, org_id, decode(repeat('00', 32), 'hex') AS key_hash, scopes, vault_ids, intents_api_enabled, token_ttl_seconds,
                expires_at, unclaimed, is_active AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS admitted,
                auth_method, client_cert_fingerprint, oidc_issuer, oidc_client_id, auth_epoch
         FROM agents WHERE id = $1 AND key_hash IS NULL",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(agent)
}

/// Notes that an assertion was used. `false`: it was used before, by whichever daemon. Also forgets some that have ended.
///
/// # Errors
/// As any statement.
pub async fn use_once(conn: &mut PgConnection, once: &Once) -> Result<bool, DbError> {
    sqlx::query(
        "DELETE FROM used_assertions
         WHERE key IN (SELECT key FROM used_assertions WHERE until < now() LIMIT 16 FOR UPDATE SKIP LOCKED)",
    )
    .execute(&mut *conn)
    .await?;
    let noted = sqlx::query("INSERT INTO used_assertions (key, until) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING")
        .bind(once.key.as_slice())
        .bind(once.until)
        .execute(conn)
        .await?;
    Ok(noted.rows_affected() == 1)
}
