//! What the rows say a local chain must have: asked before the daemon starts.

use alloy::primitives::Address;
use sqlx::{Connection as _, PgConnection, Row as _};

use super::DevError;

/// For each lane of a chain, the number of its nonces that are settled for good.
///
/// # Errors
/// When the database cannot be asked.
pub async fn settled_nonces(database_url: &str, chain_id: u64) -> Result<Vec<(Address, u64)>, DevError> {
    let failed = |error: sqlx::Error| DevError::start("the check of the local chains", error);
    let mut connection = PgConnection::connect(database_url).await.map_err(failed)?;
    let rows = sqlx::query(
        "SELECT l.address, COALESCE(min(s.nonce), l.next_nonce) AS settled FROM lanes l
         LEFT JOIN slots s ON s.chain_id = l.chain_id AND s.address = l.address AND s.state <> 'final'
         WHERE l.chain_id = $1 GROUP BY l.chain_id, l.address",
    )
    .bind(chain_id.cast_signed())
    .fetch_all(&mut connection)
    .await
    .map_err(failed)?;
    connection.close().await.map_err(failed)?;
    let lane = |row: &sqlx::postgres::PgRow| {
        let address: Vec<u8> = row.try_get("address")?;
        let settled: i64 = row.try_get("settled")?;
        Ok((Address::from_slice(&address), settled.unsigned_abs()))
    };
    rows.iter().map(lane).collect::<Result<_, sqlx::Error>>().map_err(failed)
}
