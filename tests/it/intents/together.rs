//! Intents that wait for one lane's turn are committed together, and each is judged as if it were alone.

use std::time::Duration;

use intentd::money::Wei;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::client::Reply;
use crate::harness::stack::{Agent, Stack, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

/// A request on its way.
type Asked = JoinHandle<Reply>;

fn ask(agent: &Agent, key: &str, value: &str) -> Asked {
    let (agent, key, body) = (agent.clone(), key.to_owned(), pay(value));
    tokio::spawn(async move { agent.submit_with_key(&key, body).await })
}

/// A payment holds the turn of the lane, whose row is locked, until all of `asked` wait behind it; then the row is let go. Where that takes
/// too long the payment is given up, and no other.
async fn gathered(
    stack: &Stack,
    agent: &Agent,
    asked: &[(&Agent, &str, &str)],
    meanwhile: impl AsyncFnOnce(),
) -> Vec<Reply> {
    let mut held = stack.db.begin().await.unwrap();
    let lock = sqlx::query("SELECT 1 FROM lanes WHERE address = $1 FOR UPDATE").bind(agent.signer.as_slice());
    lock.execute(&mut *held).await.unwrap();
    let first = ask(agent, "first", "0.001");
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    until(SOON, "the first waits for the lane", async || stack.count(waits).await == 1).await;
    let running: Vec<Asked> = asked.iter().map(|(who, key, value)| ask(who, key, value)).collect();
    let claims = "SELECT count(*) FROM idempotency WHERE state = 'in_flight' OR intent_id IS NOT NULL";
    until(SOON, "all have come", async || stack.count(claims).await >= asked.len() as i64).await;
    meanwhile().await;
    held.rollback().await.unwrap();
    let first = first.await.unwrap();
    assert!(matches!(first.status.as_u16(), 201 | 503), "{}", first.body);
    let mut replies = Vec::new();
    for reply in running {
        replies.push(reply.await.unwrap());
    }
    replies
}

/// How many transactions of the database wrote the intents of these replies.
async fn commits(stack: &Stack, replies: &[Value]) -> i64 {
    let ids: Vec<String> = replies.iter().map(|body| text(body, "id")).collect();
    sqlx::query_scalar("SELECT count(DISTINCT xmin::text) FROM intents WHERE id::text = ANY($1)")
        .bind(ids)
        .fetch_one(&stack.db)
        .await
        .unwrap()
}

async fn first_use(agent: &Agent) {
    let sent = agent.submit(pay("0.001")).await.expect(201);
    agent.settled(&text(&sent, "id")).await;
}

/// The sum of the agent's one window, which must be that of its intents.
async fn spent(stack: &Stack) -> Wei {
    let (window, intents): (Wei, Wei) = sqlx::query_as(
        "SELECT value_sum_wei, (SELECT sum(value_wei)::numeric(78, 0) FROM intents) FROM spending_windows",
    )
    .fetch_one(&stack.db)
    .await
    .unwrap();
    assert_eq!(window, intents);
    window
}

#[tokio::test]
async fn what_waits_for_a_lane_is_committed_at_once_and_everybody_gets_their_own() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    first_use(&agent).await;
    let values: Vec<String> = (1..=12).map(|n| format!("0.0{n:02}")).collect();
    let asked: Vec<_> = values.iter().map(|value| (&agent, value.as_str(), value.as_str())).collect();
    let replies: Vec<Value> =
        gathered(&stack, &agent, &asked, async || ()).await.into_iter().map(|reply| reply.expect(201)).collect();
    assert!(commits(&stack, &replies).await <= 6, "twelve intents, and as many transactions");
    // Each reply is of its own request, and so is the replay.
    for (value, reply) in values.iter().zip(&replies) {
        let wei = Wei::from_units(value).unwrap().0;
        assert_eq!(text(reply, "value_wei"), wei.to_string());
        let again = agent.submit_with_key(value, pay(value)).await.expect(200);
        assert_eq!((&again["id"], &again["tx_hash"]), (&reply["id"], &reply["tx_hash"]));
        let sent = stack.chain().request("eth_getTransactionByHash", json!([reply["tx_hash"]])).await;
        assert_eq!((text(&sent, "nonce"), text(&sent, "value")), (hex(&reply["nonce"]), format!("{wei:#x}")));
    }
    let signed = stack.count("SELECT count(*) FROM intents").await;
    assert!((13..=14).contains(&signed));
    assert!(spent(&stack).await >= Wei::from_units("0.079").unwrap());
    let audited =
        "SELECT count(*) FROM audit_events WHERE action = 'transaction.submit' AND details ->> 'outcome' = 'signed'";
    assert_eq!(stack.count(audited).await, signed);
    stack.assert_settled("base", agent.signer, 0, u64::try_from(signed).unwrap()).await;
}

fn hex(nonce: &Value) -> String {
    format!("{:#x}", nonce.as_u64().unwrap())
}

#[tokio::test]
async fn threat_04_what_one_of_them_may_not_do_is_refused_to_that_one_alone() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    first_use(&agent).await;
    // Together they exceed the limit. The large one fits with two others, or all others without it.
    let asked: Vec<_> =
        ["a", "b", "large", "c", "d"].map(|key| (&agent, key, if key == "large" { "0.9" } else { "0.045" })).to_vec();
    let replies = gathered(&stack, &agent, &asked, async || ()).await;
    let is_signed = |reply: &Reply| reply.status.as_u16() == 201;
    let signed = replies.iter().filter(|reply| is_signed(reply)).count();
    assert_eq!(signed, if is_signed(&replies[2]) { 3 } else { 4 });
    assert!(spent(&stack).await <= Wei::from_units("1").unwrap());
    for reply in replies {
        if !is_signed(&reply) {
            assert!(reply.refused(403).contains("tx_daily_limit_eth 1 ETH"));
        }
    }
    let refused = "SELECT count(*) FROM audit_events WHERE details ->> 'outcome' = 'refused' AND details::text LIKE '%tx_daily_limit_eth%'";
    assert_eq!(stack.count(refused).await, 5 - signed as i64, "once each, however often it was tried");
}

/// Two tokens of one agent, of which one is revoked while both wait: what was asked with it is refused, whoever else is waiting.
#[tokio::test]
async fn threat_04_a_revoked_token_is_refused_also_beside_others_of_its_agent() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    first_use(&agent).await;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let exchange = json!({"agent_id": agent.id, "api_key": agent.api_key});
        let reply = agent.client.by(None).post("/v1/auth/agent-token", &exchange).await.expect(200);
        tokens.push(text(&reply, "access_token"));
    }
    let by = |token: &str| Agent { client: agent.client.by(Some(token)), ..agent.clone() };
    let (good, bad) = (by(&tokens[0]), by(&tokens[1]));
    let asked = [(&good, "a", "0.001"), (&bad, "b", "0.001"), (&good, "c", "0.001"), (&bad, "d", "0.001")];
    let replies = gathered(&stack, &agent, &asked, async || {
        bad.client.delete("/v1/auth/token").await.expect(204);
    })
    .await;
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    assert_eq!(statuses, [201, 403, 201, 403]);
}
