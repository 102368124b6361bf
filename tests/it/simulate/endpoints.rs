//! `…/transactions/simulate`, `/simulate-bundle` and `simulate_first`, by the node and through the service.

use alloy::primitives::{Address, U256, keccak256};
use serde_json::{Value, json};

use crate::chain::contracts;
use crate::harness::anvil::OTHER;
use crate::harness::simulator::{KEY, Simulator, variables};
use crate::harness::stack::{Agent, Options, Stack, TO, pay, text};

const TOKEN: Address = Address::repeat_byte(0xc0);
const SHOP: Address = Address::repeat_byte(0xc2);

/// A stack whose daemon asks a real `intentd simulator`.
async fn with_service(env: &[(&str, &str)]) -> (Stack, Simulator) {
    let mut stack = Stack::with(Options {
        daemons: 0,
        chain_toml: "usd_per_unit = \"2500\"",
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..Options::default()
    })
    .await;
    let simulator = Simulator::start(&[("base", 8453, stack.chain().url())]).await;
    stack.options.env.extend(variables(simulator.url()));
    stack.add_daemon("daemon").await;
    (stack, simulator)
}

async fn with_token(stack: &Stack, agent: &Agent, units: u64) {
    let anvil = stack.chain();
    anvil.set_code(TOKEN, &contracts::token()).await;
    let balance = alloy::primitives::B256::from(U256::from(units));
    anvil.request("anvil_setStorageAt", json!([TOKEN, agent.signer.into_word(), balance])).await;
}

fn transfer(amount: u64) -> Value {
    json!({"to": TOKEN, "value": "0", "chain": "base", "data": contracts::transfer_call(OTHER, amount)})
}

async fn assert_nothing_reserved(stack: &Stack) {
    for table in ["intents", "slots", "attempts", "spends", "idempotency", "spending_windows"] {
        assert_eq!(stack.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

#[tokio::test]
async fn a_simulation_tells_what_moves_what_it_costs_and_what_the_guardrails_would_say() {
    let (stack, simulator) = with_service(&[]).await;
    let agent = stack.agent(json!({"tx_max_value_eth": "1", "tx_daily_limit_eth": "1.5"})).await;
    with_token(&stack, &agent, 100_000_000).await;

    let body = agent.simulate(pay("0.5")).await.expect(200);
    assert_eq!((&body["status"], &body["gas_used"]), (&json!("success"), &json!(21_000)));
    let sender = agent.signer.to_string();
    assert!(body["balance_changes"].as_array().unwrap().contains(&json!({
        "address": sender.to_lowercase(), "token": null, "token_symbol": "ETH", "before": "1000", "after": "999.5", "change": "-0.5",
    })), "{body}");
    assert_eq!(body["guardrails"], json!({"allowed": true, "violations": []}));
    let usd: f64 = text(&body, "gas_estimate_usd").parse().unwrap();
    assert!(usd > 0.0 && usd < 1.0, "{usd}");
    assert!(text(&body, "simulated_at").ends_with('Z') && body["simulation_id"].is_string());
    // The page is there for a person.
    let page = reqwest::get(text(&body, "tenderly_dashboard_url")).await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains(&agent.signer.to_string()));

    let body = agent.simulate(transfer(1_250_000)).await.expect(200);
    let changes = body["balance_changes"].as_array().unwrap();
    let own = changes.iter().find(|change| change["address"] == sender.to_lowercase()).unwrap();
    assert_eq!(
        (&own["token_symbol"], &own["before"], &own["after"], &own["change"]),
        (&json!("USDX"), &json!("100"), &json!("98.75"), &json!("-1.25"))
    );

    // What fails is an answer too, and a rule that would refuse is told beside it.
    let body = agent.simulate(transfer(100_000_001)).await.expect(200);
    assert_eq!((&body["status"], &body["revert_reason"]), (&json!("reverted"), &json!("not enough")));
    assert_eq!(body["error_code"], "execution_reverted");
    assert!(text(&body, "error_human_readable").contains("not enough") && body["balance_changes"] == json!([]));
    let body = agent.simulate(pay("1.1")).await.expect(200);
    assert_eq!((&body["status"], &body["guardrails"]["allowed"]), (&json!("success"), &json!(false)));
    assert!(body["guardrails"]["violations"][0].as_str().unwrap().contains("tx_max_value_eth"), "{body}");
    let body = agent.simulate(pay("1001")).await.expect(200);
    assert_eq!((&body["status"], &body["error_code"]), (&json!("error"), &json!("insufficient_funds")));
    let body = agent.simulate(json!({"to": TO, "value": "0", "chain": "base", "gas_limit": 20_999})).await.expect(200);
    assert_eq!(body["error_code"], "intrinsic_gas");
    let body =
        agent.simulate(json!({"to": TO, "value": "0", "chain": "base", "max_fee_per_gas": "1"})).await.expect(200);
    assert_eq!(body["error_code"], "fee_below_base_fee");
    let body =
        agent.simulate(json!({"to": TO, "value": "0", "chain": "base", "gas_price": "600000000000"})).await.expect(200);
    assert_eq!((&body["error_code"], &body["guardrails"]["allowed"]), (&json!("fee_above_ceiling"), &json!(false)));
    assert_nothing_reserved(&stack).await;

    // The rolling window counts what was sent, and a simulation adds nothing to it: twice the same answer.
    let sent = agent.submit(pay("1")).await.expect(201);
    agent.settled(&text(&sent, "id")).await;
    for _ in 0..2 {
        let body = agent.simulate(pay("0.5")).await.expect(200);
        assert_eq!(body["guardrails"]["allowed"], true);
        let body = agent.simulate(pay("0.6")).await.expect(200);
        assert!(body["guardrails"]["violations"][0].as_str().unwrap().contains("tx_daily_limit_eth"), "{body}");
    }
    let rows = stack.count("SELECT count(*) FROM audit_events WHERE action = 'transaction.simulate'").await;
    assert_eq!(rows, 12);
    assert!(!stack.daemons[0].log_text().contains(KEY) && !simulator.daemon.log_text().contains(KEY));
}

#[tokio::test]
async fn a_bundle_runs_in_order_stops_at_the_first_failure_and_is_judged_as_a_whole() {
    let (stack, _simulator) = with_service(&[]).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    with_token(&stack, &agent, 100).await;
    let body = agent.simulate_bundle(vec![transfer(70), transfer(20), pay("0.1")]).await.expect(200);
    let simulations = body["simulations"].as_array().unwrap();
    assert!(simulations.iter().all(|one| one["status"] == "success"), "{body}");
    let gain = |one: &Value| {
        let changes = one["balance_changes"].as_array().unwrap();
        changes.iter().find(|change| change["address"] == json!(OTHER)).unwrap()["before"].clone()
    };
    let befores: Vec<Value> = simulations[..2].iter().map(gain).collect();
    assert_eq!(befores, [json!("0"), json!("0.00007")]);
    assert_eq!(body["guardrails"], json!({"allowed": true, "violations": []}));

    let body = agent.simulate_bundle(vec![transfer(70), transfer(40), transfer(1)]).await.expect(200);
    let simulations = body["simulations"].as_array().unwrap();
    assert_eq!((simulations.len(), &simulations[1]["revert_reason"]), (2, &json!("not enough")));
    // Each passes alone; together they do not.
    let body = agent.simulate_bundle(vec![pay("0.6"), pay("0.6")]).await.expect(200);
    assert_eq!(body["simulations"][0]["guardrails"]["allowed"], true);
    assert_eq!(
        (&body["simulations"][1]["guardrails"]["allowed"], &body["guardrails"]["allowed"]),
        (&json!(false), &json!(false))
    );

    let many = vec![pay("0.001"); 33];
    assert!(
        agent.simulate_bundle(many[..32].to_vec()).await.expect(200)["simulations"].as_array().unwrap().len() == 32
    );
    for (bad, word) in [
        (vec![], "transactions"),
        (many, "1 to 32"),
        (vec![pay("1"), json!(1)], "transactions[1]"),
        (vec![json!({"to": TO, "chain": "base"})], "transactions[0]: value"),
    ] {
        let detail = agent.simulate_bundle(bad).await.refused(400);
        assert!(detail.contains(word), "{detail}");
    }
    assert_nothing_reserved(&stack).await;
}

#[tokio::test]
async fn who_may_not_submit_may_not_simulate_and_an_idempotency_key_means_nothing() {
    let stack = Stack::start().await;
    let (agent, other) = (stack.agent(json!({})).await, stack.agent(json!({})).await);
    let path = format!("{}/simulate", agent.path());
    for client in [&stack.owner, &other.client] {
        assert_eq!(client.post(&path, &pay("0.1")).await.status, 403);
    }
    assert_eq!(stack.owner.by(None).post(&path, &pay("0.1")).await.status, 401);
    let unknown = json!({"to": TO, "value": "1", "chain": "base", "signing_key_path": "keys/none"});
    assert_eq!(agent.simulate(unknown).await.status, 422);
    for bad in [json!({"to": null}), json!({"value": 1}), json!({"chain": "nowhere"}), json!({"token_mint": "0x01"})] {
        let mut body = pay("0.1");
        body.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        agent.simulate(body).await.refused(400);
    }
    for (value, changed) in [("0.1", "-0.1"), ("0.2", "-0.2")] {
        let request =
            agent.client.request(reqwest::Method::POST, &path).header("Idempotency-Key", "same").json(&pay(value));
        let body = crate::harness::client::Client::send(request).await.expect(200);
        let changes = body["balance_changes"].as_array().unwrap();
        assert!(changes.iter().any(|change| change["change"] == changed), "{body}");
        assert!(body.get("tenderly_dashboard_url").is_none() && body.get("gas_estimate_usd").is_none());
    }
    stack.guardrails(&agent, json!({"intents_api_enabled": false})).await;
    assert!(agent.simulate(pay("0.1")).await.refused(403).contains("Intents API is off"));
    assert_nothing_reserved(&stack).await;
    let refused =
        "SELECT count(*) FROM audit_events WHERE action = 'transaction.simulate' AND details->>'outcome' = 'refused'";
    assert_eq!(stack.count(refused).await, 8);
}

#[tokio::test]
async fn simulate_first_signs_what_was_simulated_and_a_revert_is_kept_and_refused() {
    let (stack, _simulator) = with_service(&[]).await;
    let agent = stack.agent(json!({})).await;
    with_token(&stack, &agent, 100).await;
    let mut good = transfer(60);
    good["simulate_first"] = json!(true);
    let sent = agent.submit(good.clone()).await.expect(201);
    assert_eq!(sent["simulation_status"], "success");
    assert!(text(&sent, "tenderly_dashboard_url").ends_with(&text(&sent, "simulation_id")));
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");

    // A contract's own error is named once a human has registered its ABI.
    let error = [
        &keccak256("SoldOut(uint256,address)")[..4],
        &U256::from(3u64).to_be_bytes::<32>(),
        OTHER.into_word().as_slice(),
    ]
    .concat();
    stack.chain().set_code(SHOP, &contracts::reverting(&error)).await;
    let mut buy = pay("0.01");
    buy["to"] = json!(SHOP);
    buy["simulate_first"] = json!(true);
    let refused = agent.submit(buy.clone()).await.expect(422);
    assert_eq!((&refused["status"], &refused["simulation_status"]), (&json!("simulation_failed"), &json!("reverted")));
    assert!(text(&refused, "error_message").starts_with("custom error 0x"), "{refused}");
    assert!(text(&refused, "detail").contains("reverted") && refused["title"] == "Unprocessable Entity");
    let abi = json!([{"type": "error", "name": "SoldOut", "inputs": [{"name": "left", "type": "uint256"}, {"name": "to", "type": "address"}]}]);
    stack.owner.post("/v1/org/contract-abis", &json!({"name": "shop", "address": SHOP, "abi": abi})).await.expect(201);
    let named = format!("SoldOut(left: 3, to: {OTHER})");
    // With and without a gas limit of the caller's.
    for gas_limit in [json!(null), json!(100_000)] {
        buy["gas_limit"] = gas_limit;
        let refused = agent.submit(buy.clone()).await.expect(422);
        assert_eq!(refused["error_message"], named);
        let kept = agent.transaction(&text(&refused, "id")).await;
        assert_eq!((&kept["status"], &kept["error_message"]), (&json!("simulation_failed"), &json!(named)));
        assert_eq!(kept["tenderly_dashboard_url"], refused["tenderly_dashboard_url"]);
        assert_eq!(agent.simulate(buy.clone()).await.expect(200)["revert_reason"], named);
    }
    // Not simulated, it is refused by its estimate, as ever.
    buy["simulate_first"] = json!(false);
    buy["gas_limit"] = json!(null);
    assert!(agent.submit(buy.clone()).await.refused(422).contains("cannot be estimated"));

    // The organisation may want it always; `/sign` too.
    stack.sql("UPDATE organisations SET require_simulation = true").await;
    let refused = agent.sign(buy).await.expect(422);
    assert_eq!(refused["error_message"], named);
    assert_eq!(agent.submit(transfer(1)).await.expect(201)["simulation_status"], "success");
    assert_eq!(stack.count("SELECT count(*) FROM slots").await, 2);
}
