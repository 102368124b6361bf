//! What is kept of saved simulations: in memory, the oldest go first when it is too much, all go after a day.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

/// How long a result is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// One result: its answer and its page.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) json: String,
    pub(super) page: String,
}

impl Saved {
    fn bytes(&self) -> usize {
        self.json.len() + self.page.len()
    }
}

/// The results.
#[derive(Debug)]
pub(super) struct Results {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<Uuid, Arc<Saved>>,
    /// Oldest first.
    order: VecDeque<(Instant, Uuid)>,
    bytes: usize,
}

impl Kept {
    fn drop_oldest(&mut self) {
        let Some((_, id)) = self.order.pop_front() else { return };
        if let Some(saved) = self.by_id.remove(&id) {
            self.bytes -= saved.bytes();
        }
    }

    fn drop_old(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > KEPT) {
            self.drop_oldest();
        }
    }
}

impl Results {
    /// Keeps at most this much.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    /// Keeps a result, unless it alone is too large.
    pub(super) fn save(&self, id: Uuid, saved: Saved, now: Instant) {
        let size = saved.bytes();
        if size > self.bytes_max {
            return;
        }
        let mut kept = self.kept.lock();
        kept.drop_old(now);
        while kept.bytes + size > self.bytes_max {
            kept.drop_oldest();
        }
        kept.bytes += size;
        kept.order.push_back((now, id));
        kept.by_id.insert(id, Arc::new(saved));
    }

    /// A result that is still kept.
    pub(super) fn get(&self, id: Uuid, now: Instant) -> Option<Arc<Saved>> {
        let mut kept = self.kept.lock();
        kept.drop_old(now);
        kept.by_id.get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_kept_a_day_and_never_more_of_them_than_there_is_room_for() {
        let results = Results::new(100);
        let start = Instant::now();
        let saved = |size: usize| Saved { json: "x".repeat(size), page: String::new() };
        let ids: Vec<Uuid> = (0..4).map(|_| Uuid::new_v4()).collect();
        results.save(ids[0], saved(60), start);
        results.save(ids[1], saved(40), start);
        assert!(results.get(ids[0], start).is_some() && results.get(ids[1], start).is_some());
        results.save(ids[2], saved(41), start + Duration::from_secs(60));
        assert!(results.get(ids[0], start).is_none() && results.get(ids[2], start).is_some());
        results.save(ids[3], saved(101), start);
        assert!(results.get(ids[3], start).is_none());
        let later = start + KEPT + Duration::from_secs(1);
        assert!(results.get(ids[1], later).is_none() && results.get(ids[2], later).is_some());
        assert!(results.get(ids[2], later + KEPT).is_none());
        assert_eq!(results.kept.lock().bytes, 0);
    }
}
