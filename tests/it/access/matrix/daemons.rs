use serde_json::json;

use super::token;
use crate::harness::stack::{Options, Stack, text};

/// What one daemon has answered holds at the next request to any other: no daemon remembers a decision.
#[tokio::test]
async fn what_is_taken_away_is_gone_at_every_daemon_at_once() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    let owner = &stack.owner;
    let vault = text(&owner.post("/v1/vaults", &json!({"name": "v"})).await.expect(201), "id");
    let path = format!("/v1/vaults/{vault}/secrets/a");
    owner.put(&path, &json!({"value": "v"})).await.expect(201);
    let agent = stack.agent(json!({"intents_api_enabled": false})).await;
    let policies = format!("/v1/vaults/{vault}/policies");
    let grant = json!({"secret_path_pattern": "a", "principal_type": "agent", "principal_id": agent.id, "permissions": ["read"]});
    let itself = format!("/v1/agents/{}", agent.id);
    // Asked often before, so that anything that could be remembered is.
    for round in 0..5 {
        let policy = text(&owner.post(&policies, &grant).await.expect(201), "id");
        let by_token = owner.by(Some(&token(&agent.client).await)).at(&stack.daemons[1].url);
        let by_key = agent.client.at(&stack.daemons[1].url);
        let read = async || (by_token.get(&path).await.status.as_u16(), by_key.get(&path).await.status.as_u16());
        assert_eq!(read().await, (200, 200), "round {round}");

        owner.patch(&itself, &json!({"is_active": false})).await.expect(200);
        assert_eq!(read().await, (401, 401), "deactivated");
        owner.patch(&itself, &json!({"is_active": true})).await.expect(200);
        assert_eq!(read().await, (200, 200));
        owner.patch(&itself, &json!({"vault_ids": [text(&owner.post("/v1/vaults", &json!({"name": format!("other {round}")})).await.expect(201), "id")]})).await.expect(200);
        assert_eq!(read().await, (403, 403), "bound to another vault");
        owner.patch(&itself, &json!({"vault_ids": []})).await.expect(200);
        assert_eq!(read().await, (200, 200));

        by_token.at(&stack.daemons[0].url).delete("/v1/auth/token").await.expect(204);
        assert_eq!(read().await, (401, 200), "the token alone was revoked");
        owner.delete(&format!("{policies}/{policy}")).await.expect(204);
        assert_eq!(read().await, (401, 403), "the policy was deleted");
    }
    let human = stack.human(&stack.org_id, "admin").await;
    let admin = human.client.at(&stack.daemons[1].url);
    let change = async || admin.patch(&itself, &json!({"name": "x"})).await.status.as_u16();
    assert_eq!(change().await, 200);
    stack.sql(&format!("UPDATE users SET role = 'member' WHERE id = '{}'", human.id)).await;
    assert_eq!(change().await, 403);
    stack.sql(&format!("UPDATE users SET is_active = false WHERE id = '{}'", human.id)).await;
    assert_eq!(change().await, 401);

    let rotated = text(&owner.post(&format!("{itself}/rotate-key"), &json!({})).await.expect(200), "api_key");
    agent.client.at(&stack.daemons[1].url).get("/v1/agents/me").await.refused(401);
    let renewed = owner.by(Some(&rotated)).at(&stack.daemons[1].url);
    renewed.get("/v1/agents/me").await.expect(200);
    owner.delete(&itself).await.expect(204);
    renewed.get("/v1/agents/me").await.refused(401);
}
