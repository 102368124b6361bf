//! Nonces of which a node says that others used them: noticed, forgotten, and open again once the chain says otherwise.

use sqlx::PgPool;

use super::OpenSlot;
use crate::ids::KeyId;
use crate::intents::lanes::Lane;
use crate::intents::store::signed;

/// Notes where an intent's nonce was first seen used without a receipt of ours.
pub async fn notice(pool: &PgPool, slot: &OpenSlot, block: u64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE slots SET noticed_block = $4
         WHERE chain_id = $1 AND address = $2 AND nonce = $3 AND noticed_block IS NULL AND state IN ('signed', 'broadcast')",
    )
    .bind(signed(slot.lane.chain_id.0))
    .bind(slot.lane.address.as_slice())
    .bind(signed(slot.nonce))
    .bind(signed(block))
    .execute(pool)
    .await?;
    Ok(())
}

/// The slots of a lane from nonce $3 to below $4 that were left to others as used for good.
macro_rules! left_to_others {
    () => {
        "chain_id = $1 AND address = $2 AND nonce >= $3 AND nonce < $4 AND state = 'final' AND outcome = 'foreign'"
    };
}

/// Whether any nonce from `latest` to below `next` was left to others as used for good, or has no row although the lane is past it: where it
/// began, or was resumed, was believed of a node.
pub async fn has_left_out(pool: &PgPool, lane: Lane, (latest, next): (u64, u64)) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(concat!(
        "SELECT EXISTS (SELECT FROM slots WHERE ",
        left_to_others!(),
        ") OR (SELECT l.until - $3 > (SELECT count(*) FROM slots s WHERE s.chain_id = $1 AND s.address = $2
                                        AND s.nonce >= $3 AND s.nonce < l.until)
               FROM (SELECT least($4, next_nonce) AS until FROM lanes WHERE chain_id = $1 AND address = $2) AS l)"
    ))
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(latest))
    .bind(signed(next))
    .fetch_one(pool)
    .await
}

/// What was left to others as used for good, and is not: the nonces from `latest` to below `next` are open again, noticed at `head`, and will
/// be closed. A payment among them was called failed, and stays so (its outcome is kept): it is never sent again, only closed, and counts
/// against its limits until that is final, because whoever has its bytes may still have it mined. Returns how many.
pub async fn reopen_foreign(
    pool: &PgPool,
    lane: Lane,
    (latest, next): (u64, u64),
    head: u64,
) -> Result<u64, sqlx::Error> {
    let opened: i64 = sqlx::query_scalar(concat!(
        "WITH held AS MATERIALIZED (SELECT nonce FROM slots WHERE ",
        left_to_others!(),
        " ORDER BY nonce FOR UPDATE
         ), opened AS (
             UPDATE slots s SET state = 'foreign', noticed_block = $5, last_sent_at = NULL,
                    outcome = CASE WHEN s.intent_id IS NOT NULL THEN s.outcome END,
                    error_message = CASE WHEN s.intent_id IS NOT NULL
                        THEN 'a node called its nonce used, and it is not: a no-op of ours is to take it' END
             FROM held WHERE s.chain_id = $1 AND s.address = $2 AND s.nonce = held.nonce RETURNING s.intent_id
         ), counts AS (
             UPDATE spends SET settled = false FROM opened WHERE spends.intent_id = opened.intent_id
         )
         SELECT count(*) FROM opened"
    ))
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(latest))
    .bind(signed(next))
    .bind(signed(head))
    .fetch_one(pool)
    .await?;
    Ok(opened.unsigned_abs())
}

/// Makes the rows that the lane is missing from `latest` to below `next` and below what it gives out next, at most `most`: nobody's, noticed at
/// `head`, to be closed with `key`. Returns how many.
pub async fn open_missing(
    pool: &PgPool,
    lane: Lane,
    (latest, next): (u64, u64),
    key: Option<KeyId>,
    head: u64,
    most: u64,
) -> Result<u64, sqlx::Error> {
    let rows = sqlx::query(
        "INSERT INTO slots (chain_id, address, nonce, key_id, state, noticed_block)
         SELECT l.chain_id, l.address, nonce, $5, 'foreign', $6
         FROM lanes l, generate_series($3::bigint, least($4, l.next_nonce, $3 + $7) - 1) AS nonce
         WHERE l.chain_id = $1 AND l.address = $2 ON CONFLICT DO NOTHING",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(latest))
    .bind(signed(next))
    .bind(key)
    .bind(signed(head))
    .bind(signed(most))
    .execute(pool)
    .await?
    .rows_affected();
    Ok(rows)
}

/// The chain has not used these nonces after all: what was noticed of them is forgotten.
pub async fn forget_notice(pool: &PgPool, lane: Lane, latest: u64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH held AS MATERIALIZED (
             SELECT nonce FROM slots
             WHERE chain_id = $1 AND address = $2 AND nonce >= $3 AND state IN ('signed', 'broadcast') AND noticed_block IS NOT NULL
             ORDER BY nonce FOR UPDATE
         )
         UPDATE slots s SET noticed_block = NULL FROM held WHERE s.chain_id = $1 AND s.address = $2 AND s.nonce = held.nonce",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(latest))
    .execute(pool)
    .await?;
    Ok(())
}
