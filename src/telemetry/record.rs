//! What features record, by name: each function takes what it is about and knows its metric and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use parking_lot::Mutex;

use super::handles::{Family, interned};
use super::store::{AtLimit, ChainCounts, Waiting};
use super::table;

type Counters<const N: usize> = Family<Counter, N>;
type Gauges<const N: usize> = Family<Gauge, N>;
type Histograms<const N: usize> = Family<Histogram, N>;

/// A chain's, or a spend group's name as a label. For names of the registry.
#[must_use]
pub fn name_of(name: &str) -> &'static str {
    interned(name)
}

/// A request was answered. `route` is a template of the table of routes, `method` one of a known set.
pub fn request(route: &'static str, method: &'static str, status: &str, took: Duration) {
    static REQUESTS: Counters<3> = Counters::new(&table::HTTP_REQUESTS);
    static SECONDS: Histograms<2> = Histograms::new(&table::HTTP_SECONDS);
    REQUESTS.of([route, method, interned(status)]).increment(1);
    SECONDS.of([route, method]).record(took);
}

/// The certificate that the daemon shows was read: when it, and the first of those that it sends along, run out, in seconds since 1970.
pub fn own_certificate(server_s: Option<i64>, chain_s: Option<i64>) {
    static EXPIRES: Gauges<1> = Gauges::new(&table::TLS_EXPIRES);
    let known = [(["server"], server_s), (["chain"], chain_s)];
    EXPIRES.replace(known.into_iter().filter_map(|(role, at)| Some((role, at? as f64))));
}

/// An intent, or a replacement, came to its end here. `outcome` is `signed`, `replayed` or the error's label.
pub fn intent(chain: &'static str, kind: &'static str, outcome: &'static str) {
    intents(chain, kind, outcome, 1);
}

fn intents(chain: &'static str, kind: &'static str, outcome: &'static str, count: u64) {
    static INTENTS: Counters<3> = Counters::new(&table::INTENTS);
    INTENTS.of([chain, kind, outcome]).increment(count);
}

/// A stage of the pipeline is over.
pub(super) fn stage(stage: &'static str, took: Duration) {
    static SECONDS: Histograms<1> = Histograms::new(&table::STAGE_SECONDS);
    SECONDS.of([stage]).record(took);
}

/// A nonce is final.
pub fn transaction_final(chain: &str, outcome: &'static str) {
    transactions_final(interned(chain), outcome, 1);
}

fn transactions_final(chain: &'static str, outcome: &'static str, count: u64) {
    static FINAL: Counters<2> = Counters::new(&table::TRANSACTIONS_FINAL);
    FINAL.of([chain, outcome]).increment(count);
}

/// A call of the HSM has ended, as its caller sees it.
pub fn hsm_ended(operation: &'static str, outcome: &'static str) {
    hsm_ends(operation, outcome, 1);
}

fn hsm_ends(operation: &'static str, outcome: &'static str, count: u64) {
    static OPERATIONS: Counters<2> = Counters::new(&table::HSM_OPERATIONS);
    OPERATIONS.of([operation, outcome]).increment(count);
}

/// A worker has begun with a call.
pub fn hsm_waited(operation: &'static str, waited: Duration) {
    static SECONDS: Histograms<1> = Histograms::new(&table::HSM_WAIT_SECONDS);
    SECONDS.of([operation]).record(waited);
}

/// A worker is back from a call.
pub fn hsm_worked(operation: &'static str, took: Duration) {
    static SECONDS: Histograms<1> = Histograms::new(&table::HSM_SECONDS);
    SECONDS.of([operation]).record(took);
}

/// The counts of the HSM's workers.
pub(super) fn hsm_counts(counts: &crate::hsm::HsmCounts) {
    static UP: Gauges<0> = Gauges::new(&table::HSM_UP);
    static DEPTH: Gauges<0> = Gauges::new(&table::HSM_QUEUE_DEPTH);
    static DEEPEST: Gauges<0> = Gauges::new(&table::HSM_QUEUE_DEEPEST);
    static LIMIT: Gauges<0> = Gauges::new(&table::HSM_QUEUE_LIMIT);
    static ABANDONED: Counters<0> = Counters::new(&table::HSM_WORKERS_ABANDONED);
    static RECOVERIES: Counters<0> = Counters::new(&table::HSM_RECOVERIES);
    static CACHED: Gauges<0> = Gauges::new(&table::HSM_CACHED_KEYS);
    static LOOKUPS: Counters<1> = Counters::new(&table::HSM_KEY_LOOKUPS);
    UP.of([]).set(if counts.is_up { 1.0 } else { 0.0 });
    DEPTH.of([]).set(counts.queue_depth as f64);
    DEEPEST.of([]).set(counts.queue_deepest as f64);
    LIMIT.of([]).set(counts.queue_limit as f64);
    ABANDONED.of([]).absolute(counts.workers_abandoned);
    RECOVERIES.of([]).absolute(counts.recoveries);
    CACHED.of([]).set(counts.cached_keys as f64);
    LOOKUPS.of(["hit"]).absolute(counts.cache_hits);
    LOOKUPS.of(["miss"]).absolute(counts.cache_misses);
}

/// The name of an RPC method as a label: of those that we call.
#[must_use]
pub fn rpc_method(method: &str) -> &'static str {
    const METHODS: &[&str] = &[
        "debug_traceCall",
        "eth_blockNumber",
        "eth_call",
        "eth_chainId",
        "eth_estimateGas",
        "eth_gasPrice",
        "eth_getBalance",
        "eth_getBlockByNumber",
        "eth_getCode",
        "eth_getStorageAt",
        "eth_getTransactionByHash",
        "eth_getTransactionCount",
        "eth_getTransactionReceipt",
        "eth_maxPriorityFeePerGas",
        "eth_sendRawTransaction",
        "eth_simulateV1",
        "batch",
    ];
    METHODS.iter().find(|known| **known == method).copied().unwrap_or("other")
}

/// A call of a chain's node has ended. `outcome` is `ok`, `refused` (the node's own error), `unreachable` (also by what is no answer to what
/// was asked) or `wrong_chain`.
pub fn rpc(chain: &'static str, method: &'static str, outcome: &'static str, took: Duration) {
    static CALLS: Counters<3> = Counters::new(&table::RPC_CALLS);
    static SECONDS: Histograms<2> = Histograms::new(&table::RPC_SECONDS);
    CALLS.of([chain, method, outcome]).increment(1);
    SECONDS.of([chain, method]).record(took);
}

/// Transactions were simulated, in one go.
pub fn simulation(backend: &'static str, outcomes: impl IntoIterator<Item = &'static str>, took: Duration) {
    static SIMULATIONS: Counters<2> = Counters::new(&table::SIMULATIONS);
    static SECONDS: Histograms<1> = Histograms::new(&table::SIMULATION_SECONDS);
    for outcome in outcomes {
        SIMULATIONS.of([backend, outcome]).increment(1);
        super::story::simulated(outcome);
    }
    SECONDS.of([backend]).record(took);
}

/// When the tracker last ended a round well, by chain.
static LAST_ROUNDS: Mutex<BTreeMap<&'static str, f64>> = Mutex::new(BTreeMap::new());

/// A round of the tracker is over.
pub fn tracker_round(chain: &str, is_done: bool, took: Duration) {
    static SECONDS: Histograms<1> = Histograms::new(&table::TRACKER_ROUND_SECONDS);
    let chain = interned(chain);
    tracker_rounds(chain, if is_done { "done" } else { "failed" }, 1);
    SECONDS.of([chain]).record(took);
    if is_done {
        LAST_ROUNDS.lock().insert(chain, now_s());
    }
}

fn tracker_rounds(chain: &'static str, outcome: &'static str, count: u64) {
    static ROUNDS: Counters<2> = Counters::new(&table::TRACKER_ROUNDS);
    ROUNDS.of([chain, outcome]).increment(count);
}

/// The tracker's chains as they are now. One that is new begins now, so that a tracker which never ends a round shows as one; one that is
/// gone is withdrawn.
pub(super) fn tracked(chains: &BTreeSet<&'static str>) {
    static LAST: Gauges<1> = Gauges::new(&table::TRACKER_LAST_ROUND);
    let mut last = LAST_ROUNDS.lock();
    last.retain(|chain, _| chains.contains(chain));
    for chain in chains {
        last.entry(chain).or_insert_with(now_s);
        begin_with(chain);
    }
    LAST.replace(last.iter().map(|(chain, at)| ([*chain], *at)));
}

/// A node as it was seen last.
pub(super) struct NodeSeen {
    pub chain: &'static str,
    /// From 0, in the order in which they are asked.
    pub index: usize,
    pub is_up: bool,
    pub head_time_s: Option<u64>,
}

/// All nodes of all chains as they are now; the others are withdrawn.
pub(super) fn nodes(seen: &[NodeSeen]) {
    static UP: Gauges<2> = Gauges::new(&table::RPC_UP);
    static HEAD: Gauges<2> = Gauges::new(&table::RPC_HEAD_TIME);
    const NODES: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let labels = |node: &NodeSeen| [node.chain, NODES.get(node.index).copied().unwrap_or("more")];
    UP.replace(seen.iter().map(|node| (labels(node), if node.is_up { 1.0 } else { 0.0 })));
    // Of one that does not answer, nobody knows.
    let told = seen.iter().filter(|node| node.is_up);
    HEAD.replace(told.filter_map(|node| Some((labels(node), node.head_time_s? as f64))));
}

/// Intents that have, or wait for, their key's turn in this daemon.
pub(super) fn lane_turns(turns: usize) {
    static TURNS: Gauges<0> = Gauges::new(&table::LANE_TURNS);
    TURNS.of([]).set(turns as f64);
}

/// What rows say, by names that are labels.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub chains: BTreeMap<&'static str, ChainCounts>,
    /// By spend group.
    pub limits: BTreeMap<&'static str, AtLimit>,
    /// By scope.
    pub freezes: BTreeMap<&'static str, f64>,
    pub waiting: Option<Waiting>,
}

/// Shows what rows say now, and withdraws whatever they do not speak of any more. Rows of nothing withdraw everything.
pub(super) fn rows(rows: &Rows) {
    static OPEN: Gauges<1> = Gauges::new(&table::SLOTS_OPEN);
    static OLDEST: Gauges<1> = Gauges::new(&table::SLOT_OLDEST);
    static STUCK: Gauges<1> = Gauges::new(&table::SLOTS_STUCK);
    static SIGN_ONLY: Gauges<1> = Gauges::new(&table::SLOTS_SIGN_ONLY);
    static HELD: Gauges<1> = Gauges::new(&table::SLOTS_HELD);
    static FOREIGN: Gauges<1> = Gauges::new(&table::SLOTS_FOREIGN);
    static FROZEN: Gauges<1> = Gauges::new(&table::LANES_FROZEN);
    static STUCK_LANES: Gauges<1> = Gauges::new(&table::LANES_STUCK);
    static DEPTH: Gauges<1> = Gauges::new(&table::LANE_DEPTH);
    static AGENTS: Gauges<2> = Gauges::new(&table::AGENTS_AT_LIMIT);
    static FREEZES: Gauges<1> = Gauges::new(&table::FREEZES);
    static DELIVERIES: Gauges<1> = Gauges::new(&table::WEBHOOK_DELIVERIES);
    static MAILS: Gauges<0> = Gauges::new(&table::MAILS_WAITING);
    static UNLINKED: Gauges<0> = Gauges::new(&table::AUDIT_UNLINKED);
    let by_chain = |gauge: &Gauges<1>, of: fn(&ChainCounts) -> f64| {
        gauge.replace(rows.chains.iter().map(|(chain, counts)| ([*chain], of(counts))));
    };
    by_chain(&OPEN, |counts| counts.open);
    by_chain(&OLDEST, |counts| counts.oldest_s);
    by_chain(&STUCK, |counts| counts.stuck);
    by_chain(&SIGN_ONLY, |counts| counts.sign_only);
    by_chain(&HELD, |counts| counts.held);
    by_chain(&FOREIGN, |counts| counts.foreign);
    by_chain(&FROZEN, |counts| counts.frozen);
    by_chain(&STUCK_LANES, |counts| counts.stuck_lanes);
    by_chain(&DEPTH, |counts| counts.deepest);
    AGENTS.replace(rows.limits.iter().flat_map(|(group, at)| {
        [([*group, "80"], at.percent_80), ([*group, "90"], at.percent_90), ([*group, "100"], at.percent_100)]
    }));
    FREEZES.replace(rows.freezes.iter().map(|(scope, count)| ([*scope], *count)));
    let waiting = rows.waiting.as_ref();
    let deliveries = waiting.map(|waiting| [(["waiting"], waiting.webhooks), (["dead"], waiting.webhooks_dead)]);
    DELIVERIES.replace(deliveries.into_iter().flatten());
    MAILS.replace(waiting.map(|waiting| ([], waiting.mails)));
    UNLINKED.replace(waiting.map(|waiting| ([], waiting.unlinked)));
}

/// A message was sent to a webhook: `taken`, `failed`, `dead` or `gone`.
pub fn webhook_attempt(outcome: &'static str) {
    webhook_attempts(outcome, 1);
}

fn webhook_attempts(outcome: &'static str, count: u64) {
    static ATTEMPTS: Counters<1> = Counters::new(&table::WEBHOOK_ATTEMPTS);
    ATTEMPTS.of([outcome]).increment(count);
}

/// A chain of the audit trail was not signed, and somebody has to look.
pub fn audit_not_signed() {
    audit_unsigned(1);
}

fn audit_unsigned(count: u64) {
    static NOT_SIGNED: Counters<0> = Counters::new(&table::AUDIT_NOT_SIGNED);
    NOT_SIGNED.of([]).increment(count);
}

/// Failed authentications (`credential`), or refused addresses (`address`), were written to the audit trail.
pub fn auth_failures(what: &'static str, count: u64) {
    static FAILURES: Counters<1> = Counters::new(&table::AUTH_FAILURES);
    FAILURES.of([what]).increment(count);
}

/// A statement failed.
pub fn db_error(class: &'static str) {
    db_errors(class, 1);
}

fn db_errors(class: &'static str, count: u64) {
    static ERRORS: Counters<1> = Counters::new(&table::DB_ERRORS);
    ERRORS.of([class]).increment(count);
}

/// The pool as it is.
pub(super) fn pool(open: u32, idle: usize, most: u32) {
    static CONNECTIONS: Gauges<1> = Gauges::new(&table::DB_CONNECTIONS);
    static MAX: Gauges<0> = Gauges::new(&table::DB_CONNECTIONS_MAX);
    let (open, idle) = (f64::from(open), idle as f64);
    CONNECTIONS.of(["used"]).set((open - idle).max(0.0));
    CONNECTIONS.of(["idle"]).set(idle);
    MAX.of([]).set(f64::from(most));
}

/// The sampler got a connection.
pub(super) fn acquired(waited: Duration) {
    static SECONDS: Histograms<0> = Histograms::new(&table::DB_ACQUIRE_SECONDS);
    SECONDS.of([]).record(waited);
}

/// The database was read for its gauges, or could not be.
pub(super) fn sampled(is_done: bool, took: Duration) {
    static SECONDS: Gauges<0> = Gauges::new(&table::SAMPLE_SECONDS);
    sample_failures(u64::from(!is_done));
    db_up(is_done);
    if is_done {
        SECONDS.of([]).set(took.as_secs_f64());
        sampled_at(now_s());
    }
}

fn sample_failures(count: u64) {
    static FAILURES: Counters<0> = Counters::new(&table::SAMPLE_FAILURES);
    FAILURES.of([]).increment(count);
}

fn sampled_at(at_s: f64) {
    static AT: Gauges<0> = Gauges::new(&table::SAMPLE_TIME);
    AT.of([]).set(at_s);
}

fn db_up(is_up: bool) {
    static UP: Gauges<0> = Gauges::new(&table::DB_UP);
    UP.of([]).set(if is_up { 1.0 } else { 0.0 });
}

/// Outcomes of intents that an alert asks for: none of them is the client's doing.
const NOT_SIGNED: [&str; 6] = ["could_not_check", "hsm", "database", "outcome_unknown", "lane_jump", "panicked"];

/// What is there from the start: the build, and a zero for what may never happen, so that a first time is a rise and not a beginning.
pub(super) fn begin() {
    static BUILD: Gauges<1> = Gauges::new(&table::BUILD_INFO);
    static START: Gauges<0> = Gauges::new(&table::START_TIME);
    BUILD.of([env!("CARGO_PKG_VERSION")]).set(1.0);
    START.of([]).set(now_s());
    sampled_at(now_s());
    sample_failures(0);
    audit_unsigned(0);
    for class in ["pool_timeout", "unavailable", "busy", "internal"] {
        db_errors(class, 0);
    }
    for what in ["credential", "address"] {
        auth_failures(what, 0);
    }
    for outcome in ["taken", "failed", "dead", "gone"] {
        webhook_attempts(outcome, 0);
    }
    for outcome in ["ok", "fatal", "unavailable", "busy", "timeout", "integrity", "not_found", "internal"] {
        hsm_ends("sign", outcome, 0);
    }
}

/// The same for a chain.
fn begin_with(chain: &'static str) {
    for outcome in ["done", "failed"] {
        tracker_rounds(chain, outcome, 0);
    }
    for outcome in ["success", "reverted", "cancelled", "foreign"] {
        transactions_final(chain, outcome, 0);
    }
    for outcome in NOT_SIGNED.into_iter().chain(["signed"]) {
        for kind in ["submit", "sign_only", "speed_up", "cancel"] {
            intents(chain, kind, outcome, 0);
        }
    }
}

fn now_s() -> f64 {
    crate::clock::now().unix_timestamp_nanos() as f64 / 1e9
}
