//! What the callers, the workers and the supervisor share.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::slot::Slot;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::error::{Cause, Class, Fault, HsmError, Level};
use super::health::Stats;
use super::keks::Keyring;
use super::queue::Queue;
use super::seat::Open;

/// Where the HSM stands.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Workers run.
    Ready,
    /// Workers are stopped for a login or an initialisation; calls wait.
    Recovering,
    /// Recovery failed; the next try is at this instant. Calls are refused.
    Down(Instant, Cause),
    /// Not before an operator acts.
    Fatal(HsmError),
    /// Shut down.
    Stopped,
}

/// What the supervisor is told.
pub(super) enum Command {
    /// A worker has stopped and asks for a recovery.
    Fault { worker: usize, generation: u64, epoch: u64, level: Level },
    /// Join everything, finalise, answer.
    Shutdown(tokio::sync::oneshot::Sender<Result<(), HsmError>>),
}

/// One module, one token.
pub(super) struct Shared {
    pub queues: Vec<Queue>,
    pub stats: Arc<Stats>,
    pub phase: watch::Sender<Phase>,
    pub keyring: RwLock<Option<Arc<Keyring>>>,
    pub queue_depth: usize,
    pub cache_keys: usize,
    pub call_deadline: Duration,
    pub recycle_unwraps: u64,
    module: Pkcs11,
    slot: RwLock<Slot>,
    epoch: AtomicU64,
    started: Instant,
    commands: Mutex<mpsc::Sender<Command>>,
}

/// The sizes of a [`Shared`].
pub(super) struct Limits {
    pub workers: usize,
    pub queue_depth: usize,
    pub cache_keys: usize,
    pub call_deadline: Duration,
    pub recycle_unwraps: u64,
}

impl Shared {
    pub(super) fn new(limits: &Limits, module: Pkcs11, slot: Slot, commands: mpsc::Sender<Command>) -> Self {
        Self {
            queues: (0..limits.workers).map(|_| Queue::new(limits.queue_depth)).collect(),
            stats: Arc::default(),
            phase: watch::Sender::new(Phase::Ready),
            keyring: RwLock::default(),
            queue_depth: limits.queue_depth.max(1),
            cache_keys: limits.cache_keys,
            call_deadline: limits.call_deadline,
            recycle_unwraps: limits.recycle_unwraps,
            module,
            slot: RwLock::new(slot),
            epoch: AtomicU64::new(1),
            started: Instant::now(),
            commands: Mutex::new(commands),
        }
    }

    /// Milliseconds since the start, never 0.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The login epoch.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// A login or initialisation has succeeded, perhaps under another slot number: every older handle is dead.
    pub(super) fn advance_epoch(&self, slot: Slot) {
        *self.slot.write() = slot;
        self.epoch.fetch_add(1, Release);
    }

    /// Opens a session in this epoch.
    pub(super) fn open(&self, epoch: u64) -> Result<Open, Fault> {
        let slot = *self.slot.read();
        Open::new(&self.module, slot, epoch, self.cache_keys, self.stats.clone())
    }

    /// The adopted KEKs.
    pub(super) fn keyring(&self) -> Option<Arc<Keyring>> {
        self.keyring.read().clone()
    }

    /// Tells the supervisor; it may be gone.
    pub(super) fn send(&self, command: Command) {
        let _ = self.commands.lock().send(command);
    }

    /// A worker asks for a recovery and stops.
    pub(super) fn report(&self, worker: usize, generation: u64, epoch: u64, level: Level) {
        self.send(Command::Fault { worker, generation, epoch, level });
    }

    /// Whether calls are taken: the error to answer otherwise.
    pub(super) fn admit(&self) -> Result<(), HsmError> {
        match &*self.phase.borrow() {
            Phase::Ready | Phase::Recovering => Ok(()),
            Phase::Down(until, cause) => {
                let wait = until.saturating_duration_since(Instant::now()).as_secs() + 1;
                Err(HsmError::Unavailable { retry_after_s: wait.try_into().unwrap_or(u32::MAX), cause: cause.clone() })
            }
            Phase::Fatal(error) => Err(error.clone()),
            Phase::Stopped => Err(stopped()),
        }
    }

    /// Answers everything that waits, by the phase.
    pub(super) fn refuse_queued(&self) {
        let Err(error) = self.admit() else { return };
        for queue in &self.queues {
            for mut job in queue.drain() {
                job.work.refuse(error.clone());
            }
        }
    }

    /// Calls that wait, over all workers.
    pub(super) fn queued(&self) -> usize {
        self.queues.iter().map(Queue::len).sum()
    }

    /// Successful calls so far.
    pub(super) fn successes(&self) -> u64 {
        self.stats.successes.load(Relaxed)
    }
}

/// The error of every call after a shutdown.
pub(super) fn stopped() -> HsmError {
    Class::Gone.error(Cause::new("shut down"))
}
