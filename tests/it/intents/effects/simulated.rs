//! What calldata does not say, a simulation shows; and what a contract does otherwise when it is mined is told and counted.

use std::time::Duration;

use alloy::primitives::{Address, Bytes, U256, address};
use serde_json::{Value, json};

use super::super::outside::proxied;
use crate::harness::anvil::{OTHER, RICH};
use crate::harness::contracts::{Contracts, Taker, Token, approve, balance_of, by, encoded, give, intent, send};
use crate::harness::rpc_proxy::Act;
use crate::harness::stack::{Options, Stack, pay, text, until};

const FOE: Address = address!("00000000000000000000000000000000000F0E00");

fn take(amount: u64) -> Bytes {
    encoded(&Taker::takeCall { amount: U256::from(amount) })
}

fn n(n: u64) -> U256 {
    U256::from(n)
}

#[tokio::test]
async fn threat_16_what_a_simulation_shows_is_held_to_the_same_rules() {
    let stack = Stack::start().await;
    let c = Contracts::on(stack.chain()).await;
    let anvil = stack.chain();
    let rules = json!({
        "tx_token_allowlist": [format!("base:{}", c.token)],
        "tx_token_limits": [{"token": c.token, "max_value": "50", "daily_limit": "80"}],
    });
    let agent = stack.agent(rules).await;
    for token in [c.token, c.other_token] {
        give(anvil, token, agent.signer, 10_000_000).await;
    }
    // Approved before there were any rules.
    by(anvil, agent.signer, c.token, &Token::approveCall { spender: c.taker, value: U256::MAX }).await;
    let refused = async |body: Value, part: &str| {
        let detail = agent.submit(body.clone()).await.refused(403);
        assert!(detail.contains(part), "{part}: {detail}");
        assert_eq!(agent.sign(body).await.refused(403), detail);
    };
    refused(intent(c.taker, &take(51)), "51 of token").await;
    refused(intent(c.taker, &Bytes::from_static(&[9])), "exceeds its max_value of 50").await;
    refused(intent(c.token, &encoded(&Token::shoveCall { to: FOE, value: n(51) })), "51 of token").await;
    refused(intent(c.token, &encoded(&Token::trustCall { spender: FOE, value: n(51) })), "51 of token").await;
    refused(
        intent(c.other_token, &encoded(&Token::shoveCall { to: FOE, value: n(1) })),
        "is not in tx_token_allowlist",
    )
    .await;
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 0);
    // What passes counts, simulated without having been asked for.
    let sent = agent.submit(intent(c.taker, &take(50))).await.expect(201);
    assert_eq!(sent["simulation_status"], "success");
    refused(intent(c.taker, &take(31)), "rolling 24h total 81").await;
    agent.submit(intent(c.token, &send(OTHER, 30))).await.expect(201);
    refused(intent(c.taker, &take(1)), "rolling 24h total 81").await;
    // The recipient that nobody named, where the list is in force on this chain only.
    by(anvil, RICH, c.taker, &Taker::turnCall { to: n(1), who: FOE }).await;
    let listed = json!({
        "tx_token_allowlist": [], "tx_token_limits": [], "tx_contract_allowlist": [c.taker],
        "per_chain_guardrails": {"base": {"to_allowlist": [OTHER, c.taker], "token_allowlist": [c.token]}},
    });
    stack.guardrails(&agent, listed).await;
    refused(intent(c.taker, &take(1)), &format!("recipient {FOE}")).await;
    by(anvil, RICH, c.taker, &Taker::turnCall { to: n(1), who: c.taker }).await;
    agent.submit(intent(c.taker, &take(1))).await.expect(201);
}

#[tokio::test]
async fn threat_38_without_a_complete_simulation_what_is_not_understood_is_refused() {
    let (stack, proxy) = proxied(Options::default()).await;
    let c = Contracts::on(stack.chain()).await;
    let agent = stack.agent(json!({"tx_token_limits": [{"token": c.token, "daily_limit": "80"}]})).await;
    give(stack.chain(), c.token, agent.signer, 1_000).await;
    by(stack.chain(), agent.signer, c.token, &Token::approveCall { spender: c.taker, value: U256::MAX }).await;
    for method in ["eth_simulateV1", "debug_traceCall"] {
        proxy.on(method, Act::error(-32601, "the method does not exist/is not available"));
    }
    let detail = agent.submit(intent(c.taker, &take(1))).await.refused(403);
    assert!(detail.contains("no complete simulation") && detail.contains("eth_simulateV1"), "{detail}");
    agent.submit(intent(c.token, &send(OTHER, 1))).await.expect(201);
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 1);
}

#[tokio::test]
async fn threat_38_a_tracer_that_does_not_tell_events_is_not_believed() {
    fn without_logs(mut frame: Value) -> Value {
        if let Some(frame) = frame.as_object_mut() {
            frame.remove("logs");
            if let Some(Value::Array(calls)) = frame.get_mut("calls") {
                calls.iter_mut().for_each(|call| *call = without_logs(call.take()));
            }
        }
        frame
    }
    for tells in [true, false] {
        let (stack, proxy) = proxied(Options::default()).await;
        let c = Contracts::on(stack.chain()).await;
        let agent = stack.agent(json!({"tx_token_limits": [{"token": c.token, "daily_limit": "80"}]})).await;
        give(stack.chain(), c.token, agent.signer, 1_000).await;
        by(stack.chain(), agent.signer, c.token, &Token::approveCall { spender: c.taker, value: U256::MAX }).await;
        proxy.on("eth_simulateV1", Act::error(-32601, "the method does not exist/is not available"));
        if !tells {
            proxy.on("debug_traceCall", Act::edit(|_, frame| without_logs(frame)));
        }
        let reply = agent.submit(intent(c.taker, &take(1))).await;
        if tells {
            reply.expect(201);
        } else {
            assert!(reply.refused(403).contains("no complete simulation"));
        }
    }
}

#[tokio::test]
async fn threat_38_a_node_that_does_not_answer_a_needed_simulation_is_could_not_check() {
    let (stack, proxy) = proxied(Options::default()).await;
    let c = Contracts::on(stack.chain()).await;
    let agent = stack.agent(json!({"tx_token_limits": [{"token": c.token, "daily_limit": "80"}]})).await;
    give(stack.chain(), c.token, agent.signer, 1_000).await;
    by(stack.chain(), agent.signer, c.token, &Token::approveCall { spender: c.taker, value: U256::MAX }).await;
    proxy.on("eth_simulateV1", Act::Http(502));
    agent.submit(intent(c.taker, &take(1))).await.refused(503);
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 0);
    proxy.clear();
    agent.submit(intent(c.taker, &take(1))).await.expect(201);
}

#[tokio::test]
async fn threat_16_what_comes_first_is_what_was_simulated_first_and_will_be_sent() {
    let (stack, proxy) = proxied(Options { daemons: 2, ..Options::default() }).await;
    let c = Contracts::on(stack.chain()).await;
    let agent = stack.agent(json!({})).await;
    let mut simulated = pay("0.001");
    simulated["simulate_first"] = json!(true);
    proxy.on("eth_simulateV1", Act::Freeze);
    let (late, ()) = tokio::join!(agent.submit(simulated.clone()), async {
        proxy.wait_for("eth_simulateV1", 1, Duration::from_secs(10)).await;
        // In its own daemon it would wait for its turn.
        agent.at(&stack.daemons[1].url).submit(pay("0.002")).await.expect(201);
        proxy.clear();
    });
    assert!(late.refused(503).contains("other transactions of this key"));
    agent.submit(simulated.clone()).await.expect(201);
    // What is parked above comes later.
    let mut parked = pay("0.001");
    parked["nonce"] = json!(9);
    agent.sign(parked).await.expect(200);
    agent.submit(simulated).await.expect(201);

    let limited = json!({"tx_token_limits": [{"token": c.token, "daily_limit": "80"}]});
    let agent = stack.agent(limited).await;
    give(stack.chain(), c.token, agent.signer, 1_000).await;
    by(stack.chain(), agent.signer, c.token, &Token::approveCall { spender: c.taker, value: U256::MAX }).await;
    let mut withheld = intent(c.token, &send(OTHER, 1));
    withheld["gas_limit"] = json!(100_000);
    // What is held back may never be sent either.
    let allowed = async || agent.simulate(intent(c.taker, &take(1))).await.expect(200)["guardrails"]["allowed"].clone();
    proxy.on("eth_sendRawTransaction", Act::error(-32_000, "overloaded"));
    agent.submit(withheld.clone()).await.expect(201);
    assert_eq!(allowed().await, true);
    let body = json!({"scope": "key", "subject": agent.signer});
    let frozen = stack.owner.post("/v1/freezes", &body).await.expect(201);
    assert_eq!(allowed().await, false);
    stack.owner.delete(&format!("/v1/freezes/{}", text(&frozen, "id"))).await.expect(204);
    proxy.clear();
    assert_eq!(allowed().await, true);
    agent.sign(withheld).await.expect(200);
    let detail = agent.submit(intent(c.taker, &take(1))).await.refused(403);
    assert!(detail.contains("no complete simulation"), "{detail}");
}

/// The contract is turned between the simulation and the block: by the holder of signed bytes, who sends them when it suits.
#[tokio::test]
async fn threat_16_a_contract_that_changes_after_its_simulation_is_told_and_counted() {
    let stack = Stack::start().await;
    let c = Contracts::on(stack.chain()).await;
    let anvil = stack.chain();
    let rules = json!({"tx_token_limits": [{"token": c.token, "daily_limit": "80"}]});
    let agent = stack.agent(rules).await;
    give(anvil, c.token, agent.signer, 1_000).await;
    // With approvals that the daemon signs, no contract ever gets past the limit: the approved amount is spent already.
    agent.submit(intent(c.token, &approve(c.taker, n(81)))).await.refused(403);
    // Somebody approved more elsewhere.
    by(anvil, agent.signer, c.token, &Token::approveCall { spender: c.taker, value: U256::MAX }).await;
    let mut body = intent(c.taker, &take(30));
    body["gas_limit"] = json!(500_000);
    let signed = agent.sign(body).await.expect(200);
    by(anvil, RICH, c.taker, &Taker::turnCall { to: n(3), who: FOE }).await;
    anvil.request("eth_sendRawTransaction", json!([signed["signed_tx"]])).await;
    assert_eq!(agent.settled(&text(&signed, "id")).await["receipt_status"], "success");
    assert_eq!(balance_of(anvil, c.token, FOE).await, n(90));
    // It cannot be undone. It fills the day, and a human reads of it.
    let detail = agent.submit(intent(c.token, &send(OTHER, 1))).await.refused(403);
    assert!(detail.contains("rolling 24h total 91"), "{detail}");
    let exceeded = async || {
        let events = stack.owner.get("/v1/audit/events?action=transaction.exceeded").await.expect(200);
        events["events"].as_array().unwrap().first().cloned()
    };
    until(Duration::from_secs(10), "it is in the audit trail", async || exceeded().await.is_some()).await;
    let event = exceeded().await.unwrap();
    assert_eq!(event["resource_id"], signed["id"]);
    assert!(event["details"]["counted"][0].as_str().unwrap().contains(": 90, 60 more than was reserved"), "{event}");
    // What did as it was simulated is not mentioned.
    stack.guardrails(&agent, json!({"tx_token_limits": [{"token": c.token, "daily_limit": "500"}]})).await;
    let honest = agent.submit(intent(c.token, &send(OTHER, 1))).await.expect(201);
    agent.settled(&text(&honest, "id")).await;
    assert_eq!(stack.count("SELECT count(*) FROM audit_events WHERE action = 'transaction.exceeded'").await, 1);
}
