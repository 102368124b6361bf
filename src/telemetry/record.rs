//! What features record, by name: each function takes what it is about and knows its metric and labels.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::handles::{Family, interned};
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

/// An intent came to its end here. `outcome` is `signed`, `replayed` or the error's label.
pub fn intent(chain: &'static str, kind: &'static str, outcome: &'static str) {
    static INTENTS: Counters<3> = Counters::new(&table::INTENTS);
    INTENTS.of([chain, kind, outcome]).increment(1);
}

/// A stage of the pipeline is over.
pub(super) fn stage(stage: &'static str, took: Duration) {
    static SECONDS: Histograms<1> = Histograms::new(&table::STAGE_SECONDS);
    SECONDS.of([stage]).record(took);
}

/// A nonce is final.
pub fn transaction_final(chain: &str, outcome: &'static str) {
    static FINAL: Counters<2> = Counters::new(&table::TRANSACTIONS_FINAL);
    FINAL.of([interned(chain), outcome]).increment(1);
}

/// A call of the HSM has ended, as its caller sees it.
pub fn hsm_ended(operation: &'static str, outcome: &'static str) {
    static OPERATIONS: Counters<2> = Counters::new(&table::HSM_OPERATIONS);
    OPERATIONS.of([operation, outcome]).increment(1);
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
    static LIMIT: Gauges<0> = Gauges::new(&table::HSM_QUEUE_LIMIT);
    static ABANDONED: Counters<0> = Counters::new(&table::HSM_WORKERS_ABANDONED);
    static RECOVERIES: Counters<0> = Counters::new(&table::HSM_RECOVERIES);
    static CACHED: Gauges<0> = Gauges::new(&table::HSM_CACHED_KEYS);
    static LOOKUPS: Counters<1> = Counters::new(&table::HSM_KEY_LOOKUPS);
    UP.of([]).set(if counts.is_up { 1.0 } else { 0.0 });
    DEPTH.of([]).set(counts.queue_depth as f64);
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

/// A call of a chain's node has ended. `outcome` is `ok`, `refused` (the node's own error), `unreachable` or `wrong_chain`.
pub fn rpc(chain: &'static str, method: &'static str, outcome: &'static str, took: Duration) {
    static CALLS: Counters<3> = Counters::new(&table::RPC_CALLS);
    static SECONDS: Histograms<2> = Histograms::new(&table::RPC_SECONDS);
    CALLS.of([chain, method, outcome]).increment(1);
    SECONDS.of([chain, method]).record(took);
}

/// Whether each of a chain's nodes answered the last time, and as the right chain.
pub(super) fn nodes_up(chain: &str, up: impl Iterator<Item = bool>) {
    static UP: Gauges<2> = Gauges::new(&table::RPC_UP);
    const NODES: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let chain = interned(chain);
    for (node, is_up) in NODES.iter().zip(up) {
        UP.of([chain, node]).set(if is_up { 1.0 } else { 0.0 });
    }
}

/// Intents that have, or wait for, their lane's turn.
pub(super) fn lane_turns(count: usize) {
    static TURNS: Gauges<0> = Gauges::new(&table::LANE_TURNS);
    TURNS.of([]).set(count as f64);
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

/// A round of the tracker is over.
pub fn tracker_round(chain: &str, is_done: bool, took: Duration) {
    static ROUNDS: Counters<2> = Counters::new(&table::TRACKER_ROUNDS);
    static SECONDS: Histograms<1> = Histograms::new(&table::TRACKER_ROUND_SECONDS);
    static LAST: Gauges<1> = Gauges::new(&table::TRACKER_LAST_ROUND);
    let chain = interned(chain);
    ROUNDS.of([chain, if is_done { "done" } else { "failed" }]).increment(1);
    SECONDS.of([chain]).record(took);
    if is_done {
        LAST.of([chain]).set(now_s());
    }
}

/// Counts of a chain's lanes and slots.
pub(super) fn slots(chain: &str, counts: &super::store::ChainCounts) {
    static OPEN: Gauges<1> = Gauges::new(&table::SLOTS_OPEN);
    static OLDEST: Gauges<1> = Gauges::new(&table::SLOT_OLDEST);
    static STUCK: Gauges<1> = Gauges::new(&table::SLOTS_STUCK);
    static SIGN_ONLY: Gauges<1> = Gauges::new(&table::SLOTS_SIGN_ONLY);
    static FROZEN: Gauges<1> = Gauges::new(&table::LANES_FROZEN);
    static STUCK_LANES: Gauges<1> = Gauges::new(&table::LANES_STUCK);
    static DEPTH: Gauges<1> = Gauges::new(&table::LANE_DEPTH);
    let chain = interned(chain);
    OPEN.of([chain]).set(counts.open);
    OLDEST.of([chain]).set(counts.oldest_s);
    STUCK.of([chain]).set(counts.stuck);
    SIGN_ONLY.of([chain]).set(counts.sign_only);
    FROZEN.of([chain]).set(counts.frozen);
    STUCK_LANES.of([chain]).set(counts.stuck_lanes);
    DEPTH.of([chain]).set(counts.deepest);
}

/// How many agents have used at least 80 and 100 % of their daily limit in a spend group.
pub(super) fn agents_at_limit(spend_group: &str, at_80: f64, at_100: f64) {
    static AGENTS: Gauges<2> = Gauges::new(&table::AGENTS_AT_LIMIT);
    let group = interned(spend_group);
    AGENTS.of([group, "80"]).set(at_80);
    AGENTS.of([group, "100"]).set(at_100);
}

/// Freezes in force, by scope.
pub(super) fn freezes(scope: &'static str, count: f64) {
    static FREEZES: Gauges<1> = Gauges::new(&table::FREEZES);
    FREEZES.of([scope]).set(count);
}

/// What waits to be told, and to be linked.
pub(super) fn waiting(webhooks: f64, webhooks_dead: f64, mails: f64, unlinked: f64) {
    static UNLINKED: Gauges<0> = Gauges::new(&table::AUDIT_UNLINKED);
    static DELIVERIES: Gauges<1> = Gauges::new(&table::WEBHOOK_DELIVERIES);
    static MAILS: Gauges<0> = Gauges::new(&table::MAILS_WAITING);
    DELIVERIES.of(["waiting"]).set(webhooks);
    DELIVERIES.of(["dead"]).set(webhooks_dead);
    MAILS.of([]).set(mails);
    UNLINKED.of([]).set(unlinked);
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
    static AT: Gauges<0> = Gauges::new(&table::SAMPLE_TIME);
    static FAILURES: Counters<0> = Counters::new(&table::SAMPLE_FAILURES);
    FAILURES.of([]).increment(u64::from(!is_done));
    if is_done {
        SECONDS.of([]).set(took.as_secs_f64());
        AT.of([]).set(now_s());
    }
}

/// What is there from the start: the build, and a zero for what may never happen, so that a first time is a rise and not a beginning.
pub(super) fn begin() {
    static BUILD: Gauges<1> = Gauges::new(&table::BUILD_INFO);
    static START: Gauges<0> = Gauges::new(&table::START_TIME);
    BUILD.of([env!("CARGO_PKG_VERSION")]).set(1.0);
    START.of([]).set(now_s());
    for class in ["pool_timeout", "unavailable", "busy", "internal"] {
        db_errors(class, 0);
    }
    for what in ["credential", "address"] {
        auth_failures(what, 0);
    }
}

fn now_s() -> f64 {
    crate::clock::now().unix_timestamp_nanos() as f64 / 1e9
}
