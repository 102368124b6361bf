//! The keys on the token: rotated while daemons work and die, kept in backups, destroyed.

mod crash;
mod destroy;
mod restore;
mod rotation;
mod rows;

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack, fresh_scalar, text, until};
use crate::orgs::run;

/// A rotation that waits for nobody.
const SOON: Duration = Duration::from_secs(60);

/// Daemons that look often, and keep a replaced key no longer than they must.
fn quick(daemons: usize, chains: Vec<(&'static str, u64)>, env: &[(&str, &str)]) -> Options {
    let quick = [("INTENTD_KEKS_POLL_MS", "100"), ("INTENTD_KEKS_GRACE_S", "0")];
    let env = quick.iter().chain(env).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Options { daemons, chains, env, ..Options::default() }
}

/// What `intentd admin …` prints, if it succeeds.
#[track_caller]
fn admin(stack: &Stack, arguments: &[&str]) -> String {
    let mut command = stack.command();
    command.arg("admin").args(arguments);
    String::from_utf8(run(command)).unwrap()
}

/// What `intentd admin …` says, on both streams, when it fails.
#[track_caller]
fn admin_fails(stack: &Stack, arguments: &[&str]) -> String {
    let output = stack.command().arg("admin").args(arguments).output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The key of a purpose in a state.
async fn kek(stack: &Stack, purpose: &str, state: &str) -> Option<String> {
    sqlx::query_scalar("SELECT id::text FROM keks WHERE purpose = $1 AND state = $2 ORDER BY created_at DESC LIMIT 1")
        .bind(purpose)
        .bind(state)
        .fetch_optional(&stack.db)
        .await
        .unwrap()
}

async fn state_of(stack: &Stack, kek: &str) -> String {
    sqlx::query_scalar("SELECT state FROM keks WHERE id::text = $1").bind(kek).fetch_one(&stack.db).await.unwrap()
}

async fn reaches(stack: &Stack, kek: &str, state: &str) {
    until(SOON, &format!("the key is {state}"), async || state_of(stack, kek).await == state).await;
}

/// Begins a rotation; the key that is to go.
async fn begin(stack: &Stack, purpose: &str) -> String {
    let old = kek(stack, purpose, "active").await.unwrap();
    let said = admin(stack, &["hsm", "rotate", purpose]);
    assert!(said.contains("Back up the token"), "{said}");
    old
}

/// Rows that name a key, also through its canary.
async fn uses(stack: &Stack, kek: &str) -> i64 {
    stack.count(&format!("SELECT sum(named)::bigint FROM kek_uses('{kek}')")).await
}

/// For `jwt`: its tokens have all ended.
async fn age(stack: &Stack, kek: &str) {
    stack.sql(&format!("UPDATE keks SET retiring_at = now() - interval '2 days' WHERE id = '{kek}'")).await;
}

/// A token for a key of a human or an agent.
async fn token(client: &Client) -> String {
    let key = client.bearer.as_deref().unwrap();
    let (path, nobody) = (if key.starts_with("ocv_") { "agent-token" } else { "api-key-token" }, client.by(None));
    text(&nobody.post(&format!("/v1/auth/{path}"), &json!({"api_key": key})).await.expect(200), "access_token")
}

/// A vault with secrets `s/0`… whose values are their paths, and signing keys `keys/0`…, all stored over HTTP.
async fn filled(stack: &Stack, secrets: usize, keys: usize) -> String {
    let vault = text(&stack.owner.post("/v1/vaults", &json!({"name": "filled"})).await.expect(201), "id");
    let put = async |path: String, body: Value| {
        stack.owner.put(&format!("/v1/vaults/{vault}/secrets/{path}"), &body).await.expect(201);
    };
    let secrets = (0..secrets).map(|n| (format!("s/{n}"), json!({"value": format!("value of s/{n}")})));
    let keys = (0..keys).map(|n| (format!("keys/{n}"), json!({"value": fresh_scalar(), "type": "private_key"})));
    futures::future::join_all(secrets.chain(keys).map(|(path, body)| put(path, body))).await;
    vault
}

/// Every secret of [`filled`] opens at a daemon.
async fn all_open(stack: &Stack, client: &Client, vault: &str, secrets: usize) {
    let read = (0..secrets).map(|n| async move {
        let body = client.get(&format!("/v1/vaults/{vault}/secrets/s/{n}")).await.expect(200);
        assert_eq!(body["value"], format!("value of s/{n}"));
    });
    futures::future::join_all(read).await;
    let said = admin(stack, &["check", "--sample", "1000"]);
    assert!(said.contains("belong together") && !said.contains("WRONG"), "{said}");
}
