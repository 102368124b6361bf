//! Reading a trail: links, their events, checkpoints, and events that have no link.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Row;
use crate::audit::hash::Hash;
use crate::audit::rules::{Checkpoint, Link, Trail};
use crate::db::DbError;
use crate::ids::{EventId, KekId};

/// A column whose CHECK keeps it from being negative.
pub(super) fn number(column: i64) -> u64 {
    u64::try_from(column).unwrap_or_default()
}

/// A column whose CHECK gives its length.
pub(super) fn hash_of(column: &[u8]) -> Result<Hash, DbError> {
    array(column)
}

fn array<const N: usize>(column: &[u8]) -> Result<[u8; N], DbError> {
    let wrong = || sqlx::Error::Decode(format!("a column has {} bytes instead of {N}", column.len()).into());
    column.try_into().map_err(|_| DbError::Internal(wrong()))
}

/// Where a chain ends, by its head, by its links and by its checkpoints, as of one moment.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// What the head says: how many links, and the hash of the last one.
    pub head: (u64, Hash),
    /// The last link that is there.
    pub last: u64,
    /// The last one that a checkpoint names, whoever signed it.
    pub checkpoint: u64,
}

/// The end of a chain.
///
/// # Errors
/// As any statement.
pub async fn end(conn: &mut PgConnection, trail: Trail) -> Result<End, DbError> {
    let (seq, hash, last, checkpoint): (Option<i64>, Option<Vec<u8>>, Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT h.seq, h.hash, (SELECT max(l.seq) FROM audit_links l WHERE l.org_id = $1),
                (SELECT max(c.seq) FROM audit_checkpoints c WHERE c.org_id = $1)
         FROM (SELECT 1) one LEFT JOIN audit_heads h ON h.org_id = $1",
    )
    .bind(trail.uuid())
    .fetch_one(conn)
    .await?;
    let hash = hash.as_deref().map_or(Ok([0; 32]), hash_of)?;
    let number = |column: Option<i64>| number(column.unwrap_or_default());
    Ok(End { head: (number(seq), hash), last: number(last), checkpoint: number(checkpoint) })
}

#[derive(FromRow)]
struct LinkRow {
    seq: i64,
    event_id: EventId,
    prev: Vec<u8>,
    hash: Vec<u8>,
}

/// Links behind `after` up to `to`, in order.
///
/// # Errors
/// As any statement.
pub async fn links(
    conn: &mut PgConnection,
    trail: Trail,
    after: u64,
    to: u64,
    limit: i64,
) -> Result<Vec<Link>, DbError> {
    let rows: Vec<LinkRow> = sqlx::query_as(
        "SELECT seq, event_id, prev, hash FROM audit_links WHERE org_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4",
    )
    .bind(trail.uuid())
    .bind(after.cast_signed())
    .bind(to.cast_signed())
    .bind(limit)
    .fetch_all(conn)
    .await?;
    let link = |row: LinkRow| {
        let (prev, hash) = (hash_of(&row.prev)?, hash_of(&row.hash)?);
        Ok(Link { seq: number(row.seq), event_id: row.event_id, prev, hash })
    };
    rows.into_iter().map(link).collect()
}

/// The events with these ids: each once, unless somebody has been at the table.
///
/// # Errors
/// As any statement.
pub async fn events(conn: &mut PgConnection, ids: &[EventId]) -> Result<Vec<Row>, DbError> {
    let rows = sqlx::query_as(
        "SELECT id, action, actor_type, actor_id, resource_type, resource_id, details, host(ip_address) AS ip_address, created_at,
                org_id, hash
         FROM audit_events WHERE id = ANY($1) ORDER BY created_at, id",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    Ok(rows)
}

#[derive(FromRow)]
struct CheckpointRow {
    seq: i64,
    hash: Vec<u8>,
    created_at: OffsetDateTime,
    key_id: KekId,
    signature: Vec<u8>,
}

/// More than this in one answer nobody has signed: a link is signed once by each key, a key is replaced a few times a year.
pub const CHECKPOINTS_MAX: usize = 10_000;

/// Checkpoints behind `after` up to `to`, in order, at most [`CHECKPOINTS_MAX`]. Their signatures have not been looked at.
///
/// # Errors
/// As any statement.
pub async fn checkpoints(
    conn: &mut PgConnection,
    trail: Trail,
    after: u64,
    to: u64,
) -> Result<Vec<Checkpoint>, DbError> {
    let rows: Vec<CheckpointRow> = sqlx::query_as(
        "SELECT seq, hash, created_at, key_id, signature FROM audit_checkpoints
         WHERE org_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq, key_id LIMIT $4",
    )
    .bind(trail.uuid())
    .bind(after.cast_signed())
    .bind(to.cast_signed())
    .bind(i64::try_from(CHECKPOINTS_MAX).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| read(trail, row)).collect()
}

/// The newest checkpoints at or below `seq`, newest first.
///
/// # Errors
/// As any statement.
pub async fn newest_checkpoints(
    conn: &mut PgConnection,
    trail: Trail,
    seq: u64,
    limit: i64,
) -> Result<Vec<Checkpoint>, DbError> {
    let rows: Vec<CheckpointRow> = sqlx::query_as(
        "SELECT seq, hash, created_at, key_id, signature FROM audit_checkpoints
         WHERE org_id = $1 AND seq <= $2 ORDER BY seq DESC, key_id LIMIT $3",
    )
    .bind(trail.uuid())
    .bind(i64::try_from(seq).unwrap_or(i64::MAX))
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| read(trail, row)).collect()
}

fn read(trail: Trail, row: CheckpointRow) -> Result<Checkpoint, DbError> {
    Ok(Checkpoint {
        trail,
        seq: number(row.seq),
        hash: hash_of(&row.hash)?,
        created_at: row.created_at,
        key_id: row.key_id,
        signature: array(&row.signature)?,
    })
}

/// An event as the walk over the events themselves sees it.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct Seen {
    /// Its id.
    pub id: EventId,
    /// Its time.
    pub created_at: OffsetDateTime,
    /// Whether the trail has a link for it.
    pub linked: bool,
    /// Whether it waits for one.
    pub queued: bool,
}

/// Events of a trail behind a place, oldest first, and whether each is linked. One statement: an event that is linked just now is one or the other.
///
/// # Errors
/// As any statement.
pub async fn seen(
    conn: &mut PgConnection,
    trail: Trail,
    after: Option<(OffsetDateTime, EventId)>,
    limit: i64,
) -> Result<Vec<Seen>, DbError> {
    macro_rules! select {
        ($whose:literal) => {
            concat!(
                "SELECT e.id, e.created_at,
                        EXISTS (SELECT 1 FROM audit_links l WHERE l.event_id = e.id AND l.org_id = $1) AS linked,
                        EXISTS (SELECT 1 FROM audit_unlinked u WHERE u.event_id = e.id AND u.org_id = $1) AS queued
                 FROM audit_events e WHERE ",
                $whose,
                " AND ($2::timestamptz IS NULL OR (e.created_at, e.id) > ($2, $3::uuid)) ORDER BY e.created_at, e.id LIMIT $4"
            )
        };
    }
    let sql = match trail.0 {
        Some(_) => select!("e.org_id = $1"),
        None => select!("e.org_id IS NULL"),
    };
    let (at, id) = after.unzip();
    let rows = sqlx::query_as(sql).bind(trail.uuid()).bind(at).bind(id).bind(limit).fetch_all(conn).await?;
    Ok(rows)
}

/// Events that wait for their link; counted up to 10,000.
///
/// # Errors
/// As any statement.
pub async fn waiting(conn: &mut PgConnection, trail: Trail) -> Result<i64, DbError> {
    let count =
        sqlx::query_scalar("SELECT count(*) FROM (SELECT 1 FROM audit_unlinked WHERE org_id = $1 LIMIT 10000) counted")
            .bind(trail.uuid())
            .fetch_one(conn)
            .await?;
    Ok(count)
}

/// The next trails in the order of their ids: the installation's when it has events, every organisation's, and any that has a head.
///
/// # Errors
/// As any statement.
pub async fn trails(conn: &mut PgConnection, after: Option<Trail>, limit: i64) -> Result<Vec<Trail>, DbError> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM (SELECT '00000000-0000-0000-0000-000000000000'::uuid AS id
                 WHERE EXISTS (SELECT 1 FROM audit_events WHERE org_id IS NULL)
             UNION SELECT id FROM organisations UNION SELECT org_id FROM audit_heads) every
         WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2",
    )
    .bind(after.map(Trail::uuid))
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(Trail::of_uuid).collect())
}

/// The public halves of all `audit` keys that there ever were, as the database has them.
///
/// # Errors
/// As any statement.
pub async fn keys(conn: &mut PgConnection) -> Result<Vec<(KekId, [u8; 32])>, DbError> {
    let rows: Vec<(KekId, Vec<u8>)> = sqlx::query_as(
        "SELECT id, public_key FROM keks WHERE purpose = 'audit' AND public_key IS NOT NULL ORDER BY created_at, id",
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|(id, key)| Ok((id, array(&key)?))).collect()
}
