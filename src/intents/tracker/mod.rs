//! Follows every slot to its end, from rows only: what a crash, a lost reply or a stopped node left behind is picked up here.
//!
//! One task per chain; a lease lets one daemon do the work at a time, and every step is safe when two do it. A frozen node of one
//! chain holds up nothing of another.

mod aftermath;
mod step;
pub mod store;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::app::App;
use crate::chain::{Chain, ChainId};
use crate::telemetry::record;

/// How long a daemon follows a chain before another may.
const LEASE_S: u64 = 15;
/// Open slots that one round looks at, oldest nonces of every lane first.
const SLOTS_PER_ROUND: i64 = 2_000;

/// Wakes the chains' tasks. A chain has an entry once it is followed or was sent on.
#[derive(Default)]
pub struct Nudges(Mutex<HashMap<ChainId, Arc<Notify>>>);

impl Nudges {
    fn of(&self, chain_id: ChainId) -> Arc<Notify> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(chain_id).or_default())
    }

    /// Something was sent on this chain: look soon.
    pub fn nudge(&self, chain_id: ChainId) {
        self.of(chain_id).notify_one();
    }
}

/// Starts one task per chain, also for those that come later, and one that forgets old idempotency keys. They end when the daemon
/// stops.
pub fn start(app: &Arc<App>) {
    app.tasks.spawn(follow_all(Arc::clone(app)));
    app.tasks.spawn(sweep(Arc::clone(app)));
}

/// One task for every chain that there is or ever was: one that is disabled or withdrawn signs nothing new, and what was signed on it is
/// followed all the same.
async fn follow_all(app: Arc<App>) {
    let mut chains = app.chains.subscribe();
    let mut followed = HashSet::new();
    loop {
        let ids: Vec<ChainId> = chains.borrow_and_update().iter().map(|chain| chain.spec().chain_id).collect();
        for id in ids.into_iter().filter(|id| followed.insert(*id)) {
            app.tasks.spawn(keep_following(Arc::clone(&app), id));
        }
        tokio::select! {
            () = app.stopping.cancelled() => return,
            changed = chains.changed() => if changed.is_err() { return },
        }
    }
}

/// A round that panics is a bug; the chain is followed all the same.
async fn keep_following(app: Arc<App>, chain_id: ChainId) {
    while let Err(panicked) = tokio::spawn(follow(Arc::clone(&app), chain_id)).await {
        tracing::error!(chain = %chain_id, error = %panicked, "the tracker fell over and is started again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn follow(app: Arc<App>, chain_id: ChainId) {
    let nudges = app.tracker.of(chain_id);
    loop {
        // As it is now: its node may have moved.
        let chain = app.chains.tracked(chain_id);
        if let Some(chain) = &chain {
            let (name, began) = (&chain.spec().name, Instant::now());
            let done = round(&app, chain).await;
            record::tracker_round(name, done.is_ok(), began.elapsed());
            if let Err(error) = done {
                tracing::warn!(chain = %name, "the tracker could not finish a round, it goes on: {error}");
            }
        }
        let block_time_ms = chain.map_or(1_000, |chain| chain.spec().block_time_ms);
        let interval = match app.config.intents.tracker_interval_ms {
            0 => Duration::from_millis(block_time_ms.clamp(200, 15_000)),
            ms => Duration::from_millis(ms),
        };
        let nudged = nudges.notified();
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
