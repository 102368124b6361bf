//! Canaries in everything that passes through the routes of versions and of customers' keys.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;

use super::at;
use super::cmek::{Customer, enable, rotate};
use super::secrets::vault;
use crate::daemon::leaks::{Canaries, Replies, dump};
use crate::harness::client::Client;
use crate::harness::stack::{fresh_scalar, text, until};

#[tokio::test]
async fn threat_23_no_value_and_no_customers_key_is_in_a_log_a_row_or_an_error() {
    let mut stack = super::stack(
        1,
        &[("INTENTD_LOG", "trace"), ("INTENTD_LOG_FORMAT", "json"), ("INTENTD_VAULTS_KEPT_VERSIONS", "2")],
    )
    .await;
    let vault = vault(&stack).await;
    let (old, new, wrong) = (Customer::new(), Customer::new(), Customer::new());
    let mut canaries = Canaries(BTreeMap::new());
    let mut plant = |what: &'static str, secret: &[u8]| drop(canaries.0.insert(what, secret.to_vec()));
    plant("the old key", &old.0);
    plant("the new key", &new.0);
    plant("the wrong key", &wrong.0);
    for (what, value) in [
        ("version 1", "first-value-6f1d20c4"),
        ("version 2", "second-value-b7714e09"),
        ("version 3", "third-value-0c9d5a52"),
        ("the encrypted value", "under-the-customers-key-41aa"),
        ("the misplaced value", "misplaced-value-5d0e77fa"),
    ] {
        plant(what, value.as_bytes());
    }
    let mut replies = Replies::default();
    let path = at(&vault, "secrets", "db/main");
    for value in ["first-value-6f1d20c4", "second-value-b7714e09", "third-value-0c9d5a52"] {
        replies.keep(stack.owner.put(&path, &json!({ "value": value })).await).expect(201);
    }
    stack.owner.get(&at(&vault, "secret-version", "db/main/2")).await.expect(200);
    replies.keep(stack.owner.get(&at(&vault, "secret-version", "db/main/1")).await).refused(410);
    replies.keep(stack.owner.get(&at(&vault, "secret-versions", "db/main")).await).expect(200);
    replies.keep(stack.owner.get(&format!("/v1/vaults/{vault}/secrets")).await).expect(200);
    // Random values: the reply does not have them, whoever may reads them.
    replies.keep(stack.owner.post(&at(&vault, "secret-rotate", "db/main"), &json!({"length": 40})).await).expect(201);
    let random = text(&stack.owner.get(&path).await.expect(200), "value");
    plant("the random value", random.as_bytes());
    replies.keep(stack.owner.post(&at(&vault, "secret-version-disable", "db/main/4"), &json!({})).await).expect(200);
    replies.keep(stack.owner.get(&path).await).refused(410);
    replies.keep(stack.owner.delete(&path).await).expect(204);
    replies.keep(stack.owner.post(&at(&vault, "secret-restore", "db/main"), &json!({})).await).expect(200);

    // Values where none belong, and bodies that are none.
    let misplaced = "misplaced-value-5d0e77fa";
    for (route, body) in [
        ("secret-rotate", json!({"charset": misplaced})),
        ("secret-rotate", json!({"length": misplaced})),
        ("secret-rotate", json!({"type": misplaced})),
        ("secret-restore", json!({"reactivate_signing_key": misplaced})),
        ("secrets", json!({"value": [misplaced]})),
        ("secrets", json!({"value": "v", "metadata": misplaced})),
        ("secrets", json!({"value": "v", "max_access_count": misplaced})),
        ("secrets", json!({"value": "v", "expires_at": misplaced})),
    ] {
        let method = if route == "secrets" { Method::PUT } else { Method::POST };
        let request = stack.owner.request(method, &at(&vault, route, "db/main")).json(&body);
        replies.keep(Client::send(request).await).refused(400);
    }
    let half = format!("{{\"value\": \"{misplaced}\\ud83d\"}}");
    replies.keep(Client::send(stack.owner.request(Method::PUT, &path).body(half)).await).refused(400);

    // Customers' keys: right, wrong, misplaced.
    enable(&stack.owner, &vault, &old).await.expect(200);
    let blob = old.encrypt("under-the-customers-key-41aa");
    stack.owner.put(&at(&vault, "secrets", "blob"), &json!({ "value": blob })).await.expect(201);
    stack.owner.put(&at(&vault, "secrets", "stray"), &json!({"value": wrong.encrypt("x")})).await.expect(201);
    replies.keep(rotate(&stack.owner, &vault, &wrong, &new).await).refused(400);
    replies.keep(rotate(&stack.owner, &vault, &old, &old).await).refused(400);
    let request = stack.owner.request(Method::POST, &format!("/v1/vaults/{vault}/cmek-rotate"));
    let request = request.header("x-cmek-old-key", hex::encode(old.0)).header("x-cmek-new-key", new.base64());
    replies.keep(Client::send(request.json(&json!({"new_fingerprint": new.base64()}))).await).refused(400);
    replies
        .keep(stack.owner.post(&format!("/v1/vaults/{vault}/cmek"), &json!({"fingerprint": old.base64()})).await)
        .refused(400);
    let encrypted_key = json!({"value": old.encrypt(&fresh_scalar()), "type": "private_key"});
    stack.owner.put(&at(&vault, "secrets", "keys/base-signer"), &encrypted_key).await.expect(201);
    for (status, mend) in [("failed", true), ("completed", false)] {
        let job = replies.keep(rotate(&stack.owner, &vault, &old, &new).await).expect(202);
        let url = format!("/v1/vaults/{vault}/cmek-rotate/{}", text(&job, "id"));
        let reached = async || stack.owner.get(&url).await.body["status"] == status;
        until(std::time::Duration::from_secs(20), status, reached).await;
        replies.keep(stack.owner.get(&url).await).expect(200);
        if mend {
            stack.owner.delete(&at(&vault, "secrets", "stray")).await.expect(204);
            stack.owner.post(&at(&vault, "secret-restore", "stray"), &json!({})).await.expect(200);
            stack.owner.post(&at(&vault, "secret-version-disable", "stray/1"), &json!({})).await.expect(200);
        }
    }
    let read = text(&stack.owner.get(&at(&vault, "secrets", "blob")).await.expect(200), "value");
    assert_eq!(new.decrypt(&read).as_deref(), Some("under-the-customers-key-41aa"));
    // A row that was tampered with, so that an error about a value is written to the log.
    stack.sql("UPDATE secret_versions SET nonce = set_byte(nonce, 0, get_byte(nonce, 0) # 1) WHERE cmek_fingerprint IS NOT NULL").await;
    replies.keep(stack.owner.get(&at(&vault, "secrets", "blob")).await).refused(500);

    let audit: Vec<(serde_json::Value,)> =
        sqlx::query_as("SELECT to_jsonb(e) FROM audit_events e").fetch_all(&stack.db).await.unwrap();
    assert!(audit.len() > 20, "{} audit rows", audit.len());
    for (row,) in &audit {
        canaries.assert_absent("an audit row", &row.to_string(), &[]);
    }
    for reply in &replies.0 {
        canaries.assert_absent("a reply", reply, &[]);
    }
    canaries.assert_absent("the database", &dump(&stack, &[]), &[]);
    stack.daemons[0].signal(rustix::process::Signal::TERM);
    let _ = stack.daemons[0].ended().await;
    let log = stack.daemons[0].log_text();
    assert!(log.len() > 100_000 && log.contains("\"TRACE\""), "the log is not at trace: {} bytes", log.len());
    canaries.assert_absent("a log line", &log, &[]);
}
