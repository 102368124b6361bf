//! Log lines: for people by default, JSON by configuration; with ids, the story of each intent, and no secrets.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::{Client, Reply};
use crate::harness::hsm::PIN;
use crate::harness::stack::{Options, Stack, fresh_scalar, pay, text, until};

pub(super) fn request_id(reply: &Reply) -> String {
    reply.headers["x-request-id"].to_str().unwrap().to_owned()
}

/// Lines with this message, up to a colon or all of it.
pub(super) fn saying<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    let says = |line: &&Value| line["fields"]["message"].as_str().is_some_and(|said| said.starts_with(message));
    lines.iter().filter(says).collect()
}

/// The line within the span of a request.
#[track_caller]
pub(super) fn within<'a>(lines: &[&'a Value], request: &str) -> &'a Value {
    let of =
        |line: &&&Value| line["spans"].as_array().unwrap().iter().any(|s| s["name"] == "http" && s["id"] == request);
    lines.iter().find(of).unwrap_or_else(|| panic!("no line of {request}: {lines:?}"))
}

#[tokio::test]
async fn every_line_is_json_where_it_is_asked_for_and_one_tells_the_story_of_an_intent() {
    // Everything that anybody could turn on in production.
    let env = [("INTENTD_LOG_FORMAT", "json"), ("INTENTD_LOG", "debug")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let stack = Stack::with(Options { env, ..Options::default() }).await;
    assert!(!stack.daemons[0].log_text().contains("metrics at"), "metrics are off unless they are asked for");
    let scalar = fresh_scalar();
    let agent = stack.agent_with_key(json!({"tx_max_value_eth": "1"}), &scalar).await;

    let request = agent.client.request(Method::POST, &agent.path()).header("X-Request-Id", "chosen-by-the-client");
    let sent = Client::send(request.json(&pay("0.01"))).await;
    let (request, intent) = (request_id(&sent), text(&sent.body, "id"));
    assert!(request.len() == 16 && request.bytes().all(|byte| byte.is_ascii_hexdigit()), "{request}");
    let refused = agent.submit(pay("2")).await;
    let other = request_id(&refused);
    assert_ne!(request, other);
    refused.refused(403);
    // Whoever answers, the reply has an id.
    for reply in [stack.owner.get("/v1/no-such").await, stack.owner.by(None).get("/v1/agents").await] {
        assert_eq!(request_id(&reply).len(), 16);
    }
    let nonce = agent.settled(&intent).await["nonce"].clone();
    // What a path names is nobody's business who reads the log: secrets have telling names, and a link opens a share.
    let vault = stack.vault_of(&agent).await;
    let secret = format!("/v1/vaults/{vault}/secrets/wallets/canary-of-the-path");
    stack.owner.put(&secret, &json!({"value": "v", "type": "generic"})).await.expect(201);
    let read = stack.owner.get(&secret).await;
    let reading = request_id(&read);
    read.expect(200);
    let strange = Method::from_bytes(b"CANARY-OF-THE-METHOD").unwrap();
    Client::send(stack.owner.request(strange, "/v1/canary-of-nowhere?canary-of-the-query=1")).await;
    stack.owner.by(None).get("/v1/share/canary-of-a-share").await;

    let log = || stack.daemons[0].log_text();
    let read = || log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>();
    until(Duration::from_secs(5), "the end is told", async || !saying(&read(), "final: success").is_empty()).await;
    let log = log();
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"].is_string()), "{line}");
    }
    let lines = read();

    // While it is signed …
    let told = &within(&saying(&lines, "intent signed"), &request)["fields"];
    assert_eq!((&told["intent"], &told["chain"], &told["nonce"]), (&json!(intent), &json!("base"), &nonce), "{told}");
    assert_eq!((&told["tx_hash"], &told["simulation"]), (&sent.body["tx_hash"], &json!("none")), "{told}");
    let stages = text(told, "stages_ms");
    for stage in ["authorise ", "check ", "turn ", "windows ", "sign ", "commit ", "broadcast "] {
        assert!(stages.contains(stage), "{stage}: {stages}");
    }
    assert!(told["total_ms"].is_u64(), "{told}");
    // … and, in one line, from the request to the end.
    let whole = saying(&lines, "final: success").into_iter().find(|line| line["fields"]["intent"] == json!(intent));
    let whole = &whole.expect("the end of this intent")["fields"];
    let known = json!({"chain": "base", "nonce": nonce, "tx_hash": sent.body["tx_hash"], "attempts": 1, "stages_ms": stages,
                       "pipeline_ms": told["total_ms"], "simulation": "none"});
    for (name, value) in known.as_object().unwrap() {
        assert_eq!(whole[name], *value, "{name}: {whole}");
    }
    for number in ["block", "signed_s_ago"] {
        assert!(whole[number].is_u64(), "{number}: {whole}");
    }
    assert!(!whole["fee_wei"].is_null() && !whole["address"].is_null(), "{whole}");
    let told = &within(&saying(&lines, "intent refused"), &other)["fields"];
    assert!(told["why"] == "guardrail" && text(told, "stages_ms").contains("authorise "), "{told}");

    assert!(!log.contains("chosen-by-the-client"));
    assert!(!log.contains("base-signer") && !log.to_lowercase().contains("canary"), "a path is in the log");
    let spans = lines.iter().filter_map(|line| line["spans"].as_array()).flatten();
    let route = spans.filter(|span| span["id"] == *reading).map(|span| text(span, "route")).next();
    assert_eq!(route.as_deref(), Some("/v1/vaults/{vault_id}/secrets/{*path}"));
    let signed = text(&sent.body, "signed_tx");
    let lower = log.to_lowercase();
    let bearer = stack.owner.request(Method::GET, "/").build().unwrap().headers()["authorization"].clone();
    let bearer = bearer.to_str().unwrap().trim_start_matches("Bearer ").to_owned();
    for (what, secret) in
        [("key", &*scalar), ("API key", &*agent.api_key), ("token", &*bearer), ("PIN", PIN), ("bytes", &*signed)]
    {
        let secret = secret.trim_start_matches("0x").to_lowercase();
        assert!(secret.len() >= 8 && !lower.contains(&secret), "the log has the {what}");
    }
}
