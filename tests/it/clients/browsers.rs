//! What a browser would ask and be told, for a page of another origin.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack};

const APP: &str = "https://app.example.com";

async fn stack(origins: &str) -> Stack {
    let env = vec![("INTENTD_CORS_ALLOWED_ORIGINS".to_owned(), origins.to_owned())];
    Stack::with(Options { chains: Vec::new(), env, ..Options::default() }).await
}

/// The `access-control-…` headers of a reply, its status, and whether it says that they differ by origin.
async fn told(request: reqwest::RequestBuilder) -> (u16, Value, bool) {
    let reply = Client::send(request).await;
    let told = reply.headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("access-control-")?;
        Some((name.to_owned(), json!(value.to_str().unwrap().to_lowercase())))
    });
    let varies =
        reply.headers.get_all("vary").iter().any(|vary| vary.to_str().unwrap().to_lowercase().contains("origin"));
    (reply.status.as_u16(), told.collect(), varies)
}

fn preflight(client: &Client, path: &str, origin: &str) -> reqwest::RequestBuilder {
    let asks = client.by(None).request(Method::OPTIONS, path).header("Origin", origin);
    asks.header("Access-Control-Request-Method", "PATCH").header("Access-Control-Request-Headers", "authorization")
}

#[tokio::test]
async fn pages_of_listed_origins_may_call_and_no_others() {
    let stack = stack(&format!("{APP}, http://localhost:3000")).await;
    for path in ["/v1/vaults", "/v1/agents/7b5b2b0e-9e63-4a3c-8b43-9a1a2a4b1c11"] {
        let (status, told, varies) = told(preflight(&stack.owner, path, APP)).await;
        assert!(status == 200 && varies, "{status}");
        assert_eq!(told["allow-origin"], APP);
        assert_eq!(told["allow-methods"], "get,post,put,patch,delete");
        assert_eq!(told["allow-headers"], "authorization,content-type,idempotency-key,x-cmek-old-key,x-cmek-new-key");
        assert!(told.get("allow-credentials").is_none(), "there are no cookies to send: {told}");
    }
    let asked = |client: &Client, origin: &str| client.request(Method::GET, "/v1/vaults").header("Origin", origin);
    // Refusals can be read too, or a page could not tell why.
    for (client, status) in [(&stack.owner, 200), (&stack.owner.by(None), 401)] {
        for origin in [APP, "http://localhost:3000"] {
            let read = told(asked(client, origin)).await;
            assert_eq!(
                read,
                (status, json!({"allow-origin": origin, "expose-headers": "retry-after,idempotency-replayed"}), true)
            );
        }
        for origin in
            ["https://app.example.com.evil.example", "http://app.example.com", "https://evil.example", "null", "*"]
        {
            let (read, told, varies) = told(asked(client, origin)).await;
            assert_eq!((read, told.get("allow-origin"), varies), (status, None, true), "{origin}");
        }
    }
    let (_, told, _) = told(preflight(&stack.owner, "/v1/vaults", "https://evil.example")).await;
    assert!(told.get("allow-origin").is_none(), "{told}");
}

#[tokio::test]
async fn without_a_list_no_page_is_let_in_and_what_is_no_origin_is_no_list() {
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    assert_eq!(told(preflight(&stack.owner, "/v1/vaults", APP)).await, (405, json!({}), false));
    let read = stack.owner.request(Method::GET, "/v1/vaults").header("Origin", APP);
    assert_eq!(told(read).await, (200, json!({}), false));
    for wrong in ["*", "null", "https://app.example.com/", "app.example.com"] {
        let mut command = stack.command();
        command.env("INTENTD_CORS_ALLOWED_ORIGINS", wrong);
        let started = crate::harness::daemon::Daemon::try_start(command, &stack.install.root, "wrong").await;
        let (_, log) = started.err().unwrap_or_else(|| panic!("{wrong} was taken"));
        assert!(log.contains("cors.allowed_origins"), "{log}");
    }
}
