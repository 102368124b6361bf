//! What is signed and not broadcast when a freeze comes, or its agent is no more to pay it.

use std::time::{Duration, Instant};

use alloy::primitives::B256;
use serde_json::{Value, json};

use super::outside::{proxied, rounds};
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Agent, Options, Stack, hash, pay, text, until};

const SOON: Duration = Duration::from_secs(30);
const SEND: &str = "eth_sendRawTransaction";

async fn freeze(stack: &Stack, scope: &str, subject: &str) -> String {
    let body = json!({"scope": scope, "subject": subject, "reason": "the key leaked"});
    format!("/v1/freezes/{}", text(&stack.owner.post("/v1/freezes", &body).await.expect(201), "id"))
}

async fn is_known(stack: &Stack, hash: B256) -> bool {
    !stack.chain().request("eth_getTransactionByHash", json!([hash])).await.is_null()
}

async fn lane(stack: &Stack) -> Value {
    let all = stack.owner.get("/v1/lanes").await.expect(200);
    all["lanes"][0].clone()
}

/// The transaction and its lane both say why.
async fn assert_held(stack: &Stack, agent: &Agent, sent: &Value, scope: &str) {
    for shown in [agent.transaction(&text(sent, "id")).await, lane(stack).await] {
        let why = text(&shown, "hold_reason");
        assert!(why.contains(&format!("its {scope} is frozen (the key leaked)")), "{why}");
    }
    // Who has its bytes can send them.
    let asked = format!("{}/{}?include_signed_tx=true", agent.path(), text(sent, "id"));
    assert_eq!(agent.client.get(&asked).await.expect(200).get("signed_tx"), None);
}

#[tokio::test]
async fn threat_37_what_is_frozen_before_a_node_has_it_is_held_until_the_freeze_is_lifted() {
    let (stack, proxy) = proxied(Options {
        daemons: 2,
        anvil: |_, anvil| anvil.no_mining = true,
        env: vec![("INTENTD_REBROADCAST_S".to_owned(), "1".to_owned())],
        ..Options::default()
    })
    .await;
    let agent = stack.agent(json!({})).await;
    let out = agent.submit(pay("0.01")).await.expect(201);
    let signer = agent.signer.to_string();
    let scopes = [
        ("agent", agent.id.as_str()),
        ("key", signer.as_str()),
        ("chain", "base"),
        ("organisation", stack.org_id.as_str()),
    ];
    for (scope, subject) in scopes {
        proxy.on(SEND, Act::error(-32_000, "overloaded"));
        let mut body = pay("0.02");
        if scope == "key" {
            // So near the ceiling that no pool which had it would take anything in its place.
            body["max_fee_per_gas"] = json!("490000000000");
            body["max_priority_fee_per_gas"] = json!("1000000000");
        }
        let sent = agent.submit(body).await.expect(201);
        assert_eq!((sent["status"].as_str(), sent.get("hold_reason")), (Some("signed"), None), "{sent}");
        let frozen = freeze(&stack, scope, subject).await;
        // What was just being sent is over.
        rounds(&proxy, 2).await;
        proxy.on(SEND, Act::Pass);
        rounds(&proxy, 3).await;
        assert!(!is_known(&stack, hash(&sent)).await, "{scope}: sent for the first time under the freeze");
        assert_held(&stack, &agent, &sent, scope).await;
        // A nonce that is public is followed as ever.
        assert_eq!(agent.transaction(&text(&out, "id")).await.get("hold_reason"), None);
        stack.chain().request("anvil_dropTransaction", json!([hash(&out)])).await;
        until(SOON, "it is sent again", async || is_known(&stack, hash(&out)).await).await;
        assert!(!is_known(&stack, hash(&sent)).await, "{scope}");
        let cancel = format!("{}/{}/cancel", agent.path(), text(&sent, "id"));
        match scope {
            "key" => {
                // A human empties the lane under the freeze; the agent does not.
                agent.client.post(&cancel, &json!({})).await.refused(403);
                let shown = stack.owner.post(&cancel, &json!({})).await.expect(200);
                assert_eq!(shown.get("hold_reason"), None, "{shown}");
                let noop: B256 = text(&shown, "replaced_by").parse().unwrap();
                until(SOON, "the no-op goes out", async || is_known(&stack, noop).await).await;
                assert_eq!(lane(&stack).await.get("hold_reason"), None);
                stack.owner.delete(&frozen).await.expect(204);
                rounds(&proxy, 3).await;
                assert!(!is_known(&stack, hash(&sent)).await, "what was cancelled is never sent");
            }
            _ => {
                stack.owner.delete(&frozen).await.expect(204);
                until(SOON, "it goes out", async || is_known(&stack, hash(&sent)).await).await;
                let gone = async || agent.transaction(&text(&sent, "id")).await.get("hold_reason").is_none();
                until(SOON, "nothing is held", gone).await;
            }
        }
    }
    stack.chain().mine(1).await;
    stack.assert_settled("base", agent.signer, 0, 5).await;
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE outcome = 'cancelled'").await, 1);
}

/// The freeze comes when T1 has read what is frozen, and before its bytes are sent.
#[tokio::test]
async fn threat_37_a_freeze_that_comes_during_a_slow_commit_holds_what_that_commits() {
    let stack = Stack::with(Options { daemons: 2, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    for statement in [
        "CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM set_config('lock_timeout', '0', true); PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT ON intents DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION wait_at_commit()",
    ] {
        stack.sql(statement).await;
    }
    let mut gate = stack.db.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(42)").execute(&mut *gate).await.unwrap();
    let submitting = tokio::spawn({
        let agent = agent.clone();
        async move { agent.submit(pay("0.02")).await }
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted";
    until(SOON, "it is being committed", async || stack.count(waits).await == 1).await;
    let freezing = tokio::spawn({
        let there = stack.owner.at(&stack.daemons[1].url);
        let body = json!({"scope": "agent", "subject": agent.id, "reason": "the key leaked"});
        async move { there.post("/v1/freezes", &body).await }
    });
    until(SOON, "the freeze is in force", async || stack.count("SELECT count(*) FROM freezes").await == 1).await;
    let begun = Instant::now();
    until(SOON, "the commit is a slow one", async || begun.elapsed() > Duration::from_millis(600)).await;
    gate.rollback().await.unwrap();
    let sent = submitting.await.unwrap().expect(201);
    let frozen = freezing.await.unwrap().expect(201);
    assert_eq!(sent["status"], "signed", "{sent}");
    assert_held(&stack, &agent, &sent, "agent").await;
    assert!(text(&sent, "hold_reason").contains("agent is frozen"), "{sent}");
    assert_eq!(sent.get("signed_tx"), None, "{sent}");
    assert!(!is_known(&stack, hash(&sent)).await);
    stack.owner.delete(&format!("/v1/freezes/{}", text(&frozen, "id"))).await.expect(204);
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");
}

/// A node that is asked for its chain first, and answers late, gets nothing that was frozen meanwhile.
#[tokio::test]
async fn threat_37_a_freeze_that_comes_while_a_node_is_asked_for_its_chain_holds() {
    let (first, second) = (RpcProxy::start("http://127.0.0.1:1"), RpcProxy::start("http://127.0.0.1:1"));
    let mut stack = Stack::with(Options {
        daemons: 0,
        rpc_urls: [("base", format!("{} {}", first.url(), second.url()))].into(),
        chain_toml: "rpc_deadline_ms = 60000",
        ..Options::default()
    })
    .await;
    for proxy in [&first, &second] {
        proxy.forward_to(&stack.chain().url());
    }
    first.on(SEND, Act::error(-32_000, "overloaded"));
    second.on("eth_chainId", Act::Freeze);
    stack.add_daemon("daemon").await;
    let agent = stack.agent(json!({})).await;
    let submitting = tokio::spawn({
        let agent = agent.clone();
        async move { agent.submit(pay("0.02")).await }
    });
    // One node has refused the bytes, and the other is asked which chain it serves.
    first.wait_for(SEND, 1, SOON).await;
    second.wait_for("eth_chainId", 1, SOON).await;
    let frozen = freeze(&stack, "agent", &agent.id).await;
    let begun = Instant::now();
    until(SOON, "what T1 has read is old", async || begun.elapsed() > Duration::from_millis(600)).await;
    second.on("eth_chainId", Act::Pass);
    let sent = submitting.await.unwrap().expect(201);
    assert_held(&stack, &agent, &sent, "agent").await;
    assert_eq!((sent["status"].as_str(), sent.get("signed_tx")), (Some("signed"), None), "{sent}");
    rounds(&first, 3).await;
    assert!(second.count(SEND) == 0 && !is_known(&stack, hash(&sent)).await, "sent under the freeze");
    stack.owner.delete(&frozen).await.expect(204);
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");
}

/// Lifting a freeze sends what it held: if whoever signed it is to sign nothing any more, or not to that recipient, it stays.
#[tokio::test]
async fn threat_37_what_no_node_has_stays_when_its_agent_is_no_more_to_pay_it() {
    let (stack, proxy) = proxied(Options::default()).await;
    let agent = stack.agent(json!({})).await;
    let path = |sent: &Value| format!("{}/{}?include_signed_tx=true", agent.path(), text(sent, "id"));
    let shown = async |sent: &Value| stack.owner.get(&path(sent)).await.expect(200);
    let change = async |change: Value| stack.guardrails(&agent, change).await;
    let unsent = async |amount: &str| {
        proxy.on(SEND, Act::error(-32_000, "overloaded"));
        agent.submit(pay(amount)).await.expect(201)
    };
    let assert_stays = async |sent: &Value, why: &str| {
        proxy.on(SEND, Act::Pass);
        rounds(&proxy, 3).await;
        let held = async || shown(sent).await.get("hold_reason").is_some();
        until(SOON, "it is held", held).await;
        let shown = shown(sent).await;
        assert!(text(&shown, "hold_reason").contains(&format!("because its agent{why}")), "{shown}");
        assert_eq!((shown.get("signed_tx"), shown["status"].as_str()), (None, Some("signed")), "{shown}");
        assert!(!is_known(&stack, hash(sent)).await, "{why}: sent");
        assert_eq!(lane(&stack).await["hold_reason"], shown["hold_reason"]);
    };
    let assert_goes_out = async |sent: &Value| {
        assert_eq!(agent.settled(&text(sent, "id")).await["receipt_status"], "success");
        assert_eq!(shown(sent).await.get("hold_reason"), None);
    };
    for (off, on, why) in [
        (json!({"is_active": false}), json!({"is_active": true}), " is deactivated"),
        (json!({"intents_api_enabled": false}), json!({"intents_api_enabled": true}), "'s Intents API is off"),
    ] {
        let sent = unsent("0.02").await;
        let frozen = freeze(&stack, "agent", &agent.id).await;
        change(off).await;
        stack.owner.delete(&frozen).await.expect(204);
        assert_stays(&sent, why).await;
        change(on).await;
        assert_goes_out(&sent).await;
    }
    // Rules that have come since: whom it pays, and how much.
    let other = json!([crate::harness::anvil::OTHER, agent.signer]);
    for (strict, lax, why) in [
        (json!({"tx_to_allowlist": [agent.signer]}), json!({"tx_to_allowlist": other}), "tx_to_allowlist"),
        (json!({"tx_max_value_eth": "0.01"}), json!({"tx_max_value_eth": null}), "tx_max_value_eth"),
    ] {
        let sent = unsent("0.02").await;
        change(strict).await;
        assert_stays(&sent, "'s guardrails forbid it by now").await;
        assert!(text(&shown(&sent).await, "hold_reason").contains(why));
        // What comes behind it says so: to whoever asks, and at once when it is known to be stuck.
        let mut behind = pay("0.001");
        behind["to"] = json!(agent.signer);
        let first = agent.submit(behind.clone()).await.expect(201);
        stack.sql("UPDATE slots SET created_at = created_at - interval '10 seconds' WHERE state = 'signed'").await;
        let second = agent.submit(behind).await.expect(201);
        let before = format!("nonce {} of its key comes before it", sent["nonce"]);
        for waits in [&second, &shown(&first).await, &shown(&second).await] {
            assert!(text(waits, "wait_reason").contains(&before), "{waits}");
            assert_eq!(waits.get("hold_reason"), None, "{waits}");
        }
        assert_eq!(shown(&sent).await.get("wait_reason"), None);
        change(lax).await;
        assert_goes_out(&sent).await;
        assert_eq!(agent.settled(&text(&second, "id")).await.get("wait_reason"), None);
    }
    // For good: only a human's cancel empties the lane.
    let sent = unsent("0.02").await;
    stack.owner.delete(&format!("/v1/agents/{}", agent.id)).await.expect(204);
    assert_stays(&sent, " is deleted").await;
    let cancel = format!("{}/{}/cancel", agent.path(), text(&sent, "id"));
    stack.owner.post(&cancel, &json!({})).await.expect(200);
    stack.assert_settled("base", agent.signer, 0, 9).await;
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE outcome = 'cancelled'").await, 1);
}
