//! Limits on tokens, chains and counts are as exact as the one on ether: under parallel requests, over time, and when bytes are closed.

use std::time::Duration;

use alloy::primitives::{Address, U256};
use serde_json::{Value, json};

use super::super::outside::proxied;
use crate::harness::anvil::OTHER;
use crate::harness::client::Reply;
use crate::harness::contracts::{Contracts, Taker, all_of, approve, balance_of, encoded, give, intent, send, with_gas};
use crate::harness::rpc_proxy::Act;
use crate::harness::stack::{Agent, Options, Stack, pay, text, until};

async fn all_at_once(stack: &Stack, agent: &Agent, count: usize, body: &Value) -> Vec<Reply> {
    let running: Vec<_> = (0..count)
        .map(|index| {
            let (agent, body) = (agent.at(&stack.daemons[index % stack.daemons.len()].url), body.clone());
            tokio::spawn(async move { agent.submit(body).await })
        })
        .collect();
    let mut replies = Vec::new();
    for reply in running {
        replies.push(reply.await.unwrap());
    }
    replies
}

/// How many passed; all others were refused for this.
fn passed(replies: Vec<Reply>, part: &str) -> usize {
    let (passed, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 201);
    for reply in refused {
        let detail = reply.refused(403);
        assert!(detail.contains(part), "{detail}");
    }
    passed.len()
}

fn limit(token: Address, members: Value) -> Value {
    let mut limit = json!({"token": format!("base:{token}")});
    limit.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    json!({"tx_token_limits": [limit]})
}

async fn token_limit_is_exact(daemons: usize) {
    let stack = Stack::with(Options { daemons, ..Options::default() }).await;
    let c = Contracts::on(stack.chain()).await;
    let agent = stack.agent(limit(c.token, json!({"daily_limit": "1.05", "decimals": 2}))).await;
    give(stack.chain(), c.token, agent.signer, 1_000).await;
    let replies = all_at_once(&stack, &agent, 50, &intent(c.token, &send(OTHER, 10))).await;
    assert_eq!(passed(replies, "would exceed its daily_limit of 105"), 10);
    stack.assert_settled("base", agent.signer, 0, 10).await;
    assert_eq!(balance_of(stack.chain(), c.token, OTHER).await, U256::from(100));
    // Other tokens and ether are not concerned, and an approval is spent as a transfer is.
    agent.submit(pay("0.001")).await.expect(201);
    agent.submit(intent(c.other_token, &approve(OTHER, U256::MAX))).await.expect(201);
    agent.submit(intent(c.token, &approve(OTHER, U256::from(6)))).await.refused(403);
    agent.submit(intent(c.token, &all_of(&[send(OTHER, 2), approve(OTHER, U256::from(3))]))).await.expect(201);
    agent.submit(intent(c.token, &send(OTHER, 1))).await.refused(403);
    let shown = stack.owner.get(&format!("/v1/agents/{}", agent.id)).await.expect(200);
    assert_eq!(
        shown["tx_token_spent_today"],
        json!([{"chain": "base", "token": c.token.to_checksum(None), "amount": "105"}])
    );
}

#[tokio::test]
async fn threat_16_a_token_limit_is_exact_under_parallel_requests() {
    token_limit_is_exact(1).await;
}

#[tokio::test]
async fn threat_16_a_token_limit_is_exact_over_three_daemons() {
    token_limit_is_exact(3).await;
}

#[tokio::test]
async fn threat_05_token_entries_leave_after_24_hours_and_a_no_op_gives_them_back() {
    let stack = Stack::with(Options { confirmations: 2, ..Options::default() }).await;
    let c = Contracts::on(stack.chain()).await;
    let agent = stack.agent(limit(c.token, json!({"daily_limit": "100", "max_value": "70"}))).await;
    give(stack.chain(), c.token, agent.signer, 1_000).await;
    assert!(agent.submit(intent(c.token, &send(OTHER, 71))).await.refused(403).contains("max_value of 70"));
    // Signed, never sent, and closed by our own no-op.
    let hoarded = agent.sign(intent(c.token, &send(OTHER, 70))).await.expect(200);
    agent.submit(intent(c.token, &send(OTHER, 31))).await.refused(403);
    let waiting = agent.submit(pay("0.001")).await.expect(201);
    stack.sql("UPDATE slots SET created_at = created_at - interval '901 seconds' WHERE sign_only").await;
    until(Duration::from_secs(30), "both are mined", async || stack.chain().nonce(agent.signer).await == 2).await;
    stack.chain().mine(3).await;
    assert_eq!(agent.settled(&text(&hoarded, "id")).await["receipt_status"], "cancelled");
    agent.settled(&text(&waiting, "id")).await;
    let sum = "SELECT value_sum_wei::bigint FROM spending_windows WHERE spend_group LIKE 'token:%'";
    assert_eq!(stack.count(sum).await, 0);
    // One day later, to the second.
    let sent = agent.submit(intent(c.token, &send(OTHER, 60))).await.expect(201);
    stack.chain().mine(3).await;
    agent.settled(&text(&sent, "id")).await;
    let pass = async |time: &str| {
        stack.sql(&format!("UPDATE spends SET signed_at = signed_at - interval '{time}'")).await;
        stack.sql(&format!("UPDATE spending_windows SET last_stamp = last_stamp - interval '{time}'")).await;
    };
    pass("23 hours 59 minutes").await;
    agent.submit(intent(c.token, &send(OTHER, 41))).await.refused(403);
    pass("61 seconds").await;
    agent.submit(intent(c.token, &send(OTHER, 41))).await.expect(201);
    assert_eq!(stack.count(sum).await, 41);
}

#[tokio::test]
async fn threat_09_the_strictest_of_all_chains_and_this_chain_wins_and_counts_are_exact() {
    let chains = vec![("base", 8453), ("polygon", 137)];
    let stack = Stack::with(Options { daemons: 2, chains, ..Options::default() }).await;
    let rules = json!({
        "tx_max_per_day": 8, "tx_max_value_eth": "0.5",
        "per_chain_guardrails": {
            "8453": {"max_per_day": 5, "max_value": "0.1", "daily_limit": "0.3", "max_fee_per_gas_gwei": 20},
            "polygon": {"max_value": "1", "gas_daily_budget_native": "0.001"},
        },
    });
    let agent = stack.agent(rules.clone()).await;
    let on = |chain: &str, value: &str| json!({"to": OTHER, "value": value, "chain": chain});
    assert!(agent.submit(on("base", "0.2")).await.refused(403).contains("per_chain_guardrails.base.max_value 0.1 ETH"));
    assert!(agent.submit(on("polygon", "0.6")).await.refused(403).contains("tx_max_value_eth 0.5 ETH"));
    let mut dear = on("base", "0");
    dear["max_fee_per_gas"] = json!("20000000001");
    dear["max_priority_fee_per_gas"] = json!("0");
    assert!(agent.submit(dear.clone()).await.refused(403).contains("denied by guardrail"));
    let mut hungry = on("polygon", "0");
    hungry["gas_limit"] = json!(1_000_000);
    hungry["gas_price"] = json!("2000000000");
    assert!(agent.submit(hungry).await.refused(403).contains("per_chain_guardrails.polygon.gas_daily_budget_native"));
    // A chain's day of value, then its count, then the count of all chains.
    let replies = all_at_once(&stack, &agent, 6, &on("base", "0.1")).await;
    assert_eq!(passed(replies, "per_chain_guardrails.base.daily_limit 0.3 ETH"), 3);
    let replies = all_at_once(&stack, &agent, 12, &on("base", "0")).await;
    assert_eq!(passed(replies, "more than per_chain_guardrails.base.max_per_day 5"), 2);
    let replies = all_at_once(&stack, &agent, 12, &on("polygon", "0")).await;
    assert_eq!(passed(replies, "it would be transaction 9 within 24 hours, more than tx_max_per_day 8"), 3);
    let shown = stack.owner.get(&format!("/v1/agents/{}", agent.id)).await.expect(200);
    assert_eq!((&shown["tx_count_today"], &shown["tx_spent_today_by_chain"]["base"]), (&json!(8), &json!("0.3")));
    assert!(
        stack
            .owner
            .patch(&format!("/v1/agents/{}", agent.id), &json!({"per_chain_guardrails": {"base": {"max_valeu": "1"}}}))
            .await
            .refused(400)
            .contains("max_valeu")
    );
    stack.guardrails(&agent, json!({"tx_max_per_day": null, "per_chain_guardrails": null})).await;
    let shown = stack.owner.get(&format!("/v1/agents/{}", agent.id)).await.expect(200);
    for field in ["tx_max_per_day", "per_chain_guardrails", "tx_count_today", "tx_spent_today_by_chain"] {
        assert!(shown.get(field).is_none(), "{field}");
    }
    let events =
        stack.owner.get(&format!("/v1/audit/events?action=agent.update&resource_id={}", agent.id)).await.expect(200);
    let details = &events["events"][0]["details"];
    assert_eq!(details["lifted"], json!(["tx_max_per_day", "per_chain_guardrails"]));
    assert_eq!(details["before"]["tx_max_per_day"], 8);
}

#[tokio::test]
async fn threat_09_a_limit_that_comes_while_an_intent_is_checked_holds() {
    let (stack, proxy) = proxied(Options::default()).await;
    let c = Contracts::on(stack.chain()).await;
    let agent = stack.agent(json!({})).await;
    give(stack.chain(), c.token, agent.signer, 1_000).await;
    let before = proxy.count("eth_getBalance");
    proxy.on("eth_getBalance", Act::Freeze);
    let racing = tokio::spawn({
        let (agent, body) = (agent.clone(), intent(c.token, &send(OTHER, 100)));
        async move { agent.submit(body).await }
    });
    until(Duration::from_secs(10), "it is being checked", async || proxy.count("eth_getBalance") > before).await;
    stack.guardrails(&agent, limit(c.token, json!({"daily_limit": "10"}))).await;
    proxy.clear();
    let detail = racing.await.unwrap().refused(503);
    assert!(detail.contains("the guardrails were changed"), "{detail}");
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 0);
    agent.submit(intent(c.token, &send(OTHER, 100))).await.refused(403);
    agent.submit(intent(c.token, &send(OTHER, 10))).await.expect(201);
}

#[tokio::test]
async fn threat_38_a_simulation_that_comes_to_be_required_while_an_intent_is_checked_is_not_slipped_past() {
    let (stack, proxy) = proxied(Options::default()).await;
    let c = Contracts::on(stack.chain()).await;
    let agent = stack.agent(json!({})).await;
    let unknown = with_gas(intent(c.taker, &encoded(&Taker::takeCall { amount: U256::ZERO })));
    for (body, by_guardrails, part) in [
        (unknown.clone(), true, "the guardrails came to need a simulation"),
        (pay("0.1"), false, "it came to be required that every intent is simulated"),
    ] {
        let before = proxy.count("eth_getBalance");
        proxy.on("eth_getBalance", Act::Freeze);
        let racing = tokio::spawn({
            let agent = agent.clone();
            async move { agent.submit(body).await }
        });
        until(Duration::from_secs(10), "it is being checked", async || proxy.count("eth_getBalance") > before).await;
        if by_guardrails {
            stack.guardrails(&agent, limit(c.token, json!({"max_value": "10"}))).await;
        } else {
            stack.sql("UPDATE organisations SET require_simulation = true").await;
        }
        proxy.clear();
        let detail = racing.await.unwrap().refused(503);
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 0);
    for (nonce, body) in [pay("0.1"), unknown].into_iter().enumerate() {
        let sent = agent.submit(body).await.expect(201);
        assert_eq!((&sent["nonce"], &sent["simulation_status"]), (&json!(nonce), &json!("success")));
    }
}
