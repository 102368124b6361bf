//! The audit trail.

mod links;
mod proof;
mod scene;

use std::time::Duration;

use intentd::audit::store::{self, Filter};
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack, fresh_scalar, pay, until};

/// A wait for the background task.
const SOON: Duration = Duration::from_secs(60);

/// Every event has its link.
async fn linked(stack: &Stack) {
    let none_waits = async || stack.count("SELECT count(*) FROM audit_unlinked").await == 0;
    until(SOON, "every event has its link", none_waits).await;
}

/// Every chain is signed up to its end.
async fn signed(stack: &Stack) {
    let none_due = async || {
        let due = "SELECT (SELECT count(*) FROM audit_unlinked) + (SELECT count(*) FROM audit_heads WHERE seq > checkpoint_seq)";
        stack.count(due).await == 0
    };
    until(SOON, "every chain is signed", none_due).await;
}

/// The trail's verdicts, piece by piece to the end.
async fn verified(stack: &Stack) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let part = stack.owner.get(&format!("/v1/audit/verify{cursor}")).await.expect(200);
        let next = part["next_cursor"].as_str().map(|next| format!("?cursor={next}"));
        found.push(part);
        match next {
            Some(next) => cursor = next,
            None => return found,
        }
    }
}

/// The last verdict of a trail that is whole.
async fn whole(stack: &Stack) -> Value {
    let all = verified(stack).await;
    assert!(all.iter().all(|part| part["chain_valid"] == true), "{all:?}");
    all.last().unwrap().clone()
}

/// What `intentd admin …` prints.
fn admin(stack: &Stack, arguments: &[&str]) -> String {
    let output = stack.command().arg("admin").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn events(stack: &Stack, query: &str) -> Vec<Value> {
    let body = stack.owner.get(&format!("/v1/audit/events?limit=1000{query}")).await.expect(200);
    let events = body["events"].as_array().unwrap().clone();
    assert_eq!(body["count"], events.len());
    events
}

#[tokio::test]
async fn effects_reads_and_refusals_are_all_written_down() {
    let stack = Stack::start().await;
    let vault = stack.owner.post("/v1/vaults", &json!({"name": "v"})).await.expect(201);
    let vault = vault["id"].as_str().unwrap();
    let path = format!("/v1/vaults/{vault}/secrets/a");
    let agent = stack.agent(json!({})).await;
    let secret = stack.owner.put(&path, &json!({"value": "v"})).await.expect(201);
    stack.owner.get(&path).await.expect(200);
    agent.client.get(&path).await.refused(403);
    stack.owner.delete(&path).await.expect(204);

    let id = secret["id"].as_str().unwrap();
    let actions: Vec<Value> =
        events(&stack, &format!("&resource_id={id}")).await.iter().map(|e| e["action"].clone()).collect();
    assert_eq!(actions, ["secret.delete", "secret.read", "secret.write"], "newest first");
    let by_agent = events(&stack, &format!("&actor_id={}", agent.id)).await;
    assert_eq!(by_agent.len(), 1);
    assert_eq!((&by_agent[0]["action"], &by_agent[0]["actor_type"]), (&json!("access.denied"), &json!("agent")));
    assert_eq!(by_agent[0]["details"]["asked"], "secret.read");
    assert_eq!(by_agent[0]["ip_address"], "127.0.0.1");
    let vaults = stack.count("SELECT count(*) FROM vaults").await;
    let made = events(&stack, "&action=vault.create&from=2020-01-01T00:00:00Z").await;
    assert_eq!(i64::try_from(made.len()).unwrap(), vaults);
    assert_eq!(events(&stack, "&to=2020-01-01T00:00:00Z").await.len(), 0);
    assert_eq!(events(&stack, "&actor_id=nobody").await.len(), 0);
    for bad in ["from=yesterday", "limit=0", "limit=x", "offset=-1", "cursor=x", "action=%00"] {
        stack.owner.get(&format!("/v1/audit/events?{bad}")).await.refused(400);
    }

    // Pages by cursor and by offset give every event once.
    let all = events(&stack, "").await;
    let (mut by_cursor, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = stack.owner.get(&format!("/v1/audit/events?limit=3{cursor}")).await.expect(200);
        by_cursor.extend(page["events"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(by_cursor, all);
    assert_eq!(stack.owner.get("/v1/audit/events?limit=2&offset=1").await.expect(200)["events"], json!(all[1..3]));
}

#[tokio::test]
async fn rows_cannot_be_changed_or_removed() {
    let stack = Stack::start().await;
    linked(&stack).await;
    for statement in [
        "UPDATE audit_events SET action = 'x'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "UPDATE audit_links SET seq = seq + 1",
        "DELETE FROM audit_links",
        "TRUNCATE audit_links",
        "TRUNCATE audit_checkpoints",
    ] {
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&stack.db).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
}

#[tokio::test]
async fn failed_authentications_are_counted_into_one_row() {
    let mut stack = Stack::start().await;
    for _ in 0..7 {
        stack.owner.by(Some("ocv_wrong")).get("/v1/vaults").await.refused(401);
    }
    // Counts are written every minute, and when the daemon stops.
    let mut daemon = stack.daemons.pop().unwrap();
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.ended().await.success());
    let rows: Vec<(String, Value)> =
        sqlx::query_as("SELECT actor_type, details FROM audit_events WHERE action = 'auth.failure'")
            .fetch_all(&stack.db)
            .await
            .unwrap();
    assert_eq!(rows, [("anonymous".to_owned(), json!({"count": 7}))]);
}

#[tokio::test]
async fn threat_23_no_secret_reaches_a_log_an_audit_row_an_error_or_a_plain_column() {
    let stack = Stack::start().await;
    let scalar = fresh_scalar();
    let agent = stack.agent_with_key(json!({}), &scalar).await;
    let vault = stack.owner.post("/v1/vaults", &json!({"name": "v"})).await.expect(201);
    let vault = vault["id"].as_str().unwrap();
    let canary = "canary-7c1e0b7d";
    let path = format!("/v1/vaults/{vault}/secrets/a");
    let mut replies = Vec::new();
    for body in [
        json!({"value": canary}),
        json!({"value": canary, "type": "nonsense"}),
        json!({"value": {"a": canary}}),
        json!({"value": canary, "max_access_count": -1}),
        json!({"value": canary, "expires_at": "x"}),
    ] {
        replies.push(stack.owner.put(&path, &body).await.body.to_string());
    }
    replies.push(agent.client.get(&path).await.body.to_string());
    let exported = json!({"value": scalar, "type": "private_key"});
    replies.push(stack.owner.put(&format!("/v1/vaults/{vault}/secrets/keys/k"), &exported).await.body.to_string());
    replies.push(stack.owner.get(&format!("/v1/vaults/{vault}/secrets/keys/k")).await.body.to_string());
    let token = stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": agent.api_key})).await.expect(200);
    let token = token["access_token"].as_str().unwrap().to_owned();
    stack.owner.by(Some(&token)).get("/v1/agents/me").await.expect(200);
    stack.owner.by(Some(&format!("{token}x"))).get("/v1/agents/me").await.refused(401);
    assert_eq!(stack.owner.get(&path).await.expect(200)["value"], canary, "only here");
    let sent = agent.submit(pay("0.01")).await.expect(201);
    let signed_tx = sent["signed_tx"].as_str().unwrap().to_owned();
    agent.settled(sent["id"].as_str().unwrap()).await;

    let bare = scalar.trim_start_matches("0x").to_owned();
    let owner_key = stack.owner.bearer.clone().unwrap();
    let secrets = [canary.to_owned(), bare, agent.api_key.clone(), owner_key, token, signed_tx];
    let audit: Vec<String> =
        sqlx::query_scalar("SELECT audit_events::text FROM audit_events").fetch_all(&stack.db).await.unwrap();
    assert!(audit.len() > 8);
    let mut texts = replies;
    texts.extend(audit);
    texts.push(stack.daemons[0].log_text());
    for table in ["secrets", "secret_versions", "signing_keys", "agents", "user_api_keys", "policies"] {
        let sql = format!("SELECT t::text FROM {table} t");
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&stack.db).await.unwrap();
        texts.extend(rows);
    }
    for secret in &secrets {
        let hexed = hex::encode(secret);
        let leak = texts.iter().find(|text| text.contains(secret.as_str()) || text.contains(&hexed));
        assert!(leak.is_none(), "{} leaks in {}", &secret[..8], leak.unwrap());
    }
}

#[tokio::test]
async fn a_stored_hash_is_the_hash_of_what_is_stored() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({"tx_max_value_eth": "0.1", "tx_max_gas_limit": 100_000})).await;
    stack.guardrails(&agent, json!({"tx_max_value_eth": null, "scopes": ["a/*"]})).await;
    agent.client.get("/v1/audit/events").await.refused(403);
    let list = async || {
        let mut conn = stack.db.acquire().await.unwrap();
        let filter = Filter { limit: 1_000, ..Filter::default() };
        store::list(&mut conn, stack.org_id.parse().unwrap(), &filter).await.unwrap()
    };
    let rows = list().await;
    assert!(rows.len() > 5 && rows.iter().all(store::Row::is_intact), "{rows:#?}");
    // Whoever gets past the trigger is still seen.
    for change in [
        "action = 'x'",
        "details = details || '{\"a\": 1}'",
        "ip_address = '10.0.0.1'",
        "actor_id = NULL",
        "resource_id = 'x'",
        "created_at = created_at + interval '1 microsecond'",
        "resource_type = 'x'",
        "actor_type = 'anonymous'",
    ] {
        stack
            .sql(&format!(
                "ALTER TABLE audit_events DISABLE TRIGGER USER; BEGIN;
                 CREATE TABLE kept AS SELECT * FROM audit_events;
                 UPDATE audit_events SET {change} WHERE id = (SELECT id FROM audit_events WHERE action = 'agent.update'); COMMIT"
            ))
            .await;
        assert_eq!(list().await.iter().filter(|row| !row.is_intact()).count(), 1, "{change}");
        stack.sql("DELETE FROM audit_events; INSERT INTO audit_events SELECT * FROM kept; DROP TABLE kept").await;
    }
}

/// Where audit events go is not for the API to say, nor what becomes of them.
#[tokio::test]
async fn threat_24_no_route_changes_where_audit_events_go_or_what_they_say() {
    // An organisation's webhooks are told of events; where the trail itself and its checkpoints go is in the configuration alone.
    let mut about = 0;
    for route in intentd::http::router::routes().table() {
        if ["audit", "sink", "export", "checkpoint", "trail"].iter().any(|word| route.path.contains(word)) {
            about += 1;
            assert!(route.method == reqwest::Method::GET, "{route}");
        }
    }
    assert!(about >= 4, "events, verify, export, keys");
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    for method in [reqwest::Method::POST, reqwest::Method::PUT, reqwest::Method::PATCH, reqwest::Method::DELETE] {
        Client::send(stack.owner.request(method, "/v1/audit/events")).await.refused(405);
    }
    for path in ["/v1/org/settings", "/v1/admin/settings"] {
        let settings =
            json!({"audit_sink": "https://elsewhere.example", "audit": {"url": "https://elsewhere.example"}});
        let reply = stack.owner.patch(path, &settings).await;
        assert!(!reply.body.to_string().contains("elsewhere"), "{}", reply.body);
    }
    let stored = "SELECT count(*) FROM platform_settings WHERE value LIKE '%elsewhere%'";
    assert_eq!(stack.count(stored).await, 0);
}
