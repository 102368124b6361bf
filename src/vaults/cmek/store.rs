//! Rotations and the values they move, in the database.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use crate::db::DbError;
use crate::hsm::{Envelope, SealedDek};
use crate::ids::{CmekRotationId, KekId, OrgId, SecretId, VaultId};

/// How long a rotation may show no sign of life before it is over, in seconds.
const LEASE_S: f64 = 60.0;

/// A rotation.
#[derive(Clone, Debug, FromRow)]
pub struct Rotation {
    /// Its id.
    pub id: CmekRotationId,
    /// Its organisation.
    pub org_id: OrgId,
    /// The vault.
    pub vault_id: VaultId,
    /// The key that values leave.
    pub old_fingerprint: String,
    /// The key that they come under.
    pub new_fingerprint: String,
    /// `pending`, `running`, `completed` or `failed`.
    pub state: String,
    /// Values under the old key when it began.
    pub total: i64,
    /// How many are under the new one now.
    pub processed: i64,
    /// Why it failed.
    pub error: Option<String>,
    /// Since when it is there.
    pub created_at: OffsetDateTime,
    /// Since when it runs.
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    pub completed_at: Option<OffsetDateTime>,
}

macro_rules! columns {
    ($head:literal, $tail:literal) => {
        concat!(
            $head,
            " id, org_id, vault_id, old_fingerprint, new_fingerprint, state, total, processed, error, created_at, started_at,
              completed_at ",
            $tail
        )
    };
}

/// Values that a rotation from this key has to move: whatever could be read, also of deleted secrets, which can be restored.
macro_rules! to_move {
    ($head:literal, $tail:literal) => {
        concat!(
            $head,
            " FROM secrets s JOIN secret_versions v ON v.secret_id = s.id
              WHERE s.vault_id = $1 AND v.cmek_fingerprint = $2 AND v.disabled_at IS NULL AND v.destroyed_at IS NULL ",
            $tail
        )
    };
}

/// Ends rotations whose lease is over, of one vault or of all.
///
/// # Errors
/// As any statement.
pub async fn fail_abandoned(conn: &mut PgConnection, vault_id: Option<VaultId>) -> Result<Vec<Rotation>, DbError> {
    let ended = sqlx::query_as(columns!(
        "UPDATE cmek_rotations SET state = 'failed', completed_at = now(),
                error = 'the daemon that ran it is gone: ask for it again with the same keys, and it goes on'
         WHERE state IN ('pending', 'running') AND lease_until < clock_timestamp() AND ($1::uuid IS NULL OR vault_id = $1)
         RETURNING",
        ""
    ))
    .bind(vault_id)
    .fetch_all(conn)
    .await?;
    Ok(ended)
}

/// Whether a rotation of this vault is under way.
///
/// # Errors
/// As any statement.
pub async fn live(conn: &mut PgConnection, vault_id: VaultId) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM cmek_rotations WHERE vault_id = $1 AND state IN ('pending', 'running')")
        .bind(vault_id)
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// A new rotation. The caller holds the vault.
///
/// # Errors
/// As any statement.
pub async fn begin(
    conn: &mut PgConnection,
    org_id: OrgId,
    vault_id: VaultId,
    old: &str,
    new: &str,
) -> Result<Rotation, DbError> {
    let total = left(conn, vault_id, old).await?;
    let rotation = sqlx::query_as(columns!(
        "INSERT INTO cmek_rotations (id, org_id, vault_id, old_fingerprint, new_fingerprint, state, total, lease_until)
         VALUES ($1, $2, $3, $4, $5, 'pending', $6, clock_timestamp() + make_interval(secs => $7)) RETURNING",
        ""
    ))
    .bind(CmekRotationId::random())
    .bind(org_id)
    .bind(vault_id)
    .bind(old)
    .bind(new)
    .bind(total)
    .bind(LEASE_S)
    .fetch_one(conn)
    .await?;
    Ok(rotation)
}

/// A rotation.
///
/// # Errors
/// As any statement.
pub async fn get(
    conn: &mut PgConnection,
    org_id: OrgId,
    vault_id: VaultId,
    id: CmekRotationId,
) -> Result<Option<Rotation>, DbError> {
    let rotation =
        sqlx::query_as(columns!("SELECT", "FROM cmek_rotations WHERE id = $1 AND vault_id = $2 AND org_id = $3"))
            .bind(id)
            .bind(vault_id)
            .bind(org_id)
            .fetch_optional(conn)
            .await?;
    Ok(rotation)
}

/// Shows that the rotation lives, with so many values more. `false`: it is over, by whoever found its lease past. Holds its row.
///
/// # Errors
/// As any statement.
pub async fn renew(conn: &mut PgConnection, id: CmekRotationId, moved: i64) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE cmek_rotations SET state = 'running', started_at = COALESCE(started_at, now()), processed = processed + $2,
                lease_until = clock_timestamp() + make_interval(secs => $3)
         WHERE id = $1 AND state IN ('pending', 'running') AND lease_until >= clock_timestamp()",
    )
    .bind(id)
    .bind(moved)
    .bind(LEASE_S)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends it: completed, or failed with a reason. `None`: it was over before.
///
/// # Errors
/// As any statement.
pub async fn end(
    conn: &mut PgConnection,
    id: CmekRotationId,
    error: Option<&str>,
) -> Result<Option<Rotation>, DbError> {
    let ended = sqlx::query_as(columns!(
        "UPDATE cmek_rotations SET state = CASE WHEN $2::text IS NULL THEN 'completed' ELSE 'failed' END, error = $2,
                completed_at = now()
         WHERE id = $1 AND state IN ('pending', 'running') RETURNING",
        ""
    ))
    .bind(id)
    .bind(error)
    .fetch_optional(conn)
    .await?;
    Ok(ended)
}

/// How many values are still under a key.
///
/// # Errors
/// As any statement.
pub async fn left(conn: &mut PgConnection, vault_id: VaultId, fingerprint: &str) -> Result<i64, DbError> {
    let count =
        sqlx::query_scalar(to_move!("SELECT count(*)", "")).bind(vault_id).bind(fingerprint).fetch_one(conn).await?;
    Ok(count)
}

/// A value that is to be moved: which, and how large.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct ToMove {
    /// The secret.
    pub secret_id: SecretId,
    /// The version.
    pub version: i32,
    /// Bytes of its sealed body.
    pub bytes: i64,
}

/// The next values behind one.
///
/// # Errors
/// As any statement.
pub async fn batch(
    conn: &mut PgConnection,
    vault_id: VaultId,
    fingerprint: &str,
    after: Option<(SecretId, i32)>,
    limit: i64,
) -> Result<Vec<ToMove>, DbError> {
    let rows = sqlx::query_as(to_move!(
        "SELECT v.secret_id, v.version, octet_length(v.ciphertext)::bigint AS bytes",
        "AND ($3::uuid IS NULL OR (v.secret_id, v.version) > ($3, $4)) ORDER BY v.secret_id, v.version LIMIT $5"
    ))
    .bind(vault_id)
    .bind(fingerprint)
    .bind(after.map(|(id, _)| id))
    .bind(after.map(|(_, version)| version))
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(rows)
}

/// A value with where it belongs.
pub struct Loaded {
    /// The secret.
    pub secret_id: SecretId,
    /// The version.
    pub version: i32,
    /// The path.
    pub path: String,
    /// The type.
    pub kind: String,
    /// The sealed body.
    pub envelope: Envelope,
}

#[derive(FromRow)]
struct LoadedRow {
    secret_id: SecretId,
    version: i32,
    path: String,
    #[sqlx(rename = "type")]
    kind: String,
    kek_id: KekId,
    dek_iv: Vec<u8>,
    dek_sealed: Vec<u8>,
    nonce: Vec<u8>,
    ciphertext: Vec<u8>,
}

/// The body of a value that is to be moved. `None`: it needs that no more.
///
/// # Errors
/// As any statement.
pub async fn load(
    conn: &mut PgConnection,
    vault_id: VaultId,
    fingerprint: &str,
    one: ToMove,
) -> Result<Option<Loaded>, DbError> {
    let row: Option<LoadedRow> = sqlx::query_as(to_move!(
        "SELECT v.secret_id, v.version, s.path, v.type, v.kek_id, v.dek_iv, v.dek_sealed, v.nonce, v.ciphertext",
        "AND v.secret_id = $3 AND v.version = $4"
    ))
    .bind(vault_id)
    .bind(fingerprint)
    .bind(one.secret_id)
    .bind(one.version)
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let damaged = || DbError::Internal(sqlx::Error::Decode("a sealed value has no nonce of 12 bytes".into()));
    let iv = row.dek_iv.try_into().map_err(|_| damaged())?;
    let nonce = row.nonce.try_into().map_err(|_| damaged())?;
    let dek = SealedDek { kek_id: row.kek_id, iv, ciphertext: row.dek_sealed };
    Ok(Some(Loaded {
        secret_id: row.secret_id,
        version: row.version,
        path: row.path,
        kind: row.kind,
        envelope: Envelope { dek, nonce, ciphertext: row.ciphertext },
    }))
}

/// What becomes of a value.
pub struct Moved {
    /// As it was read.
    pub was: Loaded,
    /// The body under the new key, sealed; `None`: it was under the new key already.
    pub envelope: Option<Envelope>,
}

/// Puts a value under its new key, unless something else has happened to it since it was read. `false`: it has.
///
/// # Errors
/// As any statement.
pub async fn apply(conn: &mut PgConnection, rotation: &Rotation, moved: &Moved) -> Result<bool, DbError> {
    let envelope = moved.envelope.as_ref().unwrap_or(&moved.was.envelope);
    let done = sqlx::query(
        "UPDATE secret_versions SET cmek_fingerprint = $5, kek_id = $6, dek_iv = $7, dek_sealed = $8, nonce = $9, ciphertext = $10
         WHERE secret_id = $1 AND version = $2 AND cmek_fingerprint = $3 AND disabled_at IS NULL AND destroyed_at IS NULL
           AND dek_sealed = $4",
    )
    .bind(moved.was.secret_id)
    .bind(moved.was.version)
    .bind(&rotation.old_fingerprint)
    .bind(&moved.was.envelope.dek.ciphertext)
    .bind(&rotation.new_fingerprint)
    .bind(envelope.dek.kek_id)
    .bind(envelope.dek.iv.as_slice())
    .bind(&envelope.dek.ciphertext)
    .bind(envelope.nonce.as_slice())
    .bind(&envelope.ciphertext)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
