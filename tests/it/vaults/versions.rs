//! Versions by their number, random values, and what is kept of the old ones.

use futures::future::join_all;
use serde_json::{Value, json};

use super::secrets::vault;
use super::{at, stack};
use crate::harness::stack::{Stack, address_of, fresh_scalar};

async fn stored(stack: &Stack, vault: &str, path: &str, count: usize) {
    for n in 1..=count {
        let body = json!({"value": format!("{path} {n}"), "metadata": {"n": n}});
        stack.owner.put(&at(vault, "secrets", path), &body).await.expect(201);
    }
}

#[tokio::test]
async fn each_version_is_listed_read_and_disabled_by_its_number() {
    let stack = stack(1, &[]).await;
    let vault = vault(&stack).await;
    stored(&stack, &vault, "db/main", 3).await;
    let list = at(&vault, "secret-versions", "db/main");
    let versions = stack.owner.get(&list).await.expect(200);
    let shown: Vec<(i64, &str)> = versions["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (v["version"].as_i64().unwrap(), v["state"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [(3, "enabled"), (2, "enabled"), (1, "enabled")]);
    assert!(!versions.to_string().contains("\"value\"") && versions.get("next_cursor").is_none(), "{versions}");
    assert_eq!(versions["versions"][1]["metadata"], json!({"n": 2}));
    let page = stack.owner.get(&format!("{list}?limit=2")).await.expect(200);
    let rest = stack.owner.get(&format!("{list}?limit=2&cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!(rest.expect(200)["versions"], json!([versions["versions"][2]]));

    for spelled in ["db/main/2", "db%2Fmain/2", "%64b%2fmain/2"] {
        let read = stack.owner.get(&at(&vault, "secret-version", spelled)).await.expect(200);
        assert_eq!(
            (&read["value"], &read["version"], &read["metadata"]),
            (&json!("db/main 2"), &json!(2), &json!({"n": 2}))
        );
    }
    stack.owner.get(&at(&vault, "secret-version", "db/main/4")).await.refused(404);
    stack.owner.get(&at(&vault, "secret-version", "db/other/1")).await.refused(404);
    for wrong in [
        "db/main/0",
        "db/main/01",
        "db/main/-1",
        "db/main/+1",
        "db/main/x",
        "db/main/99999999999",
        "db",
        "db%2Fmain%2F2",
    ] {
        stack.owner.get(&at(&vault, "secret-version", wrong)).await.refused(400);
        stack.owner.post(&at(&vault, "secret-version-disable", wrong), &json!({})).await.refused(400);
    }

    // Disabled: not read by its number any more, nor as the current one; the others are.
    let disable = at(&vault, "secret-version-disable", "db/main/2");
    let disabled = stack.owner.post(&disable, &Value::Null).await.expect(200);
    assert_eq!((&disabled["state"], &disabled["version"]), (&json!("disabled"), &json!(2)));
    assert_eq!(stack.owner.post(&disable, &json!({})).await.expect(200), disabled, "it is said once");
    let detail = stack.owner.get(&at(&vault, "secret-version", "db/main/2")).await.refused(410);
    assert!(detail.contains("disabled"), "{detail}");
    stack.owner.get(&at(&vault, "secret-version", "db/main/1")).await.expect(200);
    let path = at(&vault, "secrets", "db/main");
    stack.owner.get(&path).await.expect(200);
    stack.owner.post(&at(&vault, "secret-version-disable", "db/main/3"), &json!({})).await.expect(200);
    stack.owner.get(&path).await.refused(410);
    stack.owner.put(&path, &json!({"value": "again"})).await.expect(201);
    assert_eq!(stack.owner.get(&path).await.expect(200)["value"], "again");
    assert_eq!(stack.count("SELECT count(*) FROM audit_events WHERE action = 'secret.version_disable'").await, 2);

    // A signing key is not read by its number either; a disabled one signs no more. Deleted: all of it is closed.
    let signer = at(&vault, "secrets", "keys/base-signer");
    let scalar = fresh_scalar();
    for value in [&scalar, &fresh_scalar()] {
        stack.owner.put(&signer, &json!({"value": value, "type": "private_key"})).await.expect(201);
    }
    let held = stack.owner.get(&at(&vault, "secret-version", "keys/base-signer/1")).await.expect(403);
    assert_eq!(held["type"], "key_held_in_hsm");
    assert!(held["detail"].as_str().unwrap().contains(&address_of(&scalar).to_string()), "{held}");
    stack.owner.post(&at(&vault, "secret-version-disable", "keys/base-signer/2"), &json!({})).await.expect(200);
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys WHERE state = 'active'").await, 0);
    stack.owner.delete(&path).await.expect(204);
    stack.owner.get(&list).await.refused(410);
    stack.owner.get(&at(&vault, "secret-version", "db/main/1")).await.refused(410);
    stack.owner.post(&disable, &json!({})).await.refused(410);
}

#[tokio::test]
async fn only_so_many_values_are_kept() {
    let stack = stack(1, &[("INTENTD_VAULTS_KEPT_VERSIONS", "3")]).await;
    let vault = vault(&stack).await;
    stored(&stack, &vault, "hot", 3).await;
    let gone = "SELECT count(*) FROM secret_versions WHERE destroyed_at IS NOT NULL AND ciphertext IS NULL AND dek_sealed IS NULL";
    assert_eq!(stack.count(gone).await, 0);
    // Also when they are stored at once.
    join_all((0..6).map(async |n| {
        stack.owner.put(&at(&vault, "secrets", "hot"), &json!({"value": format!("v{n}")})).await.expect(201);
    }))
    .await;
    assert_eq!(stack.count(gone).await, 6);
    let detail = stack.owner.get(&at(&vault, "secret-version", "hot/6")).await.refused(410);
    assert!(detail.contains("destroyed"), "{detail}");
    for version in 7..=9 {
        stack.owner.get(&at(&vault, "secret-version", &format!("hot/{version}"))).await.expect(200);
    }
    let versions = stack.owner.get(&at(&vault, "secret-versions", "hot")).await.expect(200);
    assert_eq!(versions["versions"][8]["state"], "destroyed");
    assert_eq!(versions["versions"].as_array().unwrap().len(), 9);
    let rows = stack.owner.get("/v1/audit/events?action=secret.destroy").await.expect(200);
    assert_eq!(rows["count"], 6);
    assert_eq!(rows["events"][0]["details"]["up_to_version"], 6);

    // Signing keys are not values: each is kept until what it signed is settled.
    for _ in 0..5 {
        let body = json!({"value": fresh_scalar(), "type": "private_key"});
        stack.owner.put(&at(&vault, "secrets", "keys/base-signer"), &body).await.expect(201);
    }
    assert_eq!(
        stack.count("SELECT count(*) FROM signing_keys WHERE state <> 'destroyed' AND blob IS NOT NULL").await,
        5
    );
}

#[tokio::test]
async fn a_random_value_is_made_here_and_given_to_nobody() {
    let stack = stack(1, &[]).await;
    let vault = vault(&stack).await;
    let (path, rotate) = (at(&vault, "secrets", "db/pw"), at(&vault, "secret-rotate", "db/pw"));
    stack.owner.post(&rotate, &json!({})).await.refused(404);
    let body = json!({
        "value": "old", "type": "password", "metadata": {"a": 1}, "rotation_policy": {"days": 30}, "max_access_count": 4,
    });
    stack.owner.put(&path, &body).await.expect(201);
    let mut seen = vec!["old".to_owned()];
    for (request, length, fits) in [
        (json!({}), 32, (|c: char| c.is_ascii_alphanumeric()) as fn(char) -> bool),
        (json!({"length": 64, "charset": "hex"}), 64, |c| c.is_ascii_digit() || ('a'..='f').contains(&c)),
        (json!({"length": 1024, "charset": "base64"}), 1024, |c| c.is_ascii_alphanumeric() || "+/".contains(c)),
        (json!({"length": 8, "charset": "ascii", "type": null}), 8, |c| c.is_ascii_graphic()),
    ] {
        let stored = stack.owner.post(&rotate, &request).await.expect(201);
        assert_eq!((&stored["type"], &stored["metadata"]), (&json!("password"), &json!({"a": 1})));
        assert!(stored.get("value").is_none());
        let read = stack.owner.get(&path).await.expect(200);
        let value = read["value"].as_str().unwrap().to_owned();
        assert!(value.len() == length && value.chars().all(fits), "{request}: {value}");
        assert!(!seen.contains(&value) && !stored.to_string().contains(&value));
        assert_eq!((&read["rotation_policy"], &read["version"]), (&json!({"days": 30}), &json!(seen.len() + 1)));
        seen.push(value);
    }
    // Its limits go on: four reads, of which this version has had one.
    for status in [200, 200, 200, 410] {
        assert_eq!(stack.owner.get(&path).await.status, status);
    }
    for wrong in [
        json!({"length": 7}),
        json!({"length": 1025}),
        json!({"length": -1}),
        json!({"length": 16.5}),
        json!({"charset": "utf8"}),
        json!({"type": "admin"}),
        json!({"type": "private_key"}),
        json!({"type": "ssh_key"}),
        json!({"expires_at": "soon"}),
    ] {
        stack.owner.post(&rotate, &wrong).await.refused(400);
    }
    // A key is not a random text, and what has ended does not begin again unsaid.
    let key = json!({"value": fresh_scalar(), "type": "private_key"});
    stack.owner.put(&at(&vault, "secrets", "keys/base-signer"), &key).await.expect(201);
    stack
        .owner
        .post(&at(&vault, "secret-rotate", "keys/base-signer"), &json!({"charset": "hex", "length": 64}))
        .await
        .refused(400);
    stack.owner.put(&path, &json!({"value": "v", "expires_at": "2020-01-01T00:00:00Z"})).await.expect(201);
    stack.owner.post(&rotate, &json!({})).await.refused(400);
    stack.owner.post(&rotate, &json!({"expires_at": "2100-01-01T00:00:00Z"})).await.expect(201);
    assert_eq!(stack.owner.get(&path).await.expect(200)["expires_at"], "2100-01-01T00:00:00Z");
    stack.owner.delete(&path).await.expect(204);
    stack.owner.post(&rotate, &json!({})).await.refused(410);

    // Many at once: each is a version.
    stack.owner.put(&path, &json!({"value": "v"})).await.expect(201);
    let request = json!({});
    let replies = join_all((0..6).map(|_| stack.owner.post(&rotate, &request))).await;
    let mut versions: Vec<i64> =
        replies.into_iter().map(|reply| reply.expect(201)["version"].as_i64().unwrap()).collect();
    versions.sort_unstable();
    assert!(versions.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{versions:?}");
}
