use serde_json::json;

use super::{ask, daemons, link, open, post_empty, share, store, vault};
use crate::harness::stack::fresh_scalar;

#[tokio::test]
async fn a_key_is_shared_by_nobody_from_the_hsm_and_by_no_agent_with_intents() {
    let stack = daemons(1).await;
    let (owner, nobody) = (&stack.owner, stack.owner.by(None));
    let vault = vault(owner).await;
    let held = store(owner, &vault, "keys/base-signer", json!({"value": fresh_scalar(), "type": "private_key"})).await;
    let pem = store(owner, &vault, "tls/key", json!({"value": "-----BEGIN", "type": "private_key"})).await;
    let rotated = store(owner, &vault, "ssh/key", json!({"value": "k1", "type": "ssh_key"})).await;
    store(owner, &vault, "ssh/key", json!({"value": "k2"})).await;
    let wallet = store(owner, &vault, "wallets/note", json!({"value": "n"})).await;
    let plain = store(owner, &vault, "plain", json!({"value": "p"})).await;
    let agent = stack.agent(json!({"intents_api_enabled": true})).await;
    let grant = json!({"secret_path_pattern": "**", "principal_type": "agent", "principal_id": agent.id, "permissions": ["read"]});
    owner.post(&format!("/v1/vaults/{vault}/policies"), &grant).await.expect(201);

    let refusal = ask(owner, &held, &link(json!({}))).await.expect(403);
    assert_eq!(refusal["type"], "key_held_in_hsm");
    for secret in [&held, &pem, &rotated, &wallet] {
        ask(&agent.client, secret, &link(json!({}))).await.refused(403);
    }
    let by_agent = share(&stack, &agent.client, &plain, &link(json!({}))).await;
    open(&nobody, &by_agent).await.expect(200);

    // A human may lend an ordinary key, but not to an agent with intents; and what becomes one later is behind the gate at once.
    let by_human = share(&stack, owner, &pem, &link(json!({}))).await;
    open(&nobody, &by_human).await.expect(200);
    let to_agent =
        share(&stack, owner, &pem, &link(json!({"recipient_type": "agent", "recipient_id": agent.id}))).await;
    post_empty(&agent.client, &format!("/v1/shares/{to_agent}/accept")).await.expect(204);
    open(&agent.client, &to_agent).await.refused(403);
    owner.patch(&format!("/v1/agents/{}", agent.id), &json!({"intents_api_enabled": false})).await.expect(200);
    open(&agent.client, &to_agent).await.expect(200);
    owner.patch(&format!("/v1/agents/{}", agent.id), &json!({"intents_api_enabled": true})).await.expect(200);
    store(owner, &vault, "plain", json!({"value": "now a key", "type": "ssh_key"})).await;
    open(&nobody, &by_agent).await.refused(403);
    let (note, path) = (store(owner, &vault, "keys/other", json!({"value": "not yet a key"})).await, "keys/other");
    let soon = share(&stack, owner, &note, &link(json!({}))).await;
    open(&nobody, &soon).await.expect(200);
    store(owner, &vault, path, json!({"value": fresh_scalar(), "type": "private_key"})).await;
    let refusal = open(&nobody, &soon).await.refused(403);
    assert!(!refusal.contains("0x"), "not even the address: {refusal}");
}
