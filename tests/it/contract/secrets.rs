//! Secrets.

use serde_json::json;

use super::{agent, grant, light, secret, vault};
use crate::harness::stack::{Stack, text};

#[tokio::test]
async fn point_15_row_05_put_is_201_for_new_and_old_without_the_value() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    let path = secret(&own, "a/b");
    let mut ids = Vec::new();
    for version in 1..=3 {
        let stored = stack.owner.put(&path, &json!({"value": format!("of-{version}")})).await.expect(201);
        assert_eq!(stored["version"], version);
        assert!(!stored.to_string().contains("of-"), "{stored}");
        ids.push(text(&stored, "id"));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "the id stays over versions: shares go by it");
    stack.owner.delete(&path).await.expect(204);
    assert_eq!(stack.owner.put(&path, &json!({"value": "again"})).await.expect(201)["version"], 4);
}

#[tokio::test]
async fn point_16_row_06_generic_unless_given_and_ten_types() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    assert_eq!(stack.owner.put(&secret(&own, "a"), &json!({"value": "v"})).await.expect(201)["type"], "generic");
    let types = [
        "generic",
        "api_key",
        "password",
        "private_key",
        "certificate",
        "file",
        "note",
        "ssh_key",
        "env_bundle",
        "env",
    ];
    for kind in types {
        let stored = stack.owner.put(&secret(&own, "a"), &json!({"value": "v", "type": kind})).await.expect(201);
        let read = stack.owner.get(&secret(&own, "a")).await.expect(200);
        assert_eq!((&stored["type"], &read["type"]), (&json!(kind), &json!(kind)));
    }
    stack.owner.put(&secret(&own, "a"), &json!({"value": "v", "type": "passphrase"})).await.refused(400);
}

#[tokio::test]
async fn row_04_deleted_expired_and_used_up_is_410_and_what_never_was_404() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    let put = async |path: &str, body| stack.owner.put(&secret(&own, path), &body).await.expect(201);
    put("deleted", json!({"value": "v"})).await;
    stack.owner.delete(&secret(&own, "deleted")).await.expect(204);
    put("expired", json!({"value": "v", "expires_at": super::tomorrow()})).await;
    stack.sql("UPDATE secrets SET expires_at = now(); UPDATE secret_versions SET expires_at = now()").await;
    put("used", json!({"value": "v", "max_access_count": 2})).await;
    for _ in 0..2 {
        stack.owner.get(&format!("/v1/vaults/{own}/secrets")).await.expect(200);
        stack.owner.get(&secret(&own, "used")).await.expect(200);
    }
    for gone in ["deleted", "expired", "used"] {
        stack.owner.get(&secret(&own, gone)).await.refused(410);
    }
    stack.owner.get(&secret(&own, "never")).await.refused(404);
    stack.owner.delete(&secret(&own, "never")).await.refused(404);
    put("unlimited", json!({"value": "v", "max_access_count": 0})).await;
    for _ in 0..3 {
        stack.owner.get(&secret(&own, "unlimited")).await.expect(200);
    }
}

#[tokio::test]
async fn row_11_without_policies_and_scopes_an_agent_reaches_nothing() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    stack.owner.put(&secret(&own, "a"), &json!({"value": "v"})).await.expect(201);
    let (_, program) = agent(&stack, json!({})).await;
    assert_eq!(program.get("/v1/vaults").await.expect(200)["vaults"], json!([]));
    assert_eq!(program.get("/v1/agents/me").await.expect(200)["scopes"], json!([]));
    // There or not, it is refused alike.
    for path in ["a", "b"] {
        program.get(&secret(&own, path)).await.refused(403);
        program.put(&secret(&own, path), &json!({"value": "w"})).await.refused(403);
        program.delete(&secret(&own, path)).await.refused(403);
    }
    let listed = program.get(&format!("/v1/vaults/{own}/secrets")).await;
    assert!(listed.status == 403 || listed.body["secrets"] == json!([]), "{}", listed.body);
}

#[tokio::test]
async fn row_13_three_permissions_and_write_includes_delete() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    let table: [(&[&str], u16, u16, u16); 4] = [
        (&["read"], 200, 403, 403),
        (&["write"], 403, 201, 204),
        (&["delete"], 403, 403, 204),
        (&["read", "write", "delete"], 200, 201, 204),
    ];
    for (permissions, read, write, delete) in table {
        let (id, program) = agent(&stack, json!({})).await;
        grant(&stack, &own, &id, "p", permissions).await;
        let path = secret(&own, "p");
        stack.owner.put(&path, &json!({"value": "v"})).await.expect(201);
        let got = [
            program.get(&path).await.status,
            program.put(&path, &json!({"value": "w"})).await.status,
            program.delete(&path).await.status,
        ];
        assert_eq!(got.map(|status| status.as_u16()), [read, write, delete], "{permissions:?}");
    }
    let (id, _) = agent(&stack, json!({})).await;
    for wrong in [json!([]), json!(["admin"]), json!(["read", "list"]), json!(["READ"]), json!("read"), json!(null)] {
        let mut body = super::policy(&id, "p", &[]);
        body["permissions"] = wrong.clone();
        stack.owner.post(&format!("/v1/vaults/{own}/policies"), &body).await.refused(400);
    }
}

#[tokio::test]
async fn row_23_a_policy_goes_by_secret_path_pattern_alone() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    let (id, _) = agent(&stack, json!({})).await;
    let policies = format!("/v1/vaults/{own}/policies");
    for other in ["secretPathPattern", "path", "pattern"] {
        let mut body = super::policy(&id, "a", &["read"]);
        let pattern = body.as_object_mut().unwrap().remove("secret_path_pattern").unwrap();
        body[other] = pattern;
        let detail = stack.owner.post(&policies, &body).await.refused(400);
        assert!(detail.contains("secret_path_pattern"), "{detail}");
    }
    assert_eq!(stack.owner.get(&policies).await.expect(200)["policies"], json!([]));
    let made = stack.owner.post(&policies, &super::policy(&id, "a/*", &["read"])).await.expect(201);
    assert_eq!(made["secret_path_pattern"], "a/*");
}

#[tokio::test]
async fn row_32_a_secret_is_rotated_by_put_and_not_below_its_path() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    stack.owner.put(&secret(&own, "a"), &json!({"value": "v", "type": "api_key"})).await.expect(201);
    let refused = stack.owner.post(&secret(&own, "a/rotate"), &json!({"value": "w"})).await;
    assert!([400, 404, 405].contains(&refused.status.as_u16()), "{}", refused.status);
    assert!(refused.body["detail"].is_string());
    let rotated = stack.owner.put(&secret(&own, "a"), &json!({"value": "w", "type": "generic"})).await.expect(201);
    assert_eq!((&rotated["version"], &rotated["type"]), (&json!(2), &json!("generic")));
}

async fn reads(stack: &Stack, client: &crate::harness::client::Client, vault: &str, path: &str) -> u16 {
    stack.owner.put(&secret(vault, path), &json!({"value": "v"})).await.expect(201);
    client.get(&secret(vault, path)).await.status.as_u16()
}

#[tokio::test]
async fn point_24_row_12_scopes_are_a_ceiling_only_where_all_are_paths() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    for (scopes, inside, outside) in [
        (json!(["vault:read", "tx:sign"]), 200, 200),
        (json!(["vault.read", "a/*"]), 200, 200),
        (json!([]), 200, 200),
        (json!(["a/*"]), 200, 403),
        (json!(["**"]), 200, 200),
    ] {
        let (id, program) = agent(&stack, json!({"scopes": scopes})).await;
        grant(&stack, &own, &id, "**", &["read"]).await;
        assert_eq!(stack.owner.get(&format!("/v1/agents/{id}")).await.expect(200)["scopes"], scopes, "as given");
        let got = (reads(&stack, &program, &own, "a/x").await, reads(&stack, &program, &own, "b/x").await);
        assert_eq!(got, (inside, outside), "{scopes}");
    }
}

#[tokio::test]
async fn row_42_a_changed_policy_holds_at_once_for_tokens_that_go_on() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    stack.owner.put(&secret(&own, "a"), &json!({"value": "v"})).await.expect(201);
    let (id, program) = agent(&stack, json!({})).await;
    let token = super::exchange(&stack, json!({"api_key": program.bearer})).await;
    let token = program.by(token["access_token"].as_str());
    for _ in 0..2 {
        token.get(&secret(&own, "a")).await.refused(403);
        let policy = grant(&stack, &own, &id, "a", &["read"]).await;
        token.get(&secret(&own, "a")).await.expect(200);
        let policy = format!("/v1/vaults/{own}/policies/{policy}");
        stack.owner.put(&policy, &json!({"permissions": ["write"]})).await.expect(200);
        token.get(&secret(&own, "a")).await.refused(403);
        stack.owner.delete(&policy).await.expect(204);
    }
    token.get("/v1/agents/me").await.expect(200);
}
