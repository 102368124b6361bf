//! Whose turn it is: which daemon looks at a lane, and which lane has waited longest.

use alloy::primitives::{Address, B256};
use sqlx::PgPool;

use super::super::super::store::{address_from, signed};
use crate::chain::ChainId;
use crate::ids::DaemonId;

/// Makes a row for each lane that has come to have open slots, and lets those that have more to do than one look takes have a turn at this very block.
pub async fn open_turns(pool: &PgPool, chain_id: ChainId, nudged: &[Address]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO lane_turns (chain_id, address)
         SELECT DISTINCT s.chain_id, s.address FROM slots s WHERE s.chain_id = $1 AND s.state <> 'final'
           AND NOT EXISTS (SELECT 1 FROM lane_turns t WHERE t.chain_id = s.chain_id AND t.address = s.address)
         ON CONFLICT DO NOTHING",
    )
    .bind(signed(chain_id.0))
    .execute(pool)
    .await?;
    if !nudged.is_empty() {
        sqlx::query("UPDATE lane_turns SET looked_block = NULL WHERE chain_id = $1 AND address = ANY($2)")
            .bind(signed(chain_id.0))
            .bind(nudged.iter().map(|address| address.to_vec()).collect::<Vec<_>>())
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// Takes the lanes that were not looked at since this block or for `due_s` seconds, the longest unseen first, for `lease_s` seconds. Those
/// that another daemon has, or is just taking, are passed by.
pub async fn take_turns(
    pool: &PgPool,
    chain_id: ChainId,
    holder: DaemonId,
    head: B256,
    (due_s, lease_s): (u64, u64),
    limit: i64,
) -> Result<Vec<Address>, sqlx::Error> {
    let rows: Vec<Vec<u8>> = sqlx::query_scalar(
        "UPDATE lane_turns t SET holder = $2, until = clock_timestamp() + make_interval(secs => $5)
         FROM (
             SELECT address FROM lane_turns WHERE chain_id = $1 AND until < clock_timestamp()
               AND (looked_block IS DISTINCT FROM $3 OR looked_at < clock_timestamp() - make_interval(secs => $4))
             ORDER BY looked_at, address LIMIT $6 FOR UPDATE SKIP LOCKED) AS turn
         WHERE t.chain_id = $1 AND t.address = turn.address
         RETURNING t.address",
    )
    .bind(signed(chain_id.0))
    .bind(holder)
    .bind(head.as_slice())
    .bind(due_s as f64)
    .bind(lease_s as f64)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|address| address_from(address)).collect()
}

/// Goes on having a lane; false when another daemon may have taken it.
pub async fn keep_turn(
    pool: &PgPool,
    chain_id: ChainId,
    holder: DaemonId,
    address: Address,
    lease_s: u64,
) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "UPDATE lane_turns SET until = clock_timestamp() + make_interval(secs => $4)
         WHERE chain_id = $1 AND address = $2 AND holder = $3 AND until >= clock_timestamp()",
    )
    .bind(signed(chain_id.0))
    .bind(address.as_slice())
    .bind(holder)
    .bind(lease_s as f64)
    .execute(pool)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// Gives the lanes back as looked at by this block, if they were, and forgets those that have nothing open any more.
pub async fn end_turns(
    pool: &PgPool,
    chain_id: ChainId,
    holder: DaemonId,
    lanes: &[Address],
    seen: Option<B256>,
) -> Result<(), sqlx::Error> {
    let addresses: Vec<Vec<u8>> = lanes.iter().map(|address| address.to_vec()).collect();
    sqlx::query(
        "UPDATE lane_turns SET until = '-infinity', looked_at = clock_timestamp(), looked_block = $4
         WHERE chain_id = $1 AND holder = $2 AND address = ANY($3)",
    )
    .bind(signed(chain_id.0))
    .bind(holder)
    .bind(&addresses)
    .bind(seen.map(|hash| hash.to_vec()))
    .execute(pool)
    .await?;
    sqlx::query(
        "DELETE FROM lane_turns t WHERE t.chain_id = $1 AND t.address = ANY($2) AND NOT EXISTS (
             SELECT 1 FROM slots s WHERE s.chain_id = t.chain_id AND s.address = t.address AND s.state <> 'final')",
    )
    .bind(signed(chain_id.0))
    .bind(&addresses)
    .execute(pool)
    .await?;
    Ok(())
}

/// Gives the lanes of a daemon that stops to the others.
pub async fn drop_turns(pool: &PgPool, holder: DaemonId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE lane_turns SET until = '-infinity' WHERE holder = $1").bind(holder).execute(pool).await?;
    Ok(())
}
