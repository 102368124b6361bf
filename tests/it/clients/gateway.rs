//! nginx in front of the daemon, by the configuration that operators are shown.

use std::net::IpAddr;

use reqwest::Version;
use serde_json::{Value, json};

use super::nginx::{Counted, EXAMPLE, Nginx};
use super::{owner_of_their_own, pytest, with_sign_up};
use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Options, Stack, text};
use crate::harness::tls::{Identity, post};

/// How the daemon is told of the proxy.
fn env() -> Vec<(String, String)> {
    vec![
        ("INTENTD_TRUSTED_PROXIES".to_owned(), "127.0.0.1".to_owned()),
        ("INTENTD_TLS_CLIENT_CERT_HEADER".to_owned(), "X-SSL-Client-Cert".to_owned()),
        with_sign_up(),
    ]
}

async fn stack() -> Stack {
    Stack::with(Options { chains: Vec::new(), env: env(), ..Options::default() }).await
}

/// `host:port` of a daemon.
fn host(url: &str) -> &str {
    url.split_once("://").unwrap().1.trim_end_matches('/')
}

/// A client of nginx that calls from an address of its own.
fn from(address: &str, server: &Identity) -> reqwest::Client {
    server.trusting().local_address(address.parse::<IpAddr>().unwrap()).build().unwrap()
}

async fn get(http: &reqwest::Client, url: &str, bearer: Option<&str>, headers: &[(&str, &str)]) -> Reply {
    let mut request = http.get(url).bearer_auth(bearer.unwrap());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Client::send(request).await
}

/// A vault with a secret for everybody's use here.
async fn vault(stack: &Stack, secret: &str) -> String {
    let name = json!({"name": format!("v-{}", uuid::Uuid::new_v4())});
    let vault = text(&stack.owner.post("/v1/vaults", &name).await.expect(201), "id");
    stack.owner.put(&format!("/v1/vaults/{vault}/secrets/{secret}"), &json!({"value": secret})).await.expect(201);
    vault
}

#[tokio::test]
async fn the_sdk_works_through_nginx_over_tls_and_connections_are_kept() {
    let (stack, server) = (stack().await, Identity::new());
    let counted = Counted::before(host(&stack.daemons[0].url)).await;
    let nginx = Nginx::start(&server, &counted.address, &[]);

    let http = server.trusting().build().unwrap();
    let health = http.get(format!("{}/v1/health", nginx.url)).send().await.unwrap();
    assert_eq!((health.status().as_u16(), health.version()), (200, Version::HTTP_2));
    let http_1 = server.trusting().http1_only().build().unwrap();
    let health = http_1.get(format!("{}/v1/health", nginx.url)).send().await.unwrap();
    assert_eq!((health.status().as_u16(), health.version()), (200, Version::HTTP_11));
    for _ in 0..30 {
        get(&http, &format!("{}/v1/vaults", nginx.url), stack.owner.bearer.as_deref(), &[]).await.expect(200);
    }
    assert_eq!(counted.connections(), 1, "one connection serves one request after another");

    // Paths raw and encoded, bodies of GETs, large bodies, links: what goes wrong behind proxies, by a client that others wrote.
    let mut env = owner_of_their_own(&stack).await;
    env.retain(|(name, _)| *name != "INTENTD_URL");
    env.push(("INTENTD_URL", nginx.url.clone()));
    env.push(("SSL_CERT_FILE", nginx.file("cert.pem").display().to_string()));
    pytest(
        &["sdk/test_vaults.py", "sdk/test_sharing.py", "sdk/test_errors.py", "-k", "not limit and not too_much"],
        env,
    )
    .await;

    let log = std::fs::read_to_string(nginx.file("access.log")).unwrap();
    let shares: Vec<_> = log.lines().filter(|line| line.contains("/v1/share")).collect();
    assert!(shares.iter().any(|line| line.contains("GET /v1/share/- HTTP/1.1 200")), "{shares:?}");
    assert!(shares.iter().all(|line| line.contains(" /v1/share/- ")), "ids of shares are not logged: {shares:?}");
}

#[tokio::test]
async fn threat_28_through_nginx_a_caller_is_the_address_that_it_calls_from() {
    let (stack, server) = (stack().await, Identity::new());
    let nginx = Nginx::start(&server, host(&stack.daemons[0].url), &[]);
    let vault = vault(&stack, "a").await;
    let agent = stack.owner.post("/v1/agents", &json!({"name": "a"})).await.expect(201);
    let policy = json!({
        "secret_path_pattern": "a", "principal_type": "agent", "principal_id": agent["agent"]["id"], "permissions": ["read"],
        "conditions": {"ip_allowlist": ["127.0.0.5", "198.51.100.0/24"]},
    });
    stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &policy).await.expect(201);
    let key = agent["api_key"].as_str();
    let secret = format!("/v1/vaults/{vault}/secrets/a");
    let spoofs: [&[(&str, &str)]; 5] = [
        &[],
        &[("X-Forwarded-For", "198.51.100.7")],
        &[("X-Forwarded-For", "198.51.100.7, 127.0.0.1"), ("X-Forwarded-For", "127.0.0.5")],
        &[("Forwarded", "for=198.51.100.7"), ("X-Real-IP", "198.51.100.7"), ("X-Client-IP", "127.0.0.5")],
        &[("X-Forwarded-For", "127.0.0.5, unknown")],
    ];
    // Also behind a proxy that other proxies of ours call: there the entries are added, and counted from the right.
    let added = [("X-Forwarded-For $remote_addr;", "X-Forwarded-For $proxy_add_x_forwarded_for;")];
    let inner = Nginx::start(&server, host(&stack.daemons[0].url), &added);
    let to_inner =
        [("#proxy_pass https://intentd;", "proxy_pass https://intentd;"), ("proxy_pass http://intentd;", "")];
    let outer = Nginx::start(&server, host(&inner.url), &to_inner);
    for gateway in [&nginx, &outer, &inner] {
        for spoof in spoofs {
            for (address, status) in [("127.0.0.5", 200), ("127.0.0.6", 403)] {
                let reply = get(&from(address, &server), &format!("{}{secret}", gateway.url), key, spoof).await;
                assert_eq!(reply.status, status, "{address} {spoof:?}: {}", reply.body);
            }
        }
    }
    // Past the proxy, from an address that is not listed: the header is nothing.
    let direct = from("127.0.0.6", &server);
    let url = format!("{}{secret}", stack.daemons[0].url);
    get(&direct, &url, key, &[("X-Forwarded-For", "127.0.0.5")]).await.refused(403);
    let events = stack.owner.get("/v1/audit/events?action=secret.read").await.expect(200);
    let seen: Vec<&Value> = events["events"].as_array().unwrap().iter().map(|event| &event["ip_address"]).collect();
    assert!(seen.len() >= 15 && seen.iter().all(|ip| **ip == "127.0.0.5" || **ip == "127.0.0.6"), "{seen:?}");
}

#[tokio::test]
async fn threat_25_through_nginx_certificates_count_and_headers_that_look_like_them_do_not() {
    let (stack, server, own) = (stack().await, Identity::new(), Identity::new());
    let nginx = Nginx::start(&server, host(&stack.daemons[0].url), &[]);
    let body = json!({"name": "m", "auth_method": "mtls", "client_cert_fingerprint": own.fingerprint()});
    let made = stack.owner.post("/v1/agents", &body).await.expect(201);
    let (url, id) = (format!("{}/v1/auth/agent-token", nginx.url), json!({"agent_id": made["agent"]["id"]}));
    post(&own.client(&server), &url, &id).await.expect(200);
    post(&Identity::new().client(&server), &url, &id).await.refused(401);
    let plain = server.trusting().build().unwrap();
    post(&plain, &url, &id).await.refused(401);
    let pem = percent_encoding::utf8_percent_encode(&own.pem, percent_encoding::NON_ALPHANUMERIC).to_string();
    for name in ["X-SSL-Client-Cert", "x-ssl-client-cert"] {
        Client::send(plain.post(&url).header(name, &pem).json(&id)).await.refused(401);
    }
}

#[tokio::test]
async fn between_nginx_and_the_daemon_there_may_be_tls_too_and_then_it_is_checked() {
    let (mut stack, server, inner) = (stack().await, Identity::new(), Identity::new());
    let root = stack.install.root.clone();
    let file = |name: &str| root.join(name).display().to_string();
    std::fs::write(file("tls.pem"), &inner.pem).unwrap();
    std::fs::write(file("tls.key"), inner.key_pem()).unwrap();
    let env = [("INTENTD_TLS_CERT_FILE", file("tls.pem")), ("INTENTD_TLS_KEY_FILE", file("tls.key"))];
    let trusted = file("tls.pem");
    stack.options.env.extend(env.map(|(name, value)| (name.to_owned(), value)));
    stack.add_daemon("tls").await;
    let upstream = Counted::before(host(&stack.daemons[1].url)).await;
    let changes = |name: &'static str, trusted: &'static str| {
        [
            ("#proxy_", "proxy_"),
            ("proxy_pass http://intentd;", ""),
            ("intentd.internal", name),
            ("/etc/intentd/tls/ca.pem", trusted),
        ]
    };
    let trusted: &'static str = trusted.leak();
    let nginx = Nginx::start(&server, &upstream.address, &changes("localhost", trusted));
    let http = server.trusting().build().unwrap();
    let vault = vault(&stack, "a/b").await;
    for _ in 0..10 {
        for path in ["a/b", "a%2Fb", "a%2fb"] {
            let url = format!("{}/v1/vaults/{vault}/secrets/{path}", nginx.url);
            assert_eq!(get(&http, &url, stack.owner.bearer.as_deref(), &[]).await.expect(200)["value"], "a/b");
        }
    }
    assert_eq!(upstream.connections(), 1, "kept open with TLS too");
    // Another name, or another certificate, is not the daemon.
    let stranger: &'static str = file("stranger.pem").leak();
    std::fs::write(stranger, &Identity::new().pem).unwrap();
    for changes in [changes("elsewhere.example", trusted), changes("localhost", stranger)] {
        let nginx = Nginx::start(&server, &upstream.address, &changes);
        assert_eq!(http.get(format!("{}/v1/health", nginx.url)).send().await.unwrap().status(), 502);
    }
}

#[tokio::test]
async fn paths_pass_nginx_as_they_came_unless_its_configuration_has_a_path_too() {
    let (stack, server) = (stack().await, Identity::new());
    let daemon = host(&stack.daemons[0].url);
    let right = Nginx::start(&server, daemon, &[]);
    let trap = Nginx::start(&server, daemon, &[("proxy_pass http://intentd;", "proxy_pass http://intentd/;")]);
    let vault = vault(&stack, "a/b").await;
    stack.owner.put(&format!("/v1/vaults/{vault}/secrets/b"), &json!({"value": "b"})).await.expect(201);
    let (right_port, trap_port) = (host(&right.url), host(&trap.url));
    let read = async |address: &str, path: &str| {
        // Written out, because a URL of the client's library would resolve some of these by itself.
        let bearer = stack.owner.bearer.as_deref().unwrap();
        let request = format!(
            "GET /v1/vaults/{vault}/secrets/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n\r\n"
        );
        server.exchange(address, request.as_bytes()).await
    };
    for (path, through_right, through_trap) in [
        ("a/b", "\"value\":\"a/b\"", "\"value\":\"a/b\""),
        ("a%2Fb", "\"value\":\"a/b\"", "\"value\":\"a/b\""),
        // The daemon refuses these. A configuration with a path makes another secret's path of them.
        ("a%2F..%2Fb", " 400 ", "\"value\":\"b\""),
        ("a%2F%2Fb", " 400 ", "\"value\":\"a/b\""),
        ("a//b", " 400 ", "\"value\":\"a/b\""),
        ("a%252Fb", " 400 ", " 400 "),
    ] {
        for (address, expected) in [(right_port, through_right), (trap_port, through_trap)] {
            let reply = read(address, path).await;
            assert!(reply.contains(expected), "{path}: {expected}: {reply}");
        }
    }
}

#[test]
fn the_example_closes_connections_before_the_daemon_does() {
    let seconds = EXAMPLE.split_once("keepalive_timeout ").unwrap().1.split_once("s;").unwrap().0;
    let idle_s = intentd::http::limits::LimitsConfig::default().idle_s;
    assert!(seconds.parse::<u64>().unwrap() < idle_s, "nginx would use a connection that the daemon is closing");
}
