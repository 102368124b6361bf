//! What a lane's open slots hold and cost, and what became of sending their bytes.

use sqlx::{PgConnection, PgPool, Row as _};

use super::super::lanes::Lane;
use super::{signed, unsigned, unsigned_tx};
use crate::chain::tx::UnsignedTx;
use crate::money::Wei;

/// What the lane's slots of ours from nonce `mined` on can still cost (value + fee; bytes that we do not send ourselves are left out),
/// and how many there are.
pub async fn open_cost(conn: &mut PgConnection, lane: Lane, mined: u64) -> Result<(Wei, u64), sqlx::Error> {
    let row = sqlx::query(
        "SELECT coalesce(sum(i.value_wei + i.gas_limit * coalesce(i.gas_price, i.max_fee_per_gas)) FILTER (WHERE NOT s.sign_only), 0)
                    ::numeric(78, 0) AS cost, count(*) AS open
         FROM slots s JOIN intents i ON i.id = s.intent_id
         WHERE s.chain_id = $1 AND s.address = $2 AND s.nonce >= $3 AND s.state IN ('signed', 'broadcast')",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(mined))
    .fetch_one(conn)
    .await?;
    Ok((row.try_get("cost")?, unsigned(row.try_get("open")?)))
}

/// Our own unmined transactions of the lane in nonce order, at most `limit`: what a simulation must apply first.
pub async fn unmined_of(pool: &PgPool, lane: Lane, limit: u64) -> Result<Vec<UnsignedTx>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT i.chain_id, i.from_address, i.to_address, i.value_wei, i.data, i.gas_limit, i.gas_price, i.max_fee_per_gas,
                i.max_priority_fee_per_gas
         FROM slots s JOIN intents i ON i.id = s.intent_id
         WHERE s.chain_id = $1 AND s.address = $2 AND s.state IN ('signed', 'broadcast') ORDER BY s.nonce LIMIT $3",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(unsigned_tx).collect()
}

/// A node has the slot's bytes.
pub async fn mark_sent(pool: &PgPool, lane: Lane, nonce: u64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE slots SET state = CASE state WHEN 'signed' THEN 'broadcast' ELSE state END,
                broadcast_at = coalesce(broadcast_at, clock_timestamp()), last_sent_at = clock_timestamp(), error_message = NULL
         WHERE chain_id = $1 AND address = $2 AND nonce = $3 AND state IN ('signed', 'broadcast', 'foreign')",
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
