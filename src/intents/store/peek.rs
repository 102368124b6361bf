//! Looks at what counts, without a lock: for answers that reserve nothing.

use sqlx::{PgPool, Row as _};

use super::super::guardrails::Window;
use crate::ids::AgentId;
use crate::money::Wei;

/// Entries that are taken off as having come of age; past that the sums are too high, never too low.
const AGED_MAX: i64 = 1_000;

/// A window as a submit would find it after ageing.
///
/// # Errors
/// As any statement.
pub async fn peek_window(pool: &PgPool, agent: AgentId, unit: &str) -> Result<Window, sqlx::Error> {
    let row = sqlx::query(
        "WITH due AS (
             SELECT value_wei, fee_wei FROM spends
             WHERE agent_id = $1 AND spend_group = $2 AND counted AND settled AND signed_at <= clock_timestamp() - interval '24 hours'
             ORDER BY signed_at LIMIT $3
         )
         SELECT value_sum_wei - coalesce((SELECT sum(value_wei) FROM due), 0) AS value_sum,
                fee_sum_wei - coalesce((SELECT sum(fee_wei) FROM due), 0) AS fee_sum
         FROM spending_windows WHERE agent_id = $1 AND spend_group = $2",
    )
    .bind(agent)
    .bind(unit)
    .bind(AGED_MAX)
    .fetch_optional(pool)
    .await?;
    match row {
        None => Ok(Window { value_sum: Wei::ZERO, fee_sum: Wei::ZERO }),
        Some(row) => Ok(Window { value_sum: row.try_get("value_sum")?, fee_sum: row.try_get("fee_sum")? }),
    }
}
