//! One look at some lanes of a chain: what is mined, how deep, what went away again, other people's nonces, and what still waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::OnceCell;

use super::super::error::IntentError;
use super::super::lanes::Lane;
use super::{LEASE_S, mined, store, waiting};
use crate::app::App;
use crate::chain::{Chain, ChainUnavailable, FeeQuote, Head, Rpc, RpcError};
use crate::db::DbError;

/// Lanes of one chain that a daemon works on at the same time.
const CONCURRENT: usize = 8;

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
    /// A further attempt was not signed.
    #[error(transparent)]
    Replace(#[from] IntentError),
}

impl From<sqlx::Error> for TrackError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// What a round knows of its chain.
pub(super) struct Look<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) chain: &'a Arc<Chain>,
    pub(super) rpc: &'a Rpc,
    pub(super) head: &'a Head,
    /// What the market asks; only read when a fee is in question.
    quote: OnceCell<FeeQuote>,
}

impl Look<'_> {
    pub(super) async fn quote(&self) -> Result<FeeQuote, RpcError> {
        let read = async || self.rpc.market().await.map(|market| market.quote);
        self.quote.get_or_try_init(read).await.copied()
    }
}

/// One lane's trouble (a key that is gone, an answer that is believed by nobody) holds up no other lane.
pub(super) async fn step(
    app: &Arc<App>,
    chain: &Arc<Chain>,
    turns: &[Address],
    head: &Head,
    taken_at: Instant,
) -> Result<(), TrackError> {
    let rpc = chain.rpc().await?;
    let look = Look { app, chain, rpc, head, quote: OnceCell::new() };
    let latest = counts(rpc, turns).await?;
    let standing = mined::standing_blocks(&look, turns).await?;
    let lanes = turns.iter().zip(latest);
    futures::stream::iter(lanes)
        .for_each_concurrent(CONCURRENT, |(address, latest)| {
            let lane = Lane { chain_id: chain.spec().chain_id, address: *address };
            let (look, standing) = (&look, &standing);
            async move {
                if let Err(error) = step_lane(look, lane, latest, standing, taken_at).await {
                    tracing::warn!(chain = %chain.spec().name, address = %lane.address, "this lane is tried again in the next round: {error}");
                }
            }
        })
        .await;
    Ok(())
}

/// Each lane's count of mined transactions, all in one or a few requests.
async fn counts(rpc: &Rpc, turns: &[Address]) -> Result<Vec<u64>, RpcError> {
    let calls: Vec<_> = turns.iter().map(|address| ("eth_getTransactionCount", json!([address, "latest"]))).collect();
    rpc.quantities(&calls).await
}

async fn step_lane(
    look: &Look<'_>,
    lane: Lane,
    latest: u64,
    standing: &mined::Standing,
    taken_at: Instant,
) -> Result<(), TrackError> {
    let Look { app, chain, .. } = look;
    let late = taken_at.elapsed() > Duration::from_secs(LEASE_S / 3);
    if late && !store::keep_turn(&app.db, lane.chain_id, app.daemon_id, lane.address, LEASE_S).await? {
        return Ok(());
    }
    let deep_below = look.head.number.saturating_add(2).saturating_sub(chain.spec().confirmations);
    let slots = store::slots_of(&app.db, lane, latest, deep_below, &standing.blocks).await?;
    // What cannot be settled (a second node is down, one has no old state) holds up nothing of what waits.
    let settled = mined::settle(look, lane, latest, &slots.to_settle).await;
    if matches!(settled, Ok(true)) && slots.to_settle.len() >= store::TO_SETTLE_MAX {
        // There is more than one look takes: another follows at once, after the other lanes'.
        app.tracker.look_again(lane);
    }
    waiting::tend(look, lane, latest, &slots).await?;
    settled.map(drop)
}
