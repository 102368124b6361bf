use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::stack::{Options, Stack, until};

const HUMAN: &str = "owner@example.test";

async fn stack(daemons: usize) -> Stack {
    Stack::with(Options { daemons, chains: Vec::new(), ..Options::default() }).await
}

fn body(email: &str) -> Value {
    json!({"name": "helper", "human_email": email, "description": "d"})
}

/// Waits until the owner's organisation has so many agents.
async fn enrolled(stack: &Stack, count: usize) -> Vec<Value> {
    let list = async || stack.owner.get("/v1/agents").await.expect(200)["agents"].as_array().unwrap().clone();
    until(Duration::from_secs(10), "the agents", async || list().await.len() == count).await;
    list().await
}

#[tokio::test]
async fn threat_26_an_enrolment_tells_nobody_whether_there_is_such_a_human() {
    let stack = stack(2).await;
    let nobody = stack.owner.by(None);
    let known = nobody.post("/v1/agents/enroll", &body(HUMAN)).await;
    let unknown = nobody.post("/v1/agents/enroll", &body("nobody@example.test")).await;
    let headers = |reply: &crate::harness::client::Reply| {
        let mut names: Vec<String> = reply.headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    };
    assert_eq!((known.status, &known.body, headers(&known)), (unknown.status, &unknown.body, headers(&unknown)));
    let shown = known.expect(201);
    assert_eq!((shown.as_object().unwrap().len(), &shown["agent_id"]), (2, &json!(uuid::Uuid::nil())));
    assert!(shown["message"].is_string());

    // One for each address in ten minutes, on whichever daemon and however it is written; for those nobody has, too.
    for email in [HUMAN, "Owner@Example.TEST", " owner@example.test ", "nobody@example.test"] {
        let reply = nobody.at(&stack.daemons[1].url).post("/v1/agents/enroll", &body(email)).await;
        let wait: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=600).contains(&wait), "{wait}");
        reply.refused(429);
    }
    for wrong in [
        json!({}),
        json!({"name": "x"}),
        json!({"human_email": HUMAN}),
        json!({"name": "", "human_email": HUMAN}),
        json!({"name": "x", "human_email": "nobody"}),
        json!({"name": "x".repeat(256), "human_email": HUMAN}),
    ] {
        nobody.post("/v1/agents/enroll", &wrong).await.refused(400);
    }
    // Of many at once, one passes.
    let replies = futures::future::join_all((0..12).map(|n| {
        let client = nobody.at(&stack.daemons[n % 2].url);
        async move { client.post("/v1/agents/enroll", &body("many@example.test")).await.status.as_u16() }
    }))
    .await;
    assert_eq!(replies.iter().filter(|status| **status == 201).count(), 1, "{replies:?}");

    // The agent is there for its human, and can do nothing.
    let agents = enrolled(&stack, 1).await;
    let agent = &agents[0];
    assert_eq!((&agent["name"], &agent["description"]), (&json!("helper"), &json!("d")));
    assert_eq!((&agent["intents_api_enabled"], &agent["is_active"]), (&json!(false), &json!(true)));
    assert_eq!((&agent["scopes"], &agent["vault_ids"]), (&json!([]), &json!([])));
    assert!(agent["ssh_public_key"].is_string() && agent["ecdh_public_key"].is_string());
    let id = agent["id"].as_str().unwrap();
    assert_eq!(stack.count(&format!("SELECT count(*) FROM policies WHERE principal_id = '{id}'")).await, 0);
    let events = stack.owner.get("/v1/audit/events?action=agent.enroll").await.expect(200);
    let event = &events["events"][0];
    assert_eq!((&event["resource_id"], &event["actor_type"]), (&json!(id), &json!("anonymous")));
    assert_eq!(event["details"]["human_email"], json!(HUMAN));

    // The credentials are in the human's letter and nowhere else; nobody else gets one.
    let letters = || stack.letters(HUMAN, "asks to work for you");
    until(Duration::from_secs(10), "the letter", async || letters().len() == 1).await;
    let letter = letters().remove(0);
    assert!(letter.contains(&format!("agent id: {id}\r\n")), "{letter}");
    let key = letter.split_once("API key:  ").unwrap().1.split_whitespace().next().unwrap();
    let by_key = stack.owner.at(&stack.daemons[1].url).by(Some(key));
    assert_eq!(by_key.get("/v1/agents/me").await.expect(200)["id"], json!(id));
    assert_eq!(by_key.get("/v1/vaults").await.expect(200), json!({"vaults": []}));
    assert_eq!(std::fs::read_dir(stack.install.root.join("mail")).unwrap().count(), 1);
    let logs = stack.daemons.iter().map(|daemon| daemon.log_text()).collect::<String>();
    let events = stack.owner.get("/v1/audit/events").await.expect(200).to_string();
    assert!(!logs.contains(key) && !events.contains(key));
}

#[tokio::test]
async fn agents_that_nobody_uses_are_few_and_go_again() {
    let stack = stack(1).await;
    let nobody = stack.owner.by(None);
    let enroll = async || {
        stack.sql("DELETE FROM throttles").await;
        nobody.post("/v1/agents/enroll", &body(HUMAN)).await.expect(201);
    };
    for count in 1..=5 {
        enroll().await;
        enrolled(&stack, count).await;
    }
    let refused = async || {
        stack.count("SELECT count(*) FROM audit_events WHERE action = 'access.denied' AND details->>'asked' = 'agent.enroll'").await
    };
    enroll().await;
    until(Duration::from_secs(10), "the refusal", async || refused().await == 1).await;
    let agents = enrolled(&stack, 5).await;
    // One that is used counts no longer.
    let used = agents[0]["id"].as_str().unwrap();
    stack.owner.post(&format!("/v1/agents/{used}/rotate-key"), &json!({})).await.expect(200);
    let unclaimed = "SELECT count(*) FROM agents WHERE unclaimed";
    assert_eq!(stack.count(unclaimed).await, 5);
    let key = stack.owner.post(&format!("/v1/agents/{used}/rotate-key"), &json!({})).await.expect(200);
    stack.owner.by(key["api_key"].as_str()).get("/v1/agents/me").await.expect(200);
    assert_eq!(stack.count(unclaimed).await, 4);
    enroll().await;
    enrolled(&stack, 6).await;
    // After a week without use they go, when the next one comes; the used one stays.
    stack.sql("UPDATE agents SET created_at = created_at - interval '8 days'").await;
    enroll().await;
    let gone = async || stack.count("SELECT count(*) FROM agents WHERE deleted_at IS NOT NULL").await == 5;
    until(Duration::from_secs(10), "the unused ones are gone", gone).await;
    let left = enrolled(&stack, 2).await;
    assert!(left.iter().any(|agent| agent["id"] == json!(used)), "{left:?}");
}
