//! One operating-system thread with one session. PKCS#11 calls block and cannot be interrupted, so they never run on the runtime.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::{Cause, Class, Fault, HsmError, Level};
use super::queue::Job;
use super::seat::Open;
use super::shared::Shared;
use crate::telemetry::record;

/// A running worker as its supervisor sees it.
pub(super) struct Worker {
    pub handle: JoinHandle<()>,
    /// When the call now in the module counts as hung, in milliseconds of [`Shared::now_ms`]; 0 while idle.
    pub hung_at_ms: Arc<AtomicU64>,
}

impl Worker {
    /// Starts a worker on queue `index` for `generation`.
    pub(super) fn spawn(shared: Arc<Shared>, index: usize, generation: u64) -> std::io::Result<Self> {
        let hung_at_ms = Arc::new(AtomicU64::new(0));
        let seat = Seat { shared, index, generation, hung_at_ms: hung_at_ms.clone(), open: None };
        let handle = std::thread::Builder::new().name(format!("hsm-{index}")).spawn(move || seat.run())?;
        Ok(Self { handle, hung_at_ms })
    }
}

struct Seat {
    shared: Arc<Shared>,
    index: usize,
    generation: u64,
    hung_at_ms: Arc<AtomicU64>,
    open: Option<Open>,
}

impl Seat {
    fn run(mut self) {
        while let Some(mut job) = self.shared.queues[self.index].take(self.generation) {
            if job.is_stale() {
                job.work.refuse(HsmError::Timeout);
                continue;
            }
            self.hung_at_ms.store(self.shared.now_ms() + millis(job.patience), Relaxed);
            let (operation, began) = (job.operation, Instant::now());
            if job.attempts == 0 {
                record::hsm_waited(operation, began - job.queued_at);
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| self.attempt(&mut job)));
            self.hung_at_ms.store(0, Relaxed);
            record::hsm_worked(operation, began.elapsed());
            // The payload of a panic may hold anything: it is not shown. The panic hook has printed where it was.
            let outcome = outcome.unwrap_or(Err(Fault::Strange(Class::Refusal, "a call panicked")));
            match outcome {
                Ok(()) => {
                    self.shared.stats.successes.fetch_add(1, Relaxed);
                }
                Err(fault) => {
                    if let Some(level) = self.failed(job, fault) {
                        self.shared.report(self.index, self.generation, self.epoch(), level);
                        break;
                    }
                }
            }
        }
        // Closing the session is a call into the module too.
        self.hung_at_ms.store(self.shared.now_ms() + millis(self.shared.call_deadline), Relaxed);
        self.open = None;
        self.hung_at_ms.store(0, Relaxed);
    }

    fn attempt(&mut self, job: &mut Job) -> Result<(), Fault> {
        let epoch = self.shared.epoch();
        if self.open.as_ref().is_none_or(|open| open.epoch != epoch) {
            self.open = None;
            self.open = Some(self.shared.open(epoch)?);
        }
        let Some(open) = self.open.as_mut() else { return Err(Fault::Strange(Class::Session, "no session")) };
        job.work.attempt(open)
    }

    fn epoch(&self) -> u64 {
        self.open.as_ref().map_or_else(|| self.shared.epoch(), |open| open.epoch)
    }

    /// Answers the caller or puts the job back; returns the recovery that needs everybody, for which this worker stops.
    fn failed(&mut self, mut job: Job, fault: Fault) -> Option<Level> {
        let Some(class) = fault.class() else {
            job.work.refuse(fault.into_error());
            return None;
        };
        let cause = match &fault {
            Fault::Module(error) => Cause::from(error),
            _ => Cause::new(format!("{fault:?}")),
        };
        let level = class.ladder(job.attempts);
        tracing::warn!(worker = self.index, attempt = job.attempts, ?class, ?level, %cause, "HSM call failed");
        let epoch = self.epoch();
        // After any error of the module: its session may hold an operation that was begun.
        self.open = None;
        let current = self.shared.queues[self.index].is_current(self.generation);
        match level {
            Some(level) if !job.is_stale() => {
                job.attempts += 1;
                self.shared.queues[self.index].push_front(job);
                // Somebody else's recovery may have come in between: then a new session is enough.
                (level > Level::Reopen && current && epoch == self.shared.epoch()).then_some(level)
            }
            Some(level) => {
                job.work.refuse(HsmError::Timeout);
                (level > Level::Reopen && current && epoch == self.shared.epoch()).then_some(level)
            }
            None => {
                job.work.refuse(fault.into_error());
                None
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX / 2)
}
