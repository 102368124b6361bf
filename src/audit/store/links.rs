//! What the chainer writes: links, heads, checkpoints.

use std::collections::{BTreeMap, HashSet};

use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::trail::{hash_of, number};
use crate::audit::hash::Hash;
use crate::audit::rules::{Checkpoint, Link, Trail};
use crate::db::DbError;
use crate::ids::{EventId, KekId};

/// Trails that have events without a link, in the order of their ids, behind `after`. Costs one look into the index for each.
///
/// # Errors
/// As any statement.
pub async fn waiting(conn: &mut PgConnection, after: Option<Uuid>, limit: i64) -> Result<Vec<Uuid>, DbError> {
    let trails = sqlx::query_scalar(
        "WITH RECURSIVE waiting (org_id, n) AS (
             (SELECT org_id, 1 FROM audit_unlinked WHERE $1::uuid IS NULL OR org_id > $1 ORDER BY org_id LIMIT 1)
             UNION ALL
             SELECT (SELECT u.org_id FROM audit_unlinked u WHERE u.org_id > w.org_id ORDER BY u.org_id LIMIT 1), w.n + 1
             FROM waiting w WHERE w.org_id IS NOT NULL AND w.n < $2)
         SELECT org_id FROM waiting WHERE org_id IS NOT NULL ORDER BY org_id",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(trails)
}

#[derive(FromRow)]
struct Queued {
    org_id: Uuid,
    id: i64,
    event_id: EventId,
    event_hash: Vec<u8>,
    linked: bool,
}

/// Gives links to at most `each` events of each of these trails, in one transaction that holds the trails' heads. Trails whose head another
/// daemon holds are left to it. Events that are not visible yet come later: there is no watermark that they could fall behind. Returns
/// whether a trail may have more.
///
/// # Errors
/// As any statement; then nothing was linked.
pub async fn link(pool: &PgPool, trails: &[Uuid], each: i64) -> Result<bool, DbError> {
    let mut tx = pool.begin().await?;
    // A daemon that is stopped in the middle must not keep the others from the heads for long.
    sqlx::query(
        "SELECT set_config('idle_in_transaction_session_timeout', '3s', true), set_config('lock_timeout', '2s', true)",
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO audit_heads (org_id) SELECT o FROM unnest($1::uuid[]) o
         WHERE NOT EXISTS (SELECT 1 FROM audit_heads h WHERE h.org_id = o) ORDER BY o ON CONFLICT DO NOTHING",
    )
    .bind(trails)
    .execute(&mut *tx)
    .await?;
    let heads: Vec<(Uuid, i64, Vec<u8>)> = sqlx::query_as(
        "SELECT org_id, seq, hash FROM audit_heads WHERE org_id = ANY($1) ORDER BY org_id FOR UPDATE SKIP LOCKED",
    )
    .bind(trails)
    .fetch_all(&mut *tx)
    .await?;
    let mut heads: BTreeMap<Uuid, (u64, Hash)> = heads
        .into_iter()
        .map(|(trail, seq, hash)| Ok((trail, (number(seq), hash_of(&hash)?))))
        .collect::<Result<_, DbError>>()?;
    let held: Vec<Uuid> = heads.keys().copied().collect();
    let mut queued: Vec<Queued> = sqlx::query_as(
        "WITH due AS MATERIALIZED (
             SELECT q.org_id, q.id FROM unnest($1::uuid[]) AS o (org_id) CROSS JOIN LATERAL
                 (SELECT u.org_id, u.id FROM audit_unlinked u WHERE u.org_id = o.org_id ORDER BY u.id LIMIT $2) q)
         DELETE FROM audit_unlinked u USING due WHERE u.org_id = due.org_id AND u.id = due.id
         RETURNING u.org_id, u.id, u.event_id, u.event_hash,
                   EXISTS (SELECT 1 FROM audit_links l WHERE l.event_id = u.event_id) AS linked",
    )
    .bind(&held)
    .bind(each)
    .fetch_all(&mut *tx)
    .await?;
    queued.sort_by_key(|row| (row.org_id, row.id));

    let mut new = Columns::default();
    let (mut known, mut counts) = (HashSet::new(), BTreeMap::<Uuid, i64>::new());
    for row in &queued {
        *counts.entry(row.org_id).or_default() += 1;
        // Only by another hand than ours is an event queued twice; it must not hold up what comes after.
        if row.linked || !known.insert(row.event_id) {
            tracing::error!(event = %row.event_id, "an audit event that has its link already was queued again");
            continue;
        }
        let Some((seq, last)) = heads.get_mut(&row.org_id) else { continue };
        let trail = Trail::of_uuid(row.org_id);
        let link = Link::new(trail, *seq + 1, row.event_id, &hash_of(&row.event_hash)?, *last);
        (*seq, *last) = (link.seq, link.hash);
        new.push(row.org_id, &link);
    }
    new.insert(&mut tx).await?;
    let mut ends = Columns::default();
    for (trail, (seq, hash)) in heads.iter().filter(|(trail, _)| counts.contains_key(trail)) {
        ends.push(*trail, &Link { seq: *seq, event_id: EventId(Uuid::nil()), prev: *hash, hash: *hash });
    }
    ends.move_heads(&mut tx).await?;
    tx.commit().await?;
    Ok(counts.values().any(|count| *count >= each))
}

/// Links, column by column.
#[derive(Default)]
struct Columns {
    trails: Vec<Uuid>,
    seqs: Vec<i64>,
    events: Vec<EventId>,
    prevs: Vec<Vec<u8>>,
    hashes: Vec<Vec<u8>>,
}

impl Columns {
    fn push(&mut self, trail: Uuid, link: &Link) {
        self.trails.push(trail);
        self.seqs.push(link.seq.cast_signed());
        self.events.push(link.event_id);
        self.prevs.push(link.prev.to_vec());
        self.hashes.push(link.hash.to_vec());
    }

    async fn insert(&self, conn: &mut PgConnection) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO audit_links (org_id, seq, event_id, prev, hash)
             SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bytea[], $5::bytea[])",
        )
        .bind(&self.trails)
        .bind(&self.seqs)
        .bind(&self.events)
        .bind(&self.prevs)
        .bind(&self.hashes)
        .execute(conn)
        .await?;
        Ok(())
    }

    async fn move_heads(&self, conn: &mut PgConnection) -> Result<(), DbError> {
        sqlx::query(
            "UPDATE audit_heads h SET seq = n.seq, hash = n.hash
             FROM unnest($1::uuid[], $2::bigint[], $3::bytea[]) AS n (org_id, seq, hash) WHERE h.org_id = n.org_id",
        )
        .bind(&self.trails)
        .bind(&self.seqs)
        .bind(&self.hashes)
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// Chains that are due to be signed: so many links behind the last checkpoint, or grown and so old (in seconds), or signed to their end by
/// another key than `key`. They take turns: those behind `last` come first.
///
/// # Errors
/// As any statement.
pub async fn due(
    conn: &mut PgConnection,
    (links, seconds): (u32, u32),
    key: KekId,
    last: Uuid,
    limit: i64,
) -> Result<Vec<Trail>, DbError> {
    let rows: Vec<Uuid> = sqlx::query_scalar(
        "SELECT org_id FROM audit_heads
         WHERE (seq > checkpoint_seq
                AND (seq - checkpoint_seq >= $1 OR checkpoint_at <= clock_timestamp() - make_interval(secs => $2)))
            OR (seq > 0 AND seq = checkpoint_seq AND checkpoint_key IS DISTINCT FROM $3)
         ORDER BY org_id <= $4, org_id LIMIT $5",
    )
    .bind(i64::from(links))
    .bind(f64::from(seconds))
    .bind(key)
    .bind(last)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Trail::of_uuid).collect())
}

/// Stores a checkpoint. Nothing happens when another daemon was faster, or has signed more.
///
/// # Errors
/// As any statement.
pub async fn store_checkpoint(conn: &mut PgConnection, checkpoint: &Checkpoint) -> Result<(), DbError> {
    // A row that is there already, which nobody of ours has written, keeps no other from being signed.
    sqlx::query(
        "WITH moved AS (
             UPDATE audit_heads SET checkpoint_seq = $2, checkpoint_key = $5, checkpoint_at = clock_timestamp()
             WHERE org_id = $1 AND seq >= $2
               AND (checkpoint_seq < $2 OR (checkpoint_seq = $2 AND checkpoint_key IS DISTINCT FROM $5)) RETURNING org_id)
         INSERT INTO audit_checkpoints (org_id, seq, hash, created_at, key_id, signature)
         SELECT org_id, $2, $3, $4, $5, $6 FROM moved ON CONFLICT DO NOTHING",
    )
    .bind(checkpoint.trail.uuid())
    .bind(checkpoint.seq.cast_signed())
    .bind(checkpoint.hash.as_slice())
    .bind(checkpoint.created_at)
    .bind(checkpoint.key_id)
    .bind(checkpoint.signature.as_slice())
    .execute(conn)
    .await?;
    Ok(())
}
