//! Other organisations' ids, other people's keys.

use std::collections::HashSet;

use alloy::primitives::Address;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::cmek::{Customer, enable, rotate};
use super::secrets::vault;
use super::{at, stack};
use crate::access::tenants::other_owner;
use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack, address_of, fresh_scalar, pay, text};

#[tokio::test]
async fn threat_31_no_route_of_vaults_answers_another_organisation() {
    let stack = stack(1, &[]).await;
    let vault = vault(&stack).await;
    let key = Customer::new();
    stack.owner.put(&at(&vault, "secrets", "a/b"), &json!({"value": "canary"})).await.expect(201);
    stack.owner.put(&at(&vault, "secrets", "gone"), &json!({"value": "canary"})).await.expect(201);
    stack.owner.delete(&at(&vault, "secrets", "gone")).await.expect(204);
    enable(&stack.owner, &vault, &key).await.expect(200);
    let next = Customer::new();
    let job = rotate(&stack.owner, &vault, &key, &next).await.expect(202);

    let other = other_owner(&stack).await;
    let theirs = other.post("/v1/vaults", &json!({"name": "theirs"})).await.expect(201);
    let theirs = text(&theirs, "id");
    let made = other.post("/v1/agents", &json!({"name": "foreign"})).await.expect(201);
    let foreign_agent = other.by(made["api_key"].as_str());
    let fingerprint = json!({"fingerprint": Customer::new().fingerprint()});
    let routes: Vec<(Method, String, Value)> = vec![
        (Method::GET, format!("/v1/vaults/{vault}"), Value::Null),
        (Method::DELETE, format!("/v1/vaults/{vault}"), Value::Null),
        (Method::GET, format!("/v1/vaults/{vault}/secrets"), Value::Null),
        (Method::GET, format!("/v1/vaults/{vault}/secrets?expiring_within=7d"), Value::Null),
        (Method::PUT, at(&vault, "secrets", "a/b"), json!({"value": "x"})),
        (Method::GET, at(&vault, "secrets", "a/b"), Value::Null),
        (Method::DELETE, at(&vault, "secrets", "a/b"), Value::Null),
        (Method::GET, at(&vault, "secret-versions", "a/b"), Value::Null),
        (Method::GET, at(&vault, "secret-version", "a/b/1"), Value::Null),
        (Method::POST, at(&vault, "secret-version-disable", "a/b/1"), json!({})),
        (Method::POST, at(&vault, "secret-rotate", "a/b"), json!({})),
        (Method::POST, at(&vault, "secret-restore", "gone"), json!({})),
        (Method::POST, format!("/v1/vaults/{vault}/cmek"), fingerprint),
        (Method::DELETE, format!("/v1/vaults/{vault}/cmek"), Value::Null),
        (Method::POST, format!("/v1/vaults/{vault}/cmek-rotate"), json!({"new_fingerprint": next.fingerprint()})),
        (Method::GET, format!("/v1/vaults/{vault}/cmek-rotate/{}", text(&job, "id")), Value::Null),
        // Their own vault with our ids behind it.
        (Method::GET, format!("/v1/vaults/{theirs}/cmek-rotate/{}", text(&job, "id")), Value::Null),
        (Method::GET, at(&theirs, "secret-version", "a/b/1"), Value::Null),
        (Method::POST, at(&theirs, "secret-restore", "gone"), json!({})),
    ];
    let call = async |client: &Client, (method, path, body): &(Method, String, Value)| {
        let request = client
            .request(method.clone(), path)
            .header("x-cmek-old-key", key.base64())
            .header("x-cmek-new-key", next.base64())
            .json(body);
        let reply = Client::send(request).await;
        assert!(!reply.body.to_string().contains("canary"), "{method} {path}");
        reply.status.as_u16()
    };
    for route in &routes {
        assert_eq!(call(&other, route).await, 404, "{} {}", route.0, route.1);
        let by_agent = call(&foreign_agent, route).await;
        assert!([403, 404].contains(&by_agent), "{} {}: {by_agent}", route.0, route.1);
        assert_eq!(call(&stack.owner.by(None), route).await, 401, "{} {}", route.0, route.1);
    }
    // An agent of the same organisation manages no keys of customers, nor restores anything, not even in a vault of its own.
    let made = stack.owner.post("/v1/agents", &json!({"name": "own"})).await.expect(201);
    let agent = stack.owner.by(made["api_key"].as_str());
    let own = text(&agent.post("/v1/vaults", &json!({"name": "agent's"})).await.expect(201), "id");
    enable(&agent, &own, &key).await.refused(403);
    agent.delete(&format!("/v1/vaults/{own}/cmek")).await.refused(403);
    rotate(&agent, &own, &key, &next).await.refused(403);
    agent.post(&at(&own, "secret-restore", "a"), &json!({})).await.refused(403);

    assert_eq!(stack.owner.get(&at(&vault, "secrets", "a/b")).await.expect(200)["value"], "canary");
    assert_eq!(stack.owner.get(&at(&vault, "secrets", "a/b")).await.expect(200)["version"], 1);
    stack.owner.get(&at(&vault, "secrets", "gone")).await.refused(410);
}

/// Keys that are stored at once, over two daemons and on the token: each is its own object, and each signs as itself.
#[tokio::test]
async fn threat_33_keys_stored_at_once_are_never_taken_for_one_another() {
    let env = vec![("INTENTD_HSM_CUSTODY".to_owned(), "token".to_owned())];
    let stack = Stack::with(Options { daemons: 2, env, ..Options::default() }).await;
    let scalars: Vec<String> = (0..12).map(|_| fresh_scalar()).collect();
    let agents = join_all(scalars.iter().map(|scalar| stack.agent_with_key(json!({}), scalar))).await;
    let ids: Vec<(Vec<u8>, Vec<u8>)> =
        sqlx::query_as("SELECT cka_id, address FROM signing_keys WHERE custody = 'token'")
            .fetch_all(&stack.db)
            .await
            .unwrap();
    assert_eq!(ids.len(), scalars.len());
    assert_eq!(ids.iter().map(|(id, _)| id).collect::<HashSet<_>>().len(), scalars.len());
    let replies = join_all(agents.iter().enumerate().map(async |(n, agent)| {
        let agent = agent.at(&stack.daemons[n % 2].url);
        (agent.signer, agent.sign(pay("0.001")).await.expect(200))
    }))
    .await;
    for ((signer, signed), scalar) in replies.iter().zip(&scalars) {
        assert_eq!(
            (signed["from"].as_str().unwrap().parse::<Address>().unwrap(), *signer),
            (*signer, address_of(scalar))
        );
    }
    // Versions of one path, stored at once: one of them signs, the others are kept apart.
    let vault = vault(&stack).await;
    let path = at(&vault, "secrets", "keys/contested");
    let bodies: Vec<Value> = (0..6).map(|_| json!({"value": fresh_scalar(), "type": "private_key"})).collect();
    join_all(bodies.iter().map(|body| stack.owner.put(&path, body)))
        .await
        .into_iter()
        .for_each(|reply| drop(reply.expect(201)));
    let of_path = "FROM signing_keys WHERE path = 'keys/contested'";
    assert_eq!(stack.count(&format!("SELECT count(DISTINCT cka_id) {of_path}")).await, 6);
    assert_eq!(stack.count(&format!("SELECT count(*) {of_path} AND state = 'active' AND version = 6")).await, 1);
    assert_eq!(stack.count(&format!("SELECT count(*) {of_path} AND state = 'active'")).await, 1);
}
