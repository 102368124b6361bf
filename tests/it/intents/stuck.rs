//! What waits: fees that the market has left behind, and what following it costs.

use std::time::Duration;

use serde_json::{Value, json};

use super::outside::{decode, proxied, rounds};
use crate::harness::anvil::AnvilOptions;
use crate::harness::rpc_proxy::Act;
use crate::harness::stack::{Agent, Options, Stack, TO, pay, text, until};

const SOON: Duration = Duration::from_secs(30);
const GWEI: u128 = 1_000_000_000;

fn by_hand(_: &str, anvil: &mut AnvilOptions) {
    anvil.no_mining = true;
}

async fn attempts(stack: &Stack, agent: &Agent, nonce: i64) -> Vec<(String, String, Vec<u8>)> {
    sqlx::query_as("SELECT kind, reason, raw FROM attempts WHERE address = $1 AND nonce = $2 ORDER BY ordinal")
        .bind(agent.signer.as_slice())
        .bind(nonce)
        .fetch_all(&stack.db)
        .await
        .unwrap()
}

fn reasons(attempts: &[(String, String, Vec<u8>)]) -> Vec<&str> {
    attempts.iter().map(|(_, reason, _)| reason.as_str()).collect()
}

/// The next block, and what it asks for.
async fn base_fee(stack: &Stack, gwei: u64) {
    let wei = format!("{:#x}", u128::from(gwei) * GWEI);
    stack.chain().request("anvil_setNextBlockBaseFeePerGas", json!([wei])).await;
    stack.chain().mine(1).await;
}

fn cheap(value: &str) -> Value {
    json!({"to": TO, "value": value, "chain": "base", "max_fee_per_gas": "20000000000", "max_priority_fee_per_gas": "1000000000"})
}

#[tokio::test]
async fn a_fee_that_the_market_has_left_behind_is_raised_within_the_ceilings_and_so_often() {
    let chain_toml = "bump_after_s = 1\nbump_max = 2";
    let (stack, proxy) = proxied(Options { anvil: by_hand, chain_toml, ..Options::default() }).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let capped = stack.agent(json!({"per_chain_guardrails": {"base": {"max_fee_per_gas_gwei": "22"}}})).await;
    let closed = stack.agent(json!({})).await;
    let legacy = stack.agent(json!({})).await;
    let sent = agent.submit(cheap("0.5")).await.expect(201);
    let behind = agent.submit(cheap("0.1")).await.expect(201);
    capped.submit(cheap("0.1")).await.expect(201);
    let noop = closed.submit(cheap("0.1")).await.expect(201);
    let old = json!({"to": TO, "value": "0.1", "chain": "base", "gas_price": "20000000000"});
    let old = legacy.submit(old).await.expect(201);
    closed.client.post(&format!("{}/{}/cancel", closed.path(), text(&noop, "id")), &json!({})).await.expect(200);
    rounds(&proxy, 8).await;
    assert_eq!(stack.count("SELECT count(*) FROM attempts WHERE reason = 'bump'").await, 0, "the market is below");

    base_fee(&stack, 60).await;
    let raised = async || {
        let bumped = "SELECT count(*) FROM attempts WHERE reason = 'bump'";
        stack.count(bumped).await >= 3
    };
    until(SOON, "what was left behind is raised", raised).await;
    let tried = attempts(&stack, &agent, 0).await;
    assert_eq!(reasons(&tried), ["submit", "bump"]);
    let (first, second) = (decode(&tried[0].2), decode(&tried[1].2));
    assert_eq!((first.tx.to, first.tx.value, first.nonce), (second.tx.to, second.tx.value, second.nonce));
    assert!((60 * GWEI..=500 * GWEI).contains(&second.tx.fees.max_per_gas()), "{:?}", second.tx.fees);
    assert_eq!(reasons(&attempts(&stack, &agent, 1).await), ["submit"], "the first of the lane is the one that waits");
    let tried = attempts(&stack, &closed, 0).await;
    assert_eq!(reasons(&tried), ["submit", "cancel", "bump"]);
    assert_eq!(tried[2].0, "noop");
    assert!(matches!(decode(&attempts(&stack, &legacy, 0).await[1].2).tx.fees, intentd::chain::Fees::Legacy { .. }));
    assert_eq!(reasons(&attempts(&stack, &capped, 0).await), ["submit"], "the agent's own cap holds");

    // Once more, and then it has been often enough; a human may still do it.
    base_fee(&stack, 200).await;
    let twice = async || attempts(&stack, &agent, 0).await.len() == 3;
    until(SOON, "raised again", twice).await;
    base_fee(&stack, 450).await;
    rounds(&proxy, 12).await;
    assert_eq!(reasons(&attempts(&stack, &agent, 0).await), ["submit", "bump", "bump"]);
    base_fee(&stack, 1).await;
    for (agent, sent, outcome) in [
        (&agent, &sent, "success"),
        (&agent, &behind, "success"),
        (&closed, &noop, "cancelled"),
        (&legacy, &old, "success"),
    ] {
        let id = text(sent, "id");
        let ended = async || {
            stack.chain().mine(1).await;
            agent.transaction(&id).await["final"] == json!(true)
        };
        until(SOON, "it is mined", ended).await;
        assert_eq!(agent.transaction(&id).await["receipt_status"], outcome);
    }
    let value: intentd::money::Wei =
        sqlx::query_scalar("SELECT value_sum_wei FROM spending_windows WHERE agent_id = $1")
            .bind(agent.id.parse::<uuid::Uuid>().unwrap())
            .fetch_one(&stack.db)
            .await
            .unwrap();
    assert_eq!(value, intentd::money::Wei::from_units("0.6").unwrap(), "each counts once");
}

#[tokio::test]
async fn what_a_node_has_and_does_not_count_is_replaced() {
    let chain_toml = "bump_after_s = 1\nbump_max = 1";
    let (stack, proxy) = proxied(Options { anvil: by_hand, chain_toml, ..Options::default() }).await;
    let agents = [stack.agent(json!({})).await, stack.agent(json!({})).await];
    let [jammed, poor] = &agents;
    let of_pending = |request: &Value| request["params"][1] == "pending";
    proxy.on(
        "eth_getTransactionCount",
        Act::edit(move |request, count| if of_pending(request) { json!("0x0") } else { count }),
    );
    proxy.on("eth_sendRawTransaction", Act::error(-32000, "insufficient funds for gas * price + value"));
    poor.submit(cheap("0.1")).await.expect(201);
    rounds(&proxy, 8).await;
    assert_eq!(reasons(&attempts(&stack, poor, 0).await), ["submit"], "no node has it");

    proxy.on("eth_sendRawTransaction", Act::Pass);
    let sent = jammed.submit(cheap("0.1")).await.expect(201);
    let raised = async || attempts(&stack, jammed, 0).await.len() == 2;
    until(SOON, "other bytes are sent for the nonce", raised).await;
    let tried = attempts(&stack, jammed, 0).await;
    assert_eq!(reasons(&tried), ["submit", "bump"]);
    let (first, second) = (decode(&tried[0].2).tx, decode(&tried[1].2).tx);
    assert_eq!((first.to, first.value), (second.to, second.value));
    assert!(second.fees.max_per_gas() > first.fees.max_per_gas());
    let id = text(&sent, "id");
    let ended = async || {
        stack.chain().mine(1).await;
        jammed.transaction(&id).await["final"] == json!(true)
    };
    until(SOON, "it is mined", ended).await;
    assert_eq!(jammed.transaction(&id).await["receipt_status"], "success");
}

#[tokio::test]
async fn what_is_asked_of_a_node_grows_with_blocks_and_lanes_and_not_with_transactions() {
    let env = vec![("INTENTD_REBROADCAST_S".to_owned(), "600".to_owned())];
    let (stack, proxy) = proxied(Options { env, confirmations: 3, ..Options::default() }).await;
    stack.chain().request("evm_setAutomine", json!([false])).await;
    let agents = [stack.agent(json!({})).await, stack.agent(json!({})).await, stack.agent(json!({})).await];
    // Parked above a gap: they wait, ten in each lane.
    for agent in &agents {
        for nonce in 1..=10 {
            let mut body = pay("0.001");
            body["nonce"] = json!(nonce);
            agent.submit(body).await.expect(201);
        }
    }
    let calls = |method: &str| proxy.count(method);
    let polls = async |count: usize| {
        proxy.wait_for("eth_getBlockByNumber", calls("eth_getBlockByNumber") + count, SOON).await;
    };
    // Whatever was nudged has had its look.
    polls(8).await;
    let receipts = calls("eth_getTransactionReceipt");
    for _ in 0..3 {
        let before = calls("eth_getTransactionCount");
        stack.chain().mine(1).await;
        proxy.wait_for("eth_getTransactionCount", before + agents.len(), SOON).await;
        polls(6).await;
        assert_eq!(calls("eth_getTransactionCount"), before + agents.len(), "one count for each lane and block");
    }
    assert_eq!(calls("eth_getTransactionReceipt"), receipts, "no receipt of what is not mined");
    for agent in &agents {
        agent.submit(pay("0.001")).await.expect(201);
    }
    let before = calls("eth_getTransactionReceipt");
    stack.chain().request("evm_setAutomine", json!([true])).await;
    stack.chain().mine(1).await;
    let all = "SELECT count(*) FROM slots WHERE state = 'mined'";
    until(SOON, "all are mined", async || stack.count(all).await == 33).await;
    stack.chain().mine(1).await;
    let two = "SELECT count(*) FROM slots WHERE confirmations = 2";
    until(SOON, "all are two deep", async || stack.count(two).await == 33).await;
    assert!(calls("eth_getTransactionReceipt") <= before + 33, "depth is told by blocks");
    stack.chain().mine(1).await;
    for agent in &agents {
        stack.assert_settled("base", agent.signer, 0, 11).await;
    }
    assert!(calls("eth_getTransactionReceipt") <= before + 2 * 33);
    until(SOON, "no turn is left", async || stack.count("SELECT count(*) FROM lane_turns").await == 0).await;
}

#[tokio::test]
async fn threat_37_daemons_share_the_lanes_and_one_that_dies_holds_up_none() {
    let mut stack = Stack::with(Options { daemons: 2, anvil: by_hand, ..Options::default() }).await;
    let mut agents = Vec::new();
    for _ in 0..6 {
        let agent = stack.agent(json!({})).await;
        let mut parked = pay("0.001");
        parked["nonce"] = json!(1);
        agent.submit(parked).await.expect(201);
        agents.push(agent);
    }
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let both = async || {
        stack.chain().mine(1).await;
        let holders: Vec<uuid::Uuid> =
            sqlx::query_scalar("SELECT DISTINCT holder FROM lane_turns WHERE holder IS NOT NULL")
                .fetch_all(&stack.db)
                .await
                .unwrap();
        let mut seen = seen.lock().unwrap();
        seen.extend(holders);
        seen.len() == 2
    };
    until(SOON, "both take turns", both).await;
    stack.daemons.remove(1).kill();
    for agent in &agents {
        agent.submit(pay("0.001")).await.expect(201);
    }
    stack.chain().mine(1).await;
    for agent in &agents {
        stack.assert_settled("base", agent.signer, 0, 2).await;
    }
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 12);
}

/// Slots of nobody, as many as one look does not take in: in lanes of their own, and in one lane.
#[tokio::test]
async fn more_slots_than_one_look_takes_in_all_get_their_turn() {
    let stack = Stack::start().await;
    stack
        .sql(
            "INSERT INTO lanes (chain_id, address, next_nonce)
             SELECT 8453, decode(lpad(to_hex(n), 40, '0'), 'hex'), 1 FROM generate_series(1000, 3099) AS n;
             INSERT INTO slots (chain_id, address, nonce, state, noticed_block)
             SELECT chain_id, address, 0, 'foreign', 1000000 FROM lanes;
             INSERT INTO lanes (chain_id, address, next_nonce) VALUES (8453, decode(repeat('ab', 20), 'hex'), 500);
             INSERT INTO slots (chain_id, address, nonce, state, noticed_block)
             SELECT 8453, decode(repeat('ab', 20), 'hex'), n, 'foreign', 0 FROM generate_series(0, 499) AS n",
        )
        .await;
    let address = format!("0x{}", "ab".repeat(20));
    stack.chain().request("anvil_setNonce", json!([address, "0x1f4"])).await;
    let looked =
        "SELECT count(*) FROM lane_turns WHERE looked_at > '-infinity' AND address <> decode(repeat('ab', 20), 'hex')";
    until(SOON, "every lane had its turn", async || stack.count(looked).await == 2_100).await;
    let settled = "SELECT count(*) FROM slots WHERE state = 'final' AND address = decode(repeat('ab', 20), 'hex')";
    until(SOON, "every slot of one lane had its turn", async || stack.count(settled).await == 500).await;
}

/// The receipt is found before the request that signed has marked its bytes as sent, and no block follows that would show it again.
#[tokio::test]
async fn a_receipt_that_is_found_while_the_bytes_are_marked_as_sent_needs_no_further_block() {
    let env = vec![("INTENTD_REBROADCAST_S".to_owned(), "600".to_owned())];
    let options = Options { env, chain_toml: "rpc_deadline_ms = 60000", ..Options::default() };
    let (stack, proxy) = proxied(options).await;
    let agent = stack.agent(json!({})).await;
    proxy.on("eth_sendRawTransaction", Act::Freeze);
    proxy.on("eth_getTransactionReceipt", Act::Freeze);
    let submitted = tokio::spawn({
        let agent = agent.clone();
        async move { agent.submit(pay("0.1")).await }
    });
    proxy.wait_for("eth_sendRawTransaction", 1, SOON).await;
    let raw = proxy.calls("eth_sendRawTransaction")[0].params[0].clone();
    let hash = stack.chain().request("eth_sendRawTransaction", json!([raw])).await;
    // It is in a block, and what the tracker has read of its slot is that it is signed.
    proxy.wait_for("eth_getTransactionReceipt", 1, SOON).await;
    proxy.on("eth_sendRawTransaction", Act::Answer(hash));
    let sent = submitted.await.unwrap().expect(201);
    assert_eq!(sent["status"], "broadcast");
    proxy.on("eth_getTransactionReceipt", Act::Pass);
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");
}
