//! One intent from the request to its end, as clients see it.

use std::time::Duration;

use alloy::primitives::U256;
use serde_json::json;

use crate::harness::anvil::OTHER;
use crate::harness::stack::{Options, Stack, TO, hash, pay, text};

#[tokio::test]
async fn an_intent_becomes_a_mined_transaction() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let before = stack.chain().balance(OTHER).await;

    let sent = agent.submit(pay("0.05")).await.expect(201);
    assert_eq!(
        (sent["status"].as_str(), sent["chain"].as_str(), sent["chain_id"].as_u64()),
        (Some("broadcast"), Some("base"), Some(8453))
    );
    assert_eq!(sent["value_wei"], "50000000000000000");
    assert_eq!(text(&sent, "from"), agent.signer.to_string());
    assert!(text(&sent, "signed_tx").starts_with("0x02"));

    let done = agent.settled(&text(&sent, "id")).await;
    assert_eq!((done["receipt_status"].as_str(), done["gas_used"].as_u64()), (Some("success"), Some(21_000)));
    assert!(done["block_number"].as_u64().is_some() && done["confirmations"].as_u64() >= Some(1), "{done}");
    assert!(done.get("signed_tx").is_none(), "signed bytes are shown only when asked for");
    let receipt = stack.chain().receipt(hash(&sent), Duration::from_secs(5)).await;
    assert_eq!(receipt["transactionHash"], sent["tx_hash"]);
    assert_eq!(stack.chain().balance(OTHER).await - before, U256::from(50_000_000_000_000_000u64));
}

#[tokio::test]
async fn a_signed_only_intent_is_recorded_and_never_broadcast() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let signed = agent.sign(pay("0.01")).await.expect(200);
    assert_eq!(signed["status"], "sign_only");
    assert_eq!(signed["nonce"], 0);
    let listed = agent.client.get(&agent.path()).await.expect(200);
    assert_eq!(listed["transactions"][0]["tx_hash"], signed["tx_hash"]);
    assert_eq!(listed["transactions"][0]["status"], "sign_only");
    assert_eq!(stack.chain().nonce(agent.signer).await, 0);
    // Whoever has the bytes may send them, and the slot is followed all the same.
    stack.chain().request("eth_sendRawTransaction", json!([signed["signed_tx"]])).await;
    let id = text(&listed["transactions"][0], "id");
    assert_eq!(agent.settled(&id).await["receipt_status"], "success");
}

#[tokio::test]
async fn legacy_fees_calldata_and_simulation() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let legacy = json!({"to": TO, "value": "0", "chain": "8453", "data": "0x01020304", "gas_price": "3000000000"});
    let sent = agent.submit(legacy).await.expect(201);
    assert!(text(&sent, "signed_tx").starts_with("0xf8"), "{sent}");
    assert_eq!((sent["gas_price"].as_str(), sent.get("max_fee_per_gas")), (Some("3000000000"), None));
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");

    let simulated = json!({"to": TO, "value": "0.01", "chain": "base", "simulate_first": true});
    let sent = agent.submit(simulated).await.expect(201);
    assert_eq!(sent["simulation_status"], "success");

    // revert() for every call.
    stack.chain().set_code(OTHER, &[0x60, 0x00, 0x60, 0x00, 0xfd]).await;
    let doomed = json!({"to": TO, "value": "0.01", "chain": "base", "gas_limit": 100000, "simulate_first": true});
    let refused = agent.submit(doomed).await.expect(422);
    assert_eq!(
        (refused["status"].as_str(), refused["simulation_status"].as_str()),
        (Some("simulation_failed"), Some("reverted"))
    );
    assert!(refused["detail"].is_string() && refused["id"].is_string(), "{refused}");
    assert_eq!(stack.slots(8453, agent.signer).await.len(), 2, "the refused one took no nonce");
}

#[tokio::test]
async fn signed_bytes_are_shown_only_for_true_and_1() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let sent = agent.submit(pay("0.001")).await.expect(201);
    let path = format!("{}/{}", agent.path(), text(&sent, "id"));
    for (query, shown) in [
        ("", false),
        ("?include_signed_tx=true", true),
        ("?include_signed_tx=1", true),
        ("?include_signed_tx=True", false),
        ("?include_signed_tx=yes", false),
        ("?include_signed_tx=false", false),
    ] {
        let body = agent.client.get(&format!("{path}{query}")).await.expect(200);
        assert_eq!(body.get("signed_tx").is_some(), shown, "{query}");
    }
}

#[tokio::test]
async fn the_list_pages_through_everything_once() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    for _ in 0..7 {
        agent.submit(pay("0.001")).await.expect(201);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = agent.client.get(&format!("{}?limit=3{cursor}", agent.path())).await.expect(200);
        seen.extend(page["transactions"].as_array().unwrap().iter().map(|t| t["nonce"].as_u64().unwrap()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1, 0]);
}

#[tokio::test]
async fn humans_read_and_agents_submit_their_own() {
    let stack = Stack::with(Options::default()).await;
    let (agent, other) = (stack.agent(json!({})).await, stack.agent(json!({})).await);
    let sent = agent.submit(pay("0.001")).await.expect(201);
    stack.owner.get(&agent.path()).await.expect(200);
    stack.owner.post(&agent.path(), &pay("0.001")).await.refused(403);
    other.client.post(&agent.path(), &pay("0.001")).await.refused(403);
    other.client.get(&agent.path()).await.refused(403);
    other.client.get(&format!("{}/{}", other.path(), text(&sent, "id"))).await.refused(404);
    stack.owner.by(None).post(&agent.path(), &pay("0.001")).await.refused(401);
}
