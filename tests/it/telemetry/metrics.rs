//! `GET /metrics` on a listener of its own, after some traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alloy::primitives::Address;
use intentd::telemetry::table::{ALL, Kind};
use reqwest::Method;
use serde_json::json;

use crate::harness::client::Client;
use crate::harness::daemon::Daemon;
use crate::harness::stack::{Options, Stack, TO, pay, text, until};

/// Where a daemon says that its metrics are.
fn metrics_url(daemon: &Daemon) -> String {
    let log = daemon.log_text();
    let (_, url) = log.split_once("metrics at http://").expect("metrics are served");
    let address = url.split('/').next().unwrap();
    format!("http://127.0.0.1:{}", address.rsplit(':').next().unwrap())
}

async fn scrape(url: &str) -> Scraped {
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
struct Scraped {
    text: String,
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
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.iter().find(|(n, l, _)| n == name && *l == wanted).map(|(_, _, value)| *value)
    }

    /// Every family of the table is there, of its kind and with its labels, and nothing else is.
    fn assert_is_the_table(&self) {
        for metric in ALL {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            assert_eq!(self.kinds.get(metric.name).map(String::as_str), Some(kind), "{}\n{}", metric.name, self.text);
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
    fn assert_labels_are_words(&self, never: &[&str]) {
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
