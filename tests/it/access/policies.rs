use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack};

/// A vault of the owner's with one secret, and an agent without any right.
async fn vault_with_secret(stack: &Stack, path: &str) -> String {
    let name = format!("vault-{}", uuid::Uuid::new_v4());
    let vault = stack.owner.post("/v1/vaults", &json!({"name": name, "description": ""})).await.expect(201);
    let id = vault["id"].as_str().unwrap().to_owned();
    stack.owner.put(&format!("/v1/vaults/{id}/secrets/{path}"), &json!({"value": "v"})).await.expect(201);
    id
}

async fn plain_agent(stack: &Stack, body: Value) -> (String, Client) {
    let mut request = json!({"name": "plain"});
    request.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let made = stack.owner.post("/v1/agents", &request).await.expect(201);
    let id = made["agent"]["id"].as_str().unwrap().to_owned();
    (id, stack.owner.by(made["api_key"].as_str()))
}

async fn grant(client: &Client, vault: &str, agent: &str, more: Value) -> Value {
    let mut body =
        json!({"secret_path_pattern": "**", "principal_type": "agent", "principal_id": agent, "permissions": ["read"]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.post(&format!("/v1/vaults/{vault}/policies"), &body).await.expect(201)
}

#[tokio::test]
async fn nothing_is_allowed_that_no_policy_names_and_a_deleted_policy_stops_at_once() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    let vault = vault_with_secret(&stack, "api/stripe").await;
    let (id, agent) = plain_agent(&stack, json!({})).await;
    let there = format!("/v1/vaults/{vault}/secrets/api/stripe");
    let not_there = format!("/v1/vaults/{vault}/secrets/api/nothing");

    let (a, b) = (agent.get(&there).await.refused(403), agent.get(&not_there).await.refused(403));
    assert_eq!(a.replace("stripe", "nothing"), b, "what exists does not show");
    agent.get(&format!("/v1/vaults/{vault}")).await.refused(403);
    assert_eq!(agent.get("/v1/vaults").await.expect(200), json!({"vaults": []}));
    assert_eq!(agent.get(&format!("/v1/vaults/{vault}/secrets")).await.expect(200), json!({"secrets": []}));

    let policy = grant(&stack.owner, &vault, &id, json!({"secret_path_pattern": "api/*"})).await;
    agent.get(&there).await.expect(200);
    agent.get(&not_there).await.refused(404);
    agent.put(&there, &json!({"value": "w"})).await.refused(403);
    agent.delete(&there).await.refused(403);
    assert_eq!(agent.get("/v1/vaults").await.expect(200)["vaults"].as_array().unwrap().len(), 1);
    let own = agent.get(&format!("/v1/vaults/{vault}/policies")).await.expect(200);
    assert_eq!(own["policies"].as_array().unwrap().len(), 1);

    let path = format!("/v1/vaults/{vault}/policies/{}", policy["id"].as_str().unwrap());
    agent.put(&path, &json!({"permissions": ["write"]})).await.refused(403);
    stack.owner.put(&path, &json!({"permissions": ["write"], "conditions": null})).await.expect(200);
    agent.get(&there).await.refused(403);
    agent.put(&there, &json!({"value": "w"})).await.expect(201);
    // On the daemon that did not do it too, however warm it is.
    let elsewhere = agent.at(&stack.daemons[1].url);
    elsewhere.put(&there, &json!({"value": "w"})).await.expect(201);
    stack.owner.delete(&path).await.expect(204);
    elsewhere.put(&there, &json!({"value": "x"})).await.refused(403);
    agent.put(&there, &json!({"value": "x"})).await.refused(403);
}

#[tokio::test]
async fn binding_scopes_and_conditions_only_ever_restrict() {
    let stack = Stack::start().await;
    let vault = vault_with_secret(&stack, "api/stripe").await;
    let other = vault_with_secret(&stack, "api/stripe").await;
    let path = format!("/v1/vaults/{vault}/secrets/api/stripe");

    let (id, bound_elsewhere) = plain_agent(&stack, json!({"vault_ids": [other]})).await;
    grant(&stack.owner, &vault, &id, json!({})).await;
    bound_elsewhere.get(&path).await.refused(403);
    let (id, bound) = plain_agent(&stack, json!({"vault_ids": [vault]})).await;
    bound.get(&path).await.refused(403);
    grant(&stack.owner, &vault, &id, json!({})).await;
    bound.get(&path).await.expect(200);

    for (scopes, allowed) in
        [(json!(["db/**"]), false), (json!(["api/*"]), true), (json!(["vault:read", "db/**"]), true)]
    {
        let (id, agent) = plain_agent(&stack, json!({"scopes": scopes})).await;
        grant(&stack.owner, &vault, &id, json!({})).await;
        assert_eq!(agent.get(&path).await.status.as_u16(), if allowed { 200 } else { 403 }, "{scopes}");
    }
    for (conditions, allowed) in [
        (json!({"ip_allowlist": ["127.0.0.0/8"]}), true),
        (json!({"ip_allowlist": ["10.0.0.0/8"]}), false),
        (json!({"ip_allowlist": ["127.0.0.1"], "time_window": {"after": "00:00", "before": "23:59"}}), true),
    ] {
        let (id, agent) = plain_agent(&stack, json!({})).await;
        grant(&stack.owner, &vault, &id, json!({"conditions": conditions})).await;
        assert_eq!(agent.get(&path).await.status.as_u16(), if allowed { 200 } else { 403 }, "{conditions}");
    }
    let (id, agent) = plain_agent(&stack, json!({})).await;
    grant(&stack.owner, &vault, &id, json!({"expires_at": "2020-01-01T00:00:00Z"})).await;
    agent.get(&path).await.refused(403);
}

#[tokio::test]
async fn policies_that_would_grant_more_than_was_meant_are_refused() {
    let stack = Stack::start().await;
    let vault = vault_with_secret(&stack, "api/stripe").await;
    let (id, _) = plain_agent(&stack, json!({})).await;
    let good =
        json!({"secret_path_pattern": "api/*", "principal_type": "agent", "principal_id": id, "permissions": ["read"]});
    let path = format!("/v1/vaults/{vault}/policies");
    let v2 = json!({"effect": "allow", "priority": 0, "policy_schema_version": 1, "tx_conditions": null, "expires_at": null});
    let mut body = good.clone();
    body.as_object_mut().unwrap().extend(v2.as_object().unwrap().clone());
    stack.owner.post(&path, &body).await.expect(201);
    let refused = [
        json!({"effect": "deny"}),
        json!({"tx_conditions": {"max": 1}}),
        json!({"consensus_trigger": {"n": 2}}),
        json!({"attribute_conditions": [{}]}),
        json!({"environment_in": ["prod"]}),
        json!({"cron_expr": "* * * * *"}),
        json!({"time_window": {"after": "08:00"}}),
        json!({"ip_allowlist": ["10.0.0.0/8"]}),
        json!({"is_active": false}),
        json!({"conditions": {"environment_in": ["prod"]}}),
        json!({"conditions": {"cron_expr": "* * * * *"}}),
        json!({"conditions": {"time_window": {"after": "08:00", "days": ["someday"]}}}),
        json!({"conditions": {"time_window": {"after": "08:00", "before": "20:00", "timezone": "Mars/Base"}}}),
        json!({"permissions": []}),
        json!({"permissions": ["admin"]}),
        json!({"permissions": null}),
        json!({"secret_path_pattern": "keys/*-signer"}),
        json!({"secret_path_pattern": "../x"}),
        json!({"secret_path_pattern": null}),
        json!({"principal_type": "everyone"}),
        json!({"principal_id": uuid::Uuid::new_v4()}),
        json!({"principal_id": "x"}),
    ];
    for change in refused {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let reply = stack.owner.post(&path, &body).await;
        assert_eq!(reply.status.as_u16(), 400, "{change}: {}", reply.body);
    }
}

#[tokio::test]
async fn agents_own_the_vaults_they_make_and_grant_on_those_only() {
    let stack = Stack::start().await;
    let (id, agent) = plain_agent(&stack, json!({})).await;
    let (other_id, other) = plain_agent(&stack, json!({})).await;
    let vault = agent.post("/v1/vaults", &json!({"name": "mine"})).await.expect(201);
    assert_eq!((&vault["created_by"], &vault["created_by_type"]), (&json!(id), &json!("agent")));
    let vault = vault["id"].as_str().unwrap();
    agent.put(&format!("/v1/vaults/{vault}/secrets/a"), &json!({"value": "v"})).await.expect(201);
    assert!(stack.owner.get("/v1/vaults").await.expect(200)["vaults"].to_string().contains(vault), "its human sees it");
    other.get(&format!("/v1/vaults/{vault}/secrets/a")).await.refused(403);
    grant(&agent, vault, &other_id, json!({})).await;
    other.get(&format!("/v1/vaults/{vault}/secrets/a")).await.expect(200);

    let humans = vault_with_secret(&stack, "a").await;
    let body =
        json!({"secret_path_pattern": "**", "principal_type": "agent", "principal_id": id, "permissions": ["read"]});
    agent.post(&format!("/v1/vaults/{humans}/policies"), &body).await.refused(403);
    other.post(&format!("/v1/vaults/{vault}/policies"), &body).await.refused(403);
    other.delete(&format!("/v1/vaults/{vault}")).await.refused(403);
    agent.delete(&format!("/v1/vaults/{vault}")).await.expect(204);
    other.get(&format!("/v1/vaults/{vault}/secrets/a")).await.refused(404);
}

#[tokio::test]
async fn an_agent_grants_nothing_that_is_not_its_own_and_no_signing_key() {
    let stack = Stack::start().await;
    let (id, agent) = plain_agent(&stack, json!({"intents_api_enabled": true, "scopes": ["api/**", "keys/*"]})).await;
    let (friend_id, friend) = plain_agent(&stack, json!({"intents_api_enabled": true})).await;
    let vault = agent.post("/v1/vaults", &json!({"name": "mine"})).await.expect(201);
    let vault = format!("/v1/vaults/{}", vault["id"].as_str().unwrap());
    let policies = format!("{vault}/policies");
    let to_friend = |pattern: &str| json!({"secret_path_pattern": pattern, "principal_type": "agent", "principal_id": friend_id, "permissions": ["read", "write"]});
    for beyond in ["**", "*", "*/x", "db/**", "keys/**", "keys/base-signer", "agents/*/keys/*"] {
        agent.post(&policies, &to_friend(beyond)).await.refused(403);
    }
    agent.post(&policies, &to_friend("api/*")).await.expect(201);

    // An agent without scopes may say `**`, which opens everything but keys: neither to sign with, nor to read or replace.
    let (wide_id, wide) = plain_agent(&stack, json!({})).await;
    let wide_vault = wide.post("/v1/vaults", &json!({"name": "wide"})).await.expect(201);
    let wide_vault = format!("/v1/vaults/{}", wide_vault["id"].as_str().unwrap());
    let key = json!({"value": crate::harness::stack::fresh_scalar(), "type": "private_key"});
    stack.owner.put(&format!("{wide_vault}/secrets/keys/base-signer"), &key).await.expect(201);
    stack.owner.put(&format!("{wide_vault}/secrets/api/x"), &json!({"value": "v"})).await.expect(201);
    let wide_policies = format!("{wide_vault}/policies");
    let made = wide.post(&wide_policies, &to_friend("**")).await.expect(201);
    friend.get(&format!("{wide_vault}/secrets/api/x")).await.expect(200);
    friend.put(&format!("{wide_vault}/secrets/keys/new"), &json!({"value": "v"})).await.refused(403);
    let listed = friend.get(&format!("{wide_vault}/secrets")).await.expect(200);
    assert_eq!(listed["secrets"].as_array().unwrap().len(), 1, "{listed}");
    let path = format!("/v1/agents/{friend_id}/transactions");
    friend.post(&path, &crate::harness::stack::pay("0.001")).await.refused(403);
    // A human opens it: then it is a key that may be used (and has nothing to spend).
    let by_human = stack.owner.post(&wide_policies, &to_friend("keys/*")).await.expect(201);
    friend.post(&path, &crate::harness::stack::pay("0.001")).await.refused(422);

    // What a human said on an agent's vault is not the agent's to change; its own is, and the human's all of it.
    let by_human = format!("{wide_policies}/{}", by_human["id"].as_str().unwrap());
    wide.put(&by_human, &json!({"conditions": {}})).await.refused(403);
    wide.delete(&by_human).await.refused(403);
    let own = format!("{wide_policies}/{}", made["id"].as_str().unwrap());
    wide.put(&own, &json!({"permissions": ["read"]})).await.expect(200);
    stack.owner.put(&own, &json!({"permissions": ["write"]})).await.expect(200);
    friend.put(&format!("{wide_vault}/secrets/keys/new"), &json!({"value": "v"})).await.expect(201);
    wide.delete(&own).await.expect(204);
    assert_ne!(id, wide_id);
}

#[tokio::test]
async fn a_window_is_by_the_clock_of_its_place_on_every_daemon() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    let vault = vault_with_secret(&stack, "api/stripe").await;
    let path = format!("/v1/vaults/{vault}/secrets/api/stripe");
    // Kiritimati is 14 hours ahead and Niue 11 behind: it is never the same day of the week in both.
    let today = |zone: &str| {
        let zone = jiff::tz::TimeZoneDatabase::bundled().get(zone).unwrap();
        jiff::Timestamp::now().to_zoned(zone).weekday().to_monday_one_offset()
    };
    let (ahead, behind) = (today("Pacific/Kiritimati"), today("Pacific/Niue"));
    for (days, zone, open) in [
        (vec![ahead], "Pacific/Kiritimati", true),
        (vec![behind], "Pacific/Niue", true),
        (vec![behind], "Pacific/Kiritimati", false),
        (vec![ahead], "Pacific/Niue", false),
        (vec![1, 2, 3, 4, 5, 6, 7], "Antarctica/Troll", true),
    ] {
        let (id, agent) = plain_agent(&stack, json!({})).await;
        let window = json!({"time_window": {"days": days, "timezone": zone}});
        let made = grant(&stack.owner, &vault, &id, json!({"conditions": window})).await;
        assert_eq!(made["conditions"], window, "as it was given");
        for daemon in &stack.daemons {
            let status = agent.at(&daemon.url).get(&path).await.status.as_u16();
            assert_eq!(status, if open { 200 } else { 403 }, "{days:?} {zone}");
        }
    }
}

/// The status of a request whose target is sent as it stands: clients fold `..` away before it leaves them.
fn raw_status(base: &str, key: &str, target: &str) -> u16 {
    let address = base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    let head =
        format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    String::from_utf8_lossy(&reply).split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn threat_27_raw_and_encoded_paths_are_one_secret_and_hostile_ones_are_none() {
    let stack = Stack::start().await;
    let vault = vault_with_secret(&stack, "a/b").await;
    let base = format!("/v1/vaults/{vault}/secrets");
    let first = stack.owner.get(&format!("{base}/a/b")).await.expect(200);
    for spelled in ["a%2Fb", "a%2fb", "%61/b"] {
        assert_eq!(stack.owner.get(&format!("{base}/{spelled}")).await.expect(200)["id"], first["id"], "{spelled}");
    }
    let second = stack.owner.put(&format!("{base}/a%2Fb"), &json!({"value": "w"})).await.expect(201);
    assert_eq!((&second["id"], &second["version"], &second["path"]), (&first["id"], &json!(2), &json!("a/b")));

    let key = stack.owner.bearer.clone().unwrap();
    let hostile = [
        "a%252Fb",
        "a//b",
        "a%2F%2Fb",
        "a/./b",
        "x/../a/b",
        "x/%2e%2e/a/b",
        "x%2F..%2Fa%2Fb",
        "a/b/",
        "a/b%2F",
        "%2Fa/b",
        "a%5Cb",
        "a%00b",
        "a/b%00",
        "a%0ab",
        "a/b%20",
        "a/b.",
        "*",
        "**",
        "a/*",
        "%2e%2e",
        "%ff",
        "%",
        "a%zz",
    ];
    for path in hostile {
        let status = raw_status(&stack.owner.base, &key, &format!("{base}/{path}"));
        assert!([400, 404].contains(&status), "{path}: {status}");
    }
    assert_eq!(raw_status(&stack.owner.base, &key, &format!("{base}/a/b")), 200);
}
