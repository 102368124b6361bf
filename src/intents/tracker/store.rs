//! The tracker's statements. Settling locks the spending window before the slot, as T1 does.

mod doubts;
mod settling;
mod turns;

use std::collections::HashMap;

use alloy::primitives::{Address, B256};
use sqlx::{PgPool, Row};

use super::super::lanes::Lane;
use super::super::state::{self, Before, Event, SlotState};
use super::super::store::{fees_from, hash_from, signed};
use super::mined::Found;
use crate::chain::{ChainId, Fees};
use crate::ids::{IntentId, KeyId};
use crate::money::Wei;

pub use doubts::{forget_notice, has_left_out, notice, open_missing, reopen_foreign};
pub(super) use settling::{settle, settle_plain};
pub use turns::{drop_turns, end_turns, keep_turn, open_turns, take_turns};

/// Slots of a lane that one look settles, at most.
pub const TO_SETTLE_MAX: usize = 200;
/// Unmined slots of a lane that one look takes in, lowest nonces first.
const WAITING_MAX: i64 = 64;
/// Blocks that one look asks for, oldest first.
const BLOCKS_MAX: i64 = 256;

/// One signed transaction of a slot.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Its hash.
    pub tx_hash: B256,
    /// Whether it is our own no-op rather than the intent.
    pub is_noop: bool,
    /// Whether the daemon signed it because the market had moved.
    pub is_bump: bool,
    /// What it pays; `None` in no-ops of old.
    pub fees: Option<Fees>,
    /// Seconds since it was signed.
    pub age_s: f64,
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
    /// Its own bytes are never sent by us.
    pub sign_only: bool,
    /// Seconds since it was made.
    pub age_s: f64,
    /// Seconds since its bytes were last sent, if they were.
    pub sent_s_ago: Option<f64>,
    /// What a node said last of its bytes is that it has them.
    pub is_taken: bool,
    /// Where it was noticed that others use the nonce, or left it out.
    pub noticed_block: Option<u64>,
    /// The recorded receipt: transaction, block, confirmations.
    pub mined: Option<(B256, B256, u64)>,
    /// A ceiling or a rule forbade to raise its fee a while ago.
    pub bump_is_put_off: bool,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptRow>,
}

impl OpenSlot {
    /// The attempt that we send: the latest, but for bytes that are not ours to send, and a payment that was called failed.
    #[must_use]
    pub fn sendable(&self) -> Option<&AttemptRow> {
        let may_pay = !self.sign_only && self.state != SlotState::Foreign;
        self.attempts.last().filter(|attempt| attempt.is_noop || may_pay)
    }

    /// Whether its payment waits while the chain says that the nonce is used.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        matches!(self.state, SlotState::Signed | SlotState::Broadcast) && self.noticed_block.is_some()
    }
}

/// What one look at a lane takes in.
#[derive(Debug, Default)]
pub struct LaneSlots {
    /// Those whose nonce is used, and mined ones that are deep enough or whose block is gone.
    pub to_settle: Vec<OpenSlot>,
    /// Those that are not mined, lowest nonces first.
    pub waiting: Vec<OpenSlot>,
    /// The highest nonce of the lane that is not final.
    pub last_nonce: u64,
}

/// Whether there is anything to follow on a chain.
pub async fn has_open_slots(pool: &PgPool, chain_id: ChainId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT EXISTS (SELECT 1 FROM slots WHERE chain_id = $1 AND state <> 'final') AS open")
        .bind(signed(chain_id.0))
        .fetch_one(pool)
        .await?;
    row.try_get("open")
}

/// The blocks that hold mined transactions of these lanes, oldest first.
pub async fn blocks_of(pool: &PgPool, chain_id: ChainId, lanes: &[Address]) -> Result<Vec<(u64, B256)>, sqlx::Error> {
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT DISTINCT block_number, block_hash FROM slots
         WHERE chain_id = $1 AND address = ANY($2) AND state = 'mined' ORDER BY block_number LIMIT $3",
    )
    .bind(signed(chain_id.0))
    .bind(bytes_of(lanes))
    .bind(BLOCKS_MAX)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(|(number, hash)| Ok((number.unsigned_abs(), hash_from(&hash)?))).collect()
}

/// How deep the transactions in these blocks are by now.
pub async fn record_depth(
    pool: &PgPool,
    chain_id: ChainId,
    lanes: &[Address],
    blocks: &[B256],
    head: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH held AS MATERIALIZED (
             SELECT address, nonce FROM slots
             WHERE chain_id = $1 AND address = ANY($2) AND state = 'mined' AND block_hash = ANY($3)
               AND $4 + 1 - block_number > confirmations
             ORDER BY address, nonce FOR UPDATE
         )
         UPDATE slots s SET confirmations = least($4 + 1 - s.block_number, 2147483647)::integer
         FROM held WHERE s.chain_id = $1 AND s.address = held.address AND s.nonce = held.nonce",
    )
    .bind(signed(chain_id.0))
    .bind(bytes_of(lanes))
    .bind(hashes_of(blocks))
    .bind(signed(head))
    .execute(pool)
    .await?;
    Ok(())
}

fn bytes_of(lanes: &[Address]) -> Vec<Vec<u8>> {
    lanes.iter().map(|address| address.to_vec()).collect()
}

fn hashes_of(hashes: &[B256]) -> Vec<Vec<u8>> {
    hashes.iter().map(|hash| hash.to_vec()).collect()
}

/// A lane's open slots, as far as there is anything to do: with a nonce below `latest`, or mined below height `deep_below` or in a block
/// that is not one of `standing`, some of each; and the lowest that wait.
pub async fn slots_of(
    pool: &PgPool,
    lane: Lane,
    latest: u64,
    deep_below: u64,
    standing: &[B256],
) -> Result<LaneSlots, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT nonce, state, intent_id, key_id, sign_only, noticed_block, mined_tx_hash, block_hash, confirmations, class, last_nonce,
                coalesce(no_bump_before > clock_timestamp(), false) AS bump_is_put_off,
                last_sent_at IS NOT NULL AND error_message IS NULL AS is_taken,
                extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s,
                extract(epoch FROM clock_timestamp() - last_sent_at)::float8 AS sent_s_ago
         FROM (
             SELECT *, row_number() OVER (PARTITION BY class ORDER BY nonce) AS place, max(nonce) OVER () AS last_nonce
             FROM (
                 SELECT *, CASE WHEN state = 'mined' AND block_number >= $4 AND block_hash = ANY($5) THEN 'fine'
                                WHEN state = 'mined' THEN 'mined' WHEN nonce < $3 THEN 'used' ELSE 'waiting' END AS class
                 FROM slots WHERE chain_id = $1 AND address = $2 AND state <> 'final') AS open) AS placed
         WHERE class <> 'fine' AND place <= CASE class WHEN 'waiting' THEN $6 ELSE $7 END
         ORDER BY nonce",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(latest))
    .bind(signed(deep_below))
    .bind(hashes_of(standing))
    .bind(WAITING_MAX)
    .bind(TO_SETTLE_MAX as i64)
    .fetch_all(pool)
    .await?;
    let nonces: Vec<i64> = rows.iter().map(|row| row.try_get("nonce")).collect::<Result<_, _>>()?;
    let mut attempts = attempts_of(pool, lane, &nonces).await?;
    let mut slots = LaneSlots::default();
    for row in &rows {
        let nonce = row.try_get::<i64, _>("nonce")?.unsigned_abs();
        let mined_tx: Option<&[u8]> = row.try_get("mined_tx_hash")?;
        let block: Option<&[u8]> = row.try_get("block_hash")?;
        let confirmations = row.try_get::<i32, _>("confirmations")?.unsigned_abs();
        let mined = match (mined_tx, block) {
            (Some(tx), Some(block)) => Some((hash_from(tx)?, hash_from(block)?, u64::from(confirmations))),
            _ => None,
        };
        let slot = OpenSlot {
            lane,
            nonce,
            state: row.try_get("state")?,
            intent: row.try_get("intent_id")?,
            key_id: row.try_get("key_id")?,
            sign_only: row.try_get("sign_only")?,
            age_s: row.try_get("age_s")?,
            sent_s_ago: row.try_get("sent_s_ago")?,
            is_taken: row.try_get("is_taken")?,
            noticed_block: row.try_get::<Option<i64>, _>("noticed_block")?.map(i64::unsigned_abs),
            mined,
            bump_is_put_off: row.try_get("bump_is_put_off")?,
            attempts: attempts.remove(&nonce).unwrap_or_default(),
        };
        slots.last_nonce = row.try_get::<i64, _>("last_nonce")?.unsigned_abs();
        match row.try_get::<&str, _>("class")? {
            "waiting" => slots.waiting.push(slot),
            _ => slots.to_settle.push(slot),
        }
    }
    Ok(slots)
}

async fn attempts_of(pool: &PgPool, lane: Lane, nonces: &[i64]) -> Result<HashMap<u64, Vec<AttemptRow>>, sqlx::Error> {
    let mut attempts: HashMap<_, Vec<AttemptRow>> = HashMap::new();
    if nonces.is_empty() {
        return Ok(attempts);
    }
    let rows = sqlx::query(
        "SELECT nonce, kind, reason, tx_hash, gas_limit, gas_price, max_fee_per_gas, max_priority_fee_per_gas,
                extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s
         FROM attempts WHERE chain_id = $1 AND address = $2 AND nonce = ANY($3) ORDER BY ordinal",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(nonces)
    .fetch_all(pool)
    .await?;
    for row in rows {
        let nonce = row.try_get::<i64, _>("nonce")?.unsigned_abs();
        let told: Option<i64> = row.try_get("gas_limit")?;
        attempts.entry(nonce).or_default().push(AttemptRow {
            tx_hash: hash_from(row.try_get("tx_hash")?)?,
            is_noop: row.try_get::<&str, _>("kind")? == "noop",
            is_bump: row.try_get::<&str, _>("reason")? == "bump",
            fees: told.map(|_| fees_from(&row, "")).transpose()?,
            age_s: row.try_get("age_s")?,
        });
    }
    Ok(attempts)
}

/// Records receipts and how deep they are. Guarded by the state that each slot was seen in: two daemons that do it write the same. What was
/// seen as only signed may be marked as sent meanwhile by its own request; no further block may come to show the receipt once more. Does
/// not wait for the disk: what is lost is read from the chain again.
pub(super) async fn record_receipts(pool: &PgPool, lane: Lane, found: &[&Found<'_>]) -> Result<(), sqlx::Error> {
    let of_mined =
        |found: &&&Found<'_>| state::next(found.slot.state, Event::Receipt(found.outcome)) == Some(SlotState::Mined);
    let found: Vec<&Found<'_>> = found.iter().filter(of_mined).copied().collect();
    if found.is_empty() {
        return Ok(());
    }
    fn each<'f, T>(found: &[&'f Found<'f>], of: impl Fn(&'f Found<'f>) -> T) -> Vec<T> {
        found.iter().map(|found| of(found)).collect()
    }
    sqlx::query(
        "WITH light AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)
         ), found AS (
             SELECT * FROM unnest($3::bigint[], $4::text[], $5::text[], $6::bytea[], $7::bigint[], $8::bytea[], $9::bigint[],
                                  $10::numeric[], $11::integer[])
                 AS f (nonce, seen, outcome, tx_hash, block_number, block_hash, gas_used, effective_gas_price, confirmations)
         ), held AS MATERIALIZED (
             SELECT nonce FROM slots, light WHERE chain_id = $1 AND address = $2 AND nonce = ANY($3) ORDER BY nonce FOR UPDATE OF slots
         )
         UPDATE slots s SET state = 'mined', outcome = found.outcome, mined_tx_hash = found.tx_hash, block_number = found.block_number,
                block_hash = found.block_hash, gas_used = found.gas_used, effective_gas_price = found.effective_gas_price,
                confirmations = found.confirmations, error_message = NULL,
                noticed_block = CASE WHEN s.state = 'foreign' THEN s.noticed_block END
         FROM found JOIN held USING (nonce)
         WHERE s.chain_id = $1 AND s.address = $2 AND s.nonce = found.nonce
           AND (s.state = found.seen OR (found.seen = 'signed' AND s.state = 'broadcast'))",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(each(&found, |found| signed(found.slot.nonce)))
    .bind(each(&found, |found| found.slot.state.as_str()))
    .bind(each(&found, |found| found.outcome.as_str()))
    .bind(each(&found, |found| found.receipt.transaction_hash.to_vec()))
    .bind(each(&found, |found| signed(found.receipt.block_number)))
    .bind(each(&found, |found| found.receipt.block_hash.to_vec()))
    .bind(each(&found, |found| signed(found.receipt.gas_used)))
    .bind(each(&found, |found| found.receipt.effective_gas_price.map(Wei::from)))
    .bind(each(&found, |found| i32::try_from(found.confirmations).unwrap_or(i32::MAX)))
    .execute(pool)
    .await?;
    Ok(())
}

/// The receipt's block is gone: the slot waits for a block again, and its bytes are sent at once. It is what it was before: nobody's, or of a
/// payment that was called failed (both were noticed); signed only, where no node was ever known to have it, and what holds it holds it still.
pub async fn record_reorg(pool: &PgPool, slot: &OpenSlot) -> Result<(), sqlx::Error> {
    let as_before = |before| state::next(SlotState::Mined, Event::Reorged(before)).map(|state| state.as_str());
    sqlx::query(
        "UPDATE slots SET state = CASE WHEN noticed_block IS NOT NULL THEN $4 WHEN broadcast_at IS NULL THEN $5 ELSE $6 END,
                outcome = CASE WHEN noticed_block IS NOT NULL AND intent_id IS NOT NULL THEN 'foreign' END,
                mined_tx_hash = NULL, block_number = NULL, block_hash = NULL, gas_used = NULL, effective_gas_price = NULL,
                confirmations = 0, last_sent_at = NULL, error_message = 'its block was reorganised away; sent again'
         WHERE chain_id = $1 AND address = $2 AND nonce = $3 AND state = 'mined'",
    )
    .bind(signed(slot.lane.chain_id.0))
    .bind(slot.lane.address.as_slice())
    .bind(signed(slot.nonce))
    .bind(as_before(Before::NotOurs))
    .bind(as_before(Before::Unsent))
    .bind(as_before(Before::Sent))
    .execute(pool)
    .await?;
    Ok(())
}
