//! What was decided about transactions.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::rpc_proxy::Act;
use crate::harness::simulator::variables;
use crate::harness::stack::{Options, Stack, TO, fresh_scalar, pay, text, until};
use crate::intents::outside::proxied;

fn pay_on(chain: &str, value: &str) -> Value {
    json!({"to": TO, "value": value, "chain": chain})
}

#[tokio::test]
async fn decided_in_flight_is_409_with_a_retry_after() {
    let (stack, proxy) = proxied(Options::default()).await;
    let payer = stack.agent(json!({})).await;
    proxy.freeze();
    let first = tokio::spawn({
        let payer = payer.clone();
        async move { payer.submit_with_key("k", pay("0.1")).await }
    });
    let claimed = async || stack.count("SELECT count(*) FROM idempotency WHERE state = 'in_flight'").await == 1;
    until(Duration::from_secs(20), "the key is claimed", claimed).await;
    let second = payer.submit_with_key("k", pay("0.1")).await;
    assert_eq!(second.headers["retry-after"], "1");
    second.refused(409);
    proxy.clear();
    let sent = first.await.unwrap().expect(201);
    assert_eq!(payer.submit_with_key("k", pay("0.1")).await.expect(200)["id"], sent["id"]);
}

#[tokio::test]
async fn decided_replay_shows_the_row_as_it_is_now() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({})).await;
    let first = payer.submit_with_key("k", pay("0.1")).await;
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let first = first.expect(201);
    assert!(first.get("receipt_status").is_none(), "{first}");
    payer.settled(&text(&first, "id")).await;
    let replay = payer.submit_with_key("k", pay("0.1")).await;
    assert_eq!(replay.headers["idempotency-replayed"], "true");
    let replay = replay.expect(200);
    assert_eq!((&replay["id"], &replay["tx_hash"]), (&first["id"], &first["tx_hash"]));
    assert_eq!((&replay["receipt_status"], &replay["final"]), (&json!("success"), &json!(true)));
    assert_eq!(stack.chain().nonce(payer.signer).await, 1);
}

#[tokio::test]
async fn decided_nonces_are_per_chain_and_address() {
    let stack = Stack::with(Options { chains: vec![("base", 8453), ("optimism", 10)], ..Options::default() }).await;
    let scalar = fresh_scalar();
    let (first, second) =
        (stack.agent_with_key(json!({}), &scalar).await, stack.agent_with_key(json!({}), &scalar).await);
    let mut nonces = Vec::new();
    for (payer, chain) in
        [(&first, "base"), (&second, "base"), (&first, "optimism"), (&second, "base"), (&first, "base")]
    {
        nonces.push(payer.submit(pay_on(chain, "0.001")).await.expect(201)["nonce"].as_u64().unwrap());
    }
    assert_eq!(nonces, [0, 1, 0, 2, 3], "two agents with one key share its nonces, two chains do not");
    stack.assert_settled("base", first.signer, 0, 4).await;
}

#[tokio::test]
async fn decided_a_broken_simulator_is_503_with_nothing_reserved_or_signed() {
    // Nobody listens there.
    let stack = Stack::with(Options { env: variables("http://127.0.0.1:1"), ..Options::default() }).await;
    let payer = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let mut simulated = pay("0.9");
    simulated["simulate_first"] = json!(true);
    for reply in [
        payer.submit_with_key("k", simulated.clone()).await,
        payer.sign(simulated.clone()).await,
        payer.simulate(pay("0.9")).await,
    ] {
        let seconds: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(seconds > 0);
        reply.refused(503);
    }
    for table in ["intents", "slots", "attempts", "spends", "idempotency"] {
        assert_eq!(stack.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    // The whole limit and the key are still there for who does not ask for it.
    assert_eq!(payer.submit_with_key("k", pay("1")).await.expect(201)["nonce"], 0);
}

#[tokio::test]
async fn decided_one_rolling_sum_per_spend_group_of_an_agent() {
    let options = Options {
        chains: vec![("base", 8453), ("optimism", 10), ("anvil", 31337)],
        spend_groups: [("anvil", "eth-test")].into(),
        ..Options::default()
    };
    let stack = Stack::with(options).await;
    let (payer, other) =
        (stack.agent(json!({"tx_daily_limit_eth": "1"})).await, stack.agent(json!({"tx_daily_limit_eth": "1"})).await);
    payer.submit(pay_on("base", "0.6")).await.expect(201);
    let detail = payer.submit(pay_on("optimism", "0.5")).await.refused(403);
    assert!(detail.contains("tx_daily_limit_eth"), "{detail}");
    payer.submit(pay_on("optimism", "0.4")).await.expect(201);
    // Test money is another sum, and another agent has its own.
    payer.submit(pay_on("anvil", "1")).await.expect(201);
    payer.submit(pay_on("anvil", "0.000000000000000001")).await.refused(403);
    other.submit(pay_on("base", "1")).await.expect(201);
    // It rolls: what was signed a day ago, and is final, no longer counts.
    stack.assert_settled("base", payer.signer, 0, 1).await;
    stack.assert_settled("optimism", payer.signer, 0, 1).await;
    payer.submit(pay_on("base", "0.1")).await.refused(403);
    stack.sql("UPDATE spends SET signed_at = signed_at - interval '24 hours 1 second'").await;
    stack.sql("UPDATE spending_windows SET last_stamp = last_stamp - interval '24 hours 1 second'").await;
    payer.submit(pay_on("base", "1")).await.expect(201);
}

#[tokio::test]
async fn decided_fees_have_guardrails_of_their_own() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({"tx_max_value_eth": "0.1", "tx_daily_limit_eth": "0.1"})).await;
    // To the last wei: the fee does not count as value.
    payer.submit(pay("0.1")).await.expect(201);
    payer.submit(pay("0")).await.expect(201);
    let mut costly = pay("0");
    costly["gas_price"] = json!("20000000000");
    stack.guardrails(&payer, json!({"tx_max_fee_eth": "0.0001"})).await;
    assert!(payer.submit(costly.clone()).await.refused(403).contains("tx_max_fee_eth"));
    stack.guardrails(&payer, json!({"tx_max_fee_eth": null, "tx_daily_fee_limit_eth": "0.0001"})).await;
    assert!(payer.submit(costly.clone()).await.refused(403).contains("tx_daily_fee_limit_eth"));
    stack.guardrails(&payer, json!({"tx_daily_fee_limit_eth": null})).await;
    payer.submit(costly.clone()).await.expect(201);
    // And the chain has a ceiling that no agent's guardrails lift.
    costly["gas_price"] = json!("500000000001");
    assert!(payer.submit(costly).await.refused(403).contains("ceiling"));
}

#[tokio::test]
async fn decided_a_failed_broadcast_is_201_signed_and_is_tried_again() {
    let (stack, proxy) = proxied(Options::default()).await;
    let payer = stack.agent(json!({})).await;
    proxy.on("eth_sendRawTransaction", Act::Http(502));
    let sent = payer.submit_with_key("k", pay("0.1")).await.expect(201);
    assert_eq!(sent["status"], "signed");
    assert!(!text(&sent, "error_message").is_empty() && sent["signed_tx"].is_string(), "{sent}");
    // Asked again, nothing new is signed.
    let again = payer.submit_with_key("k", pay("0.1")).await.expect(200);
    assert_eq!((&again["id"], &again["tx_hash"]), (&sent["id"], &sent["tx_hash"]));
    assert_eq!(stack.chain().nonce(payer.signer).await, 0);
    proxy.clear();
    let done = payer.settled(&text(&sent, "id")).await;
    assert_eq!((&done["receipt_status"], &done["tx_hash"]), (&json!("success"), &sent["tx_hash"]));
}
