use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::stack::Stack;

/// Another organisation in the same installation.
pub async fn other_owner(stack: &Stack) -> Client {
    let mut command = stack.command();
    command.args(["admin", "bootstrap", "--organisation", "Other", "--email", "other@example.test", "--json"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    stack.owner.by(made["api_key"].as_str())
}

/// Every route of this feature that takes an id, with the ids of the first organisation in it.
fn routes(agent: &str, vault: &str, policy: &str) -> Vec<(Method, String, Value)> {
    let change = json!({"name": "x"});
    let secret = json!({"value": "x"});
    let grant =
        json!({"secret_path_pattern": "**", "principal_type": "agent", "principal_id": agent, "permissions": ["read"]});
    vec![
        (Method::GET, format!("/v1/agents/{agent}"), Value::Null),
        (Method::PATCH, format!("/v1/agents/{agent}"), change),
        (Method::POST, format!("/v1/agents/{agent}/rotate-key"), json!({})),
        (Method::DELETE, format!("/v1/agents/{agent}"), Value::Null),
        (Method::GET, format!("/v1/vaults/{vault}"), Value::Null),
        (Method::GET, format!("/v1/vaults/{vault}/secrets"), Value::Null),
        (Method::GET, format!("/v1/vaults/{vault}/secrets/a/b"), Value::Null),
        (Method::PUT, format!("/v1/vaults/{vault}/secrets/a/b"), secret),
        (Method::DELETE, format!("/v1/vaults/{vault}/secrets/a/b"), Value::Null),
        (Method::GET, format!("/v1/vaults/{vault}/policies"), Value::Null),
        (Method::POST, format!("/v1/vaults/{vault}/policies"), grant),
        (Method::PUT, format!("/v1/vaults/{vault}/policies/{policy}"), json!({"permissions": ["write"]})),
        (Method::DELETE, format!("/v1/vaults/{vault}/policies/{policy}"), Value::Null),
        (Method::DELETE, format!("/v1/vaults/{vault}"), Value::Null),
    ]
}

async fn call(client: &Client, (method, path, body): &(Method, String, Value)) -> u16 {
    let request = client.request(method.clone(), path);
    let request = if body.is_null() { request } else { request.json(body) };
    Client::send(request).await.status.as_u16()
}

#[tokio::test]
async fn threat_31_another_organisations_things_are_not_there() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let vault =
        stack.owner.post("/v1/vaults", &json!({"name": "a"})).await.expect(201)["id"].as_str().unwrap().to_owned();
    stack.owner.put(&format!("/v1/vaults/{vault}/secrets/a/b"), &json!({"value": "secret"})).await.expect(201);
    let grant = json!({"secret_path_pattern": "**", "principal_type": "agent", "principal_id": agent.id, "permissions": ["read"]});
    let policy = stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &grant).await.expect(201);
    let policy = policy["id"].as_str().unwrap();

    let other = other_owner(&stack).await;
    let foreign = other.post("/v1/agents", &json!({"name": "foreign", "intents_api_enabled": true})).await.expect(201);
    let foreign_agent = other.by(foreign["api_key"].as_str());
    let theirs = other.post("/v1/vaults", &json!({"name": "a"})).await.expect(201);
    for route in routes(&agent.id, &vault, policy) {
        assert_eq!(call(&other, &route).await, 404, "{} {}", route.0, route.1);
        let by_agent = call(&foreign_agent, &route).await;
        assert!([403, 404].contains(&by_agent), "{} {}: {by_agent}", route.0, route.1);
        // 30: and nobody at all does anything.
        assert_eq!(call(&stack.owner.by(None), &route).await, 401, "{} {}", route.0, route.1);
    }
    // Ids in bodies do not cross either.
    let theirs = theirs["id"].as_str().unwrap();
    other.post(&format!("/v1/vaults/{theirs}/policies"), &grant).await.refused(400);
    other.post("/v1/agents", &json!({"name": "x", "vault_ids": [vault]})).await.refused(400);
    // A policy of another vault is not this vault's.
    stack.owner.delete(&format!("/v1/vaults/{theirs}/policies/{policy}")).await.refused(404);
    for (list, member) in
        [("/v1/agents", "agents"), ("/v1/vaults", "vaults"), ("/v1/audit/events?limit=1000", "events")]
    {
        let body = other.get(list).await.expect(200);
        // What their own tried and was refused may name what they tried it on.
        let seen = body[member].as_array().unwrap().iter().filter(|entry| entry["action"] != "access.denied");
        for entry in seen.map(Value::to_string) {
            assert!(!entry.contains(&agent.id) && !entry.contains(&vault), "{list}: {entry}");
        }
    }
    // All of it is still there for its own.
    stack.owner.get(&format!("/v1/vaults/{vault}/secrets/a/b")).await.expect(200);
    agent.client.get("/v1/agents/me").await.expect(200);
}

#[tokio::test]
async fn threat_21_an_agent_reaches_no_route_of_humans() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({"tx_max_value_eth": "0.1"})).await;
    let own = format!("/v1/agents/{}", agent.id);
    agent.client.patch(&own, &json!({"tx_max_value_eth": null})).await.refused(403);
    agent.client.delete(&own).await.refused(403);
    agent.client.post(&format!("{own}/rotate-key"), &json!({})).await.refused(403);
    agent.client.post("/v1/agents", &json!({"name": "more"})).await.refused(403);
    agent.client.get("/v1/audit/events").await.refused(403);
    agent.client.get("/v1/org/members").await.refused(403);
    assert_eq!(stack.owner.get(&own).await.expect(200)["tx_max_value_eth"], "0.1");
}

#[tokio::test]
async fn a_member_manages_nothing_and_needs_policies_like_anybody() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let vault = stack.owner.post("/v1/vaults", &json!({"name": "of the owner"})).await.expect(201);
    stack
        .owner
        .put(&format!("/v1/vaults/{}/secrets/a", vault["id"].as_str().unwrap()), &json!({"value": "v"}))
        .await
        .expect(201);
    let other = other_owner(&stack).await;
    // The same organisation, seen by somebody who is only a member.
    stack.sql(&format!("UPDATE user_api_keys SET org_id = '{0}' WHERE org_id <> '{0}'", stack.org_id)).await;
    stack.sql(&format!("UPDATE users SET role = 'member', org_id = '{0}' WHERE org_id <> '{0}'", stack.org_id)).await;
    let member = other;
    member.patch(&format!("/v1/agents/{}", agent.id), &json!({"name": "x"})).await.refused(403);
    member.post("/v1/agents", &json!({"name": "x"})).await.refused(403);
    let vault = vault["id"].as_str().unwrap();
    member.get(&format!("/v1/vaults/{vault}")).await.expect(200);
    member.get(&format!("/v1/vaults/{vault}/secrets/a")).await.refused(403);
    member.delete(&format!("/v1/vaults/{vault}")).await.refused(403);
    let user_id = stack.owner.get("/v1/org/members").await.expect(200)["members"][1]["id"].clone();
    let grant =
        json!({"secret_path_pattern": "*", "principal_type": "user", "principal_id": user_id, "permissions": ["read"]});
    member.post(&format!("/v1/vaults/{vault}/policies"), &grant).await.refused(403);
    stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &grant).await.expect(201);
    member.get(&format!("/v1/vaults/{vault}/secrets/a")).await.expect(200);
    let own = member.post("/v1/vaults", &json!({"name": "own"})).await.expect(201);
    member
        .put(&format!("/v1/vaults/{}/secrets/a", own["id"].as_str().unwrap()), &json!({"value": "v"}))
        .await
        .expect(201);
}
