//! One round over a chain's open slots: receipts, depth, reorganisations, other people's nonces, and sending again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use alloy::primitives::{Address, B256, Bytes};

use super::super::broadcast::{self, Sent};
use super::super::lanes::Lane;
use super::super::state::{Event, Outcome, SlotState};
use super::aftermath::{self, Aftermath};
use super::store::{self, OpenSlot};
use crate::app::App;
use crate::audit;
use crate::chain::fees;
use crate::chain::{
    Ceilings, Chain, ChainUnavailable, FeeRequest, Fees, Head, Kind, Receipt, Rpc, RpcError, TxRequest, UnsignedTx,
};
use crate::db::DbError;
use crate::hsm::HsmError;
use crate::money::Wei;
use crate::telemetry::record;
use crate::vaults::keys;

/// Unmined slots of a lane that are sent again, lowest nonces first: a node keeps no more of a key in its queue for certain.
const RESEND_MAX: usize = 16;
/// One day, in seconds.
const DAY_S: f64 = 86_400.0;
/// A slot that its own request is about to send is left alone for this long, in seconds.
const GRACE_S: f64 = 3.0;

/// Why a round ended early. Everything is tried again in the next.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    /// No node of the right chain.
    #[error(transparent)]
    Chain(#[from] ChainUnavailable),
    /// The node did not answer.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The database did not answer.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The HSM did not sign a no-op.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The key of a no-op is gone.
    #[error("the key of a slot to be closed is not there")]
    KeyGone,
}

impl From<sqlx::Error> for TrackError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// What the chain says of a lane.
struct LaneView {
    /// Every nonce below is used.
    latest: u64,
    /// Every nonce below is used or in the node's pool.
    pending: u64,
    /// Every nonce below is used, and deep enough to be final.
    deep: u64,
}

/// One lane's trouble (a key that is gone, an answer that is believed by nobody) holds up no other lane.
pub(super) async fn step(app: &Arc<App>, chain: &Arc<Chain>, open: Vec<OpenSlot>) -> Result<(), TrackError> {
    let head = chain.rpc().await?.head().await?;
    let mut lanes: BTreeMap<Lane, Vec<OpenSlot>> = BTreeMap::new();
    for slot in open {
        lanes.entry(slot.lane).or_default().push(slot);
    }
    for (lane, slots) in lanes {
        // Asked again after a failure: with the node gone, the round ends here.
        let rpc = chain.rpc().await?;
        if let Err(error) = step_lane(app, chain, rpc, lane, slots, &head).await {
            tracing::warn!(chain = %chain.spec().name, address = %lane.address, "this lane is tried again in the next round: {error}");
        }
    }
    Ok(())
}

async fn step_lane(
    app: &Arc<App>,
    chain: &Arc<Chain>,
    rpc: &Rpc,
    lane: Lane,
    mut slots: Vec<OpenSlot>,
    head: &Head,
) -> Result<(), TrackError> {
    slots.sort_by_key(|slot| slot.nonce);
    let view = look(rpc, lane, head, chain.spec().confirmations).await?;
    let receipts = receipts(rpc, &slots, view.latest).await?;
    for slot in &slots {
        let receipt = slot.attempts.iter().find_map(|attempt| receipts.get(&attempt.tx_hash));
        settle_by_receipt(app, chain, rpc, slot, &view, head, receipt).await?;
    }
    let waiting: Vec<&OpenSlot> =
        slots.iter().filter(|slot| slot.nonce >= view.latest && slot.state != SlotState::Mined).collect();
    // Sending again needs no HSM, so it does not wait for one.
    send_again(app, chain, &waiting).await;
    close_abandoned(app, chain, rpc, &waiting, &view, head).await
}

async fn look(rpc: &Rpc, lane: Lane, head: &Head, confirmations: u64) -> Result<LaneView, TrackError> {
    let depth = confirmations.saturating_sub(1);
    let deep = async {
        match head.number.checked_sub(depth) {
            Some(block) => rpc.nonce_at(lane.address, block).await,
            None => Ok(0),
        }
    };
    let (latest, pending, deep) =
        tokio::try_join!(rpc.latest_nonce(lane.address), rpc.pending_nonce(lane.address), deep)?;
    Ok(LaneView { latest, pending, deep })
}

/// Receipts of all attempts whose nonce is used, and of what was mined before (it may be reorganised away).
async fn receipts(rpc: &Rpc, slots: &[OpenSlot], latest: u64) -> Result<HashMap<B256, Receipt>, TrackError> {
    let hashes: Vec<B256> = slots
        .iter()
        .filter(|slot| slot.nonce < latest || slot.state == SlotState::Mined)
        .flat_map(|slot| slot.attempts.iter().map(|attempt| attempt.tx_hash))
        .collect();
    let mut found = HashMap::new();
    for chunk in hashes.chunks(100) {
        for receipt in rpc.receipts(chunk).await?.into_iter().flatten() {
            found.insert(receipt.transaction_hash, receipt);
        }
    }
    Ok(found)
}

async fn settle_by_receipt(
    app: &Arc<App>,
    chain: &Arc<Chain>,
    rpc: &Rpc,
    slot: &OpenSlot,
    view: &LaneView,
    head: &Head,
    receipt: Option<&Receipt>,
) -> Result<(), TrackError> {
    let Some(receipt) = receipt else {
        if slot.state == SlotState::Mined {
            tracing::warn!(chain = %chain.spec().name, nonce = slot.nonce, "a mined transaction's block is gone: following it again");
            store::record_reorg(&app.db, slot).await?;
        } else if slot.nonce < view.deep
            && !knows_any(rpc, slot).await?
            && is_long_missing(app, chain, slot, head).await?
        {
            let settled =
                store::settle(&app.db, slot, Outcome::Foreign, Event::TakenByOthers, &Aftermath::default()).await?;
            if settled {
                record::transaction_final(&chain.spec().name, Outcome::Foreign.as_str());
            }
            if let Some(intent) = slot.intent.filter(|_| settled) {
                tracing::warn!(%intent, chain = %chain.spec().name, address = %slot.lane.address, nonce = slot.nonce,
                    "the nonce was used by a transaction that is not ours");
            }
        }
        return Ok(());
    };
    let is_noop = slot.attempts.iter().any(|attempt| attempt.is_noop && attempt.tx_hash == receipt.transaction_hash);
    let outcome = match (is_noop, receipt.success) {
        (true, _) => Outcome::Cancelled,
        (false, true) => Outcome::Success,
        (false, false) => Outcome::Reverted,
    };
    let confirmations = head.number.saturating_add(1).saturating_sub(receipt.block_number);
    let recorded = Some((receipt.transaction_hash, receipt.block_hash, confirmations));
    if slot.state != SlotState::Mined || slot.mined != recorded {
        store::record_receipt(&app.db, slot, outcome, receipt, confirmations).await?;
    }
    if confirmations >= chain.spec().confirmations {
        let mined = OpenSlot { state: SlotState::Mined, mined: recorded, ..slot.clone() };
        let aftermath = match outcome {
            Outcome::Success => aftermath::look(app, chain.spec(), slot, receipt).await?,
            _ => Aftermath::default(),
        };
        for rule in &aftermath.broken {
            tracing::warn!(chain = %chain.spec().name, tx_hash = %receipt.transaction_hash, "a mined transaction did what no rule allows: {rule}");
        }
        if store::settle(&app.db, &mined, outcome, Event::Confirmed, &aftermath).await? {
            record::transaction_final(&chain.spec().name, outcome.as_str());
            let intent = slot.intent.map_or_else(|| "none".to_owned(), |intent| intent.to_string());
            let fee_wei = receipt.effective_gas_price.and_then(|price| price.checked_mul(receipt.gas_used.into()));
            tracing::info!(intent, chain = %chain.spec().name, nonce = slot.nonce, tx_hash = %receipt.transaction_hash,
                block = receipt.block_number, fee_wei, attempts = slot.attempts.len(), age_s = slot.age_s as u64,
                "final: {}", outcome.as_str());
        }
    }
    Ok(())
}

/// Whether the receipt of an intent's slot has been missing for as many blocks as make anything final here. Missing now, it is noted.
/// Foreign slots have no bytes of ours whose receipt could turn up.
async fn is_long_missing(app: &Arc<App>, chain: &Chain, slot: &OpenSlot, head: &Head) -> Result<bool, TrackError> {
    match (slot.intent, slot.noticed_block) {
        (None, _) => Ok(true),
        (Some(_), Some(noticed)) => Ok(head.number >= noticed.saturating_add(chain.spec().confirmations)),
        (Some(_), None) => {
            store::notice(&app.db, slot, head.number).await?;
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

/// Closes with a no-op what nobody will mine: sign-only bytes past their time that later slots wait for, or that have been out for a
/// day (their spend would count for ever), and nonces that others left out.
async fn close_abandoned(
    app: &Arc<App>,
    chain: &Arc<Chain>,
    rpc: &Rpc,
    waiting: &[&OpenSlot],
    view: &LaneView,
    head: &Head,
) -> Result<(), TrackError> {
    let Some(last) = waiting.last() else { return Ok(()) };
    let spec = chain.spec();
    for slot in waiting {
        let has_noop = slot.attempts.iter().any(|attempt| attempt.is_noop);
        let abandoned = match slot.state {
            SlotState::Foreign => {
                let noticed = slot.noticed_block.unwrap_or(head.number);
                slot.nonce >= view.pending
                    && head.number.saturating_sub(noticed) >= app.config.intents.foreign_fill_blocks
            }
            _ => {
                let ttl_s = spec.sign_only_ttl_s as f64;
                let holds_up = slot.age_s >= ttl_s && last.nonce > slot.nonce;
                slot.sign_only && (holds_up || slot.age_s >= ttl_s.max(DAY_S))
            }
        };
        if abandoned && !has_noop {
            close(app, chain, rpc, slot).await?;
        }
    }
    Ok(())
}

/// Signs a zero-value self-transfer for the slot, commits it, and sends it. Only committed bytes are sent (I2).
async fn close(app: &Arc<App>, chain: &Arc<Chain>, rpc: &Rpc, slot: &OpenSlot) -> Result<(), TrackError> {
    let spec = chain.spec();
    let quote = rpc.fee_quote().await?;
    let ceilings = Ceilings { chain_wei: spec.max_fee_per_gas_ceiling_wei, agent_wei: None };
    let fresh = fees::choose(FeeRequest::default(), &quote, ceilings).ok();
    let current = match slot.intent {
        Some(intent) => super::super::store::fees_of(&app.db, intent).await?,
        None => None,
    };
    let Some(fresh) = fresh else {
        tracing::warn!(chain = %spec.name, nonce = slot.nonce, "a no-op would cost more than the chain's fee ceiling: waiting");
        return Ok(());
    };
    let fees: Fees = fees::noop_fees(current, fresh, spec.max_fee_per_gas_ceiling_wei);
    let tx = UnsignedTx {
        chain_id: spec.chain_id,
        from: slot.lane.address,
        to: slot.lane.address,
        value: Wei::ZERO,
        data: Bytes::new(),
        gas_limit: transfer_gas(chain, rpc, slot.lane.address).await?,
        fees,
    };
    let mut conn = app.db.begin().await?;
    super::super::store::begin_t1(&mut conn).await?;
    let Some(key_id) = slot.key_id else { return Err(TrackError::KeyGone) };
    let key = keys::get(&mut conn, key_id).await.ok().flatten().ok_or(TrackError::KeyGone)?;
    if key.address != slot.lane.address || !store::lock_for_noop(&mut conn, slot).await? {
        return Ok(());
    }
    let signature = app.hsm.sign(&key.context(), &key.key_ref, &key.public_key, tx.signing_digest(slot.nonce)).await?;
    let bytes = tx.encode(slot.nonce, &signature);
    store::insert_noop(&mut conn, slot, &bytes).await?;
    let event = audit::Event::by_system(key.org_id, "transaction.close", audit::Resource::new("key", key.id))
        .with("chain_id", spec.chain_id.0)
        .with("address", slot.lane.address.to_string())
        .with("nonce", slot.nonce)
        .with("max_fee_wei", tx.max_fee().map(|fee| fee.to_string()))
        .with("tx_hash", bytes.hash.to_string());
    audit::record(&mut conn, event).await?;
    conn.commit().await?;
    tracing::info!(chain = %spec.name, nonce = slot.nonce, tx_hash = %bytes.hash, "closing an abandoned nonce with a no-op");
    let sent = broadcast::send(chain, &bytes.raw).await;
    broadcast::record(app, slot.lane, slot.nonce, &sent).await;
    Ok(())
}

/// The gas of a transfer to oneself: 21000 by Ethereum's rules, and what the node says where data on a parent chain is paid in gas.
async fn transfer_gas(chain: &Chain, rpc: &Rpc, address: Address) -> Result<u64, TrackError> {
    match chain.spec().kind {
        Kind::Ethereum | Kind::Op => Ok(21_000),
        Kind::Arbitrum | Kind::Zksync => {
            let call = TxRequest { from: address, to: address, value: Wei::ZERO, data: Bytes::new(), gas_limit: None };
            let estimate = rpc.estimate_gas(&call).await?;
            Ok(estimate.saturating_add(estimate / 5))
        }
    }
}

/// Sends the stored bytes of the lowest unmined slots again: exactly those bytes, whatever became of the last time.
async fn send_again(app: &Arc<App>, chain: &Arc<Chain>, waiting: &[&OpenSlot]) {
    let due_s = app.config.intents.rebroadcast_s as f64;
    for slot in waiting.iter().take(RESEND_MAX) {
        let due = match slot.sent_s_ago {
            None => slot.age_s >= GRACE_S || slot.state == SlotState::Broadcast,
            Some(ago) => ago >= due_s,
        };
        // A no-op takes the place of bytes that we do not send, or no longer want mined.
        let attempt = slot.attempts.iter().rev().find(|attempt| attempt.is_noop || !slot.sign_only);
        if let (true, Some(attempt)) = (due, attempt) {
            let Ok(raw) = store::raw(&app.db, attempt.tx_hash).await else { return };
            let sent = broadcast::send(chain, &raw).await;
            if let Sent::NotYet(why) = &sent {
                tracing::debug!(chain = %chain.spec().name, nonce = slot.nonce, "{why}");
            }
            broadcast::record(app, slot.lane, slot.nonce, &sent).await;
        }
    }
}
