//! Rate limits are keyed by what the caller cannot choose: the socket's peer, or the authenticated principal.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::{Client, Reply};
use crate::harness::freeze::Frozen;
use crate::harness::stack::{Options, Stack, pay, until};

/// A stack whose daemon has these `[limits]`.
async fn limited(limits: &str) -> Stack {
    let mut stack = Stack::with(Options { daemons: 0, ..Options::default() }).await;
    let config = stack.install.root.join("intentd.toml");
    std::fs::write(&config, format!("[limits]\n{limits}\n")).unwrap();
    stack.options.env.push(("INTENTD_CONFIG".to_owned(), config.display().to_string()));
    // The harness raises these two: the environment wins over the file.
    for (variable, key) in [("INTENTD_LIMITS_AUTH_BURST", "auth_burst"), ("INTENTD_LIMITS_IP_BURST", "ip_burst")] {
        let line = limits.lines().find_map(|line| line.strip_prefix(key));
        if let Some(value) = line {
            stack.options.env.push((variable.to_owned(), value.trim_matches([' ', '=']).to_owned()));
        }
    }
    stack.add_daemon("limited").await;
    stack
}

/// The `round`th request, with a new value in every header that a caller chooses.
fn disguised(request: reqwest::RequestBuilder, round: usize) -> reqwest::RequestBuilder {
    let address = format!("203.0.{}.{}", round / 250, 1 + round % 250);
    let mut request = request;
    for name in [
        "X-Forwarded-For",
        "X-Real-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "X-Originating-IP",
        "X-Remote-IP",
        "X-Remote-Addr",
        "True-Client-IP",
        "CF-Connecting-IP",
        "Fastly-Client-IP",
        "Fly-Client-IP",
    ] {
        request = request.header(name, &address);
    }
    request
        .header("Forwarded", format!("for={address};proto=https"))
        .header("Via", format!("1.1 proxy-{round}"))
        .header("User-Agent", format!("agent/{round}"))
        .header("X-Forwarded-Host", format!("host-{round}.example"))
        .header("X-Request-Id", round.to_string())
        .header("Cookie", format!("session={round}"))
        .header("Origin", format!("https://{round}.example"))
        .header("Referer", format!("https://{round}.example/"))
        .header("Accept-Language", format!("x-{round}"))
        .header("Idempotency-Key", format!("key-{round}"))
}

#[track_caller]
fn assert_too_many(reply: &Reply) {
    assert_eq!(reply.status, 429, "{}", reply.body);
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    let seconds: u64 = reply.headers["retry-after"].to_str().unwrap().parse().expect("whole seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!((reply.body["status"].as_u64(), reply.body["title"].as_str()), (Some(429), Some("Too Many Requests")));
    let detail = reply.body["detail"].as_str().unwrap();
    assert!(detail.contains("too many") && detail.contains(&format!("in {seconds} s")), "{detail}");
}

/// Sends until twice the burst is through; at most burst + rate × time may pass.
async fn assert_limited(burst: usize, passes: u16, send: impl AsyncFn(usize) -> Reply) {
    let began = Instant::now();
    let mut passed = 0;
    for round in 0..burst * 3 {
        let reply = send(round).await;
        if reply.status == passes {
            passed += 1;
        } else {
            assert_too_many(&reply);
        }
    }
    let most = burst + usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!((burst..=most).contains(&passed), "{passed} passed, of a burst of {burst} and one a second");
}

const SLOW: &str = "auth_burst = 5\nauth_per_second = 1\nip_burst = 8\nip_per_second = 1\nprincipal_burst = 30\nprincipal_per_second = 1";

#[tokio::test]
async fn threat_46_the_authentication_routes_are_limited_by_peer() {
    let stack = limited(SLOW).await;
    let agent = stack.agent(json!({})).await;
    let exchange = async |round: usize, body: Value| {
        let request = stack.owner.by(None).request(Method::POST, "/v1/auth/agent-token");
        Client::send(disguised(request, round).json(&body)).await
    };
    assert_limited(5, 200, async |round| exchange(round, json!({"api_key": agent.api_key})).await).await;
    // All of these routes share the bucket, whatever is asked and however.
    for path in ["/v1/auth/api-key-token", "/v1/auth/refresh", "/v1/auth/agent-token"] {
        let mut replies = Vec::new();
        for round in 0..3 {
            let request = stack.owner.by(None).request(Method::POST, path);
            replies
                .push(Client::send(disguised(request, round).json(&json!({"api_key": format!("1ck_{round}")}))).await);
        }
        assert!(replies.iter().any(|reply| reply.status == 429), "{path}: {replies:?}");
    }
    // Agents that have a token, or use their key as one, go on.
    agent.submit(pay("0.001")).await.expect(201);
}

#[tokio::test]
async fn threat_46_requests_without_credentials_are_limited_by_peer() {
    let stack = limited(SLOW).await;
    let nobody = stack.owner.by(None);
    assert_limited(8, 401, async |round| {
        // Every other one with a Bearer that is no key at all.
        let request = nobody.request(Method::GET, "/v1/vaults");
        let request = if round % 2 == 0 { request } else { request.bearer_auth(format!("guess-{round}")) };
        Client::send(disguised(request, round)).await
    })
    .await;
    let public = Client::send(disguised(nobody.request(Method::GET, "/v1/chains"), 99)).await;
    assert_too_many(&public);
}

#[tokio::test]
async fn threat_46_guessed_keys_are_refused_before_they_are_looked_up() {
    let stack = limited(SLOW).await;
    let agent = stack.agent(json!({})).await;
    agent.client.get(&agent.path()).await.expect(200);
    let guess = async |round: usize| {
        let key = format!("ocv_{:043}", round);
        Client::send(disguised(stack.owner.by(Some(&key)).request(Method::GET, "/v1/vaults"), round)).await
    };
    assert_limited(8, 401, guess).await;
    // The address is everybody's behind a proxy: who held a good key before is not locked out by who guesses.
    agent.client.get(&agent.path()).await.expect(200);
    // With the database standing still, a look-up would take seconds to fail.
    let frozen = Frozen::postgres(&stack);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        assert!(Instant::now() < deadline, "each guess waited for the database");
        // What has not even the form of a key is told without the database, and uses up the address's failures.
        let rubbish = stack.owner.by(Some("rubbish"));
        while rubbish.get("/v1/vaults").await.status == 401 {}
        let began = Instant::now();
        let reply = guess(100).await;
        if reply.status == 429 && began.elapsed() < Duration::from_secs(1) {
            break;
        }
    }
    drop(frozen);
}

#[tokio::test]
async fn threat_46_a_principal_is_limited_by_who_it_is() {
    let stack = limited(SLOW).await;
    let (agent, other) = (stack.agent(json!({})).await, stack.agent(json!({})).await);
    let token = stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": agent.api_key})).await.expect(200);
    let by_token = agent.client.by(token["access_token"].as_str());
    assert_limited(30, 200, async |round| {
        // By key and by token it is the same agent.
        let client = if round % 2 == 0 { &agent.client } else { &by_token };
        Client::send(disguised(client.request(Method::GET, &agent.path()), round)).await
    })
    .await;
    let refused =
        Client::send(disguised(agent.client.request(Method::POST, &agent.path()), 1).json(&pay("0.001"))).await;
    assert_too_many(&refused);
    assert_eq!(stack.count("SELECT count(*) FROM idempotency").await, 0, "nothing was claimed");
    other.submit(pay("0.001")).await.expect(201);
}

/// A POST whose body is promised and does not come.
fn hanging(base: &str, path: &str, key: &str) -> TcpStream {
    let address = base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Length: 1000\r\n\r\n{{\"name\":"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[tokio::test]
async fn threat_29_slow_bodies_of_one_principal_hold_up_nobody_else_and_not_for_long() {
    let stack = limited("principal_concurrency = 3\nbody_deadline_s = 8").await;
    let agent = stack.agent(json!({})).await;
    let key = stack.owner.bearer.clone().unwrap();
    let soon = Duration::from_secs(20);
    // One more than there are places: whichever comes last is refused, and then the places are known to be taken.
    let (answered, mut answers) = tokio::sync::mpsc::channel(4);
    for _ in 0..4 {
        let (mut stream, answered) = (hanging(&stack.owner.base, "/v1/vaults", &key), answered.clone());
        stream.set_read_timeout(Some(soon)).unwrap();
        std::thread::spawn(move || {
            let mut reply = [0; 64];
            let read = stream.read(&mut reply).unwrap();
            answered.blocking_send(String::from_utf8_lossy(&reply[..read]).into_owned())
        });
    }
    let first = answers.recv().await.unwrap();
    assert!(first.starts_with("HTTP/1.1 429 "), "{first}");
    let refused = stack.owner.get("/v1/vaults").await;
    if refused.status != 200 {
        assert_too_many(&refused);
        assert!(refused.body["detail"].as_str().unwrap().contains("at once"), "{}", refused.body);
    }
    agent.submit(pay("0.001")).await.expect(201);
    for _ in 0..3 {
        let head = answers.recv().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    }
    // A place is given back also by who goes away without a word.
    drop((0..3).map(|_| hanging(&stack.owner.base, "/v1/vaults", &key)).collect::<Vec<_>>());
    until(soon, "there is room again", async || stack.owner.get("/v1/vaults").await.status == 200).await;
    assert_eq!(
        stack.count("SELECT count(*) FROM vaults WHERE name NOT LIKE 'keys of %' AND name <> '__agent-keys'").await,
        0
    );
}

#[tokio::test]
async fn threat_29_bodies_are_bounded_in_size_and_depth_on_every_kind_of_route() {
    let stack = limited("").await;
    let agent = stack.agent(json!({})).await;
    let agent_path = format!("/v1/agents/{}", agent.id);
    let routes = [
        (&stack.owner, Method::POST, "/v1/vaults", "name"),
        (&stack.owner, Method::PATCH, agent_path.as_str(), "memo"),
        (&stack.owner, Method::PATCH, "/v1/org/settings", "require_simulation"),
        (&stack.owner, Method::POST, "/v1/security/ip-rules", "cidr"),
        (&agent.client, Method::POST, &agent.path(), "memo"),
    ];
    for (client, method, path, field) in routes {
        let send = |body: String| Client::send(client.request(method.clone(), path).body(body));
        let ten_megabytes = format!("{{\"{field}\":\"{}\"}}", "x".repeat(10 * 1024 * 1024));
        let deep = format!("{{\"{field}\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(send(ten_megabytes).await.status, 413, "{method} {path}");
        assert_eq!(send(deep).await.status, 400, "{method} {path}");
        assert_eq!(send("[".repeat(100_000)).await.status, 400, "{method} {path}");
    }
    stack.owner.get("/v1/vaults").await.expect(200);
}

#[tokio::test]
async fn threat_46_paths_that_are_none_are_limited_as_all_requests_without_credentials() {
    let stack = limited(SLOW).await;
    let nobody = stack.owner.by(None);
    assert_limited(8, 404, async |round| {
        Client::send(disguised(nobody.request(Method::GET, &format!("/v1/nothing/{round}")), round)).await
    })
    .await;
    assert_too_many(&nobody.delete("/v1/health").await);
}

/// The first bytes of the reply to a request on a connection of its own, which stays open; nothing where it was closed.
fn health(address: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut reply = [0; 12];
    let _ = stream.write_all(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n");
    let read = stream.read(&mut reply).unwrap_or_default();
    (stream, String::from_utf8_lossy(&reply[..read]).into_owned())
}

/// Reads until the daemon closes the connection.
fn ended(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("it stays open: {error}"),
        _ => String::from_utf8_lossy(&rest).into_owned(),
    }
}

#[tokio::test]
async fn threat_29_connections_are_bounded_by_number_and_idleness() {
    let stack = limited("connections_per_address = 6\nidle_s = 5").await;
    let address = stack.owner.base.trim_start_matches("http://").to_owned();
    let opened: Vec<_> = (0..20).map(|_| health(&address)).collect();
    let served = opened.iter().filter(|(_, reply)| reply == "HTTP/1.1 200").count();
    assert!((1..=6).contains(&served), "{served} at once");
    assert!(opened.iter().all(|(_, reply)| ["", "HTTP/1.1 200"].contains(&reply.as_str())));
    // Those that do nothing more are closed, and make room.
    for (stream, _) in opened {
        ended(stream);
    }
    let room = async || health(&address).1 == "HTTP/1.1 200";
    until(Duration::from_secs(20), "there is room again", room).await;
    // One that says nothing; one whose head comes by and by; one that speaks HTTP/2 and asks for nothing.
    let say = |words: &[u8]| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(words).unwrap();
        stream
    };
    let silent = [
        say(b""),
        say(b"GET /v1/health HTTP/1.1\r\nX-A"),
        say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ];
    for stream in silent {
        assert!(!ended(stream).starts_with("HTTP/1.1 200"));
    }
    stack.owner.get("/v1/vaults").await.expect(200);
}
