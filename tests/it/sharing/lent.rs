use serde_json::json;

use super::{daemons, link, open, post_empty, share, store, vault};
use crate::harness::stack::text;

#[tokio::test]
async fn a_share_opens_only_while_its_maker_may_read_the_secret() {
    let stack = daemons(2).await;
    let (owner, nobody) = (&stack.owner, stack.owner.by(None).at(&stack.daemons[1].url));
    let vault = vault(owner).await;
    let secret = store(owner, &vault, "a/b", json!({"value": "v"})).await;
    let agent = stack.agent(json!({"intents_api_enabled": false})).await;
    let policies = format!("/v1/vaults/{vault}/policies");
    let grant = |conditions| {
        json!({"secret_path_pattern": "a/*", "principal_type": "agent", "principal_id": agent.id, "permissions": ["read"],
               "conditions": conditions})
    };
    let first = text(&owner.post(&policies, &grant(json!({}))).await.expect(201), "id");
    let id = share(&stack, &agent.client, &secret, &link(json!({}))).await;
    let opens = async || open(&nobody, &id).await.status.as_u16();
    let path = format!("/v1/agents/{}", agent.id);

    assert_eq!(opens().await, 200);
    // Each of these is felt by the next request, at the other daemon.
    for (off, on) in [
        (json!({"is_active": false}), json!({"is_active": true})),
        (json!({"expires_at": "2020-01-01T00:00:00Z"}), json!({"expires_at": "2099-01-01T00:00:00Z"})),
        (json!({"scopes": ["other/*"]}), json!({"scopes": []})),
        (json!({"vault_ids": [self::vault(owner).await]}), json!({"vault_ids": []})),
    ] {
        owner.patch(&path, &off).await.expect(200);
        assert_eq!(opens().await, 403, "{off}");
        owner.patch(&path, &on).await.expect(200);
        assert_eq!(opens().await, 200, "{on}");
    }
    owner.delete(&format!("{policies}/{first}")).await.expect(204);
    assert_eq!(opens().await, 403);
    // The conditions of the right that is lent are held against whoever opens.
    let there = text(&owner.post(&policies, &grant(json!({"ip_allowlist": ["10.0.0.0/8"]}))).await.expect(201), "id");
    assert_eq!(opens().await, 403);
    owner
        .put(&format!("{policies}/{there}"), &json!({"conditions": {"ip_allowlist": ["127.0.0.0/8"]}}))
        .await
        .expect(200);
    assert_eq!(opens().await, 200);

    // It has no life beyond its secret's and its vault's.
    let at = format!("/v1/vaults/{vault}/secrets/a/b");
    owner.delete(&at).await.expect(204);
    assert_eq!(opens().await, 410);
    owner.put(&at, &json!({"value": "again", "expires_at": "2020-01-01T00:00:00Z"})).await.expect(201);
    assert_eq!(opens().await, 410);
    owner.put(&at, &json!({"value": "again"})).await.expect(201);
    assert_eq!(opens().await, 200);
    owner.delete(&path).await.expect(204);
    assert_eq!(opens().await, 403);

    let member = stack.human(&stack.org_id, "member").await;
    let grant = json!({"secret_path_pattern": "**", "principal_type": "user", "principal_id": member.id, "permissions": ["read"]});
    owner.post(&policies, &grant).await.expect(201);
    let id = share(&stack, &member.client, &secret, &link(json!({}))).await;
    open(&nobody, &id).await.expect(200);
    stack.sql(&format!("UPDATE users SET is_active = false WHERE id = '{}'", member.id)).await;
    open(&nobody, &id).await.refused(403);
    stack.sql("UPDATE users SET is_active = true").await;
    open(&nobody, &id).await.expect(200);
    owner.delete(&format!("/v1/vaults/{vault}")).await.expect(204);
    open(&nobody, &id).await.refused(410);
    owner.delete(&format!("/v1/share/{id}")).await.expect(204);
}

#[tokio::test]
async fn threat_09_a_share_is_no_way_around_what_its_recipient_is_bound_to() {
    let stack = daemons(1).await;
    let owner = &stack.owner;
    let (vault, elsewhere) = (vault(owner).await, self::vault(owner).await);
    let secret = store(owner, &vault, "a/b", json!({"value": "v"})).await;
    let agent = stack.agent(json!({"intents_api_enabled": false, "vault_ids": [vault], "scopes": ["a/*"]})).await;
    let id = share(&stack, owner, &secret, &link(json!({"recipient_type": "agent", "recipient_id": agent.id}))).await;
    post_empty(&agent.client, &format!("/v1/shares/{id}/accept")).await.expect(204);
    open(&agent.client, &id).await.expect(200);
    for limits in [json!({"vault_ids": [elsewhere]}), json!({"vault_ids": [vault], "scopes": ["b/**"]})] {
        owner.patch(&format!("/v1/agents/{}", agent.id), &limits).await.expect(200);
        open(&agent.client, &id).await.refused(403);
    }
    // From where it may be opened is held against the socket's peer, whatever a header says.
    let id = share(&stack, owner, &secret, &link(json!({"ip_allowlist": ["10.1.2.3", "2001:db8::/32"]}))).await;
    let request = owner.by(None).request(reqwest::Method::GET, &format!("/v1/share/{id}"));
    let request = request.header("X-Forwarded-For", "10.1.2.3").header("X-Real-IP", "10.1.2.3");
    crate::harness::client::Client::send(request).await.refused(403);
    assert_eq!(stack.count("SELECT max(access_count)::bigint FROM shares").await, 1);
}
