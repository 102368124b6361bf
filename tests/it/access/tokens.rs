use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::stack::{Agent, Stack, pay, text, until};

fn members(body: &Value) -> BTreeSet<&str> {
    body.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_key_is_exchanged_for_a_token_that_says_who() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({"token_ttl_seconds": 600})).await;
    let nobody = stack.owner.by(None);

    let body =
        nobody.post("/v1/auth/agent-token", &json!({"api_key": agent.api_key, "agent_id": null})).await.expect(200);
    assert_eq!(members(&body), BTreeSet::from(["access_token", "agent_id", "expires_in", "token_type", "vault_ids"]));
    assert_eq!((&body["expires_in"], &body["token_type"]), (&json!(600), &json!("Bearer")));
    assert_eq!(body["agent_id"], json!(agent.id));
    assert_eq!(body["vault_ids"].as_array().unwrap().len(), 1, "the vault that its policy opens");

    let token = body["access_token"].as_str().unwrap();
    let key = nobody.get("/v1/auth/jwt-public-key").await.expect(200);
    let raw: [u8; 32] = STANDARD.decode(key["public_key_base64"].as_str().unwrap()).unwrap().try_into().unwrap();
    let claims = intentd::access::jwt::verify(&raw, "intentd", token).unwrap();
    assert_eq!(claims.sub, format!("agent:{}", agent.id));
    assert_eq!(claims.exp - claims.iat, 600);
    assert_eq!(claims.intents_api_enabled, Some(true));
    assert_eq!(claims.scopes, ["keys/*"], "the patterns of its policies");

    let me = stack.owner.by(Some(token)).get("/v1/agents/me").await.expect(200);
    assert_eq!(me["id"], json!(agent.id));

    let owner_key = stack.owner.bearer.clone().unwrap();
    let body = nobody.post("/v1/auth/api-key-token", &json!({"api_key": owner_key})).await.expect(200);
    assert_eq!(members(&body), BTreeSet::from(["access_token", "expires_in", "token_type"]));
    let human = stack.owner.by(body["access_token"].as_str());
    human.get("/v1/vaults").await.expect(200);
    human.get("/v1/agents/me").await.refused(403);
    nobody.post("/v1/auth/refresh", &json!({})).await.refused(400);
}

#[tokio::test]
async fn threat_25_a_token_ends_with_its_revocation_its_key_and_its_agent() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let exchange = async |key: &str| {
        let body = stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": key})).await.expect(200);
        stack.owner.by(body["access_token"].as_str())
    };

    let (first, second) = (exchange(&agent.api_key).await, exchange(&agent.api_key).await);
    assert_eq!(first.delete("/v1/auth/token").await.expect(204), Value::Null);
    first.get("/v1/agents/me").await.refused(401);
    second.get("/v1/agents/me").await.expect(200);

    let rotated = stack.owner.post(&format!("/v1/agents/{}/rotate-key", agent.id), &json!({})).await.expect(200);
    second.get("/v1/agents/me").await.refused(401);
    agent.client.get("/v1/agents/me").await.refused(401);
    let key = rotated["api_key"].as_str().unwrap();
    let third = exchange(key).await;

    let path = format!("/v1/agents/{}", agent.id);
    stack.owner.patch(&path, &json!({"is_active": false})).await.expect(200);
    third.get("/v1/agents/me").await.refused(401);
    stack.owner.by(Some(key)).get("/v1/agents/me").await.refused(401);
    stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": key})).await.refused(401);
    stack.owner.patch(&path, &json!({"is_active": true})).await.expect(200);
    third.get("/v1/agents/me").await.expect(200);
    stack.owner.patch(&path, &json!({"expires_at": "2020-01-01T00:00:00Z"})).await.expect(200);
    third.get("/v1/agents/me").await.refused(401);
}

#[tokio::test]
async fn threat_25_a_token_that_was_changed_is_nobodys() {
    let stack = Stack::start().await;
    let (agent, other) = (stack.agent(json!({})).await, stack.agent(json!({})).await);
    let body = stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": agent.api_key})).await.expect(200);
    let token = body["access_token"].as_str().unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    claims["sub"] = json!(format!("agent:{}", other.id));
    let swapped = encode(&claims);
    let none = encode(&json!({"alg": "none", "typ": "JWT"}));
    let hs = encode(&json!({"alg": "HS256", "typ": "JWT"}));
    let forged = [
        format!("{}.{swapped}.{}", parts[0], parts[2]),
        format!("{none}.{swapped}."),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{hs}.{}.{}", parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{token}x"),
        "x".repeat(20_000),
    ];
    for token in forged {
        stack.owner.by(Some(&token)).get("/v1/agents/me").await.refused(401);
    }
    stack.owner.by(Some(token)).get("/v1/agents/me").await.expect(200);
}

#[tokio::test]
async fn threat_26_every_wrong_credential_gets_the_same_reply() {
    let stack = Stack::start().await;
    let (agent, other) = (stack.agent(json!({})).await, stack.agent(json!({})).await);
    let key = &agent.api_key;
    let last = if key.ends_with('A') { "B" } else { "A" };
    let near = format!("{}{last}", &key[..key.len() - 1]);
    let unknown = format!("ocv_{}", "A".repeat(43));
    let attempts = [
        json!({"api_key": near}),
        json!({"api_key": unknown}),
        json!({"api_key": ""}),
        json!({"api_key": "ocv_"}),
        json!({"api_key": stack.owner.bearer}),
        json!({"api_key": key, "agent_id": other.id}),
        json!({"api_key": key, "agent_id": "not-an-id"}),
        json!({"api_key": key, "agent_id": ""}),
    ];
    let mut replies = BTreeSet::new();
    for body in attempts {
        let reply = stack.owner.by(None).post("/v1/auth/agent-token", &body).await;
        replies.insert((reply.status.as_u16(), reply.body.to_string()));
    }
    for bearer in [near.as_str(), &unknown, "garbage", "1ck_x"] {
        let reply = stack.owner.by(Some(bearer)).get("/v1/agents/me").await;
        replies.insert((reply.status.as_u16(), reply.body.to_string()));
    }
    assert_eq!(replies.len(), 1, "{replies:#?}");
    assert_eq!(replies.first().unwrap().0, 401);
}

#[tokio::test]
async fn threat_25_a_token_that_is_revoked_while_an_intent_is_under_way_signs_nothing() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let sent = agent.submit(pay("0.1")).await.expect(201);
    agent.settled(&text(&sent, "id")).await;
    let key = json!({"api_key": agent.api_key});
    let body = stack.owner.by(None).post("/v1/auth/agent-token", &key).await.expect(200);
    let by_token = Agent { client: stack.owner.by(body["access_token"].as_str()), ..agent.clone() };
    by_token.submit_with_key("before", pay("0.1")).await.expect(201);
    stack.assert_settled("base", agent.signer, 0, 2).await;

    let mut held = stack.db.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM spending_windows FOR UPDATE").execute(&mut *held).await.unwrap();
    let under_way = tokio::spawn({
        let by_token = by_token.clone();
        async move { by_token.submit(pay("0.1")).await }
    });
    until(Duration::from_secs(20), "the intent waits for its window", async || {
        stack.count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await > 0
    })
    .await;
    by_token.client.delete("/v1/auth/token").await.expect(204);
    held.rollback().await.unwrap();
    let detail = under_way.await.unwrap().refused(403);
    assert!(detail.contains("rotated or revoked"), "{detail}");
    assert_eq!(stack.count("SELECT count(*) FROM intents").await, 2);
    agent.submit(pay("0.1")).await.expect(201);
}
