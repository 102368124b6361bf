//! What is done to stored keys without anybody asking for a signature: bound to new keys of the token, sampled, destroyed.

use alloy::primitives::Address;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::SigningKey;
use super::{Columns, Row};
use crate::db::DbError;
use crate::hsm::{KekPurpose, KeyRef};
use crate::ids::{KekId, KeyId, OrgId, VaultId};

/// A key's id, and the key unless its row cannot be read: one such row must not keep the others from being taken.
pub type Found = (KeyId, Result<SigningKey, DbError>);

fn found(row: Row) -> Found {
    (row.id, row.key())
}

/// The keys that a `seal` or `mac` key of the token holds, in the order of their ids, after `after`: superseded ones too.
///
/// # Errors
/// As any statement.
pub async fn held_by(
    conn: &mut PgConnection,
    purpose: KekPurpose,
    kek: KekId,
    after: KeyId,
    limit: i64,
) -> Result<Vec<Found>, DbError> {
    let sql = match purpose {
        KekPurpose::Seal => select!("FROM signing_keys k WHERE k.kek_id = $1 AND k.id > $2 ORDER BY k.id LIMIT $3"),
        KekPurpose::Mac => select!("FROM signing_keys k WHERE k.mac_kek_id = $1 AND k.id > $2 ORDER BY k.id LIMIT $3"),
        KekPurpose::Data | KekPurpose::Jwt | KekPurpose::Audit => return Ok(Vec::new()),
    };
    let rows: Vec<Row> = sqlx::query_as(sql).bind(kek).bind(after).bind(limit).fetch_all(conn).await?;
    Ok(rows.into_iter().map(found).collect())
}

/// Puts a new reference in the place of exactly `old`. `false`: somebody else has, or the key was destroyed. The MAC covers all of a
/// reference, so it is what is compared.
///
/// # Errors
/// As any statement; [`DbError::Busy`] when a transaction that signs with the key holds its row for too long.
pub async fn replace_reference(
    conn: &mut PgConnection,
    id: KeyId,
    old: &KeyRef,
    new: &KeyRef,
) -> Result<bool, DbError> {
    let columns = Columns::of(new)?;
    let done = sqlx::query(
        "UPDATE signing_keys SET blob = $3, mechanism = $4, kek_id = $5, mac_kek_id = $6, mac = $7
         WHERE id = $1 AND mac = $2 AND custody = $8 AND state <> 'destroyed'",
    )
    .bind(id)
    .bind(Columns::of(old)?.mac)
    .bind(columns.blob)
    .bind(columns.mechanism)
    .bind(columns.kek_id)
    .bind(columns.mac_kek_id)
    .bind(columns.mac)
    .bind(columns.custody)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Some keys that can sign, from a random place in the order of ids on.
///
/// # Errors
/// As any statement.
pub async fn sample(conn: &mut PgConnection, count: i64) -> Result<Vec<Found>, DbError> {
    let (start, mut rows) = (Uuid::new_v4(), Vec::<Row>::new());
    for sql in [
        select!("FROM signing_keys k WHERE k.state <> 'destroyed' AND k.id >= $1 ORDER BY k.id LIMIT $2"),
        select!("FROM signing_keys k WHERE k.state <> 'destroyed' AND k.id < $1 ORDER BY k.id LIMIT $2"),
    ] {
        let missing = count - i64::try_from(rows.len()).unwrap_or(i64::MAX);
        rows.extend(sqlx::query_as::<_, Row>(sql).bind(start).bind(missing.max(0)).fetch_all(&mut *conn).await?);
    }
    Ok(rows.into_iter().map(found).collect())
}

/// A superseded key, and what may keep it.
#[derive(Clone, Debug, FromRow)]
pub struct Superseded {
    /// The key.
    pub id: KeyId,
    /// Whose it is.
    pub org_id: OrgId,
    /// In which vault it was.
    pub vault_id: VaultId,
    /// At which path.
    pub path: String,
    /// Which version of the path.
    pub version: i32,
    /// `wrapped` or `token`.
    pub custody: String,
    address: Vec<u8>,
    /// Since when it signs nothing new.
    pub superseded_at: OffsetDateTime,
    /// Nonces that it has signed for, and that are not settled.
    pub open_slots: i64,
    /// Whether its time of grace is over.
    pub due: bool,
}

impl Superseded {
    /// Its address.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::try_from(self.address.as_slice()).unwrap_or_default()
    }
}

/// Superseded keys, longest superseded first, after `after`.
///
/// # Errors
/// As any statement.
pub async fn superseded(
    conn: &mut PgConnection,
    vault: Option<VaultId>,
    grace_s: i64,
    after: Option<(OffsetDateTime, KeyId)>,
    limit: i64,
) -> Result<Vec<Superseded>, DbError> {
    let (at, id) = after.map_or((OffsetDateTime::UNIX_EPOCH, KeyId(Uuid::nil())), |cursor| cursor);
    let keys = sqlx::query_as(
        "SELECT k.id, k.org_id, k.vault_id, k.path, k.version, k.custody, k.address, k.superseded_at,
                (SELECT count(*) FROM slots s WHERE s.key_id = k.id AND s.state <> 'final') AS open_slots,
                k.superseded_at <= clock_timestamp() - make_interval(secs => $2) AS due
         FROM signing_keys k
         WHERE k.state = 'superseded' AND ($1::uuid IS NULL OR k.vault_id = $1) AND (k.superseded_at, k.id) > ($3, $4)
         ORDER BY k.superseded_at, k.id LIMIT $5",
    )
    .bind(vault)
    .bind(grace_s as f64)
    .bind(at)
    .bind(id)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(keys)
}

/// A superseded key whose time of grace is over and whose nonces are all settled, with its row held.
///
/// # Errors
/// As any statement.
pub async fn hold_destroyable(conn: &mut PgConnection, id: KeyId, grace_s: i64) -> Result<Option<SigningKey>, DbError> {
    // The row first, the slots in a later statement: a transaction that has signed with the key has committed its slot by then.
    let row: Option<Row> = sqlx::query_as(select!(
        "FROM signing_keys k WHERE k.id = $1 AND k.state = 'superseded'
           AND k.superseded_at <= clock_timestamp() - make_interval(secs => $2) FOR UPDATE"
    ))
    .bind(id)
    .bind(grace_s as f64)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let open: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM slots WHERE key_id = $1 AND state <> 'final')")
        .bind(id)
        .fetch_one(conn)
        .await?;
    if open { Ok(None) } else { row.key().map(Some) }
}

/// Erases what could sign. With the row held.
///
/// # Errors
/// As any statement.
pub async fn erase(conn: &mut PgConnection, id: KeyId) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE signing_keys SET state = 'destroyed', destroyed_at = clock_timestamp(), blob = NULL, mechanism = NULL, kek_id = NULL,
                cka_id = NULL, mac_kek_id = NULL, mac = NULL
         WHERE id = $1 AND state = 'superseded'",
    )
    .bind(id)
    .execute(conn)
    .await?;
    Ok(())
}
