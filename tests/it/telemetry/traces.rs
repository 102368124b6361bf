//! Spans as a collector gets them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack, pay, text};

type Bodies = Arc<Mutex<Vec<Vec<u8>>>>;

/// Takes OTLP over HTTP, and keeps what came.
struct Collector {
    url: String,
    bodies: Bodies,
}

impl Collector {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bodies = Bodies::default();
        let router = Router::new().fallback(take).with_state(bodies.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, bodies }
    }

    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap();
        let requests = bodies.iter().map(|body| ExportTraceServiceRequest::decode(&**body).unwrap());
        let resources = requests.flat_map(|request| request.resource_spans);
        resources.flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect()
    }
}

async fn take(State(bodies): State<Bodies>, uri: Uri, body: Bytes) -> StatusCode {
    assert_eq!(uri.path(), "/v1/traces");
    bodies.lock().unwrap().push(body.to_vec());
    StatusCode::OK
}

#[tokio::test]
async fn an_intent_is_a_trace_with_its_stages_and_nothing_secret() {
    let collector = Collector::start().await;
    // What is logged is another thing than what is traced.
    let env = [("INTENTD_OTLP_ENDPOINT", &*collector.url), ("INTENTD_LOG", "warn")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let mut stack = Stack::with(Options { env, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let mut signed = Vec::new();
    for _ in 0..2 {
        signed.push(text(&agent.submit(pay("0.001")).await.expect(201), "signed_tx"));
    }
    // A caller's trace goes on here, whether or not the caller keeps it.
    let (theirs, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let request =
        agent.client.request(Method::POST, &agent.path()).header("traceparent", format!("00-{theirs}-{span}-00"));
    let request = request.header("tracestate", "stranger=canary");
    signed.push(text(&Client::send(request.json(&pay("0.001"))).await.expect(201), "signed_tx"));
    let request = agent.client.request(Method::GET, "/v1/agents/me").header("traceparent", "00-not-a-trace-canary");
    Client::send(request).await;
    // Neither what a path names nor what nobody asked for goes to a collector.
    let vault = stack.vault_of(&agent).await;
    stack.owner.get(&format!("/v1/vaults/{vault}/secrets/wallets/canary")).await.refused(404);
    let long = format!("/v1/{}", "canary".repeat(1_000));
    stack.owner.by(None).get(&long).await.refused(404);
    assert!(!stack.daemons[0].log_text().contains(" INFO "), "only warnings are logged");
    // What is left is sent at the end.
    stack.daemons[0].signal(Signal::TERM);
    assert!(stack.daemons[0].ended().await.success());

    let spans = collector.spans();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let intents = named("intent");
    assert_eq!(intents.len(), 3);
    let parent = |span: &Span| spans.iter().find(|other| other.span_id == span.parent_span_id);
    let mut begun = Vec::new();
    for intent in &intents {
        let http = parent(intent).expect("a request's");
        assert!(http.name == "http" && http.trace_id == intent.trace_id);
        let stages = spans.iter().filter(|span| span.parent_span_id == intent.span_id);
        let stages: Vec<&str> = stages.map(|span| &*span.name).collect();
        let count = |stage: &str| stages.iter().filter(|name| **name == stage).count();
        for stage in ["authorise", "key", "check", "turn", "sign", "commit", "broadcast"] {
            assert_eq!(count(stage), 1, "{stage}: {stages:?}");
        }
        begun.push([count("begin"), count("windows")]);
    }
    begun.sort_unstable();
    assert_eq!(
        begun,
        [[1, 1], [1, 1], [2, 2]],
        "the agent's window was made for its first intent, which then began again"
    );
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let callers: Vec<_> = intents.iter().map(|intent| hex(&parent(intent).unwrap().parent_span_id)).collect();
    assert_eq!(callers.iter().filter(|caller| *caller == span).count(), 1, "{callers:?}");
    assert_eq!(callers.iter().filter(|caller| caller.is_empty()).count(), 2, "{callers:?}");
    assert!(intents.iter().any(|intent| hex(&intent.trace_id) == theirs));
    let sends = named("eth_sendRawTransaction");
    assert!(sends.iter().any(|send| parent(send).is_some_and(|stage| stage.name == "broadcast")), "{}", sends.len());
    assert!(named("http").iter().any(|span| format!("{:?}", span.attributes).contains("secrets/{*path}")));
    let everything = String::from_utf8_lossy(&collector.bodies.lock().unwrap().concat()).to_lowercase();
    for secret in
        signed.iter().map(|raw| raw.trim_start_matches("0x")).chain([&*agent.api_key, "canary", "base-signer"])
    {
        assert!(!everything.contains(&secret.to_lowercase()), "a secret is in a span");
    }
}
