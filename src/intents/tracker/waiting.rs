//! What is not mined yet: sending again, closing what nobody will mine, and raising fees that the market has left behind.

use super::super::broadcast::{self, Outgoing, Sent};
use super::super::lanes::Lane;
use super::super::replace::{self, Reason};
use super::super::state::SlotState;
use super::LEASE_S;
use super::step::{Look, TrackError};
use super::store::{LaneSlots, OpenSlot, forget_notice, has_left_out, keep_turn, open_missing, reopen_foreign};
use crate::chain::{Chain, fees};

/// Unmined slots of a lane that are sent again, lowest nonces first: a node keeps no more of a key in its queue for certain.
const RESEND_MAX: usize = 16;
/// How often a slot's fee is raised at most before one is that no node counts: where none ever counts what is pending, as private relays do
/// not, it is of no use.
const UNCOUNTED_BUMPS_MAX: usize = 2;
/// One day, in seconds.
const DAY_S: f64 = 86_400.0;
/// A slot that its own request is about to send is left alone for this long, in seconds.
const GRACE_S: f64 = 3.0;

/// Looks after a lane's unmined slots.
pub(super) async fn tend(look: &Look<'_>, lane: Lane, latest: u64, slots: &LaneSlots) -> Result<(), TrackError> {
    // Sending again needs no HSM and no second node, so it waits for neither.
    let believed = disbelieve(look, lane, latest, &slots.waiting).await;
    send_again(look, lane, &slots.waiting).await?;
    if let Some(head) = slots.waiting.first().filter(|head| head.nonce == latest) {
        bump(look, head).await?;
    }
    let has_foreign = slots.waiting.iter().any(|slot| slot.state == SlotState::Foreign);
    let pending = if has_foreign { look.rpc.pending_nonce(lane.address).await? } else { latest };
    close_abandoned(look, slots, pending).await;
    believed
}

/// Takes back what a node said of used nonces, once the chain says otherwise: a lie, or a block that is gone, must not leave a nonce that
/// nothing will ever use before all others of the lane. Not because of a node that is behind: the count is that of the newest block, and a
/// second node's is no higher. Wrongly taken back, it is seen used again at a later look.
async fn disbelieve(look: &Look<'_>, lane: Lane, latest: u64, waiting: &[OpenSlot]) -> Result<(), TrackError> {
    let Look { app, chain, head, .. } = look;
    let doubted = waiting.iter().any(OpenSlot::is_doubted);
    let left_out = match waiting.first().filter(|first| first.nonce > latest) {
        Some(first) if has_left_out(&app.db, lane, (latest, first.nonce)).await? => Some(first),
        _ => None,
    };
    if !doubted && left_out.is_none() || look.rpc.nonce_at(lane.address, head.number).await? > latest {
        return Ok(());
    }
    if let Some(second) = chain.second(look.rpc).await?
        && second.latest_nonce(lane.address).await? > latest
    {
        return Ok(());
    }
    if doubted {
        forget_notice(&app.db, lane, latest).await?;
    }
    let Some(first) = left_out else { return Ok(()) };
    let intents = &app.config.intents;
    let mut opened = reopen_foreign(&app.db, lane, (latest, first.nonce), head.number).await?;
    // A node that says too little for a moment makes no rows.
    if first.age_s >= intents.rebroadcast_s as f64 {
        let range = (latest, first.nonce);
        opened += open_missing(&app.db, lane, range, first.key_id, head.number, intents.nonce_gap_max).await?;
    }
    if opened > 0 {
        tracing::warn!(chain = %chain.spec().name, address = %lane.address, latest, opened,
            "nonces that a node had called used by others are not used: they are open again");
        app.tracker.look_again(lane);
    }
    Ok(())
}

/// Closes with a no-op what nobody will mine: sign-only bytes past their time that later slots wait for, or that have been out for a
/// day (their spend would count for ever), and nonces that others left out.
async fn close_abandoned(look: &Look<'_>, slots: &LaneSlots, pending: u64) {
    let Look { app, chain, head, .. } = look;
    let spec = chain.spec();
    for slot in &slots.waiting {
        let has_noop = slot.attempts.iter().any(|attempt| attempt.is_noop);
        let abandoned = match slot.state {
            SlotState::Foreign => {
                let noticed = slot.noticed_block.unwrap_or(head.number);
                // What a pool has for a nonce of ours may be the payment that was called failed.
                let is_free = slot.intent.is_some() || slot.nonce >= pending;
                is_free && head.number.saturating_sub(noticed) >= app.config.intents.foreign_fill_blocks
            }
            _ => {
                let ttl_s = spec.sign_only_ttl_s as f64;
                let holds_up = slot.age_s >= ttl_s && slots.last_nonce > slot.nonce;
                slot.sign_only && (holds_up || slot.age_s >= ttl_s.max(DAY_S))
            }
        };
        if abandoned
            && !has_noop
            && let Err(error) = replace::by_daemon(app, chain, slot.lane, slot.nonce, Reason::Close).await
        {
            tracing::warn!(chain = %spec.name, nonce = slot.nonce, "an abandoned nonce could not be closed yet: {error}");
            // Those after it wait for it anyway, and each attempt may take its time.
            return;
        }
    }
}

/// Raises the fee of a lane's first unmined slot, when it has waited long and the market asks for more than it pays, or a node that has its
/// bytes does not count them: within the ceilings and the agent's own rules, and not more often than the chain's table says.
async fn bump(look: &Look<'_>, slot: &OpenSlot) -> Result<(), TrackError> {
    let Look { app, chain, .. } = look;
    let spec = chain.spec();
    let Some(latest) = slot.sendable() else { return Ok(()) };
    let Some(fees) = latest.fees.filter(|_| spec.bump_after_s > 0 && !slot.bump_is_put_off) else { return Ok(()) };
    // A no-op has its own: however often the payment was raised, it gets through.
    let bumps = slot.attempts.iter().filter(|attempt| attempt.is_bump && attempt.is_noop == latest.is_noop).count();
    if latest.age_s < spec.bump_after_s as f64 || bumps >= spec.bump_max {
        return Ok(());
    }
    if !fees::is_below_market(fees, &look.quote().await?) {
        if !slot.is_taken || bumps >= UNCOUNTED_BUMPS_MAX || is_counted(chain, slot).await {
            return Ok(());
        }
        tracing::warn!(chain = %spec.name, address = %slot.lane.address, nonce = slot.nonce,
            "a node has these bytes and does not count them: its price is raised, which is the only way to send it others");
    }
    if let Err(error) = replace::by_daemon(app, chain, slot.lane, slot.nonce, Reason::Bump).await {
        tracing::warn!(chain = %spec.name, address = %slot.lane.address, nonce = slot.nonce,
            "a stuck transaction's fee was not raised: {error}");
        replace::store::put_off_bump(&app.db, slot.lane, slot.nonce, spec.bump_after_s).await?;
    }
    Ok(())
}

/// Whether any node counts the slot's bytes among those to be mined, or does not say. A node that says "already known" of bytes that it would
/// not mine next has them where nothing gets them out but other bytes for the nonce.
async fn is_counted(chain: &Chain, slot: &OpenSlot) -> bool {
    for node in chain.to_send_to() {
        match node.pending_nonce(slot.lane.address).await {
            Ok(pending) if pending <= slot.nonce => {}
            _ => return true,
        }
    }
    false
}

/// Sends the stored bytes of the lowest unmined slots again: exactly those bytes, whatever became of the last time. What no node is known
/// to have and something holds stays.
async fn send_again(look: &Look<'_>, lane: Lane, waiting: &[OpenSlot]) -> Result<(), TrackError> {
    let Look { app, chain, .. } = look;
    let due_s = app.config.intents.rebroadcast_s as f64;
    let due = |slot: &&OpenSlot| match slot.sent_s_ago {
        None => slot.age_s >= GRACE_S || slot.state == SlotState::Broadcast,
        Some(ago) => ago >= due_s,
    };
    let due: Vec<_> = waiting.iter().take(RESEND_MAX).filter(due).collect();
    // A committed write behind what was read: a server whose wait for a standby was ended shows rows that no standby has.
    if due.is_empty() || !keep_turn(&app.db, lane.chain_id, app.daemon_id, lane.address, LEASE_S).await? {
        return Ok(());
    }
    for slot in due {
        if let Some(attempt) = slot.sendable() {
            let sent = broadcast::send(app, chain, Outgoing::stored(attempt.tx_hash)).await;
            if let Sent::Refused(why) | Sent::NotYet(why) | Sent::Held(why) = &sent {
                tracing::debug!(chain = %chain.spec().name, nonce = slot.nonce, "{why}");
            }
            broadcast::record(app, slot.lane, slot.nonce, &sent).await;
            if matches!(sent, Sent::Unasked(_)) {
                return Ok(());
            }
        }
    }
    Ok(())
}
