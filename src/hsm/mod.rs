//! The HSM: signing keys that never leave it in the clear, and the sealing of everything else that is secret.
//!
//! [`Hsm`] is the face: async fronts over worker threads with one PKCS#11 session each. Everything below it is reached from here:
//! `supervisor` owns initialise, login, finalise and recovery; `worker`, `queue` and `seat` are the threads; `custody` keeps signing
//! keys (wrapped in the database, or on the token); `envelope` seals secrets; `keks` and `templates` say what lives on the token;
//! `probe` refuses a module that cannot do it; `signature` is the arithmetic. Only files of this folder know `cryptoki`.
//!
//! Invariants: no software signer; no signature leaves that does not recover to the expected key; no blob is unwrapped before its
//! MAC was checked; "not found" never leads to making a key; a refused PIN is not tried twice.

pub mod admin;
pub mod bench;
mod binding;
mod canary;
mod config;
mod custody;
mod envelope;
mod error;
mod health;
mod keks;
mod probe;
mod queue;
mod rotation;
mod seat;
mod shared;
pub mod signature;
pub mod softhsm;
mod start;
pub mod store;
mod supervisor;
mod templates;
mod token;
mod types;
mod vendor;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, oneshot};
use zeroize::Zeroizing;

pub use config::{HsmConfig, PinSource};
pub use error::{Cause, HsmError};
pub use health::{HsmCounts, HsmHealth, HsmStatus};
pub use keks::{Kek, KekPurpose, KekState};
pub use probe::Capability;
pub use types::{Custody, Envelope, KeyContext, KeyRef, PublicKey, SealedDek, Signature};

use error::Fault;
use keks::Keyring;
use queue::{Call, Job};
use seat::Open;
use shared::{Command, Phase, Shared};

use crate::ids::{KekId, KeyId};
use crate::telemetry::record;

/// How long starting and stopping, making and adopting KEKs may take.
const SLOW: Duration = Duration::from_secs(60);

/// The HSM. Cheap to clone; all clones share the workers.
#[derive(Clone)]
pub struct Hsm {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// The configured wrap mechanism, unless wrapping is not wanted and not possible.
    wrap: Option<u64>,
    /// Token objects are made and removed one at a time: SoftHSM's creation fails now and then under concurrency. Held on this
    /// side, so that a hung call frees it at its deadline.
    token_writes: Mutex<()>,
    next_worker: AtomicUsize,
    /// The supervisor's thread, until a shutdown has waited for its end.
    thread: parking_lot::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.send(Command::Shutdown(oneshot::channel().0));
    }
}

impl std::fmt::Debug for Hsm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hsm(epoch {})", self.inner.shared.epoch())
    }
}

impl Hsm {
    /// Loads the module, initialises it, finds the token by label and serial, logs in once, asks for every mechanism and tries
    /// them, and starts the workers. KEKs are a second step: [`Hsm::adopt`].
    ///
    /// # Errors
    /// [`HsmError::Fatal`] in words for the operator; the PIN is never tried a second time.
    pub async fn start(config: &HsmConfig) -> Result<Self, HsmError> {
        let config = config.clone();
        let (reply, started) = oneshot::channel();
        let run = move || match start::prepare(&config) {
            Ok((supervisor, wrap)) => {
                let shared = supervisor.shared.clone();
                if reply.send(Ok((shared, wrap))).is_ok() {
                    supervisor.run();
                }
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("hsm-supervisor".into()).spawn(run);
        let thread = thread.map_err(|_| HsmError::fatal("no thread for the HSM"))?;
        let (shared, wrap) = match tokio::time::timeout(SLOW, started).await {
            Ok(Ok(result)) => result?,
            _ => return Err(HsmError::fatal("the PKCS#11 library did not start within a minute")),
        };
        let inner = Inner {
            shared,
            wrap,
            token_writes: Mutex::default(),
            next_worker: AtomicUsize::default(),
            thread: parking_lot::Mutex::new(Some(thread)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes the rows of the `keks` table: each must be exactly one object on the token, as hardened as its template, and its
    /// canary must check out. May be called again whenever the rows have changed; what is in flight goes on with the keys it began with.
    ///
    /// A key in state `adding`, which no row needs yet, may be missing: it is left out then ([`Hsm::adopted`] tells). Retired ones are kept
    /// if they were adopted before, `audit` keys also if they are on the token, and all are forgotten when they are to be destroyed.
    ///
    /// # Errors
    /// [`HsmError::Fatal`] naming the key that is missing, loose or another one. Nothing is made, ever.
    pub async fn adopt(&self, keks: Vec<Kek>) -> Result<(), HsmError> {
        let needs_seal = self.inner.wrap.is_some();
        let ring = Arc::new(Keyring::new(keks, needs_seal, self.inner.shared.keyring().as_deref())?);
        for seal in ring.iter().filter(|kek| kek.purpose == KekPurpose::Seal && kek.state == KekState::Active) {
            if Some(seal.mechanism) != self.inner.wrap {
                return Err(HsmError::fatal(format!(
                    "the `seal` key allows wrap mechanism {:#x}, and wrap_mechanism in the configuration is another one",
                    seal.mechanism
                )));
            }
        }
        let checked = ring.clone();
        let absent = self
            .call("adopt", 0, SLOW, move |open| {
                let mut absent = Vec::new();
                let retired = |kek: &Kek| kek.state == KekState::Retired;
                for kek in checked.iter().filter(|kek| !retired(kek) || kek.purpose == KekPurpose::Audit) {
                    match canary::check(open, &checked, kek) {
                        Err(Fault::Strange(..) | Fault::Refused(_))
                            if kek.state == KekState::Adding || retired(kek) =>
                        {
                            absent.push(kek.id);
                        }
                        checked => checked.map_err(|fault| missing(kek, fault))?,
                    }
                }
                Ok(absent)
            })
            .await?;
        for id in &absent {
            tracing::debug!(key = %id, "a new key is not on the token as this daemon sees it, or is not the hardened key that its row describes");
        }
        let ring = if absent.is_empty() { ring } else { Arc::new(ring.without(&absent)) };
        *self.inner.shared.keyring.write() = Some(ring);
        Ok(())
    }

    /// Makes one key for each purpose, with its canary, on the token. Only `admin hsm init` and `dev` call it, holding the
    /// database's advisory lock, after making sure that the table has none. The rows are to be stored, then adopted.
    ///
    /// # Errors
    /// Any [`HsmError`]; what was made before the error is removed again.
    pub async fn create_keks(&self) -> Result<Vec<Kek>, HsmError> {
        let wrap = self.inner.wrap.map(vendor::mechanism_type).transpose()?;
        let _guard = self.inner.token_writes.lock().await;
        self.call("create_keks", 0, SLOW, move |open| keks::create(open, wrap)).await
    }

    /// Makes a signing key. The address is worth showing: a signature through the stored form has recovered to it.
    ///
    /// # Errors
    /// Any [`HsmError`]; [`HsmError::Invalid`] for wrapped custody on an HSM without wrapping.
    pub async fn generate(&self, ctx: &KeyContext, custody: Custody) -> Result<(KeyRef, PublicKey), HsmError> {
        let _guard = self.token_guard(custody).await?;
        let (ring, ctx, shard) = (self.ring()?, ctx.clone(), self.shard(ctx.key_id));
        let run = move |open: &mut Open| custody::generate(open, &ring, &ctx, custody);
        self.call("generate", shard, self.patience(), run).await
    }

    /// Brings a private scalar into the HSM. The public key is derived here, and a signature made by the stored form recovers to it.
    ///
    /// # Errors
    /// [`HsmError::Invalid`] for zero and for values of the group order and above; else any [`HsmError`].
    pub fn import(
        &self,
        ctx: &KeyContext,
        custody: Custody,
        scalar: Zeroizing<[u8; 32]>,
    ) -> impl Future<Output = Result<(KeyRef, PublicKey), HsmError>> + Send + use<> {
        // Moving an array copies it and leaves the old place as it was. So it is copied once, to the heap, before there is a
        // future that could move, and the argument is wiped in its place when this function returns.
        let mut held = Box::new(Zeroizing::new([0; 32]));
        held.copy_from_slice(scalar.as_slice());
        let (hsm, ctx) = (self.clone(), ctx.clone());
        async move {
            let public = signature::public_key_of(&held)
                .map_err(|_| HsmError::Invalid { what: "not a secp256k1 private key (1 to n - 1)" })?;
            let _guard = hsm.token_guard(custody).await?;
            let ring = hsm.ring()?;
            let shard = hsm.shard(ctx.key_id);
            let run = move |open: &mut Open| custody::import(open, &ring, &ctx, custody, &held, &public);
            hsm.call("import", shard, hsm.patience(), run).await
        }
    }

    /// Signs a digest: low s, and recovered to `expect` before it is returned, always.
    ///
    /// # Errors
    /// [`HsmError::Integrity`] when the row was tampered with or the signature is not by `expect`; [`HsmError::NotFound`] when the
    /// token no longer has the key; [`HsmError::Busy`], [`HsmError::Timeout`], [`HsmError::Unavailable`] when nothing was signed.
    pub async fn sign(
        &self,
        ctx: &KeyContext,
        key: &KeyRef,
        expect: &PublicKey,
        digest: [u8; 32],
    ) -> Result<Signature, HsmError> {
        let (ring, ctx, key, expect) = (self.ring()?, ctx.clone(), key.clone(), *expect);
        self.call("sign", self.shard(ctx.key_id), self.patience(), move |open| {
            custody::sign(open, &ring, &ctx, &key, &expect, &digest)
        })
        .await
    }

    /// Removes a key from the HSM: a token key for ever; of a wrapped key only the live handle (its row is the key).
    ///
    /// # Errors
    /// [`HsmError::NotFound`], [`HsmError::Integrity`] when the row does not belong to the object, or any other.
    pub async fn destroy(&self, ctx: &KeyContext, key: &KeyRef) -> Result<(), HsmError> {
        let _guard = self.token_guard(key.custody()).await?;
        let (ring, ctx, key, shard) = (self.ring()?, ctx.clone(), key.clone(), self.shard(ctx.key_id));
        let run = move |open: &mut Open| custody::destroy(open, &ring, &ctx, &key);
        self.call("destroy", shard, self.patience(), run).await
    }

    /// Seals a secret body of any size under a fresh key of its own. `aad` names its place (organisation, vault, path, version,
    /// type) canonically; opening needs the same.
    ///
    /// # Errors
    /// Any [`HsmError`].
    pub async fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Envelope, HsmError> {
        let (ring, bound) = (self.ring()?, aad.to_vec());
        let run = move |open: &mut Open| envelope::new_dek(open, &ring, &bound);
        let (dek, nonce, sealed) = self.call("seal", self.any(), self.patience(), run).await?;
        envelope::seal_body(&dek, nonce, sealed, aad, plaintext)
    }

    /// Opens what [`Hsm::seal`] made.
    ///
    /// # Errors
    /// [`HsmError::Integrity`] for another `aad` or changed bytes; else any [`HsmError`].
    pub async fn open(&self, aad: &[u8], envelope: &Envelope) -> Result<Zeroizing<Vec<u8>>, HsmError> {
        let (ring, bound, sealed) = (self.ring()?, aad.to_vec(), envelope.dek.clone());
        let run = move |open: &mut Open| envelope::open_dek(open, &ring, &bound, &sealed);
        let dek = self.call("open", self.any(), self.patience(), run).await?;
        envelope::open_body(&dek, envelope, aad)
    }

    /// `N` random bytes of the HSM.
    ///
    /// # Errors
    /// Any [`HsmError`].
    pub async fn random<const N: usize>(&self) -> Result<Zeroizing<[u8; N]>, HsmError> {
        self.call("random", self.any(), self.patience(), |open| {
            let mut bytes = Zeroizing::new([0; N]);
            open.random(bytes.as_mut_slice())?;
            Ok(bytes)
        })
        .await
    }

    /// Signs `header.payload` of a JWT: Ed25519 (RFC 8037).
    ///
    /// # Errors
    /// Any [`HsmError`].
    pub async fn sign_jwt(&self, signing_input: &[u8]) -> Result<[u8; 64], HsmError> {
        let (ring, message) = (self.ring()?, signing_input.to_vec());
        self.call("sign_jwt", self.any(), self.patience(), move |open| {
            keks::ed25519(open, ring.require(KekPurpose::Jwt)?, &message)
        })
        .await
    }

    /// As [`Hsm::sign_jwt`], by the key with this `kid`: the one that the caller has named in what it signs.
    ///
    /// # Errors
    /// Any [`HsmError`].
    pub async fn sign_jwt_as(&self, kid: KekId, signing_input: &[u8]) -> Result<[u8; 64], HsmError> {
        let (ring, message) = (self.ring()?, signing_input.to_vec());
        self.call("sign_jwt", self.any(), self.patience(), move |open| {
            keks::ed25519(open, ring.named(kid, KekPurpose::Jwt)?, &message)
        })
        .await
    }

    /// Signs a checkpoint of the audit trail by the `audit` key with this id: Ed25519 (RFC 8032). That key signs nothing else.
    ///
    /// # Errors
    /// Any [`HsmError`].
    pub async fn sign_checkpoint(&self, key: KekId, message: &[u8]) -> Result<[u8; 64], HsmError> {
        let (ring, message) = (self.ring()?, message.to_vec());
        self.call("sign_checkpoint", self.any(), self.patience(), move |open| {
            keks::ed25519(open, ring.named(key, KekPurpose::Audit)?, &message)
        })
        .await
    }

    /// The public key that verifies JWTs (RFC 8032).
    #[must_use]
    pub fn jwt_public_key(&self) -> Option<[u8; 32]> {
        let ring = self.inner.shared.keyring()?;
        ring.active(KekPurpose::Jwt)?.public_key.as_deref()?.try_into().ok()
    }

    /// Its `kid`.
    #[must_use]
    pub fn jwt_kid(&self) -> Option<KekId> {
        Some(self.inner.shared.keyring()?.active(KekPurpose::Jwt)?.id)
    }

    /// Resolves when the HSM can only be brought back by an operator or a new process (wrong PIN, another token, a hung module).
    /// The daemon then leaves with a non-zero exit code; until it does, every call fails.
    pub async fn failed(&self) -> HsmError {
        let mut phase = self.inner.shared.phase.subscribe();
        let outcome = phase.wait_for(|phase| matches!(phase, Phase::Fatal(_) | Phase::Stopped)).await;
        match outcome.as_deref() {
            Ok(Phase::Fatal(error)) => error.clone(),
            _ => shared::stopped(),
        }
    }

    /// Ends every worker, joins them, and only then finalises the module. Later calls are refused.
    ///
    /// # Errors
    /// [`HsmError::Fatal`] when a call hangs in the module: it is then left as it is, and the process should end.
    pub async fn shutdown(self) -> Result<(), HsmError> {
        let (reply, done) = oneshot::channel();
        self.inner.shared.send(Command::Shutdown(reply));
        let result = match tokio::time::timeout(SLOW, done).await {
            Ok(Ok(result)) => result,
            // The supervisor has ended already.
            Ok(Err(_)) => Ok(()),
            Err(_) => return Err(HsmError::fatal("the PKCS#11 library does not stop")),
        };
        // To its very end: what the library does when a thread ends must not meet the end of the process.
        let thread = self.inner.thread.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::time::timeout(SLOW, tokio::task::spawn_blocking(move || thread.join())).await;
        }
        result
    }

    fn ring(&self) -> Result<Arc<Keyring>, HsmError> {
        self.inner.shared.admit()?;
        let missing = || HsmError::fatal("no key-encryption keys were adopted; `intentd admin hsm init` makes them");
        self.inner.shared.keyring().ok_or_else(missing)
    }

    /// Half the deadline: a hung call is given up while those behind it can still be served.
    fn patience(&self) -> Duration {
        self.inner.shared.call_deadline / 2
    }

    async fn token_guard(&self, custody: Custody) -> Result<Option<tokio::sync::MutexGuard<'_, ()>>, HsmError> {
        match custody {
            Custody::Wrapped => Ok(None),
            Custody::Token => {
                let guard =
                    tokio::time::timeout(self.inner.shared.call_deadline * 5, self.inner.token_writes.lock()).await;
                guard.map(Some).map_err(|_| HsmError::Busy { retry_after_s: 1 })
            }
        }
    }

    /// The worker of a key: its handle lives there.
    fn shard(&self, key_id: KeyId) -> usize {
        let hash = Sha256::digest(key_id.0.as_bytes());
        usize::from(u16::from_be_bytes([hash[0], hash[1]])) % self.inner.shared.queues.len()
    }

    /// The worker with the least to do, for calls without a key.
    fn any(&self) -> usize {
        let queues = &self.inner.shared.queues;
        let start = self.inner.next_worker.fetch_add(1, Relaxed);
        let order = (0..queues.len()).map(|n| (start + n) % queues.len());
        order.min_by_key(|index| queues[*index].len()).unwrap_or(0)
    }

    /// Queues a call and waits for its answer until the deadline. The closure may run again after a recovery. `operation` is what it is
    /// counted as.
    async fn call<T, F>(
        &self,
        operation: &'static str,
        worker: usize,
        patience: Duration,
        run: F,
    ) -> Result<T, HsmError>
    where
        T: Send + 'static,
        F: FnMut(&mut Open) -> Result<T, Fault> + Send + 'static,
    {
        let result = self.queue(operation, worker, patience, run).await;
        record::hsm_ended(operation, result.as_ref().map_or_else(HsmError::label, |_| "ok"));
        result
    }

    async fn queue<T, F>(
        &self,
        operation: &'static str,
        worker: usize,
        patience: Duration,
        run: F,
    ) -> Result<T, HsmError>
    where
        T: Send + 'static,
        F: FnMut(&mut Open) -> Result<T, Fault> + Send + 'static,
    {
        let shared = &self.inner.shared;
        shared.admit()?;
        let deadline = Instant::now() + shared.call_deadline.max(patience);
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Call { run, reply: Some(reply) });
        let job = Job { operation, queued_at: Instant::now(), deadline, patience, attempts: 0, work };
        if !shared.queues[worker].push(job) {
            return Err(HsmError::Busy { retry_after_s: 1 });
        }
        // The supervisor empties the queues when it goes down; this call may have come after that.
        if shared.admit().is_err() {
            shared.refuse_queued();
        }
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(shared::stopped()),
            Err(_) if matches!(*shared.phase.borrow(), Phase::Recovering) => Err(HsmError::Unavailable {
                retry_after_s: 1,
                cause: Cause::new("recovery takes longer than the call may"),
            }),
            Err(_) => Err(HsmError::Timeout),
        }
    }
}

/// At the start a key that is not found is final; a device error is not.
fn missing(kek: &Kek, fault: Fault) -> Fault {
    match fault {
        Fault::Strange(_, what) => HsmError::Fatal {
            what: format!(
                "the `{}` key of this database is not on the token: it may be another token, or a backup from before that key was destroyed \
                 (key {}, {}). Restore the token that belongs to this database, or name it by hsm.token_label and hsm.token_serial",
                kek.purpose,
                kek.id,
                kek.state.as_str()
            ),
            cause: Some(Cause::new(what)),
        }
        .into(),
        other => other,
    }
}
