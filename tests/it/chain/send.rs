//! What sending bytes can come to, on a real node and with the reply lost.

use std::time::Duration;

use alloy::primitives::{Address, U256};
use intentd::chain::{Fees, SendOutcome, UnsignedTx};
use intentd::money::Wei;
use serde_json::json;

use super::tx::{sign, transfer};
use crate::harness::anvil::{Anvil, AnvilOptions, RICH};
use crate::harness::rpc_proxy::{Act, RpcProxy};

fn no_mining() -> Anvil {
    Anvil::with(&AnvilOptions { no_mining: true, ..AnvilOptions::default() })
}

fn fees(max_fee_gwei: u128, tip_gwei: u128) -> Fees {
    let gwei = 1_000_000_000;
    Fees::Eip1559 { max_fee_per_gas: max_fee_gwei * gwei, max_priority_fee_per_gas: tip_gwei * gwei }
}

#[tokio::test]
async fn the_same_bytes_twice_are_known_and_then_too_low() {
    let anvil = no_mining();
    let chain = anvil.chain("anvil");
    let rpc = chain.rpc().await.unwrap();
    let signed = sign(&transfer(31337), 0);
    assert_eq!(super::send_raw(rpc, &signed.raw).await, SendOutcome::Accepted);
    assert_eq!(super::send_raw(rpc, &signed.raw).await, SendOutcome::AlreadyKnown);
    assert_eq!(rpc.transaction_known(signed.hash).await, Ok(true));
    assert_eq!(rpc.receipt(signed.hash).await, Ok(None));
    assert_eq!((rpc.pending_nonce(RICH).await, rpc.latest_nonce(RICH).await), (Ok(1), Ok(0)));
    anvil.mine(1).await;
    let receipt = rpc.receipt(signed.hash).await.unwrap().unwrap();
    assert!(receipt.success);
    assert_eq!(receipt.gas_used, 21_000);
    assert_eq!(super::send_raw(rpc, &signed.raw).await, SendOutcome::NonceTooLow);
}

#[tokio::test]
async fn a_cheaper_replacement_is_underpriced() {
    let anvil = no_mining();
    let chain = anvil.chain("anvil");
    let rpc = chain.rpc().await.unwrap();
    let first = sign(&transfer(31337), 0);
    let tx = UnsignedTx { value: Wei::from(1u64), ..transfer(31337) };
    assert_eq!(super::send_raw(rpc, &first.raw).await, SendOutcome::Accepted);
    assert_eq!(super::send_raw(rpc, &sign(&tx, 0).raw).await, SendOutcome::Underpriced);
    let dearer = UnsignedTx { fees: fees(34, 2), ..tx };
    assert_eq!(super::send_raw(rpc, &sign(&dearer, 0).raw).await, SendOutcome::Accepted);
}

#[tokio::test]
async fn a_lost_balance_and_a_hopeless_transaction_are_told_apart() {
    let anvil = Anvil::start(31337);
    let chain = anvil.chain("anvil");
    let rpc = chain.rpc().await.unwrap();
    anvil.set_balance(RICH, U256::from(1_000)).await;
    assert_eq!(super::send_raw(rpc, &sign(&transfer(31337), 0).raw).await, SendOutcome::InsufficientFunds);
    anvil.set_balance(RICH, U256::from(10u128.pow(20))).await;
    let outcome = super::send_raw(rpc, &sign(&UnsignedTx { gas_limit: 20_000, ..transfer(31337) }, 0).raw).await;
    assert!(matches!(outcome, SendOutcome::Rejected(_)), "{outcome:?}");
    let outcome = super::send_raw(rpc, &sign(&transfer(1), 0).raw).await;
    assert!(matches!(outcome, SendOutcome::Rejected(_)), "{outcome:?}");
    assert_eq!(rpc.latest_nonce(RICH).await, Ok(0));
}

#[tokio::test]
async fn threat_01_a_lost_reply_is_unknown_and_the_same_bytes_heal_it() {
    let anvil = no_mining();
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    let signed = sign(&transfer(31337), 0);
    proxy.next("eth_sendRawTransaction", Act::DropReply);
    let outcome = super::send_raw(rpc, &signed.raw).await;
    assert!(matches!(outcome, SendOutcome::Unknown(_)), "{outcome:?}");
    assert_eq!(rpc.transaction_known(signed.hash).await, Ok(true));
    assert_eq!(super::send_raw(rpc, &signed.raw).await, SendOutcome::AlreadyKnown);
}

#[tokio::test]
async fn threat_01_no_failure_of_the_node_looks_like_a_refusal() {
    let anvil = no_mining();
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    let signed = sign(&transfer(31337), 0);
    let failures = [
        Act::DropRequest,
        Act::Http(500),
        Act::Http(503),
        Act::Http(429),
        Act::Http(401),
        Act::Http(302),
        Act::Garbage(b"<html>".to_vec()),
        Act::Garbage(b"{}".to_vec()),
        Act::Garbage(Vec::new()),
        Act::Answer(json!(null)),
        Act::Answer(json!("0x1234")),
        Act::Answer(json!("0x0000000000000000000000000000000000000000000000000000000000000001")),
        Act::error(-32005, "daily request limit exceeded"),
    ];
    for act in failures {
        proxy.next("eth_sendRawTransaction", act);
        let outcome = super::send_raw(rpc, &signed.raw).await;
        assert!(matches!(outcome, SendOutcome::Unknown(_)), "{outcome:?}");
    }
    proxy.on("eth_sendRawTransaction", Act::Freeze);
    let outcome = tokio::time::timeout(Duration::from_secs(10), super::send_raw(rpc, &signed.raw)).await.unwrap();
    assert!(matches!(outcome, SendOutcome::Unknown(_)), "{outcome:?}");
    assert_eq!(rpc.transaction_known(signed.hash).await, Ok(false));
}

#[tokio::test]
async fn threat_23_a_node_that_repeats_the_url_does_not_leak_it() {
    let anvil = Anvil::start(31337);
    let proxy = RpcProxy::start(&anvil.url());
    let url = format!("{}/v2/hush-hush-key?token=hush-hush-token", proxy.url());
    let chain = anvil.chain_at("anvil", &url);
    let rpc = chain.rpc().await.unwrap();
    let told = format!("no such app: hush-hush-key, hush-hush-token, at {url}\nbye{}", "!".repeat(1_000));
    proxy.on("eth_sendRawTransaction", Act::error(-32000, &told));
    let SendOutcome::Rejected(text) = super::send_raw(rpc, &sign(&transfer(31337), 0).raw).await else { panic!() };
    assert!(text.starts_with("no such app: [redacted], [redacted]") && !text.contains("hush"), "{text}");
    assert!(text.len() <= 300 && !text.contains('\n'), "{text}");
    proxy.on("eth_getBalance", Act::error(-32000, &told));
    let error = rpc.balance(Address::ZERO).await.unwrap_err();
    assert!(!format!("{error} {error:?} {chain:?}").contains("hush"), "{error}");
}
