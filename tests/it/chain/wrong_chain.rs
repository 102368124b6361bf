//! A node of another chain is refused, at the start and whenever it may have changed, and other chains do not notice.

use std::time::{Duration, Instant};

use intentd::chain::{Chain, ChainId, ChainSpec, ChainUnavailable, Chains, RpcError, RpcUrl, SendOutcome};
use serde_json::json;

use super::tx::{sign, transfer};
use crate::harness::anvil::{Anvil, OTHER, RICH};
use crate::harness::rpc_proxy::{Act, RpcProxy};

fn local(name: &str, chain_id: u64, url: &str) -> ChainSpec {
    ChainSpec::local(name, ChainId(chain_id), RpcUrl::parse(url).unwrap())
}

#[tokio::test]
async fn threat_11_a_node_of_another_chain_is_refused_and_others_keep_serving() {
    let (base, optimism) = (Anvil::start(8453), Anvil::start(10));
    let chains = Chains::load(vec![
        local("base", 8453, &optimism.url()),
        local("optimism", 10, &optimism.url()),
        local("other", 5, &base.url()),
    ])
    .unwrap();
    let error = chains.get("base").unwrap().rpc().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "chain base is unavailable: its RPC URL leads to another chain (expected chain id 8453, the node answered 10)"
    );
    assert!(!format!("{error:?}").contains("127.0.0.1"));
    assert!(chains.get("other").unwrap().rpc().await.is_err());
    let optimism = chains.get("optimism").unwrap();
    assert_eq!(optimism.rpc().await.unwrap().latest_nonce(RICH).await, Ok(0));
}

#[tokio::test]
async fn threat_11_a_node_that_answers_chain_id_0_is_refused() {
    let anvil = Anvil::start(31337);
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    for answer in [json!("0x0"), json!("0x10000000000000001"), json!(31337), json!(null), json!("31337"), json!({})] {
        proxy.on("eth_chainId", Act::Answer(answer.clone()));
        assert!(chain.rpc().await.is_err(), "{answer}");
    }
    proxy.clear();
    assert!(chain.rpc().await.is_ok());
}

#[tokio::test]
async fn who_watches_sees_the_wrong_chain_an_answer_without_sense_and_no_name_that_a_request_chose() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    // Of this process, which is this test's.
    metrics::set_global_recorder(recorder).unwrap();
    let anvil = Anvil::start(31337);
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let seen = || chain.nodes_seen().next().unwrap();
    let is_up = async || {
        chain.probe().await;
        seen().0
    };
    assert_eq!(seen(), (true, None));
    assert!(is_up().await && seen().1.is_some(), "its newest block is known");
    // Whatever it says that makes no sense is no answer: at HTTP, at JSON-RPC, and in what is asked for.
    for act in [
        Act::Garbage(b"<html>".to_vec()),
        Act::Answer(json!(null)),
        Act::Answer(json!({"number": "soon"})),
        Act::Edit(std::sync::Arc::new(|_, _| json!({"jsonrpc": "2.0", "id": 0, "result": {}}))),
        Act::Http(503),
    ] {
        proxy.on("eth_getBlockByNumber", act);
        assert!(!is_up().await);
        proxy.clear();
        assert!(is_up().await);
    }
    proxy.on("eth_chainId", Act::Answer(json!("0x1")));
    proxy.hang_up();
    // The connection's end is one failure; the next look is at another chain.
    assert!(!is_up().await && !is_up().await);
    let candidate = Chain::candidate(local("chosen-canary", 31337, &proxy.url())).unwrap();
    assert!(candidate.rpc().await.is_err());
    let text = recorded.render();
    for chain in ["anvil", "candidate"] {
        let line = format!(r#"{{chain="{chain}",method="eth_chainId",outcome="wrong_chain"}} "#);
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn the_chain_id_is_asked_once_while_nothing_changes() {
    let anvil = Anvil::start(31337);
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    for _ in 0..20 {
        chain.rpc().await.unwrap().latest_nonce(RICH).await.unwrap();
    }
    assert_eq!((proxy.count("eth_chainId"), proxy.count("eth_getTransactionCount")), (1, 20));
}

#[tokio::test]
async fn threat_11_after_a_failure_the_chain_id_is_asked_again() {
    let (anvil, stranger) = (Anvil::start(31337), Anvil::start(4242));
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    // The first ends the connection, the second leaves it open.
    for failure in [Act::DropReply, Act::Http(503)] {
        proxy.next("eth_getBalance", failure);
        assert!(matches!(rpc.balance(RICH).await, Err(RpcError::Unreachable { .. })));
        proxy.forward_to(&stranger.url());
        // Even by whoever still holds the handle: no answer of the stranger gets through.
        assert!(matches!(rpc.balance(RICH).await, Err(RpcError::WrongChain { .. })));
        assert!(matches!(chain.rpc().await, Err(ChainUnavailable::Rpc(RpcError::WrongChain { .. }))));
        proxy.forward_to(&anvil.url());
        assert!(chain.rpc().await.is_ok());
    }
}

/// A pool of connections reconnects by itself, and no call fails: the new connection alone must be reason enough.
#[tokio::test]
async fn threat_11_a_silent_reconnect_to_another_chain_is_noticed() {
    let (anvil, stranger) = (Anvil::start(31337), Anvil::start(4242));
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    let signed = sign(&transfer(31337), 0);
    for attempt in 0..3 {
        proxy.close_after_reply(true);
        rpc.latest_nonce(RICH).await.unwrap();
        proxy.close_after_reply(false);
        proxy.forward_to(&stranger.url());
        match attempt {
            0 => assert!(matches!(rpc.latest_nonce(RICH).await, Err(RpcError::WrongChain { .. }))),
            1 => assert!(matches!(rpc.receipts(&[signed.hash]).await, Err(RpcError::WrongChain { .. }))),
            _ => assert!(matches!(super::send_raw(rpc, &signed.raw).await, SendOutcome::Unknown(_))),
        }
        proxy.forward_to(&anvil.url());
        chain.rpc().await.unwrap();
    }
    assert_eq!(stranger.balance(OTHER).await, anvil.balance(OTHER).await);
}

#[tokio::test]
async fn threat_22_redirects_are_not_followed() {
    let anvil = Anvil::start(31337);
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    proxy.on("eth_getBalance", Act::Redirect(anvil.url()));
    let error = rpc.balance(RICH).await.unwrap_err();
    assert_eq!(error.to_string(), "chain anvil: its node answered HTTP 307");
}

#[tokio::test]
async fn threat_43_a_frozen_node_holds_up_its_own_chain_only() {
    let (frozen, good) = (Anvil::start(1), Anvil::start(2));
    let proxy = RpcProxy::start(&frozen.url());
    let mut spec = local("frozen", 1, &proxy.url());
    spec.rpc_deadline_ms = 1_000;
    let chains = Chains::load(vec![spec, local("good", 2, &good.url())]).unwrap();
    let (frozen, good) = (chains.get("frozen").unwrap(), chains.get("good").unwrap());
    frozen.rpc().await.unwrap();
    good.rpc().await.unwrap();
    proxy.freeze();
    let before = proxy.total();

    let started = Instant::now();
    let stuck: Vec<_> = (0..50)
        .map(|_| {
            let frozen = frozen.clone();
            tokio::spawn(async move { frozen.rpc().await?.balance(RICH).await.map_err(ChainUnavailable::from) })
        })
        .collect();
    proxy.wait_until(Duration::from_secs(5), |proxy| proxy.total() >= before + 50).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let call = Instant::now();
        good.rpc().await.unwrap().balance(RICH).await.unwrap();
        slowest = slowest.max(call.elapsed());
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    for call in stuck {
        let error = call.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("did not answer within 1000 ms"), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    proxy.clear();
    frozen.rpc().await.unwrap().balance(RICH).await.unwrap();
}
