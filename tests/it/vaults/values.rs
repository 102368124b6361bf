//! What goes in comes out, as often as it may.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::secrets::vault;
use super::{at, stack};
use crate::harness::client::Client;

const TYPES: [&str; 10] =
    ["generic", "api_key", "password", "private_key", "certificate", "file", "note", "ssh_key", "env_bundle", "env"];

#[tokio::test]
async fn every_type_and_every_text_comes_back_as_it_went_in() {
    let stack = stack(1, &[]).await;
    let vault = vault(&stack).await;
    let binary: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let values = [
        String::new(),
        "\0".to_owned(),
        "a\0b\0".to_owned(),
        "\r\n line\r\n\tand\u{b}\u{c}\u{1b}[0m\r".to_owned(),
        "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467} \u{202e}e\u{301} \u{feff}\u{ffff}\u{10ffff}".to_owned(),
        "\"\\/\u{8}\u{2028}</script>".to_owned(),
        "{\"value\": \"not me\"}".to_owned(),
        STANDARD.encode(&binary),
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n".to_owned(),
        "x".repeat(4 * 1024 * 1024),
        "\u{e9}".repeat(2 * 1024 * 1024),
    ];
    for (n, value) in values.iter().enumerate() {
        let kind = TYPES[n % TYPES.len()];
        let path = at(&vault, "secrets", &format!("values/v{n}"));
        let stored = stack.owner.put(&path, &json!({"value": value, "type": kind})).await.expect(201);
        assert!(stored.get("value").is_none(), "{kind}");
        let read = stack.owner.get(&path).await.expect(200);
        assert!(read["value"] == **value && read["type"] == kind, "value {n} of type {kind}");
    }
    for kind in TYPES {
        let path = at(&vault, "secrets", &format!("types/{}", kind.replace('_', "-")));
        stack.owner.put(&path, &json!({"value": kind, "type": kind})).await.expect(201);
        let read = stack.owner.get(&path).await.expect(200);
        assert_eq!((&read["value"], &read["type"]), (&json!(kind), &json!(kind)));
    }

    // JSON's own escapes: pairs are characters, halves of pairs are none.
    let path = at(&vault, "secrets", "escapes");
    let put = async |body: &str| {
        Client::send(stack.owner.request(Method::PUT, &path).body(body.to_owned())).await.status.as_u16()
    };
    assert_eq!(put(r#"{"value": "\ud83d\ude00\u0000"}"#).await, 201);
    assert_eq!(stack.owner.get(&path).await.expect(200)["value"], "\u{1F600}\0");
    for half in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\u0041""#, r#""\ude00\ud83d""#, r#""a\ud83d\ud83d""#] {
        assert_eq!(put(&format!("{{\"value\": {half}}}")).await, 400, "{half}");
        assert_eq!(put(&format!("{{\"value\": \"v\", \"metadata\": {{\"m\": {half}}}}}")).await, 400, "{half}");
    }
    for text in [&b"{\"value\": \"\xff\"}"[..], b"{\"value\": \"\xc0\xaf\"}", b"{\"value\": \"\xed\xa0\x80\"}"] {
        let request = stack.owner.request(Method::PUT, &path).body(text.to_vec());
        assert_eq!(Client::send(request).await.status, 400);
    }
    let beyond = json!({"value": "x".repeat(5 * 1024 * 1024)});
    stack.owner.put(&path, &beyond).await.refused(413);
    assert_eq!(stack.owner.get(&path).await.expect(200)["version"], 1);
}

#[tokio::test]
async fn what_comes_with_a_value_has_bounds_and_is_kept() {
    let stack = stack(1, &[]).await;
    let vault = vault(&stack).await;
    let path = at(&vault, "secrets", "a/b");
    let large = |bytes: usize| json!({"k": "x".repeat(bytes - r#"{"k":""}"#.len())});
    for (field, most) in [("metadata", 16 * 1024), ("rotation_policy", 4 * 1024)] {
        let mut body = json!({"value": "v"});
        body[field] = large(most);
        stack.owner.put(&path, &body).await.expect(201);
        body[field] = large(most + 1);
        let detail = stack.owner.put(&path, &body).await.refused(400);
        assert!(detail.contains(field), "{detail}");
    }
    // A policy for rotation is the client's: it comes back where the value does, and only when there is one.
    let policy = json!({"interval_days": 30, "notify": ["a@example.test"]});
    let body = json!({"value": "v", "metadata": {"a": {"b": [1, 2.5, null, true]}}, "rotation_policy": policy});
    let stored = stack.owner.put(&path, &body).await.expect(201);
    assert!(stored.get("rotation_policy").is_none(), "strict decoders: {stored}");
    let read = stack.owner.get(&path).await.expect(200);
    assert_eq!((&read["metadata"], &read["rotation_policy"]), (&body["metadata"], &policy));
    let listed = stack.owner.get(&format!("/v1/vaults/{vault}/secrets")).await.expect(200);
    assert!(listed["secrets"][0].get("rotation_policy").is_none(), "{listed}");
    stack.owner.put(&path, &json!({"value": "v"})).await.expect(201);
    let read = stack.owner.get(&path).await.expect(200);
    let fields: Vec<&String> = read.as_object().unwrap().keys().collect();
    let expected = ["created_at", "created_by", "id", "metadata", "path", "type", "value", "version"];
    assert_eq!(fields, expected, "what is not set is not there");
}

#[tokio::test]
async fn a_count_of_accesses_is_exact_over_daemons_and_versions() {
    let stack = stack(2, &[]).await;
    let vault = vault(&stack).await;
    let path = at(&vault, "secrets", "counted");
    let others = stack.owner.at(&stack.daemons[1].url);
    let limited = json!({"value": "one", "max_access_count": 5});
    stack.owner.put(&path, &limited).await.expect(201);
    let replies = join_all((0..50).map(|n| {
        let client = if n % 2 == 0 { &stack.owner } else { &others };
        client.get(&path)
    }))
    .await;
    let with = |status: u16| replies.iter().filter(|reply| reply.status.as_u16() == status).count();
    assert_eq!((with(200), with(410)), (5, 45));
    // What was given out is what was written down.
    let reads = "SELECT count(*) FROM audit_events WHERE action = 'secret.read'";
    assert_eq!(stack.count(reads).await, 5);
    stack.owner.get(&path).await.refused(410);

    // A new version has a limit of its own, and gives none back to the one before.
    stack.owner.put(&path, &json!({"value": "two", "max_access_count": 2})).await.expect(201);
    let first = at(&vault, "secret-version", "counted/1");
    stack.owner.get(&first).await.refused(410);
    assert_eq!(stack.owner.get(&path).await.expect(200)["value"], "two");
    assert_eq!(stack.owner.get(&at(&vault, "secret-version", "counted/2")).await.expect(200)["value"], "two");
    stack.owner.get(&path).await.refused(410);
    // So it is with an end.
    stack.owner.put(&path, &json!({"value": "three", "expires_at": "2020-01-01T00:00:00Z"})).await.expect(201);
    stack.owner.get(&path).await.refused(410);
    stack.owner.put(&path, &json!({"value": "four"})).await.expect(201);
    stack.owner.get(&at(&vault, "secret-version", "counted/3")).await.refused(410);
    assert_eq!(stack.owner.get(&path).await.expect(200)["value"], "four");

    // A value that does not open counts as nothing: no access, no row.
    stack.owner.put(&path, &json!({"value": "five", "max_access_count": 1})).await.expect(201);
    let flip = "UPDATE secret_versions SET nonce = set_byte(nonce, 0, get_byte(nonce, 0) # 1) WHERE version = 5";
    let before = stack.count(reads).await;
    stack.sql(flip).await;
    stack.owner.get(&path).await.refused(500);
    assert_eq!(stack.count(reads).await, before);
    stack.sql(flip).await;
    assert_eq!(stack.owner.get(&path).await.expect(200)["value"], "five");
    assert_eq!(stack.owner.get(&path).await.body["value"], Value::Null);
    // And what cannot be written down is not given out, nor counted.
    stack.owner.put(&path, &json!({"value": "six", "max_access_count": 1})).await.expect(201);
    stack
        .sql("ALTER TABLE audit_events_default ADD CONSTRAINT no_reads CHECK (action <> 'secret.read') NOT VALID")
        .await;
    let refused = stack.owner.get(&path).await;
    assert!(refused.status.is_server_error() && !refused.body.to_string().contains("six"), "{}", refused.body);
    stack.sql("ALTER TABLE audit_events_default DROP CONSTRAINT no_reads").await;
    assert_eq!(stack.owner.get(&path).await.expect(200)["value"], "six");
}
