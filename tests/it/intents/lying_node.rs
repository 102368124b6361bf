//! A node that lies, about prices, nonces, receipts and what became of the bytes.

use std::time::Duration;

use serde_json::{Value, json};

use super::outside::{decode, decode_reply, proxied};
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Agent, Options, Stack, TO, fresh_scalar, hash, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

async fn liar() -> (Stack, RpcProxy, Agent) {
    let (stack, proxy) = proxied(Options::default()).await;
    let agent = stack.agent(json!({})).await;
    (stack, proxy, agent)
}

fn base_fee(fee: Option<&'static str>) -> Act {
    Act::edit(move |_, mut block| {
        match fee {
            Some(fee) => block["baseFeePerGas"] = json!(fee),
            None => drop(block.as_object_mut().unwrap().remove("baseFeePerGas")),
        }
        block
    })
}

/// Only the count of this kind is changed.
fn count(block: &'static str, change: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Act {
    Act::edit(move |request, answer| {
        if request["params"][1] != block {
            return answer;
        }
        let honest = crate::harness::anvil::number(&answer);
        json!(format!("{:#x}", change(honest)))
    })
}

#[tokio::test]
async fn threat_14_no_quoted_price_is_paid_above_the_ceiling() {
    let (stack, proxy, agent) = liar().await;
    // 500 gwei is the ceiling; each lie is one that the price follows.
    let lies: [&[(&str, Act)]; 6] = [
        &[("eth_maxPriorityFeePerGas", Act::Answer(json!("0xe8d4a51000")))],
        &[("eth_maxPriorityFeePerGas", Act::Answer(json!(format!("0x{}", "f".repeat(32)))))],
        &[("eth_getBlockByNumber", base_fee(Some("0x746a528801")))],
        &[("eth_getBlockByNumber", base_fee(Some("0xffffffffffffffffffffffffffffffff")))],
        &[("eth_getBlockByNumber", base_fee(None)), ("eth_gasPrice", Act::Answer(json!("0x746a528801")))],
        &[
            ("eth_maxPriorityFeePerGas", Act::error(-32601, "no such method")),
            ("eth_gasPrice", Act::Answer(json!("0xe8d4a51000"))),
        ],
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        lie.iter().for_each(|(method, act)| proxy.on(method, act.clone()));
        for refused in [agent.submit(pay("0.1")).await, agent.sign(pay("0.1")).await] {
            let detail = refused.refused(503);
            assert!(detail.contains("the chain's ceiling is 500000000000"), "lie {index}: {detail}");
        }
        proxy.clear();
    }
    // What the caller wants to pay is a rule's matter, not the node's.
    for field in ["gas_price", "max_fee_per_gas"] {
        let mut body = pay("0.1");
        body[field] = json!("500000000001");
        assert!(agent.submit(body).await.refused(403).contains("ceiling"), "{field}");
    }
    // Gas is money as well.
    proxy.on("eth_estimateGas", Act::Answer(json!("0xffffffffff")));
    let call = json!({"to": TO, "value": "0", "chain": "base", "data": "0x01020304"});
    agent.submit(call).await.refused(422);
    proxy.clear();
    assert_eq!(stack.count("SELECT count(*) FROM slots").await, 0, "nothing was signed");

    // With the caller's own fee the node's tip only counts within it.
    proxy.on("eth_maxPriorityFeePerGas", Act::Answer(json!("0xe8d4a51000")));
    let mut body = pay("0.1");
    body["max_fee_per_gas"] = json!("5000000000");
    let sent = agent.submit(body).await.expect(201);
    assert_eq!(decode_reply(&sent).tx.fees.max_per_gas(), 5_000_000_000);
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");
}

#[tokio::test]
async fn threat_14_our_own_no_op_does_not_follow_a_lie_either() {
    let (stack, proxy, agent) = liar().await;
    let signed = agent.sign(pay("0.1")).await.expect(200);
    agent.submit(pay("0.1")).await.expect(201);
    proxy.on("eth_maxPriorityFeePerGas", Act::Answer(json!("0xe8d4a51000")));
    stack.sql("UPDATE slots SET created_at = created_at - interval '1 hour' WHERE sign_only").await;
    proxy.wait_for("eth_maxPriorityFeePerGas", proxy.count("eth_maxPriorityFeePerGas") + 4, SOON).await;
    assert_eq!(stack.count("SELECT count(*) FROM attempts WHERE kind = 'noop'").await, 0);
    proxy.clear();
    assert_eq!(agent.settled(&text(&signed, "id")).await["receipt_status"], "cancelled");
    stack.assert_settled("base", agent.signer, 0, 2).await;
}

#[tokio::test]
async fn threat_14_a_pool_that_claims_a_nonce_far_ahead_is_not_believed_while_it_does() {
    let (stack, proxy, agent) = liar().await;
    let first_use = stack.agent(json!({})).await;
    let sent = agent.submit(pay("0.1")).await.expect(201);
    agent.settled(&text(&sent, "id")).await;
    proxy.on("eth_getTransactionCount", count("pending", |honest| honest + 1_000));
    for lied_to in [&agent, &first_use] {
        let detail = lied_to.submit(pay("0.1")).await.refused(503);
        assert!(detail.contains("nothing is signed while it says so"), "{detail}");
    }
    assert_eq!(stack.count("SELECT count(*) FROM slots").await, 1);
    proxy.clear();
    for (lied_to, nonce) in [(&agent, 1), (&first_use, 0)] {
        assert_eq!(lied_to.submit(pay("0.1")).await.expect(201)["nonce"], nonce);
        stack.assert_settled("base", lied_to.signer, 0, nonce + 1).await;
    }
}

#[tokio::test]
async fn threat_14_mined_nonces_far_ahead_freeze_the_lane_and_no_other_until_an_operator_releases_it() {
    let (stack, proxy, agent) = liar().await;
    let other = stack.agent(json!({})).await;
    for agent in [&agent, &other] {
        let sent = agent.submit(pay("0.1")).await.expect(201);
        agent.settled(&text(&sent, "id")).await;
    }
    let far_ahead = Act::edit(|_, answer| json!(format!("{:#x}", crate::harness::anvil::number(&answer) + 1_000)));
    proxy.on("eth_getTransactionCount", far_ahead);
    assert!(agent.submit(pay("0.1")).await.refused(503).contains("frozen"));
    proxy.clear();
    let detail = agent.submit(pay("0.1")).await.refused(503);
    assert!(detail.contains("frozen"), "one honest answer does not undo it: {detail}");
    other.submit(pay("0.1")).await.expect(201);
    // What an operator does who has looked.
    let admin = async |arguments: &[&str]| {
        let output = stack.command().arg("admin").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let address = agent.signer.to_string();
    assert!(admin(&["lanes"]).await.contains(&address));
    admin(&["release-lane", "--chain", "base", "--address", &address, "--next", "1"]).await;
    assert!(admin(&["lanes"]).await.contains("No lane waits"));
    assert_eq!(agent.submit(pay("0.1")).await.expect(201)["nonce"], 1);
    stack.assert_settled("base", agent.signer, 0, 2).await;
}

#[tokio::test]
async fn threat_14_a_nonce_behind_ours_is_not_believed() {
    let (stack, proxy, agent) = liar().await;
    for _ in 0..3 {
        let sent = agent.submit(pay("0.1")).await.expect(201);
        agent.settled(&text(&sent, "id")).await;
    }
    proxy.on("eth_getTransactionCount", Act::Answer(json!("0x0")));
    for expected in 3..6 {
        assert_eq!(agent.submit(pay("0.1")).await.expect(201)["nonce"], expected);
    }
    let mut taken = pay("0.1");
    taken["nonce"] = json!(1);
    agent.submit(taken).await.refused(409);
    proxy.clear();
    stack.assert_settled("base", agent.signer, 0, 6).await;
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 6);
}

#[tokio::test]
async fn threat_14_a_receipt_of_another_transaction_is_not_believed_and_holds_up_no_other_lane() {
    let (stack, proxy) = proxied(Options::default()).await;
    // The tracker takes lanes by address: the one that is lied about comes first.
    let mut scalars = [fresh_scalar(), fresh_scalar()];
    scalars.sort_by_key(|scalar| crate::harness::stack::address_of(scalar));
    let lied_about = stack.agent_with_key(json!({}), &scalars[0]).await;
    let other = stack.agent_with_key(json!({}), &scalars[1]).await;
    proxy.on("eth_sendRawTransaction", Act::DropRequest);
    let sent = lied_about.submit(pay("0.1")).await.expect(201);
    let victim = hash(&sent);
    proxy.on(
        "eth_getTransactionReceipt",
        Act::edit(move |request, mut receipt| {
            if request["params"][0] == json!(victim) && receipt.is_object() {
                receipt["transactionHash"] = json!(alloy::primitives::B256::repeat_byte(7));
            }
            receipt
        }),
    );
    proxy.on("eth_sendRawTransaction", Act::Pass);
    stack.chain().receipt(victim, SOON).await;
    for _ in 0..3 {
        let good = other.submit(pay("0.1")).await.expect(201);
        assert_eq!(other.settled(&text(&good, "id")).await["receipt_status"], "success");
    }
    let shown = lied_about.transaction(&text(&sent, "id")).await;
    assert_eq!((shown.get("final"), shown.get("block_number")), (None, None), "{shown}");
    proxy.clear();
    assert_eq!(lied_about.settled(&text(&sent, "id")).await["receipt_status"], "success");
}

/// Behind many a URL there are several nodes, and the one that answers the receipt is behind the one that answered the count.
#[tokio::test]
async fn threat_14_a_receipt_that_is_withheld_does_not_make_the_transaction_anothers() {
    let (stack, proxy, agent) = liar().await;
    proxy.on("eth_getTransactionReceipt", Act::Answer(Value::Null));
    let sent = agent.submit(pay("0.1")).await.expect(201);
    stack.chain().receipt(hash(&sent), SOON).await;
    proxy.wait_for("eth_getTransactionReceipt", proxy.count("eth_getTransactionReceipt") + 5, SOON).await;
    let shown = agent.transaction(&text(&sent, "id")).await;
    assert_eq!((shown["status"].as_str(), shown.get("final")), (Some("broadcast"), None), "{shown}");
    proxy.clear();
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");
}

/// Whatever the node says of the bytes, the same bytes are sent until they are mined; none is signed in their place.
#[tokio::test]
async fn threat_14_no_answer_to_the_bytes_is_the_last_word() {
    let (stack, proxy, agent) = liar().await;
    let answers = [
        (Act::Answer(json!(alloy::primitives::B256::repeat_byte(7))), "signed"),
        (Act::Answer(json!(true)), "signed"),
        (Act::Garbage(b"<html>".to_vec()), "signed"),
        (Act::Http(502), "signed"),
        (Act::error(-32000, "already known"), "broadcast"),
        (Act::error(-32000, "nonce too low"), "signed"),
        (Act::error(-32000, "replacement transaction underpriced"), "signed"),
        (Act::error(-32000, "insufficient funds for gas * price + value"), "signed"),
        (Act::error(-32000, "exceeds block gas limit"), "signed"),
    ];
    let count = answers.len() as u64;
    for (answer, status) in answers {
        proxy.on("eth_sendRawTransaction", answer);
        let sent = agent.submit(pay("0.001")).await.expect(201);
        assert_eq!(sent["status"], status, "{sent}");
    }
    assert_eq!(stack.chain().nonce(agent.signer).await, 0);
    proxy.clear();
    stack.assert_settled("base", agent.signer, 0, count).await;
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE outcome = 'success'").await, count as i64);
    let mut bytes: Vec<Value> = proxy.calls("eth_sendRawTransaction").into_iter().map(|call| call.params).collect();
    bytes.sort_by_key(ToString::to_string);
    bytes.dedup();
    assert_eq!(bytes.len() as u64, count, "one signature for each nonce");
    for params in bytes {
        let raw = hex::decode(params[0].as_str().unwrap().trim_start_matches("0x")).unwrap();
        assert!(decode(&raw).nonce < count);
    }
    until(SOON, "nothing is open", async || {
        stack.count("SELECT count(*) FROM slots WHERE state <> 'final'").await == 0
    })
    .await;
}
