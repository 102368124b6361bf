//! Payments that are raised again and again.

use serde_json::json;

use super::replace::{attempts, by_hand, cancel, speed_up, with};
use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack, pay, text};

#[tokio::test]
async fn a_speed_up_without_fees_said_again_at_once_raises_once() {
    let stack = Stack::with(Options { daemons: 2, anvil: by_hand, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let there = agent.at(&stack.daemons[1].url);
    let sent = agent.submit(pay("0.1")).await.expect(201);
    let first = speed_up(&agent.client, &agent, &sent, json!({})).await;
    assert_eq!(first.headers.get("idempotency-replayed"), None);
    let first = first.expect(200);
    let signed = |when: &'static str| {
        let stack = &stack;
        async move { stack.sql(&format!("UPDATE attempts SET created_at = clock_timestamp() {when}")).await }
    };
    signed("+ interval '1 hour'").await;
    for client in [&agent.client, &there.client, &stack.owner] {
        let again = speed_up(client, &agent, &sent, json!({})).await;
        assert_eq!(again.headers["idempotency-replayed"], "true");
        let again = again.expect(200);
        assert_eq!((&again["tx_hash"], &again["max_fee_per_gas"]), (&first["tx_hash"], &first["max_fee_per_gas"]));
    }
    assert_eq!(attempts(&stack, &agent, 0).await.len(), 2);
    // Who says how much, or says it under a key of its own, wants another.
    let path = format!("{}/{}/speed-up", agent.path(), text(&sent, "id"));
    let keyed = agent.client.request(reqwest::Method::POST, &path).header("Idempotency-Key", "k");
    let second = Client::send(keyed.json(&json!({}))).await.expect(200);
    assert_ne!(second["tx_hash"], first["tx_hash"]);
    signed("+ interval '1 hour'").await;
    let own = json!({"max_fee_per_gas": "400000000000", "max_priority_fee_per_gas": "40000000000"});
    assert_eq!(
        speed_up(&agent.client, &agent, &sent, own.clone()).await.expect(200)["max_fee_per_gas"],
        "400000000000"
    );
    // When it has had its time, again means more.
    signed("- interval '1 hour'").await;
    assert_eq!(speed_up(&agent.client, &agent, &sent, json!({})).await.expect(200)["max_fee_per_gas"], "450000000000");
    assert_eq!(attempts(&stack, &agent, 0).await.len(), 5);
    stack.chain().mine(1).await;
    stack.assert_settled("base", agent.signer, 0, 1).await;
}

/// However often a payment was raised: a human, or the agent, can still have nothing happen instead.
#[tokio::test]
async fn what_was_raised_as_often_as_it_may_be_is_cancelled_all_the_same() {
    let stack = Stack::with(Options { anvil: by_hand, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let fees = json!({"max_fee_per_gas": "30000000000", "max_priority_fee_per_gas": "1000000000"});
    let sent = agent.submit(with(pay("0.1"), fees)).await.expect(201);
    stack
        .sql(
            "INSERT INTO attempts (id, chain_id, address, nonce, kind, tx_hash, raw, reason, gas_limit, max_fee_per_gas,
                                   max_priority_fee_per_gas, ordinal)
             SELECT gen_random_uuid(), chain_id, address, nonce, kind, sha256(n::text::bytea), raw, 'speed_up', gas_limit,
                    max_fee_per_gas, max_priority_fee_per_gas, n FROM attempts, generate_series(1, 31) AS n",
        )
        .await;
    let higher = json!({"max_fee_per_gas": "90000000000", "max_priority_fee_per_gas": "9000000000"});
    let detail = speed_up(&stack.owner, &agent, &sent, higher).await.refused(409);
    assert!(detail.contains("32 signed attempts") && detail.contains("cancelled"), "{detail}");
    cancel(&stack.owner, &agent, &sent).await.expect(200);
    cancel(&agent.client, &agent, &sent).await.expect(200);
    assert_eq!(attempts(&stack, &agent, 0).await.len(), 33, "one no-op");
    stack.chain().mine(1).await;
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "cancelled");
}
