//! Agents' records.

use serde_json::{Value, json};

use super::{agent, exchange, light, strictly};
use crate::harness::stack::{Stack, pay, text};

#[tokio::test]
async fn row_28_rotate_key_replies_with_the_key_alone_and_the_old_one_is_dead() {
    let stack = light().await;
    let (id, program) = agent(&stack, json!({})).await;
    let token = exchange(&stack, json!({"api_key": program.bearer})).await;
    let rotated = stack.owner.post(&format!("/v1/agents/{id}/rotate-key"), &json!({})).await.expect(200);
    strictly(&rotated, &["api_key"], &[]);
    let key = text(&rotated, "api_key");
    assert!(key.starts_with("ocv_") && key.len() == 47, "{key}");
    program.get("/v1/agents/me").await.refused(401);
    program.by(token["access_token"].as_str()).get("/v1/agents/me").await.refused(401);
    assert_eq!(program.by(Some(&key)).get("/v1/agents/me").await.expect(200)["id"], json!(id));
    program.by(Some(&key)).post(&format!("/v1/agents/{id}/rotate-key"), &json!({})).await.refused(403);
}

#[tokio::test]
async fn row_29_an_agent_is_deleted_with_204_and_its_transactions_and_events_stay() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({})).await;
    let sent = payer.submit(pay("0.001")).await.expect(201);
    assert_eq!(stack.owner.delete(&format!("/v1/agents/{}", payer.id)).await.expect(204), Value::Null);
    payer.client.get("/v1/agents/me").await.refused(401);
    stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": payer.api_key})).await.refused(401);
    stack.owner.get(&format!("/v1/agents/{}", payer.id)).await.refused(404);
    // What it did can still be looked at.
    let listed = stack.owner.get(&payer.path()).await.expect(200);
    assert_eq!(listed["transactions"][0]["tx_hash"], sent["tx_hash"]);
    let one = format!("{}/{}", payer.path(), text(&sent, "id"));
    assert_eq!(stack.owner.get(&one).await.expect(200)["id"], sent["id"]);
    let events = stack.owner.get(&format!("/v1/audit/events?actor_id={}", payer.id)).await.expect(200);
    assert!(
        events["events"].as_array().unwrap().iter().any(|event| event["action"] == "transaction.submit"),
        "{events}"
    );
    // By its own organisation.
    let other = stack.organisation("other").await;
    stack.human(&other, "owner").await.client.get(&payer.path()).await.refused(404);
}

#[tokio::test]
async fn row_30_crypto_proxy_enabled_is_taken_and_intents_api_enabled_is_shown() {
    let stack = light().await;
    let made = stack.owner.post("/v1/agents", &json!({"name": "a", "crypto_proxy_enabled": true})).await.expect(201);
    let path = format!("/v1/agents/{}", text(&made["agent"], "id"));
    for (change, on) in [
        (json!({}), true),
        (json!({"crypto_proxy_enabled": false}), false),
        (json!({"crypto_proxy_enabled": true}), true),
        (json!({"intents_api_enabled": false}), false),
    ] {
        let shown = stack.owner.patch(&path, &change).await.expect(200);
        assert_eq!((&shown["intents_api_enabled"], shown.get("crypto_proxy_enabled")), (&json!(on), None), "{change}");
    }
}
