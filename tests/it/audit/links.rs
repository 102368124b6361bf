//! The background task: one unbroken chain for each organisation, whoever links it.

use std::time::Duration;

use intentd::audit::{self, Event, Resource};
use intentd::ids::OrgId;
use rustix::process::Signal;
use serde_json::json;

use super::{SOON, admin, linked, signed, verified, whole};
use crate::harness::stack::{Options, Stack, text, until};

/// An event of the organisation, as the daemon writes it.
fn event(stack: &Stack) -> Event {
    let org_id: OrgId = stack.org_id.parse().unwrap();
    Event::by_system(org_id, "test.event", Resource::kind("test"))
}

/// Events in transactions of `each`, on a connection of its own.
async fn write(stack: &Stack, transactions: usize, each: usize) {
    let mut conn = stack.db.acquire().await.unwrap();
    for _ in 0..transactions {
        let mut tx = sqlx::Connection::begin(&mut *conn).await.unwrap();
        for n in 0..each {
            audit::record(&mut tx, event(stack).with("n", n)).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn daemons_that_link_together_and_die_leave_one_chain_with_every_event_in_it() {
    let mut stack = Stack::with(Options { daemons: 3, chains: Vec::new(), ..Options::default() }).await;
    // Written first and committed last: its place is where it becomes visible.
    let mut slow = stack.db.begin().await.unwrap();
    let late = event(&stack);
    let late_id = late.id;
    audit::record(&mut slow, late).await.unwrap();

    let requests = (0..60).map(|n| {
        let client = stack.owner.at(&stack.daemons[n % 2].url);
        async move { client.post("/v1/vaults", &json!({"name": format!("v{n}")})).await.expect(201) }
    });
    let load = async {
        tokio::join!(
            futures::future::join_all(requests),
            write(&stack, 12, 500),
            write(&stack, 40, 100),
            write(&stack, 300, 1)
        )
    };
    let some = async || stack.count("SELECT count(*) FROM audit_links").await > 500;
    let died = async {
        until(SOON, "links are made", some).await;
        // One is killed, and one stops for a while wherever it is: heads that it holds are free again soon.
        stack.daemons[2].signal(Signal::KILL);
        stack.daemons[1].signal(Signal::STOP);
        tokio::time::timeout(
            Duration::from_secs(30),
            until(SOON, "the first goes on", async || stack.count("SELECT count(*) FROM audit_links").await > 2_000),
        )
        .await
        .unwrap();
        stack.daemons[1].signal(Signal::CONT);
    };
    tokio::join!(load, died);
    linked(&stack).await;
    let before = stack.count(&format!("SELECT seq FROM audit_heads WHERE org_id = '{}'", stack.org_id)).await;
    slow.commit().await.unwrap();
    linked(&stack).await;
    let place = stack.count(&format!("SELECT seq FROM audit_links WHERE event_id = '{late_id}'")).await;
    assert!(place > before, "{place} {before}");

    // Every event once, in chains without gaps.
    let sums: (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM audit_events), (SELECT count(*) FROM audit_links),
                (SELECT sum(seq)::bigint FROM audit_heads)",
    )
    .fetch_one(&stack.db)
    .await
    .unwrap();
    assert!(sums.0 > 10_300 && sums.0 == sums.1 && sums.1 == sums.2, "{sums:?}");
    // An answer is bounded, and says where to go on.
    let first = stack.owner.get("/v1/audit/verify").await.expect(200);
    assert_eq!((&first["chain_valid"], &first["events_checked"]), (&json!(true), &json!(10_000)), "{first}");
    assert!(first["next_cursor"].is_string());
    let all = verified(&stack).await;
    assert!(all.iter().all(|part| part["chain_valid"] == true), "{all:?}");
    let verified: u64 = all.iter().map(|part| part["events_verified"].as_u64().unwrap()).sum();
    let ours = stack.count(&format!("SELECT count(*) FROM audit_events WHERE org_id = '{}'", stack.org_id)).await;
    assert_eq!(verified, ours.unsigned_abs());
    for bad in ["cursor=x", "cursor=bC8xLzAw", "from_checkpoint=x", "cursor=ZQ&from_checkpoint=1"] {
        stack.owner.get(&format!("/v1/audit/verify?{bad}")).await.refused(400);
    }

    // What somebody queues once more holds nothing up.
    stack.sql("INSERT INTO audit_unlinked (org_id, event_id, event_hash) SELECT org_id, id, hash FROM audit_events WHERE org_id IS NOT NULL LIMIT 3").await;
    write(&stack, 1, 5).await;
    linked(&stack).await;
    whole(&stack).await;
    stack.daemons.remove(2);
}

#[tokio::test]
async fn an_installation_from_before_gets_its_links_at_once_and_its_key_by_init() {
    let env = [("INTENTD_AUDIT_CHECKPOINT_S", "1"), ("INTENTD_KEKS_POLL_MS", "100")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let mut stack = Stack::with(Options { daemons: 0, chains: Vec::new(), env, ..Options::default() }).await;
    // As the migration leaves it: events that wait, and no key.
    stack.sql("DELETE FROM keks WHERE purpose = 'audit'").await;
    assert!(stack.count("SELECT count(*) FROM audit_unlinked").await > 0);
    stack.add_daemon("first").await;
    linked(&stack).await;
    let verdict = stack.owner.get("/v1/audit/verify").await.expect(200);
    assert_eq!((&verdict["chain_valid"], &verdict["proven_to"]), (&json!(true), &json!(null)), "{verdict}");
    assert!(stack.daemons[0].log_text().contains("no `audit` key yet"));
    assert_eq!(stack.owner.get("/v1/audit/keys").await.expect(200)["keys"], json!([]));
    assert_eq!(stack.count("SELECT count(*) FROM audit_checkpoints").await, 0);

    assert!(admin(&stack, &["hsm", "init"]).contains("made audit key"));
    signed(&stack).await;
    let keys = stack.owner.get("/v1/audit/keys").await.expect(200);
    assert_eq!((&keys["keys"][0]["active"], &keys["keys"][0]["on_token"]), (&json!(true), &json!(true)), "{keys}");
    assert!(admin(&stack, &["hsm", "init"]).contains("Nothing was changed"));
    let verdict = whole(&stack).await;
    assert_eq!(verdict["proven_to"], verdict["links"]["to"], "{verdict}");

    // After a rotation the new key signs, and what the old one has signed still counts where its public half is known.
    admin(&stack, &["hsm", "rotate", "audit"]);
    let rotated = async || {
        stack.count("SELECT count(*) FROM keks WHERE purpose = 'audit'").await == 2
            && stack.owner.get("/v1/audit/keys").await.expect(200)["keys"][1]["active"] == true
    };
    until(SOON, "the new key is active", rotated).await;
    let vault = stack.owner.post("/v1/vaults", &json!({"name": "after"})).await.expect(201);
    assert!(!text(&vault, "id").is_empty());
    signed(&stack).await;
    let by = "SELECT count(DISTINCT key_id) FROM audit_checkpoints";
    until(SOON, "the new key signs", async || stack.count(by).await == 2).await;
    let old = "SELECT count(*) FROM audit_heads WHERE checkpoint_key <> (SELECT id FROM keks WHERE purpose = 'audit' AND state = 'active')";
    until(SOON, "chains that do not grow are signed anew", async || stack.count(old).await == 0).await;
    // Also where it is retired, for a daemon that comes later, and when somebody has retired both, which leaves nothing signed, aloud.
    stack.sql("UPDATE keks SET state = 'retired', retired_at = clock_timestamp() WHERE purpose = 'audit'").await;
    stack.add_daemon("second").await;
    let second = stack.owner.at(&stack.daemons[1].url);
    let verdict = second.get("/v1/audit/verify").await.expect(200);
    assert_eq!(verdict["checkpoints_of_other_keys"], 0, "{verdict}");
    assert!(verdict["checkpoints_verified"].as_i64() >= Some(2), "{verdict}");
    let silent = "not signed any more";
    until(SOON, "it is said", async || stack.daemons[1].log_text().contains(silent)).await;
    // What no key of the token vouches for is not called proven.
    stack.sql("UPDATE keks SET state = 'destroyed' WHERE purpose = 'audit'").await;
    let doubted = async || text(&second.get("/v1/audit/verify").await.expect(200), "verdict").contains("not proven");
    until(SOON, "no key vouches for the checkpoints", doubted).await;
}
