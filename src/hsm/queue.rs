//! The bounded queue in front of each worker. It outlives the worker: when one is abandoned or stopped for a recovery, its
//! successor goes on with the same queue.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::error::{Fault, HsmError};
use super::seat::Open;

/// A call on its way to a worker.
pub(super) struct Job {
    /// What it is counted as.
    pub operation: &'static str,
    /// Since when it waits.
    pub queued_at: Instant,
    /// When its caller gives up.
    pub deadline: Instant,
    /// How long a worker may take over it before it counts as hung.
    pub patience: Duration,
    /// Attempts that failed.
    pub attempts: u8,
    /// The call itself.
    pub work: Box<dyn Work>,
}

impl Job {
    /// Whether nobody waits for it any more.
    pub(super) fn is_stale(&self) -> bool {
        Instant::now() >= self.deadline || self.work.is_abandoned()
    }
}

/// A call: may be attempted again after a recovery, so an attempt must have no effect that a second one would double.
pub(super) trait Work: Send {
    /// Runs it; on success the caller is answered.
    fn attempt(&mut self, open: &mut Open) -> Result<(), Fault>;
    /// Answers the caller with an error.
    fn refuse(&mut self, error: HsmError);
    /// Whether the caller has gone.
    fn is_abandoned(&self) -> bool;
}

/// A closure and the place where its caller waits.
pub(super) struct Call<F, T> {
    /// What to do with an open session.
    pub run: F,
    /// Taken when answered.
    pub reply: Option<oneshot::Sender<Result<T, HsmError>>>,
}

impl<F, T> Work for Call<F, T>
where
    F: FnMut(&mut Open) -> Result<T, Fault> + Send,
    T: Send,
{
    fn attempt(&mut self, open: &mut Open) -> Result<(), Fault> {
        let value = (self.run)(open)?;
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Ok(value));
        }
        Ok(())
    }

    fn refuse(&mut self, error: HsmError) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(error));
        }
    }

    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// A bounded queue with generations: only the worker of the current generation is served.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    depth: usize,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    generation: u64,
}

impl Queue {
    pub(super) fn new(depth: usize) -> Self {
        Self { inner: Mutex::default(), wake: Condvar::new(), depth: depth.max(1) }
    }

    /// Appends; `false` when full.
    pub(super) fn push(&self, job: Job) -> bool {
        let mut inner = self.inner.lock();
        let fits = inner.jobs.len() < self.depth;
        if fits {
            inner.jobs.push_back(job);
            self.wake.notify_one();
        }
        fits
    }

    /// Puts a job back that is to be attempted again; it keeps its turn.
    pub(super) fn push_front(&self, job: Job) {
        self.inner.lock().jobs.push_front(job);
        self.wake.notify_one();
    }

    /// Waits for a job; `None` once `generation` is over.
    pub(super) fn take(&self, generation: u64) -> Option<Job> {
        let mut inner = self.inner.lock();
        loop {
            if inner.generation != generation {
                return None;
            }
            if let Some(job) = inner.jobs.pop_front() {
                return Some(job);
            }
            self.wake.wait(&mut inner);
        }
    }

    /// Ends the current generation: its worker leaves as soon as it is back from the module. Returns the new one.
    pub(super) fn advance(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.generation += 1;
        self.wake.notify_all();
        inner.generation
    }

    /// Whether `generation` is still served.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.inner.lock().generation == generation
    }

    /// Empties the queue.
    pub(super) fn drain(&self) -> VecDeque<Job> {
        std::mem::take(&mut self.inner.lock().jobs)
    }

    /// Calls that wait.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().jobs.len()
    }
}
