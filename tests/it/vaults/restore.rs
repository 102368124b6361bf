//! The way back from a deletion, and who has it.

use reqwest::Method;
use serde_json::json;

use super::at;
use super::secrets::vault;
use crate::harness::client::Client;
use crate::harness::stack::{Stack, pay};

#[tokio::test]
async fn a_manager_restores_what_was_deleted_as_it_was() {
    let stack = super::stack(1, &[]).await;
    let vault = vault(&stack).await;
    let (path, restore) = (at(&vault, "secrets", "api/x"), at(&vault, "secret-restore", "api%2Fx"));
    stack.owner.post(&restore, &json!({})).await.refused(404);
    let body = json!({"value": "v1", "metadata": {"m": 1}, "max_access_count": 2});
    let first = stack.owner.put(&path, &body).await.expect(201);
    stack.owner.post(&restore, &json!({})).await.refused(409);
    stack.owner.get(&path).await.expect(200);
    stack.owner.delete(&path).await.expect(204);

    // Not by who could delete it: that is a manager's to say.
    let made = stack.owner.post("/v1/agents", &json!({"name": "a"})).await.expect(201);
    let agent = stack.owner.by(made["api_key"].as_str());
    let grant = json!({
        "secret_path_pattern": "**", "principal_type": "agent", "principal_id": made["agent"]["id"],
        "permissions": ["read", "write", "delete"],
    });
    stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &grant).await.expect(201);
    agent.post(&restore, &json!({})).await.refused(403);
    agent.get(&path).await.refused(410);
    let denied = stack.owner.get("/v1/audit/events?action=access.denied").await.expect(200);
    assert_eq!(denied["events"][0]["details"]["asked"], "secret.restore");

    let restored = Client::send(stack.owner.request(Method::POST, &restore)).await.expect(200);
    assert_eq!(restored, first, "with its id, its version and its time");
    assert_eq!(agent.get(&path).await.expect(200)["value"], "v1");
    // The accesses it had are still counted.
    agent.get(&path).await.refused(410);
    stack.owner.delete(&path).await.expect(204);
    let no_key = json!({"reactivate_signing_key": true});
    stack.owner.post(&restore, &no_key).await.refused(409);
    stack.owner.get(&path).await.refused(410);
    assert_eq!(
        stack.count("SELECT count(*) FROM secrets WHERE deleted_at IS NULL AND path NOT LIKE 'agents/%'").await,
        0,
        "nothing was restored"
    );
    let row = stack.owner.get("/v1/audit/events?action=secret.restore").await.expect(200);
    assert_eq!((&row["count"], &row["events"][0]["details"]["path"]), (&json!(1), &json!("api/x")));
}

#[tokio::test]
async fn storing_anew_is_no_way_around_restoring() {
    let stack = super::stack(1, &[]).await;
    let vault = vault(&stack).await;
    let path = at(&vault, "secrets", "api/x");
    let version = |n: u32| format!("{}/{n}", at(&vault, "secret-version", "api%2Fx"));
    for value in ["v1", "v2"] {
        stack.owner.put(&path, &json!({ "value": value })).await.expect(201);
    }
    assert_eq!(stack.owner.get(&version(1)).await.expect(200)["value"], "v1");
    stack.owner.delete(&path).await.expect(204);
    assert_eq!(stack.owner.put(&path, &json!({"value": "v3"})).await.expect(201)["version"], 3);
    assert_eq!(stack.owner.get(&path).await.expect(200)["value"], "v3");
    for deleted in [1, 2] {
        stack.owner.get(&version(deleted)).await.refused(410);
    }
}

#[tokio::test]
async fn a_restored_signing_key_signs_only_when_that_was_said() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let vault = stack.vault_of(&agent).await;
    let vault = vault.as_str();
    let (path, restore) = (at(vault, "secrets", "keys/base-signer"), at(vault, "secret-restore", "keys/base-signer"));
    agent.sign(pay("0.001")).await.expect(200);
    stack.owner.delete(&path).await.expect(204);
    agent.sign(pay("0.001")).await.refused(422);

    // Restored: it is there, and signs nothing.
    stack.owner.post(&restore, &json!({"reactivate_signing_key": null})).await.expect(200);
    let held = stack.owner.get(&path).await.expect(403);
    assert_eq!(held["type"], "key_held_in_hsm");
    agent.sign(pay("0.001")).await.refused(422);
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys WHERE state = 'active'").await, 0);

    // Deleted again, and restored to sign: with its own address, under every rule.
    stack.owner.delete(&path).await.expect(204);
    stack.owner.post(&restore, &json!({"reactivate_signing_key": true})).await.expect(200);
    let signed = agent.sign(pay("0.001")).await.expect(200);
    assert_eq!(signed["from"], agent.signer.to_string());
    let state = "SELECT count(*) FROM signing_keys WHERE state = 'active' AND superseded_at IS NULL";
    assert_eq!(stack.count(state).await, 1);
    let rows = stack.owner.get("/v1/audit/events?action=secret.restore").await.expect(200);
    assert!(rows["events"][0]["details"]["reactivated_key_id"].is_string() && rows["count"] == 2, "{rows}");

    // One that the HSM has forgotten does not come back, and nothing else does with it.
    stack.owner.delete(&path).await.expect(204);
    let forgotten =
        "UPDATE signing_keys SET state = 'destroyed', destroyed_at = now(), mac = NULL, mac_kek_id = NULL, blob = NULL,
                            mechanism = NULL, kek_id = NULL, cka_id = NULL";
    stack.sql(forgotten).await;
    stack.owner.post(&restore, &json!({"reactivate_signing_key": true})).await.refused(409);
    stack.owner.get(&path).await.refused(410);
    stack.owner.post(&restore, &json!({})).await.expect(200);
    agent.sign(pay("0.001")).await.refused(422);
}
