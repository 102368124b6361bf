//! What is in blocks: receipts, depth, reorganisations, and nonces that others used.

use std::collections::HashMap;

use alloy::primitives::{Address, B256};

use super::super::broadcast::{self, Outgoing, Sent};
use super::super::frozen;
use super::super::lanes::Lane;
use super::super::state::{Event, Outcome, SlotState};
use super::LEASE_S;
use super::aftermath::{self, Aftermath};
use super::step::{Look, TrackError};
use super::store::{self, OpenSlot};
use crate::chain::{Receipt, Rpc};
use crate::telemetry::record;
use crate::telemetry::story;

/// Blocks that hold mined transactions of ours and are still there.
pub(super) struct Standing {
    /// Their hashes.
    pub(super) blocks: Vec<B256>,
}

/// Asks once for each block that holds transactions of these lanes whether it is still there, and records how deep those are by now.
pub(super) async fn standing_blocks(look: &Look<'_>, turns: &[Address]) -> Result<Standing, TrackError> {
    let Look { app, chain, rpc, head, .. } = look;
    let chain_id = chain.spec().chain_id;
    let held = store::blocks_of(&app.db, chain_id, turns).await?;
    let heights: Vec<u64> = held.iter().map(|(height, _)| *height).collect();
    let now = rpc.block_hashes(&heights).await?;
    let blocks: Vec<B256> =
        held.into_iter().zip(now).filter(|((_, held), now)| Some(*held) == *now).map(|((_, hash), _)| hash).collect();
    if !blocks.is_empty() {
        store::record_depth(&app.db, chain_id, turns, &blocks, head.number).await?;
    }
    Ok(Standing { blocks })
}

/// Slots whose nonce is used, or whose block is deep enough or gone. Whether any of them got further.
pub(super) async fn settle(look: &Look<'_>, lane: Lane, latest: u64, slots: &[OpenSlot]) -> Result<bool, TrackError> {
    if slots.is_empty() {
        return Ok(false);
    }
    let receipts = receipts(look.rpc, slots).await?;
    let receipt_of = |slot: &OpenSlot| slot.attempts.iter().find_map(|attempt| receipts.get(&attempt.tx_hash));
    let found: Vec<Found<'_>> =
        slots.iter().filter_map(|slot| Some(Found::of(slot, receipt_of(slot)?, look.head.number))).collect();
    let missing = || slots.iter().filter(|slot| receipt_of(slot).is_none());
    // What needs nobody's word comes first: an error below ends the look.
    for slot in missing().filter(|slot| slot.state == SlotState::Mined) {
        tracing::warn!(chain = %look.chain.spec().name, nonce = slot.nonce, "a mined transaction's block is gone: following it again");
        store::record_reorg(&look.app.db, slot).await?;
    }
    let by_receipts = settle_by_receipts(look, lane, &found).await;
    let used: Vec<&OpenSlot> = missing().filter(|slot| slot.state != SlotState::Mined && slot.nonce < latest).collect();
    let mut moved = false;
    if !used.is_empty() {
        let deep = deep_count(look, look.rpc, lane).await?;
        for slot in used.into_iter().filter(|slot| slot.nonce < deep) {
            moved |= maybe_taken_by_others(look, slot).await?;
        }
    }
    by_receipts.map(|news| news | moved)
}

/// Receipts of all attempts: any of them may have been mined.
async fn receipts(rpc: &Rpc, slots: &[OpenSlot]) -> Result<HashMap<B256, Receipt>, TrackError> {
    let hashes: Vec<B256> = slots.iter().flat_map(|slot| slot.attempts.iter().map(|attempt| attempt.tx_hash)).collect();
    let mut found = HashMap::new();
    for chunk in hashes.chunks(100) {
        for receipt in rpc.receipts(chunk).await?.into_iter().flatten() {
            found.insert(receipt.transaction_hash, receipt);
        }
    }
    Ok(found)
}

/// Every nonce below is used, and deep enough to be final.
async fn deep_count(look: &Look<'_>, rpc: &Rpc, lane: Lane) -> Result<u64, TrackError> {
    let depth = look.chain.spec().confirmations.saturating_sub(1);
    match look.head.number.checked_sub(depth) {
        Some(block) => Ok(rpc.nonce_at(lane.address, block).await?),
        None => Ok(0),
    }
}

/// A slot of which one of our transactions is in a block.
pub(super) struct Found<'a> {
    pub(super) slot: &'a OpenSlot,
    pub(super) receipt: &'a Receipt,
    pub(super) outcome: Outcome,
    /// Blocks on top, its own included.
    pub(super) confirmations: u64,
}

impl<'a> Found<'a> {
    fn of(slot: &'a OpenSlot, receipt: &'a Receipt, head: u64) -> Self {
        let hash = receipt.transaction_hash;
        let is_noop = slot.attempts.iter().any(|attempt| attempt.is_noop && attempt.tx_hash == hash);
        let outcome = match (is_noop, receipt.success) {
            (true, _) => Outcome::Cancelled,
            (false, true) => Outcome::Success,
            (false, false) => Outcome::Reverted,
        };
        Self { slot, receipt, outcome, confirmations: head.saturating_add(1).saturating_sub(receipt.block_number) }
    }

    /// What is recorded of it: transaction, block, confirmations.
    fn mined(&self) -> (B256, B256, u64) {
        (self.receipt.transaction_hash, self.receipt.block_hash, self.confirmations)
    }

    /// Whether the rows do not say so yet.
    fn is_news(&self) -> bool {
        self.slot.state != SlotState::Mined || self.slot.mined != Some(self.mined())
    }
}

/// Records what is in blocks, and makes final what is deep enough: all that is as it should be at once, the rest one by one. Whether any
/// of it was news.
async fn settle_by_receipts(look: &Look<'_>, lane: Lane, found: &[Found<'_>]) -> Result<bool, TrackError> {
    let Look { app, chain, .. } = look;
    let spec = chain.spec();
    let news: Vec<&Found<'_>> = found.iter().filter(|found| found.is_news()).collect();
    store::record_receipts(&app.db, lane, &news).await?;
    let (mut moved, mut plain, mut failed) = (!news.is_empty(), Vec::new(), None);
    for found in found.iter().filter(|found| found.confirmations >= spec.confirmations) {
        match settle_unless_plain(look, found).await {
            Ok(Settled::Plain) => plain.push(found),
            Ok(Settled::Done(settled)) => moved |= settled,
            // One's trouble holds up no other.
            Err(error) => failed = Some(error),
        }
    }
    let nonces = store::settle_plain(&app.db, lane, &plain).await?;
    for found in plain.iter().filter(|found| nonces.contains(&found.slot.nonce)) {
        tell_final(look, found.slot, found.outcome, Some(found.receipt));
        moved = true;
    }
    failed.map_or(Ok(moved), Err)
}

/// What came of a look at a slot whose receipt is deep enough.
enum Settled {
    /// It came out as it should: all such get final together.
    Plain,
    /// It was looked at by itself, and whether it is final now.
    Done(bool),
}

async fn settle_unless_plain(look: &Look<'_>, found: &Found<'_>) -> Result<Settled, TrackError> {
    let Look { app, chain, .. } = look;
    let Found { slot, receipt, outcome, .. } = found;
    if !is_agreed(look, *outcome, receipt).await? {
        return Ok(Settled::Done(false));
    }
    let aftermath = match outcome {
        Outcome::Success => aftermath::look(app, chain.spec(), slot, receipt).await?,
        _ => Aftermath::default(),
    };
    if aftermath.is_empty() && !outcome.releases_value() && slot.intent.is_some() {
        return Ok(Settled::Plain);
    }
    for rule in &aftermath.broken {
        tracing::warn!(chain = %chain.spec().name, tx_hash = %receipt.transaction_hash, "a mined transaction did what no rule allows: {rule}");
    }
    let mined = OpenSlot { state: SlotState::Mined, mined: Some(found.mined()), ..(*slot).clone() };
    let settled = store::settle(&app.db, &mined, *outcome, Event::Confirmed, &aftermath).await?;
    if settled {
        tell_final(look, slot, *outcome, Some(receipt));
    }
    Ok(Settled::Done(settled))
}

/// The end of a nonce: counted, and told with everything that is known of it: also which of its attempts was mined, counted from 1, the
/// intent's own being the first. What its pipeline took is known to the daemon that signed it; a replacement's pipeline was told by itself.
fn tell_final(look: &Look<'_>, slot: &OpenSlot, outcome: Outcome, receipt: Option<&Receipt>) {
    let spec = look.chain.spec();
    record::transaction_final(&spec.name, outcome.as_str());
    let intent = slot.intent.map_or_else(|| "none".to_owned(), |intent| intent.to_string());
    let told = slot.intent.and_then(story::recall);
    let told = told.as_ref();
    let mined = |hash| slot.attempts.iter().position(|attempt| attempt.tx_hash == hash).map(|index| index + 1);
    let attempt = receipt.and_then(|receipt| mined(receipt.transaction_hash));
    let fee_wei = receipt.and_then(|mined| mined.effective_gas_price?.checked_mul(mined.gas_used.into()));
    tracing::info!(intent, chain = %spec.name, address = %slot.lane.address, nonce = slot.nonce,
        tx_hash = receipt.map(|mined| tracing::field::display(mined.transaction_hash)),
        block = receipt.map(|mined| mined.block_number), fee_wei, attempt, attempts = slot.attempts.len(),
        signed_s_ago = slot.age_s as u64, simulation = told.map(|told| told.simulation),
        pipeline_ms = told.map(|told| told.total_ms), stages_ms = told.map(|told| &*told.stages_ms),
        "final: {}", outcome.as_str());
}

/// Where there are two nodes, both must say that a payment was not made. That it was is believed of one.
async fn is_agreed(look: &Look<'_>, outcome: Outcome, receipt: &Receipt) -> Result<bool, TrackError> {
    if outcome == Outcome::Success {
        return Ok(true);
    }
    let Some(second) = look.chain.second(look.rpc).await? else { return Ok(true) };
    let said = second.receipt(receipt.transaction_hash).await?;
    let same = said.is_some_and(|said| said.block_hash == receipt.block_hash && said.success == receipt.success);
    if !same {
        tracing::warn!(chain = %look.chain.spec().name, tx_hash = %receipt.transaction_hash,
            "two nodes do not agree on what became of a transaction: it is not final yet");
    }
    Ok(same)
}

/// The nonce is used at the depth of what is final, and no receipt of ours was found. It is taken as others' when no node knows any of
/// our transactions, and that has lasted for as many blocks as make anything final. Whether it was.
async fn maybe_taken_by_others(look: &Look<'_>, slot: &OpenSlot) -> Result<bool, TrackError> {
    let Look { app, chain, rpc, .. } = look;
    if knows_any(rpc, slot).await? || !is_long_missing(look, slot).await? || may_be_taken(look, slot).await? {
        return Ok(false);
    }
    if let Some(second) = chain.second(rpc).await? {
        let used = deep_count(look, second, slot.lane).await?;
        if slot.nonce >= used || knows_any(second, slot).await? {
            tracing::warn!(chain = %chain.spec().name, address = %slot.lane.address, nonce = slot.nonce,
                "two nodes do not agree on who used a nonce: it stays open");
            return Ok(false);
        }
    }
    if slot.intent.is_some() {
        tracing::warn!(chain = %chain.spec().name, address = %slot.lane.address, nonce = slot.nonce,
            "the nonce was used by a transaction that is not ours");
        // Before the slot is settled: nobody looks at one that is final, and a daemon may end at any time.
        frozen::freeze_if_exclusive(app, chain.spec(), slot).await?;
    }
    let settled = store::settle(&app.db, slot, Outcome::Foreign, Event::TakenByOthers, &Aftermath::default()).await?;
    if settled {
        tell_final(look, slot, Outcome::Foreign, None);
    }
    Ok(settled)
}

/// Whether the slot's own bytes, sent once more, are taken, or may be: then the nonce is not used, whatever is counted. Who believed a count
/// that was wrong would call a payment failed that can still be made.
async fn may_be_taken(look: &Look<'_>, slot: &OpenSlot) -> Result<bool, TrackError> {
    let Look { app, chain, .. } = look;
    let Some(attempt) = slot.sendable().filter(|_| slot.intent.is_some()) else { return Ok(false) };
    if !store::keep_turn(&app.db, slot.lane.chain_id, app.daemon_id, slot.lane.address, LEASE_S).await? {
        return Ok(true);
    }
    let sent = broadcast::send(app, chain, Outgoing::stored(attempt.tx_hash)).await;
    Ok(match sent {
        Sent::Taken => {
            broadcast::record(app, slot.lane, slot.nonce, &sent).await;
            store::forget_notice(&app.db, slot.lane, slot.nonce).await?;
            tracing::warn!(chain = %chain.spec().name, address = %slot.lane.address, nonce = slot.nonce,
                "a node counts the nonce as used, and takes our transaction for it: it stays open");
            true
        }
        // No answer says nothing, and one about fees or funds is not given for a nonce that is used.
        Sent::NotYet(_) | Sent::Unasked(_) => true,
        Sent::Refused(_) | Sent::Held(_) | Sent::Superseded => false,
    })
}

/// Whether the receipt of an intent's slot has been missing for as many blocks as make anything final here. Missing now, it is noted.
/// Foreign slots have no bytes of ours whose receipt could turn up.
async fn is_long_missing(look: &Look<'_>, slot: &OpenSlot) -> Result<bool, TrackError> {
    let head = look.head.number;
    match (slot.intent, slot.noticed_block) {
        (None, _) => Ok(true),
        (Some(_), Some(noticed)) => Ok(head >= noticed.saturating_add(look.chain.spec().confirmations)),
        (Some(_), None) => {
            store::notice(&look.app.db, slot, head).await?;
            Ok(false)
        }
    }
}

/// Whether the node knows one of our transactions for the slot. A receipt that is missing alone proves nothing: indexes lag, and behind
/// one URL there may be several nodes.
async fn knows_any(rpc: &Rpc, slot: &OpenSlot) -> Result<bool, TrackError> {
    for attempt in &slot.attempts {
        if rpc.transaction_known(attempt.tx_hash).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
