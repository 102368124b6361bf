//! Webhooks: what happened is told, signed, at least once, whatever dies.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use intentd::webhooks::rules::sign;
use serde_json::{Value, json};

use crate::harness::receiver::{Message, Receiver};
use crate::harness::stack::{Options, Stack, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

fn options(daemons: usize) -> Options {
    let env = vec![("INTENTD_OUTBOUND_ALLOW_PRIVATE".to_owned(), "127.0.0.1/32".to_owned())];
    Options { daemons, env, ..Options::default() }
}

/// Its path and its secret.
async fn hook(stack: &Stack, url: &str, events: &[&str]) -> (String, Vec<u8>) {
    let made = stack.owner.post("/v1/webhooks", &json!({"url": url, "events": events})).await.expect(201);
    let secret = text(&made, "secret");
    let secret = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    assert_eq!(secret.len(), 32);
    (format!("/v1/webhooks/{}", text(&made, "id")), secret)
}

/// As a receiver checks it, by the Standard Webhooks specification.
fn verifies(message: &Message, secret: &[u8]) -> bool {
    let (id, timestamp) = (message.header("webhook-id"), message.header("webhook-timestamp"));
    let age = intentd::clock::now().unix_timestamp() - timestamp.parse::<i64>().unwrap();
    age.abs() < 300
        && sign(secret, &id, timestamp.parse().unwrap(), &message.raw) == message.header("webhook-signature")
}

fn of(receiver: &Receiver, kind: &str) -> Vec<Message> {
    receiver.got().into_iter().filter(|message| message.kind() == kind).collect()
}

async fn waiting(stack: &Stack) -> i64 {
    stack.count("SELECT count(*) FROM webhook_deliveries WHERE NOT is_dead").await
}

#[tokio::test]
async fn threat_36_a_message_is_signed_over_its_id_its_time_and_its_raw_body() {
    let stack = Stack::with(options(1)).await;
    let receiver = Receiver::start().await;
    let (path, secret) = hook(&stack, &receiver.url, &["transaction.*"]).await;
    let agent = stack.agent(json!({})).await;
    let sent = agent.submit(pay("0.01")).await.expect(201);
    agent.settled(&text(&sent, "id")).await;
    until(SOON, "both are told", async || of(&receiver, "transaction.final").len() == 1).await;

    let (submit, end) = (&of(&receiver, "transaction.submit")[0], &of(&receiver, "transaction.final")[0]);
    for message in [submit, end] {
        assert!(verifies(message, &secret), "{message:?}");
        assert_eq!(message.body["data"]["resource_id"], sent["id"]);
    }
    assert_eq!(submit.body["data"]["details"]["tx_hash"], sent["tx_hash"]);
    assert_eq!(submit.body["data"]["details"]["outcome"], "signed");
    assert!(!String::from_utf8_lossy(&submit.raw).contains(sent["signed_tx"].as_str().unwrap()), "no signed bytes");
    // Another secret, and any of the three changed: a message that is replayed later, under another id or altered does not verify.
    assert!(!verifies(submit, &[7; 32]));
    for name in ["webhook-id", "webhook-timestamp"] {
        let mut replayed = submit.clone();
        replayed.headers.insert(name, end.headers["webhook-id"].clone());
        if name == "webhook-timestamp" {
            let later = intentd::clock::now().unix_timestamp() + 1;
            replayed.headers.insert(name, later.to_string().parse().unwrap());
        }
        assert!(!verifies(&replayed, &secret), "{name}");
    }
    let mut altered = submit.clone();
    altered.raw.push(b' ');
    assert!(!verifies(&altered, &secret));

    // What was not asked for is not told, and what is taken is kept no longer.
    assert!(receiver.got().iter().all(|message| message.kind().starts_with("transaction.")));
    until(SOON, "nothing waits", async || waiting(&stack).await == 0).await;
    let shown = stack.owner.get(&path).await.expect(200);
    assert!(shown["delivered"].as_i64().unwrap() >= 2 && shown["last_delivered_at"].is_string(), "{shown}");
    assert!(shown.get("secret").is_none(), "it was shown once");
    let encoded = STANDARD.encode(&secret);
    let rows: String = sqlx::query_scalar(
        "SELECT string_agg(w::text, '') || (SELECT string_agg(e::text, '') FROM audit_events e) FROM webhooks w",
    )
    .fetch_one(&stack.db)
    .await
    .unwrap();
    assert!(!rows.contains(&encoded) && !rows.contains(&hex::encode(&secret)), "the secret is sealed");

    stack.owner.post(&format!("{path}/test"), &Value::Null).await.expect(202);
    until(SOON, "the trial is told", async || of(&receiver, "webhook.test").len() == 1).await;
}

#[tokio::test]
async fn deliveries_survive_a_receiver_that_is_down_and_daemons_that_die() {
    let mut stack = Stack::with(options(2)).await;
    let receiver = Receiver::start().await;
    receiver.answer(503);
    hook(&stack, &receiver.url, &["transaction.submit"]).await;
    let agent = stack.agent(json!({})).await;
    let mut submitted = BTreeSet::new();
    for round in 0..3 {
        for _ in 0..4 {
            submitted.insert(text(&agent.submit(pay("0.001")).await.expect(201), "id"));
        }
        // One is killed while it may be sending, and another comes.
        stack.daemons[1].kill();
        stack.daemons.remove(1);
        stack.add_daemon(&format!("again-{round}")).await;
    }
    until(SOON, "it was tried", async || !receiver.got().is_empty()).await;
    receiver.answer(200);
    stack.sql("UPDATE webhooks SET rests_until = now(), leased_until = now()").await;
    stack.sql("UPDATE webhook_deliveries SET due_at = now()").await;
    until(SOON, "nothing waits", async || waiting(&stack).await == 0).await;
    let told: BTreeSet<String> =
        receiver.got().iter().map(|message| text(&message.body["data"], "resource_id")).collect();
    assert_eq!(told, submitted, "every one, and nothing else");
    // Whatever came twice came under one id.
    let ids: BTreeSet<String> = receiver.got().iter().map(|message| message.header("webhook-id")).collect();
    assert_eq!(ids.len(), submitted.len());
}

#[tokio::test]
async fn what_is_never_taken_is_dead_and_listed_and_sent_again_on_demand() {
    let stack = Stack::with(Options { chains: Vec::new(), ..options(1) }).await;
    let (deaf, silent, well) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    deaf.answer(400);
    silent.answer(0);
    let (path, secret) = hook(&stack, &deaf.url, &["freeze.*"]).await;
    let (slow, _) = hook(&stack, &silent.url, &["freeze.*"]).await;
    hook(&stack, &well.url, &["*"]).await;
    let frozen =
        stack.owner.post("/v1/freezes", &json!({"scope": "organisation", "reason": "a drill"})).await.expect(201);
    // One that says nothing holds up nobody else.
    until(SOON, "the others hear of it", async || of(&well, "freeze.create").len() == 1 && deaf.got().len() == 1).await;
    stack.sql("UPDATE webhook_deliveries SET attempts = 24, due_at = now()").await;
    until(SOON, "it is dead", async || {
        let dead = stack.owner.get(&format!("{path}/deliveries?state=dead")).await.expect(200);
        dead["deliveries"].as_array().unwrap().len() == 1
    })
    .await;
    let dead = stack.owner.get(&format!("{path}/deliveries?state=dead")).await.expect(200);
    let one = &dead["deliveries"][0];
    assert_eq!(
        (&one["attempts"], &one["last_status"], &one["type"]),
        (&json!(25), &json!(400), &json!("freeze.create"))
    );
    assert_eq!(stack.owner.get(&format!("{path}/deliveries?state=pending")).await.expect(200)["deliveries"], json!([]));
    deaf.answer(200);
    let again = format!("{path}/deliveries/{}/redeliver", text(one, "id"));
    stack.owner.post(&again, &Value::Null).await.expect(202);
    until(SOON, "it was taken", async || {
        stack.owner.get(&format!("{path}/deliveries")).await.expect(200)["deliveries"] == json!([])
    })
    .await;
    stack.owner.post(&again, &Value::Null).await.refused(404);
    let last = deaf.got().pop().unwrap();
    assert!(verifies(&last, &secret));
    assert_eq!(last.body["data"]["resource_id"], frozen["id"]);
    assert_eq!(last.header("webhook-id"), deaf.got()[0].header("webhook-id"), "one message, one id");

    // A receiver that is gone for good is asked no more, until a human turns it on.
    deaf.answer(410);
    stack.owner.post(&format!("{path}/test"), &Value::Null).await.expect(202);
    until(SOON, "it is off", async || stack.owner.get(&path).await.expect(200)["is_active"] == false).await;
    assert!(text(&stack.owner.get(&path).await.expect(200), "disabled_reason").contains("410"));
    deaf.answer(204);
    let on = stack.owner.patch(&path, &json!({"is_active": true})).await.expect(200);
    assert!(on.get("disabled_reason").is_none(), "{on}");
    until(SOON, "what waited comes", async || of(&deaf, "webhook.test").len() == 2).await;
    stack.owner.delete(&slow).await.expect(204);
    stack.owner.get(&slow).await.refused(404);
}

#[tokio::test]
async fn webhooks_are_made_by_managers_and_lead_nowhere_inside() {
    // Loopback is not listed here.
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    let member = stack.human(&stack.org_id, "member").await.client;
    let good = json!({"url": "https://hooks.example.com/x"});
    member.post("/v1/webhooks", &good).await.refused(403);
    for url in [
        "http://127.0.0.1/x",
        "https://127.0.0.1/x",
        "https://10.0.0.1/",
        "https://[::1]/",
        "ftp://example.com/",
        "x",
        "",
        "http://example.com/",
        "http://10.0.0.1/",
        "https://user:pass@example.com/",
    ] {
        stack.owner.post("/v1/webhooks", &json!({ "url": url })).await.refused(400);
    }
    stack
        .owner
        .post("/v1/webhooks", &json!({"url": format!("https://example.com/{}", "x".repeat(3000))}))
        .await
        .refused(400);
    stack
        .owner
        .post("/v1/webhooks", &json!({"url": "https://example.com/", "events": ["everything"]}))
        .await
        .refused(400);
    stack.owner.post("/v1/webhooks", &json!({"url": "https://example.com/", "events": []})).await.refused(400);
    // Of many at once, twenty.
    let all = futures::future::join_all((0..25).map(|_| stack.owner.post("/v1/webhooks", &good))).await;
    assert_eq!(all.iter().filter(|reply| reply.status == 201).count(), 20);
    assert_eq!(all.iter().filter(|reply| reply.status == 409).count(), 5);
    let other = stack.organisation("Other").await;
    let stranger = stack.human(&other, "owner").await.client;
    assert_eq!(stranger.get("/v1/webhooks").await.expect(200), json!({"webhooks": []}));
    stranger.get(&format!("/v1/webhooks/{}", text(&all[0].body, "id"))).await.refused(404);
}
