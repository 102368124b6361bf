//! Lanes that wait for a human, because the chain shows more of a key than our rows do: the key is used elsewhere, or the database is older
//! than the chain (a backup was restored). Nothing new is signed on them until somebody has looked.

use std::sync::Arc;

use alloy::primitives::Address;
use serde_json::json;
use sqlx::PgConnection;

use super::error::IntentError;
use super::lanes::Lane;
use super::store;
use super::tracker::TrackError;
use super::tracker::store::OpenSlot;
use crate::access::Principal;
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::chain::{Chain, ChainSpec, Rpc};
use crate::db::DbError;
use crate::ids::{KeyId, OrgId};
use crate::vaults::AGENT_KEYS;

/// Lanes whose counts are asked for in one request.
const PAGE: i64 = 50;

/// A key of the lane that nobody else should have: it was born in the HSM, or the operator says so of all.
pub(super) async fn exclusive_key(
    app: &App,
    conn: &mut PgConnection,
    lane: Lane,
) -> Result<Option<(KeyId, OrgId)>, sqlx::Error> {
    store::exclusive_key_of(conn, lane.address, app.config.intents.exclusive_keys, AGENT_KEYS).await
}

/// A transaction of ours has lost its nonce to somebody else, which is about to be final. Where nobody else should have the key, its lane waits.
pub(super) async fn freeze_if_exclusive(app: &App, spec: &ChainSpec, slot: &OpenSlot) -> Result<(), DbError> {
    let mut tx = store::begin_t1(&app.db).await?;
    let Some(key) = exclusive_key(app, &mut tx, slot.lane).await? else { return Ok(()) };
    let row = store::lock_lane(&mut tx, slot.lane).await?;
    if row.frozen_reason.is_some() {
        return Ok(());
    }
    let reason = format!(
        "nonce {} was used by a transaction that is not ours, and nobody else should have this key on {}",
        slot.nonce, spec.name
    );
    freeze(&mut tx, spec, slot.lane, row.next_nonce.unwrap_or_default(), &reason, key).await?;
    tx.commit().await?;
    Ok(())
}

/// With the lane locked.
async fn freeze(
    conn: &mut PgConnection,
    spec: &ChainSpec,
    lane: Lane,
    next: u64,
    reason: &str,
    (key, org_id): (KeyId, OrgId),
) -> Result<(), DbError> {
    store::freeze_lane(conn, lane, next, reason).await?;
    let event = Event::by_system(org_id, "lane.freeze", Resource::new("key", key))
        .with("chain", spec.name.as_str())
        .with("address", lane.address.to_string())
        .with("next_nonce", next)
        .with("reason", reason);
    audit::record(conn, event).await?;
    tracing::error!(chain = %spec.name, address = %lane.address, next_nonce = next,
        "a lane is frozen: {reason}. Find out on the chain what its last transactions are, then POST /v1/lanes/{}/{}/resume",
        spec.name, lane.address);
    Ok(())
}

/// Holds every lane of a chain against it, at the start and from time to time. Where the chain has mined nonces for which we have no row,
/// others have used the key, or this database is older than what was signed: a lane whose key nobody else should have waits for a human;
/// for others it is told, and such nonces are stepped over.
///
/// # Errors
/// [`TrackError`]; what was found until then is done.
pub async fn compare(app: &Arc<App>, chain: &Arc<Chain>) -> Result<(), TrackError> {
    let spec = chain.spec();
    let mut after: Option<Address> = None;
    loop {
        let page = store::addresses_after(&app.db, spec.chain_id, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(*last);
        let rpc = chain.rpc().await?;
        let calls: Vec<_> =
            page.iter().map(|address| ("eth_getTransactionCount", json!([address, "latest"]))).collect();
        let counts = rpc.quantities(&calls).await?;
        for (address, count) in page.iter().zip(counts) {
            let lane = Lane { chain_id: spec.chain_id, address: *address };
            // Our rows are read after the chain: what we have signed meanwhile is in them before any node has it.
            let ours = store::next_nonce(&mut *app.db.acquire().await.map_err(DbError::from)?, lane).await?;
            if ours.is_none_or(|ours| count <= ours) {
                continue;
            }
            ahead(app, spec, lane, said_by_two(chain, rpc, *address, count).await?).await?;
        }
    }
}

/// As much of a node's count of used nonces as a second node says too, where there is one.
///
/// # Errors
/// [`TrackError`]: there is a second one, and it cannot be asked.
pub(super) async fn said_by_two(chain: &Chain, rpc: &Rpc, address: Address, count: u64) -> Result<u64, TrackError> {
    match chain.second(rpc).await? {
        Some(second) => Ok(second.latest_nonce(address).await?.min(count)),
        None => Ok(count),
    }
}

/// The chain's count of a lane is above our next nonce, unless it has moved on meanwhile.
async fn ahead(app: &App, spec: &ChainSpec, lane: Lane, count: u64) -> Result<(), DbError> {
    let mut tx = store::begin_t1(&app.db).await?;
    let row = store::lock_lane(&mut tx, lane).await?;
    let Some(ours) = row.next_nonce.filter(|ours| *ours < count && row.frozen_reason.is_none()) else {
        return Ok(());
    };
    let reason = format!(
        "{} has mined {} nonces of this key, from {ours} on, of which this database knows nothing: a backup older than them was restored, or the key is used elsewhere",
        spec.name,
        count - ours
    );
    match exclusive_key(app, &mut tx, lane).await? {
        Some(key) => {
            freeze(&mut tx, spec, lane, ours, &reason, key).await?;
            tx.commit().await?;
        }
        None => tracing::warn!(chain = %spec.name, address = %lane.address, "{reason}. None of them is used again"),
    }
    Ok(())
}

/// Lets a frozen lane of the organisation go on: at `next`, or at what the chain has mined. Returns where.
///
/// # Errors
/// 404, 409 when it is not frozen, 422 for a nonce that is used or would leave a gap, or could not be checked.
pub async fn resume(
    app: &Arc<App>,
    principal: &Principal,
    chain: &Arc<Chain>,
    address: Address,
    next: Option<u64>,
) -> Result<u64, IntentError> {
    let spec = chain.spec();
    let lane = Lane { chain_id: spec.chain_id, address };
    let found = store::lane_of(&app.db, principal.org_id, lane).await?;
    let not_frozen = || IntentError::Conflict("this lane is not frozen: there is nothing to resume".to_owned());
    let (ours, is_frozen) = found.ok_or_else(|| IntentError::NotFound("no such lane".to_owned()))?;
    if !is_frozen {
        return Err(not_frozen());
    }
    let could_not = |error: &dyn std::fmt::Display| IntentError::could_not_check(error.to_string());
    let rpc = chain.rpc().await.map_err(|error| could_not(&error))?;
    let (latest, pending) =
        tokio::try_join!(rpc.latest_nonce(address), rpc.pending_nonce(address)).map_err(|error| could_not(&error))?;
    // Whoever goes on where only one node is has nonces left out before it.
    let latest = said_by_two(chain, rpc, address, latest).await.map_err(|error| could_not(&error))?;
    let (least, most) = (ours.max(latest), ours.max(latest).max(pending));
    let next = next.unwrap_or(least);
    if !(least..=most).contains(&next) {
        return Err(IntentError::Nonce {
            occupied: false,
            detail: format!(
                "next_nonce: must be from {least} to {most}: below, nonces are used; above, one would be left out"
            ),
        });
    }
    let mut tx = app.db.begin().await?;
    if !store::release_lane(&mut tx, lane, next).await? {
        return Err(not_frozen());
    }
    let event = Event::by(principal, "lane.resume", Resource::new("lane", format!("{}:{address}", lane.chain_id)))
        .with("chain", spec.name.as_str())
        .with("next_nonce", next);
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(next)
}
