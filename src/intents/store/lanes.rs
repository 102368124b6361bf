//! Lanes: the row whose lock gives out nonces.

use sqlx::{PgConnection, PgPool, Row as _};

use super::super::lanes::Lane;
use super::{address_from, begin_t1, signed, unsigned};
use crate::chain::ChainId;
use crate::ids::{IntentId, KeyId};

/// A lane's row, locked.
#[derive(Debug)]
pub struct LaneRow {
    /// The lowest nonce without a slot, parked ones aside; `None` when the lane was made just now.
    pub next_nonce: Option<u64>,
    /// Why it is frozen.
    pub frozen_reason: Option<String>,
}

/// Makes the lane's row if it is the first, and locks it FOR UPDATE.
pub async fn lock_lane(conn: &mut PgConnection, lane: Lane) -> Result<LaneRow, sqlx::Error> {
    let made = sqlx::query("INSERT INTO lanes (chain_id, address) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(signed(lane.chain_id.0))
        .bind(lane.address.as_slice())
        .execute(&mut *conn)
        .await?
        .rows_affected();
    let row =
        sqlx::query("SELECT next_nonce, frozen_reason FROM lanes WHERE chain_id = $1 AND address = $2 FOR UPDATE")
            .bind(signed(lane.chain_id.0))
            .bind(lane.address.as_slice())
            .fetch_one(conn)
            .await?;
    let next: i64 = row.try_get("next_nonce")?;
    Ok(LaneRow { next_nonce: (made == 0).then(|| unsigned(next)), frozen_reason: row.try_get("frozen_reason")? })
}

/// The nonces from `from` to `to` (excluded) that have a slot. With the lane locked.
pub async fn slots_between(conn: &mut PgConnection, lane: Lane, from: u64, to: u64) -> Result<Vec<u64>, sqlx::Error> {
    let rows: Vec<(i64,)> = sqlx::query_as(
        "SELECT nonce FROM slots WHERE chain_id = $1 AND address = $2 AND nonce >= $3 AND nonce < $4 ORDER BY nonce",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(from))
    .bind(signed(to))
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(n,)| unsigned(n)).collect())
}

/// Whether a nonce has a slot. With the lane locked.
pub async fn slot_exists(conn: &mut PgConnection, lane: Lane, nonce: u64) -> Result<bool, sqlx::Error> {
    Ok(!slots_between(conn, lane, nonce, nonce.saturating_add(1)).await?.is_empty())
}

/// Notes nonces that others used, or left out.
pub async fn insert_foreign(
    conn: &mut PgConnection,
    lane: Lane,
    nonces: &[u64],
    key: KeyId,
    noticed_block: u64,
) -> Result<(), sqlx::Error> {
    if nonces.is_empty() {
        return Ok(());
    }
    let nonces: Vec<i64> = nonces.iter().map(|n| signed(*n)).collect();
    sqlx::query(
        "INSERT INTO slots (chain_id, address, nonce, key_id, state, noticed_block)
         SELECT $1, $2, nonce, $4, 'foreign', $5 FROM unnest($3::bigint[]) AS nonce",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(nonces)
    .bind(key)
    .bind(signed(noticed_block))
    .execute(conn)
    .await?;
    Ok(())
}

/// Nonces of the lane that others have, or left out, and that are not settled. With the lane locked.
pub async fn open_foreign(conn: &mut PgConnection, lane: Lane) -> Result<u64, sqlx::Error> {
    let row = sqlx::query("SELECT count(*) AS n FROM slots WHERE chain_id = $1 AND address = $2 AND state = 'foreign'")
        .bind(signed(lane.chain_id.0))
        .bind(lane.address.as_slice())
        .fetch_one(conn)
        .await?;
    Ok(unsigned(row.try_get("n")?))
}

/// Where a new lane begins: from here on every nonce gets a slot. With the lane locked.
pub async fn set_first_nonce(conn: &mut PgConnection, lane: Lane, first: u64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE lanes SET first_nonce = $3 WHERE chain_id = $1 AND address = $2")
        .bind(signed(lane.chain_id.0))
        .bind(lane.address.as_slice())
        .bind(signed(first))
        .execute(conn)
        .await?;
    Ok(())
}

/// A lane that waits for an operator.
#[derive(Debug)]
pub struct FrozenLane {
    /// Which.
    pub lane: Lane,
    /// The next nonce by our rows.
    pub next_nonce: u64,
    /// Why.
    pub reason: String,
}

/// The frozen lanes.
pub async fn frozen_lanes(pool: &PgPool) -> Result<Vec<FrozenLane>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT chain_id, address, next_nonce, frozen_reason FROM lanes WHERE frozen_reason IS NOT NULL ORDER BY frozen_at",
    )
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let chain_id = ChainId(unsigned(row.try_get("chain_id")?));
            Ok(FrozenLane {
                lane: Lane { chain_id, address: address_from(row.try_get("address")?)? },
                next_nonce: unsigned(row.try_get("next_nonce")?),
                reason: row.try_get("frozen_reason")?,
            })
        })
        .collect()
}

/// Lets a frozen lane go on at `next`: what lies between is taken as used by others. Never moves it back. False: not frozen.
pub async fn release_lane(conn: &mut PgConnection, lane: Lane, next: u64) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "UPDATE lanes SET first_nonce = CASE WHEN $3 > next_nonce THEN $3 ELSE first_nonce END,
                next_nonce = greatest(next_nonce, $3), frozen_reason = NULL, frozen_at = NULL
         WHERE chain_id = $1 AND address = $2 AND frozen_reason IS NOT NULL",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(next))
    .execute(conn)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// Moves the lane on. With the lane locked.
pub async fn set_next_nonce(conn: &mut PgConnection, lane: Lane, next: u64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE lanes SET next_nonce = $3 WHERE chain_id = $1 AND address = $2")
        .bind(signed(lane.chain_id.0))
        .bind(lane.address.as_slice())
        .bind(signed(next))
        .execute(conn)
        .await?;
    Ok(())
}

/// Stops a lane until a human has looked. One that is new starts at `next` when it is released.
pub async fn freeze_lane(conn: &mut PgConnection, lane: Lane, next: u64, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO lanes (chain_id, address, frozen_reason, frozen_at, next_nonce) VALUES ($1, $2, $3, clock_timestamp(), $4)
         ON CONFLICT (chain_id, address) DO UPDATE SET frozen_reason = $3, frozen_at = clock_timestamp()
         WHERE lanes.frozen_reason IS NULL",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(reason)
    .bind(signed(next))
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether the intent is there, asked in a way that waits for a commit still under way: that transaction holds the lane's row, or,
/// for a lane's first nonce, has inserted it (which is not visible yet, but an insert of the same key waits for it). Writes nothing.
///
/// # Errors
/// When the lane cannot be locked in time: then the outcome is unknown.
pub async fn settled_outcome(pool: &PgPool, lane: Lane, intent: IntentId) -> Result<bool, sqlx::Error> {
    let mut tx = pool.begin().await?;
    begin_t1(&mut tx).await?;
    lock_lane(&mut tx, lane).await?;
    let row = sqlx::query("SELECT 1 FROM intents WHERE id = $1").bind(intent).fetch_optional(&mut *tx).await?;
    tx.rollback().await?;
    Ok(row.is_some())
}
