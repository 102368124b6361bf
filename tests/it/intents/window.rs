//! The rolling 24 hours: when an entry counts, and for how long. The past is made by moving rows into it.

use std::time::Duration;

use alloy::primitives::U256;
use intentd::money::Wei;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::harness::anvil::OTHER;
use crate::harness::stack::{Agent, Options, Stack, TO, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

fn eth(units: &str) -> Wei {
    Wei::from_units(units).unwrap()
}

async fn sums(stack: &Stack) -> (Wei, Wei) {
    let sql = "SELECT value_sum_wei, fee_sum_wei FROM spending_windows";
    sqlx::query_as(sql).fetch_one(&stack.db).await.unwrap()
}

/// Moves everything that was signed, and the window's clock, this far into the past.
async fn pass(stack: &Stack, time: &str) {
    stack.sql(&format!("UPDATE spends SET signed_at = signed_at - interval '{time}'")).await;
    stack.sql(&format!("UPDATE spending_windows SET last_stamp = last_stamp - interval '{time}'")).await;
}

async fn paid(agent: &Agent, value: &str) {
    let sent = agent.submit(pay(value)).await.expect(201);
    agent.settled(&text(&sent, "id")).await;
}

async fn refused(agent: &Agent, value: &str, total: &str) {
    let detail = agent.submit(pay(value)).await.refused(403);
    assert!(detail.contains(&format!("rolling 24h total {total} ETH would exceed")), "{detail}");
}

#[tokio::test]
async fn threat_05_an_entry_counts_until_24_hours_after_it_was_signed_and_no_longer() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    paid(&agent, "0.6").await;
    pass(&stack, "23 hours 59 minutes 30 seconds").await;
    refused(&agent, "0.5", "1.1").await;
    paid(&agent, "0.3").await;
    pass(&stack, "31 seconds").await;
    // The first is past its 24 hours, the second is not.
    refused(&agent, "0.8", "1.1").await;
    paid(&agent, "0.7").await;
    let (values, fees) = sums(&stack).await;
    assert_eq!(values, eth("1"));
    let counted: (Wei, Wei) =
        sqlx::query_as("SELECT sum(value_wei)::numeric(78, 0), sum(fee_wei)::numeric(78, 0) FROM spends WHERE counted")
            .fetch_one(&stack.db)
            .await
            .unwrap();
    assert_eq!(counted, (values, fees), "fees leave the window with their values");
    assert_eq!(stack.count("SELECT count(*) FROM spends WHERE counted").await, 2);
    // No midnight, and no second leaving of the first.
    pass(&stack, "25 hours").await;
    paid(&agent, "1").await;
    assert_eq!(sums(&stack).await.0, eth("1"));
}

#[tokio::test]
async fn threat_05_what_is_not_final_counts_beyond_24_hours() {
    let stack = Stack::with(Options { anvil: |_, anvil| anvil.no_mining = true, ..Options::default() }).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let sent = agent.submit(pay("0.6")).await.expect(201);
    pass(&stack, "48 hours").await;
    refused(&agent, "0.5", "1.1").await;
    stack.chain().mine(1).await;
    agent.settled(&text(&sent, "id")).await;
    // Now it is as old as it is.
    let again = agent.submit(pay("1")).await.expect(201);
    assert_eq!(sums(&stack).await.0, eth("1"));
    stack.chain().mine(1).await;
    agent.settled(&text(&again, "id")).await;
}

#[tokio::test]
async fn threat_05_the_windows_clock_never_runs_backwards() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    paid(&agent, "0.4").await;
    // The server's clock was ahead by hours when the last entry was made, and has been set back since.
    stack.sql("UPDATE spends SET signed_at = signed_at + interval '5 hours'").await;
    stack.sql("UPDATE spending_windows SET last_stamp = last_stamp + interval '5 hours'").await;
    let stamp = async || -> OffsetDateTime {
        sqlx::query_scalar("SELECT last_stamp FROM spending_windows").fetch_one(&stack.db).await.unwrap()
    };
    let before = stamp().await;
    paid(&agent, "0.4").await;
    assert_eq!(stamp().await, before, "it stands until the server's clock has caught up");
    let earliest: OffsetDateTime =
        sqlx::query_scalar("SELECT min(signed_at) FROM spends").fetch_one(&stack.db).await.unwrap();
    assert!(earliest >= before - Duration::from_secs(60), "no entry is made in the window's past");
    refused(&agent, "0.4", "1.2").await;
    // A clock that moves on: 24 hours by the window's own stamps, not by the server's at signing.
    pass(&stack, "24 hours").await;
    refused(&agent, "0.4", "1.2").await;
    pass(&stack, "5 hours 1 minute").await;
    paid(&agent, "1").await;
}

#[tokio::test]
async fn threat_05_bytes_hoarded_over_days_cannot_go_out_in_one_burst() {
    let stack = Stack::with(Options { confirmations: 3, ..Options::default() }).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let before = stack.chain().balance(OTHER).await;
    let mut hoard = Vec::new();
    for _day in 0..3 {
        loop {
            let reply = agent.sign(pay("0.3")).await;
            if reply.status == 403 {
                break;
            }
            hoard.push(reply.expect(200)["signed_tx"].clone());
            assert!(hoard.len() < 20, "there is no limit");
        }
        pass(&stack, "25 hours").await;
    }
    assert_eq!(hoard.len(), 3, "0.9 of 1 ETH, in three days as in one");
    for raw in &hoard {
        stack.chain().request("eth_sendRawTransaction", json!([raw])).await;
    }
    // They are in blocks, and not final: the day is as full as it was.
    agent.submit(pay("0.3")).await.refused(403);
    stack.chain().mine(3).await;
    stack.assert_settled("base", agent.signer, 0, 3).await;
    let burst = stack.chain().balance(OTHER).await - before;
    assert_eq!(burst, eth("0.9").0);
    // Sent, final and signed long ago: the day is free again.
    until(SOON, "the day is free", async || agent.submit(pay("1")).await.status == 201).await;
}

// ---- fees -----------------------------------------------------------------------------------------------------------------------

/// Nothing is paid, and a lot of gas for it.
fn nothing_for(gas_limit: u64, max_fee_per_gas: u64) -> Value {
    json!({
        "to": TO, "value": "0", "chain": "base", "gas_limit": gas_limit, "max_fee_per_gas": max_fee_per_gas.to_string(),
        "max_priority_fee_per_gas": "0",
    })
}

#[tokio::test]
async fn threat_15_a_fee_has_its_own_cap_whatever_the_value() {
    let stack = Stack::start().await;
    let guardrails = json!({"tx_max_value_eth": "0.001", "tx_daily_limit_eth": "0.001", "tx_max_fee_eth": "0.01"});
    let agent = stack.agent(guardrails).await;
    let dear = nothing_for(2_000_000, 500_000_000_000);
    for refused in [agent.submit(dear.clone()).await, agent.sign(dear).await] {
        let detail = refused.refused(403);
        assert!(detail.contains("fee of up to 1 ETH exceeds tx_max_fee_eth 0.01 ETH"), "{detail}");
    }
    let legacy = json!({"to": TO, "value": "0", "chain": "base", "gas_limit": 2_000_000, "gas_price": "500000000000"});
    assert!(agent.submit(legacy).await.refused(403).contains("tx_max_fee_eth"));
    // One wei above, and just at the cap.
    assert!(agent.submit(nothing_for(1_000_000, 10_000_000_001)).await.refused(403).contains("tx_max_fee_eth"));
    assert_eq!(stack.count("SELECT count(*) FROM slots").await, 0);
    agent.submit(nothing_for(1_000_000, 10_000_000_000)).await.expect(201);
    assert_eq!(sums(&stack).await, (Wei::ZERO, eth("0.01")));
}

#[tokio::test]
async fn threat_15_the_rolling_fee_cap_is_exact_under_parallel_requests() {
    let stack = Stack::with(Options { daemons: 2, ..Options::default() }).await;
    let agent = stack.agent(json!({"tx_daily_fee_limit_eth": "0.0105"})).await;
    let racing: Vec<_> = (0..20)
        .map(|index| {
            let agent = agent.at(&stack.daemons[index % 2].url);
            tokio::spawn(async move { agent.submit(nothing_for(100_000, 10_000_000_000)).await })
        })
        .collect();
    let mut passed = 0;
    for reply in racing {
        match reply.await.unwrap() {
            reply if reply.status == 201 => passed += 1,
            reply => assert!(reply.refused(403).contains("tx_daily_fee_limit_eth 0.0105 ETH")),
        }
    }
    assert_eq!(passed, 10, "0.001 ETH each");
    stack.assert_settled("base", agent.signer, 0, 10).await;
    assert_eq!(sums(&stack).await, (Wei::ZERO, eth("0.01")));
    // What was really paid is less, and changes nothing: the cap is on what could have been.
    let paid = U256::from(10).pow(U256::from(21)) - stack.chain().balance(agent.signer).await;
    assert!(paid < eth("0.01").0);
    agent.submit(nothing_for(100_000, 10_000_000_000)).await.refused(403);
    pass(&stack, "24 hours 1 second").await;
    agent.submit(nothing_for(100_000, 10_000_000_000)).await.expect(201);
}
