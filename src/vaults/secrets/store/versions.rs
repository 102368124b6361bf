//! What becomes of single versions.

use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Stored;
use crate::access::Authorised;
use crate::db::DbError;
use crate::ids::{KeyId, OrgId, SecretId, VaultId};

/// Most bodies that one new version takes away.
const DESTROYED_AT_ONCE: i64 = 1_000;

/// A version, without its value.
#[derive(Clone, Debug, FromRow)]
pub struct VersionRow {
    /// The secret.
    pub id: SecretId,
    /// The path.
    pub path: String,
    /// The type.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// The version.
    pub version: i32,
    /// The client's own object.
    #[sqlx(json)]
    pub metadata: Value,
    /// When it ends.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was stored.
    pub created_at: OffsetDateTime,
    /// By whom.
    pub created_by: Uuid,
    /// `user` or `agent`.
    pub created_by_type: String,
    /// Since when it is not read any more.
    pub disabled_at: Option<OffsetDateTime>,
    /// Since when its value is gone.
    pub destroyed_at: Option<OffsetDateTime>,
    /// The key that the client had encrypted the value with.
    pub cmek_fingerprint: Option<String>,
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT s.id, s.path, v.type, v.version, v.metadata, v.expires_at, v.created_at, v.created_by, v.created_by_type,
                    v.disabled_at, v.destroyed_at, v.cmek_fingerprint
             FROM secrets s JOIN secret_versions v ON v.secret_id = s.id ",
            $tail
        )
    };
}

/// Versions of a secret that are older than `before`, newest first.
///
/// # Errors
/// As any statement.
pub async fn page(
    conn: &mut PgConnection,
    granted: &Authorised,
    id: SecretId,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<VersionRow>, DbError> {
    let versions = sqlx::query_as(select!(
        "WHERE s.id = $1 AND s.org_id = $2 AND ($3::integer IS NULL OR v.version < $3) ORDER BY v.version DESC LIMIT $4"
    ))
    .bind(id)
    .bind(granted.org_id())
    .bind(before)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(versions)
}

/// One version.
///
/// # Errors
/// As any statement.
pub async fn get(
    conn: &mut PgConnection,
    granted: &Authorised,
    id: SecretId,
    version: i32,
) -> Result<Option<VersionRow>, DbError> {
    let row = sqlx::query_as(select!("WHERE s.id = $1 AND s.org_id = $2 AND v.version = $3"))
        .bind(id)
        .bind(granted.org_id())
        .bind(version)
        .fetch_optional(conn)
        .await?;
    Ok(row)
}

/// Ends the reading of a version, and the signing of its key. `false`: it had ended before.
///
/// Locks the secret's row, then the version's, then the key's.
///
/// # Errors
/// As any statement.
pub async fn disable(
    conn: &mut PgConnection,
    granted: &Authorised,
    id: SecretId,
    version: i32,
) -> Result<bool, DbError> {
    sqlx::query("SELECT 1 FROM secrets WHERE id = $1 AND org_id = $2 FOR UPDATE")
        .bind(id)
        .bind(granted.org_id())
        .execute(&mut *conn)
        .await?;
    let done = sqlx::query(
        "UPDATE secret_versions SET disabled_at = now() WHERE secret_id = $1 AND version = $2 AND disabled_at IS NULL",
    )
    .bind(id)
    .bind(version)
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "UPDATE signing_keys SET state = 'superseded', superseded_at = now()
         WHERE secret_id = $1 AND version = $2 AND state = 'active'",
    )
    .bind(id)
    .bind(version)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the reading of every version before this one.
///
/// # Errors
/// As any statement.
pub async fn close_before(conn: &mut PgConnection, id: SecretId, version: i32) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE secret_versions SET disabled_at = now() WHERE secret_id = $1 AND version < $2 AND disabled_at IS NULL",
    )
    .bind(id)
    .bind(version)
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes away the bodies of the oldest versions up to this one, and their metadata. A signing key is not a body. How many there were.
///
/// # Errors
/// As any statement.
pub async fn destroy_older(conn: &mut PgConnection, id: SecretId, up_to: i32) -> Result<u64, DbError> {
    let done = sqlx::query(
        "UPDATE secret_versions SET destroyed_at = now(), kek_id = NULL, dek_iv = NULL, dek_sealed = NULL, nonce = NULL,
                ciphertext = NULL, metadata = '{}'
         WHERE secret_id = $1 AND version IN (
             SELECT version FROM secret_versions
             WHERE secret_id = $1 AND version <= $2 AND destroyed_at IS NULL AND ciphertext IS NOT NULL
             ORDER BY version LIMIT $3)",
    )
    .bind(id)
    .bind(up_to)
    .bind(DESTROYED_AT_ONCE)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// What was restored.
#[derive(Clone, Debug, FromRow)]
pub struct Restored {
    /// As a list shows it.
    #[sqlx(flatten)]
    pub stored: Stored,
    /// The signing key of its current version.
    pub key_id: Option<KeyId>,
}

/// Undoes a deletion, with the current version as it was. `None`: there is nothing deleted here. Locks the secret's row.
///
/// # Errors
/// As any statement.
pub async fn restore(
    conn: &mut PgConnection,
    org_id: OrgId,
    vault_id: VaultId,
    path: &str,
) -> Result<Option<Restored>, DbError> {
    let restored = sqlx::query_as(
        "UPDATE secrets s SET deleted_at = NULL, updated_at = v.created_at
         FROM secret_versions v
         WHERE s.vault_id = $1 AND s.org_id = $2 AND s.path = $3 AND s.deleted_at IS NOT NULL
           AND v.secret_id = s.id AND v.version = s.version
         RETURNING s.id, s.path, s.type, s.version, s.metadata, s.expires_at, v.created_at AS stored_at, v.key_id",
    )
    .bind(vault_id)
    .bind(org_id)
    .bind(path)
    .fetch_optional(conn)
    .await?;
    Ok(restored)
}
