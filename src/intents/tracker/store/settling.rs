//! What settling does to the windows: one lock of all that are concerned, then each entry once.

use std::collections::BTreeSet;

use sqlx::{PgConnection, Row as _};

use super::super::super::store::lock_windows;
use super::super::aftermath::Aftermath;
use crate::ids::{AgentId, IntentId, OrgId};
use crate::money::Wei;

/// Locks the windows of the intent's entries and those that the aftermath adds to, all of them in one order.
pub(super) async fn lock_spend_windows(
    conn: &mut PgConnection,
    intent: IntentId,
    aftermath: &Aftermath,
) -> Result<Option<(OrgId, AgentId, IntentId)>, sqlx::Error> {
    // An intent's entries are made with it, and only here are any added.
    let row = sqlx::query(
        "SELECT i.org_id, i.agent_id, array(SELECT spend_group FROM spends WHERE intent_id = i.id) AS units
         FROM intents i WHERE i.id = $1",
    )
    .bind(intent)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (org_id, agent_id) = (row.try_get("org_id")?, row.try_get("agent_id")?);
    let mut units: BTreeSet<String> = row.try_get::<Vec<String>, _>("units")?.into_iter().collect();
    units.extend(aftermath.taken.iter().map(|(unit, _)| unit.clone()));
    let units: Vec<String> = units.into_iter().collect();
    lock_windows(conn, agent_id, &units).await?;
    Ok(Some((org_id, agent_id, intent)))
}

/// Raises the intent's entries to what was taken, and makes those that are missing, with the windows locked. What was raised, by window.
pub(super) async fn raise_spends(
    conn: &mut PgConnection,
    intent: IntentId,
    agent: AgentId,
    aftermath: &Aftermath,
) -> Result<Vec<String>, sqlx::Error> {
    if aftermath.taken.is_empty() {
        return Ok(Vec::new());
    }
    let (units, amounts): (Vec<String>, Vec<Wei>) = aftermath.taken.iter().cloned().unzip();
    sqlx::query_scalar(
        "WITH taken AS (
             SELECT t.unit, t.amount, t.amount - coalesce(s.value_wei, 0) AS more
             FROM unnest($3::text[], $4::numeric[]) AS t (unit, amount)
             LEFT JOIN spends s ON s.intent_id = $1 AND s.spend_group = t.unit
             WHERE t.amount > coalesce(s.value_wei, 0)
         ), entry AS (
             INSERT INTO spends (intent_id, agent_id, spend_group, value_wei, fee_wei, signed_at)
             SELECT $1, $2, unit, amount, 0, clock_timestamp() FROM taken
             ON CONFLICT (intent_id, spend_group) DO UPDATE SET value_wei = EXCLUDED.value_wei
         )
         UPDATE spending_windows w SET value_sum_wei = w.value_sum_wei + taken.more
         FROM taken WHERE w.agent_id = $2 AND w.spend_group = taken.unit
         RETURNING w.spend_group || ': ' || taken.amount || ', ' || taken.more || ' more than was reserved'",
    )
    .bind(intent)
    .bind(agent)
    .bind(units)
    .bind(amounts)
    .fetch_all(conn)
    .await
}

/// A value leaves the sum exactly once: it becomes 0 here with the sum, or its entry ages out, both under the window's lock. The fee
/// stays until it ages out: the no-op that closed the nonce was paid for.
pub(super) async fn settle_spend(
    conn: &mut PgConnection,
    intent: IntentId,
    release_value: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH entry AS (
             SELECT agent_id, spend_group, value_wei FROM spends WHERE intent_id = $1 AND counted AND $2
         ), settled AS (
             UPDATE spends SET settled = true, value_wei = CASE WHEN $2 THEN 0 ELSE value_wei END WHERE intent_id = $1
         )
         UPDATE spending_windows w SET value_sum_wei = value_sum_wei - entry.value_wei
         FROM entry WHERE w.agent_id = entry.agent_id AND w.spend_group = entry.spend_group",
    )
    .bind(intent)
    .bind(release_value)
    .execute(conn)
    .await?;
    Ok(())
}
