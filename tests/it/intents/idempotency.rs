//! Idempotency keys: one transaction for a key, whatever happens in between.

use serde_json::json;

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack, pay, text};

#[tokio::test]
async fn threat_03_fifty_requests_with_one_key_make_one_transaction() {
    let stack = Stack::with(Options { daemons: 3, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let mut running = Vec::new();
    for index in 0..50 {
        let agent = agent.at(&stack.daemons[index % 3].url);
        running.push(tokio::spawn(async move { agent.submit_with_key("the-key", pay("0.1")).await }));
    }
    let (mut created, mut hashes) = (0, Vec::new());
    for task in running {
        let reply = task.await.unwrap();
        match reply.status.as_u16() {
            201 => created += 1,
            200 => assert_eq!(reply.headers["idempotency-replayed"], "true"),
            409 => {
                assert_eq!(reply.headers["retry-after"], "1");
                continue;
            }
            other => panic!("{other}: {}", reply.body),
        }
        hashes.push(text(&reply.body, "tx_hash"));
    }
    assert_eq!(created, 1);
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "every reply names the same transaction");
    stack.assert_settled("base", agent.signer, 0, 1).await;
}

#[tokio::test]
async fn threat_03_a_replay_shows_the_row_as_it_is_now_with_its_bytes() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let first = agent.submit_with_key("k", pay("0.10")).await.expect(201);
    agent.settled(&text(&first, "id")).await;
    let mut same = pay("0.1");
    same["chain"] = json!("8453");
    let replay = agent.submit_with_key("k", same).await;
    assert_eq!(replay.headers["idempotency-replayed"], "true");
    let replay = replay.expect(200);
    assert_eq!((&replay["id"], &replay["signed_tx"]), (&first["id"], &first["signed_tx"]));
    assert_eq!(replay["receipt_status"], "success");
}

#[tokio::test]
async fn threat_03_another_body_is_refused_and_another_agent_is_independent() {
    let stack = Stack::start().await;
    let (agent, other) = (stack.agent(json!({})).await, stack.agent(json!({})).await);
    agent.submit_with_key("k", pay("0.1")).await.expect(201);
    let refused = agent.submit_with_key("k", pay("0.2")).await.expect(422);
    assert_eq!(refused["type"], "idempotency_mismatch");
    // The other route is another request too.
    let sign = agent.client.request(reqwest::Method::POST, &format!("{}/sign", agent.path()));
    Client::send(sign.header("Idempotency-Key", "k").json(&pay("0.1"))).await.expect(422);
    other.submit_with_key("k", pay("0.1")).await.expect(201);
}

#[tokio::test]
async fn threat_03_what_signed_nothing_gives_the_key_back() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({"tx_max_value_eth": "0.5"})).await;
    agent.submit_with_key("k", pay("1")).await.refused(403);
    agent.submit_with_key("k", pay("0.5")).await.expect(201);
}

#[tokio::test]
async fn threat_03_a_key_lives_24_hours_and_longer_while_its_transaction_is_open() {
    let stack = Stack::with(Options { anvil: |_, anvil| anvil.no_mining = true, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let first = agent.submit_with_key("k", pay("0.1")).await.expect(201);
    let age =
        |seconds: i64| format!("UPDATE idempotency SET expires_at = clock_timestamp() + interval '{seconds} seconds'");
    // A second before its end it replays; past it too, because the transaction is not final.
    for seconds in [1, -1] {
        stack.sql(&age(seconds)).await;
        let replay = agent.submit_with_key("k", pay("0.1")).await.expect(200);
        assert_eq!(replay["id"], first["id"], "{seconds}");
    }
    stack.chain().mine(1).await;
    agent.settled(&text(&first, "id")).await;
    stack.sql(&age(5)).await;
    agent.submit_with_key("k", pay("0.1")).await.expect(200);
    stack.sql(&age(-1)).await;
    let second = agent.submit_with_key("k", pay("0.1")).await.expect(201);
    assert_ne!(second["id"], first["id"]);
}

#[tokio::test]
async fn threat_03_a_dead_claim_is_taken_over_and_the_stalled_run_cannot_commit() {
    let slow = crate::harness::rpc_proxy::RpcProxy::start("http://127.0.0.1:1");
    let rpc_urls = [("base", slow.url())].into();
    let env = vec![("INTENTD_CLAIM_LEASE_S".to_owned(), "1".to_owned())];
    let stack = Stack::with(Options { daemons: 1, rpc_urls, env, ..Options::default() }).await;
    slow.forward_to(&stack.chain().url());
    let agent = stack.agent(json!({})).await;
    // The first daemon's run is stopped in the middle: its RPC does not answer, and then it does not run at all.
    let first = &stack.daemons[0];
    slow.freeze();
    let stalled = tokio::spawn({
        let agent = agent.clone();
        async move { agent.submit_with_key("k", pay("0.1")).await }
    });
    let claimed = async || stack.count("SELECT count(*) FROM idempotency WHERE state = 'in_flight'").await == 1;
    crate::harness::stack::until(std::time::Duration::from_secs(10), "the key is claimed", claimed).await;
    first.signal(rustix::process::Signal::STOP);
    slow.clear();
    let second = stack.start_daemon("second").await;
    agent.at(&second.url).submit_with_key("k", pay("0.1")).await.refused(409);
    let lease_is_over =
        async || stack.count("SELECT count(*) FROM idempotency WHERE lease_until < clock_timestamp()").await == 1;
    crate::harness::stack::until(std::time::Duration::from_secs(10), "the lease is over", lease_is_over).await;
    let taken_over = agent.at(&second.url).submit_with_key("k", pay("0.1")).await.expect(201);
    first.signal(rustix::process::Signal::CONT);
    // The stalled run goes on, and may not commit: it answers a conflict, or the outcome of the other.
    let reply = stalled.await.unwrap();
    assert!(matches!(reply.status.as_u16(), 409 | 503), "{}: {}", reply.status, reply.body);
    let replay = agent.submit_with_key("k", pay("0.1")).await.expect(200);
    assert_eq!(replay["id"], taken_over["id"]);
    stack.assert_settled("base", agent.signer, 0, 1).await;
}
