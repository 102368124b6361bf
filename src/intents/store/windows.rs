//! Spending windows: locked first, summed in a later statement, aged in small steps.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgExecutor, PgPool, Postgres, Row as _, Transaction};
use time::OffsetDateTime;

use super::super::guardrails::Window;
use super::begin_t1;
use crate::ids::AgentId;
use crate::money::Wei;

/// Makes the windows' rows where they are the first, and locks them in the order of their units' bytes: `units` must come so. Nothing is
/// read here: a statement takes its snapshot before it waits.
pub async fn lock_windows(conn: &mut PgConnection, agent: AgentId, units: &[String]) -> Result<(), sqlx::Error> {
    // Of one window there is no order to keep: it is made only where it is missing.
    if units.len() == 1 && lock_existing(conn, agent, units).await? == 1 {
        return Ok(());
    }
    make_windows(&mut *conn, agent, units).await?;
    lock_existing(conn, agent, units).await?;
    Ok(())
}

/// Makes the rows of windows that are used for the first time, in the order of `units`, which is that of their bytes.
pub(in crate::intents) async fn make_windows(
    conn: impl PgExecutor<'_>,
    agent: AgentId,
    units: &[String],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO spending_windows (agent_id, spend_group)
         SELECT $1, unit FROM unnest($2::text[]) WITH ORDINALITY AS u (unit, place) ORDER BY place ON CONFLICT DO NOTHING",
    )
    .bind(agent)
    .bind(units)
    .execute(conn)
    .await?;
    Ok(())
}

/// One row for each of an agent's windows in a list, while a further condition is true; locked in the order of their units' bytes.
macro_rules! locked_windows {
    ($agent:literal, $units:literal, $and:literal) => {
        concat!(
            "SELECT 1 FROM spending_windows WHERE agent_id = ",
            $agent,
            " AND spend_group = ANY(",
            $units,
            ") ",
            $and,
            " ORDER BY spend_group COLLATE \"C\" FOR UPDATE"
        )
    };
}
pub(super) use locked_windows;

async fn lock_existing(conn: &mut PgConnection, agent: AgentId, units: &[String]) -> Result<u64, sqlx::Error> {
    let locked = sqlx::query(locked_windows!("$1", "$2", "")).bind(agent).bind(units).execute(conn).await?;
    Ok(locked.rows_affected())
}

/// A window's sums, and how far it is aged.
#[derive(Clone, Copy, Debug)]
pub struct Aged {
    /// The sums.
    pub window: Window,
    /// The window's clock, which never runs backwards.
    pub at: OffsetDateTime,
    /// Whether there may be more entries to age out. The sums are then too high, never too low.
    pub more: bool,
}

/// Entries that one statement ages out of one window: a few milliseconds, whatever has piled up. It stands in the statement too: of a bound
/// that is a parameter the planner takes a tenth of all rows for granted.
const AGEING_MAX: i64 = 1_000;

/// With the windows locked: sets their clocks, each its own, and ages out the oldest entries that are 24 hours old and settled.
pub async fn age_windows(
    conn: &mut PgConnection,
    agent: AgentId,
    units: &[String],
) -> Result<BTreeMap<String, Aged>, sqlx::Error> {
    let rows = sqlx::query(
        "WITH now AS (
             SELECT spend_group AS unit, greatest(last_stamp, clock_timestamp()) AS stamp
             FROM spending_windows WHERE agent_id = $1 AND spend_group = ANY($2)
         ), due AS (
             SELECT d.intent_id, now.unit FROM now, LATERAL (
                 SELECT intent_id FROM spends
                 WHERE agent_id = $1 AND spend_group = now.unit AND counted AND settled AND signed_at <= now.stamp - interval '24 hours'
                 ORDER BY signed_at LIMIT 1000) AS d
         ), aged AS (
             UPDATE spends s SET counted = false FROM due WHERE s.intent_id = due.intent_id AND s.spend_group = due.unit
             RETURNING due.unit, s.value_wei, s.fee_wei
         ), gone AS (
             SELECT unit, sum(value_wei) AS value_wei, sum(fee_wei) AS fee_wei, count(*) AS entries FROM aged GROUP BY unit
         )
         UPDATE spending_windows w SET last_stamp = now.stamp,
                value_sum_wei = w.value_sum_wei - coalesce(gone.value_wei, 0),
                fee_sum_wei = w.fee_sum_wei - coalesce(gone.fee_wei, 0)
         FROM now LEFT JOIN gone USING (unit)
         WHERE w.agent_id = $1 AND w.spend_group = now.unit
         RETURNING w.spend_group, w.value_sum_wei, w.fee_sum_wei, w.last_stamp, coalesce(gone.entries, 0) AS aged",
    )
    .bind(agent)
    .bind(units)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let aged = Aged {
                window: Window { value_sum: row.try_get("value_sum_wei")?, fee_sum: row.try_get("fee_sum_wei")? },
                at: row.try_get("last_stamp")?,
                more: row.try_get::<i64, _>("aged")? >= AGEING_MAX,
            };
            Ok((row.try_get("spend_group")?, aged))
        })
        .collect()
}

/// Ages out what has piled up in all windows, in small transactions, so that a request need not unless its limit depends on it. One window's
/// trouble (a lock that is not had in time) keeps no other waiting.
///
/// # Errors
/// When the database is not there.
pub async fn age_all_windows(pool: &PgPool) -> Result<(), sqlx::Error> {
    let due: Vec<(AgentId, String)> = sqlx::query_as(
        "SELECT agent_id, spend_group FROM spending_windows w WHERE EXISTS (
             SELECT 1 FROM spends s WHERE s.agent_id = w.agent_id AND s.spend_group = w.spend_group AND s.counted AND s.settled
               AND s.signed_at <= clock_timestamp() - interval '24 hours')",
    )
    .fetch_all(pool)
    .await?;
    for (agent, unit) in due {
        let unit = [unit];
        loop {
            let tx = begin_t1(pool).await?;
            match age_once(tx, agent, &unit).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%agent, window = unit[0], %error, "a spending window was not aged: it is in a minute");
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Whether there is more to age out.
async fn age_once(mut tx: Transaction<'_, Postgres>, agent: AgentId, unit: &[String]) -> Result<bool, sqlx::Error> {
    lock_windows(&mut tx, agent, unit).await?;
    let more = age_windows(&mut tx, agent, unit).await?.values().any(|aged| aged.more);
    tx.commit().await?;
    Ok(more)
}

/// An intent's entry in one window.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The window.
    pub unit: String,
    /// The amount.
    pub value: Wei,
    /// The fee.
    pub fee: Wei,
    /// The window's sums with it.
    pub sums: Window,
    /// When, by the window's clock.
    pub at: OffsetDateTime,
}
