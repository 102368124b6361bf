//! What is told of replacements: the line and the count of each, and what the end of the nonce still says of its intent.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::lines::{request_id, saying, within};
use super::metrics::{metrics_url, scrape, watched};
use crate::harness::anvil::AnvilOptions;
use crate::harness::client::{Client, Reply};
use crate::harness::rpc_proxy::Act;
use crate::harness::stack::{Options, Stack, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

fn by_hand(_: &str, anvil: &mut AnvilOptions) {
    anvil.no_mining = true;
}

/// The fields of the line within the request of a reply.
#[track_caller]
fn told<'a>(lines: &'a [Value], message: &str, reply: &str) -> &'a Value {
    &within(&saying(lines, message), reply)["fields"]
}

#[track_caller]
fn assert_says(line: &Value, known: Value) {
    for (name, value) in known.as_object().unwrap() {
        assert_eq!(line.get(name).unwrap_or(&Value::Null), value, "{name}: {line}");
    }
}

#[tokio::test]
async fn a_replacement_is_told_in_one_line_and_counted_as_what_it_is_and_the_end_tells_the_intents_own_story() {
    let env = [("INTENTD_LOG_FORMAT", "json"), ("INTENTD_METRICS_LISTEN", "127.0.0.1:0")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let stack = Stack::with(Options { env, anvil: by_hand, ..Options::default() }).await;
    let url = metrics_url(&stack.daemons[0]);
    let agent = stack.agent(json!({})).await;
    // Two whose bytes are only signed, and two that are sent.
    let signed = [agent.sign(pay("0.01")).await.expect(200), agent.sign(pay("0.01")).await.expect(200)];
    let (cancelled, faster) = (agent.submit(pay("0.1")).await.expect(201), agent.submit(pay("0.1")).await.expect(201));
    let ask = async |client: &Client, id: &str, what: &str, key: Option<&str>, body: Value| -> (String, Reply) {
        let mut request = client.request(Method::POST, &format!("{}/{id}/{what}", agent.path())).json(&body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let reply = Client::send(request).await;
        (request_id(&reply), reply)
    };
    let id = |body: &Value| text(body, "id");
    let (first, raised) = ask(&agent.client, &id(&cancelled), "speed-up", Some("once"), json!({})).await;
    let raised = raised.expect(200);
    let (again, reply) = ask(&agent.client, &id(&cancelled), "speed-up", Some("once"), json!({})).await;
    reply.expect(200);
    let (unread, reply) = ask(&agent.client, &id(&cancelled), "speed-up", None, json!({"value": "7"})).await;
    reply.refused(400);
    let nobodys = Uuid::new_v4().to_string();
    let (lost, reply) = ask(&stack.owner, &nobodys, "cancel", None, json!({})).await;
    reply.refused(404);
    stack.guardrails(&agent, json!({"tx_max_value_eth": "0.05"})).await;
    let (forbidden, reply) = ask(&agent.client, &id(&cancelled), "speed-up", Some("more"), json!({})).await;
    reply.refused(403);
    stack.guardrails(&agent, json!({"tx_max_value_eth": null})).await;
    let (second, reply) = ask(&stack.owner, &id(&cancelled), "cancel", None, json!({})).await;
    let noop = text(&reply.expect(200), "replaced_by");
    let (closed, reply) = ask(&agent.client, &id(&signed[0]), "cancel", None, json!({})).await;
    reply.expect(200);
    let (third, reply) = ask(&agent.client, &id(&faster), "speed-up", None, json!({})).await;
    let sped_up = reply.expect(200);
    // What nobody asks for goes through the same code, and has no story to tell: the daemon closes what was signed long ago.
    let long_ago =
        format!("UPDATE slots SET created_at = now() - interval '2 hours' WHERE intent_id = '{}'", id(&signed[1]));
    stack.sql(&long_ago).await;
    let read = || {
        let log = stack.daemons[0].log_text();
        log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>()
    };
    const BY_ITSELF: &str = "a further attempt of the nonce is signed";
    until(SOON, "the daemon has closed it", async || !saying(&read(), BY_ITSELF).is_empty()).await;
    stack.chain().mine(1).await;
    until(SOON, "all four are final", async || saying(&read(), "final: ").len() == 4).await;

    let lines = read();
    // Asked for by the agent: all stages, with the ids of request and intent, and the hash of the new attempt.
    let line = told(&lines, "replacement signed", &first);
    let known = json!({"intent": id(&cancelled), "agent": agent.id, "chain": "base", "nonce": 2, "kind": "speed_up",
                       "tx_hash": raised["tx_hash"], "simulation": "none", "why": null});
    assert_says(line, known);
    assert!(line["total_ms"].is_u64() && raised["tx_hash"] != cancelled["tx_hash"], "{line}");
    let stages = [
        "authorise ",
        "claim ",
        "check ",
        "turn ",
        "begin ",
        "windows ",
        "rules ",
        "nonce ",
        "sign ",
        "write ",
        "commit ",
        "broadcast ",
    ];
    let has = |line: &Value, stage: &&str| text(line, "stages_ms").split(", ").any(|part| part.starts_with(stage));
    assert!(stages.iter().all(|stage| has(line, stage)), "{line}");
    let whole = within(&saying(&lines, "replacement signed"), &first);
    let span = whole["spans"].as_array().unwrap().iter().find(|span| span["name"] == "intent").expect("its own span");
    assert_eq!((&span["kind"], &span["id"]), (&json!("speed_up"), &json!(id(&cancelled))));
    // By a human; of bytes that were only signed; and what an earlier request had done.
    let line = told(&lines, "replacement signed", &second);
    assert_says(line, json!({"intent": id(&cancelled), "nonce": 2, "kind": "cancel", "tx_hash": noop}));
    assert!(has(line, &"sign ") && !has(line, &"claim "), "{line}");
    let line = told(&lines, "replacement signed", &closed);
    assert_says(
        line,
        json!({"intent": id(&signed[0]), "agent": agent.id, "chain": "base", "nonce": 0, "kind": "cancel"}),
    );
    let line = told(&lines, "replacement replayed", &again);
    assert_says(
        line,
        json!({"intent": id(&cancelled), "chain": "base", "nonce": 2, "kind": "speed_up", "tx_hash": null}),
    );
    assert!(has(line, &"claim ") && !has(line, &"sign "), "{line}");
    // Refused: why, and as much as was known by then.
    let line = told(&lines, "replacement refused: Transaction denied by guardrail", &forbidden);
    let known = json!({"intent": id(&cancelled), "chain": "base", "nonce": 2, "kind": "speed_up", "why": "guardrail", "tx_hash": null});
    assert_says(line, known);
    assert!(line["total_ms"].is_u64() && has(line, &"check ") && !has(line, &"sign "), "{line}");
    let line = told(&lines, "replacement refused", &unread);
    assert_says(
        line,
        json!({"intent": id(&cancelled), "chain": null, "nonce": null, "kind": "speed_up", "why": "bad_request"}),
    );
    let line = told(&lines, "replacement refused", &lost);
    assert_says(line, json!({"intent": nobodys, "chain": null, "nonce": null, "kind": "cancel", "why": "not_allowed"}));
    assert_eq!(saying(&lines, "replacement ").len(), 8, "one for each");
    let by_itself = saying(&lines, BY_ITSELF);
    assert_eq!(by_itself.len(), 1, "what a caller asked for has its own line: {by_itself:?}");
    let known = json!({"intent": id(&signed[1]), "chain": "base", "nonce": 1, "kind": "close"});
    assert_says(&by_itself[0]["fields"], known);

    // The end: which attempt was mined, and what the intent's own pipeline took, not that of whoever replaced it.
    let of = |message: &str, id: &str| {
        let found = saying(&lines, message).into_iter().find(|line| line["fields"]["intent"] == id);
        found.unwrap_or_else(|| panic!("no {message} of {id}"))["fields"].clone()
    };
    let ends = [
        (&signed[0], "cancelled", 2, None),
        (&signed[1], "cancelled", 2, None),
        (&cancelled, "cancelled", 3, Some(json!(noop))),
        (&faster, "success", 2, Some(sped_up["tx_hash"].clone())),
    ];
    for (sent, outcome, attempts, hash) in ends {
        let own = of("intent signed", &id(sent));
        let end = of(&format!("final: {outcome}"), &id(sent));
        let known = json!({"attempt": attempts, "attempts": attempts, "nonce": own["nonce"], "stages_ms": own["stages_ms"],
                           "pipeline_ms": own["total_ms"], "tx_hash": hash.unwrap_or(end["tx_hash"].clone())});
        assert_says(&end, known);
        assert_ne!(end["tx_hash"], sent["tx_hash"], "{end}");
    }
    assert!(text(told(&lines, "replacement signed", &third), "tx_hash") == text(&sped_up, "tx_hash"));

    // And counted apart from intents, each once.
    let scraped = scrape(&url).await;
    let count = |kind, outcome, chain| {
        scraped.value("intentd_intents_total", &[("chain", chain), ("kind", kind), ("outcome", outcome)])
    };
    let counted = [
        ("speed_up", "signed", "base", Some(2.0)),
        ("speed_up", "replayed", "base", Some(1.0)),
        ("speed_up", "guardrail", "base", Some(1.0)),
        ("speed_up", "bad_request", "none", Some(1.0)),
        ("speed_up", "panicked", "base", Some(0.0)),
        ("cancel", "signed", "base", Some(2.0)),
        ("cancel", "not_allowed", "none", Some(1.0)),
        ("cancel", "abandoned", "base", None),
        ("submit", "signed", "base", Some(2.0)),
        ("sign_only", "signed", "base", Some(2.0)),
        ("close", "signed", "base", None),
    ];
    for (kind, outcome, chain, value) in counted {
        assert_eq!(count(kind, outcome, chain), value, "{kind} {outcome}\n{}", scraped.text);
    }
    let stage = |stage| scraped.value("intentd_intent_stage_seconds_count", &[("stage", stage)]);
    assert_eq!(stage("total"), Some(4.0 + 8.0), "each with a story");
    assert_eq!(stage("commit"), Some(4.0 + 4.0 + 1.0), "what the daemon closed by itself is timed too");
    let log = stack.daemons[0].log_text();
    let signed: Vec<String> =
        sqlx::query_scalar("SELECT encode(raw, 'hex') FROM attempts").fetch_all(&stack.db).await.unwrap();
    assert_eq!(signed.len(), 9);
    assert!(!signed.iter().any(|bytes| log.contains(bytes)), "signed bytes are in the log");
}

/// What fails afterwards does not make a refusal of it: not in the log, not in the count, and not in the audit trail.
#[tokio::test]
async fn a_replacement_that_is_signed_is_told_as_signed_though_it_cannot_be_shown() {
    let (stack, rpc, url) = watched().await;
    let agent = stack.agent(json!({})).await;
    let signed = agent.sign(pay("0.01")).await.expect(200);
    let path = format!("{}/{}/cancel", agent.path(), text(&signed, "id"));
    rpc.on("eth_sendRawTransaction", Act::Freeze);
    let asking = {
        let (client, path) = (agent.client.clone(), path.clone());
        tokio::spawn(async move { client.post(&path, &json!({})).await })
    };
    let committed = async || stack.count("SELECT count(*) FROM attempts").await == 2;
    until(SOON, "the no-op is committed", committed).await;
    stack.sql("ALTER TABLE intents RENAME TO intents_elsewhere").await;
    rpc.clear();
    let reply = asking.await.unwrap();
    stack.sql("ALTER TABLE intents_elsewhere RENAME TO intents").await;
    assert!(reply.status.is_server_error(), "{} {}", reply.status, reply.body);
    let log = stack.daemons[0].log_text();
    assert!(log.contains("replacement signed") && !log.contains("replacement refused"), "{log}");
    let outcome = |outcome| [("chain", "base"), ("kind", "cancel"), ("outcome", outcome)];
    let scraped = scrape(&url).await;
    let counted = ["signed", "database"].map(|word| scraped.value("intentd_intents_total", &outcome(word)));
    assert_eq!(counted, [Some(1.0), Some(0.0)], "{}", scraped.text);
    let refusals =
        "SELECT count(*) FROM audit_events WHERE action = 'transaction.cancel' AND details->>'outcome' = 'refused'";
    assert_eq!(stack.count(refusals).await, 0);
    agent.client.post(&path, &json!({})).await.expect(200);
    assert_eq!(agent.settled(&text(&signed, "id")).await["receipt_status"], "cancelled");
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 2);
}
