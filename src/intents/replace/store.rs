//! Slots that are to be replaced. Locks: lane → slot.

use std::collections::BTreeMap;

use alloy::primitives::B256;
use sqlx::{PgConnection, PgPool, Row as _};
use time::OffsetDateTime;

use super::super::lanes::Lane;
use super::super::state::{Outcome, SlotState};
use super::super::store::{fee_columns, fees_from, is_stored, lock_lane, signed, unsigned_tx};
use super::rules::{Before, Reason, Standing};
use crate::chain::{SignedTx, UnsignedTx};
use crate::db::DbError;
use crate::ids::{AgentId, AttemptId, IntentId, KeyId, OrgId};
use crate::money::Wei;

/// Whose transaction a slot is.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Its intent.
    pub intent: IntentId,
    /// Whose.
    pub org_id: OrgId,
    /// Which agent's.
    pub agent_id: AgentId,
    /// The spend group of its chain when it was signed.
    pub spend_group: String,
    /// What was signed first.
    pub tx: UnsignedTx,
}

/// A slot with its attempts, as it was read. A change since then is found by `latest` and `standing.state` when it is locked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its lane.
    pub lane: Lane,
    /// Where it stands.
    pub standing: Standing,
    /// What can sign for it.
    pub key_id: Option<KeyId>,
    /// `None`: a nonce of others.
    pub owner: Option<Owner>,
    /// Its attempts, oldest first.
    pub attempts: Vec<Before>,
    /// The place of the latest.
    pub latest: Option<i32>,
    /// How long ago the latest was signed, in seconds, if it raised the fee of the one before.
    pub raised_s_ago: Option<f64>,
}

/// A slot. Locks nothing.
pub async fn target(conn: &mut PgConnection, lane: Lane, nonce: u64) -> Result<Option<Target>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT s.state, s.outcome, s.sign_only, s.key_id, s.intent_id, i.org_id, i.agent_id, i.spend_group, i.chain_id,
                i.from_address, i.to_address, i.value_wei, i.data, i.gas_limit, i.gas_price, i.max_fee_per_gas, i.max_priority_fee_per_gas
         FROM slots s LEFT JOIN intents i ON i.id = s.intent_id WHERE s.chain_id = $1 AND s.address = $2 AND s.nonce = $3",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(nonce))
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let owner = match row.try_get::<Option<IntentId>, _>("intent_id")? {
        None => None,
        Some(intent) => Some(Owner {
            intent,
            org_id: row.try_get("org_id")?,
            agent_id: row.try_get("agent_id")?,
            spend_group: row.try_get("spend_group")?,
            tx: unsigned_tx(&row)?,
        }),
    };
    let rows = sqlx::query(
        "SELECT ordinal, kind, reason, gas_limit, gas_price, max_fee_per_gas, max_priority_fee_per_gas,
                extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s FROM attempts
         WHERE chain_id = $1 AND address = $2 AND nonce = $3 ORDER BY ordinal",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(nonce))
    .fetch_all(conn)
    .await?;
    let mut attempts = Vec::with_capacity(rows.len());
    for attempt in &rows {
        let told: Option<i64> = attempt.try_get("gas_limit")?;
        let fees = told.map(|_| fees_from(attempt, "")).transpose()?;
        attempts.push(Before { fees, is_noop: attempt.try_get::<String, _>("kind")? == "noop" });
    }
    let standing = Standing {
        state: row.try_get("state")?,
        outcome: row.try_get::<Option<Outcome>, _>("outcome")?,
        sign_only: row.try_get("sign_only")?,
        attempts: attempts.len(),
        noops: attempts.iter().filter(|attempt| attempt.is_noop).count(),
        is_noop: attempts.last().is_some_and(|attempt| attempt.is_noop),
        nonce,
    };
    let latest = rows.last().map(|row| row.try_get("ordinal")).transpose()?;
    let mut raised_s_ago = None;
    if let Some(last) = rows.last() {
        let reason: &str = last.try_get("reason")?;
        if [Reason::SpeedUp, Reason::Bump].iter().any(|raise| raise.as_str() == reason) {
            raised_s_ago = Some(last.try_get("age_s")?);
        }
    }
    Ok(Some(Target { lane, standing, key_id: row.try_get("key_id")?, owner, attempts, latest, raised_s_ago }))
}

/// Locks the lane and then the slot; false when it is not what `target` was read as any more. Its attempts are read in a later statement:
/// the one that locks took its snapshot before it waited.
pub async fn lock_unchanged(conn: &mut PgConnection, target: &Target) -> Result<bool, sqlx::Error> {
    lock_lane(conn, target.lane).await?;
    let key = (signed(target.lane.chain_id.0), target.lane.address.as_slice(), signed(target.standing.nonce));
    let state: Option<SlotState> =
        sqlx::query_scalar("SELECT state FROM slots WHERE chain_id = $1 AND address = $2 AND nonce = $3 FOR UPDATE")
            .bind(key.0)
            .bind(key.1)
            .bind(key.2)
            .fetch_optional(&mut *conn)
            .await?;
    let latest: Option<i32> =
        sqlx::query_scalar("SELECT max(ordinal) FROM attempts WHERE chain_id = $1 AND address = $2 AND nonce = $3")
            .bind(key.0)
            .bind(key.1)
            .bind(key.2)
            .fetch_one(conn)
            .await?;
    // That a node has taken its bytes meanwhile changes nothing; that its payment was called failed does.
    let open = match state {
        Some(SlotState::Signed | SlotState::Broadcast) => target.standing.state != SlotState::Foreign,
        Some(SlotState::Foreign) => target.standing.state == SlotState::Foreign,
        _ => false,
    };
    Ok(open && latest == target.latest)
}

/// Adds the bytes of a further attempt to its slot, to be sent after the commit. With the slot locked.
pub async fn insert_attempt(
    conn: &mut PgConnection,
    target: &Target,
    reason: Reason,
    is_noop: bool,
    tx: &UnsignedTx,
    bytes: &SignedTx,
) -> Result<(), sqlx::Error> {
    let (gas_price, max_fee, tip) = fee_columns(tx.fees);
    sqlx::query(
        "WITH slot AS (
             UPDATE slots SET max_per_gas_wei = greatest(max_per_gas_wei, CASE WHEN $4 = 'intent' THEN coalesce($9, $10) END),
                    error_message = NULL, no_bump_before = NULL
             WHERE chain_id = $1 AND address = $2 AND nonce = $3
         )
         INSERT INTO attempts (id, chain_id, address, nonce, kind, tx_hash, raw, reason, gas_limit, gas_price, max_fee_per_gas,
             max_priority_fee_per_gas, ordinal)
         VALUES ($5, $1, $2, $3, $4, $6, $7, $12, $8, $9, $10, $11, $13)",
    )
    .bind(signed(target.lane.chain_id.0))
    .bind(target.lane.address.as_slice())
    .bind(signed(target.standing.nonce))
    .bind(if is_noop { "noop" } else { "intent" })
    .bind(AttemptId::random())
    .bind(bytes.hash.as_slice())
    .bind(bytes.raw.as_ref())
    .bind(signed(tx.gas_limit))
    .bind(gas_price)
    .bind(max_fee)
    .bind(tip)
    .bind(reason.as_str())
    .bind(target.latest.map_or(0, |latest| latest.saturating_add(1)))
    .execute(conn)
    .await?;
    Ok(())
}

/// What an intent has taken of its windows.
pub async fn entries(conn: &mut PgConnection, intent: IntentId) -> Result<BTreeMap<String, (Wei, Wei)>, sqlx::Error> {
    let rows: Vec<(String, Wei, Wei)> =
        sqlx::query_as("SELECT spend_group, value_wei, fee_wei FROM spends WHERE intent_id = $1 AND counted")
            .bind(intent)
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().map(|(unit, value, fee)| (unit, (value, fee))).collect())
}

/// What an intent takes of a window from now on.
#[derive(Clone, Debug)]
pub struct Raised {
    /// The window.
    pub unit: String,
    /// The amount.
    pub value: Wei,
    /// The fee.
    pub fee: Wei,
    /// The window's clock.
    pub at: OffsetDateTime,
}

/// Sets the intent's entries to these, each once, and moves the sums by the difference. They count for 24 hours from the new signature.
/// With the windows locked.
pub async fn raise_entries(conn: &mut PgConnection, owner: &Owner, raised: &[Raised]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH new AS (
             SELECT * FROM unnest($3::text[], $4::numeric[], $5::numeric[], $6::timestamptz[]) AS n (unit, value_wei, fee_wei, at)
         ), old AS (
             SELECT spend_group AS unit, value_wei, fee_wei FROM spends WHERE intent_id = $1 AND counted
         ), entry AS (
             INSERT INTO spends (intent_id, agent_id, spend_group, value_wei, fee_wei, signed_at)
             SELECT $1, $2, unit, value_wei, fee_wei, at FROM new
             ON CONFLICT (intent_id, spend_group)
             DO UPDATE SET value_wei = EXCLUDED.value_wei, fee_wei = EXCLUDED.fee_wei, signed_at = EXCLUDED.signed_at
         )
         UPDATE spending_windows w SET value_sum_wei = w.value_sum_wei + new.value_wei - coalesce(old.value_wei, 0),
                fee_sum_wei = w.fee_sum_wei + new.fee_wei - coalesce(old.fee_wei, 0)
         FROM new LEFT JOIN old USING (unit) WHERE w.agent_id = $2 AND w.spend_group = new.unit",
    )
    .bind(owner.intent)
    .bind(owner.agent_id)
    .bind(raised.iter().map(|entry| entry.unit.clone()).collect::<Vec<_>>())
    .bind(raised.iter().map(|entry| entry.value).collect::<Vec<_>>())
    .bind(raised.iter().map(|entry| entry.fee).collect::<Vec<_>>())
    .bind(raised.iter().map(|entry| entry.at).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether the attempt is there, behind the lane's lock: a commit still under way holds it.
///
/// # Errors
/// When the lane cannot be locked in time: then the outcome is unknown.
pub async fn settled_outcome(pool: &PgPool, lane: Lane, tx_hash: B256) -> Result<bool, DbError> {
    is_stored(pool, lane, sqlx::query("SELECT 1 FROM attempts WHERE tx_hash = $1").bind(tx_hash.as_slice())).await
}

/// Returns when what this database shows of the lane's attempts is stored wherever commits are: what is answered without a further attempt is
/// an acknowledgement of the one before.
///
/// # Errors
/// When that cannot be said in time.
pub async fn stands(pool: &PgPool, lane: Lane) -> Result<(), DbError> {
    is_stored(pool, lane, sqlx::query("SELECT 1")).await.map(|_| ())
}

/// The daemon does not think of this slot's fee again for so long.
pub async fn put_off_bump(pool: &PgPool, lane: Lane, nonce: u64, seconds: u64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE slots SET no_bump_before = clock_timestamp() + make_interval(secs => $4)
         WHERE chain_id = $1 AND address = $2 AND nonce = $3",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(nonce))
    .bind(seconds as f64)
    .execute(pool)
    .await?;
    Ok(())
}
