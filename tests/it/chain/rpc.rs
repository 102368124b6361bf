//! The typed calls on a real node, and what becomes of answers that make no sense.

use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes, U256};
use intentd::chain::fees::{Ceilings, FeeError, FeeRequest, choose};
use intentd::chain::{Fees, RpcError, TxRequest, Unreachable};
use intentd::money::Wei;
use serde_json::{Value, json};

use super::tx::{sign, transfer};
use crate::harness::anvil::{Anvil, OTHER, RICH};
use crate::harness::rpc_proxy::{Act, RpcProxy};

/// More than anvil ever takes to mine.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_typed_calls_read_a_real_node() {
    let anvil = Anvil::start(31337);
    let chain = anvil.chain("anvil");
    let rpc = chain.rpc().await.unwrap();
    assert_eq!(rpc.balance(RICH).await, Ok(Wei::from(10_000 * 10u128.pow(18))));
    let contract = Address::repeat_byte(0xc0);
    assert_eq!(rpc.has_code(contract).await, Ok(false));
    anvil.set_code(contract, &[0x5f, 0x5f, 0xfd]).await;
    assert_eq!(rpc.has_code(contract).await, Ok(true));

    let head = rpc.head().await.unwrap();
    assert_eq!((head.number, head.gas_limit, head.base_fee), (0, 30_000_000, Some(1_000_000_000)));
    let signed = sign(&transfer(31337), 0);
    super::send_raw(rpc, &signed.raw).await;
    anvil.receipt(signed.hash, SOON).await;
    let receipt = rpc.receipt(signed.hash).await.unwrap().unwrap();
    assert_eq!((receipt.block_number, receipt.transaction_hash), (1, signed.hash));
    assert_eq!(rpc.block(1).await.unwrap().unwrap().hash, receipt.block_hash);
    assert_eq!(rpc.block(1).await.unwrap().unwrap().parent_hash, head.hash);
    assert_eq!(rpc.block(2).await, Ok(None));
    assert!(receipt.effective_gas_price.is_some());

    let call = |to, data: &[u8]| TxRequest {
        from: RICH,
        to,
        value: Wei::ZERO,
        data: Bytes::copy_from_slice(data),
        gas_limit: None,
    };
    assert_eq!(rpc.estimate_gas(&call(OTHER, &[])).await, Ok(21_000));
    assert!(rpc.estimate_gas(&call(OTHER, &[1; 32])).await.unwrap() >= 21_000 + 32 * 16);
    let error = rpc.estimate_gas(&call(contract, &[])).await.unwrap_err();
    assert!(error.node_error().is_some(), "{error}");
}

#[tokio::test]
async fn receipts_come_in_the_order_asked_whatever_the_nodes_order() {
    let anvil = Anvil::start(31337);
    // In reverse, as the specification of JSON-RPC allows.
    let proxy = RpcProxy::start(&anvil.url());
    proxy.reverse_batches();
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    let mut hashes: Vec<B256> = Vec::new();
    for nonce in 0..60 {
        let signed = sign(&transfer(31337), nonce);
        super::send_raw(rpc, &signed.raw).await;
        hashes.push(signed.hash);
    }
    anvil.receipt(hashes[59], SOON).await;
    hashes.insert(7, B256::repeat_byte(9));
    let receipts = rpc.receipts(&hashes).await.unwrap();
    assert_eq!(receipts.len(), 61);
    for (index, (hash, receipt)) in hashes.iter().zip(&receipts).enumerate() {
        match receipt {
            Some(receipt) => assert_eq!(receipt.transaction_hash, *hash),
            None => assert_eq!(index, 7),
        }
    }
    assert_eq!(rpc.receipts(&[]).await, Ok(Vec::new()));
}

/// A node that answers with HTTP 200 and nonsense has failed, and operators see it fail.
#[tokio::test]
async fn threat_14_a_batch_that_is_answered_with_rubbish_is_counted_as_a_failure() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let recorded = recorder.handle();
    // Of this process, which is this test's.
    metrics::set_global_recorder(recorder).unwrap();
    let anvil = Anvil::start(31337);
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    let count = |method: &str, outcome: &str| -> u64 {
        let series = format!(r#"intentd_rpc_calls_total{{chain="anvil",method="{method}",outcome="{outcome}"}} "#);
        let text = recorded.render();
        text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |value| value.parse().unwrap())
    };
    let asked = ["eth_getTransactionCount", "eth_getTransactionCount"];
    let batch = asked.map(|method| (method, json!([OTHER, "latest"])));
    assert_eq!(rpc.quantities(&batch).await, Ok(vec![0, 0]));
    assert_eq!((count("batch", "ok"), count("batch", "unreachable")), (1, 0));

    let body = |body: &str| Act::Garbage(body.as_bytes().to_vec());
    let edited = |change: fn(&mut Value)| {
        Act::Edit(std::sync::Arc::new(move |_, mut answer| {
            change(&mut answer);
            answer
        }))
    };
    let rubbish = [
        body("<html>"),
        body(""),
        body("[]"),
        body("null"),
        body("{}"),
        body("\"0x1\""),
        body("[null, 7, \"0x1\", [], {}]"),
        edited(|answer| drop(answer.as_object_mut().unwrap().remove("id"))),
        edited(|answer| answer["id"] = json!(u64::MAX)),
        edited(|answer| answer["id"] = json!(answer["id"].to_string())),
        edited(|answer| drop(answer.as_object_mut().unwrap().remove("result"))),
        edited(|answer| answer["error"] = json!({"code": 3})),
        Act::Http(502),
        Act::DropReply,
    ];
    let wrong = rubbish.len() as u64;
    for (index, act) in rubbish.into_iter().enumerate() {
        // The first of them is answered as it should be: half an answer is none.
        if matches!(act, Act::Edit(_)) {
            proxy.next(asked[0], Act::Pass);
        }
        proxy.on(asked[0], act);
        let error = rpc.quantities(&batch).await.expect_err("rubbish");
        assert!(matches!(error, RpcError::Unreachable { .. }) && rpc.is_down(), "{index}: {error}");
        let failed = index as u64 + 1;
        assert_eq!((count("batch", "ok"), count("batch", "unreachable")), (failed, failed), "{index}: {error}");
        // As soon as it makes sense again it is asked as before: in batches.
        proxy.clear();
        assert_eq!(rpc.quantities(&batch).await, Ok(vec![0, 0]), "{index}");
        assert!(!rpc.is_down());
    }
    assert_eq!((count("batch", "ok"), count("batch", "refused"), count(asked[0], "ok")), (wrong + 1, 0, 0));

    // A node that takes no batches has not failed: it has refused, and is asked one by one.
    for (refused, act) in [
        body(r#"{"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "no batches"}}"#),
        body(r#"{"error": "no batches"}"#),
        body(r#"{"message": "batches are for paying customers"}"#),
        body(r#"{"jsonrpc": "2.0", "id": 1, "result": "0x7"}"#),
    ]
    .into_iter()
    .enumerate()
    {
        let chain = anvil.chain_at("anvil", &proxy.url());
        let rpc = chain.rpc().await.unwrap();
        for method in asked {
            proxy.next(method, act.clone());
        }
        assert_eq!(rpc.quantities(&batch).await, Ok(vec![0, 0]));
        let (refused, one_by_one) = (refused as u64 + 1, 2 * (refused as u64 + 1));
        assert_eq!((count("batch", "refused"), count(asked[0], "ok")), (refused, one_by_one));
    }
    assert_eq!((count("batch", "ok"), count("batch", "unreachable")), (wrong + 1, wrong));
}

#[tokio::test]
async fn threat_14_a_receipt_or_transaction_of_something_else_is_not_believed() {
    let anvil = Anvil::start(31337);
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    let signed = sign(&transfer(31337), 0);
    super::send_raw(rpc, &signed.raw).await;
    anvil.receipt(signed.hash, SOON).await;
    let lie = |key: &'static str| {
        Act::edit(move |_, mut result: Value| {
            result[key] = json!(B256::repeat_byte(1));
            result
        })
    };
    proxy.on("eth_getTransactionReceipt", lie("transactionHash"));
    proxy.on("eth_getTransactionByHash", lie("hash"));
    let garbage = |error: RpcError| matches!(error, RpcError::Unreachable { cause: Unreachable::Garbage(_), .. });
    assert!(garbage(rpc.receipt(signed.hash).await.unwrap_err()));
    assert!(garbage(rpc.receipts(&[signed.hash]).await.unwrap_err()));
    assert!(garbage(rpc.transaction_known(signed.hash).await.unwrap_err()));
    // In the pool, by a node that answers a receipt without a block.
    let pooled = Act::edit(|_, mut result: Value| {
        result["blockNumber"] = Value::Null;
        result["blockHash"] = Value::Null;
        result
    });
    proxy.on("eth_getTransactionReceipt", pooled);
    assert_eq!(rpc.receipt(signed.hash).await, Ok(None));
}

#[tokio::test]
async fn threat_14_a_node_that_lies_about_prices_is_held_to_the_ceiling() {
    let anvil = Anvil::start(31337);
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    let ceilings = Ceilings { chain_wei: chain.spec().max_fee_per_gas_ceiling_wei, agent_wei: None };
    let honest = choose(FeeRequest::default(), &rpc.market().await.unwrap().quote, ceilings).unwrap();
    let base = 1_000_000_000;
    assert_eq!(
        honest,
        Fees::Eip1559 { max_fee_per_gas: 2 * base + 1_000_000_000, max_priority_fee_per_gas: 1_000_000_000 }
    );

    let dear = json!("0x174876e80000"); // 25,600 gwei
    let lies = [
        ("eth_maxPriorityFeePerGas", Act::Answer(dear.clone())),
        ("eth_maxPriorityFeePerGas", Act::Answer(json!(format!("0x{}", "f".repeat(32))))),
        (
            "eth_getBlockByNumber",
            Act::edit(move |_, mut block: Value| {
                block["baseFeePerGas"] = dear.clone();
                block
            }),
        ),
    ];
    for (method, lie) in lies {
        proxy.clear();
        proxy.on(method, lie);
        let quote = rpc.market().await.unwrap().quote;
        let error = choose(FeeRequest::default(), &quote, ceilings).unwrap_err();
        assert!(matches!(error, FeeError::QuoteAboveCeiling { .. }), "{method}: {error:?}");
        assert!(error.to_string().starts_with("the node asks more than the ceiling"), "{error}");
    }
    // Numbers that fit no fee are garbage, not a saturated number.
    proxy.clear();
    proxy.on("eth_gasPrice", Act::Answer(json!(format!("{:#x}", U256::MAX))));
    assert!(matches!(rpc.market().await, Err(RpcError::Unreachable { .. })));
}

#[tokio::test]
async fn threat_14_a_nonce_beyond_64_bits_is_garbage() {
    let anvil = Anvil::start(31337);
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    for answer in
        [json!("0x10000000000000000"), json!("0x"), json!("-0x1"), json!("7"), json!(7), json!(null), json!([])]
    {
        proxy.on("eth_getTransactionCount", Act::Answer(answer.clone()));
        let error = rpc.pending_nonce(RICH).await.expect_err(&answer.to_string());
        assert!(matches!(error, RpcError::Unreachable { cause: Unreachable::Garbage(_), .. }), "{error}");
    }
}

#[tokio::test]
async fn a_node_without_a_tip_method_or_a_base_fee_still_quotes() {
    let anvil = Anvil::start(31337);
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    proxy.on("eth_maxPriorityFeePerGas", Act::error(-32601, "the method eth_maxPriorityFeePerGas does not exist"));
    proxy.on("eth_gasPrice", Act::Answer(json!("0x4a817c800"))); // 20 gwei
    let quote = rpc.market().await.unwrap().quote;
    assert_eq!((quote.base_fee, quote.priority_fee), (Some(1_000_000_000), 19_000_000_000));
    proxy.on(
        "eth_getBlockByNumber",
        Act::edit(|_, mut block: Value| {
            block.as_object_mut().unwrap().remove("baseFeePerGas");
            block
        }),
    );
    let quote = rpc.market().await.unwrap().quote;
    let ceilings = Ceilings { chain_wei: u128::MAX, agent_wei: None };
    let fees = choose(FeeRequest::default(), &quote, ceilings);
    assert_eq!(fees, Ok(Fees::Legacy { gas_price: 20_000_000_000 }));
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let anvil = Anvil::start(31337);
    let proxy = RpcProxy::start(&anvil.url());
    let chain = anvil.chain_at("anvil", &proxy.url());
    let rpc = chain.rpc().await.unwrap();
    proxy.on("eth_getCode", Act::Garbage(vec![b' '; 17 * 1024 * 1024]));
    let error = rpc.code(OTHER).await.unwrap_err();
    assert!(error.to_string().ends_with("it is longer than 16 MiB"), "{error}");
}

#[tokio::test]
async fn a_node_that_is_not_there_is_could_not_reach() {
    let anvil = Anvil::start(31337);
    let chain = anvil.chain("anvil");
    chain.rpc().await.unwrap();
    drop(anvil);
    let error = chain.rpc().await.unwrap().balance(RICH).await.unwrap_err();
    assert!(matches!(error, RpcError::Unreachable { .. }), "{error}");
    let error = chain.rpc().await.unwrap_err();
    assert_eq!(error.to_string(), "chain anvil: no connection to its node");
}
