//! Nonces and limits under parallel requests, with one daemon and with three.

use intentd::money::Wei;
use serde_json::{Value, json};

use crate::harness::stack::{Agent, Options, Stack, pay, text};

async fn stack_of(daemons: usize) -> Stack {
    Stack::with(Options { daemons, ..Options::default() }).await
}

/// Sends them all at once, round-robin over the daemons and agents.
async fn all_at_once(stack: &Stack, agents: &[Agent], count: usize, body: &Value) -> Vec<(u16, Value)> {
    let mut running = Vec::new();
    for index in 0..count {
        let agent = agents[index % agents.len()].at(&stack.daemons[(index / agents.len()) % stack.daemons.len()].url);
        let body = body.clone();
        running.push(tokio::spawn(async move {
            let reply = agent.submit(body).await;
            (reply.status.as_u16(), reply.body)
        }));
    }
    let mut replies = Vec::new();
    for task in running {
        replies.push(task.await.unwrap());
    }
    replies
}

async fn nonces_are_contiguous(daemons: usize, keys: usize) {
    let stack = stack_of(daemons).await;
    let mut agents = Vec::new();
    for _ in 0..keys {
        agents.push(stack.agent(json!({})).await);
    }
    let replies = all_at_once(&stack, &agents, 200, &pay("0.001")).await;
    for (status, body) in &replies {
        assert_eq!(*status, 201, "{body}");
    }
    for agent in &agents {
        stack.assert_settled("base", agent.signer, 0, 200 / keys as u64).await;
    }
    // The hash that was answered is the one that was mined.
    let mined = stack
        .count("SELECT count(*) FROM slots s JOIN attempts a USING (chain_id, address, nonce) WHERE s.mined_tx_hash = a.tx_hash")
        .await;
    assert_eq!(mined, 200);
    let mut answered: Vec<String> = replies.iter().map(|(_, body)| text(body, "tx_hash")).collect();
    answered.sort();
    answered.dedup();
    assert_eq!(answered.len(), 200);
}

#[tokio::test]
async fn two_hundred_parallel_submits_on_one_key() {
    nonces_are_contiguous(1, 1).await;
}

#[tokio::test]
async fn two_hundred_parallel_submits_on_eight_keys() {
    nonces_are_contiguous(1, 8).await;
}

#[tokio::test]
async fn threat_37_three_daemons_on_one_key_give_each_nonce_once() {
    nonces_are_contiguous(3, 1).await;
}

#[tokio::test]
async fn threat_37_three_daemons_on_eight_keys_give_each_nonce_once() {
    nonces_are_contiguous(3, 8).await;
}

async fn limit_is_exact(daemons: usize) {
    let stack = stack_of(daemons).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let replies = all_at_once(&stack, std::slice::from_ref(&agent), 50, &pay("0.1")).await;
    let passed = replies.iter().filter(|(status, _)| *status == 201).count();
    let refused: Vec<&Value> = replies.iter().filter(|(status, _)| *status == 403).map(|(_, body)| body).collect();
    assert_eq!((passed, refused.len()), (10, 40), "{replies:?}");
    for body in refused {
        let detail = text(body, "detail");
        assert!(detail.contains("denied by guardrail") && detail.contains("tx_daily_limit_eth 1 ETH"), "{detail}");
    }
    stack.assert_settled("base", agent.signer, 0, 10).await;
    let sum: Wei = sqlx::query_scalar("SELECT value_sum_wei FROM spending_windows").fetch_one(&stack.db).await.unwrap();
    assert_eq!(sum, Wei::from_units("1").unwrap());
}

#[tokio::test]
async fn threat_04_the_limit_is_exact_under_parallel_requests() {
    limit_is_exact(1).await;
}

#[tokio::test]
async fn threat_04_the_limit_is_exact_over_two_daemons() {
    limit_is_exact(2).await;
}

#[tokio::test]
async fn threat_04_the_limit_is_exact_over_three_daemons() {
    limit_is_exact(3).await;
}

/// Each is simulated after those before it, so they go one after the other, and none is told to come again.
#[tokio::test]
async fn parallel_submits_of_one_key_that_are_simulated_are_all_signed() {
    let stack = stack_of(1).await;
    let agent = stack.agent(json!({})).await;
    let mut body = pay("0.001");
    body["simulate_first"] = json!(true);
    let replies = all_at_once(&stack, std::slice::from_ref(&agent), 10, &body).await;
    for (status, body) in &replies {
        assert_eq!(*status, 201, "{body}");
        assert_eq!(body["simulation_status"], "success");
    }
    stack.assert_settled("base", agent.signer, 0, 10).await;
}

#[tokio::test]
async fn a_lane_holds_so_many_unmined_transactions_and_no_more_also_when_they_come_at_once() {
    let stack = Stack::with(Options {
        daemons: 2,
        env: vec![("INTENTD_LANE_DEPTH_MAX".to_owned(), "3".to_owned())],
        anvil: |_, anvil| anvil.no_mining = true,
        ..Options::default()
    })
    .await;
    let agent = stack.agent(json!({})).await;
    let racing: Vec<_> = (0..12)
        .map(|index| {
            let agent = agent.at(&stack.daemons[index % 2].url);
            let signs = index % 3 == 0;
            tokio::spawn(async move {
                if signs { agent.sign(pay("0.001")).await } else { agent.submit(pay("0.001")).await }
            })
        })
        .collect();
    let mut taken = 0;
    for reply in racing {
        let reply = reply.await.unwrap();
        if matches!(reply.status.as_u16(), 200 | 201) {
            taken += 1;
        } else {
            assert!(reply.refused(503).contains("3 transactions of this key are not mined"));
        }
    }
    assert_eq!(taken, 3);
    assert_eq!(stack.count("SELECT count(*) FROM slots").await, 3);
}

/// Two windows for each intent, of which none has a row yet: they are made by whoever comes first, in one order.
#[tokio::test]
async fn threat_04_limits_are_exact_where_parallel_requests_use_their_windows_for_the_first_time() {
    let stack = stack_of(2).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1", "tx_max_per_day": 5})).await;
    assert_eq!(stack.count("SELECT count(*) FROM spending_windows").await, 0);
    let replies = all_at_once(&stack, std::slice::from_ref(&agent), 20, &pay("0.1")).await;
    for (status, body) in replies.iter().filter(|(status, _)| *status != 201) {
        assert_eq!(*status, 403, "{body}");
        assert!(body["detail"].as_str().unwrap().contains("tx_max_per_day 5"), "{body}");
    }
    stack.assert_settled("base", agent.signer, 0, 5).await;
    let sums: Vec<(String, Wei)> =
        sqlx::query_as("SELECT spend_group, value_sum_wei FROM spending_windows ORDER BY spend_group COLLATE \"C\"")
            .fetch_all(&stack.db)
            .await
            .unwrap();
    let half = Wei::from_units("0.5").unwrap();
    assert_eq!(sums, [("count:all".to_owned(), Wei::from(5u64)), ("eth".to_owned(), half)]);
}
