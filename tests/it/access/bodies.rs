use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Options, Stack, until};

async fn post(client: &Client, path: &str, body: String) -> Reply {
    Client::send(client.request(reqwest::Method::POST, path).body(body)).await
}

#[tokio::test]
async fn threat_29_a_body_that_is_too_large_or_too_deep_is_refused_with_and_without_credentials() {
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    let nobody = stack.owner.by(None);
    let large = format!("{{\"email\":\"{}\"}}", "x".repeat(10 * 1024 * 1024));
    let deep = format!("{{\"password\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let routes = [
        (&nobody, "/v1/auth/token"),
        (&nobody, "/v1/auth/signup"),
        (&nobody, "/v1/auth/verify-email"),
        (&nobody, "/v1/auth/forgot-password"),
        (&nobody, "/v1/auth/reset-password"),
        (&nobody, "/v1/auth/agent-token"),
        (&nobody, "/v1/auth/api-key-token"),
        (&nobody, "/v1/auth/mfa/verify"),
        (&nobody, "/v1/auth/device/code"),
        (&nobody, "/v1/auth/device/token"),
        (&nobody, "/v1/agents/enroll"),
        (&stack.owner, "/v1/agents"),
        (&stack.owner, "/v1/auth/api-keys"),
    ];
    for (client, path) in routes {
        let reply = post(client, path, large.clone()).await;
        assert_eq!(reply.status, 413, "{path}: {}", reply.body);
        assert_eq!(reply.body["status"], json!(413), "{path}: a problem");
        let reply = post(client, path, deep.clone()).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.body);
    }

    // One that stops in the middle is ended by the daemon.
    let mut slow = tokio::net::TcpStream::connect(stack.owner.base.strip_prefix("http://").unwrap()).await.unwrap();
    let head = "POST /v1/auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{\"email\":";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut reply = String::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), slow.read_to_string(&mut reply)).await;
    assert!(ended.is_ok() && reply.starts_with("HTTP/1.1 408"), "{reply}");
    stack.owner.get("/v1/auth/me").await.expect(200);
}

/// A POST of `body` whose last byte is held back until `meanwhile` is done and the credential is no longer fresh.
async fn held_back(stack: &Stack, bearer: &str, meanwhile: impl Future<Output = ()>) -> String {
    let looked_up = || {
        let log = std::fs::read_to_string(stack.install.root.join("postgres.log")).unwrap();
        log.matches("k.key_prefix = $1").count()
    };
    let (before, body) = (looked_up(), r#"{"name":"late"}"#);
    let mut connection =
        tokio::net::TcpStream::connect(stack.owner.base.strip_prefix("http://").unwrap()).await.unwrap();
    let (start, end) = body.split_at(body.len() - 1);
    let head = format!(
        "POST /v1/agents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{start}",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    until(Duration::from_secs(20), "it is looked up", async || looked_up() > before).await;
    let began = std::time::Instant::now();
    meanwhile.await;
    until(Duration::from_secs(5), "a while", async || began.elapsed() > Duration::from_millis(700)).await;
    connection.write_all(end.as_bytes()).await.unwrap();
    let mut reply = String::new();
    connection.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn threat_25_what_is_taken_away_while_a_body_is_read_does_nothing() {
    let options = Options { chains: Vec::new(), postgres: vec!["log_statement=all"], ..Options::default() };
    let stack = Stack::with(options).await;
    let admin = stack.human(&stack.org_id, "admin").await;
    let key = admin.client.bearer.as_deref().unwrap();
    let change = async |sql: &str| stack.sql(&format!("{sql} '{}'", admin.id)).await;
    let reply = held_back(&stack, key, async {}).await;
    assert!(reply.starts_with("HTTP/1.1 201 "), "{reply}");
    let reply = held_back(&stack, key, change("UPDATE users SET role = 'member' WHERE id =")).await;
    assert!(reply.starts_with("HTTP/1.1 403 ") && reply.contains("has changed while"), "{reply}");
    change("UPDATE users SET role = 'admin' WHERE id =").await;
    let limit = change("UPDATE user_api_keys SET scopes = '{a/*}' WHERE user_id =");
    let reply = held_back(&stack, key, limit).await;
    assert!(reply.starts_with("HTTP/1.1 403 ") && reply.contains("has changed while"), "{reply}");
    change("UPDATE user_api_keys SET scopes = '{}' WHERE user_id =").await;
    let reply = held_back(&stack, key, change("UPDATE user_api_keys SET is_active = false WHERE user_id =")).await;
    assert!(reply.starts_with("HTTP/1.1 401 "), "{reply}");
    assert_eq!(stack.count("SELECT count(*) FROM agents WHERE name = 'late'").await, 1);
}
