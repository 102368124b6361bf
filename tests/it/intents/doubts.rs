//! Nonces that a node called used, and that are not.

use std::time::Duration;

use serde_json::json;

use super::nonces::outcomes;
use super::outside::proxied;
use crate::harness::anvil::number;
use crate::harness::rpc_proxy::Act;
use crate::harness::stack::{Options, fresh_scalar, hash, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

/// So many more nonces are used, says the node.
fn more_used(by: u64) -> Act {
    Act::edit(move |_, count| json!(format!("{:#x}", number(&count) + by)))
}

#[tokio::test]
async fn threat_02_a_first_use_that_began_too_high_is_filled_from_where_the_chain_is() {
    let env = vec![("INTENTD_FOREIGN_FILL_BLOCKS".to_owned(), "1".to_owned())];
    let (stack, proxy) = proxied(Options { env, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    proxy.on("eth_getTransactionCount", more_used(2));
    let sent = agent.submit(pay("0.001")).await.expect(201);
    assert_eq!(sent["nonce"], 2, "the node is believed: there is nothing else to go by");
    assert_eq!(stack.slots(8453, agent.signer).await.len(), 1);
    proxy.clear();
    let paid = async || {
        stack.chain().mine(1).await;
        agent.transaction(&text(&sent, "id")).await["receipt_status"] == "success"
    };
    until(SOON, "what waits behind nonces that nobody used is mined", paid).await;
    stack.assert_settled("base", agent.signer, 0, 3).await;
    let ends: Vec<_> = outcomes(&stack, agent.signer).await.into_iter().flatten().collect();
    assert_eq!(ends, ["cancelled", "cancelled", "success"]);
}

#[tokio::test]
async fn threat_02_a_payment_that_was_called_failed_by_a_lie_is_closed_and_never_made() {
    let env = vec![("INTENTD_FOREIGN_FILL_BLOCKS".to_owned(), "1".to_owned())];
    let (stack, proxy) = proxied(Options { env, ..Options::default() }).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let first = agent.submit(pay("0.001")).await.expect(201);
    agent.settled(&text(&first, "id")).await;
    // Held, so that nobody can find out by sending it once more.
    proxy.on("eth_sendRawTransaction", Act::error(-32_000, "overloaded"));
    let failed = agent.submit(pay("0.6")).await.expect(201);
    assert_eq!((&failed["nonce"], &failed["status"]), (&json!(1), &json!("signed")));
    let freeze = json!({"scope": "agent", "subject": agent.id});
    let freeze = text(&stack.owner.post("/v1/freezes", &freeze).await.expect(201), "id");
    proxy.on("eth_sendRawTransaction", Act::Pass);
    proxy.on("eth_getTransactionCount", more_used(1));
    let believed = async || {
        stack.chain().mine(1).await;
        outcomes(&stack, agent.signer).await.into_iter().flatten().collect::<Vec<_>>() == ["success", "foreign"]
    };
    until(SOON, "the node is believed", believed).await;

    proxy.clear();
    stack.owner.delete(&format!("/v1/freezes/{freeze}")).await.expect(204);
    let next = agent.submit(pay("0.001")).await.expect(201);
    assert_eq!(next["nonce"], 2);
    agent.submit(pay("0.6")).await.refused(403);
    let paid = async || {
        let shown = agent.transaction(&text(&failed, "id")).await;
        assert_eq!(shown.get("signed_tx"), None, "{shown}");
        // In a block, it is not final again.
        let status = if shown.get("block_number").is_some() { "broadcast" } else { "failed" };
        assert!(shown["status"] == status || shown["status"] == "failed", "{shown}");
        stack.chain().mine(1).await;
        agent.transaction(&text(&next, "id")).await["receipt_status"] == "success"
    };
    until(SOON, "what waits behind it is mined", paid).await;
    stack.assert_settled("base", agent.signer, 0, 3).await;
    let ends: Vec<_> = outcomes(&stack, agent.signer).await.into_iter().flatten().collect();
    assert_eq!(ends, ["success", "cancelled", "success"]);
    let known = stack.chain().request("eth_getTransactionByHash", json!([hash(&failed)])).await;
    assert!(known.is_null(), "what was called failed was sent: {known}");
    agent.submit(pay("0.9")).await.expect(201);
}

#[tokio::test]
async fn threat_02_nonces_that_a_node_called_used_and_that_are_not_are_closed() {
    let env = vec![("INTENTD_FOREIGN_FILL_BLOCKS".to_owned(), "1".to_owned())];
    let (stack, proxy) = proxied(Options { env, ..Options::default() }).await;
    let agent = stack.agent_with_key(json!({}), &fresh_scalar()).await;
    let first = agent.submit(pay("0.001")).await.expect(201);
    agent.settled(&text(&first, "id")).await;
    proxy.on("eth_getTransactionCount", more_used(2));
    let second = agent.submit(pay("0.001")).await.expect(201);
    assert_eq!(second["nonce"], 3);
    let believed = async || {
        stack.chain().mine(1).await;
        let ends: Vec<_> = outcomes(&stack, agent.signer).await.into_iter().flatten().collect();
        ends == ["success", "foreign", "foreign"]
    };
    until(SOON, "the node is believed", believed).await;

    proxy.clear();
    let paid = async || {
        stack.chain().mine(1).await;
        agent.transaction(&text(&second, "id")).await["receipt_status"] == "success"
    };
    until(SOON, "what waits behind them is mined", paid).await;
    stack.assert_settled("base", agent.signer, 0, 4).await;
    let ends: Vec<_> = outcomes(&stack, agent.signer).await.into_iter().flatten().collect();
    assert_eq!(ends, ["success", "cancelled", "cancelled", "success"]);
}
