//! Paths and questions that are meant to get more than was granted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use intentd::access::SecretPath;
use intentd::access::glob::Glob;
use proptest::prelude::*;
use serde_json::json;

use super::secrets::vault;
use super::{at, stack};
use crate::harness::client::Client;

/// A reply to a request whose target is sent as it stands: clients fold `..` away before it leaves them.
fn raw(client: &Client, method: &str, target: &str, body: &str) -> (u16, String) {
    let address = client.base.trim_start_matches("http://");
    let key = client.bearer.as_deref().unwrap_or_default();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    let reply = String::from_utf8_lossy(&reply).into_owned();
    (reply.split(' ').nth(1).unwrap().parse().unwrap(), reply)
}

const HOSTILE: &[&str] = &[
    "",
    "/",
    "//",
    "/a",
    "a/",
    "a//b",
    "%2F",
    "%2Fa",
    "a%2F",
    "a%2F%2Fb",
    "a/%2Fb",
    ".",
    "..",
    "./a",
    "../a",
    "a/.",
    "a/..",
    "a/./b",
    "a/../b",
    "%2e",
    "%2e%2e",
    "%2e%2e/a",
    "a/%2e%2e/b",
    "a%2F..%2Fb",
    "a/.%2e/b",
    "..%2fa",
    "..;/a",
    "a/...",
    "%252f",
    "a%252fb",
    "%252e%252e",
    "a%252e%252e%252fb",
    "%25",
    "%2525",
    "a%25",
    "%",
    "a%",
    "a%2",
    "a%zz",
    "a%-1",
    "a\\b",
    "a%5Cb",
    "..\\a",
    "a%5c..%5cb",
    "a%00b",
    "a%00",
    "%00",
    "a%0ab",
    "a%0d%0aSet-Cookie:x",
    "a%09b",
    "a%7fb",
    "a%20b",
    "a+b",
    "a.b",
    "a.json",
    "-a",
    "_a",
    "a-",
    "~a",
    "a:b",
    "a*b",
    "*",
    "**",
    "a/*",
    "a%3Fb",
    "a%23b",
    "%c3%a9",
    "%ff",
    "a%c0%afb",
    "%c0%ae%c0%ae",
    "a%ef%bc%8fb",
    "a%u002fb",
    "a;b",
    "a'b",
    "$a",
    "a@b",
    "a&b=c",
    "{a}",
    "a|b",
    "public/../a/b",
    "public/%2e%2e/a/b",
    "public%2F..%2Fa%2Fb",
];

#[tokio::test]
async fn threat_27_no_spelling_of_a_path_gets_past_a_policy_on_any_route() {
    let stack = stack(1, &[]).await;
    let vault = vault(&stack).await;
    for path in ["a/b", "public/x"] {
        stack.owner.put(&at(&vault, "secrets", path), &json!({"value": format!("canary of {path}")})).await.expect(201);
    }
    let made = stack.owner.post("/v1/agents", &json!({"name": "hostile"})).await.expect(201);
    let agent = stack.owner.by(made["api_key"].as_str());
    let grant = json!({
        "secret_path_pattern": "public/*", "principal_type": "agent", "principal_id": made["agent"]["id"],
        "permissions": ["read", "write", "delete"],
    });
    stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &grant).await.expect(201);
    agent.get(&at(&vault, "secrets", "public/x")).await.expect(200);

    let routes = [
        ("GET", "secrets", ""),
        ("PUT", "secrets", ""),
        ("DELETE", "secrets", ""),
        ("GET", "secret-versions", ""),
        ("GET", "secret-version", "/1"),
        ("POST", "secret-version-disable", "/1"),
        ("POST", "secret-rotate", ""),
        ("POST", "secret-restore", ""),
    ];
    for client in [&agent, &stack.owner] {
        for (method, route, behind) in routes {
            for hostile in HOSTILE {
                // A list, and a route that there is not.
                if hostile.is_empty() && behind.is_empty() {
                    continue;
                }
                let target = format!("{}{behind}", at(&vault, route, hostile));
                let (status, reply) = raw(client, method, &target, r#"{"value": "overwritten"}"#);
                assert!([400, 404].contains(&status), "{method} {target}: {status}");
                assert!(!reply.contains("canary"), "{method} {target}: {reply}");
            }
        }
    }
    // Spelled rightly in other ways it is the same secret, and as far away.
    for (method, route, behind) in routes {
        for spelled in ["a/b", "a%2Fb", "%61%2f%62"] {
            let target = format!("{}{behind}", at(&vault, route, spelled));
            let (status, reply) = raw(&agent, method, &target, r#"{"value": "overwritten"}"#);
            assert_eq!(status, 403, "{method} {target}: {reply}");
        }
    }
    for path in ["a/b", "public/x"] {
        let read = stack.owner.get(&at(&vault, "secrets", path)).await.expect(200);
        assert_eq!((&read["value"], &read["version"]), (&json!(format!("canary of {path}")), &json!(1)));
    }
    assert_eq!(stack.count("SELECT count(*) FROM secrets WHERE path NOT LIKE 'agents/%'").await, 2);
}

proptest! {
    /// match(canon(p)) = match(p): of all spellings that are taken, each matches what its one canonical spelling matches.
    #[test]
    fn threat_27_a_pattern_matches_a_spelling_as_it_matches_the_path(
        raw in "([ab]|%2[fF]|%6[12]|/|-|\\.|%2e|%252f){1,12}",
        pattern in "([ab-]{1,2}|\\*|\\*\\*)(/([ab-]{1,2}|\\*|\\*\\*)){0,3}",
    ) {
        let glob = Glob::parse(&pattern).unwrap();
        if let Ok(path) = SecretPath::from_wire(&raw) {
            let canonical = SecretPath::parse(path.as_str()).unwrap();
            prop_assert_eq!(glob.matches(&path), glob.matches(&canonical));
            prop_assert_eq!(path.as_str(), canonical.as_str());
            // Decoded by another, standard decoder it is that path too.
            let decoded = percent_encoding::percent_decode_str(&raw).decode_utf8().unwrap().into_owned();
            prop_assert_eq!(decoded, canonical.as_str());
        }
    }
}

#[tokio::test]
async fn threat_26_what_may_not_be_reached_does_not_show_whether_it_is_there() {
    let stack = stack(1, &[]).await;
    let vault = vault(&stack).await;
    // Every state a path can be in, each with a name of the same length.
    let put = async |path: &str, body: serde_json::Value| {
        stack.owner.put(&at(&vault, "secrets", path), &body).await.expect(201);
    };
    put("x/live", json!({"value": "v"})).await;
    put("x/keys", json!({"value": "k", "type": "ssh_key"})).await;
    put("x/gone", json!({"value": "v"})).await;
    stack.owner.delete(&at(&vault, "secrets", "x/gone")).await.expect(204);
    put("x/past", json!({"value": "v", "expires_at": "2020-01-01T00:00:00Z"})).await;
    put("x/used", json!({"value": "v", "max_access_count": 1})).await;
    stack.owner.get(&at(&vault, "secrets", "x/used")).await.expect(200);
    put("x/shut", json!({"value": "v"})).await;
    stack.owner.post(&at(&vault, "secret-version-disable", "x/shut/1"), &json!({})).await.expect(200);
    let paths = ["x/none", "x/live", "x/keys", "x/gone", "x/past", "x/used", "x/shut"];

    let made = stack.owner.post("/v1/agents", &json!({"name": "n", "intents_api_enabled": true})).await.expect(201);
    let agent = stack.owner.by(made["api_key"].as_str());
    for (method, route, behind) in [
        (reqwest::Method::GET, "secrets", ""),
        (reqwest::Method::PUT, "secrets", ""),
        (reqwest::Method::DELETE, "secrets", ""),
        (reqwest::Method::GET, "secret-versions", ""),
        (reqwest::Method::GET, "secret-version", "/1"),
        (reqwest::Method::GET, "secret-version", "/9"),
        (reqwest::Method::POST, "secret-version-disable", "/1"),
        (reqwest::Method::POST, "secret-rotate", ""),
        (reqwest::Method::POST, "secret-restore", ""),
    ] {
        let mut replies = Vec::new();
        for path in paths {
            let target = format!("{}{behind}", at(&vault, route, path));
            let request = agent.request(method.clone(), &target).json(&json!({"value": "mine"}));
            let reply = Client::send(request).await;
            assert_eq!(reply.status, 403, "{method} {target}: {}", reply.body);
            let mut headers = reply.headers.clone();
            headers.remove("date");
            headers.remove("x-request-id");
            replies.push(format!("{headers:?} {}", reply.body).replace(path, "x/path"));
        }
        assert!(replies.windows(2).all(|pair| pair[0] == pair[1]), "{method} {route}: {replies:#?}");
    }
    // Keys of an Intents agent that may read everything: alike too, there or not.
    let grant = json!({
        "secret_path_pattern": "**", "principal_type": "agent", "principal_id": made["agent"]["id"], "permissions": ["read"],
    });
    stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &grant).await.expect(201);
    put("keys/here", json!({"value": "k"})).await;
    for route in ["secrets/keys/here", "secrets/keys/none", "secret-version/keys/here/1", "secret-version/keys/none/1"]
    {
        let detail = agent.get(&format!("/v1/vaults/{vault}/{route}")).await.refused(403);
        assert_eq!(detail, agent.get(&at(&vault, "secrets", "x/keys")).await.refused(403));
    }
}
