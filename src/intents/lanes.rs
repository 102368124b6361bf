//! A queue per lane in front of the lane's row, so that this daemon's own requests wait here in order and not in Postgres, each
//! with a connection in its hand. It saves work and decides nothing: the row lock is the arbiter between daemons.
//!
//! Whoever simulates has the turn meanwhile. A simulator that hangs must not hang the lane with it: the others wait for it for
//! [`SIMULATION_PATIENCE`], and then pass it by, one after the other, or are told to come again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use tokio::sync::OwnedMutexGuard;

use crate::chain::ChainId;

/// For how long one simulation keeps the others of its lane waiting.
pub const SIMULATION_PATIENCE: Duration = Duration::from_secs(2);

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
    /// Since when whoever has the turn simulates.
    simulating: Arc<Mutex<Option<Instant>>>,
}

impl Queue {
    fn since(&self) -> Option<Instant> {
        *self.simulating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when somebody has simulated for too long.
    async fn hangs(&self) {
        loop {
            let left = match self.since() {
                Some(since) => SIMULATION_PATIENCE.saturating_sub(since.elapsed()),
                None => SIMULATION_PATIENCE,
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// The queues. A lane has an entry while somebody waits or works in it.
#[derive(Default)]
pub struct LaneQueues(Mutex<HashMap<Lane, Arc<Queue>>>);

/// A turn in a lane; dropping it lets the next one in.
pub struct Turn {
    /// Unless it is one of those who pass by.
    simulating: Option<Arc<Mutex<Option<Instant>>>>,
    _guard: OwnedMutexGuard<()>,
}

impl Turn {
    /// Begins or ends a simulation.
    pub fn simulates(&self, now: bool) {
        if let Some(simulating) = &self.simulating {
            *simulating.lock().unwrap_or_else(PoisonError::into_inner) = now.then(Instant::now);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.simulates(false);
    }
}

impl LaneQueues {
    fn of(&self, lane: Lane) -> Arc<Queue> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let guard = Arc::clone(&self.of(lane).beside).lock_owned().await;
        Turn { simulating: None, _guard: guard }
    }

    /// How many have, or wait for, a turn.
    #[must_use]
    pub fn turns(&self) -> usize {
        let queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        first.simulates(true);
        assert!(queues.turn_or_beside(lane).now_or_never().is_none(), "and who simulates");
        *queues.of(lane).simulating.lock().unwrap() = Instant::now().checked_sub(SIMULATION_PATIENCE);
        assert!(queues.turn(lane).await.is_none());
        let beside = queues.turn_or_beside(lane).await;
        assert!(queues.turn_or_beside(lane).now_or_never().is_none(), "one after the other");
        drop(beside);
        assert!(
            queues.turn_or_beside(lane).now_or_never().is_some_and(|turn| turn.simulating.is_none()),
            "it hangs still"
        );
        first.simulates(false);
        assert!(queues.turn(lane).now_or_never().is_none());
        drop(first);
        assert!(queues.turn(lane).await.is_some());
    }
}
