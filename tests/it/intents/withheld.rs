//! Signed bytes that nobody is to send: not given out, whoever asks and however.

use std::time::Duration;

use serde_json::{Value, json};

use super::outside::{proxied, rounds};
use crate::harness::anvil::number;
use crate::harness::client::{Client, Reply};
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Agent, Options, Stack, fresh_scalar, pay, text, until};

const SOON: Duration = Duration::from_secs(30);
const SEND: &str = "eth_sendRawTransaction";

async fn keyed(agent: &Agent, path: &str, amount: &str) -> Reply {
    let request = agent.client.request(reqwest::Method::POST, path).header("Idempotency-Key", amount);
    Client::send(request.json(&pay(amount))).await
}

/// One payment that no node has and one that was only signed, said again and read in every way: by the agent and by a human.
struct Both<'a> {
    stack: &'a Stack,
    agent: &'a Agent,
    sign: String,
    sent: Value,
    signed: Value,
}

impl<'a> Both<'a> {
    /// From now on the node takes nothing.
    async fn begin(stack: &'a Stack, proxy: &RpcProxy, agent: &'a Agent) -> Self {
        proxy.on(SEND, Act::error(-32_000, "overloaded"));
        let sign = format!("{}/sign", agent.path());
        let sent = keyed(agent, &agent.path(), "0.02").await.expect(201);
        let signed = keyed(agent, &sign, "0.03").await.expect(200);
        Self { stack, agent, sign, sent, signed }
    }

    /// As it is shown, once from each place.
    async fn shown(&self, one: &Value) -> Vec<Value> {
        let id = text(one, "id");
        let mut shown = Vec::new();
        for client in [&self.agent.client, &self.stack.owner] {
            let asked = format!("{}/{id}?include_signed_tx=true", self.agent.path());
            shown.push(client.get(&asked).await.expect(200));
            let all = client.get(&format!("{}?include_signed_tx=1", self.agent.path())).await.expect(200);
            shown.extend(all["transactions"].as_array().unwrap().iter().filter(|other| other["id"] == id).cloned());
        }
        let (path, amount) =
            if id == text(&self.sent, "id") { (self.agent.path(), "0.02") } else { (self.sign.clone(), "0.03") };
        let again = keyed(self.agent, &path, amount).await;
        assert_eq!(again.headers["idempotency-replayed"], "true");
        shown.push(again.expect(200));
        assert_eq!(shown.len(), 5);
        shown
    }

    async fn assert_withheld(&self, one: &Value, hold: Option<&str>) {
        for shown in self.shown(one).await {
            assert_eq!(shown.get("signed_tx"), None, "{shown}");
            match hold {
                Some(hold) => assert!(text(&shown, "hold_reason").contains(hold), "{shown}"),
                None => assert_eq!(shown.get("hold_reason"), None, "{shown}"),
            }
        }
    }

    async fn assert_given(&self, one: &Value) {
        for shown in self.shown(one).await {
            assert_eq!(shown["signed_tx"], one["signed_tx"], "{shown}");
        }
    }

    async fn cancel(&self, one: &Value) {
        let cancel = format!("{}/{}/cancel", self.agent.path(), text(one, "id"));
        self.stack.owner.post(&cancel, &json!({})).await.expect(200);
    }
}

#[tokio::test]
async fn threat_37_bytes_are_not_given_out_while_they_are_held_or_their_nonce_is_being_cancelled() {
    let (stack, proxy) =
        proxied(Options { anvil: |_, anvil| anvil.no_mining = true, confirmations: 3, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let both = Both::begin(&stack, &proxy, &agent).await;
    let Both { sent, signed, .. } = &both;
    both.assert_given(sent).await;
    both.assert_given(signed).await;
    let signer = agent.signer.to_string();
    for (scope, subject) in [("key", signer.as_str()), ("chain", "base"), ("organisation", stack.org_id.as_str())] {
        let body = json!({"scope": scope, "subject": subject, "reason": "the key leaked"});
        let frozen = stack.owner.post("/v1/freezes", &body).await.expect(201);
        let held = format!("because its {scope} is frozen (the key leaked)");
        both.assert_withheld(sent, Some(&format!("not broadcast, {held}"))).await;
        both.assert_withheld(signed, Some(&format!("its bytes are not given out, {held}"))).await;
        let lanes = stack.owner.get("/v1/lanes").await.expect(200);
        assert!(text(&lanes["lanes"][0], "hold_reason").contains("not broadcast"), "{lanes}");
        stack.owner.delete(&format!("/v1/freezes/{}", text(&frozen, "id"))).await.expect(204);
        both.assert_given(signed).await;
    }
    // A cancel races whoever has the bytes: nobody gets them until it has won, or lost.
    both.cancel(sent).await;
    both.assert_withheld(sent, None).await;
    both.assert_given(signed).await;
    both.cancel(signed).await;
    both.assert_withheld(signed, None).await;
    proxy.on(SEND, Act::Pass);
    rounds(&proxy, 3).await;
    stack.chain().mine(1).await;
    let mined = async || agent.transaction(&text(signed, "id")).await["receipt_status"] == "cancelled";
    until(SOON, "the no-ops are mined", mined).await;
    both.assert_withheld(sent, None).await;
    both.assert_withheld(signed, None).await;
    stack.chain().mine(3).await;
    stack.assert_settled("base", agent.signer, 0, 2).await;
    both.assert_given(sent).await;
    both.assert_given(signed).await;
}

#[tokio::test]
async fn threat_37_bytes_that_the_rules_forbid_by_now_are_not_given_out_from_the_next_request_on() {
    // Nothing is sent again meanwhile, so that only who reads looks at the rules.
    let env = vec![("INTENTD_REBROADCAST_S".to_owned(), "600".to_owned())];
    let (stack, proxy) = proxied(Options { env, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let both = Both::begin(&stack, &proxy, &agent).await;
    let path = format!("/v1/agents/{}", agent.id);
    stack.owner.patch(&path, &json!({"tx_max_value_eth": "0.01"})).await.expect(200);
    both.assert_withheld(&both.sent, Some("agent's guardrails forbid it by now")).await;
    both.assert_given(&both.signed).await;
    stack.owner.patch(&path, &json!({"tx_max_value_eth": "0.02"})).await.expect(200);
    both.assert_given(&both.sent).await;
}

#[tokio::test]
async fn threat_37_bytes_that_are_held_are_not_given_out_because_a_node_says_that_they_are_mined() {
    let (stack, proxy) = proxied(Options { confirmations: 5, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let both = Both::begin(&stack, &proxy, &agent).await;
    let freeze = json!({"scope": "key", "subject": agent.signer.to_string(), "reason": "the key leaked"});
    stack.owner.post("/v1/freezes", &freeze).await.expect(201);
    both.assert_withheld(&both.sent, Some("its key is frozen")).await;
    stack.chain().mine(1).await;
    let block = stack.chain().request("eth_getBlockByNumber", json!(["latest", false])).await;
    let invented = move |request: &Value, _: Value| {
        json!({
            "transactionHash": request["params"][0], "transactionIndex": "0x0", "type": "0x2", "status": "0x1",
            "blockHash": block["hash"], "blockNumber": block["number"], "from": Value::Null, "to": Value::Null,
            "gasUsed": "0x5208", "cumulativeGasUsed": "0x5208", "effectiveGasPrice": "0x1", "logs": [],
        })
    };
    proxy.on("eth_getTransactionReceipt", Act::edit(invented));
    proxy.on("eth_getTransactionCount", Act::edit(|_, count| json!(format!("{:#x}", number(&count) + 1))));
    let id = text(&both.sent, "id");
    let believed = async || agent.transaction(&id).await.get("block_number").is_some();
    until(SOON, "the node is believed", believed).await;
    both.assert_withheld(&both.sent, None).await;
}

#[tokio::test]
async fn who_waits_behind_another_organisation_is_told_that_and_not_why() {
    let (mut stack, proxy) = proxied(Options::default()).await;
    let scalar = fresh_scalar();
    let agent = stack.agent_with_key(json!({}), &scalar).await;
    let other_org = stack.organisation("Other").await;
    let other = stack.human(&other_org, "owner").await.client;
    let ours = std::mem::replace(&mut stack.owner, other);
    let theirs = stack.agent_with_key(json!({}), &scalar).await;
    proxy.on(SEND, Act::error(-32_000, "overloaded"));
    theirs.submit(pay("0.01")).await.expect(201);
    let freeze = json!({"scope": "agent", "subject": theirs.id, "reason": "the key leaked"});
    stack.owner.post("/v1/freezes", &freeze).await.expect(201);
    let sent = agent.submit(pay("0.01")).await.expect(201);
    assert_eq!(sent["nonce"], 1);
    for (client, reason, other) in [(&ours, "another organisation", "leaked"), (&stack.owner, "leaked", "another")] {
        let lanes = client.get("/v1/lanes").await.expect(200);
        let told = text(&lanes["lanes"][0], "hold_reason");
        assert!(told.contains(reason) && !told.contains(other), "{told}");
    }
}
