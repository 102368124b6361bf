//! Transactions.

use alloy::primitives::Address;
use serde_json::{Value, json};

use super::strictly;
use crate::harness::rpc_proxy::Act;
use crate::harness::stack::{Options, Stack, TO, pay, text};
use crate::intents::outside::proxied;

/// revert() for every call.
const REVERTING: &[u8] = &[0x5f, 0x5f, 0xfd];
const SHOP: Address = Address::repeat_byte(0xc1);

fn with(mut body: Value, further: Value) -> Value {
    body.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn point_18_row_03_decided_a_reverting_simulation_is_422_a_problem_and_a_transaction_in_one() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({})).await;
    stack.chain().set_code(SHOP, REVERTING).await;
    let doomed = with(pay("0.01"), json!({"to": SHOP, "gas_limit": 100_000, "simulate_first": true}));
    for reply in [payer.submit(doomed.clone()).await, payer.sign(doomed.clone()).await] {
        let body = reply.expect(422);
        let expected = json!({
            "type": "about:blank", "title": "Unprocessable Entity", "agent_id": payer.id, "chain": "base", "chain_id": 8453,
            "to": SHOP.to_string(), "value_wei": "10000000000000000", "status": "simulation_failed", "simulation_status": "reverted",
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(body[name], *value, "{name}: {body}");
        }
        for name in ["detail", "id", "error_message", "simulation_id", "created_at"] {
            assert!(!text(&body, name).is_empty(), "{name}: {body}");
        }
        assert!(["signed_tx", "tx_hash", "nonce"].iter().all(|name| body.get(name).is_none()), "{body}");
        assert_eq!(payer.transaction(&text(&body, "id")).await["status"], "simulation_failed");
    }
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 0, "nothing was signed");
    // The route that only looks says so with 200.
    let looked = payer.simulate(with(pay("0.01"), json!({"to": SHOP}))).await.expect(200);
    assert_eq!(looked["status"], "reverted");
}

#[tokio::test]
async fn point_21_signed_bytes_are_on_every_post_and_on_get_for_true_and_1_alone() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({})).await;
    let sent = payer.submit_with_key("k", pay("0.001")).await.expect(201);
    let bytes = text(&sent, "signed_tx");
    assert_eq!(payer.submit_with_key("k", pay("0.001")).await.expect(200)["signed_tx"], json!(bytes));
    let (list, one) = (payer.path(), format!("{}/{}", payer.path(), text(&sent, "id")));
    for (query, shown) in [
        ("", false),
        ("?include_signed_tx=true", true),
        ("?include_signed_tx=1", true),
        ("?include_signed_tx=True", false),
        ("?include_signed_tx=TRUE", false),
        ("?include_signed_tx=yes", false),
        ("?include_signed_tx=false", false),
        ("?include_signed_tx=0", false),
        ("?include_signed_tx=", false),
        ("?include_signed_tx", false),
    ] {
        for client in [&payer.client, &stack.owner] {
            let one = client.get(&format!("{one}{query}")).await.expect(200);
            let listed = client.get(&format!("{list}{query}")).await.expect(200)["transactions"][0].clone();
            for body in [one, listed] {
                assert_eq!(body.get("signed_tx"), shown.then(|| json!(bytes)).as_ref(), "{query}: absent, not null");
            }
        }
    }
    let signed = payer.sign(pay("0.001")).await.expect(200);
    assert!(text(&signed, "signed_tx").starts_with("0x02") && signed["status"] == "sign_only");
    let members = ["signed_tx", "tx_hash", "from", "to", "chain", "chain_id", "nonce", "value_wei", "status"];
    assert!(members.iter().all(|name| signed.get(name).is_some()), "{signed}");
}

#[tokio::test]
async fn row_07_value_is_eth_as_a_decimal_string() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({"tx_max_value_eth": "2"})).await;
    for (value, wei) in [
        ("0", "0"),
        ("0.0", "0"),
        ("1", "1000000000000000000"),
        ("0.000000000000000001", "1"),
        ("1.500000000000000000", "1500000000000000000"),
    ] {
        assert_eq!(payer.sign(pay(value)).await.expect(200)["value_wei"], wei, "{value}");
    }
    let refused = [
        json!("0x0"),
        json!("0xde0b6b3a7640000"),
        json!(1),
        json!(0.1),
        json!("0.0000000000000000001"),
        json!("-1"),
        json!("1e-3"),
        json!("1,5"),
        json!("1 ETH"),
        json!(""),
        json!(null),
    ];
    for value in refused {
        let detail = payer.submit(with(pay("0"), json!({"value": value}))).await.refused(400);
        assert!(detail.starts_with("value: "), "{value}: {detail}");
    }
    // Wei by mistake is a fortune: no cap lets it pass, and without one no balance does.
    payer.submit(pay("1000000000000000")).await.refused(403);
    stack.guardrails(&payer, json!({"tx_max_value_eth": null})).await;
    payer.submit(pay("1000000000000000")).await.refused(422);
}

#[tokio::test]
async fn row_08_simulate_first_is_false_unless_given_or_forced() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({})).await;
    stack.chain().set_code(SHOP, REVERTING).await;
    let doomed = with(pay("0.01"), json!({"to": SHOP, "gas_limit": 100_000}));
    for body in [doomed.clone(), with(doomed.clone(), json!({"simulate_first": false}))] {
        let sent = payer.submit(body).await.expect(201);
        assert!(sent.get("simulation_status").is_none(), "{sent}");
    }
    payer.submit(with(doomed.clone(), json!({"simulate_first": true}))).await.refused(422);
    stack.owner.patch("/v1/org/settings", &json!({"require_simulation": true})).await.expect(200);
    for body in [doomed.clone(), with(doomed, json!({"simulate_first": false}))] {
        payer.submit(body).await.refused(422);
    }
    assert_eq!(payer.submit(pay("0.001")).await.expect(201)["simulation_status"], "success");
}

#[tokio::test]
async fn row_09_21000_gas_are_for_plain_transfers_and_what_else_there_is_is_estimated() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({})).await;
    // PUSH1 1 PUSH0 SSTORE: more than a transfer takes.
    stack.chain().set_code(SHOP, &[0x60, 0x01, 0x5f, 0x55, 0x00]).await;
    let plain = payer.submit(pay("0.001")).await.expect(201);
    assert_eq!(plain["gas_limit"], 21_000);
    for body in [with(pay("0"), json!({"data": "0x01020304"})), with(pay("0.001"), json!({"to": SHOP}))] {
        let sent = payer.submit(body).await.expect(201);
        assert!(sent["gas_limit"].as_u64() > Some(21_000), "{sent}");
        assert_eq!(payer.settled(&text(&sent, "id")).await["receipt_status"], "success");
    }
    assert_eq!(payer.sign(with(pay("0"), json!({"gas_limit": 30_000}))).await.expect(200)["gas_limit"], 30_000);
}

#[tokio::test]
async fn row_10_fee_fields_choose_the_type_and_decided_no_fee_field_is_type_2_or_legacy_by_the_chain() {
    let (stack, proxy) = proxied(Options::default()).await;
    let payer = stack.agent(json!({})).await;
    let type_2 = |body: &Value| text(body, "signed_tx").starts_with("0x02");
    let legacy = |body: &Value| text(body, "signed_tx").starts_with("0xf8");
    let (gas_price, max_fee) = (json!({"gas_price": "3000000000"}), json!({"max_fee_per_gas": "3000000000"}));
    let old = payer.submit(with(pay("0.001"), gas_price.clone())).await.expect(201);
    assert!(legacy(&old) && old.get("max_fee_per_gas").is_none(), "{old}");
    let new = payer.submit(with(pay("0.001"), max_fee.clone())).await.expect(201);
    assert!(type_2(&new) && new["max_fee_per_gas"] == "3000000000" && new["max_priority_fee_per_gas"].is_string());
    let both = with(gas_price, max_fee.clone());
    payer.submit(with(pay("0.001"), both)).await.refused(400);
    let neither = payer.submit(pay("0.001")).await.expect(201);
    assert!(type_2(&neither), "{neither}");
    assert_eq!(payer.settled(&text(&neither, "id")).await["receipt_status"], "success");

    let no_base_fee = Act::edit(|_, mut block| {
        block.as_object_mut().and_then(|block| block.remove("baseFeePerGas"));
        block
    });
    proxy.on("eth_getBlockByNumber", no_base_fee);
    let neither = payer.submit(pay("0.001")).await.expect(201);
    assert!(legacy(&neither), "{neither}");
    payer.submit(with(pay("0.001"), max_fee)).await.refused(422);
}

#[tokio::test]
async fn row_39_humans_read_transactions_and_submit_none() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({})).await;
    let sent = payer.submit(pay("0.001")).await.expect(201);
    let one = format!("{}/{}", payer.path(), text(&sent, "id"));
    let member = stack.human(&stack.org_id, "member").await.client;
    for human in [&stack.owner, &member] {
        assert_eq!(human.get(&payer.path()).await.expect(200)["transactions"].as_array().unwrap().len(), 1);
        assert_eq!(human.get(&one).await.expect(200)["id"], sent["id"]);
        for route in ["", "/sign", "/simulate"] {
            human.post(&format!("{}{route}", payer.path()), &pay("0.001")).await.refused(403);
        }
        human
            .post(&format!("{}/simulate-bundle", payer.path()), &json!({"transactions": [pay("0")]}))
            .await
            .refused(403);
    }
    let other = stack.organisation("other").await;
    let stranger = stack.human(&other, "owner").await.client;
    stranger.get(&payer.path()).await.refused(404);
    stranger.get(&one).await.refused(404);
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 1);
}

#[tokio::test]
async fn row_31_decided_same_key_other_body_is_422() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({})).await;
    payer.submit_with_key("k", pay("0.1")).await.expect(201);
    for other in [pay("0.2"), with(pay("0.1"), json!({"data": "0x00"})), with(pay("0.1"), json!({"to": SHOP}))] {
        let problem = payer.submit_with_key("k", other).await.expect(422);
        assert_eq!((&problem["type"], problem["status"].as_u64()), (&json!("idempotency_mismatch"), Some(422)));
        strictly(&problem, &["type", "title", "status", "detail"], &[]);
    }
    // Another spelling is no other body.
    payer.submit_with_key("k", json!({"to": TO.to_lowercase(), "value": "0.10", "chain": "8453"})).await.expect(200);
    assert_eq!(stack.slots(8453, payer.signer).await.len(), 1);
}
