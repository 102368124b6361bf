//! Settling: a slot gets final, and what that does to the windows: one lock of all that are concerned, then each entry once.

use std::collections::BTreeSet;

use sqlx::{PgConnection, PgPool, Row as _};

use super::super::super::lanes::Lane;
use super::super::super::state::{self, Event, Outcome, SlotState};
use super::super::super::store::{begin_t1, lock_windows, signed};
use super::super::aftermath::Aftermath;
use super::super::mined::Found;
use super::OpenSlot;
use crate::audit;
use crate::db::DbError;
use crate::ids::{AgentId, IntentId, OrgId};
use crate::money::Wei;

/// Makes mined slots of a lane final that take nothing beyond their entries and give nothing back: only that their entries may age out from
/// now on is written, so no window is locked. Each must still have the receipt that was found. Returns the nonces of those that got final.
///
/// Locks: the slots, in the order of their nonces.
pub(in crate::intents::tracker) async fn settle_plain(
    pool: &PgPool,
    lane: Lane,
    found: &[&Found<'_>],
) -> Result<Vec<u64>, DbError> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = begin_t1(pool).await?;
    let rows: Vec<(i64, String, IntentId, OrgId, AgentId)> = sqlx::query_as(
        "WITH found AS (
             SELECT * FROM unnest($3::bigint[], $4::text[], $5::bytea[], $6::bytea[]) AS f (nonce, outcome, tx_hash, block_hash)
         ), held AS MATERIALIZED (
             SELECT nonce FROM slots WHERE chain_id = $1 AND address = $2 AND nonce = ANY($3) ORDER BY nonce FOR UPDATE
         ), done AS (
             UPDATE slots s SET state = 'final', outcome = found.outcome,
                    error_message = CASE WHEN found.outcome = 'reverted' THEN 'the transaction reverted' END
             FROM found JOIN held USING (nonce)
             WHERE s.chain_id = $1 AND s.address = $2 AND s.nonce = found.nonce AND s.state = 'mined'
               AND s.mined_tx_hash = found.tx_hash AND s.block_hash = found.block_hash
             RETURNING s.nonce, s.outcome, s.intent_id
         ), settled AS (
             UPDATE spends SET settled = true FROM done WHERE spends.intent_id = done.intent_id
         )
         SELECT done.nonce, done.outcome, i.id, i.org_id, i.agent_id FROM done JOIN intents i ON i.id = done.intent_id",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(found.iter().map(|found| signed(found.slot.nonce)).collect::<Vec<_>>())
    .bind(found.iter().map(|found| found.outcome.as_str()).collect::<Vec<_>>())
    .bind(found.iter().map(|found| found.receipt.transaction_hash.to_vec()).collect::<Vec<_>>())
    .bind(found.iter().map(|found| found.receipt.block_hash.to_vec()).collect::<Vec<_>>())
    .fetch_all(&mut *tx)
    .await?;
    let events: Vec<audit::Event> = rows
        .iter()
        .map(|(nonce, outcome, intent, org_id, agent_id)| {
            final_event(*org_id, *agent_id, *intent, lane, nonce.unsigned_abs(), outcome)
        })
        .collect();
    audit::record_alike(&mut tx, FINAL, &events).await?;
    tx.commit().await?;
    Ok(rows.into_iter().map(|(nonce, ..)| nonce.unsigned_abs()).collect())
}

const FINAL: &str = "transaction.final";

fn final_event(org: OrgId, agent: AgentId, intent: IntentId, lane: Lane, nonce: u64, outcome: &str) -> audit::Event {
    audit::Event::by_system(org, FINAL, audit::Resource::new("transaction", intent))
        .with("outcome", outcome)
        .with("agent_id", agent.to_string())
        .with("chain_id", lane.chain_id.0)
        .with("nonce", nonce)
}

/// Makes a slot final and settles its spend: from now on the entry ages out after its 24 hours; when our own no-op took the nonce,
/// its value is free at once. What it has taken beyond its entries counts from now on. A mined slot must still have the receipt that
/// `slot` has. Locks the spending windows, then the slot.
pub(in crate::intents::tracker) async fn settle(
    pool: &PgPool,
    slot: &OpenSlot,
    outcome: Outcome,
    event: Event,
    aftermath: &Aftermath,
) -> Result<bool, DbError> {
    if state::next(slot.state, event) != Some(SlotState::Final) {
        return Ok(false);
    }
    let mut tx = begin_t1(pool).await?;
    let spend = match slot.intent {
        Some(intent) => lock_spend_windows(&mut tx, intent, aftermath).await?,
        None => None,
    };
    let done = sqlx::query(
        "UPDATE slots SET state = 'final', outcome = $5,
                error_message = CASE WHEN $5 = 'foreign' THEN 'the nonce was used by a transaction that is not ours'
                                     WHEN $5 = 'cancelled' THEN 'its nonce was closed by our own no-op'
                                     WHEN $5 = 'reverted' THEN 'the transaction reverted' END
         WHERE chain_id = $1 AND address = $2 AND nonce = $3 AND state = $4
           AND (state <> 'mined' OR (mined_tx_hash = $6 AND block_hash = $7))",
    )
    .bind(signed(slot.lane.chain_id.0))
    .bind(slot.lane.address.as_slice())
    .bind(signed(slot.nonce))
    .bind(slot.state)
    .bind(outcome)
    .bind(slot.mined.map(|(tx, _, _)| tx.to_vec()))
    .bind(slot.mined.map(|(_, block, _)| block.to_vec()))
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if done == 0 {
        return Ok(false);
    }
    if let Some((org_id, agent_id, intent)) = spend {
        let raised = raise_spends(&mut tx, intent, agent_id, aftermath).await?;
        if !raised.is_empty() || !aftermath.broken.is_empty() {
            let resource = audit::Resource::new("transaction", intent);
            let event = audit::Event::by_system(org_id, "transaction.exceeded", resource)
                .with("agent_id", agent_id.to_string())
                .with("broke", aftermath.broken.clone())
                .with("counted", raised);
            audit::record(&mut tx, event).await?;
        }
        settle_spend(&mut tx, intent, outcome.releases_value()).await?;
        let event = final_event(org_id, agent_id, intent, slot.lane, slot.nonce, outcome.as_str());
        audit::record(&mut tx, event).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Locks the windows of the intent's entries and those that the aftermath adds to, all of them in one order.
async fn lock_spend_windows(
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
async fn raise_spends(
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
async fn settle_spend(conn: &mut PgConnection, intent: IntentId, release_value: bool) -> Result<(), sqlx::Error> {
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
