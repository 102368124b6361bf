//! Starting together, stopping in order, and what a running daemon says of itself.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::client::Client;
use crate::harness::install::{self, DAEMON};
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Options, Stack, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn two_at_once_on_an_empty_database_and_an_empty_token_make_one_set_of_keys() {
    let mut stack = Stack::with(Options { daemons: 0, ..Options::default() }).await;
    sqlx::raw_sql("CREATE DATABASE empty").execute(&stack.db).await.unwrap();
    stack.options.database_url = Some(stack.postgres.url("empty"));
    let token = stack.install.root.join("empty-token");
    let conf = intentd::hsm::softhsm::prepare(&token).unwrap();
    let init = Command::new("softhsm2-util")
        .args([
            "--init-token",
            "--free",
            "--label",
            install::TOKEN_LABEL,
            "--pin",
            install::PIN,
            "--so-pin",
            install::PIN,
        ])
        .env(intentd::hsm::softhsm::CONF_VARIABLE, &conf)
        .output();
    assert!(init.unwrap().status.success());
    stack.options.env.push((intentd::hsm::softhsm::CONF_VARIABLE.to_owned(), conf.display().to_string()));

    for arguments in [["admin", "migrate"].as_slice(), &["admin", "hsm", "init"]] {
        let started: Vec<_> = (0..4)
            .map(|_| stack.command().args(arguments).stderr(std::process::Stdio::piped()).spawn().unwrap())
            .collect();
        for child in started {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let db = sqlx::PgPool::connect(&stack.postgres.url("empty")).await.unwrap();
    let keks: Vec<(String, i64)> =
        sqlx::query_as("SELECT purpose::text, count(*) FROM keks GROUP BY 1 ORDER BY 1").fetch_all(&db).await.unwrap();
    let one_each: Vec<(String, i64)> =
        ["audit", "data", "jwt", "mac", "seal"].into_iter().map(|purpose| (purpose.to_owned(), 1)).collect();
    assert_eq!(keks, one_each);
    let made = stack
        .command()
        .args(["admin", "bootstrap", "--organisation", "O", "--email", "o@example.test", "--json"])
        .output()
        .unwrap();
    let owner: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();

    let (one, two) = tokio::join!(stack.start_daemon("one"), stack.start_daemon("two"));
    for daemon in [&one, &two] {
        let client = Client::new(&daemon.url, owner["api_key"].as_str());
        assert_eq!(client.get("/v1/health").await.expect(200)["status"], "healthy");
        assert_eq!(client.get("/v1/health/hsm").await.expect(200)["status"], "ok");
        client.post("/v1/vaults", &json!({"name": daemon.url})).await.expect(201);
    }
}

#[tokio::test]
async fn a_stop_lets_what_is_in_flight_end_and_takes_nothing_new() {
    let rpc = RpcProxy::start("http://127.0.0.1:1");
    let options = Options { rpc_urls: [("base", rpc.url())].into(), ..Options::default() };
    let mut stack = Stack::with(options).await;
    rpc.forward_to(&stack.chain().url());
    let agent = stack.agent(json!({})).await;
    // In flight: it waits for its node.
    rpc.on("eth_getTransactionCount", Act::Freeze);
    let flying = tokio::spawn({
        let agent = agent.clone();
        async move { agent.submit(pay("0.001")).await }
    });
    rpc.wait_for("eth_getTransactionCount", 1, SOON).await;
    stack.daemons[0].signal(Signal::TERM);
    let address = stack.daemons[0].url.trim_start_matches("http://").to_owned();
    until(SOON, "new connections are refused", async || tokio::net::TcpStream::connect(&address).await.is_err()).await;
    rpc.clear();
    let sent = flying.await.unwrap().expect(201);
    let status = stack.daemons[0].ended().await;
    assert_eq!(status.code(), Some(0), "{}", stack.daemons[0].log_text());
    assert!(stack.daemons[0].log_text().contains("stopped"), "{}", stack.daemons[0].log_text());
    assert!(!stack.daemons[0].log_text().contains("WARN work was still in flight"));
    stack.chain().receipt(text(&sent, "tx_hash").parse().unwrap(), SOON).await;
    // The next one goes on from there.
    stack.daemons.clear();
    stack.add_daemon("next").await;
    let agent = agent.at(&stack.daemons[0].url);
    assert_eq!(agent.submit(pay("0.001")).await.expect(201)["nonce"], 1);
}

#[tokio::test]
async fn a_second_signal_or_an_idle_connection_does_not_hold_up_the_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut stack = Stack::start().await;
        // Keep-alive connections of clients that do nothing.
        stack.owner.get("/v1/health").await.expect(200);
        let began = std::time::Instant::now();
        stack.daemons[0].signal(signal);
        assert_eq!(stack.daemons[0].ended().await.code(), Some(0), "{}", stack.daemons[0].log_text());
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn health_is_public_and_has_the_fields_that_clients_read() {
    let stack = Stack::start().await;
    let nobody = stack.owner.by(None);
    let health = nobody.get("/v1/health").await.expect(200);
    assert_eq!((health["status"].as_str(), health["service"].as_str()), (Some("healthy"), Some("intentd")));
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    let hsm = nobody.get("/v1/health/hsm").await.expect(200);
    assert_eq!(hsm, json!({"status": "ok", "hsm_provider": "pkcs11", "connected": true}));
}

#[tokio::test]
async fn unknown_paths_and_wrong_verbs_are_problems() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let cases = [
        (Method::GET, "/", 404),
        (Method::GET, "/v1", 404),
        (Method::GET, "/v2/health", 404),
        (Method::POST, "/v1/nowhere", 404),
        (Method::GET, "/v1/health/", 404),
        (Method::GET, "//v1/health", 404),
        (Method::POST, "/v1/health", 405),
        (Method::DELETE, "/v1/chains", 405),
        (Method::PUT, "/v1/auth/agent-token", 405),
        (Method::GET, "/v1/auth/agent-token", 405),
        (Method::PATCH, "/v1/vaults", 405),
    ];
    for (method, path, status) in cases {
        for client in [&agent.client, &stack.owner, &stack.owner.by(None)] {
            let reply = Client::send(client.request(method.clone(), path)).await;
            assert_eq!(reply.status, status, "{method} {path}: {}", reply.body);
            assert_eq!(reply.headers["content-type"], "application/problem+json", "{method} {path}");
            assert_eq!(
                (reply.body["status"].as_u64(), reply.body["type"].as_str()),
                (Some(status.into()), Some("about:blank"))
            );
            assert!(reply.body["detail"].as_str().unwrap().contains(path), "{}", reply.body);
        }
    }
    let reply = Client::send(agent.client.request(Method::DELETE, &agent.path())).await;
    assert_eq!(reply.status, 405, "{}", reply.body);
}

#[test]
fn help_teaches() {
    let help = |arguments: &[&str]| {
        let output = Command::new(DAEMON).args(arguments).arg("--help").output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(help(&[]).contains("`intentd dev`"));
    let needs: [(&[&str], &[&str]); 8] = [
        (
            &["serve"],
            &[
                "INTENTD_DATABASE_URL",
                "INTENTD_HSM_MODULE",
                "INTENTD_HSM_PIN_FILE",
                "INTENTD_RPC_URL_BASE",
                "127.0.0.1:8787",
                "Example:",
            ],
        ),
        (&["dev"], &["Example:", "--state", "--reset"]),
        (&["admin", "migrate"], &["INTENTD_DATABASE_URL", "Example:"]),
        (&["admin", "bootstrap"], &["INTENTD_DATABASE_URL", "Example:", "--organisation"]),
        (&["admin", "config"], &["Example:", "redacted"]),
        (&["admin", "hsm", "init"], &["INTENTD_HSM_TOKEN_LABEL", "INTENTD_HSM_PIN_FILE"]),
        (&["admin", "hsm", "check"], &["INTENTD_HSM_TOKEN_LABEL", "INTENTD_HSM_PIN_FILE"]),
        (&["admin", "hsm", "bench"], &["Example:", "--workers"]),
    ];
    for (arguments, words) in needs {
        let text = help(arguments);
        for word in words {
            assert!(text.contains(word), "intentd {arguments:?} --help does not say {word:?}:\n{text}");
        }
    }
}
