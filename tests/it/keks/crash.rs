//! The daemon that does the work dies in its middle, or sleeps through it.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use sqlx::{Postgres, Transaction};

use super::{SOON, admin, all_open, begin, filled, kek, quick, reaches, token, uses};
use crate::harness::client::Client;
use crate::harness::stack::{Stack, fresh_scalar, until};

/// Two rows of the old key, held so that the work stops at them.
async fn hold(stack: &Stack, purpose: &str, old: &str) -> Transaction<'static, Postgres> {
    let mut held = stack.db.begin().await.unwrap();
    // By their keys: FOR UPDATE would also hold what OFFSET passes over.
    let sql = match purpose {
        "seal" => {
            "SELECT 1 FROM signing_keys WHERE id IN
                 (SELECT id FROM signing_keys WHERE kek_id::text = $1 ORDER BY id OFFSET 3 LIMIT 2) FOR UPDATE"
        }
        "mac" => {
            "SELECT 1 FROM signing_keys WHERE id IN
                 (SELECT id FROM signing_keys WHERE mac_kek_id::text = $1 ORDER BY id OFFSET 3 LIMIT 2) FOR UPDATE"
        }
        _ => {
            "SELECT 1 FROM secret_versions WHERE (secret_id, version) IN
                 (SELECT secret_id, version FROM secret_versions WHERE kek_id::text = $1 ORDER BY secret_id, version OFFSET 3 LIMIT 2)
             FOR UPDATE"
        }
    };
    let rows = sqlx::query(sql).bind(old).execute(&mut *held).await.unwrap();
    assert_eq!(rows.rows_affected(), 2);
    held
}

/// Which of the stack's daemons has the work: they report in the order in which they were started.
async fn worker(stack: &Stack) -> usize {
    let sql = "SELECT count(*) FROM daemons d WHERE d.started_at < (SELECT started_at FROM daemons WHERE id = (SELECT holder FROM kek_leases))
               AND d.seen_at > now() - interval '10 minutes'";
    usize::try_from(stack.count(sql).await).unwrap()
}

/// Those that are dead are not waited for any longer, nor is their lease.
async fn forget_the_dead(stack: &Stack, dead: &[String]) {
    for id in dead {
        stack
            .sql(&format!("DELETE FROM daemons WHERE id = '{id}'; DELETE FROM kek_leases WHERE holder = '{id}'"))
            .await;
    }
}

async fn ids(stack: &Stack) -> Vec<String> {
    sqlx::query_scalar("SELECT id::text FROM daemons ORDER BY started_at").fetch_all(&stack.db).await.unwrap()
}

#[tokio::test]
async fn a_rotation_is_taken_up_where_a_killed_daemon_left_it_and_nothing_is_lost() {
    let mut stack = Stack::with(quick(2, vec![], &[])).await;
    let vault = filled(&stack, 20, 20).await;
    let old_token = token(&stack.owner).await;
    for (purpose, all) in [("seal", false), ("data", false), ("mac", true)] {
        let old = kek(&stack, purpose, "active").await.unwrap();
        let held = hold(&stack, purpose, &old).await;
        let before = uses(&stack, &old).await;
        begin(&stack, purpose).await;
        // Some rows are done, two are being done, others have not been looked at.
        until(SOON, "the work stands still in its middle", async || {
            stack
                .count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE%'")
                .await
                == 2
        })
        .await;
        let left = uses(&stack, &old).await;
        assert!(left > 2 && left < before, "{left} of {before} are left");
        assert_eq!(super::state_of(&stack, &old).await, "retiring");
        let (index, known) = (worker(&stack).await, ids(&stack).await);
        let mut dead = vec![known[index].clone()];
        stack.daemons.remove(index).kill();
        if all {
            dead = known;
            stack.daemons.remove(0).kill();
        }
        drop(held);
        forget_the_dead(&stack, &dead).await;
        if all {
            // Nobody works: the old key is needed and is there, and a daemon starts from this state.
            assert_eq!(super::state_of(&stack, &old).await, "retiring");
            stack.add_daemon(&format!("{purpose}-0")).await;
        } else {
            stack.owner = stack.owner.at(&stack.daemons[0].url);
        }
        reaches(&stack, &old, "retired").await;
        assert_eq!(uses(&stack, &old).await, 0);
        stack.add_daemon(&format!("{purpose}-1")).await;
        for daemon in &stack.daemons {
            all_open(&stack, &stack.owner.at(&daemon.url), &vault, 20).await;
        }
    }
    // A new key that not every daemon has found yet, and then no daemon at all.
    stack.daemons[0].signal(Signal::STOP);
    stack.sql("DELETE FROM kek_leases").await;
    let old = begin(&stack, "jwt").await;
    until(SOON, "one daemon has found the new key", async || {
        let new = kek(&stack, "jwt", "adding").await.unwrap();
        stack.count(&format!("SELECT count(*) FROM daemons WHERE '{new}' = ANY(keks)")).await == 1
    })
    .await;
    // Each round begins with the lease: by the third, two have been over.
    for _ in 0..3 {
        let lease = "SELECT coalesce(max(extract(epoch FROM until) * 1000)::bigint, 0) FROM kek_leases";
        let seen = stack.count(lease).await;
        until(SOON, "another round", async || stack.count(lease).await > seen).await;
    }
    assert_eq!(super::state_of(&stack, &old).await, "active", "it waits for the other");
    let known = ids(&stack).await;
    for mut daemon in std::mem::take(&mut stack.daemons) {
        daemon.signal(Signal::CONT);
        daemon.kill();
    }
    forget_the_dead(&stack, &known).await;
    assert!(admin(&stack, &["hsm", "rotate", "--status"]).contains("adding"));
    stack.add_daemon("last").await;
    reaches(&stack, &old, "retiring").await;
    stack.owner.by(Some(&old_token)).get("/v1/auth/me").await.expect(200);
    stack.owner.by(Some(&token(&stack.owner).await)).get("/v1/auth/me").await.expect(200);
}

/// Longer than the others wait for it: the key that it uses is retired meanwhile.
#[tokio::test]
async fn a_daemon_that_slept_through_a_rotation_makes_nothing_with_a_retired_key() {
    let stack = Stack::with(quick(2, vec![], &[])).await;
    let vault = filled(&stack, 5, 2).await;
    let sleeper = stack.owner.at(&stack.daemons[1].url);
    stack.daemons[1].signal(Signal::STOP);
    // Asked for while it sleeps: they are the first that it does when it wakes.
    let put = |n: usize, body: serde_json::Value| {
        let (client, path) = (sleeper.clone(), format!("/v1/vaults/{vault}/secrets/late/{n}"));
        tokio::spawn(async move { client.put(&path, &body).await })
    };
    let mut asked: Vec<_> = (0..20).map(|n| put(n, json!({"value": n.to_string()}))).collect();
    asked.extend((20..30).map(|n| put(n, json!({"value": fresh_scalar(), "type": "private_key"}))));
    let live = "SELECT count(*) FROM daemons WHERE seen_at > clock_timestamp() - interval '15 seconds'";
    until(Duration::from_secs(40), "it is not waited for", async || stack.count(live).await == 1).await;
    let old = begin(&stack, "jwt").await;
    reaches(&stack, &old, "retiring").await;
    let fresh = token(&stack.owner).await;
    let get = |client: Client, path: String| tokio::spawn(async move { client.get(&path).await });
    let me = get(sleeper.by(Some(&fresh)), "/v1/auth/me".to_owned());
    let read = get(sleeper.clone(), format!("/v1/vaults/{vault}/secrets/s/0"));
    let mut retired = Vec::new();
    for purpose in ["data", "seal", "mac"] {
        let old = begin(&stack, purpose).await;
        reaches(&stack, &old, "retired").await;
        retired.push(old);
    }
    stack.daemons[1].signal(Signal::CONT);
    // Done, or to be tried again: nothing is refused, and nothing fails.
    let mut stored = 0;
    for (n, reply) in asked.into_iter().enumerate() {
        let reply = reply.await.unwrap();
        assert!([201, 503].contains(&reply.status.as_u16()), "{n}: {} {}", reply.status, reply.body);
        assert!(reply.status != 503 || reply.headers.contains_key("retry-after"));
        stored += i64::from(reply.status == 201);
    }
    for reply in [me.await.unwrap(), read.await.unwrap()] {
        assert!([200, 503].contains(&reply.status.as_u16()), "{} {}", reply.status, reply.body);
    }
    for old in &retired {
        assert_eq!(uses(&stack, old).await, 0);
    }
    assert_eq!(stack.count("SELECT count(*) FROM secrets WHERE path LIKE 'late/%'").await, stored);
    // Within moments it is as the others are.
    until(SOON, "it has looked", async || sleeper.by(Some(&fresh)).get("/v1/auth/me").await.status == 200).await;
    for n in 0..20 {
        let value = json!({"value": format!("again {n}")});
        let path = format!("/v1/vaults/{vault}/secrets/late/{n}");
        assert!(sleeper.put(&path, &value).await.status.is_success());
        assert_eq!(stack.owner.get(&path).await.expect(200)["value"], value["value"]);
    }
    all_open(&stack, &sleeper, &vault, 5).await;
}
