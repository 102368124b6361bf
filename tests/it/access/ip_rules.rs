use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack};
use crate::orgs::{human, last_event, other_org, run};

const RULES: &str = "/v1/security/ip-rules";

async fn add(by: &Client, rule: Value) -> String {
    by.post(RULES, &rule).await.expect(201)["id"].as_str().unwrap().to_owned()
}

/// Whatever begins a second after a change was answered goes by it.
async fn within_a_second(client: &Client, path: &str, status: u16) {
    let changed = Instant::now();
    loop {
        let began = Instant::now();
        let reply = client.get(path).await;
        if reply.status.as_u16() == status {
            return;
        }
        assert!(
            began.duration_since(changed) < Duration::from_secs(1),
            "{} after a second: {}",
            reply.status,
            reply.body
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn rules_hold_on_every_daemon_within_a_second_for_whom_they_are_meant() {
    let mut stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let me = "/v1/agents/me";
    let (here, there) = (agent.client.clone(), agent.client.at(&stack.daemons[1].url));
    let human_there = stack.owner.at(&stack.daemons[1].url);
    let body = stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": agent.api_key})).await.expect(200);
    let token = there.by(body["access_token"].as_str());
    for client in [&here, &there, &token] {
        client.get(me).await.expect(200);
    }

    // `block` and `description` are what older clients send.
    let deny = json!({"rule_type": "block", "cidr": "127.0.0.1", "description": "no agents from here", "applies_to": "agents"});
    let shown = stack.owner.post(RULES, &deny).await.expect(201);
    assert_eq!((&shown["rule_type"], &shown["cidr"]), (&json!("deny"), &json!("127.0.0.1/32")));
    assert_eq!((&shown["label"], &shown["applies_to"]), (&json!("no agents from here"), &json!("agents")));
    assert_eq!(here.get(me).await.refused(403), there_detail(&there, me).await, "at once where it was made");
    within_a_second(&token, me, 403).await;
    human_there.get("/v1/vaults").await.expect(200);
    // A token is not to be had either, and whose key is wrong learns nothing of rules.
    let exchange = async |key: &str| there.by(None).post("/v1/auth/agent-token", &json!({"api_key": key})).await;
    exchange(&agent.api_key).await.refused(403);
    exchange(&format!("ocv_{}", "A".repeat(43))).await.refused(401);
    // Another organisation is not concerned.
    let (_, foreign) = other_org(&stack).await;
    foreign.at(&stack.daemons[1].url).get("/v1/vaults").await.expect(200);
    foreign.delete(&format!("{RULES}/{}", shown["id"].as_str().unwrap())).await.refused(404);

    stack.owner.delete(&format!("{RULES}/{}", shown["id"].as_str().unwrap())).await.expect(204);
    within_a_second(&there, me, 200).await;
    // One allow rule shuts everybody else out; deny wins over it.
    let elsewhere =
        add(&stack.owner, json!({"rule_type": "allow", "cidr": "10.1.2.3/8", "applies_to": "agents"})).await;
    within_a_second(&there, me, 403).await;
    let loopback =
        add(&stack.owner, json!({"rule_type": "allow", "cidr": "::ffff:127.0.0.0/104", "applies_to": "agents"})).await;
    within_a_second(&there, me, 200).await;
    let deny = add(&stack.owner, json!({"rule_type": "deny", "cidr": "127.0.0.0/16", "applies_to": "agents"})).await;
    within_a_second(&there, me, 403).await;
    let listed = stack.owner.get(RULES).await.expect(200);
    let networks: Vec<_> =
        listed["rules"].as_array().unwrap().iter().map(|rule| rule["cidr"].as_str().unwrap()).collect();
    assert_eq!(networks, ["10.0.0.0/8", "127.0.0.0/8", "127.0.0.0/16"]);
    for id in [&elsewhere, &loopback, &deny] {
        stack.owner.delete(&format!("{RULES}/{id}")).await.expect(204);
    }
    within_a_second(&there, me, 200).await;

    // However many were refused, the trail has one row for each principal, peer and minute of a daemon.
    add(&stack.owner, json!({"rule_type": "deny", "cidr": "127.0.0.1", "applies_to": "agents"})).await;
    within_a_second(&there, me, 403).await;
    for _ in 0..30 {
        there.get(me).await.refused(403);
    }
    stack.daemons[1].signal(Signal::TERM);
    assert!(stack.daemons[1].ended().await.success());
    let rows: Vec<(i64, Option<String>)> = sqlx::query_as(
        "SELECT (details->>'count')::bigint, host(ip_address) FROM audit_events
         WHERE action = 'access.denied' AND resource_type = 'address' AND actor_type = 'agent'",
    )
    .fetch_all(&stack.db)
    .await
    .unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(rows[0].0 > 30 && rows[0].1.as_deref() == Some("127.0.0.1"), "{rows:?}");
}

async fn there_detail(client: &Client, path: &str) -> String {
    within_a_second(client, path, 403).await;
    client.get(path).await.refused(403)
}

#[tokio::test]
async fn nobody_locks_themself_out_and_the_operator_can_let_everybody_in() {
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    let (admin, member) = (human(&stack, "admin").await, human(&stack, "member").await);
    let agent = stack.agent(json!({})).await;
    let rule = |rule_type: &str, cidr: &str| json!({"rule_type": rule_type, "cidr": cidr, "label": null});
    member.client.get(RULES).await.expect(200);
    agent.client.get(RULES).await.refused(403);
    for nobody in [&member.client, &agent.client] {
        nobody.post(RULES, &rule("deny", "192.0.2.0/24")).await.refused(403);
    }
    for bad in [
        json!({}),
        rule("permit", "10.0.0.0/8"),
        rule("deny", "10.0.0.0/33"),
        rule("deny", "example.org"),
        rule("deny", ""),
        json!({"rule_type": "deny"}),
        json!({"rule_type": "deny", "cidr": "192.0.2.0/24", "applies_to": "users"}),
        json!({"rule_type": "deny", "cidr": "192.0.2.0/24", "label": "x".repeat(256)}),
        json!({"rule_type": "deny", "cidr": "192.0.2.0/24", "label": "a", "description": "b"}),
    ] {
        admin.client.post(RULES, &bad).await.refused(400);
    }
    for out in
        [rule("deny", "0.0.0.0/0"), rule("block", "127.0.0.1"), rule("allow", "192.0.2.0/24"), rule("allow", "::/0")]
    {
        let detail = admin.client.post(RULES, &out).await.refused(422);
        assert!(detail.contains("lock you out") && detail.contains("127.0.0.1"), "{detail}");
    }
    assert_eq!(last_event(&stack, "access.denied").await["asked"], "ip_rule.create");
    assert_eq!(stack.count("SELECT count(*) FROM ip_rules").await, 0);
    let own = add(&admin.client, rule("allow", "127.0.0.0/8")).await;
    let other = add(&admin.client, rule("allow", "192.0.2.0/24")).await;
    assert_eq!(last_event(&stack, "ip_rule.create").await["rule"]["cidr"], "192.0.2.0/24");
    admin.client.delete(&format!("{RULES}/{own}")).await.refused(422);
    admin.client.delete(&format!("{RULES}/{other}")).await.expect(204);
    admin.client.delete(&format!("{RULES}/{own}")).await.expect(204);
    // Two that are harmless alone, at once: one of them would shut the door.
    for _ in 0..5 {
        let (a, b) = (rule("allow", "127.0.0.1"), rule("deny", "192.0.2.0/24"));
        let ids = [
            add(&admin.client, a).await,
            add(&admin.client, b).await,
            add(&admin.client, rule("allow", "10.0.0.0/8")).await,
        ];
        let paths = ids.map(|id| format!("{RULES}/{id}"));
        futures::future::join_all(paths.iter().map(|path| admin.client.delete(path))).await;
        stack.owner.get(RULES).await.expect(200);
        stack.sql("DELETE FROM ip_rules").await;
    }

    stack
        .sql(&format!(
            "INSERT INTO ip_rules (id, org_id, rule_type, network, applies_to, created_by)
             SELECT gen_random_uuid(), '{}', 'deny', ('192.0.2.' || n)::inet::cidr, 'all', '{}' FROM generate_series(0, 255) AS n",
            stack.org_id, admin.id
        ))
        .await;
    admin.client.post(RULES, &rule("deny", "198.51.100.7")).await.refused(409);

    // Everybody out, as after a move to another office.
    stack.sql("UPDATE ip_rules SET network = '10.0.0.0/8', rule_type = 'allow'").await;
    within_a_second(&stack.owner, "/v1/vaults", 403).await;
    let mut command = stack.command();
    command.args(["admin", "clear-ip-rules", "--organisation-id", &stack.org_id]);
    run(command);
    within_a_second(&stack.owner, "/v1/vaults", 200).await;
    assert_eq!(last_event(&stack, "ip_rule.clear").await["count"], 256);
}
