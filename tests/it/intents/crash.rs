//! What dies in the middle: the client, the daemon at each stage, the answer to COMMIT, Postgres itself.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::anvil::AnvilOptions;
use crate::harness::freeze::{backends, signal_all};
use crate::harness::pg_proxy::{Fault, PgProxy};
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Agent, Options, Stack, hash, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

/// A stack whose daemon speaks to Postgres and to its chain through proxies.
struct Proxied {
    stack: Stack,
    pg: PgProxy,
    rpc: RpcProxy,
    agent: Agent,
}

async fn proxied(anvil: fn(&str, &mut AnvilOptions)) -> Proxied {
    let rpc = RpcProxy::start("http://127.0.0.1:1");
    let options = Options {
        daemons: 0,
        rpc_urls: [("base", rpc.url())].into(),
        env: vec![("INTENTD_CLAIM_LEASE_S".to_owned(), "1".to_owned())],
        anvil,
        ..Options::default()
    };
    let mut stack = Stack::with(options).await;
    rpc.forward_to(&stack.chain().url());
    let pg = PgProxy::start(stack.postgres.socket(), intentd::dev::postgres::NAME).await;
    stack.options.database_url = Some(pg.url());
    stack.add_daemon("first").await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    Proxied { stack, pg, rpc, agent }
}

fn mining(_: &str, _: &mut AnvilOptions) {}

impl Proxied {
    /// A submit under way.
    fn submit(&self, key: &str) -> tokio::task::JoinHandle<Option<(u16, Value)>> {
        let (agent, key) = (self.agent.clone(), key.to_owned());
        tokio::spawn(async move {
            let request = agent.client.request(reqwest::Method::POST, &agent.path());
            let sent =
                crate::harness::client::Client::try_send(request.header("Idempotency-Key", key).json(&pay("0.6")));
            sent.await.ok().map(|reply| (reply.status.as_u16(), reply.body))
        })
    }

    /// kill -9, and a new daemon in its place.
    async fn kill_and_restart(&mut self) {
        self.stack.daemons.remove(0).kill();
        self.rpc.clear();
        self.stack.add_daemon("second").await;
        self.agent = self.agent.at(&self.stack.daemons[0].url);
    }

    /// Asks again with the key until it is not in flight any more.
    async fn outcome(&self, key: &str) -> (u16, Value) {
        let deadline = std::time::Instant::now() + SOON;
        loop {
            let reply = self.agent.submit_with_key(key, pay("0.6")).await;
            if reply.status != 409 && reply.status != 503 {
                return (reply.status.as_u16(), reply.body);
            }
            assert!(std::time::Instant::now() < deadline, "{}", reply.body);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whatever happened: one transaction, of nonce 0, mined; and the limit of 1 ETH has counted it once.
    async fn assert_paid_once(&self) {
        self.stack.assert_settled("base", self.agent.signer, 0, 1).await;
        let detail = self.agent.submit(pay("0.5")).await.refused(403);
        assert!(detail.contains("rolling 24h total 1.1 ETH"), "{detail}");
        self.agent.submit(pay("0.4")).await.expect(201);
    }
}

#[tokio::test]
async fn the_answer_to_commit_is_lost_and_the_intent_is_not() {
    let proxied = proxied(mining).await;
    proxied.pg.arm(Fault::LoseAnswer);
    let (status, body) = proxied.submit("k").await.unwrap().expect("an answer");
    assert_eq!(status, 201, "it was read by its id: {body}");
    let (status, replay) = proxied.outcome("k").await;
    assert_eq!((status, &replay["id"]), (200, &body["id"]));
    proxied.assert_paid_once().await;
}

#[tokio::test]
async fn a_commit_that_never_arrived_reserved_nothing() {
    let proxied = proxied(mining).await;
    proxied.pg.arm(Fault::LoseCommit);
    let (status, body) = proxied.submit("k").await.unwrap().expect("an answer");
    assert_eq!(status, 503, "{body}");
    assert_eq!(proxied.stack.count("SELECT count(*) FROM slots").await, 0);
    let (status, body) = proxied.outcome("k").await;
    assert_eq!((status, body["nonce"].as_u64()), (201, Some(0)), "the nonce was not lost");
    proxied.assert_paid_once().await;
}

#[tokio::test]
async fn the_client_goes_away_in_the_middle_of_t1() {
    let proxied = proxied(mining).await;
    proxied.pg.arm(Fault::Hold);
    let client = proxied.submit("k");
    proxied.pg.struck().await;
    client.abort();
    let _ = client.await;
    proxied.pg.release();
    let (status, body) = proxied.outcome("k").await;
    assert_eq!((status, body["nonce"].as_u64()), (200, Some(0)), "the pipeline went on without its client: {body}");
    proxied.assert_paid_once().await;
}

#[tokio::test]
async fn threat_01_killed_while_it_reads_the_chain() {
    let mut proxied = proxied(mining).await;
    proxied.rpc.freeze();
    let client = proxied.submit("k");
    let claimed = async || proxied.stack.count("SELECT count(*) FROM idempotency").await == 1;
    until(SOON, "the key is claimed", claimed).await;
    proxied.kill_and_restart().await;
    assert!(client.await.unwrap().is_none());
    assert_eq!(proxied.outcome("k").await.0, 201, "a dead claim is taken over");
    proxied.assert_paid_once().await;
}

#[tokio::test]
async fn threat_01_killed_after_the_signature_and_before_the_commit() {
    let mut proxied = proxied(mining).await;
    proxied.pg.arm(Fault::Hold);
    let client = proxied.submit("k");
    proxied.pg.struck().await;
    proxied.kill_and_restart().await;
    assert!(client.await.unwrap().is_none());
    let (status, body) = proxied.outcome("k").await;
    assert_eq!((status, body["nonce"].as_u64()), (201, Some(0)));
    proxied.assert_paid_once().await;
}

#[tokio::test]
async fn threat_01_killed_after_the_commit_and_before_the_broadcast() {
    let mut proxied = proxied(mining).await;
    proxied.rpc.on("eth_sendRawTransaction", Act::Freeze);
    let client = proxied.submit("k");
    proxied.rpc.wait_for("eth_sendRawTransaction", 1, SOON).await;
    let committed: Vec<u8> =
        sqlx::query_scalar("SELECT tx_hash FROM attempts").fetch_one(&proxied.stack.db).await.unwrap();
    proxied.rpc.on("eth_sendRawTransaction", Act::DropRequest);
    proxied.kill_and_restart().await;
    assert_ne!(client.await.unwrap().map(|(status, _)| status), Some(503));
    let (status, body) = proxied.outcome("k").await;
    assert_eq!((status, hash(&body).to_vec()), (200, committed), "the stored bytes are what counts");
    proxied.assert_paid_once().await;
}

#[tokio::test]
async fn threat_01_killed_after_the_broadcast_and_before_it_was_recorded() {
    let mut proxied = proxied(|_, anvil| anvil.no_mining = true).await;
    // The node gets the bytes, and its answer does not come back in this daemon's life.
    proxied.rpc.on(
        "eth_sendRawTransaction",
        Act::Edit(std::sync::Arc::new(|_, answer| {
            std::thread::sleep(Duration::from_secs(2));
            answer
        })),
    );
    let client = proxied.submit("k");
    let pooled = async || proxied.stack.chain().request("txpool_status", json!([])).await["pending"] == "0x1";
    until(SOON, "the node has it", pooled).await;
    proxied.kill_and_restart().await;
    assert!(client.await.unwrap().is_none());
    let (status, body) = proxied.outcome("k").await;
    assert_eq!(status, 200);
    let state = async || proxied.stack.slots(8453, proxied.agent.signer).await[0].1 == "broadcast";
    until(SOON, "\"already known\" is success", state).await;
    proxied.stack.chain().mine(1).await;
    let receipt = proxied.stack.chain().receipt(hash(&body), SOON).await;
    assert_eq!(receipt["status"], "0x1");
    proxied.stack.assert_settled("base", proxied.agent.signer, 0, 1).await;
}

#[tokio::test]
async fn threat_01_a_node_that_takes_the_bytes_and_drops_its_reply_costs_no_nonce() {
    let proxied = proxied(mining).await;
    proxied.rpc.on("eth_sendRawTransaction", Act::DropReply);
    let mut answered = Vec::new();
    for _ in 0..5 {
        let sent = proxied.agent.submit(pay("0.001")).await.expect(201);
        assert!(["signed", "broadcast"].contains(&sent["status"].as_str().unwrap()), "{sent}");
        answered.push(hash(&sent));
    }
    proxied.rpc.clear();
    proxied.stack.assert_settled("base", proxied.agent.signer, 0, 5).await;
    for hash in answered {
        proxied.stack.chain().receipt(hash, SOON).await;
    }
    let attempts = proxied.stack.count("SELECT count(*) FROM attempts").await;
    assert_eq!(attempts, 5, "the same bytes were sent again, nothing was signed again");
}

#[tokio::test]
async fn threat_44_a_stalled_database_and_a_kill_in_the_stall_pay_once() {
    let mut proxied = proxied(mining).await;
    for round in 0..20 {
        let key = format!("round-{round}");
        let clients: Vec<_> = (0..3).map(|_| spawn_payment(&proxied.agent, &key)).collect();
        // Somewhere in the pipeline of these, wherever that is this time.
        tokio::time::sleep(Duration::from_millis(7 * round)).await;
        proxied.stack.postgres.server().signal(Signal::STOP);
        let stopped = backends(&proxied.stack);
        signal_all(&stopped, Signal::STOP);
        proxied.stack.daemons[0].kill();
        signal_all(&stopped, Signal::CONT);
        proxied.stack.postgres.server().signal(Signal::CONT);
        for client in clients {
            let _ = client.await;
        }
        proxied.stack.daemons.clear();
        proxied.stack.add_daemon(&format!("round-{round}")).await;
        proxied.agent = proxied.agent.at(&proxied.stack.daemons[0].url);
        let deadline = std::time::Instant::now() + SOON;
        loop {
            let reply = proxied.agent.submit_with_key(&key, pay("0.01")).await;
            if matches!(reply.status.as_u16(), 200 | 201) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{}: {}", reply.status, reply.body);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    proxied.stack.assert_settled("base", proxied.agent.signer, 0, 20).await;
    assert_eq!(proxied.stack.count("SELECT count(*) FROM intents").await, 20, "each was paid once");
}

fn spawn_payment(agent: &Agent, key: &str) -> tokio::task::JoinHandle<()> {
    let (agent, key) = (agent.clone(), key.to_owned());
    tokio::spawn(async move {
        let request = agent.client.request(reqwest::Method::POST, &agent.path());
        let _ =
            crate::harness::client::Client::try_send(request.header("Idempotency-Key", key).json(&pay("0.01"))).await;
    })
}

#[tokio::test]
async fn threat_40_postgres_killed_under_load_loses_nothing_that_was_acknowledged() {
    let mut stack = Stack::with(Options { postgres: vec!["fsync=on"], ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let acknowledged = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut load = Vec::new();
    for _ in 0..8 {
        let (agent, acknowledged) = (agent.clone(), std::sync::Arc::clone(&acknowledged));
        load.push(tokio::spawn(async move {
            loop {
                let reply = agent.submit(pay("0.0001")).await;
                if reply.status != 201 {
                    return reply.status.as_u16();
                }
                acknowledged.lock().unwrap().push(text(&reply.body, "tx_hash"));
            }
        }));
    }
    until(SOON, "there is load", async || acknowledged.lock().unwrap().len() > 100).await;
    // The postmaster first, so that it cannot recover; then what it leaves behind.
    let backends = backends(&stack);
    stack.postgres.server().signal(Signal::KILL);
    signal_all(&backends, Signal::KILL);
    stack.postgres.process().wait().await;
    for client in load {
        assert_eq!(client.await.unwrap(), 503, "a dead database is \"could not check\"");
    }
    drop(stack.daemons);
    let again = stack.install.postgres(&[]).await;
    let db = sqlx::PgPool::connect(&again.url(intentd::dev::postgres::NAME)).await.unwrap();
    let rows: Vec<(Vec<u8>,)> = sqlx::query_as("SELECT tx_hash FROM attempts").fetch_all(&db).await.unwrap();
    let kept: std::collections::HashSet<String> =
        rows.into_iter().map(|(h,)| format!("0x{}", hex::encode(h))).collect();
    let acknowledged = acknowledged.lock().unwrap();
    let lost: Vec<&String> = acknowledged.iter().filter(|hash| !kept.contains(*hash)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged are lost", lost.len(), acknowledged.len());
}
