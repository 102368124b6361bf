//! `GET /metrics` on a listener of its own, after some traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alloy::primitives::Address;
use intentd::telemetry::table::{ALL, Kind, TLS_EXPIRES};
use reqwest::Method;
use serde_json::json;

use crate::harness::client::Client;
use crate::harness::daemon::Daemon;
use crate::harness::freeze::Frozen;
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Options, Stack, TO, pay, text, until};

/// Where a daemon says that its metrics are.
pub(super) fn metrics_url(daemon: &Daemon) -> String {
    let log = daemon.log_text();
    let (_, url) = log.split_once("metrics at http://").expect("metrics are served");
    let address = url.split('/').next().unwrap();
    format!("http://127.0.0.1:{}", address.rsplit(':').next().unwrap())
}

pub(super) async fn scrape(url: &str) -> Scraped {
    let response = Client::new(url, None).request(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    Scraped::read(&response.text().await.unwrap())
}

/// Has code that reverts.
const SHOP: Address = Address::repeat_byte(0xc1);
const REVERTING: &[u8] = &[0x60, 0, 0x60, 0, 0xfd];

type Labels = BTreeMap<String, String>;

/// Prometheus' text format, as far as it is used.
pub(super) struct Scraped {
    pub(super) text: String,
    kinds: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Scraped {
    fn read(text: &str) -> Self {
        let (mut kinds, mut samples) = (BTreeMap::new(), Vec::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (what, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = what.split_once('{').unwrap_or((what, "}"));
                let labels = labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty());
                let labels = labels.map(|pair| pair.split_once("=\"").unwrap());
                let labels = labels.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
                samples.push((name.to_owned(), labels.collect(), value.parse().unwrap()));
            }
        }
        Self { text: text.to_owned(), kinds, samples }
    }

    /// The value with exactly these labels.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.iter().find(|(n, l, _)| n == name && *l == wanted).map(|(_, _, value)| *value)
    }

    /// Every family of the table is there but that of TLS, of its kind and with its labels, and nothing else is.
    fn assert_is_the_table(&self) {
        for metric in ALL {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Of a daemon without TLS of its own.
            let kind = (metric.name != TLS_EXPIRES.name).then_some(kind);
            assert_eq!(self.kinds.get(metric.name).map(String::as_str), kind, "{}\n{}", metric.name, self.text);
        }
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        for name in self.kinds.keys() {
            assert!(names.contains(name.as_str()), "{name} is not in the table");
        }
        for (name, labels, _) in &self.samples {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|series| name.strip_suffix(series));
            let family = family.filter(|family| names.contains(family)).unwrap_or(name);
            let metric = ALL.iter().find(|metric| metric.name == family).unwrap();
            let given: BTreeSet<_> = labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
            assert_eq!(given, metric.labels.iter().copied().collect(), "{name}");
        }
    }

    /// Labels are words: none has an id, an address, a hash, or what a request said.
    pub(super) fn assert_labels_are_words(&self, never: &[&str]) {
        for (name, labels, _) in &self.samples {
            for value in labels.values() {
                let hexadecimal = value
                    .split(|c: char| !c.is_ascii_hexdigit())
                    .any(|run| run.len() >= 16 || run.len() >= 8 && run.bytes().any(|b| b.is_ascii_digit()));
                assert!(!hexadecimal && !value.contains("0x"), "{name}: {value}");
                assert!(!never.iter().any(|word| value.contains(word)), "{name}: {value}");
            }
        }
    }
}

/// A daemon that samples every second, in front of a node that can lie; and where its metrics are.
pub(super) async fn watched() -> (Stack, RpcProxy, String) {
    let rpc = RpcProxy::start("http://127.0.0.1:1");
    let env = [("INTENTD_METRICS_LISTEN", "127.0.0.1:0"), ("INTENTD_METRICS_SAMPLE_S", "1")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let options = Options { rpc_urls: [("base", rpc.url())].into(), env, ..Options::default() };
    let stack = Stack::with(options).await;
    rpc.forward_to(&stack.chain().url());
    let url = metrics_url(&stack.daemons[0]);
    (stack, rpc, url)
}

const SOON: Duration = Duration::from_secs(40);

#[tokio::test]
async fn what_stands_still_or_is_gone_shows_though_nobody_asks_for_anything() {
    let (stack, rpc, url) = watched().await;
    let base = [("chain", "base")];
    let node = [("chain", "base"), ("node", "1")];
    let up = async |name: &str, labels: &[(&str, &str)]| scrape(&url).await.value(name, labels);
    until(SOON, "its node is seen", async || up("intentd_rpc_up", &node).await == Some(1.0)).await;
    until(SOON, "its head is", async || up("intentd_rpc_head_timestamp_seconds", &node).await.is_some()).await;

    // What an alert waits for is there before it happens first.
    let begun = scrape(&url).await;
    let zero = [
        ("intentd_webhook_attempts_total", vec![("outcome", "dead")]),
        ("intentd_audit_not_signed_total", vec![]),
        ("intentd_sample_failures_total", vec![]),
        ("intentd_hsm_operations_total", vec![("operation", "sign"), ("outcome", "integrity")]),
        ("intentd_intents_total", vec![("chain", "base"), ("kind", "submit"), ("outcome", "hsm")]),
        ("intentd_transactions_final_total", vec![("chain", "base"), ("outcome", "foreign")]),
        ("intentd_db_errors_total", vec![("class", "pool_timeout")]),
        ("intentd_slots_held", base.to_vec()),
        ("intentd_hsm_queue_deepest", vec![]),
    ];
    for (name, labels) in zero {
        assert_eq!(begun.value(name, &labels), Some(0.0), "{name}\n{}", begun.text);
    }
    let started = begun.value("process_start_time_seconds", &[]).unwrap();
    for (name, labels) in
        [("intentd_tracker_last_round_timestamp_seconds", &base[..]), ("intentd_sample_timestamp_seconds", &[])]
    {
        assert!(begun.value(name, labels).is_some_and(|at| at >= started - 1.0), "{name}");
    }
    assert_eq!(begun.value("intentd_hsm_queue_limit", &[]), Some(512.0), "of one worker: a key's calls have no other");

    // A node that talks rubbish is down; nobody has to sign to find out.
    rpc.on_everything(Act::Garbage(b"<html>".to_vec()));
    until(SOON, "it is down", async || up("intentd_rpc_up", &node).await == Some(0.0)).await;
    assert_eq!(up("intentd_rpc_head_timestamp_seconds", &node).await, None);
    rpc.clear();
    until(SOON, "it is back", async || up("intentd_rpc_up", &node).await == Some(1.0)).await;

    // A client that does not wait is counted; what it asked for goes on.
    let agent = stack.agent(json!({})).await;
    rpc.on("eth_getTransactionCount", Act::Freeze);
    let impatient = agent.client.request(Method::POST, &agent.path()).json(&pay("0.001"));
    assert!(Client::try_send(impatient.timeout(Duration::from_millis(500))).await.is_err());
    let route = "/v1/agents/{agent_id}/transactions";
    let gone = [("route", route), ("method", "POST"), ("status", "client_gone")];
    until(SOON, "it is counted", async || up("intentd_http_requests_total", &gone).await == Some(1.0)).await;
    rpc.clear();
    let signed = [("chain", "base"), ("kind", "submit"), ("outcome", "signed")];
    until(SOON, "it is signed", async || up("intentd_intents_total", &signed).await == Some(1.0)).await;

    // What the database said is shown for a while, and then no more: it may be otherwise by now.
    let open = async || up("intentd_slots_open", &base).await;
    assert!(open().await.is_some() && up("intentd_db_up", &[]).await == Some(1.0));
    let frozen = Frozen::postgres(&stack);
    until(SOON, "it is told", async || up("intentd_db_up", &[]).await == Some(0.0)).await;
    until(SOON, "it is withdrawn", async || open().await.is_none()).await;
    let without = scrape(&url).await;
    for name in
        ["intentd_freezes", "intentd_audit_unlinked_events", "intentd_agents_at_daily_limit", "intentd_lanes_frozen"]
    {
        assert!(!without.samples.iter().any(|(series, ..)| series == name), "{name}");
    }
    assert!(without.value("intentd_sample_failures_total", &[]) >= Some(1.0) && !without.text.contains("NaN"));
    drop(frozen);
    until(SOON, "it is read again", async || open().await.is_some() && up("intentd_db_up", &[]).await == Some(1.0))
        .await;
}

#[tokio::test]
async fn what_a_freeze_holds_and_what_others_used_is_not_stuck_and_nothing_hides_behind_what_piles_up() {
    let (stack, rpc, url) = watched().await;
    let base = [("chain", "base")];
    let (agent, other) = (stack.agent(json!({"tx_daily_limit_eth": "1"})).await, stack.agent(json!({})).await);
    rpc.on("eth_sendRawTransaction", Act::Freeze);
    agent.submit(pay("0.9")).await.expect(201);
    other.submit(pay("0.001")).await.expect(201);
    let body = json!({"scope": "agent", "subject": agent.id, "reason": "on purpose"});
    let freeze = text(&stack.owner.post("/v1/freezes", &body).await.expect(201), "id");
    // Long ago; and a nonce of another's.
    stack.sql("UPDATE slots SET created_at = now() - interval '2 hours'").await;
    let address = format!("'\\x{}'", hex::encode(other.signer));
    stack
        .sql(&format!(
            "INSERT INTO slots (chain_id, address, nonce, state, created_at) VALUES (8453, {address}, 7, 'foreign', now() - interval '9 hours')"
        ))
        .await;
    // More dead messages than are counted, and two that wait.
    stack
        .sql(
            "INSERT INTO webhook_deliveries (id, webhook_id, event_id, event_created_at, action, is_dead, created_at, due_at)
             SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now(), 'x', n > 2, now() - interval '1 day' * (n > 2)::int,
                    now() + interval '1 day'
             FROM generate_series(1, 10500) AS n",
        )
        .await;
    let shown = async |held: f64, stuck: f64| {
        let rows = scrape(&url).await;
        let chain = |name: &str| rows.value(name, &base);
        let deliveries = |state| rows.value("intentd_webhook_deliveries", &[("state", state)]);
        let oldest = chain("intentd_slot_oldest_seconds").unwrap_or_default();
        let agents =
            |percent| rows.value("intentd_agents_at_daily_limit", &[("spend_group", "eth"), ("percent", percent)]);
        chain("intentd_slots_held") == Some(held)
            && chain("intentd_slots_stuck") == Some(stuck)
            && chain("intentd_lanes_stuck") == Some(stuck)
            && (7_000.0..9_000.0).contains(&oldest)
            && chain("intentd_slots_foreign") == Some(1.0)
            && chain("intentd_slots_open") == Some(3.0)
            && (agents("90"), agents("100")) == (Some(1.0), Some(0.0))
            && (deliveries("waiting"), deliveries("dead")) == (Some(2.0), Some(10_000.0))
    };
    until(SOON, "the other's alone is stuck", async || shown(1.0, 1.0).await).await;
    stack.owner.delete(&format!("/v1/freezes/{freeze}")).await.expect(204);
    until(SOON, "both are", async || shown(0.0, 2.0).await).await;
}

#[tokio::test]
async fn a_scrape_after_some_traffic_has_every_family_with_its_labels_and_no_ids() {
    let listen = |address: &str| vec![("INTENTD_METRICS_LISTEN".to_owned(), address.to_owned())];
    let mut stack = Stack::with(Options { env: listen("127.0.0.1:0"), ..Options::default() }).await;
    let url = metrics_url(&stack.daemons[0]);
    let agent = stack.agent(json!({"tx_daily_limit_eth": "0.05"})).await;

    // One that is replayed, one that is handed out, one that is simulated first, one that only is, one over the limit, one whose
    // simulation fails, and one that fails on chain.
    let sent = agent.submit_with_key("once", pay("0.01")).await;
    let id = text(&sent.body, "id");
    agent.submit_with_key("once", pay("0.01")).await.expect(200);
    stack.chain().set_code(SHOP, REVERTING).await;
    let failing = |simulate_first: bool| json!({"to": SHOP, "value": "0.001", "chain": "base", "gas_limit": 100_000, "simulate_first": simulate_first});
    agent.submit(failing(true)).await.expect(422);
    let failed = text(&agent.submit(failing(false)).await.expect(201), "id");
    agent.sign(pay("0.02")).await.expect(200);
    agent.submit(json!({"to": TO, "value": "1", "chain": "no-such-chain"})).await.refused(400);
    let simulated = json!({"to": TO, "value": "0.015", "chain": "base", "simulate_first": true});
    agent.submit(simulated).await.expect(201);
    agent.simulate(pay("0.001")).await.expect(200);
    agent.submit(pay("0.04")).await.refused(403);
    // What requests say becomes no label.
    let method = Method::from_bytes(b"BREW").unwrap();
    Client::send(stack.owner.request(method, "/v1/coffee-canary?with=milk-canary")).await;
    stack.owner.by(Some("1ck_key-canary")).get("/v1/agents/agent-canary").await.refused(401);
    agent.settled(&id).await;
    assert_eq!(agent.settled(&failed).await["status"], "failed");

    // A daemon that comes later reads the same rows at once.
    stack.options.env = listen("0.0.0.0:0");
    stack.add_daemon("later").await;
    let later = metrics_url(&stack.daemons[1]);
    assert!(stack.daemons[1].log_text().contains("metrics are served beyond loopback"));
    assert!(!stack.daemons[0].log_text().contains("metrics are served beyond loopback"));
    let in_rows = async || {
        let rows = scrape(&later).await;
        rows.value("intentd_slots_sign_only", &[("chain", "base")]) == Some(1.0)
            && rows.value("intentd_agents_at_daily_limit", &[("spend_group", "eth"), ("percent", "80")]) == Some(1.0)
            && rows.value("intentd_agents_at_daily_limit", &[("spend_group", "eth"), ("percent", "100")]) == Some(0.0)
            && rows.value("intentd_freezes", &[("scope", "agent")]) == Some(0.0)
    };
    until(Duration::from_secs(20), "the gauges show the rows", in_rows).await;

    let scraped = scrape(&url).await;
    scraped.assert_is_the_table();
    let signer = agent.signer.to_string().to_lowercase();
    scraped.assert_labels_are_words(&[&agent.id, &stack.org_id, &signer, "canary", "no-such-chain"]);
    let intents = |chain, kind, outcome| {
        scraped.value("intentd_intents_total", &[("chain", chain), ("kind", kind), ("outcome", outcome)])
    };
    assert_eq!(intents("base", "submit", "signed"), Some(3.0), "{}", scraped.text);
    assert_eq!(intents("base", "submit", "simulation_reverted"), Some(1.0));
    assert_eq!(intents("base", "submit", "replayed"), Some(1.0));
    assert_eq!(intents("base", "submit", "guardrail"), Some(1.0));
    assert_eq!(intents("base", "sign_only", "signed"), Some(1.0));
    assert_eq!(intents("none", "submit", "bad_request"), Some(1.0));
    for stage in
        ["check", "turn", "begin", "windows", "rules", "nonce", "sign", "write", "commit", "broadcast", "total"]
    {
        let count = scraped.value("intentd_intent_stage_seconds_count", &[("stage", stage)]);
        assert!(count >= Some(2.0), "{stage}: {count:?}");
    }
    let route = "/v1/agents/{agent_id}/transactions";
    let created = [("route", route), ("method", "POST"), ("status", "201")];
    assert_eq!(scraped.value("intentd_http_requests_total", &created), Some(3.0));
    let stray = [("route", "none"), ("method", "other"), ("status", "404")];
    assert_eq!(scraped.value("intentd_http_requests_total", &stray), Some(1.0), "{}", scraped.text);
    let signatures = [("operation", "sign"), ("outcome", "ok")];
    assert!(scraped.value("intentd_hsm_operations_total", &signatures) >= Some(3.0));
    assert!(scraped.value("intentd_hsm_wait_seconds_count", &[("operation", "sign")]) >= Some(3.0));
    assert!(scraped.value("intentd_simulations_total", &[("backend", "node"), ("outcome", "success")]) >= Some(2.0));
    let sends = [("chain", "base"), ("method", "eth_sendRawTransaction"), ("outcome", "ok")];
    assert!(scraped.value("intentd_rpc_calls_total", &sends) >= Some(2.0));
    assert!(scraped.value("intentd_simulations_total", &[("backend", "node"), ("outcome", "reverted")]) >= Some(1.0));
    assert_eq!(scraped.value("intentd_rpc_up", &[("chain", "base"), ("node", "1")]), Some(1.0));
    for (outcome, count) in [("success", 1.0), ("reverted", 1.0)] {
        let ended = scraped.value("intentd_transactions_final_total", &[("chain", "base"), ("outcome", outcome)]);
        assert!(ended >= Some(count), "{outcome}: {ended:?}");
    }
    assert!(scraped.value("intentd_lane_depth_max", &[("chain", "base")]).is_some());
    assert_eq!(scraped.value("intentd_lane_turns", &[]), Some(0.0));
    assert_eq!(scraped.value("intentd_hsm_up", &[]), Some(1.0));

    // Nothing else is served there, and metrics nowhere else.
    let there = Client::new(&url, None);
    let status = async |method, path| there.request(method, path).send().await.unwrap().status();
    for path in ["/", "/v1/health", "/metrics/", "/metrics/x", "/debug/pprof", "/v1/agents"] {
        assert_eq!(status(Method::GET, path).await, 404, "{path}");
    }
    for method in [Method::POST, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        assert_eq!(status(method, "/metrics").await, 405);
    }
    stack.owner.get("/metrics").await.refused(404);
}
