//! What the simulate routes say of the guardrails is what a submit hears, through a service as by the node, and nothing is reserved.

use alloy::primitives::{Address, Bytes, U256, address};
use serde_json::{Value, json};

use crate::harness::anvil::OTHER;
use crate::harness::contracts::{Contracts, Taker, Token, all_of, approve, by, encoded, give, intent, send};
use crate::harness::simulator::{Simulator, variables};
use crate::harness::stack::{Agent, Options, Stack, pay, text};

const FOE: Address = address!("00000000000000000000000000000000000F0E00");

fn take(amount: u64) -> Bytes {
    encoded(&Taker::takeCall { amount: U256::from(amount) })
}

fn violations(answer: &Value) -> Vec<String> {
    let guardrails = &answer["guardrails"];
    let texts: Vec<String> =
        guardrails["violations"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    assert_eq!(guardrails["allowed"], json!(texts.is_empty()), "{answer}");
    texts
}

/// By all four routes alike: what submit and sign refuse with, simulate has said, and nothing is left of any of them. A submit stops at
/// what it breaks by itself; a simulation goes on to what it would break together with the day.
async fn all_say_the_same(stack: &Stack, agent: &Agent, body: Value, part: &str) {
    let told = violations(&agent.simulate(body.clone()).await.expect(200));
    assert!(told.iter().any(|text| text.contains(part)), "{part}: {told:?}");
    let bundled = agent.simulate_bundle(vec![body.clone()]).await.expect(200);
    assert_eq!(violations(&bundled), told);
    let mut simulated = body;
    simulated["simulate_first"] = json!(true);
    let detail = agent.submit(simulated.clone()).await.refused(403);
    let said = format!("Transaction denied by guardrail: {}", told.join("; "));
    assert!(said.starts_with(&detail) && detail.contains(part), "{detail}, but {said}");
    assert_eq!(agent.sign(simulated).await.refused(403), detail);
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 0);
}

#[tokio::test]
async fn threat_16_simulate_and_bundle_say_what_submit_and_sign_hear_and_reserve_nothing() {
    let mut stack = Stack::with(Options { daemons: 0, ..Options::default() }).await;
    let simulator = Simulator::start(&[("base", 8453, stack.chain().url())]).await;
    stack.options.env.extend(variables(simulator.url()));
    stack.add_daemon("daemon").await;
    let c = Contracts::on(stack.chain()).await;
    let rules = json!({
        "tx_to_allowlist": [OTHER, c.token, c.taker], "tx_contract_allowlist": [c.token, c.taker],
        "tx_token_allowlist": [c.token], "tx_token_limits": [{"token": c.token, "max_value": "50", "daily_limit": "80"}],
        "tx_block_unlimited_approvals": true, "tx_max_per_day": 2, "tx_max_value_eth": "1",
        "per_chain_guardrails": {"base": {"max_fee_per_gas_gwei": 20, "max_gas_limit": 400_000}},
    });
    let agent = stack.agent(rules).await;
    let anvil = stack.chain();
    give(anvil, c.token, agent.signer, 1_000).await;
    by(anvil, agent.signer, c.token, &Token::approveCall { spender: c.taker, value: U256::MAX }).await;
    let with = |mut body: Value, name: &str, value: Value| {
        body[name] = value;
        body
    };
    let cases = [
        (pay("1.5"), "tx_max_value_eth"),
        (json!({"to": FOE, "value": "0.1", "chain": "base"}), "destination"),
        (intent(c.token, &send(FOE, 1)), "recipient"),
        (intent(c.token, &all_of(&[send(OTHER, 30), send(OTHER, 21)])), "51 of token"),
        (intent(c.token, &approve(OTHER, U256::MAX)), "tx_block_unlimited_approvals"),
        // What only the simulation shows.
        (intent(c.taker, &take(51)), "51 of token"),
        (intent(c.token, &encoded(&Token::shoveCall { to: FOE, value: U256::from(1) })), "recipient"),
        (intent(c.token, &encoded(&Token::trustCall { spender: OTHER, value: U256::MAX })), "unlimited"),
        (with(pay("0.1"), "gas_limit", json!(400_001)), "max_gas_limit"),
    ];
    for (body, part) in cases {
        all_say_the_same(&stack, &agent, body, part).await;
    }
    // A price above the ceiling is told by both, each in its place.
    let dear = with(pay("0.1"), "gas_price", json!("20000000001"));
    assert!(violations(&agent.simulate(dear.clone()).await.expect(200))[0].contains("ceiling"));
    assert!(agent.submit(dear).await.refused(403).contains("ceiling"));
    // A bundle counts as if each had been sent: the second taking is too much of a day, and so is the third transaction.
    let told = agent.simulate_bundle(vec![intent(c.taker, &take(50)), intent(c.taker, &take(31))]).await.expect(200);
    assert_eq!(violations(&told["simulations"][0]), Vec::<String>::new());
    assert!(violations(&told["simulations"][1])[0].contains("rolling 24h total 81"), "{told}");
    let told = agent.simulate_bundle(vec![pay("0.1"), intent(c.taker, &take(1)), pay("0.1")]).await.expect(200);
    assert!(violations(&told)[0].contains("more than tx_max_per_day 2"), "{told}");
    for table in ["intents", "slots", "attempts", "spends", "spending_windows"] {
        assert_eq!(stack.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    // What it allows passes, simulated by the service, and counts from then on.
    assert!(violations(&agent.simulate(intent(c.taker, &take(50))).await.expect(200)).is_empty());
    let sent = agent.submit(intent(c.taker, &take(50))).await.expect(201);
    assert_eq!(sent["simulation_status"], "success");
    agent.settled(&text(&sent, "id")).await;
    assert!(violations(&agent.simulate(intent(c.taker, &take(31))).await.expect(200))[0].contains("total 81"));
}
