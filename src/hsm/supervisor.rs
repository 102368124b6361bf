//! The one owner of C_Initialize, C_Login and C_Finalize, on a thread of its own. It keeps the anchor session (closing the last one
//! would log everybody out), starts the workers, gives up those that hang, and recovers by HSM.md 2.7.
//!
//! Invariant: C_Finalize is called only when no worker is alive. C_Finalize during a call kills the process in every module tried.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as P11Error, RvError};
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use secrecy::SecretString;

use super::error::{Cause, HsmError, Level};
use super::seat;
use super::shared::{Command, Phase, Shared};
use super::token::{self, TokenName};
use super::worker::Worker;

/// How often hung workers are looked for.
const TICK: Duration = Duration::from_millis(20);
/// The longest pause between tries to bring a lost HSM back.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// See the module's documentation.
pub(super) struct Supervisor {
    pub shared: Arc<Shared>,
    pub commands: Receiver<Command>,
    pub module: Pkcs11,
    pub name: TokenName,
    pub pin: SecretString,
    /// Keeps the login alive.
    pub anchor: Option<Session>,
    pub workers: Vec<Option<Worker>>,
    /// Threads that were given up; the module may still be in them.
    pub abandoned: Vec<JoinHandle<()>>,
    /// Failed recoveries in a row.
    pub failures: u32,
    /// Successful calls at the end of the last initialisation: none since means that it did not help.
    pub successes_at_recovery: Option<u64>,
}

impl Supervisor {
    /// Until shutdown.
    pub(super) fn run(mut self) {
        self.respawn();
        loop {
            match self.commands.recv_timeout(TICK) {
                Ok(Command::Fault { worker, generation, epoch, level }) => self.fault(worker, generation, epoch, level),
                Ok(Command::Shutdown(reply)) => {
                    let result = self.shutdown();
                    let _ = reply.send(result);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.join_finished();
        let phase = self.shared.phase.borrow().clone();
        match phase {
            Phase::Ready => {
                self.abandon_hung();
                self.respawn();
                self.recycle();
            }
            Phase::Down(until, _) if Instant::now() >= until => self.recover(Level::Module),
            _ => {}
        }
    }

    /// Replaces every worker whose call does not return. Its queue, and with it the calls of other keys, goes to the successor.
    fn abandon_hung(&mut self) {
        let now_ms = self.shared.now_ms();
        for index in 0..self.workers.len() {
            let hung = |worker: &Worker| (1..=now_ms).contains(&worker.hung_at_ms.load(Relaxed));
            if !self.workers[index].as_ref().is_some_and(hung) {
                continue;
            }
            tracing::error!(worker = index, "a call into the HSM does not return; the worker is replaced");
            self.shared.queues[index].advance();
            self.shared.stats.abandoned.fetch_add(1, Relaxed);
            self.abandoned.extend(self.workers[index].take().map(|worker| worker.handle));
        }
        if self.abandoned.len() > self.workers.len() * 4 {
            self.hang();
        }
    }

    /// A worker has reported and stopped.
    fn fault(&mut self, worker: usize, generation: u64, epoch: u64, level: Level) {
        if self.shared.queues[worker].is_current(generation)
            && let Some(stopped) = self.workers[worker].take()
        {
            self.shared.queues[worker].advance();
            // It is on its way out, at most closing its session: a later join sees to it.
            self.abandoned.push(stopped.handle);
        }
        // A report from before the last recovery needs only its worker back.
        if matches!(*self.shared.phase.borrow(), Phase::Ready) && epoch == self.shared.epoch() {
            self.recover(level);
        }
    }

    /// SoftHSM leaks with every unwrap: start it afresh when it is time. Not while a call hangs: that would end in [`Self::hang`].
    fn recycle(&mut self) {
        let limit = self.shared.recycle_unwraps;
        if limit == 0 || self.shared.stats.unwraps_since_recycle() < limit || !self.abandoned.is_empty() {
            return;
        }
        tracing::info!("the HSM module is started afresh, as configured by recycle_unwraps");
        self.shared.phase.send_replace(Phase::Recovering);
        if self.stop_workers() {
            let outcome = self.reinitialize();
            self.come_back(Level::Module, outcome);
        } else {
            self.shared.phase.send_replace(Phase::Ready);
            self.respawn();
        }
    }

    fn recover(&mut self, level: Level) {
        // The last initialisation changed nothing: wait before the next, or a broken device would be initialised in a loop.
        let useless = level == Level::Module && self.successes_at_recovery == Some(self.shared.successes());
        self.shared.phase.send_replace(Phase::Recovering);
        let joined = self.stop_workers();
        let outcome = match level {
            Level::Module if !joined => return self.hang(),
            Level::Module if useless => Err(HsmError::Unavailable {
                retry_after_s: 1,
                cause: Cause::new("it failed again right after it was initialised"),
            }),
            Level::Module => self.reinitialize(),
            Level::Login | Level::Reopen => self.relogin().or_else(|error| match error {
                HsmError::Unavailable { .. } if joined => self.reinitialize(),
                error => Err(error),
            }),
        };
        self.come_back(level, outcome);
    }

    /// Workers again, in a new epoch, if the token still holds our keys.
    fn come_back(&mut self, level: Level, outcome: Result<Slot, HsmError>) {
        self.shared.stats.recoveries.fetch_add(1, Relaxed);
        match outcome.and_then(|slot| self.check_keks().map(|()| slot)) {
            Ok(slot) => {
                self.failures = 0;
                self.successes_at_recovery = (level == Level::Module).then(|| self.shared.successes());
                self.shared.advance_epoch(slot);
                self.shared.phase.send_replace(Phase::Ready);
                self.respawn();
                tracing::info!(?level, epoch = self.shared.epoch(), "the HSM is back");
            }
            Err(error) => self.stay_down(error),
        }
    }

    /// Goes red: everything that waits is refused; unless the error is final, another try follows.
    fn stay_down(&mut self, error: HsmError) {
        let cause = match &error {
            HsmError::Unavailable { cause, .. } | HsmError::Internal { cause } => cause.clone(),
            other => Cause::new(other.to_string()),
        };
        tracing::error!(%error, %cause, "the HSM could not be brought back");
        let phase = if matches!(error, HsmError::Fatal { .. }) {
            Phase::Fatal(error)
        } else {
            self.failures = self.failures.saturating_add(1);
            self.successes_at_recovery = None;
            let pause = Duration::from_millis(500).saturating_mul(1 << self.failures.min(8)).min(BACKOFF_MAX);
            Phase::Down(Instant::now() + pause, cause)
        };
        self.shared.phase.send_replace(phase);
        self.shared.refuse_queued();
    }

    /// A call is stuck in the module and finalising would crash: only a new process helps.
    fn hang(&mut self) {
        let what = "a call into the PKCS#11 library does not return; the process has to be started again";
        self.stay_down(HsmError::fatal(what));
    }

    /// Ends every worker and waits until all of them, also those given up earlier, are out of the module; `false` if some is not.
    fn stop_workers(&mut self) -> bool {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            self.shared.queues[index].advance();
            self.abandoned.extend(worker.take().map(|worker| worker.handle));
        }
        let deadline = Instant::now() + self.shared.call_deadline * 2;
        while !self.abandoned.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.join_finished();
        self.abandoned.is_empty()
    }

    /// Waits for the end of the threads that are out of the module. "Finished" is not the end: the library's own clean-up for a
    /// thread runs after it, and must not meet C_Finalize or the end of the process.
    fn join_finished(&mut self) {
        let (out, stuck): (Vec<_>, Vec<_>) = self.abandoned.drain(..).partition(JoinHandle::is_finished);
        for handle in out {
            let _ = handle.join();
        }
        self.abandoned = stuck;
    }

    /// A worker for every queue.
    fn respawn(&mut self) {
        for (index, place) in self.workers.iter_mut().enumerate() {
            if place.as_ref().is_some_and(|worker| !worker.handle.is_finished()) {
                continue;
            }
            let generation = self.shared.queues[index].advance();
            match Worker::spawn(self.shared.clone(), index, generation) {
                Ok(worker) => *place = Some(worker),
                Err(error) => tracing::error!(%error, "no thread for an HSM worker"),
            }
        }
    }

    fn relogin(&mut self) -> Result<Slot, HsmError> {
        let (slot, _) = token::find_slot(&self.module, &self.name).map_err(token::SlotError::in_recovery)?;
        self.anchor = None;
        self.attach(slot)
    }

    fn reinitialize(&mut self) -> Result<Slot, HsmError> {
        self.anchor = None;
        match self.module.clone().finalize() {
            Ok(()) | Err(P11Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => {}
            Err(error) => tracing::warn!(cause = %Cause::from(&error), "C_Finalize failed"),
        }
        match token::initialize(&self.module) {
            // Only after a failed C_Finalize; then it is still ours.
            Ok(()) | Err(P11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(token::unavailable(&error)),
        }
        let unwraps = self.shared.stats.unwraps.load(Relaxed);
        self.shared.stats.unwraps_recycled.store(unwraps, Relaxed);
        let (slot, _) = token::find_slot(&self.module, &self.name).map_err(token::SlotError::in_recovery)?;
        self.attach(slot)
    }

    /// The anchor session, and one login in it.
    fn attach(&mut self, slot: Slot) -> Result<Slot, HsmError> {
        let session = self.module.open_rw_session(slot).map_err(|error| token::unavailable(&error))?;
        self.shared.stats.logins.fetch_add(1, Relaxed);
        token::login(&session, &self.pin)?;
        self.anchor = Some(session);
        Ok(slot)
    }

    /// After a recovery the token must still hold the adopted keys. Not finding them never leads to making them.
    fn check_keks(&self) -> Result<(), HsmError> {
        let (Some(ring), Some(session)) = (self.shared.keyring(), &self.anchor) else { return Ok(()) };
        for kek in ring.iter().filter(|kek| kek.state.is_needed()) {
            seat::locate_kek(session, kek).map_err(super::error::Fault::into_error)?;
        }
        Ok(())
    }

    fn shutdown(&mut self) -> Result<(), HsmError> {
        self.shared.phase.send_replace(Phase::Stopped);
        let joined = self.stop_workers();
        self.shared.refuse_queued();
        if !joined {
            // The anchor stays open, too: the process is about to end, and the module is still in use.
            std::mem::forget(self.anchor.take());
            return Err(HsmError::fatal(
                "a call into the PKCS#11 library does not return; it is left without C_Finalize",
            ));
        }
        self.anchor = None;
        self.module.clone().finalize().map_err(|error| token::unavailable(&error))
    }
}
