//! Every route there is, without credentials.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use serde_json::json;

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack};

/// What anybody may ask, and what proves who somebody is by what is in the body. Short, and every line a decision.
const PUBLIC: &[(&str, &str)] = &[
    ("GET", "/v1/health"),
    ("GET", "/v1/health/hsm"),
    ("GET", "/v1/chains"),
    ("GET", "/v1/chains/{name_or_id}"),
    ("GET", "/v1/auth/jwt-public-key"),
    ("POST", "/v1/auth/agent-token"),
    ("POST", "/v1/auth/api-key-token"),
    ("POST", "/v1/auth/refresh"),
    ("POST", "/v1/auth/accept-invite"),
];

/// Every `(method, path)` that the sources give to the router.
fn routes() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                collect(&std::fs::read_to_string(&path).unwrap(), &mut found);
            }
        }
    }
    found
}

/// `.route("/path", get(a).post(b))`, over however many lines.
fn collect(source: &str, found: &mut BTreeSet<(String, String)>) {
    for part in source.split(".route(").skip(1) {
        let rest = part.trim_start();
        let Some((path, rest)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) else { continue };
        // Up to the parenthesis that closes `.route(`.
        let mut depth = 0_i32;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth < 0
        });
        let handlers = &rest[..end.unwrap()];
        let methods: Vec<&str> = ["get", "post", "put", "patch", "delete"]
            .into_iter()
            .filter(|method| {
                handlers.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == *method)
            })
            .collect();
        assert!(!methods.is_empty(), "no method of {path} is understood: {handlers}");
        found.extend(methods.iter().map(|method| (method.to_uppercase(), path.to_owned())));
    }
}

/// A path with something in every place.
fn filled(path: &str) -> String {
    let id = uuid::Uuid::new_v4().to_string();
    let fill = |segment: &str| match segment {
        _ if !segment.starts_with('{') => segment.to_owned(),
        "{name_or_id}" | "{chain_id}" => "base".to_owned(),
        _ if segment.starts_with("{*") => "a/b".to_owned(),
        _ => id.clone(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn threat_30_nobody_gets_beyond_the_public_routes() {
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    let routes = routes();
    assert!(routes.len() > 40, "{} routes were found: mend this test", routes.len());
    let public: BTreeSet<(String, String)> =
        PUBLIC.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    let stale: Vec<_> = public.difference(&routes).collect();
    assert!(stale.is_empty(), "no such routes any more: {stale:?}");
    let rows = "SELECT (SELECT count(*) FROM vaults) + (SELECT count(*) FROM agents) + (SELECT count(*) FROM users) + (SELECT count(*) FROM chains)
                + (SELECT count(*) FROM ip_rules) + (SELECT count(*) FROM invitations) + (SELECT count(*) FROM platform_settings)";
    let before = stack.count(rows).await;
    for (method, path) in routes.difference(&public) {
        for bearer in [None, Some(""), Some("nobody"), Some("Bearer"), Some("ocv_"), Some("e30.e30.")] {
            let request = stack.owner.by(bearer).request(Method::from_bytes(method.as_bytes()).unwrap(), &filled(path));
            let request =
                if method == "GET" { request } else { request.json(&json!({"name": "x", "email": "x@example.test"})) };
            let reply = Client::send(request).await;
            assert_eq!(reply.status.as_u16(), 401, "{method} {path} by {bearer:?}: {}", reply.body);
            assert!(reply.body["detail"].is_string(), "{method} {path}");
        }
    }
    assert_eq!(stack.count(rows).await, before, "something changed");
}
