use std::time::Duration;

use serde_json::json;

use crate::harness::stack::{Options, Stack, until};

/// Requests by each credential.
const REQUESTS: usize = 200;

#[tokio::test]
async fn a_bearer_costs_one_look_up_and_its_last_use_is_written_apart_from_requests() {
    let options = Options { chains: Vec::new(), postgres: vec!["log_statement=all"], ..Options::default() };
    let stack = Stack::with(options).await;
    let made = stack.owner.post("/v1/agents", &json!({"name": "a"})).await.expect(201);
    let agent = stack.owner.by(made["api_key"].as_str());
    let token =
        stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": made["api_key"]})).await.expect(200);
    let by_token = stack.owner.by(token["access_token"].as_str());
    let made = stack.owner.post("/v1/auth/api-keys", &json!({"name": "k"})).await.expect(201);
    let (human, id) = (stack.owner.by(made["api_key"].as_str()), made["key"]["id"].as_str().unwrap());
    let executed =
        |words: &str| std::fs::read_to_string(stack.install.root.join("postgres.log")).unwrap().matches(words).count();
    let seen = || {
        [
            executed("k.key_prefix = $1"),
            executed("FROM agents WHERE key_prefix = $1"),
            executed("UPDATE agents"),
            executed("FROM revoked_tokens WHERE jti = $1"),
        ]
    };
    let before = seen();
    let stamps = executed("UPDATE user_api_keys");
    for _ in 0..REQUESTS {
        for client in [&human, &agent, &by_token] {
            client.get("/v1/vaults").await.expect(200);
        }
    }
    let cost: Vec<usize> = seen().iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(cost, [REQUESTS, 2 * REQUESTS, 0, 0]);
    let used = format!("SELECT count(*) FROM user_api_keys WHERE id = '{id}' AND last_used_at IS NOT NULL");
    until(Duration::from_secs(30), "the last use", async || stack.count(&used).await == 1).await;
    let stamps = executed("UPDATE user_api_keys") - stamps;
    assert!((1..=REQUESTS / 10).contains(&stamps), "{stamps} writes for {REQUESTS} uses");
}
