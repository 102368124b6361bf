use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Options, Stack};

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
