//! Follows every slot to its end, from rows only: what a crash, a lost reply or a stopped node left behind is picked up here.
//!
//! One task per chain; a lease lets one daemon do the work at a time, and every step is safe when two do it. A frozen node of one
//! chain holds up nothing of another.

mod aftermath;
mod step;
pub mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::app::App;
use crate::chain::{Chain, ChainId};

/// How long a daemon follows a chain before another may.
const LEASE_S: u64 = 15;
/// Open slots that one round looks at, oldest nonces of every lane first.
const SLOTS_PER_ROUND: i64 = 2_000;

/// Wakes the chains' tasks.
pub struct Nudges(HashMap<ChainId, Notify>);

impl Nudges {
    /// One per chain.
    #[must_use]
    pub fn new(chains: impl Iterator<Item = ChainId>) -> Self {
        Self(chains.map(|id| (id, Notify::new())).collect())
    }

    /// Something was sent on this chain: look soon.
    pub fn nudge(&self, chain_id: ChainId) {
        if let Some(notify) = self.0.get(&chain_id) {
            notify.notify_one();
        }
    }
}

/// Starts one task per chain, and one that forgets old idempotency keys. They end when the daemon stops.
pub fn start(app: &Arc<App>) {
    for chain in app.chains.iter() {
        let (app, chain) = (Arc::clone(app), Arc::clone(chain));
        let tasks = app.tasks.clone();
        tasks.spawn(async move {
            // A round that panics is a bug; the chain is followed all the same.
            while let Err(panicked) = tokio::spawn(follow(Arc::clone(&app), Arc::clone(&chain))).await {
                tracing::error!(chain = %chain.spec().name, error = %panicked, "the tracker fell over and is started again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    app.tasks.spawn(sweep(Arc::clone(app)));
}

async fn follow(app: Arc<App>, chain: Arc<Chain>) {
    let spec = chain.spec();
    let interval = match app.config.intents.tracker_interval_ms {
        0 => Duration::from_millis(spec.block_time_ms.clamp(200, 15_000)),
        ms => Duration::from_millis(ms),
    };
    loop {
        if let Err(error) = round(&app, &chain).await {
            tracing::warn!(chain = %spec.name, "the tracker could not finish a round, it goes on: {error}");
        }
        let nudged = async {
            match app.tracker.0.get(&spec.chain_id) {
                Some(notify) => notify.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
            // A nudge shortens the wait; many of them still make one round at a time, and not more than twenty a second.
            () = async { nudged.await; tokio::time::sleep(Duration::from_millis(50)).await } => {}
        }
    }
}

/// One look at a chain's open slots.
async fn round(app: &Arc<App>, chain: &Arc<Chain>) -> Result<(), step::TrackError> {
    let chain_id = chain.spec().chain_id;
    if !store::has_open_slots(&app.db, chain_id).await? {
        return Ok(());
    }
    if !store::take_lease(&app.db, chain_id, app.daemon_id, LEASE_S).await? {
        return Ok(());
    }
    let open = store::open_slots(&app.db, chain_id, SLOTS_PER_ROUND).await?;
    step::step(app, chain, open).await
}

async fn sweep(app: Arc<App>) {
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
        if let Err(error) = super::store::age_idle_windows(&app.db).await {
            tracing::warn!(error = %error, "spending windows were not aged");
        }
        match super::store::forget_expired_claims(&app.db).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "forgot idempotency keys past their 24 hours"),
            Err(error) => tracing::warn!(error = %error, "old idempotency keys were not forgotten"),
        }
    }
}
