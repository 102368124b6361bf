//! A vault's values move from one customer's key to another, whatever happens meanwhile.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use super::at;
use super::cmek::{Customer, enable, rotate};
use super::secrets::vault;
use crate::harness::client::Client;
use crate::harness::stack::{Stack, text, until};

async fn status(client: &Client, job: &Value) -> Value {
    let url = format!("/v1/vaults/{}/cmek-rotate/{}", text(job, "vault_id"), text(job, "id"));
    client.get(&url).await.expect(200)
}

/// Waits for its end.
async fn ended(client: &Client, job: &Value) -> Value {
    let over = async || !["pending", "running"].contains(&text(&status(client, job).await, "status").as_str());
    until(Duration::from_secs(30), "the rotation has ended", over).await;
    status(client, job).await
}

/// Every version of every secret, with what the key makes of it.
async fn opened(stack: &Stack, client: &Client, vault: &str, key: &Customer) -> Vec<(String, Option<String>)> {
    let rows: Vec<(String, i32)> = sqlx::query_as(
        "SELECT s.path, v.version FROM secrets s JOIN secret_versions v ON v.secret_id = s.id
         WHERE s.vault_id::text = $1 AND v.disabled_at IS NULL AND s.deleted_at IS NULL ORDER BY 1, 2",
    )
    .bind(vault)
    .fetch_all(&stack.db)
    .await
    .unwrap();
    let mut all = Vec::new();
    for (path, version) in rows {
        let read = client.get(&at(vault, "secret-version", &format!("{path}/{version}"))).await.expect(200);
        assert_eq!(read["cmek_encrypted"], true, "{path} {version}");
        all.push((format!("{path}/{version}"), key.decrypt(read["value"].as_str().unwrap())));
    }
    all
}

/// A vault with CMEK on and `count` values under the key.
async fn encrypted_vault(stack: &Stack, key: &Customer, count: usize) -> String {
    let vault = vault(stack).await;
    enable(&stack.owner, &vault, key).await.expect(200);
    let names: Vec<usize> = (0..count).collect();
    for chunk in names.chunks(20) {
        join_all(chunk.iter().map(async |n| {
            let body = json!({"value": key.encrypt(&format!("value {n}"))});
            stack.owner.put(&at(&vault, "secrets", &format!("s/{n}")), &body).await.expect(201);
        }))
        .await;
    }
    vault
}

#[tokio::test]
async fn every_value_moves_and_what_no_key_opens_is_named() {
    let stack = super::stack(1, &[]).await;
    let (old, new, third) = (Customer::new(), Customer::new(), Customer::new());
    let vault = encrypted_vault(&stack, &old, 3).await;
    let put = async |path: &str, body: Value| stack.owner.put(&at(&vault, "secrets", path), &body).await.expect(201);
    put("s/0", json!({"value": old.encrypt("value 0, again"), "expires_at": "2020-01-01T00:00:00Z"})).await;
    put("s/0", json!({"value": old.encrypt("value 0, once more")})).await;
    put("plain", json!({"value": "plain"})).await;
    put("ahead", json!({"value": new.encrypt("by a client that has the new key already")})).await;
    put("dropped", json!({"value": old.encrypt("deleted")})).await;
    stack.owner.delete(&at(&vault, "secrets", "dropped")).await.expect(204);
    put("closed", json!({"value": old.encrypt("disabled")})).await;
    stack.owner.post(&at(&vault, "secret-version-disable", "closed/1"), &json!({})).await.expect(200);
    put("stray", json!({"value": third.encrypt("under a key that nobody named")})).await;

    // What cannot be begun.
    let url = format!("/v1/vaults/{vault}/cmek-rotate");
    let send = async |old: Option<String>, new: Option<String>, body: Value| {
        let mut request = stack.owner.request(reqwest::Method::POST, &url).json(&body);
        for (name, key) in [("x-cmek-old-key", old), ("x-cmek-new-key", new)] {
            if let Some(key) = key {
                request = request.header(name, key);
            }
        }
        Client::send(request).await
    };
    let fits = json!({"new_fingerprint": new.fingerprint()});
    for (old, new, body) in [
        (None, Some(new.base64()), fits.clone()),
        (Some(old.base64()), None, fits.clone()),
        (Some(old.base64()), Some("AAAA".to_owned()), fits.clone()),
        (Some(hex::encode(old.0)), Some(new.base64()), fits.clone()),
        (Some(old.base64()), Some(third.base64()), fits.clone()),
        (Some(third.base64()), Some(new.base64()), fits.clone()),
        (Some(old.base64()), Some(new.base64()), json!({})),
        (Some(old.base64()), Some(old.base64()), json!({"new_fingerprint": old.fingerprint()})),
    ] {
        let reply = send(old, new, body).await;
        let shown = reply.body.to_string();
        reply.refused(400);
        for key in [&third, &Customer([0; 32])] {
            assert!(!shown.contains(&key.base64()), "{shown}");
        }
    }
    let off = super::secrets::vault(&stack).await;
    rotate(&stack.owner, &off, &old, &new).await.refused(409);
    assert_eq!(stack.count("SELECT count(*) FROM cmek_rotations").await, 0);

    // It moves all but one, and says which.
    let job = rotate(&stack.owner, &vault, &old, &new).await.expect(202);
    assert_eq!((&job["status"], &job["total_secrets"], &job["processed"]), (&json!("pending"), &json!(8), &json!(0)));
    assert_eq!(
        (&job["old_fingerprint"], &job["new_fingerprint"]),
        (&json!(old.fingerprint()), &json!(new.fingerprint()))
    );
    let failed = ended(&stack.owner, &job).await;
    assert_eq!((&failed["status"], &failed["processed"]), (&json!("failed"), &json!(7)), "{failed}");
    let error = text(&failed, "error");
    assert!(error.contains("stray version 1") && error.starts_with("1 value"), "{error}");
    let own = format!("/v1/vaults/{vault}");
    assert_eq!(stack.owner.get(&own).await.expect(200)["cmek_fingerprint"], json!(old.fingerprint()));

    // With that mended, the same keys again end it. What was moved is left as it is.
    put("stray", json!({"value": new.encrypt("stray, by the new key")})).await;
    stack.owner.post(&at(&vault, "secret-version-disable", "stray/1"), &json!({})).await.expect(200);
    let job = rotate(&stack.owner, &vault, &old, &new).await.expect(202);
    assert_eq!(job["total_secrets"], 1);
    let done = ended(&stack.owner, &job).await;
    assert_eq!(
        (&done["status"], &done["processed"], done.get("error")),
        (&json!("completed"), &json!(1), None),
        "{done}"
    );
    assert_eq!(stack.owner.get(&own).await.expect(200)["cmek_fingerprint"], json!(new.fingerprint()));
    stack.owner.post(&at(&vault, "secret-restore", "dropped"), &json!({})).await.expect(200);
    stack.owner.delete(&at(&vault, "secrets", "plain")).await.expect(204);
    // An end that is past stays past.
    stack.owner.get(&at(&vault, "secret-version", "s/0/2")).await.refused(410);
    stack.sql("UPDATE secret_versions SET expires_at = NULL").await;
    let all = opened(&stack, &stack.owner, &vault, &new).await;
    assert!(all.len() == 8 && all.iter().all(|(_, plain)| plain.is_some()), "{all:?}");
    assert_eq!(all.iter().find(|(at, _)| at == "s/0/3").unwrap().1.as_deref(), Some("value 0, once more"));
    // What nobody reads any more is under the key it was under.
    let closed = stack.owner.get(&at(&vault, "secret-versions", "closed")).await.expect(200);
    assert_eq!(closed["versions"][0]["cmek_fingerprint"], json!(old.fingerprint()));
    rotate(&stack.owner, &vault, &old, &new).await.refused(400);
    for action in ["cmek.rotate", "cmek.rotate_failed", "cmek.rotate_batch", "cmek.rotate_completed"] {
        let rows = stack.owner.get(&format!("/v1/audit/events?action={action}")).await.expect(200);
        assert!(rows["count"].as_u64() > Some(0), "{action}");
    }
}

/// The row of the value that is moved last, held until this is dropped.
async fn hold(stack: &Stack, vault: &str, nth: i64) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut tx = stack.db.begin().await.unwrap();
    sqlx::query(
        "SELECT 1 FROM secret_versions v WHERE (v.secret_id, v.version) = (
             SELECT o.secret_id, o.version FROM secret_versions o JOIN secrets s ON s.id = o.secret_id
             WHERE s.vault_id::text = $1 ORDER BY o.secret_id, o.version LIMIT 1 OFFSET $2) FOR UPDATE",
    )
    .bind(vault)
    .bind(nth)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx
}

#[tokio::test]
async fn a_rotation_that_was_cut_off_goes_on_with_the_same_keys() {
    let mut stack = super::stack(2, &[]).await;
    let (old, new) = (Customer::new(), Customer::new());
    let vault = encrypted_vault(&stack, &old, 120).await;
    let other = stack.owner.at(&stack.daemons[1].url);
    let held = hold(&stack, &vault, 110).await;
    let job = rotate(&stack.owner, &vault, &old, &new).await.expect(202);
    let half = async || status(&other, &job).await["processed"] == 100;
    until(Duration::from_secs(20), "the first batch is moved", half).await;
    // While it runs, nothing else changes the vault's key, at any daemon.
    rotate(&other, &vault, &old, &new).await.refused(409);
    other.delete(&format!("/v1/vaults/{vault}/cmek")).await.refused(409);
    enable(&other, &vault, &new).await.refused(409);

    stack.daemons[0].kill();
    held.rollback().await.unwrap();
    assert_eq!(status(&other, &job).await["status"], "running", "its lease is not over");
    stack.sql("UPDATE cmek_rotations SET lease_until = now() - interval '1 second'").await;
    let failed = status(&other, &job).await;
    assert_eq!(
        (&failed["status"], &failed["processed"], &failed["total_secrets"]),
        (&json!("failed"), &json!(100), &json!(120))
    );
    assert!(text(&failed, "error").contains("same keys"), "{failed}");
    let own = format!("/v1/vaults/{vault}");
    assert_eq!(other.get(&own).await.expect(200)["cmek_fingerprint"], json!(old.fingerprint()));

    let job = rotate(&other, &vault, &old, &new).await.expect(202);
    let done = ended(&other, &job).await;
    assert_eq!(
        (&done["status"], &done["total_secrets"], &done["processed"]),
        (&json!("completed"), &json!(20), &json!(20)),
        "{done}"
    );
    let all = opened(&stack, &other, &vault, &new).await;
    assert!(all.len() == 120 && all.iter().all(|(_, plain)| plain.as_ref().is_some_and(|p| p.starts_with("value "))));
    assert_eq!(other.get(&own).await.expect(200)["cmek_fingerprint"], json!(new.fingerprint()));

    // A daemon that starts finds what another left behind, and writes it down.
    stack
        .sql(&format!(
            "INSERT INTO cmek_rotations (id, org_id, vault_id, old_fingerprint, new_fingerprint, state, total, lease_until)
             VALUES (gen_random_uuid(), '{}', '{vault}', '{}', '{}', 'running', 1, now() - interval '1 second')",
            stack.org_id,
            new.fingerprint(),
            old.fingerprint()
        ))
        .await;
    stack.daemons[0] = stack.start_daemon("again").await;
    assert_eq!(stack.count("SELECT count(*) FROM cmek_rotations WHERE state = 'running'").await, 0);
    assert_eq!(stack.count("SELECT count(*) FROM audit_events WHERE action = 'cmek.rotate_failed'").await, 2);
}

#[tokio::test]
async fn values_that_are_stored_during_a_rotation_are_not_lost() {
    let stack = super::stack(2, &[]).await;
    let (old, new) = (Customer::new(), Customer::new());
    let vault = encrypted_vault(&stack, &old, 30).await;
    let other = stack.owner.at(&stack.daemons[1].url);
    // Held before its only batch is exchanged: everything below comes between its reading and its writing.
    let held = hold(&stack, &vault, 29).await;
    let job = rotate(&stack.owner, &vault, &old, &new).await.expect(202);
    join_all((0..60).map(async |n| {
        let key = if n % 3 == 0 { &new } else { &old };
        let body = json!({"value": key.encrypt(&format!("stored meanwhile {n}"))});
        let client = if n % 2 == 0 { &stack.owner } else { &other };
        client.put(&at(&vault, "secrets", &format!("s/{}", n % 40)), &body).await.expect(201);
    }))
    .await;
    assert_ne!(status(&other, &job).await["status"], "completed");
    held.rollback().await.unwrap();
    let done = ended(&other, &job).await;
    assert_eq!((&done["status"], &done["processed"]), (&json!("completed"), &json!(90)), "{done}");
    let all = opened(&stack, &other, &vault, &new).await;
    assert_eq!(all.len(), 90);
    assert!(all.iter().all(|(_, plain)| plain.is_some()), "{all:?}");
    let meanwhile = all.iter().filter(|(_, plain)| plain.as_ref().unwrap().starts_with("stored meanwhile")).count();
    assert_eq!(meanwhile, 60);
}
