use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack};

async fn stack(daemons: usize) -> Stack {
    Stack::with(Options { daemons, chains: Vec::new(), ..Options::default() }).await
}

async fn vault(stack: &Stack, name: &str) -> String {
    let made = stack.owner.post("/v1/vaults", &json!({"name": name})).await.expect(201);
    let id = made["id"].as_str().unwrap().to_owned();
    for path in ["db/main", "api/x"] {
        stack.owner.put(&format!("/v1/vaults/{id}/secrets/{path}"), &json!({"value": "v"})).await.expect(201);
    }
    id
}

async fn open(stack: &Stack, vault: &str, agent: &str) {
    let policy =
        json!({"secret_path_pattern": "**", "principal_type": "agent", "principal_id": agent, "permissions": ["read"]});
    stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &policy).await.expect(201);
}

async fn make(stack: &Stack, body: Value) -> (String, String) {
    let mut agent = json!({"name": "a"});
    agent.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let made = stack.owner.post("/v1/agents", &agent).await.expect(201);
    (made["agent"]["id"].as_str().unwrap().to_owned(), made["api_key"].as_str().unwrap().to_owned())
}

async fn token(stack: &Stack, key: &str) -> (Value, Value) {
    let body = stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": key})).await.expect(200);
    let payload = body["access_token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    (body, serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap())
}

async fn reads(client: &Client, vault: &str, path: &str) -> bool {
    let reply = client.get(&format!("/v1/vaults/{vault}/secrets/{path}")).await;
    assert!([200, 403].contains(&reply.status.as_u16()), "{reply:?}");
    reply.status == 200
}

#[tokio::test]
async fn the_life_of_a_token_is_the_agents_own() {
    let stack = stack(1).await;
    for (ttl, lives) in [(json!(120), 120), (json!(86_400), 86_400), (Value::Null, 3_600)] {
        let (_, key) = make(&stack, json!({ "token_ttl_seconds": ttl })).await;
        let (body, claims) = token(&stack, &key).await;
        let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!((&body["expires_in"], life), (&json!(lives), lives));
    }
    let (id, key) = make(&stack, json!({})).await;
    let path = format!("/v1/agents/{id}");
    for ttl in [json!(0), json!(-1), json!(119), json!(86_401), json!("600"), json!(600.5)] {
        stack.owner.post("/v1/agents", &json!({"name": "x", "token_ttl_seconds": ttl})).await.refused(400);
        stack.owner.patch(&path, &json!({"token_ttl_seconds": ttl})).await.refused(400);
    }
    stack.owner.patch(&path, &json!({"token_ttl_seconds": 600})).await.expect(200);
    assert_eq!(token(&stack, &key).await.0["expires_in"], json!(600));
    // No token says longer life than its agent has.
    let soon = intentd::clock::rfc3339(intentd::clock::now() + time::Duration::seconds(300));
    let shown = stack.owner.patch(&path, &json!({ "expires_at": soon })).await.expect(200);
    assert_eq!(shown["expires_at"], json!(soon));
    let (body, claims) = token(&stack, &key).await;
    let lives = body["expires_in"].as_i64().unwrap();
    assert!((200..=300).contains(&lives), "{lives}");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), lives);
    let by_token = stack.owner.by(body["access_token"].as_str());
    by_token.get("/v1/agents/me").await.expect(200);
    stack.sql(&format!("UPDATE agents SET expires_at = now() - interval '1 s' WHERE id = '{id}'")).await;
    by_token.get("/v1/agents/me").await.refused(401);
    stack.owner.by(Some(&key)).get("/v1/agents/me").await.refused(401);
    stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": key})).await.refused(401);
    stack.owner.patch(&path, &json!({"expires_at": null})).await.expect(200);
    by_token.get("/v1/agents/me").await.expect(200);
}

#[tokio::test]
async fn scopes_and_vaults_bind_from_the_moment_they_are_set_whatever_a_token_says() {
    let stack = stack(2).await;
    let (first, second) = (vault(&stack, "first").await, vault(&stack, "second").await);
    let (id, key) = make(&stack, json!({})).await;
    open(&stack, &first, &id).await;
    open(&stack, &second, &id).await;
    let (body, claims) = token(&stack, &key).await;
    assert_eq!((&body["vault_ids"], &claims["vault_ids"]), (&json!([first, second]), &json!([first, second])));
    assert_eq!(claims["scopes"], json!(["**"]));
    // A token from before, at another daemon: what holds is what stands in the database.
    let old = stack.owner.at(&stack.daemons[1].url).by(body["access_token"].as_str());
    let path = format!("/v1/agents/{id}");
    let all = async || {
        let mut seen = Vec::new();
        for (vault, secret) in [(&first, "db/main"), (&first, "api/x"), (&second, "db/main"), (&second, "api/x")] {
            seen.push(reads(&old, vault, secret).await);
        }
        seen
    };
    assert_eq!(all().await, [true; 4]);
    /// What is set, and what may be read after it.
    type Case = (Value, [bool; 4]);
    let cases: [Case; 9] = [
        (json!({"scopes": ["db/**"]}), [true, false, true, false]),
        (json!({"vault_ids": [second]}), [false, false, true, false]),
        (json!({"scopes": ["db/**", "api/*"]}), [false, false, true, true]),
        // One entry that is no path: they are labels of another kind, and no ceiling.
        (json!({"scopes": ["vault:read", "db/**"]}), [false, false, true, true]),
        (json!({"scopes": ["tx:sign"]}), [false, false, true, true]),
        (json!({"scopes": ["nothing"]}), [false; 4]),
        (json!({"scopes": ["*"]}), [false, false, true, true]),
        (json!({"scopes": [], "vault_ids": []}), [true; 4]),
        (json!({"vault_ids": [first], "scopes": ["api/*"]}), [false, true, false, false]),
    ];
    for (change, readable) in cases {
        stack.owner.patch(&path, &change).await.expect(200);
        assert_eq!(all().await, readable, "{change}");
        let now = stack.owner.by(token(&stack, &key).await.0["access_token"].as_str());
        assert_eq!(reads(&now, &second, "db/main").await, readable[2], "{change}");
        // A list shows what may be read, and nothing else.
        let listed = old.get(&format!("/v1/vaults/{second}/secrets")).await.expect(200);
        let shown = listed["secrets"].as_array().unwrap().len();
        assert_eq!(shown, usize::from(readable[2]) + usize::from(readable[3]), "{change}");
    }
    let (body, claims) = token(&stack, &key).await;
    assert_eq!((&body["vault_ids"], &claims["scopes"]), (&json!([first]), &json!(["api/*"])));
    // Bound to vaults without a policy is bound to nothing more: the list opens nothing.
    let (_, key) = make(&stack, json!({"vault_ids": [first], "scopes": ["**"]})).await;
    let bound = stack.owner.by(Some(&key));
    assert!(!reads(&bound, &first, "api/x").await);
    for ids in [json!(["x"]), json!([uuid::Uuid::new_v4()]), json!("x")] {
        stack.owner.post("/v1/agents", &json!({"name": "x", "vault_ids": ids})).await.refused(400);
        stack.owner.patch(&path, &json!({ "vault_ids": ids })).await.refused(400);
    }
    for scopes in [json!([""]), json!(["a\0"]), json!(["a".repeat(1_025)]), json!("db/**")] {
        stack.owner.patch(&path, &json!({ "scopes": scopes })).await.refused(400);
    }
}

#[tokio::test]
async fn threat_25_a_new_key_ends_the_old_one_and_its_tokens_on_every_daemon() {
    let stack = stack(2).await;
    let (id, key) = make(&stack, json!({})).await;
    let (body, _) = token(&stack, &key).await;
    let elsewhere = stack.owner.at(&stack.daemons[1].url);
    let (by_token, by_key) = (elsewhere.by(body["access_token"].as_str()), elsewhere.by(Some(&key)));
    // Warm on the other daemon, so that a cache would have it.
    for client in [&by_token, &by_key] {
        client.get("/v1/agents/me").await.expect(200);
    }
    let rotated = stack.owner.post(&format!("/v1/agents/{id}/rotate-key"), &json!({})).await.expect(200);
    assert_eq!(rotated.as_object().unwrap().len(), 1);
    for client in [&by_token, &by_key] {
        client.get("/v1/agents/me").await.refused(401);
    }
    elsewhere.by(None).post("/v1/auth/agent-token", &json!({"api_key": key})).await.refused(401);
    // By key alone, and with the agent's id; with another's id it is nobody's.
    let new = rotated["api_key"].as_str().unwrap();
    let (other, _) = make(&stack, json!({})).await;
    for (agent_id, status) in [(Value::Null, 200), (json!(id), 200), (json!(other), 401), (json!("x"), 401)] {
        let body = json!({"api_key": new, "agent_id": agent_id});
        let reply = elsewhere.by(None).post("/v1/auth/agent-token", &body).await;
        let reply = if status == 200 { reply.expect(200) } else { continue };
        let mut members: Vec<&String> = reply.as_object().unwrap().keys().collect();
        members.sort();
        assert_eq!(members, ["access_token", "agent_id", "expires_in", "token_type", "vault_ids"]);
        assert!(reply["expires_in"].is_u64(), "{reply}");
    }
    for wrong in [json!(other), json!("x")] {
        elsewhere.by(None).post("/v1/auth/agent-token", &json!({"api_key": new, "agent_id": wrong})).await.refused(401);
    }
}
