//! All metrics there are: what is recorded, described, drawn and documented goes by this table. Pure.
//!
//! Labels are routes' templates, chains' names and words of ours; never an id, an address, or anything that a request says.

use metrics::Unit;

/// What sort of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds that things took, in buckets.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// What sort of number it is.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// The names of its labels, in the order in which they are given.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// Upper bounds of every histogram's buckets, in seconds.
pub const BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

macro_rules! table {
    ($($id:ident $kind:ident $unit:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Metric = Metric {
                name: $name, kind: Kind::$kind, unit: Unit::$unit, labels: &[$($label),*], help: $help,
            };
        )*

        /// All of them.
        pub static ALL: &[&Metric] = &[$(&$id),*];
    };
}

table! {
    BUILD_INFO Gauge Count "intentd_build_info" ["version"] "Always 1; the label tells the version.";
    START_TIME Gauge Seconds "process_start_time_seconds" [] "When the process started, in seconds since 1970.";

    HTTP_REQUESTS Counter Count "intentd_http_requests_total" ["route", "method", "status"] "Requests answered; `client_gone`: the client went away before.";
    HTTP_SECONDS Histogram Seconds "intentd_http_request_seconds" ["route", "method"] "From a request's head to its reply's.";

    TLS_EXPIRES Gauge Seconds "intentd_tls_certificate_expires_timestamp_seconds" ["role"] "When the certificate that the daemon shows (server), and the first of those that it sends along (chain), run out, in seconds since 1970. None without TLS of its own.";

    INTENTS Counter Count "intentd_intents_total" ["chain", "kind", "outcome"] "Intents, and what callers ask to replace (kinds speed_up and cancel): signed, replayed, or why they were not signed; `panicked` and `abandoned` (at a stop) have no known end.";
    STAGE_SECONDS Histogram Seconds "intentd_intent_stage_seconds" ["stage"] "What each stage of a pipeline took, an intent's or a replacement's; `total` is all of it.";
    TRANSACTIONS_FINAL Counter Count "intentd_transactions_final_total" ["chain", "outcome"] "Nonces that this daemon followed to their end.";

    HSM_OPERATIONS Counter Count "intentd_hsm_operations_total" ["operation", "outcome"] "Calls of the HSM as their callers saw them end.";
    HSM_SECONDS Histogram Seconds "intentd_hsm_operation_seconds" ["operation"] "Time that a worker spent on a call.";
    HSM_WAIT_SECONDS Histogram Seconds "intentd_hsm_wait_seconds" ["operation"] "Time that a call waited for its worker.";
    HSM_UP Gauge Count "intentd_hsm_up" [] "1 while the HSM's workers run, 0 while it is recovered or lost.";
    HSM_QUEUE_DEPTH Gauge Count "intentd_hsm_queue_depth" [] "Calls that wait for a worker.";
    HSM_QUEUE_DEEPEST Gauge Count "intentd_hsm_queue_deepest" [] "Calls that wait for the worker that has most of them; a key's calls all go to one.";
    HSM_QUEUE_LIMIT Gauge Count "intentd_hsm_queue_limit" [] "Calls that may wait for one worker before its next ones are answered 503.";
    HSM_WORKERS_ABANDONED Counter Count "intentd_hsm_workers_abandoned_total" [] "Workers given up because the module did not return.";
    HSM_RECOVERIES Counter Count "intentd_hsm_recoveries_total" [] "Recoveries (sessions, login, initialisation).";
    HSM_CACHED_KEYS Gauge Count "intentd_hsm_cached_keys" [] "Signing keys with a live handle.";
    HSM_KEY_LOOKUPS Counter Count "intentd_hsm_key_lookups_total" ["result"] "Signatures that found a live handle (hit), or had to unwrap or find the key (miss).";

    RPC_CALLS Counter Count "intentd_rpc_calls_total" ["chain", "method", "outcome"] "Calls of chains' nodes; `unreachable` are also answers that are none.";
    RPC_SECONDS Histogram Seconds "intentd_rpc_call_seconds" ["chain", "method"] "What they took.";
    RPC_UP Gauge Count "intentd_rpc_up" ["chain", "node"] "0 when the last exchange with the node failed or made no sense, or it serves another chain. Nodes by their order; each is asked now and then.";
    RPC_HEAD_TIME Gauge Seconds "intentd_rpc_head_timestamp_seconds" ["chain", "node"] "The time of the newest block that the node knows, in seconds since 1970.";

    SIMULATIONS Counter Count "intentd_simulations_total" ["backend", "outcome"] "Transactions simulated.";
    SIMULATION_SECONDS Histogram Seconds "intentd_simulation_seconds" ["backend"] "What a simulation took, of all of a bundle.";

    TRACKER_ROUNDS Counter Count "intentd_tracker_rounds_total" ["chain", "outcome"] "Rounds of the tracker.";
    TRACKER_ROUND_SECONDS Histogram Seconds "intentd_tracker_round_seconds" ["chain"] "What a round took.";
    TRACKER_LAST_ROUND Gauge Seconds "intentd_tracker_last_round_timestamp_seconds" ["chain"] "When the last round ended well, or the daemon began, in seconds since 1970.";
    SLOTS_OPEN Gauge Count "intentd_slots_open" ["chain"] "Nonces that are not final. Counted to 20,000 for each chain, as all gauges of nonces.";
    SLOT_OLDEST Gauge Seconds "intentd_slot_oldest_seconds" ["chain"] "Age of the oldest of them that we broadcast: how far the tracker is behind. Not those that a freeze holds, nor foreign ones.";
    SLOTS_STUCK Gauge Count "intentd_slots_stuck" ["chain"] "Nonces that we broadcast, and no freeze holds, and that are not mined after five minutes.";
    SLOTS_SIGN_ONLY Gauge Count "intentd_slots_sign_only" ["chain"] "Nonces whose bytes were handed out and not mined.";
    SLOTS_HELD Gauge Count "intentd_slots_held" ["chain"] "Nonces whose bytes are signed and that a freeze holds back.";
    SLOTS_FOREIGN Gauge Count "intentd_slots_foreign" ["chain"] "Nonces that others used or left out, and that are not final.";
    LANES_STUCK Gauge Count "intentd_lanes_stuck" ["chain"] "Keys with such a nonce.";
    LANE_DEPTH Gauge Count "intentd_lane_depth_max" ["chain"] "Nonces that are not final, of the key that has most of them.";
    LANE_TURNS Gauge Count "intentd_lane_turns" [] "Intents in this daemon that have, or wait for, their key's turn to sign.";
    LANES_FROZEN Gauge Count "intentd_lanes_frozen" ["chain"] "Keys that wait for an operator on this chain.";

    AGENTS_AT_LIMIT Gauge Count "intentd_agents_at_daily_limit" ["spend_group", "percent"] "Agents that have used at least so much of their daily limit: 80, 90 or 100 %.";
    FREEZES Gauge Count "intentd_freezes" ["scope"] "Freezes in force.";
    WEBHOOK_DELIVERIES Gauge Count "intentd_webhook_deliveries" ["state"] "Messages that wait to be delivered, and those among the oldest that were given up. Each counted to 10,000.";
    WEBHOOK_ATTEMPTS Counter Count "intentd_webhook_attempts_total" ["outcome"] "Messages sent: taken, failed (it is tried again), dead (it was the last time), gone (the receiver wants no more).";
    AUDIT_UNLINKED Gauge Count "intentd_audit_unlinked_events" [] "Audit events that are in no hash chain yet. Counted to 10,000.";
    AUDIT_NOT_SIGNED Counter Count "intentd_audit_not_signed_total" [] "Times that a chain of the audit trail was found to be broken, or to have no key, and not signed; every ten minutes until it is.";
    MAILS_WAITING Gauge Count "intentd_mails_waiting" [] "Letters that are not sent. Counted to 10,000.";
    AUTH_FAILURES Counter Count "intentd_auth_failures_total" ["what"] "Failed authentications and refused addresses, as they are written to the audit trail.";

    DB_CONNECTIONS Gauge Count "intentd_db_connections" ["state"] "Connections of the pool.";
    DB_CONNECTIONS_MAX Gauge Count "intentd_db_connections_max" [] "Connections that the pool may have.";
    DB_ACQUIRE_SECONDS Histogram Seconds "intentd_db_acquire_seconds" [] "What the sampler waited for a connection, as any request would have.";
    DB_ERRORS Counter Count "intentd_db_errors_total" ["class"] "Statements that failed: pool_timeout (no free connection in time), unavailable, busy, internal.";
    DB_UP Gauge Count "intentd_db_up" [] "1 when the database could be read for these metrics the last time.";
    SAMPLE_SECONDS Gauge Seconds "intentd_sample_seconds" [] "What reading the database for these metrics took the last time.";
    SAMPLE_TIME Gauge Seconds "intentd_sample_timestamp_seconds" [] "When it was read, or the daemon began, in seconds since 1970: gauges of rows are as old as this, and withdrawn when that is too old.";
    SAMPLE_FAILURES Counter Count "intentd_sample_failures_total" [] "Times that it could not be read.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_say_kind_and_unit_and_are_given_once() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let name = metric.name;
            let ours = name.starts_with("intentd_") || name == START_TIME.name;
            assert!(ours && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), metric.unit == Unit::Seconds, "{name}");
            assert!(metric.kind != Kind::Histogram || metric.unit == Unit::Seconds, "{name}");
            assert!(metric.help.ends_with('.') && metric.labels.len() <= 3, "{name}");
        }
        assert!(BUCKETS.is_sorted());
    }
}
