//! Looks at what counts, without a lock: for answers that reserve nothing.

use std::collections::BTreeMap;

use sqlx::{PgPool, Row as _};

use super::super::guardrails::Window;
use crate::ids::AgentId;

/// Entries that are taken off each window as having come of age; past that the sums are too high, never too low.
const AGED_MAX: i64 = 1_000;

/// Windows as a submit would find them after ageing. One that is not there yet is empty.
///
/// # Errors
/// As any statement.
pub async fn peek_windows(
    pool: &PgPool,
    agent: AgentId,
    units: &[String],
) -> Result<BTreeMap<String, Window>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT w.spend_group, w.value_sum_wei - coalesce(due.value_wei, 0) AS value_sum, w.fee_sum_wei - coalesce(due.fee_wei, 0) AS fee_sum
         FROM spending_windows w, LATERAL (
             SELECT sum(value_wei) AS value_wei, sum(fee_wei) AS fee_wei FROM (
                 SELECT value_wei, fee_wei FROM spends s
                 WHERE s.agent_id = w.agent_id AND s.spend_group = w.spend_group AND s.counted AND s.settled
                   AND s.signed_at <= clock_timestamp() - interval '24 hours'
                 ORDER BY s.signed_at LIMIT $3) AS aged
         ) AS due
         WHERE w.agent_id = $1 AND w.spend_group = ANY($2)",
    )
    .bind(agent)
    .bind(units)
    .bind(AGED_MAX)
    .fetch_all(pool)
    .await?;
    let mut windows: BTreeMap<String, Window> = units.iter().map(|unit| (unit.clone(), Window::default())).collect();
    for row in &rows {
        let window = Window { value_sum: row.try_get("value_sum")?, fee_sum: row.try_get("fee_sum")? };
        windows.insert(row.try_get("spend_group")?, window);
    }
    Ok(windows)
}
