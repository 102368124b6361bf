//! `GET /metrics` on a listener of its own, after some traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use intentd::telemetry::table::{ALL, Kind};
use reqwest::Method;
use serde_json::json;

use crate::harness::client::{Client, Reply};
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

fn request_id(reply: &Reply) -> String {
    reply.headers["x-request-id"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_scrape_after_some_traffic_has_every_family_with_its_labels_and_no_ids() {
    let listen = |address: &str| vec![("INTENTD_METRICS_LISTEN".to_owned(), address.to_owned())];
    let mut stack = Stack::with(Options { env: listen("127.0.0.1:0"), ..Options::default() }).await;
    let url = metrics_url(&stack.daemons[0]);
    let agent = stack.agent(json!({"tx_daily_limit_eth": "0.05"})).await;

    // One that is replayed, one that is handed out, one that is simulated first, one that only is, one over the limit.
    let sent = agent.submit_with_key("once", pay("0.01")).await;
    let id = text(&sent.body, "id");
    agent.submit_with_key("once", pay("0.01")).await.expect(200);
    agent.sign(pay("0.02")).await.expect(200);
    let simulated = json!({"to": TO, "value": "0.015", "chain": "base", "simulate_first": true});
    agent.submit(simulated).await.expect(201);
    agent.simulate(pay("0.001")).await.expect(200);
    agent.submit(pay("0.04")).await.refused(403);
    agent.submit(json!({"to": TO, "value": "1", "chain": "no-such-chain"})).await.refused(400);
    // What requests say becomes no label.
    let method = Method::from_bytes(b"BREW").unwrap();
    Client::send(stack.owner.request(method, "/v1/coffee-canary?with=milk-canary")).await;
    stack.owner.by(Some("1ck_key-canary")).get("/v1/agents/agent-canary").await.refused(401);
    agent.settled(&id).await;

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
    assert_eq!(intents("base", "submit", "signed"), Some(2.0), "{}", scraped.text);
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
    assert_eq!(scraped.value("intentd_http_requests_total", &created), Some(2.0));
    let stray = [("route", "none"), ("method", "other"), ("status", "404")];
    assert_eq!(scraped.value("intentd_http_requests_total", &stray), Some(1.0), "{}", scraped.text);
    let signatures = [("operation", "sign"), ("outcome", "ok")];
    assert!(scraped.value("intentd_hsm_operations_total", &signatures) >= Some(3.0));
    assert!(scraped.value("intentd_hsm_wait_seconds_count", &[("operation", "sign")]) >= Some(3.0));
    assert!(scraped.value("intentd_simulations_total", &[("backend", "node"), ("outcome", "success")]) >= Some(2.0));
    let sends = [("chain", "base"), ("method", "eth_sendRawTransaction"), ("outcome", "ok")];
    assert!(scraped.value("intentd_rpc_calls_total", &sends) >= Some(2.0));
    assert_eq!(scraped.value("intentd_rpc_up", &[("chain", "base")]), Some(1.0));
    assert!(
        scraped.value("intentd_transactions_final_total", &[("chain", "base"), ("outcome", "success")]) >= Some(1.0)
    );
    assert_eq!(scraped.value("intentd_hsm_up", &[]), Some(1.0));

    // Nothing else is served there, and metrics nowhere else.
    let there = Client::new(&url, None);
    for path in ["/", "/v1/health", "/metrics/", "/metrics/x", "/debug/pprof", "/v1/agents"] {
        there.get(path).await.expect(404);
    }
    for method in [Method::POST, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        Client::send(there.request(method, "/metrics")).await.expect(405);
    }
    stack.owner.get("/metrics").await.refused(404);
}

#[tokio::test]
async fn one_request_can_be_followed_through_the_log_by_an_id_of_ours() {
    let stack = Stack::start().await;
    assert!(!stack.daemons[0].log_text().contains("metrics at"), "metrics are off unless they are asked for");
    let agent = stack.agent(json!({"tx_max_value_eth": "1"})).await;
    let request = agent.client.request(Method::POST, &agent.path()).header("X-Request-Id", "chosen-by-the-client");
    let sent = Client::send(request.json(&pay("0.01"))).await;
    let (request, intent) = (request_id(&sent), text(&sent.body, "id"));
    assert!(request.len() == 16 && request.bytes().all(|byte| byte.is_ascii_hexdigit()), "{request}");
    let refused = agent.submit(pay("2")).await;
    let other = request_id(&refused);
    assert_ne!(request, other);
    refused.refused(403);
    for reply in [stack.owner.get("/v1/no-such").await, stack.owner.by(None).get("/v1/agents").await] {
        assert_eq!(request_id(&reply).len(), 16);
    }
    agent.settled(&intent).await;

    let final_line = |log: &str| log.lines().any(|line| line.contains("final: success") && line.contains(&intent));
    let log = || stack.daemons[0].log_text();
    until(Duration::from_secs(5), "the end is told", async || final_line(&log())).await;
    let log = log();
    let lines_of = |id: &str| log.lines().filter(|line| line.contains(id)).map(str::to_owned).collect::<Vec<_>>();
    let told = lines_of(&request).into_iter().find(|line| line.contains("intent signed")).expect("its story is told");
    for part in [&*intent, "simulation=\"none\"", "total_ms=", "check ", "windows ", "sign ", "commit ", "broadcast "] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let told = lines_of(&other).into_iter().find(|line| line.contains("intent refused")).expect("and of the other");
    assert!(told.contains("guardrail") && told.contains("authorise "), "{told}");
    let told = log.lines().find(|line| line.contains("final: success")).unwrap();
    assert!(told.contains("fee_wei=") && told.contains("block=") && told.contains("attempts=1"), "{told}");
    assert!(!log.contains("chosen-by-the-client"));
    assert!(!log.contains(text(&sent.body, "signed_tx").trim_start_matches("0x")), "signed bytes are in the log");
}
