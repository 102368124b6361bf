use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Options, Stack, until};
use crate::harness::tls::{Identity, post};

async fn agent_of(stack: &Stack, fingerprint: &str) -> String {
    let body = json!({"name": "m", "auth_method": "mtls", "client_cert_fingerprint": fingerprint});
    let made = stack.owner.post("/v1/agents", &body).await.expect(201);
    assert!(made.get("api_key").is_none(), "an agent with a certificate has no key");
    made["agent"]["id"].as_str().unwrap().to_owned()
}

/// A daemon without TLS, and one with.
async fn stack(server: &Identity) -> Stack {
    let mut stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    write(&stack, server);
    let file = |name: &str| stack.install.root.join(name).display().to_string();
    let env = [
        ("INTENTD_TLS_CERT_FILE".to_owned(), file("tls.pem")),
        ("INTENTD_TLS_KEY_FILE".to_owned(), file("tls.key")),
        ("INTENTD_TLS_CLIENT_AUTH".to_owned(), "optional".to_owned()),
    ];
    stack.options.env.extend(env);
    stack.add_daemon("tls").await;
    stack
}

fn write(stack: &Stack, server: &Identity) {
    std::fs::write(stack.install.root.join("tls.pem"), &server.pem).unwrap();
    std::fs::write(stack.install.root.join("tls.key"), server.key_pem()).unwrap();
}

#[tokio::test]
async fn threat_25_a_certificate_is_as_good_as_the_key_that_belongs_to_it() {
    let (server, own, other) = (Identity::new(), Identity::new(), Identity::new());
    let stack = stack(&server).await;
    let url = stack.daemons[1].url.clone();
    assert!(url.starts_with("https://"), "{url}");
    let exchange = format!("{url}/v1/auth/agent-token");
    let upper = own.fingerprint().to_uppercase();
    let pairs: Vec<&str> = (0..32).map(|n| &upper[2 * n..2 * n + 2]).collect();
    let id = agent_of(&stack, &pairs.join(":")).await;
    let shown = stack.owner.get(&format!("/v1/agents/{id}")).await.expect(200);
    assert_eq!(shown["client_cert_fingerprint"], json!(own.fingerprint()));

    let body = post(&own.client(&server), &exchange, &json!({"agent_id": id})).await.expect(200);
    assert_eq!((body.as_object().unwrap().len(), &body["agent_id"]), (5, &json!(id)));
    // The token is the agent's wherever it is sent: here to the other daemon, without TLS.
    let token = body["access_token"].as_str().unwrap();
    let by_token = stack.owner.by(Some(token));
    assert_eq!(by_token.get("/v1/agents/me").await.expect(200)["id"], json!(id));
    // HTTP/2 over ALPN; and without a certificate everything else works as ever.
    let plain = server.trusting().build().unwrap();
    let health = plain.get(format!("{url}/v1/health")).send().await.unwrap();
    assert_eq!((health.status().as_u16(), health.version()), (200, reqwest::Version::HTTP_2));
    let old = server.trusting().http1_only().build().unwrap();
    let health = old.get(format!("{url}/v1/health")).send().await.unwrap();
    assert_eq!((health.status().as_u16(), health.version()), (200, reqwest::Version::HTTP_11));

    // Everything else is refused alike.
    let day = time::Duration::DAY;
    let now = intentd::clock::now();
    let (past, future) = (Identity::valid(now - day * 2, now - day), Identity::valid(now + day, now + day * 2));
    let (past_id, future_id) =
        (agent_of(&stack, &past.fingerprint()).await, agent_of(&stack, &future.fingerprint()).await);
    let with_key = stack.owner.post("/v1/agents", &json!({"name": "k"})).await.expect(201);
    let with_key = with_key["agent"]["id"].as_str().unwrap();
    let unknown = uuid::Uuid::new_v4().to_string();
    let attempts: [(&reqwest::Client, &str); 8] = [
        (&plain, &id),
        (&other.client(&server), &id),
        (&own.client(&server), &past_id),
        (&past.client(&server), &past_id),
        (&future.client(&server), &future_id),
        (&own.client(&server), with_key),
        (&own.client(&server), &unknown),
        (&own.client(&server), "not-an-id"),
    ];
    for (index, (client, id)) in attempts.into_iter().enumerate() {
        let detail = post(client, &exchange, &json!({"agent_id": id})).await.refused(401);
        assert!(detail.starts_with("the credentials are not valid"), "{index}: {detail}");
    }
    // What a proxy would say counts for nothing: there is none.
    let claimed = plain.post(&exchange).header("X-Client-Cert-Fingerprint", own.fingerprint());
    Client::send(claimed.json(&json!({"agent_id": id}))).await.refused(401);
    post(&own.client(&server), &exchange, &json!({})).await.refused(400);

    // A certificate is public. Without its key nobody gets through the handshake.
    let address = url.strip_prefix("https://").unwrap();
    assert!(own.gets_in_as(&own, &server, address).await);
    assert!(!other.gets_in_as(&own, &server, address).await, "shown with another key");

    // Another certificate, another way, or a pause: the tokens end at once, on the other daemon too.
    let path = format!("/v1/agents/{id}");
    stack.owner.patch(&path, &json!({"client_cert_fingerprint": own.fingerprint(), "name": "same"})).await.expect(200);
    by_token.get("/v1/agents/me").await.expect(200);
    stack.owner.patch(&path, &json!({"client_cert_fingerprint": other.fingerprint()})).await.expect(200);
    by_token.get("/v1/agents/me").await.refused(401);
    post(&own.client(&server), &exchange, &json!({"agent_id": id})).await.refused(401);
    let body = post(&other.client(&server), &exchange, &json!({"agent_id": id})).await.expect(200);
    let by_token = stack.owner.by(body["access_token"].as_str());
    by_token.get("/v1/agents/me").await.expect(200);
    stack.owner.patch(&path, &json!({"is_active": false})).await.expect(200);
    post(&other.client(&server), &exchange, &json!({"agent_id": id})).await.refused(401);
    stack.owner.patch(&path, &json!({"is_active": true})).await.expect(200);
    by_token.get("/v1/agents/me").await.refused(401);
    let body = post(&other.client(&server), &exchange, &json!({"agent_id": id})).await.expect(200);
    let by_token = stack.owner.by(body["access_token"].as_str());
    stack.owner.post(&format!("{path}/rotate-key"), &json!({})).await.refused(400);
    let changed = stack.owner.patch(&path, &json!({"auth_method": "api_key"})).await.expect(200);
    assert!(changed.get("client_cert_fingerprint").is_none(), "{changed}");
    by_token.get("/v1/agents/me").await.refused(401);
    post(&other.client(&server), &exchange, &json!({"agent_id": id})).await.refused(401);
    let key = stack.owner.post(&format!("{path}/rotate-key"), &json!({})).await.expect(200);
    stack.owner.by(key["api_key"].as_str()).get("/v1/agents/me").await.expect(200);
    let back = json!({"auth_method": "mtls", "client_cert_fingerprint": own.fingerprint()});
    stack.owner.patch(&path, &back).await.expect(200);
    stack.owner.by(key["api_key"].as_str()).get("/v1/agents/me").await.refused(401);
}

#[tokio::test]
async fn a_slow_handshake_holds_up_nobody_and_a_certificate_is_renewed_without_a_restart() {
    let (server, renewed) = (Identity::new(), Identity::new());
    let stack = stack(&server).await;
    let url = format!("{}/v1/health", stack.daemons[1].url);
    let address = stack.daemons[1].url.strip_prefix("https://").unwrap();
    // More connections that say nothing than one address may have in a handshake: the rest of them is closed at once.
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    // A connection that is open has nothing to read; one that was closed has its end.
    let open = |stream: &tokio::net::TcpStream| matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    let bounded = async || silent.iter().filter(|stream| open(stream)).count() == 64;
    until(Duration::from_secs(5), "all but 64 are closed", bounded).await;
    drop(silent.split_off(32));
    let reached = async || server.trusting().build().unwrap().get(&url).send().await.is_ok();
    until(Duration::from_secs(5), "a handshake beside silent ones", reached).await;

    write(&stack, &renewed);
    stack.daemons[1].signal(Signal::HUP);
    let reached = async || renewed.trusting().build().unwrap().get(&url).send().await.is_ok();
    until(Duration::from_secs(10), "the new certificate", reached).await;
    assert!(server.trusting().build().unwrap().get(&url).send().await.is_err(), "the old one is gone");
    // Half a renewal changes nothing.
    std::fs::write(stack.install.root.join("tls.pem"), &server.pem).unwrap();
    stack.daemons[1].signal(Signal::HUP);
    let refused = async || stack.daemons[1].log_text().contains("the old certificate stays");
    until(Duration::from_secs(10), "the refusal", refused).await;
    assert!(reached().await);
}

#[tokio::test]
async fn threat_46_only_a_listed_proxy_tells_of_a_certificate() {
    let own = Identity::new();
    let mut stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    let id = agent_of(&stack, &own.fingerprint()).await;
    let fingerprint = |text: &str| vec![("X-Client-Cert-Fingerprint".to_owned(), text.to_owned())];
    let pem = |text: &str| {
        let escaped = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        vec![("X-SSL-Client-Cert".to_owned(), escaped)]
    };
    let send = async |url: &str, headers: &[(String, String)], body: Value| -> Reply {
        let mut request = stack.owner.at(url).by(None).request(reqwest::Method::POST, "/v1/auth/agent-token");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        Client::send(request.json(&body)).await
    };
    let body = json!({"agent_id": id});
    let good = [fingerprint(&own.fingerprint()), pem(&own.pem)];
    // Nobody is listed: whatever is said.
    for headers in &good {
        send(&stack.daemons[0].url, headers, body.clone()).await.refused(401);
    }
    let listed = ("INTENTD_TRUSTED_PROXIES".to_owned(), "127.0.0.1, 10.0.0.0/8".to_owned());
    stack.options.env.push(listed);
    let listed_only = stack.start_daemon("listed").await;
    stack.options.env.extend([
        ("INTENTD_TLS_CLIENT_FINGERPRINT_HEADER".to_owned(), "X-Client-Cert-Fingerprint".to_owned()),
        ("INTENTD_TLS_CLIENT_CERT_HEADER".to_owned(), "X-SSL-Client-Cert".to_owned()),
    ]);
    let telling = stack.start_daemon("telling").await;
    for env in &mut stack.options.env {
        if env.0 == "INTENTD_TRUSTED_PROXIES" {
            env.1 = "10.0.0.0/8".to_owned();
        }
    }
    let stranger = stack.start_daemon("stranger").await;
    for headers in &good {
        // Listed, and not told which headers the proxy sets: it may pass on what its callers send.
        send(&listed_only.url, headers, body.clone()).await.refused(401);
        // Told which headers, and somebody else is listed.
        send(&stranger.url, headers, body.clone()).await.refused(401);
        let reply = send(&telling.url, headers, body.clone()).await.expect(200);
        stack.owner.by(reply["access_token"].as_str()).get("/v1/agents/me").await.expect(200);
    }
    let both = [good[0].clone(), good[1].clone()].concat();
    send(&telling.url, &both, body.clone()).await.expect(200);
    let (other, day) = (Identity::new(), time::Duration::DAY);
    let ended = Identity::valid(intentd::clock::now() - day * 2, intentd::clock::now() - day);
    let ended_id = agent_of(&stack, &ended.fingerprint()).await;
    let refused = [
        (vec![], &id),
        (fingerprint(""), &id),
        (fingerprint(&other.fingerprint()), &id),
        (fingerprint(&"ab".repeat(20)), &id),
        ([good[0].clone(), good[0].clone()].concat(), &id),
        ([good[0].clone(), fingerprint(&other.fingerprint())].concat(), &id),
        ([good[0].clone(), pem(&other.pem)].concat(), &id),
        (pem(&other.pem), &id),
        (pem(&format!("{}{}", own.pem, other.pem)), &id),
        (pem("NONE"), &id),
        (pem(&ended.pem), &ended_id),
    ];
    for (headers, id) in refused {
        send(&telling.url, &headers, json!({"agent_id": id})).await.refused(401);
    }
}
