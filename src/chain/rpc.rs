//! JSON-RPC to one chain's node, never before the node has said that it serves that chain.
//!
//! `eth_chainId` is asked before the first call, and again whenever a connection is new or an exchange has failed: behind the
//! same URL there may be another node now. Nothing here holds a lock over a call, so a frozen node holds up its callers only.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alloy::primitives::{Bytes, U256};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::Instrument as _;

use super::error::{NodeError, RpcError, Unreachable};
use super::spec::{ChainId, RpcUrl};
use super::transport::Transport;
use crate::telemetry::record;
use crate::telemetry::story::SPANS;

/// How long a node that failed is passed by, where there is another.
const REST: Duration = Duration::from_secs(15);
/// How often a node is asked for its newest block, where there is another.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// What a node lacks that answers a batch as one call.
const BATCHES: &str = "JSON-RPC batches";
/// Most calls that go out in one HTTP request.
const BATCH_MAX: usize = 50;

/// One chain's node. The typed calls are in [`super::node`].
pub struct Rpc {
    chain: String,
    /// The chain's name in metrics.
    label: &'static str,
    expected: ChainId,
    transport: Transport,
    next_id: AtomicU64,
    /// One above the transport's generation at which the node last answered the right chain id; 0: never.
    verified: AtomicU64,
    /// When an exchange last failed, or its answer made no sense, unless one has succeeded since.
    failed_at: Mutex<Option<Instant>>,
    /// The time of the newest block that it told [`Rpc::probe`] of, in seconds since 1970; 0: none.
    head_time_s: AtomicU64,
    /// When it was last to be asked for that.
    probed_at: Mutex<Option<Instant>>,
    /// What this node was found to have (true) or to lack. Forgotten when the node is verified anew.
    found: Mutex<BTreeMap<&'static str, bool>>,
}

/// A node that has just said that it serves its chain. The typed calls are in [`super::node`].
pub struct Ready<'a> {
    pub(super) rpc: &'a Rpc,
    /// The transport's generation at which it said so.
    generation: u64,
}

impl Ready<'_> {
    /// One call, which begins at once: over a connection that is new, the node is asked for its chain afterwards.
    pub(super) async fn request(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let result = self.rpc.call(method, params).await;
        self.rpc.recheck(self.generation, &result).await?;
        result
    }
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rpc").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Rpc {
    /// `label` is what its calls are counted as.
    ///
    /// # Errors
    /// The HTTP client's text, when TLS cannot be set up.
    pub(super) fn new(
        (chain, label): (&str, &'static str),
        expected: ChainId,
        url: RpcUrl,
        deadline: Duration,
    ) -> Result<Self, String> {
        Ok(Self {
            chain: chain.to_owned(),
            label,
            expected,
            transport: Transport::new(url, deadline)?,
            next_id: AtomicU64::new(1),
            verified: AtomicU64::new(0),
            failed_at: Mutex::default(),
            head_time_s: AtomicU64::new(0),
            probed_at: Mutex::default(),
            found: Mutex::default(),
        })
    }

    /// Whether it is the client for this URL.
    pub(super) fn is_at(&self, url: &RpcUrl) -> bool {
        self.transport.is_at(url)
    }

    /// Whether the last exchange failed or made no sense, or it led to another chain.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.failed_at.lock().is_some()
    }

    /// Asks for the newest block, as somebody would who wants to sign, so that [`Rpc::is_down`] is true of now and not of the last request.
    pub(super) async fn probe(&self) {
        *self.probed_at.lock() = Some(Instant::now());
        if let Ok(head) = self.head().await {
            self.head_time_s.store(head.timestamp, Ordering::Relaxed);
        }
    }

    /// The time of the newest block that [`Rpc::probe`] was told of, in seconds since 1970.
    #[must_use]
    pub fn head_time_s(&self) -> Option<u64> {
        Some(self.head_time_s.load(Ordering::Relaxed)).filter(|time| *time > 0)
    }

    /// Whether the newest block that it was found to know is older than this: it answers, and stands still.
    pub(super) fn is_behind(&self, bound: Duration) -> bool {
        let now = crate::clock::now().unix_timestamp().unsigned_abs();
        self.head_time_s().is_some_and(|time| time.saturating_add(bound.as_secs()) < now)
    }

    /// Whether its newest block was not asked for in a while: true for one of those who ask, who is to [`Rpc::probe`] it.
    pub(super) fn is_due_for_probe(&self) -> bool {
        let mut probed_at = self.probed_at.lock();
        let due = probed_at.is_none_or(|at| at.elapsed() >= PROBE_EVERY);
        if due {
            *probed_at = Some(Instant::now());
        }
        due
    }

    /// Whether it is down and has rested: true for one of those who ask, who is to find out whether it is back.
    pub(super) fn is_down_and_due(&self) -> bool {
        let mut failed_at = self.failed_at.lock();
        let due = failed_at.is_some_and(|at| at.elapsed() >= REST);
        if due {
            *failed_at = Some(Instant::now());
        }
        due
    }

    /// The chain's name.
    #[must_use]
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// Any call, by name.
    ///
    /// # Errors
    /// [`RpcError`]: not reached, refused by the node, or the node serves another chain.
    pub async fn request(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.ensure_verified().await?;
        let before = self.transport.generation();
        let result = self.call(method, params).await;
        self.recheck(before, &result).await?;
        result
    }

    /// The node, once it has said that it serves this chain: what is asked of it then is asked at once.
    ///
    /// # Errors
    /// [`RpcError`]: not reached, or the node serves another chain.
    pub async fn ready(&self) -> Result<Ready<'_>, RpcError> {
        self.ensure_verified().await?;
        // 0 when somebody verifies it again just now: then this call is followed by a check.
        let generation = self.verified.load(Ordering::SeqCst).wrapping_sub(1);
        Ok(Ready { rpc: self, generation })
    }

    /// Several calls at once, in at most a few HTTP requests; the answers are in the order of the calls, each its own result or
    /// the node's error. A node that refuses batches is asked one by one.
    ///
    /// # Errors
    /// [`RpcError`], when the whole has no answer.
    pub async fn batch(&self, calls: &[(&str, Value)]) -> Result<Vec<Result<Value, NodeError>>, RpcError> {
        self.ensure_verified().await?;
        let before = self.transport.generation();
        let mut answers = Vec::with_capacity(calls.len());
        for part in calls.chunks(BATCH_MAX) {
            let result = self.batch_part(part).await;
            self.recheck(before, &result).await?;
            answers.extend(result?);
        }
        Ok(answers)
    }

    /// Asks for the chain id, unless nothing has changed since it was last right.
    pub(super) async fn ensure_verified(&self) -> Result<(), RpcError> {
        if self.verified.load(Ordering::SeqCst) == self.transport.generation() + 1 {
            return Ok(());
        }
        self.verify().await
    }

    /// After a call over a connection that was not there at the last check: does the answer come from the right chain?
    async fn recheck<T>(&self, before: u64, result: &Result<T, RpcError>) -> Result<(), RpcError> {
        match result {
            Err(RpcError::Unreachable { .. }) => Ok(()),
            _ if self.transport.generation() == before => Ok(()),
            _ => self.verify().await,
        }
    }

    async fn verify(&self) -> Result<(), RpcError> {
        self.verified.store(0, Ordering::SeqCst);
        self.timed("eth_chainId", async {
            let answer = self.ask("eth_chainId", json!([])).await?;
            let answered = u256(&answer).ok_or_else(|| self.garbage("eth_chainId is not a number"))?;
            if answered != U256::from(self.expected.0) {
                let (chain, expected) = (self.chain.clone(), self.expected);
                self.note_failure();
                tracing::error!(chain, %expected, %answered, "the RPC URL leads to another chain");
                return Err(RpcError::WrongChain { chain, expected, answered });
            }
            Ok(())
        })
        .await?;
        self.found.lock().clear();
        self.verified.store(self.transport.generation() + 1, Ordering::SeqCst);
        Ok(())
    }

    fn note_failure(&self) {
        *self.failed_at.lock() = Some(Instant::now());
    }

    /// Whether this node was found to lack something: a method, or a part of one.
    #[must_use]
    pub fn lacks(&self, capability: &'static str) -> bool {
        self.found.lock().get(capability) == Some(&false)
    }

    /// Whether this node was found to have something.
    #[must_use]
    pub fn has(&self, capability: &'static str) -> bool {
        self.found.lock().get(capability) == Some(&true)
    }

    /// Remembers what was found.
    pub fn remember(&self, capability: &'static str, has: bool) {
        self.found.lock().insert(capability, has);
    }

    /// One call, with no look at the chain id.
    async fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.timed(method, self.ask(method, params)).await
    }

    async fn ask(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let (id, body) = self.envelope(method, params);
        let answer = self.exchange(&body).await?;
        self.read_answer(id, answer)?.map_err(|error| self.node(error))
    }

    /// Counts and times one exchange.
    async fn timed<T>(&self, method: &str, work: impl Future<Output = Result<T, RpcError>>) -> Result<T, RpcError> {
        let method = record::rpc_method(method);
        let span = tracing::debug_span!(target: SPANS, "rpc", otel.name = method, chain = self.label);
        let began = Instant::now();
        let result = work.instrument(span).await;
        let outcome = match &result {
            Ok(_) => "ok",
            Err(RpcError::Node { .. }) => "refused",
            Err(RpcError::Unreachable { .. }) => "unreachable",
            Err(RpcError::WrongChain { .. }) => "wrong_chain",
        };
        record::rpc(self.label, method, outcome, began.elapsed());
        result
    }

    async fn batch_part(&self, calls: &[(&str, Value)]) -> Result<Vec<Result<Value, NodeError>>, RpcError> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        if self.lacks(BATCHES) {
            return self.one_by_one(calls).await;
        }
        let (ids, bodies) = calls.iter().map(|(method, params)| self.envelope(method, params.clone())).unzip();
        match self.timed("batch", self.ask_all(ids, bodies)).await {
            Err(RpcError::Node { .. }) => {
                self.remember(BATCHES, false);
                self.one_by_one(calls).await
            }
            answered => answered,
        }
    }

    /// Several calls in one HTTP request; the answers are in the order of `ids`. [`RpcError::Node`]: the node does not take batches. What
    /// answers some of them only, or nothing that was asked, is garbage as a whole.
    async fn ask_all(&self, ids: Vec<u64>, bodies: Vec<Value>) -> Result<Vec<Result<Value, NodeError>>, RpcError> {
        let mut answers = match self.exchange(&Value::Array(bodies)).await? {
            Value::Array(answers) => answers,
            // The node's own refusal, or a gateway's in whatever words.
            Value::Object(one) if !one.is_empty() => {
                return Err(self.node(NodeError { code: 0, message: "it takes no batches".to_owned(), data: None }));
            }
            _ => return Err(self.garbage("it is no answer to a batch")),
        };
        let mut ordered = Vec::with_capacity(ids.len());
        for id in ids {
            let found = answers.iter().position(|answer| answer.get("id").and_then(Value::as_u64) == Some(id));
            let index = found.ok_or_else(|| self.garbage("a call of a batch has no answer"))?;
            ordered.push(self.read_answer(id, answers.swap_remove(index))?);
        }
        Ok(ordered)
    }

    async fn one_by_one(&self, calls: &[(&str, Value)]) -> Result<Vec<Result<Value, NodeError>>, RpcError> {
        let asked = calls.iter().map(async |(method, params)| match self.call(method, params.clone()).await {
            Ok(value) => Ok(Ok(value)),
            Err(RpcError::Node { error, .. }) => Ok(Err(error)),
            Err(other) => Err(other),
        });
        futures::future::try_join_all(asked).await
    }

    fn envelope(&self, method: &str, params: Value) -> (u64, Value) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        (id, json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    async fn exchange(&self, body: &Value) -> Result<Value, RpcError> {
        let answer = self.transport.exchange(body).await;
        *self.failed_at.lock() = answer.is_err().then(Instant::now);
        answer.map_err(|cause| self.unreachable(cause))
    }

    /// The result or the error object of one answer; anything else is garbage.
    fn read_answer(&self, id: u64, mut answer: Value) -> Result<Result<Value, NodeError>, RpcError> {
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
            let message = error.get("message").and_then(Value::as_str);
            let message = message.ok_or_else(|| self.garbage("an error without a message"))?;
            let data = error.get("data").and_then(error_data);
            return Ok(Err(NodeError { code, message: self.transport.scrub(message), data }));
        }
        if answer.get("id").and_then(Value::as_u64) != Some(id) {
            return Err(self.garbage("it answers another question"));
        }
        answer.get_mut("result").map(|result| Ok(result.take())).ok_or_else(|| self.garbage("neither result nor error"))
    }

    pub(super) fn unreachable(&self, cause: Unreachable) -> RpcError {
        RpcError::Unreachable { chain: self.chain.clone(), cause }
    }

    /// An answer that makes no sense is none: the node counts as down until it gives one.
    pub(super) fn garbage(&self, what: &'static str) -> RpcError {
        self.note_failure();
        self.unreachable(Unreachable::Garbage(what))
    }

    pub(super) fn node(&self, error: NodeError) -> RpcError {
        RpcError::Node { chain: self.chain.clone(), error }
    }
}

/// A reverted call's return data: a hex string, which some nodes wrap in an object or prefix with a word.
fn error_data(data: &Value) -> Option<Bytes> {
    let text = data.as_str().or_else(|| data.get("data")?.as_str())?;
    text.strip_prefix("Reverted ").unwrap_or(text).parse().ok()
}

/// A hex quantity, `0x…`.
pub(super) fn u256(value: &Value) -> Option<U256> {
    let digits = value.as_str()?.strip_prefix("0x").filter(|digits| !digits.is_empty())?;
    U256::from_str_radix(digits, 16).ok()
}
