//! Lanes that wait for a human: the chain shows more of a key than the rows do.

use std::time::Duration;

use alloy::primitives::{Address, U256};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::outside::proxied;
use crate::harness::rpc_proxy::Act;
use crate::harness::stack::{Agent, Options, Stack, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

/// An agent whose key was born in the HSM.
async fn born(stack: &Stack) -> Agent {
    let agent = stack.agent(json!({})).await;
    let path = format!("/v1/agents/{}/signing-keys", agent.id);
    let made = stack.owner.post(&path, &json!({"chain": "ethereum"})).await.expect(201);
    let signer: Address = text(&made, "address").parse().unwrap();
    stack.chain().set_balance(signer, U256::from(10).pow(U256::from(21))).await;
    Agent { signer, ..agent }
}

async fn lane(stack: &Stack, agent: &Agent) -> Value {
    let all = stack.owner.get("/v1/lanes").await.expect(200);
    let address = agent.signer.to_string();
    let found = all["lanes"].as_array().unwrap().iter().find(|lane| lane["address"] == address.as_str());
    found.cloned().unwrap_or_else(|| panic!("{address} has no lane: {all}"))
}

async fn settle_one(agent: &Agent) -> u64 {
    let sent = agent.submit(pay("0.001")).await.expect(201);
    agent.settled(&text(&sent, "id")).await;
    sent["nonce"].as_u64().unwrap()
}

#[tokio::test]
async fn threat_02_a_key_that_nobody_else_has_waits_for_a_human_when_others_use_it() {
    let stack = Stack::start().await;
    let (agent, imported) = (born(&stack).await, stack.agent(json!({})).await);
    for agent in [&agent, &imported] {
        assert_eq!(settle_one(agent).await, 0);
        stack.chain().request("anvil_setNonce", json!([agent.signer, "0x3"])).await;
    }
    assert_eq!(imported.submit(pay("0.001")).await.expect(201)["nonce"], 3, "others may have that one: stepped over");
    let detail = agent.submit(pay("0.001")).await.refused(503);
    assert!(detail.contains("/v1/lanes") && detail.contains("frozen"), "{detail}");
    let shown = lane(&stack, &agent).await;
    assert_eq!((&shown["is_frozen"], &shown["next_nonce"], &shown["depth"]), (&json!(true), &json!(1), &json!(0)));
    assert!(text(&shown, "frozen_reason").contains("jumped from 1 to 3"), "{shown}");
    assert_eq!(lane(&stack, &imported).await["is_frozen"], false);

    let resume = format!("/v1/lanes/base/{}/resume", agent.signer);
    let member = stack.human(&stack.org_id, "member").await.client;
    let other_org = stack.organisation("Other").await;
    let other = stack.human(&other_org, "owner").await.client;
    assert_eq!(member.get("/v1/lanes").await.expect(200)["lanes"].as_array().unwrap().len(), 2);
    assert_eq!(other.get("/v1/lanes").await.expect(200), json!({"lanes": []}));
    agent.client.get("/v1/lanes").await.refused(403);
    member.post(&resume, &json!({})).await.refused(403);
    agent.client.post(&resume, &json!({})).await.refused(403);
    other.post(&resume, &json!({})).await.refused(404);
    for (next, status) in [(json!(2), 422), (json!(4), 422), (json!("3"), 400)] {
        stack.owner.post(&resume, &json!({"next_nonce": next})).await.refused(status);
    }
    assert_eq!(lane(&stack, &agent).await["is_frozen"], true);
    let resumed = stack.owner.post(&resume, &json!({})).await.expect(200);
    assert_eq!((&resumed["next_nonce"], &resumed["is_frozen"]), (&json!(3), &json!(false)));
    stack.owner.post(&resume, &json!({})).await.refused(409);
    assert_eq!(settle_one(&agent).await, 3);
    let page = stack.owner.get("/v1/lanes?limit=1").await.expect(200);
    let cursor = text(&page, "next_cursor");
    let rest = stack.owner.get(&format!("/v1/lanes?limit=1&cursor={cursor}")).await.expect(200);
    assert_eq!((rest["lanes"].as_array().unwrap().len(), rest.get("next_cursor")), (1, None));
    assert_ne!(rest["lanes"][0], page["lanes"][0]);
    assert_eq!(stack.count("SELECT count(*) FROM audit_events WHERE action = 'lane.resume'").await, 1);
}

/// The database of before, as a restored backup is.
async fn copy(stack: &Stack, from: &str, to: &str) {
    let admin = PgPool::connect(&stack.postgres.url("postgres")).await.unwrap();
    for sql in [format!("DROP DATABASE IF EXISTS {to} WITH (FORCE)"), format!("CREATE DATABASE {to} TEMPLATE {from}")] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&admin).await.unwrap();
    }
    admin.close().await;
}

async fn stop(stack: &mut Stack) {
    let mut daemon = stack.daemons.remove(0);
    daemon.signal(Signal::TERM);
    daemon.ended().await;
    stack.db.close().await;
}

async fn go_on(stack: &mut Stack, name: &str) {
    stack.db = PgPool::connect(&stack.postgres.url("intentd")).await.unwrap();
    stack.add_daemon(name).await;
}

#[tokio::test]
async fn threat_40_after_an_old_backup_is_restored_no_nonce_is_used_again() {
    let mut stack = Stack::start().await;
    let (born, imported) = (born(&stack).await, stack.agent(json!({})).await);
    for agent in [&born, &imported] {
        assert_eq!((settle_one(agent).await, settle_one(agent).await), (0, 1));
    }
    stop(&mut stack).await;
    copy(&stack, "intentd", "backup").await;
    go_on(&mut stack, "second").await;
    let (born, imported) = (born.at(&stack.daemons[0].url), imported.at(&stack.daemons[0].url));
    for agent in [&born, &imported] {
        assert_eq!((settle_one(agent).await, settle_one(agent).await), (2, 3));
    }
    stop(&mut stack).await;
    copy(&stack, "backup", "intentd").await;
    go_on(&mut stack, "third").await;
    let (born, imported) = (born.at(&stack.daemons[0].url), imported.at(&stack.daemons[0].url));
    // Found by itself, before anybody asks for a signature.
    until(SOON, "the lane is frozen", async || lane(&stack, &born).await["is_frozen"] == true).await;
    let reason = text(&lane(&stack, &born).await, "frozen_reason");
    assert!(reason.contains("2 nonces") && reason.contains("from 2 on") && reason.contains("backup"), "{reason}");
    let log = stack.daemons[0].log_text();
    assert!(log.contains("/resume") && log.contains(&born.signer.to_string()), "the log says what to do");
    assert!(born.submit(pay("0.001")).await.refused(503).contains("frozen"));
    assert_eq!(settle_one(&imported).await, 4, "a key that others may have is not stopped, and uses nothing again");
    let resume = format!("/v1/lanes/base/{}/resume", born.signer);
    assert_eq!(stack.owner.post(&resume, &json!({})).await.expect(200)["next_nonce"], 4);
    assert_eq!(settle_one(&born).await, 4);
    for agent in [&born, &imported] {
        assert_eq!(stack.chain().nonce(agent.signer).await, 5);
    }
}

#[tokio::test]
async fn threat_02_a_nonce_that_others_used_is_not_settled_before_its_lane_is_frozen() {
    let (stack, proxy) = proxied(Options::default()).await;
    let agent = born(&stack).await;
    assert_eq!(settle_one(&agent).await, 0);
    proxy.on("eth_sendRawTransaction", Act::error(-32_000, "overloaded"));
    agent.submit(pay("0.001")).await.expect(201);
    stack.chain().request("anvil_setNonce", json!([agent.signer, "0x2"])).await;
    proxy.clear();
    // As if the daemon ended whenever it is about to freeze.
    stack
        .sql("CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$")
        .await;
    stack
        .sql("CREATE TRIGGER fails BEFORE UPDATE OF frozen_reason ON lanes FOR EACH ROW EXECUTE FUNCTION fails()")
        .await;
    let log = &stack.daemons[0];
    let noticed = async || {
        stack.chain().mine(1).await;
        log.log_text().contains("used by a transaction that is not ours")
    };
    until(SOON, "it is noticed", noticed).await;
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE outcome = 'foreign'").await, 0);
    stack.sql("DROP TRIGGER fails ON lanes").await;
    let settled = async || {
        stack.chain().mine(1).await;
        stack.count("SELECT count(*) FROM slots WHERE outcome = 'foreign' AND state = 'final'").await == 1
    };
    until(SOON, "it is settled", settled).await;
    assert_eq!(lane(&stack, &agent).await["is_frozen"], true);
    assert_eq!(stack.count("SELECT count(*) FROM audit_events WHERE action = 'lane.freeze'").await, 1);
}
