//! Blocks that go away again, and transactions that a node forgets.

use std::time::Duration;

use alloy::primitives::Bytes;
use intentd::money::Wei;
use serde_json::{Value, json};

use super::outside::{proxied, rounds, sign_elsewhere};
use crate::harness::rpc_proxy::RpcProxy;
use crate::harness::stack::{Agent, Options, Stack, fresh_scalar, hash, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

async fn deep() -> (Stack, RpcProxy) {
    proxied(Options { confirmations: 5, ..Options::default() }).await
}

/// Waits until the transaction is in a block, by the API, and returns it.
async fn mined(agent: &Agent, id: &str) -> Value {
    until(SOON, "it is in a block", async || agent.transaction(id).await.get("block_number").is_some()).await;
    agent.transaction(id).await
}

async fn unmined(agent: &Agent, id: &str) -> Value {
    until(SOON, "it is in no block", async || agent.transaction(id).await.get("block_number").is_none()).await;
    agent.transaction(id).await
}

#[tokio::test]
async fn a_block_that_goes_away_is_followed_and_the_same_bytes_are_mined_again() {
    let (stack, _proxy) = deep().await;
    let agent = stack.agent(json!({})).await;
    let sent = agent.submit(pay("0.1")).await.expect(201);
    let id = text(&sent, "id");
    let first = mined(&agent, &id).await;
    assert_eq!((first["receipt_status"].as_str(), first["final"].as_bool()), (Some("success"), Some(false)), "{first}");

    stack.chain().request("evm_setAutomine", json!([false])).await;
    stack.chain().request("anvil_reorg", json!([1, []])).await;
    let gone = unmined(&agent, &id).await;
    assert_eq!(gone["status"], "broadcast");
    for field in ["final", "receipt_status", "block_hash", "gas_used", "confirmations", "effective_gas_price"] {
        assert_eq!(gone.get(field), None, "{gone}");
    }
    let pooled = async || !stack.chain().request("eth_getTransactionByHash", json!([hash(&sent)])).await.is_null();
    until(SOON, "the node has it again", pooled).await;

    stack.chain().mine(1).await;
    let again = mined(&agent, &id).await;
    assert_eq!((&again["tx_hash"], &again["final"]), (&sent["tx_hash"], &json!(false)));
    assert_ne!(again["block_hash"], first["block_hash"]);
    stack.chain().mine(3).await;
    let depth = async |depth: u64| agent.transaction(&id).await["confirmations"] == json!(depth);
    until(SOON, "four deep", async || depth(4).await).await;
    assert_eq!(agent.transaction(&id).await["final"], false, "five are asked for");
    stack.chain().mine(1).await;
    let done = agent.settled(&id).await;
    assert_eq!((done["receipt_status"].as_str(), done["confirmations"].as_u64()), (Some("success"), Some(5)));
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 1);
    stack.assert_settled("base", agent.signer, 0, 1).await;
}

/// The other branch has another transaction of the key: ours has failed, but not before that is final.
#[tokio::test]
async fn threat_05_a_nonce_that_a_reorganisation_gives_to_others_is_failed_only_when_that_is_final() {
    let (stack, proxy) = deep().await;
    let scalar = fresh_scalar();
    let agent = stack.agent_with_key(json!({"tx_daily_limit_eth": "1"}), &scalar).await;
    let sent = agent.submit(pay("0.6")).await.expect(201);
    let id = text(&sent, "id");
    mined(&agent, &id).await;
    let theirs: Bytes = sign_elsewhere(stack.chain(), &scalar, agent.signer, 0).raw;
    stack.chain().request("anvil_reorg", json!([1, [[theirs, 0]]])).await;
    assert_eq!(stack.chain().nonce(agent.signer).await, 1);

    let shown = unmined(&agent, &id).await;
    assert_eq!((shown["status"].as_str(), shown.get("final")), (Some("broadcast"), None), "{shown}");
    stack.chain().mine(3).await;
    rounds(&proxy, 2).await;
    assert!(agent.submit(pay("0.6")).await.refused(403).contains("1.2 ETH"), "its bytes could still come back");
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE state = 'final'").await, 0);
    // Deep enough now; but that a receipt is missing is believed only when it stays missing for as many blocks again.
    stack.chain().mine(1).await;
    let noticed = async || stack.count("SELECT count(*) FROM slots WHERE noticed_block IS NOT NULL").await == 1;
    until(SOON, "the missing receipt is noticed", noticed).await;
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE state = 'final'").await, 0);
    stack.chain().mine(5).await;
    let done = agent.settled(&id).await;
    assert_eq!((done["status"].as_str(), done["receipt_status"].as_str()), (Some("failed"), Some("foreign")));
    let sum: Wei = sqlx::query_scalar("SELECT value_sum_wei FROM spending_windows").fetch_one(&stack.db).await.unwrap();
    assert_eq!(sum, Wei::from_units("0.6").unwrap(), "a node cannot free a limit by losing a receipt");
    assert_eq!(agent.submit(pay("0.4")).await.expect(201)["nonce"], 1);
}

#[tokio::test]
async fn a_transaction_that_the_node_forgets_is_sent_again_with_the_same_bytes() {
    let stack = Stack::with(Options { anvil: |_, anvil| anvil.no_mining = true, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(agent.submit(pay("0.1")).await.expect(201));
    }
    let known = async |hash: Value| !stack.chain().request("eth_getTransactionByHash", json!([hash])).await.is_null();
    for forgotten in [&sent[1], &sent[0]] {
        assert!(known(forgotten["tx_hash"].clone()).await);
        stack.chain().request("anvil_dropTransaction", json!([forgotten["tx_hash"]])).await;
    }
    for sent in &sent {
        until(SOON, "the node has it again", async || known(sent["tx_hash"].clone()).await).await;
    }
    stack.chain().mine(1).await;
    stack.assert_settled("base", agent.signer, 0, 3).await;
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 3);
}
