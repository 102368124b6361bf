//! Several nodes for one chain: what one of them cannot do the next does, and what one of them says alone ends nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::anvil::{Anvil, AnvilOptions, number};
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Agent, Options, Stack, hash, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

struct TwoNodes {
    stack: Stack,
    first: RpcProxy,
    second: RpcProxy,
    agent: Agent,
}

/// A daemon that reaches the chain through two proxies: the first by the environment, the second by chains.toml.
async fn two_nodes(anvil: fn(&str, &mut AnvilOptions)) -> TwoNodes {
    let (first, second) = (RpcProxy::start("http://127.0.0.1:1"), RpcProxy::start("http://127.0.0.1:1"));
    let further: &'static str = format!("rpc_deadline_ms = 500\nrpc_urls = [{:?}]", second.url()).leak();
    let options = Options {
        daemons: 0,
        rpc_urls: [("base", first.url())].into(),
        chain_toml: further,
        confirmations: 2,
        anvil,
        ..Options::default()
    };
    let mut stack = Stack::with(options).await;
    for proxy in [&first, &second] {
        proxy.forward_to(&stack.chain().url());
    }
    stack.add_daemon("daemon").await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    TwoNodes { stack, first, second, agent }
}

fn mining(_: &str, _: &mut AnvilOptions) {}

fn by_hand(_: &str, anvil: &mut AnvilOptions) {
    anvil.no_mining = true;
}

#[tokio::test]
async fn threat_38_with_two_nodes_either_may_fail() {
    let TwoNodes { stack, first, second, agent } = two_nodes(mining).await;
    let paid = async |what: &str| {
        let reply = agent.submit(pay("0.001")).await;
        assert_eq!(reply.status, 201, "{what}: {}", reply.body);
        let id = text(&reply.body, "id");
        let mined = async || agent.transaction(&id).await.get("block_number").is_some();
        until(SOON, what, mined).await;
    };
    paid("both are well").await;
    assert!(
        first.count("eth_sendRawTransaction") > 0 && second.count("eth_sendRawTransaction") > 0,
        "both get the bytes"
    );
    let other = Anvil::start(10);
    first.forward_to(&other.url());
    first.hang_up();
    paid("the first serves another chain").await;
    first.forward_to(&stack.chain().url());
    first.on("eth_getTransactionCount", Act::Freeze);
    paid("the first is frozen").await;
    first.clear();
    first.on_everything(Act::Http(503));
    paid("the first answers 503").await;
    let asked = second.count("eth_getTransactionCount");
    paid("and goes on doing so").await;
    assert!(second.count("eth_getTransactionCount") > asked);
    // It is asked again after a while, and is the first again.
    first.clear();
    second.on_everything(Act::Http(503));
    let back = async || agent.submit(pay("0.001")).await.status == 201;
    until(SOON, "the first is back", back).await;
    second.clear();
    stack.chain().mine(2).await;
    until(SOON, "all is final", async || stack.count("SELECT count(*) FROM slots WHERE state <> 'final'").await == 0)
        .await;
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE outcome <> 'success'").await, 0);
}

#[tokio::test]
async fn bytes_that_one_node_refuses_and_another_takes_are_sent() {
    let TwoNodes { stack, first, second, agent } = two_nodes(mining).await;
    for (refusing, other) in [(&first, &second), (&second, &first)] {
        refusing.on("eth_sendRawTransaction", Act::error(-32000, "exceeds block gas limit"));
        let sent = agent.submit(pay("0.001")).await.expect(201);
        assert_eq!((&sent["status"], sent.get("error_message")), (&json!("broadcast"), None), "{sent}");
        assert!(other.count("eth_sendRawTransaction") > 0);
        refusing.clear();
    }
    stack.chain().mine(2).await;
    stack.assert_settled("base", agent.signer, 0, 2).await;
}

#[tokio::test]
async fn threat_14_what_one_of_two_nodes_says_alone_ends_nothing() {
    let TwoNodes { stack, first, second, agent } = two_nodes(by_hand).await;
    let sent = agent.submit(pay("0.6")).await.expect(201);
    // The nonce is used, and nobody knows the transaction, says the first.
    let ahead = Act::edit(|_, count| json!(format!("{:#x}", number(&count) + 1)));
    first.on("eth_getTransactionCount", ahead.clone());
    first.on("eth_getTransactionReceipt", Act::Answer(Value::Null));
    first.on("eth_getTransactionByHash", Act::Answer(Value::Null));
    // The transaction itself is kept out of blocks meanwhile.
    stack.chain().request("anvil_dropTransaction", json!([hash(&sent)])).await;
    let used = Act::error(-32_000, "nonce too low");
    first.on("eth_sendRawTransaction", used.clone());
    second.on("eth_sendRawTransaction", used);
    for _ in 0..4 {
        let asked = second.count("eth_getTransactionCount");
        stack.chain().mine(3).await;
        if stack.count("SELECT count(*) FROM slots WHERE noticed_block IS NOT NULL").await == 1 {
            second.wait_for("eth_getTransactionCount", asked + 1, SOON).await;
        } else {
            first.wait_for("eth_getTransactionByHash", first.count("eth_getTransactionByHash") + 1, SOON).await;
        }
    }
    let shown = agent.transaction(&text(&sent, "id")).await;
    assert_eq!((shown.get("final"), shown.get("receipt_status")), (None, None), "{shown}");
    // With nobody to ask beside the first, nothing is decided either.
    second.on_everything(Act::Http(503));
    stack.chain().mine(3).await;
    let asked = first.count("eth_getTransactionByHash");
    first.wait_for("eth_getTransactionByHash", asked + 2, SOON).await;
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE state = 'final'").await, 0);
    first.clear();
    second.clear();
    let pooled = async || !stack.chain().request("eth_getTransactionByHash", json!([hash(&sent)])).await.is_null();
    until(SOON, "the same bytes are sent", pooled).await;
    stack.chain().mine(3).await;
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");
}

#[tokio::test]
async fn threat_02_a_jump_that_only_one_node_sees_freezes_nothing_and_one_that_both_see_does() {
    let TwoNodes { stack, first, second, agent } = two_nodes(mining).await;
    let sent = agent.submit(pay("0.001")).await.expect(201);
    stack.chain().mine(2).await;
    agent.settled(&text(&sent, "id")).await;
    let far_ahead = Act::edit(|_, count| json!(format!("{:#x}", number(&count) + 1_000)));
    first.on("eth_getTransactionCount", far_ahead.clone());
    let detail = agent.submit(pay("0.001")).await.refused(503);
    assert!(detail.contains("nothing is signed while it says so"), "{detail}");
    first.clear();
    assert_eq!(agent.submit(pay("0.001")).await.expect(201)["nonce"], 1);
    for proxy in [&first, &second] {
        proxy.on("eth_getTransactionCount", far_ahead.clone());
    }
    assert!(agent.submit(pay("0.001")).await.refused(503).contains("frozen"));
    first.clear();
    second.clear();
    assert!(agent.submit(pay("0.001")).await.refused(503).contains("frozen"));
}

#[tokio::test]
async fn what_cannot_be_settled_without_the_second_node_holds_up_nothing_that_waits() {
    let TwoNodes { stack, first, second, agent } = two_nodes(by_hand).await;
    let cancelled = agent.submit(pay("0.1")).await.expect(201);
    let cancel = format!("{}/{}/cancel", agent.path(), text(&cancelled, "id"));
    stack.owner.post(&cancel, &json!({})).await.expect(200);
    second.on_everything(Act::Http(503));
    stack.chain().mine(3).await;
    let mined = async || agent.transaction(&text(&cancelled, "id")).await["receipt_status"] == "cancelled";
    until(SOON, "the no-op is mined, and not final without the second", mined).await;
    first.on("eth_sendRawTransaction", Act::error(-32_000, "overloaded"));
    let sent = agent.submit(pay("0.1")).await.expect(201);
    assert_eq!(sent["status"], "signed", "{sent}");
    first.on("eth_sendRawTransaction", Act::Pass);
    let pooled = async || !stack.chain().request("eth_getTransactionByHash", json!([hash(&sent)])).await.is_null();
    until(SOON, "it is sent all the same", pooled).await;
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE state = 'final'").await, 0);
    second.clear();
    stack.chain().mine(3).await;
    stack.assert_settled("base", agent.signer, 0, 2).await;
}

#[tokio::test]
async fn a_first_node_that_answers_and_stands_still_is_passed_by() {
    let TwoNodes { stack, first, second: _second, agent } = two_nodes(mining).await;
    // Its newest block is of an hour ago, and what it counts stays what it was.
    let old = Act::edit(|_, mut block| {
        if let Some(time) = block.get("timestamp").map(number) {
            block["timestamp"] = json!(format!("{:#x}", time - 3_600));
        }
        block
    });
    first.on("eth_getBlockByNumber", old);
    first.on("eth_getTransactionCount", Act::Answer(json!("0x0")));
    first.on("eth_getTransactionReceipt", Act::Answer(Value::Null));
    let sent = agent.submit(pay("0.1")).await.expect(201);
    stack.chain().mine(3).await;
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");
}
