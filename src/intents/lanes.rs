//! A queue per lane in front of the lane's row, so that this daemon's own requests wait here in order and not in Postgres, each
//! with a connection in its hand. It saves work and decides nothing: the row lock is the arbiter between daemons.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use alloy::primitives::Address;
use tokio::sync::OwnedMutexGuard;

use crate::chain::ChainId;

/// One address on one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The chain.
    pub chain_id: ChainId,
    /// The key's address.
    pub address: Address,
}

/// The queues. A lane has an entry while somebody waits or works in it.
#[derive(Default)]
pub struct LaneQueues(Mutex<HashMap<Lane, Arc<tokio::sync::Mutex<()>>>>);

/// A turn in a lane; dropping it lets the next one in.
pub struct Turn {
    _guard: OwnedMutexGuard<()>,
}

impl LaneQueues {
    /// Waits for a turn, first come first served.
    pub async fn turn(&self, lane: Lane) -> Turn {
        let queue = {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Entries that nobody holds are dropped here: the map stays as small as the traffic.
            if queues.len() > 1024 {
                queues.retain(|_, queue| Arc::strong_count(queue) > 1);
            }
            Arc::clone(queues.entry(lane).or_default())
        };
        Turn { _guard: queue.lock_owned().await }
    }

    /// How many have, or wait for, a turn.
    #[must_use]
    pub fn turns(&self) -> usize {
        let queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.values().map(|queue| Arc::strong_count(queue).saturating_sub(1)).sum()
    }
}
