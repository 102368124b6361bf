//! A queue per lane in front of the lane's row, so that this daemon's own requests wait here in order and not in Postgres, each
//! with a connection in its hand. It saves work and decides nothing: the row lock is the arbiter between daemons.
//!
//! Whoever simulates has the turn meanwhile. A simulator that hangs must not hang the lane with it: the others wait for it for
//! [`SIMULATION_PATIENCE`], and then pass it by, one after the other, or are told to come again. Whoever is passed by was simulated for
//! nothing, so after a simulation that was passed by and did answer, the next one is waited for as long as that one took and half as long
//! again. When that one hangs after all, what it has cost the others beyond their patience is taken off the following ones'.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::chain::ChainId;

/// For how long one simulation keeps the others of its lane waiting, unless one before it was passed by.
pub const SIMULATION_PATIENCE: Duration = Duration::from_secs(2);

/// For how long bytes wait for those of the nonce before them to be sent: as long as a node takes that answers. One that hangs holds up nobody.
const ORDER_PATIENCE: Duration = Duration::from_millis(200);

/// One address on one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The chain.
    pub chain_id: ChainId,
    /// The key's address.
    pub address: Address,
}

#[derive(Default)]
struct Queue {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The line of those who pass by.
    beside: Arc<tokio::sync::Mutex<()>>,
    simulating: Arc<Mutex<Simulating>>,
    /// Ends when the bytes that were committed last have been sent.
    sending: Mutex<Option<oneshot::Receiver<()>>>,
}

/// How a lane's simulations go. Pure: it is told what time it is.
#[derive(Default)]
struct Simulating {
    /// Since when whoever has the turn simulates, and for how long the others wait for it.
    now: Option<(Instant, Duration)>,
    /// Somebody has passed it by.
    passed: bool,
    /// For how long the next one is waited for, because one that answered was passed by.
    next: Option<Duration>,
    /// What simulations that hung have cost the others beyond their patience.
    owed: Duration,
}

impl Simulating {
    fn begin(&mut self, at: Instant) {
        let patience = self.next.take().unwrap_or_else(|| {
            let owed = self.owed.min(SIMULATION_PATIENCE);
            self.owed -= owed;
            SIMULATION_PATIENCE - owed
        });
        (self.now, self.passed) = (Some((at, patience)), false);
    }

    /// It has answered, or was given up.
    fn end(&mut self, at: Instant, answered: bool) {
        let Some((since, patience)) = self.now.take() else { return };
        let took = at.saturating_duration_since(since);
        if answered && self.passed {
            self.next = Some((took + took / 2).max(SIMULATION_PATIENCE));
        } else if !answered {
            self.owed += took.min(patience).saturating_sub(SIMULATION_PATIENCE);
        }
    }

    /// How much longer the others wait, if somebody simulates.
    fn left(&self, at: Instant) -> Option<Duration> {
        let (since, patience) = self.now?;
        Some(patience.saturating_sub(at.saturating_duration_since(since)))
    }
}

impl Queue {
    /// Returns when somebody has simulated for too long.
    async fn hangs(&self) {
        loop {
            let left = self.simulating.lock().left(Instant::now()).unwrap_or(SIMULATION_PATIENCE);
            if left.is_zero() {
                return;
            }
            // Whoever simulates next may be waited for less.
            tokio::time::sleep(left.min(SIMULATION_PATIENCE)).await;
        }
    }
}

/// A place among the bytes of a lane that are to be sent for the first time; dropping it lets the next ones out.
pub struct SendOrder {
    before: Option<oneshot::Receiver<()>>,
    _sent: oneshot::Sender<()>,
}

impl SendOrder {
    /// Waits for those before, for [`ORDER_PATIENCE`] at most. Nodes take nonces in any order, but some leave what comes too early for later,
    /// and forget it there.
    pub async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = tokio::time::timeout(ORDER_PATIENCE, before).await;
        }
    }
}

/// The queues. A lane has an entry while somebody waits or works in it.
#[derive(Default)]
pub struct LaneQueues(Mutex<HashMap<Lane, Arc<Queue>>>);

/// A turn in a lane; dropping it lets the next one in.
pub struct Turn {
    /// Unless it is one of those who pass by.
    simulating: Option<Arc<Mutex<Simulating>>>,
    _guard: OwnedMutexGuard<()>,
}

impl Turn {
    /// A simulation begins.
    pub fn simulates(&self) {
        if let Some(simulating) = &self.simulating {
            simulating.lock().begin(Instant::now());
        }
    }

    /// The simulator has answered.
    pub fn simulated(&self) {
        self.end(true);
    }

    fn end(&self, answered: bool) {
        if let Some(simulating) = &self.simulating {
            simulating.lock().end(Instant::now(), answered);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl LaneQueues {
    fn of(&self, lane: Lane) -> Arc<Queue> {
        let mut queues = self.0.lock();
        // Entries that nobody holds are dropped here: the map stays as small as the traffic.
        if queues.len() > 1024 {
            queues.retain(|_, queue| {
                Arc::strong_count(queue) > 1
                    || Arc::strong_count(&queue.turn) > 1
                    || Arc::strong_count(&queue.beside) > 1
            });
        }
        Arc::clone(queues.entry(lane).or_default())
    }

    /// Waits for a turn, first come first served. `None`: another's simulation hangs.
    pub async fn turn(&self, lane: Lane) -> Option<Turn> {
        let queue = self.of(lane);
        tokio::select! {
            biased;
            guard = Arc::clone(&queue.turn).lock_owned() => {
                Some(Turn { simulating: Some(Arc::clone(&queue.simulating)), _guard: guard })
            }
            () = queue.hangs() => None,
        }
    }

    /// Waits for a turn, or passes by whose simulation hangs, one after the other.
    pub async fn turn_or_beside(&self, lane: Lane) -> Turn {
        if let Some(turn) = self.turn(lane).await {
            return turn;
        }
        let queue = self.of(lane);
        let guard = Arc::clone(&queue.beside).lock_owned().await;
        queue.simulating.lock().passed = true;
        Turn { simulating: None, _guard: guard }
    }

    /// The place behind all that was committed for the lane, with its turn. In the order of nonces, but for those who pass by a simulation that
    /// hangs, who have a line of their own.
    #[must_use]
    pub fn next_to_send(&self, lane: Lane) -> SendOrder {
        let (sent, ends) = oneshot::channel();
        SendOrder { before: self.of(lane).sending.lock().replace(ends), _sent: sent }
    }

    /// How many have, or wait for, a turn.
    #[must_use]
    pub fn turns(&self) -> usize {
        let queues = self.0.lock();
        let others = |line: &Arc<_>| Arc::strong_count(line).saturating_sub(1);
        queues.values().map(|queue| others(&queue.turn) + others(&queue.beside)).sum()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_simulation_that_hangs_is_passed_by_and_one_that_does_not_is_waited_for() {
        let queues = LaneQueues::default();
        let lane = Lane { chain_id: ChainId(1), address: Address::ZERO };
        let first = queues.turn(lane).await.unwrap();
        assert!(queues.turn(lane).now_or_never().is_none(), "who signs is waited for");
        first.simulates();
        assert!(queues.turn_or_beside(lane).now_or_never().is_none(), "and who simulates");
        let long_ago = Instant::now().checked_sub(SIMULATION_PATIENCE).unwrap();
        queues.of(lane).simulating.lock().begin(long_ago);
        assert!(queues.turn(lane).await.is_none());
        let beside = queues.turn_or_beside(lane).await;
        assert!(queues.turn_or_beside(lane).now_or_never().is_none(), "one after the other");
        drop(beside);
        assert!(
            queues.turn_or_beside(lane).now_or_never().is_some_and(|turn| turn.simulating.is_none()),
            "it hangs still"
        );
        first.simulated();
        assert!(queues.turn(lane).now_or_never().is_none());
        drop(first);
        let next = queues.turn(lane).await.unwrap();
        next.simulates();
        let left = queues.of(lane).simulating.lock().left(Instant::now()).unwrap();
        assert!(left > SIMULATION_PATIENCE, "the one before answered for nothing: {left:?}");
    }

    #[test]
    fn a_slow_simulation_gets_through_and_one_that_hangs_costs_the_others_no_more_than_before() {
        let seconds = Duration::from_secs;
        let begun = Instant::now();
        let patience = |lane: &Simulating| lane.left(begun).unwrap();
        let mut lane = Simulating::default();
        let mut once = |passed: bool, took: u64, answered: bool| {
            lane.begin(begun);
            let waited = patience(&lane);
            lane.passed = passed;
            lane.end(begun + seconds(took), answered);
            waited
        };
        // Who is slow and passed by every time is waited for the second time; who is not passed by asks for nothing.
        assert_eq!(once(true, 4, true), seconds(2));
        assert_eq!(once(false, 5, true), seconds(6), "it gets through");
        assert_eq!(once(true, 4, true), seconds(2));
        // The simulator hangs: six seconds, and then none for two that follow, which is what three would have cost.
        assert_eq!(once(true, 10, false), seconds(6));
        assert_eq!([once(true, 10, false), once(true, 10, false)], [seconds(0); 2]);
        assert_eq!([once(true, 10, false), once(true, 10, false)], [seconds(2); 2], "hanging earns nothing");
        // What was given up before anybody lost patience owes nothing.
        assert_eq!(once(false, 1, false), seconds(2));
        assert_eq!(once(false, 1, true), seconds(2));
    }
}
