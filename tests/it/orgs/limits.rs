use serde_json::{Value, json};

use super::{human, last_event, other_org, platform_admin};
use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Options, Stack};

async fn set(stack: &Stack, limits: Value) -> Value {
    stack.owner.put(&format!("/v1/admin/organisations/{}/limits", stack.org_id), &limits).await.expect(200)
}

/// Twenty at once on both daemons: how many passed, and what the others were told.
async fn twenty(stack: &Stack, create: impl AsyncFn(Client, usize) -> Reply) -> (usize, Vec<Reply>) {
    let racing = (0..20).map(|i| create(stack.owner.at(&stack.daemons[i % 2].url), i));
    let replies = futures::future::join_all(racing).await;
    let (passed, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 201);
    (passed.len(), refused)
}

#[track_caller]
fn assert_limited(refused: &[Reply], label: &str) {
    for reply in refused {
        assert_eq!(reply.status, 403, "{label}: {}", reply.body);
        assert_eq!(reply.body["type"], "resource_limit_exceeded", "{label}");
        let detail = reply.body["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("{label} limit reached (")) && detail.contains("/5 "), "{detail}");
    }
}

#[tokio::test]
async fn of_twenty_at_once_on_two_daemons_as_many_pass_as_there_is_room_for() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    platform_admin(&stack);
    let made = stack.owner.post("/v1/vaults", &json!({"name": "first"})).await.expect(201);
    let vault = format!("/v1/vaults/{}", made["id"].as_str().unwrap());
    let made = stack.owner.post("/v1/agents", &json!({"name": "first"})).await.expect(201);
    let agent_id = made["agent"]["id"].clone();
    set(&stack, json!({"vaults": 5, "agents": 5, "secrets": 5, "policies": 5})).await;

    let named = |i: usize| json!({"name": format!("n-{i}")});
    let (passed, refused) = twenty(&stack, async |by, i| by.post("/v1/vaults", &named(i)).await).await;
    assert_eq!(passed, 4, "and the one that was there");
    assert_limited(&refused, "Vault");
    let (passed, refused) = twenty(&stack, async |by, i| by.post("/v1/agents", &named(i)).await).await;
    assert_eq!(passed, 4);
    assert_limited(&refused, "Agent");
    let grant = json!({"secret_path_pattern": "a", "principal_type": "agent", "principal_id": agent_id, "permissions": ["read"]});
    let policies = format!("{vault}/policies");
    let (passed, refused) = twenty(&stack, async |by, _| by.post(&policies, &grant).await).await;
    assert_eq!(passed, 5);
    assert_limited(&refused, "Policy");
    // Ten paths, each twice: five paths get in, and a new version of one that is there always does.
    let secret = json!({"value": "v"});
    let put = async |by: &Client, i: usize| by.put(&format!("{vault}/secrets/s/{i}"), &secret).await;
    let (_, refused) = twenty(&stack, async |by, i| put(&by, i / 2).await).await;
    assert_limited(&refused, "Secret");
    let live = stack.owner.get(&format!("{vault}/secrets")).await.expect(200);
    let live: Vec<String> =
        live["secrets"].as_array().unwrap().iter().map(|s| s["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(live.len(), 5, "{live:?}");
    for path in &live {
        stack.owner.put(&format!("{vault}/secrets/{path}"), &secret).await.expect(201);
    }
    assert_eq!(last_event(&stack, "access.denied").await["asked"], "secret.write");
    // What is deleted makes room, for one; storing it again then needs room too.
    stack.owner.delete(&format!("{vault}/secrets/{}", live[0])).await.expect(204);
    let (passed, _) = twenty(&stack, async |by, i| put(&by, 100 + i).await).await;
    assert_eq!(passed, 1);
    stack.owner.put(&format!("{vault}/secrets/{}", live[0]), &secret).await.refused(403);

    // No limit again: everybody passes.
    set(&stack, json!({"vaults": null})).await;
    let (passed, _) = twenty(&stack, async |by, i| by.post("/v1/vaults", &named(100 + i)).await).await;
    assert_eq!(passed, 20);
}

#[tokio::test]
async fn limits_are_set_by_platform_admins_whom_only_the_operator_makes() {
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    let path = format!("/v1/admin/organisations/{}/limits", stack.org_id);
    let agent = stack.agent(json!({})).await;
    let member = human(&stack, "member").await;
    for nobody in [&stack.owner, &agent.client, &member.client] {
        nobody.get(&path).await.refused(403);
        nobody.put(&path, &json!({"vaults": 100})).await.refused(403);
    }
    platform_admin(&stack);
    let shown = stack.owner.get(&path).await.expect(200);
    let defaults =
        json!({"vaults": null, "secrets": null, "agents": null, "policies": null, "members": 1000, "api_keys": null});
    assert_eq!(shown["limits"], defaults);
    for bad in [
        json!({"vaults": -1}),
        json!({"vaults": "3"}),
        json!({"vaults": 1.5}),
        json!({"valuts": 3}),
        json!({"vaults": 3_000_000_000_u64}),
        json!({"limits": 3}),
    ] {
        stack.owner.put(&path, &bad).await.refused(400);
    }
    // Of an organisation that is not the admin's, in whose trail it is.
    let (other, _) = other_org(&stack).await;
    let other = format!("/v1/admin/organisations/{other}/limits");
    assert_eq!(stack.owner.put(&other, &json!({"limits": {"members": 2}})).await.expect(200)["limits"]["members"], 2);
    let unknown = format!("/v1/admin/organisations/{}/limits", uuid::Uuid::new_v4());
    stack.owner.put(&unknown, &json!({"members": 2})).await.refused(404);

    // Members count: who is there, not who is invited.
    let there = stack.count(&format!("SELECT count(*) FROM users WHERE org_id = '{}'", stack.org_id)).await;
    stack.owner.put(&path, &json!({"members": there})).await.expect(200);
    let refused = stack.owner.post("/v1/org/invite", &json!({"email": "more@example.test"})).await;
    assert_eq!((refused.status.as_u16(), &refused.body["type"]), (403, &json!("resource_limit_exceeded")));
    stack.owner.delete(&format!("/v1/org/members/{}", member.id)).await.expect(204);
    stack.owner.post("/v1/org/invite", &json!({"email": "more@example.test"})).await.expect(200);

    // A platform admin who is none any more is refused at the next request.
    let mut command = stack.command();
    command.args(["admin", "platform-admin", "--email", "owner@example.test", "--revoke"]);
    super::run(command);
    stack.owner.get(&path).await.refused(403);
    let mut command = stack.command();
    command.args(["admin", "platform-admin", "--email", "nobody@example.test"]);
    assert!(!command.output().unwrap().status.success());
}
