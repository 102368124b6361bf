use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{holds, member, nobody, sign_up, stack};
use crate::harness::client::Client;
use crate::harness::stack::{text, until};

#[tokio::test]
async fn a_key_is_shown_once_bounded_in_number_and_ends_when_it_is_revoked() {
    let stack = stack(2).await;
    let elsewhere = stack.daemons[1].url.clone();
    let ada = sign_up(&stack, "ada@example.com").await;
    let made =
        ada.post("/v1/auth/api-keys", &json!({"name": "ci", "scopes": null, "expires_at": null})).await.expect(201);
    assert_eq!(member(&made), ["api_key", "key"].into());
    let key = text(&made, "api_key");
    assert_eq!(member(&made["key"]), ["created_at", "id", "is_active", "key_prefix", "name", "scopes"].into());
    assert!(key.starts_with("1ck_") && key.starts_with(&text(&made["key"], "key_prefix")) && key.len() == 47);
    assert_eq!(text(&made["key"], "key_prefix").len(), 12);
    let by_key = stack.owner.by(Some(&key));
    assert!(holds(&by_key, &elsewhere).await);
    let token = nobody(&stack).post("/v1/auth/api-key-token", &json!({"api_key": key})).await.expect(200);
    let by_token = stack.owner.by(token["access_token"].as_str());
    let listed = ada.get("/v1/auth/api-keys").await.expect(200);
    assert!(!listed.to_string().contains(&key), "{listed}");
    // Uses are written together, some seconds later, and by the daemon that saw them.
    let list = async || ada.get("/v1/auth/api-keys").await.expect(200);
    let stamped = async || list().await["keys"][0]["last_used_at"].is_string();
    until(Duration::from_secs(20), "the last use", stamped).await;

    // Somebody else's key is not there.
    let eve = sign_up(&stack, "eve@example.com").await;
    let path = format!("/v1/auth/api-keys/{}", text(&made["key"], "id"));
    eve.delete(&path).await.refused(404);
    assert_eq!(eve.get("/v1/auth/api-keys").await.expect(200)["keys"], json!([]));
    ada.at(&elsewhere).delete(&path).await.expect(204);
    assert!(!holds(&by_key, &stack.owner.base).await && !holds(&by_token, &elsewhere).await);
    ada.delete(&path).await.refused(404);
    assert_eq!(ada.get("/v1/auth/api-keys").await.expect(200)["keys"], json!([]));

    for wrong in [
        json!({}),
        json!({"name": ""}),
        json!({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}),
        json!({"name": "x", "expires_at": "soon"}),
        json!({"name": "x", "scopes": [""]}),
        json!({"name": "x", "scopes": vec!["a"; 101]}),
    ] {
        ada.post("/v1/auth/api-keys", &wrong).await.refused(400);
    }
    // A key that ends makes none that outlives it.
    let end = "2099-01-01T00:00:00Z";
    let ending = ada.post("/v1/auth/api-keys", &json!({"name": "ending", "expires_at": end})).await.expect(201);
    assert_eq!(ending["key"]["expires_at"], end);
    let ending = stack.owner.by(Some(&text(&ending, "api_key")));
    for wrong in [json!({"name": "x"}), json!({"name": "x", "expires_at": "2099-01-01T00:00:01Z"})] {
        let told = ending.post("/v1/auth/api-keys", &wrong).await.refused(400);
        assert!(told.contains(end), "{told}");
    }
    ending.post("/v1/auth/api-keys", &json!({"name": "x", "expires_at": end})).await.expect(201);
    stack.sql("UPDATE user_api_keys SET expires_at = now() WHERE name = 'ending'").await;
    assert!(!holds(&ending, &elsewhere).await);

    // Fifty at most, also when they are asked for at once on two daemons.
    let attempts = (0..60).map(|n| {
        let at = ada.at(&stack.daemons[n % 2].url);
        async move { at.post("/v1/auth/api-keys", &json!({"name": format!("k{n}")})).await }
    });
    let replies = join_all(attempts).await;
    let made = replies.iter().filter(|reply| reply.status == 201).count();
    assert_eq!(made, 48, "{replies:?}");
    let refused = replies.into_iter().find(|reply| reply.status == 403).unwrap();
    assert_eq!(refused.body["type"], "resource_limit_exceeded");
}

/// What manages something, or would make more of the key than it is; none of it is for a key that is limited to paths.
fn managing(vault: &str, agent: &str, policy: &str, key: &str) -> Vec<(Method, String, Value)> {
    let grant =
        json!({"secret_path_pattern": "**", "principal_type": "agent", "principal_id": agent, "permissions": ["read"]});
    let inside = json!({"secret_path_pattern": "a/*", "principal_type": "agent", "principal_id": agent, "permissions": ["read"]});
    vec![
        (Method::POST, "/v1/vaults".into(), json!({"name": "more"})),
        (Method::DELETE, format!("/v1/vaults/{vault}"), Value::Null),
        (Method::POST, format!("/v1/vaults/{vault}/policies"), grant),
        (Method::POST, format!("/v1/vaults/{vault}/policies"), inside),
        (Method::PUT, format!("/v1/vaults/{vault}/policies/{policy}"), json!({"permissions": ["write"]})),
        (Method::DELETE, format!("/v1/vaults/{vault}/policies/{policy}"), Value::Null),
        (Method::POST, "/v1/agents".into(), json!({"name": "more"})),
        (Method::PATCH, format!("/v1/agents/{agent}"), json!({"name": "x"})),
        (Method::POST, format!("/v1/agents/{agent}/rotate-key"), Value::Null),
        (Method::DELETE, format!("/v1/agents/{agent}"), Value::Null),
        (Method::GET, "/v1/org/members".into(), Value::Null),
        (Method::GET, "/v1/audit/events".into(), Value::Null),
        (Method::POST, "/v1/auth/api-keys".into(), json!({"name": "more"})),
        (Method::POST, "/v1/auth/api-keys".into(), json!({"name": "more", "scopes": ["a/*"]})),
        (Method::GET, "/v1/auth/api-keys".into(), Value::Null),
        (Method::DELETE, format!("/v1/auth/api-keys/{key}"), Value::Null),
        (Method::GET, "/v1/auth/me".into(), Value::Null),
        (Method::PATCH, "/v1/auth/me".into(), json!({"display_name": "x"})),
        (Method::DELETE, "/v1/auth/me".into(), json!({"confirm": "DELETE MY ACCOUNT"})),
        (Method::POST, "/v1/auth/change-password".into(), json!({"current_password": "a", "new_password": "b"})),
        (Method::GET, "/v1/auth/mfa/status".into(), Value::Null),
        (Method::POST, "/v1/auth/mfa/setup".into(), Value::Null),
        (Method::POST, "/v1/auth/mfa/verify-setup".into(), json!({"code": "123456"})),
        (Method::DELETE, "/v1/auth/mfa".into(), json!({"code": "123456"})),
        (Method::POST, "/v1/auth/device/approve".into(), json!({"user_code": "BBBB-BBBB"})),
        (Method::POST, "/v1/auth/device/deny".into(), json!({"user_code": "BBBB-BBBB"})),
        (Method::GET, "/v1/auth/device/code/BBBB-BBBB".into(), Value::Null),
        (Method::GET, "/v1/agents".into(), Value::Null),
        (Method::GET, "/v1/org/agent-keys-vault".into(), Value::Null),
        (Method::GET, format!("/v1/agents/{agent}/transactions/{agent}?include_signed_tx=true"), Value::Null),
        // The ids of shares open secrets anywhere.
        (Method::GET, "/v1/shares/outbound".into(), Value::Null),
        (Method::GET, "/v1/shares/inbound".into(), Value::Null),
        (Method::POST, format!("/v1/shares/{agent}/accept"), Value::Null),
        (Method::DELETE, format!("/v1/share/{agent}"), Value::Null),
    ]
}

#[tokio::test]
async fn threat_21_a_key_that_is_limited_to_paths_reaches_those_and_manages_nothing() {
    let stack = stack(1).await;
    let vault = text(&stack.owner.post("/v1/vaults", &json!({"name": "v"})).await.expect(201), "id");
    let secret = |path: &str| format!("/v1/vaults/{vault}/secrets/{path}");
    for path in ["a/one", "b/two"] {
        stack.owner.put(&secret(path), &json!({"value": path})).await.expect(201);
    }
    let agent = stack.owner.post("/v1/agents", &json!({"name": "a"})).await.expect(201);
    let agent = text(&agent["agent"], "id");
    let grant = json!({"secret_path_pattern": "b/*", "principal_type": "agent", "principal_id": agent, "permissions": ["read"]});
    let policy = stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &grant).await.expect(201);
    stack.sql("UPDATE users SET platform_admin = true").await;

    let made = stack.owner.post("/v1/auth/api-keys", &json!({"name": "limited", "scopes": ["a/*"]})).await.expect(201);
    let by_key = stack.owner.by(Some(&text(&made, "api_key")));
    let token = nobody(&stack).post("/v1/auth/api-key-token", &json!({"api_key": made["api_key"]})).await.expect(200);
    let by_token = stack.owner.by(token["access_token"].as_str());
    let events = stack.count("SELECT count(*) FROM audit_events WHERE action = 'access.denied'").await;
    let mut routes = managing(&vault, &agent, &text(&policy, "id"), &text(&made["key"], "id"));
    // The last owner could not go anyway: that it was refused for the key's sake is what the second owner shows.
    stack.human(&stack.org_id, "owner").await;
    let listed = stack.owner.get("/v1/org/members").await.expect(200);
    let own = format!("/v1/org/members/{}", listed["members"][0]["id"].as_str().unwrap());
    routes.push((Method::PATCH, own.clone(), json!({"role": "member"})));
    routes.push((Method::DELETE, own, Value::Null));
    for client in [&by_key, &by_token] {
        for (method, path, body) in &routes {
            let request = client.request(method.clone(), path);
            let request = if body.is_null() { request } else { request.json(body) };
            let reply = Client::send(request).await;
            assert_eq!(reply.status, 403, "{method} {path}: {}", reply.body);
        }
        assert_eq!(client.get(&secret("a/one")).await.expect(200)["value"], "a/one");
        client.put(&secret("a/new"), &json!({"value": "x"})).await.expect(201);
        let listed = client.get(&format!("/v1/vaults/{vault}/secrets")).await.expect(200);
        assert!(!listed.to_string().contains("b/two"), "{listed}");
        client.get(&secret("b/two")).await.refused(403);
        client.put(&secret("b/two"), &json!({"value": "x"})).await.refused(403);
        client.delete(&secret("b/two")).await.refused(403);
    }
    let now = stack.count("SELECT count(*) FROM audit_events WHERE action = 'access.denied'").await;
    assert_eq!(now - events, 2 * (i64::try_from(routes.len()).unwrap() + 3), "every refusal is written down");

    // Scopes of another kind are no ceiling, as for agents; nor is "*".
    for scopes in [json!(["vault:read", "a/*"]), json!(["*"]), json!([])] {
        let made = stack.owner.post("/v1/auth/api-keys", &json!({"name": "free", "scopes": scopes})).await.expect(201);
        let free = stack.owner.by(Some(&text(&made, "api_key")));
        assert_eq!(free.get(&secret("b/two")).await.expect(200)["value"], "b/two");
        free.get("/v1/auth/me").await.expect(200);
    }
}
