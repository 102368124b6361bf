//! Counters, and what `GET /v1/health/hsm` and the metrics show of them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::Hsm;
use super::canary;
use super::error::HsmError;
use super::keks::KekPurpose;
use super::queue::Queue;
use super::shared::Phase;

/// Counters of the workers together.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub cached: AtomicU64,
    pub cache_hits: AtomicU64,
    pub cache_misses: AtomicU64,
    pub unwraps: AtomicU64,
    /// `unwraps` when the module was last initialised.
    pub unwraps_recycled: AtomicU64,
    /// Calls that came back from the module with an answer.
    pub successes: AtomicU64,
    pub recoveries: AtomicU64,
    pub abandoned: AtomicU64,
    pub logins: AtomicU64,
}

impl Stats {
    /// Unwraps since the module was last initialised.
    pub(super) fn unwraps_since_recycle(&self) -> u64 {
        self.unwraps.load(Relaxed).saturating_sub(self.unwraps_recycled.load(Relaxed))
    }
}

/// Whether the HSM can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HsmStatus {
    /// A canary key signed end to end just now.
    Ok,
    /// It signs, but calls pile up or a worker hangs.
    Degraded,
    /// It does not sign.
    Unavailable,
}

/// The state of the HSM. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HsmHealth {
    /// By a signature made for this answer.
    pub status: HsmStatus,
    /// Always `pkcs11`.
    pub provider: &'static str,
    /// Whether the token answers.
    pub connected: bool,
    /// Why not, in words that are safe to show.
    pub detail: Option<String>,
    /// Logins and initialisations so far; handles do not outlive one.
    pub epoch: u64,
    /// Calls that wait, over all workers.
    pub queue_depth: usize,
    /// Calls that may wait, over all workers.
    pub queue_limit: usize,
    /// Worker threads.
    pub workers: usize,
    /// Workers given up because a call into the module did not return.
    pub workers_abandoned: u64,
    /// Signing keys with a live handle.
    pub cache_size: u64,
    /// Signatures that found one.
    pub cache_hits: u64,
    /// Signatures that had to unwrap or find the key first.
    pub cache_misses: u64,
    /// C_UnwrapKey calls so far.
    pub unwraps: u64,
    /// Recoveries so far (login or initialisation), recycling included.
    pub recoveries: u64,
    /// C_Login calls so far.
    pub logins: u64,
}

/// What the workers count, without asking the HSM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HsmCounts {
    /// Whether its workers run: not while it is recovered, when calls wait for what may never come.
    pub is_up: bool,
    /// As [`HsmHealth`]'s.
    pub queue_depth: usize,
    /// Calls that wait for the worker that has most of them: a key's calls go to one worker only.
    pub queue_deepest: usize,
    /// Calls that may wait for one worker.
    pub queue_limit: usize,
    /// As [`HsmHealth`]'s.
    pub workers_abandoned: u64,
    /// As [`HsmHealth`]'s.
    pub recoveries: u64,
    /// As [`HsmHealth::cache_size`].
    pub cached_keys: u64,
    /// As [`HsmHealth`]'s.
    pub cache_hits: u64,
    /// As [`HsmHealth`]'s.
    pub cache_misses: u64,
}

impl Hsm {
    /// The counts as they are.
    #[must_use]
    pub fn counts(&self) -> HsmCounts {
        let shared = &self.inner.shared;
        let stats = &shared.stats;
        HsmCounts {
            is_up: matches!(*shared.phase.borrow(), Phase::Ready),
            queue_depth: shared.queued(),
            queue_deepest: shared.queues.iter().map(Queue::len).max().unwrap_or_default(),
            queue_limit: shared.queue_depth,
            workers_abandoned: stats.abandoned.load(Relaxed),
            recoveries: stats.recoveries.load(Relaxed),
            cached_keys: stats.cached.load(Relaxed),
            cache_hits: stats.cache_hits.load(Relaxed),
            cache_misses: stats.cache_misses.load(Relaxed),
        }
    }

    /// Signs with a canary key from end to end (unwrap included) and says how it went.
    pub async fn health(&self) -> HsmHealth {
        let shared = &self.inner.shared;
        let outcome = self.try_canary().await;
        let stats = &shared.stats;
        let queue_depth = shared.queued();
        let queue_limit = shared.queues.len() * shared.queue_depth;
        let status = match &outcome {
            Err(HsmError::Busy { .. }) => HsmStatus::Degraded,
            Err(_) => HsmStatus::Unavailable,
            Ok(()) if queue_depth * 5 > queue_limit * 4 => HsmStatus::Degraded,
            Ok(()) => HsmStatus::Ok,
        };
        HsmHealth {
            status,
            provider: "pkcs11",
            connected: !matches!(status, HsmStatus::Unavailable),
            detail: outcome.err().map(|error| error.to_string()),
            epoch: shared.epoch(),
            queue_depth,
            queue_limit,
            workers: shared.queues.len(),
            workers_abandoned: stats.abandoned.load(Relaxed),
            cache_size: stats.cached.load(Relaxed),
            cache_hits: stats.cache_hits.load(Relaxed),
            cache_misses: stats.cache_misses.load(Relaxed),
            unwraps: stats.unwraps.load(Relaxed),
            recoveries: stats.recoveries.load(Relaxed),
            logins: stats.logins.load(Relaxed),
        }
    }

    async fn try_canary(&self) -> Result<(), HsmError> {
        let ring = self.ring()?;
        let needed = [KekPurpose::Mac, KekPurpose::Data, KekPurpose::Seal];
        self.call("health", self.any(), self.patience(), move |open| {
            for kek in needed.into_iter().filter_map(|purpose| ring.active(purpose)) {
                canary::check_canary(open, &ring, kek)?;
            }
            Ok(())
        })
        .await
    }
}
