//! Secrets and their versions in the database.

pub mod list;
pub mod versions;

use alloy::primitives::Address;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::NewSecret;
use crate::access::{Actor, Authorised, SecretPath};
use crate::db::DbError;
use crate::hsm::{Envelope, KeyContext, KeyRef, PublicKey, SealedDek};
use crate::ids::{KekId, OrgId, SecretId, VaultId};
use crate::vaults::keys;

mod reseal;

pub use reseal::{Found, Place, Sample, SealedVersion, replace_dek, sample, sealed_by};

/// A sealed body.
#[derive(Clone, Debug)]
pub struct Body(pub Envelope);

/// A signing key that the HSM has, and no row yet.
pub struct NewKey {
    /// What it is bound to.
    pub context: KeyContext,
    /// How to find it.
    pub key_ref: KeyRef,
    /// Its public half.
    pub public_key: PublicKey,
}

/// Where a path stands: enough to decide about the next version. Deleted secrets have one too.
#[derive(Clone, Debug, FromRow)]
pub struct Head {
    /// The secret.
    pub id: SecretId,
    /// Its current version.
    pub version: i32,
    /// Whether any version was a key.
    pub was_key_type: bool,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// What was stored.
#[derive(Clone, Debug, FromRow)]
pub struct Stored {
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
    /// When this version was stored.
    pub stored_at: OffsetDateTime,
}

/// A version of a secret, the current one unless another was asked for.
#[derive(Clone, Debug)]
pub struct Current {
    /// The secret.
    pub id: SecretId,
    /// The path.
    pub path: String,
    /// The type.
    pub kind: String,
    /// The version.
    pub version: i32,
    /// The client's own object.
    pub metadata: Value,
    /// When it ends.
    pub expires_at: Option<OffsetDateTime>,
    /// How often it may be read.
    pub max_access_count: Option<i32>,
    /// How often it was.
    pub access_count: i32,
    /// Whether any version was a key.
    pub was_key_type: bool,
    /// Whether the secret is deleted.
    pub deleted: bool,
    /// Whether this version is disabled.
    pub disabled: bool,
    /// Whether this version's value is kept no more.
    pub destroyed: bool,
    /// Whether the client had encrypted the value before it was sent.
    pub cmek: bool,
    /// Kept for the client; of the current version only.
    pub rotation_policy: Option<Value>,
    /// When this version was stored.
    pub stored_at: OffsetDateTime,
    /// By whom.
    pub stored_by: Actor,
    /// The sealed value; none for a key that is held in the HSM alone.
    pub body: Option<Body>,
    /// The address, for a signing key.
    pub key_address: Option<Address>,
}

/// Whether somebody is an agent with the Intents API on.
///
/// # Errors
/// As any statement.
pub async fn intents_enabled(conn: &mut PgConnection, org_id: OrgId, actor: Actor) -> Result<bool, DbError> {
    let Actor::Agent(id) = actor else { return Ok(false) };
    let enabled = sqlx::query_scalar("SELECT intents_api_enabled FROM agents WHERE id = $1 AND org_id = $2")
        .bind(id)
        .bind(org_id)
        .fetch_optional(conn)
        .await?;
    // An agent that is gone meanwhile gets the stricter rule.
    Ok(enabled.unwrap_or(true))
}

/// Where a path stands.
///
/// # Errors
/// As any statement.
pub async fn head(
    conn: &mut PgConnection,
    org_id: OrgId,
    vault_id: VaultId,
    path: &SecretPath,
) -> Result<Option<Head>, DbError> {
    let head = sqlx::query_as(
        "SELECT id, version, was_key_type, deleted_at IS NOT NULL AS deleted FROM secrets WHERE vault_id = $1 AND path = $2 AND org_id = $3",
    )
    .bind(vault_id)
    .bind(path.as_str())
    .bind(org_id)
    .fetch_optional(conn)
    .await?;
    Ok(head)
}

/// A version that is to follow `head`.
pub struct NewVersion<'a> {
    /// Where the path stood when it was prepared.
    pub head: Option<&'a Head>,
    /// Its number.
    pub version: i32,
    /// Everything else.
    pub new: &'a NewSecret,
    /// The sealed value.
    pub body: Option<&'a Body>,
    /// The signing key.
    pub key: Option<&'a NewKey>,
    /// The key that the client had encrypted the value with.
    pub cmek_fingerprint: Option<&'a str>,
}

/// Stores a version, and supersedes the signing key of the one before. `None`: the path stands elsewhere by now.
///
/// Locks the secret's row, then its keys'.
///
/// # Errors
/// As any statement.
pub async fn write(
    conn: &mut PgConnection,
    granted: &Authorised,
    version: &NewVersion<'_>,
) -> Result<Option<Stored>, DbError> {
    let Some(stored) = write_head(conn, granted, version).await? else { return Ok(None) };
    if version.head.is_some_and(|head| head.deleted) {
        // Storing is no way around restoring, which only managers may: what was deleted stays closed.
        versions::close_before(conn, stored.id, stored.version).await?;
    }
    keys::store::supersede(conn, stored.id).await?;
    if let Some(key) = version.key {
        keys::store::insert(conn, granted.vault_id(), stored.id, key).await?;
    }
    let envelope = version.body.map(|body| &body.0);
    sqlx::query(
        "INSERT INTO secret_versions (secret_id, version, type, kek_id, dek_iv, dek_sealed, nonce, ciphertext, key_id, created_by,
                                      created_by_type, created_at, metadata, expires_at, max_access_count, cmek_fingerprint)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(stored.id)
    .bind(stored.version)
    .bind(&stored.kind)
    .bind(envelope.map(|e| e.dek.kek_id))
    .bind(envelope.map(|e| e.dek.iv.to_vec()))
    .bind(envelope.map(|e| e.dek.ciphertext.as_slice()))
    .bind(envelope.map(|e| e.nonce.to_vec()))
    .bind(envelope.map(|e| e.ciphertext.as_slice()))
    .bind(version.key.map(|key| key.context.key_id))
    .bind(granted.actor().uuid())
    .bind(granted.actor().kind())
    .bind(stored.stored_at)
    .bind(Json(&version.new.metadata))
    .bind(version.new.expires_at)
    .bind(version.new.max_access_count)
    .bind(version.cmek_fingerprint)
    .execute(conn)
    .await?;
    Ok(Some(stored))
}

async fn write_head(
    conn: &mut PgConnection,
    granted: &Authorised,
    version: &NewVersion<'_>,
) -> Result<Option<Stored>, DbError> {
    let new = version.new;
    let (id, sql) = match version.head {
        None => (
            SecretId::random(),
            "INSERT INTO secrets (id, org_id, vault_id, path, version, type, metadata, rotation_policy, expires_at,
                                  was_key_type)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (vault_id, path) DO NOTHING
             RETURNING id, path, type, version, metadata, expires_at, updated_at AS stored_at",
        ),
        Some(head) => (
            head.id,
            "UPDATE secrets SET version = $5, type = $6, metadata = $7, rotation_policy = $8, expires_at = $9,
                    was_key_type = was_key_type OR $10, deleted_at = NULL, updated_at = now()
             WHERE id = $1 AND org_id = $2 AND vault_id = $3 AND path = $4 AND version = $5 - 1 AND (deleted_at IS NOT NULL) = $11
             RETURNING id, path, type, version, metadata, expires_at, updated_at AS stored_at",
        ),
    };
    let query = sqlx::query_as(sql)
        .bind(id)
        .bind(granted.org_id())
        .bind(granted.vault_id())
        .bind(granted.path().as_str())
        .bind(version.version)
        .bind(new.kind.as_str())
        .bind(Json(&new.metadata))
        .bind(new.rotation_policy.as_ref().map(Json))
        .bind(new.expires_at)
        .bind(new.kind.is_key());
    let query = match version.head {
        None => query,
        // Deleted or restored meanwhile: it is prepared again.
        Some(head) => query.bind(head.deleted),
    };
    Ok(query.fetch_optional(conn).await?)
}

#[derive(FromRow)]
struct CurrentRow {
    id: SecretId,
    path: String,
    #[sqlx(rename = "type")]
    kind: String,
    version: i32,
    #[sqlx(json)]
    metadata: Value,
    expires_at: Option<OffsetDateTime>,
    max_access_count: Option<i32>,
    access_count: i32,
    was_key_type: bool,
    deleted: bool,
    disabled: bool,
    destroyed: bool,
    cmek: bool,
    #[sqlx(json(nullable))]
    rotation_policy: Option<Value>,
    stored_at: OffsetDateTime,
    created_by: Uuid,
    created_by_type: String,
    kek_id: Option<KekId>,
    dek_iv: Option<Vec<u8>>,
    dek_sealed: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
    ciphertext: Option<Vec<u8>>,
    address: Option<Vec<u8>>,
}

impl CurrentRow {
    fn envelope(&self) -> Option<Envelope> {
        let dek = SealedDek {
            kek_id: self.kek_id?,
            iv: self.dek_iv.as_deref()?.try_into().ok()?,
            ciphertext: self.dek_sealed.clone()?,
        };
        Some(Envelope { dek, nonce: self.nonce.as_deref()?.try_into().ok()?, ciphertext: self.ciphertext.clone()? })
    }

    fn current(self) -> Result<Current, DbError> {
        let stored_by = crate::vaults::store::actor(&self.created_by_type, self.created_by)?;
        let body = self.envelope().map(Body);
        let key_address = self.address.as_deref().and_then(|bytes| Address::try_from(bytes).ok());
        Ok(Current {
            id: self.id,
            path: self.path,
            kind: self.kind,
            version: self.version,
            metadata: self.metadata,
            expires_at: self.expires_at,
            max_access_count: self.max_access_count,
            access_count: self.access_count,
            was_key_type: self.was_key_type,
            deleted: self.deleted,
            disabled: self.disabled,
            destroyed: self.destroyed,
            cmek: self.cmek,
            rotation_policy: self.rotation_policy,
            stored_at: self.stored_at,
            stored_by,
            body,
            key_address,
        })
    }
}

/// The current version at a path, also when it is deleted, expired or used up: the caller looks.
///
/// # Errors
/// As any statement.
pub async fn current(conn: &mut PgConnection, granted: &Authorised) -> Result<Option<Current>, DbError> {
    version(conn, granted, None).await
}

/// One version at a path (the current one by `None`), also when nobody may read it any more: the caller looks.
///
/// # Errors
/// As any statement.
pub async fn version(
    conn: &mut PgConnection,
    granted: &Authorised,
    version: Option<i32>,
) -> Result<Option<Current>, DbError> {
    let row: Option<CurrentRow> = sqlx::query_as(
        "SELECT s.id, s.path, v.type, v.version, v.metadata, v.expires_at, v.max_access_count, v.access_count, s.was_key_type,
                s.deleted_at IS NOT NULL AS deleted, v.disabled_at IS NOT NULL AS disabled,
                v.destroyed_at IS NOT NULL AS destroyed, v.cmek_fingerprint IS NOT NULL AS cmek,
                CASE WHEN v.version = s.version THEN s.rotation_policy END AS rotation_policy,
                v.created_at AS stored_at, v.created_by, v.created_by_type,
                v.kek_id, v.dek_iv, v.dek_sealed, v.nonce, v.ciphertext, k.address
         FROM secrets s
         JOIN secret_versions v ON v.secret_id = s.id AND v.version = COALESCE($4, s.version)
         LEFT JOIN signing_keys k ON k.id = v.key_id
         WHERE s.vault_id = $1 AND s.path = $2 AND s.org_id = $3",
    )
    .bind(granted.vault_id())
    .bind(granted.path().as_str())
    .bind(granted.org_id())
    .bind(version)
    .fetch_optional(conn)
    .await?;
    row.map(CurrentRow::current).transpose()
}

/// Counts an access of a version, where accesses are counted. `false`: it was the one too many, or the version went away meanwhile.
///
/// # Errors
/// As any statement.
pub async fn count_access(conn: &mut PgConnection, granted: &Authorised, current: &Current) -> Result<bool, DbError> {
    if current.max_access_count.is_none() {
        return Ok(true);
    }
    let done = sqlx::query(
        "UPDATE secret_versions v SET access_count = v.access_count + 1
         FROM secrets s
         WHERE s.id = $1 AND s.org_id = $2 AND v.secret_id = s.id AND v.version = $3
           AND s.deleted_at IS NULL AND v.disabled_at IS NULL AND v.destroyed_at IS NULL
           AND (v.max_access_count IS NULL OR v.access_count < v.max_access_count)",
    )
    .bind(current.id)
    .bind(granted.org_id())
    .bind(current.version)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes a secret; its path answers 410 from then on, until it is stored again. `false`: it was deleted already.
///
/// # Errors
/// As any statement.
pub async fn delete(conn: &mut PgConnection, granted: &Authorised, id: SecretId) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE secrets SET deleted_at = now(), updated_at = now() WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL")
        .bind(id)
        .bind(granted.org_id())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}
