//! What a lane's open slots hold and cost, and what became of sending their bytes.

use alloy::primitives::B256;
use sqlx::{PgConnection, PgPool, Row as _};

use super::super::lanes::Lane;
use super::holds::held;
use super::{hash_from, next_nonce, signed, slots_between, unsigned, unsigned_tx};
use crate::chain::tx::UnsignedTx;
use crate::money::Wei;

/// What the lane's slots of ours from nonce `mined` on can still cost (value + fee; bytes that we do not send ourselves are left out),
/// and how many there are.
pub async fn open_cost(conn: &mut PgConnection, lane: Lane, mined: u64) -> Result<(Wei, u64), sqlx::Error> {
    let row = sqlx::query(open_cost!())
        .bind(signed(lane.chain_id.0))
        .bind(lane.address.as_slice())
        .bind(signed(mined))
        .fetch_one(conn)
        .await?;
    Ok((row.try_get("cost")?, unsigned(row.try_get("open")?)))
}

/// One of our own transactions that goes before another of its key.
#[derive(Clone, Debug)]
pub struct AheadRow {
    /// Its nonce.
    pub nonce: u64,
    /// The hash of its latest bytes.
    pub tx_hash: B256,
    /// No node is known to have it, and its bytes were given out or are held back, or a no-op is to take its nonce: it may never be mined.
    pub withheld: bool,
    /// What it says.
    pub tx: UnsignedTx,
}

/// Our own transactions of the lane with nonces from `mined` to `own` (excluded), in nonce order, at most `limit`: what runs before `own`
/// on a state that has used the nonces below `mined`. Recorded as mined or not: what counts is that state.
pub async fn ahead_of(
    conn: &mut PgConnection,
    lane: Lane,
    mined: u64,
    own: u64,
    limit: u64,
) -> Result<Vec<AheadRow>, sqlx::Error> {
    let rows = sqlx::query(
        concat!("SELECT s.nonce, (s.sign_only AND s.state = 'signed') OR a.kind = 'noop' OR ", held!(), " IS NOT NULL AS withheld, a.tx_hash, i.chain_id, i.from_address, i.to_address, i.value_wei,
                i.data, i.gas_limit, i.gas_price, i.max_fee_per_gas, i.max_priority_fee_per_gas
         FROM slots s JOIN intents i ON i.id = s.intent_id, LATERAL (
             SELECT tx_hash, kind FROM attempts a WHERE a.chain_id = s.chain_id AND a.address = s.address AND a.nonce = s.nonce
             ORDER BY a.ordinal DESC LIMIT 1) AS a
         WHERE s.chain_id = $1 AND s.address = $2 AND s.nonce >= $3 AND s.nonce < $4 AND s.state <> 'foreign'
         ORDER BY s.nonce LIMIT $5"),
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(mined))
    .bind(signed(own))
    .bind(signed(limit))
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(AheadRow {
                nonce: unsigned(row.try_get("nonce")?),
                tx_hash: hash_from(row.try_get("tx_hash")?)?,
                withheld: row.try_get("withheld")?,
                tx: unsigned_tx(row)?,
            })
        })
        .collect()
}

/// Nonces in a row that are looked at for a free one.
const TAKEN_MAX: u64 = 256;

/// The nonce that the lane would give out now, by the node's counts. A guess without the lane's lock: T1 compares.
pub async fn likely_nonce(conn: &mut PgConnection, lane: Lane, pending: u64, latest: u64) -> Result<u64, sqlx::Error> {
    let start = next_nonce(conn, lane).await?.unwrap_or(latest).max(pending);
    let end = start.saturating_add(TAKEN_MAX);
    let taken = slots_between(conn, lane, start, end).await?;
    Ok((start..end).find(|nonce| !taken.contains(nonce)).unwrap_or(end))
}

/// A node has the slot's bytes. Does not wait for the disk: who loses this sends the bytes again.
pub async fn mark_sent(pool: &PgPool, lane: Lane, nonce: u64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH light AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
         UPDATE slots SET state = CASE state WHEN 'signed' THEN 'broadcast' ELSE state END,
                broadcast_at = coalesce(broadcast_at, clock_timestamp()), last_sent_at = clock_timestamp(), error_message = NULL
         FROM light WHERE chain_id = $1 AND address = $2 AND nonce = $3 AND state IN ('signed', 'broadcast', 'foreign')",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(nonce))
    .execute(pool)
    .await?;
    Ok(())
}

/// A node has them not, or that is not known.
pub async fn mark_not_sent(pool: &PgPool, lane: Lane, nonce: u64, why: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE slots SET last_sent_at = clock_timestamp(), error_message = $4
         WHERE chain_id = $1 AND address = $2 AND nonce = $3 AND state IN ('signed', 'broadcast', 'foreign')",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(nonce))
    .bind(why)
    .execute(pool)
    .await?;
    Ok(())
}
