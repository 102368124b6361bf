//! Spending windows: locked first, summed in a later statement, aged in small steps.

use sqlx::{PgConnection, PgPool, Row as _};
use time::OffsetDateTime;

use super::super::guardrails::Window;
use super::{NewIntent, begin_t1};
use crate::ids::AgentId;
use crate::money::Wei;

/// Makes the window's row if it is the first, and locks it. Nothing is read here: a statement takes its snapshot before it waits.
pub async fn lock_window(conn: &mut PgConnection, agent: AgentId, group: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO spending_windows (agent_id, spend_group) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(agent)
        .bind(group)
        .execute(&mut *conn)
        .await?;
    sqlx::query("SELECT 1 FROM spending_windows WHERE agent_id = $1 AND spend_group = $2 FOR UPDATE")
        .bind(agent)
        .bind(group)
        .execute(conn)
        .await?;
    Ok(())
}

/// A window as it is after ageing.
#[derive(Clone, Copy, Debug)]
pub struct Aged {
    /// The sums.
    pub window: Window,
    /// The window's clock, which never runs backwards.
    pub at: OffsetDateTime,
    /// Whether there may be more entries to age out. The sums are then too high, never too low.
    pub more: bool,
}

/// Entries that one statement ages out: a few milliseconds, whatever has piled up.
const AGEING_MAX: i64 = 1_000;

/// With the window locked: sets its clock, and ages out the oldest entries that are 24 hours old and settled.
pub async fn age_window(conn: &mut PgConnection, agent: AgentId, group: &str) -> Result<Aged, sqlx::Error> {
    let row = sqlx::query(
        "WITH now AS (
             SELECT greatest(last_stamp, clock_timestamp()) AS stamp FROM spending_windows WHERE agent_id = $1 AND spend_group = $2
         ), due AS (
             SELECT intent_id FROM spends
             WHERE agent_id = $1 AND spend_group = $2 AND counted AND settled
               AND signed_at <= (SELECT stamp FROM now) - interval '24 hours'
             ORDER BY signed_at LIMIT $3
         ), aged AS (
             UPDATE spends SET counted = false WHERE intent_id IN (SELECT intent_id FROM due) RETURNING value_wei, fee_wei
         )
         UPDATE spending_windows SET last_stamp = (SELECT stamp FROM now),
                value_sum_wei = value_sum_wei - coalesce((SELECT sum(value_wei) FROM aged), 0),
                fee_sum_wei = fee_sum_wei - coalesce((SELECT sum(fee_wei) FROM aged), 0)
         WHERE agent_id = $1 AND spend_group = $2
         RETURNING value_sum_wei, fee_sum_wei, last_stamp, (SELECT count(*) FROM aged) AS aged",
    )
    .bind(agent)
    .bind(group)
    .bind(AGEING_MAX)
    .fetch_one(conn)
    .await?;
    Ok(Aged {
        window: Window { value_sum: row.try_get("value_sum_wei")?, fee_sum: row.try_get("fee_sum_wei")? },
        at: row.try_get("last_stamp")?,
        more: row.try_get::<i64, _>("aged")? >= AGEING_MAX,
    })
}

/// Ages out what has piled up in windows that nobody uses, in small transactions, so that the next request need not.
pub async fn age_idle_windows(pool: &PgPool) -> Result<(), sqlx::Error> {
    let due: Vec<(AgentId, String)> = sqlx::query_as(
        "SELECT agent_id, spend_group FROM spending_windows w WHERE EXISTS (
             SELECT 1 FROM spends s WHERE s.agent_id = w.agent_id AND s.spend_group = w.spend_group AND s.counted AND s.settled
               AND s.signed_at <= clock_timestamp() - interval '24 hours')",
    )
    .fetch_all(pool)
    .await?;
    for (agent, group) in due {
        let mut more = true;
        while more {
            let mut tx = pool.begin().await?;
            begin_t1(&mut tx).await?;
            lock_window(&mut tx, agent, &group).await?;
            more = age_window(&mut tx, agent, &group).await?.more;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Records the spend and the new sums. With the window locked.
pub async fn record_spend(
    conn: &mut PgConnection,
    new: &NewIntent<'_>,
    fee: Wei,
    sums: Window,
    at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH entry AS (
             INSERT INTO spends (intent_id, agent_id, spend_group, value_wei, fee_wei, signed_at) VALUES ($1, $2, $3, $4, $5, $6)
         )
         UPDATE spending_windows SET value_sum_wei = $7, fee_sum_wei = $8 WHERE agent_id = $2 AND spend_group = $3",
    )
    .bind(new.id)
    .bind(new.agent_id)
    .bind(new.spend_group)
    .bind(new.tx.value)
    .bind(fee)
    .bind(at)
    .bind(sums.value_sum)
    .bind(sums.fee_sum)
    .execute(conn)
    .await?;
    Ok(())
}
