//! Follows every slot to its end, from rows only: what a crash, a lost reply or a stopped node left behind is picked up here.
//!
//! One task per chain and daemon asks for the chain's head, at once when something was sent; when that is another block, or some seconds
//! have passed, lanes get their turn: a few at once, the longest unseen first, each by one daemon at a time. So what is asked of a node grows
//! with blocks and lanes, and not with transactions. Every step is guarded by the state it saw, and safe when two do it. A frozen node of
//! one chain holds up nothing of another.

mod aftermath;
mod mined;
mod step;
pub mod store;
mod waiting;

pub use step::TrackError;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::frozen;
use super::lanes::Lane;
use crate::app::App;
use crate::chain::{Chain, ChainId};
use crate::telemetry::record;

/// How long a daemon has a lane before another may take it. Renewed while it works.
const LEASE_S: u64 = 15;
/// How often all lanes are held against the chain, beside at the start.
const COMPARE_EVERY: Duration = Duration::from_secs(3_600);
/// Lanes that a daemon takes at once.
const LANES_AT_ONCE: i64 = 32;

/// Wakes the chains' tasks. A chain has an entry once it is followed or was sent on.
#[derive(Default)]
pub struct Nudges(Mutex<HashMap<ChainId, Arc<Nudge>>>);

#[derive(Default)]
struct Nudge {
    wake: Notify,
    /// Lanes that are looked at again whatever the head, at most one entry for each.
    lanes: Mutex<HashSet<Address>>,
}

impl Nudge {
    fn take(&self) -> Vec<Address> {
        std::mem::take(&mut *self.lanes.lock()).into_iter().collect()
    }
}

impl Nudges {
    fn of(&self, chain_id: ChainId) -> Arc<Nudge> {
        Arc::clone(self.0.lock().entry(chain_id).or_default())
    }

    /// Something was sent on this chain: its head is asked for soon. A head that its lane was looked at by is not looked at again: a block that
    /// holds the transaction came after the slot was committed, and is looked at for it, whatever the slot says by then of having been sent.
    /// Where a node shows the block before it has the receipt, the lane is looked at again by the next block, or when its bytes would be sent
    /// again: two looks at each block would cost all chains what few nodes need.
    pub fn sent_on(&self, chain_id: ChainId) {
        self.of(chain_id).wake.notify_one();
    }

    /// There is more to do on this lane than one look takes: another follows soon, at the same head too.
    fn look_again(&self, lane: Lane) {
        let nudge = self.of(lane.chain_id);
        nudge.lanes.lock().insert(lane.address);
        nudge.wake.notify_one();
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

/// What a daemon remembers of its last look at a chain. It saves work and decides nothing.
#[derive(Default)]
struct Last {
    head: Option<B256>,
    at: Option<Instant>,
}

async fn follow(app: Arc<App>, chain_id: ChainId) {
    let nudge = app.tracker.of(chain_id);
    let mut last = Last::default();
    let mut compared_at: Option<Instant> = None;
    loop {
        // As it is now: its node may have moved.
        let chain = app.chains.tracked(chain_id);
        if let Some(chain) = chain.as_ref().filter(|chain| chain.node_count() > 0)
            && compared_at.is_none_or(|at| at.elapsed() >= COMPARE_EVERY)
        {
            match frozen::compare(&app, chain).await {
                Ok(()) => compared_at = Some(Instant::now()),
                Err(error) => {
                    tracing::warn!(chain = %chain.spec().name, "the chain's counts could not be compared with our rows yet: {error}");
                }
            }
        }
        if let Some(chain) = &chain {
            let (name, began) = (&chain.spec().name, Instant::now());
            let done = round(&app, chain, &mut last, &nudge.take()).await;
            record::tracker_round(name, done.is_ok(), began.elapsed());
            if let Err(error) = done {
                last = Last::default();
                tracing::warn!(chain = %name, "the tracker could not finish a round, it goes on: {error}");
            }
        }
        let block_time_ms = chain.map_or(1_000, |chain| chain.spec().block_time_ms);
        let interval = match app.config.intents.tracker_interval_ms {
            0 => Duration::from_millis(block_time_ms.clamp(200, 15_000)),
            ms => Duration::from_millis(ms),
        };
        let nudged = nudge.wake.notified();
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
            // A nudge shortens the wait; many of them still make one round at a time, and not more than twenty a second.
            () = async { nudged.await; tokio::time::sleep(Duration::from_millis(50)).await } => {}
        }
    }
}

/// One look at a chain: at its head, and, when there is a reason, at its lanes.
async fn round(app: &Arc<App>, chain: &Arc<Chain>, last: &mut Last, nudged: &[Address]) -> Result<(), TrackError> {
    let chain_id = chain.spec().chain_id;
    if !store::has_open_slots(&app.db, chain_id).await? {
        return Ok(());
    }
    let head = chain.rpc().await?.head().await?;
    let due_s = app.config.intents.rebroadcast_s.max(1);
    let due = last.at.is_none_or(|at| at.elapsed() >= Duration::from_secs(due_s));
    if last.head == Some(head.hash) && nudged.is_empty() && !due {
        return Ok(());
    }
    *last = Last { head: Some(head.hash), at: Some(Instant::now()) };
    store::open_turns(&app.db, chain_id, nudged).await?;
    loop {
        let taken_at = Instant::now();
        let turns =
            store::take_turns(&app.db, chain_id, app.daemon_id, head.hash, (due_s, LEASE_S), LANES_AT_ONCE).await?;
        if turns.is_empty() {
            return Ok(());
        }
        let looked = step::step(app, chain, &turns, &head, taken_at).await;
        // A round that failed as a whole has looked at nothing.
        let seen = looked.is_ok().then_some(head.hash);
        store::end_turns(&app.db, chain_id, app.daemon_id, &turns, seen).await?;
        looked?;
        if app.stopping.is_cancelled() {
            return Ok(());
        }
    }
}

async fn sweep(app: Arc<App>) {
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
        if let Err(error) = super::store::age_all_windows(&app.db).await {
            tracing::warn!(error = %error, "spending windows were not aged");
        }
        match super::store::forget_expired_claims(&app.db).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "forgot idempotency keys past their 24 hours"),
            Err(error) => tracing::warn!(error = %error, "old idempotency keys were not forgotten"),
        }
    }
}
