//! The tracker's statements. Settling locks the spending window before the slot, as T1 does.

mod settling;

use std::collections::HashMap;

use alloy::primitives::{Address, B256};
use sqlx::{PgConnection, PgPool, Row};

use super::super::lanes::Lane;
use super::super::state::{self, Event, Outcome, SlotState};
use super::super::store::{begin_t1, signed};
use super::aftermath::Aftermath;
use crate::audit;
use crate::chain::ChainId;
use crate::chain::Receipt;
use crate::chain::tx::SignedTx;
use crate::db::DbError;
use crate::ids::{AttemptId, DaemonId, IntentId, KeyId};
use crate::money::Wei;
use settling::{lock_spend_windows, raise_spends, settle_spend};

/// One signed transaction of a slot.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Its hash.
    pub tx_hash: B256,
    /// Whether it is our own no-op rather than the intent.
    pub is_noop: bool,
}

/// A slot that is not final.
#[derive(Debug, Clone)]
pub struct OpenSlot {
    /// Its lane.
    pub lane: Lane,
    /// Its nonce.
    pub nonce: u64,
    /// Where it is.
    pub state: SlotState,
    /// Whose spend it is.
    pub intent: Option<IntentId>,
    /// What can sign for the lane.
    pub key_id: Option<KeyId>,
    /// Never sent by us.
    pub sign_only: bool,
    /// Seconds since it was made.
    pub age_s: f64,
    /// Seconds since its bytes were last sent, if they were.
    pub sent_s_ago: Option<f64>,
    /// Where it was noticed that others use the nonce, or left it out.
    pub noticed_block: Option<u64>,
    /// The recorded receipt: transaction, block, confirmations.
    pub mined: Option<(B256, B256, u64)>,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptRow>,
}

/// Whether there is anything to follow on a chain.
pub async fn has_open_slots(pool: &PgPool, chain_id: ChainId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT EXISTS (SELECT 1 FROM slots WHERE chain_id = $1 AND state <> 'final') AS open")
        .bind(signed(chain_id.0))
        .fetch_one(pool)
        .await?;
    row.try_get("open")
}

/// Takes or keeps the lease of a chain.
pub async fn take_lease(pool: &PgPool, chain_id: ChainId, holder: DaemonId, lease_s: u64) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "INSERT INTO tracker_leases (chain_id, holder, until) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
         ON CONFLICT (chain_id) DO UPDATE SET holder = $2, until = EXCLUDED.until
         WHERE tracker_leases.holder = $2 OR tracker_leases.until < clock_timestamp()",
    )
    .bind(signed(chain_id.0))
    .bind(holder)
    .bind(lease_s as f64)
    .execute(pool)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// Gives the leases of a daemon that stops to the others.
pub async fn drop_leases(pool: &PgPool, holder: DaemonId) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM tracker_leases WHERE holder = $1").bind(holder).execute(pool).await?;
    Ok(())
}

/// The chain's open slots with their attempts: the lowest nonces of every lane first.
pub async fn open_slots(pool: &PgPool, chain_id: ChainId, limit: i64) -> Result<Vec<OpenSlot>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT address, nonce, state, intent_id, key_id, sign_only, noticed_block, mined_tx_hash, block_hash, confirmations,
                extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s,
                extract(epoch FROM clock_timestamp() - last_sent_at)::float8 AS sent_s_ago
         FROM (SELECT *, row_number() OVER (PARTITION BY address ORDER BY nonce) AS position
               FROM slots WHERE chain_id = $1 AND state <> 'final') AS open
         ORDER BY position, address LIMIT $2",
    )
    .bind(signed(chain_id.0))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let mut attempts = attempts_of_open_slots(pool, chain_id).await?;
    rows.iter()
        .map(|row| {
            let address = Address::try_from(row.try_get::<&[u8], _>("address")?).map_err(decode)?;
            let lane = Lane { chain_id, address };
            let nonce = row.try_get::<i64, _>("nonce")?.unsigned_abs();
            let mined_tx: Option<&[u8]> = row.try_get("mined_tx_hash")?;
            let block: Option<&[u8]> = row.try_get("block_hash")?;
            let confirmations = row.try_get::<i32, _>("confirmations")?.unsigned_abs();
            let mined = match (mined_tx, block) {
                (Some(tx), Some(block)) => Some((
                    B256::try_from(tx).map_err(decode)?,
                    B256::try_from(block).map_err(decode)?,
                    u64::from(confirmations),
                )),
                _ => None,
            };
            Ok(OpenSlot {
                lane,
                nonce,
                state: row.try_get("state")?,
                intent: row.try_get("intent_id")?,
                key_id: row.try_get("key_id")?,
                sign_only: row.try_get("sign_only")?,
                age_s: row.try_get("age_s")?,
                sent_s_ago: row.try_get("sent_s_ago")?,
                noticed_block: row.try_get::<Option<i64>, _>("noticed_block")?.map(i64::unsigned_abs),
                mined,
                attempts: attempts.remove(&(address, nonce)).unwrap_or_default(),
            })
        })
        .collect()
}

async fn attempts_of_open_slots(
    pool: &PgPool,
    chain_id: ChainId,
) -> Result<HashMap<(Address, u64), Vec<AttemptRow>>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT a.address, a.nonce, a.kind, a.tx_hash FROM attempts a
         JOIN slots s USING (chain_id, address, nonce)
         WHERE s.chain_id = $1 AND s.state <> 'final' ORDER BY a.created_at",
    )
    .bind(signed(chain_id.0))
    .fetch_all(pool)
    .await?;
    let mut attempts: HashMap<_, Vec<AttemptRow>> = HashMap::new();
    for row in rows {
        let address = Address::try_from(row.try_get::<&[u8], _>("address")?).map_err(decode)?;
        let nonce = row.try_get::<i64, _>("nonce")?.unsigned_abs();
        attempts.entry((address, nonce)).or_default().push(AttemptRow {
            tx_hash: B256::try_from(row.try_get::<&[u8], _>("tx_hash")?).map_err(decode)?,
            is_noop: row.try_get::<String, _>("kind")? == "noop",
        });
    }
    Ok(attempts)
}

fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// The bytes of an attempt. They are large, so they are read only to be sent.
pub async fn raw(pool: &PgPool, tx_hash: B256) -> Result<Vec<u8>, sqlx::Error> {
    let row =
        sqlx::query("SELECT raw FROM attempts WHERE tx_hash = $1").bind(tx_hash.as_slice()).fetch_one(pool).await?;
    row.try_get("raw")
}

/// Notes where an intent's nonce was first seen used without a receipt of ours.
pub async fn notice(pool: &PgPool, slot: &OpenSlot, block: u64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE slots SET noticed_block = $4 WHERE chain_id = $1 AND address = $2 AND nonce = $3 AND noticed_block IS NULL",
    )
    .bind(signed(slot.lane.chain_id.0))
    .bind(slot.lane.address.as_slice())
    .bind(signed(slot.nonce))
    .bind(signed(block))
    .execute(pool)
    .await?;
    Ok(())
}

/// Records a receipt and how deep it is. Guarded by the state it was seen in: two daemons that do it write the same.
pub async fn record_receipt(
    pool: &PgPool,
    slot: &OpenSlot,
    outcome: Outcome,
    receipt: &Receipt,
    confirmations: u64,
) -> Result<(), sqlx::Error> {
    if state::next(slot.state, Event::Receipt(outcome)) != Some(SlotState::Mined) {
        return Ok(());
    }
    sqlx::query(
        "UPDATE slots SET state = 'mined', outcome = $5, mined_tx_hash = $6, block_number = $7, block_hash = $8, gas_used = $9,
                effective_gas_price = $10, confirmations = $11, error_message = NULL,
                noticed_block = CASE WHEN intent_id IS NULL THEN noticed_block END
         WHERE chain_id = $1 AND address = $2 AND nonce = $3 AND state = $4",
    )
    .bind(signed(slot.lane.chain_id.0))
    .bind(slot.lane.address.as_slice())
    .bind(signed(slot.nonce))
    .bind(slot.state)
    .bind(outcome)
    .bind(receipt.transaction_hash.as_slice())
    .bind(signed(receipt.block_number))
    .bind(receipt.block_hash.as_slice())
    .bind(signed(receipt.gas_used))
    .bind(receipt.effective_gas_price.map(Wei::from))
    .bind(i32::try_from(confirmations).unwrap_or(i32::MAX))
    .execute(pool)
    .await?;
    Ok(())
}

/// The receipt's block is gone: the slot waits for a block again, and its bytes are sent at once.
pub async fn record_reorg(pool: &PgPool, slot: &OpenSlot) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE slots SET state = CASE WHEN intent_id IS NULL THEN 'foreign' ELSE 'broadcast' END, outcome = NULL,
                mined_tx_hash = NULL, block_number = NULL, block_hash = NULL, gas_used = NULL, effective_gas_price = NULL,
                confirmations = 0, last_sent_at = NULL, error_message = 'its block was reorganised away; sent again'
         WHERE chain_id = $1 AND address = $2 AND nonce = $3 AND state = 'mined'",
    )
    .bind(signed(slot.lane.chain_id.0))
    .bind(slot.lane.address.as_slice())
    .bind(signed(slot.nonce))
    .execute(pool)
    .await?;
    Ok(())
}

/// Makes a slot final and settles its spend: from now on the entry ages out after its 24 hours; when our own no-op took the nonce,
/// its value is free at once. What it has taken beyond its entries counts from now on. A mined slot must still have the receipt that
/// `slot` has. Locks the spending windows, then the slot.
pub(super) async fn settle(
    pool: &PgPool,
    slot: &OpenSlot,
    outcome: Outcome,
    event: Event,
    aftermath: &Aftermath,
) -> Result<bool, DbError> {
    if state::next(slot.state, event) != Some(SlotState::Final) {
        return Ok(false);
    }
    let mut tx = pool.begin().await?;
    begin_t1(&mut tx).await?;
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
        let event = audit::Event::by_system(org_id, "transaction.final", audit::Resource::new("transaction", intent))
            .with("outcome", outcome.as_str())
            .with("agent_id", agent_id.to_string())
            .with("chain_id", slot.lane.chain_id.0)
            .with("nonce", slot.nonce);
        audit::record(&mut tx, event).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Locks a slot that is to be closed with a no-op; false when it is not open any more. Whether it has one already is asked in a
/// later statement: this one took its snapshot before it waited.
pub async fn lock_for_noop(conn: &mut PgConnection, slot: &OpenSlot) -> Result<bool, sqlx::Error> {
    let key = (signed(slot.lane.chain_id.0), slot.lane.address.as_slice(), signed(slot.nonce));
    let open = sqlx::query(
        "SELECT 1 FROM slots WHERE chain_id = $1 AND address = $2 AND nonce = $3 AND state = $4 FOR UPDATE",
    )
    .bind(key.0)
    .bind(key.1)
    .bind(key.2)
    .bind(slot.state)
    .fetch_optional(&mut *conn)
    .await?;
    let closed =
        sqlx::query("SELECT 1 FROM attempts WHERE chain_id = $1 AND address = $2 AND nonce = $3 AND kind = 'noop'")
            .bind(key.0)
            .bind(key.1)
            .bind(key.2)
            .fetch_optional(conn)
            .await?;
    Ok(open.is_some() && closed.is_none())
}

/// Adds the no-op's bytes to its slot, to be sent after the commit.
pub async fn insert_noop(conn: &mut PgConnection, slot: &OpenSlot, bytes: &SignedTx) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO attempts (id, chain_id, address, nonce, kind, tx_hash, raw) VALUES ($4, $1, $2, $3, 'noop', $5, $6)",
    )
    .bind(signed(slot.lane.chain_id.0))
    .bind(slot.lane.address.as_slice())
    .bind(signed(slot.nonce))
    .bind(AttemptId::random())
    .bind(bytes.hash.as_slice())
    .bind(bytes.raw.as_ref())
    .execute(conn)
    .await?;
    Ok(())
}
