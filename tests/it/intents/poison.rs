//! Requests that are wrong in every way there is: none takes a nonce, and none is in the way of the next good one.

use reqwest::Method;
use serde_json::{Value, json};

use super::refusals::{assert_clear, assert_untouched, with};
use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Agent, Stack, TO, pay, text};

const MEGABYTE: usize = 1024 * 1024;

async fn send_raw(agent: &Agent, content_type: Option<&str>, body: impl Into<reqwest::Body>) -> Reply {
    let request = agent.client.request(Method::POST, &agent.path()).body(body);
    Client::send(match content_type {
        Some(kind) => request.header("Content-Type", kind),
        None => request,
    })
    .await
}

#[tokio::test]
async fn threat_42_every_field_with_every_wrong_type_takes_no_nonce() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let huge = "9".repeat(4 * MEGABYTE);
    let wrong: Vec<Value> = vec![
        json!(true),
        json!(7),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!("x"),
        json!(" "),
        json!("\u{0}"),
        json!("０.1"),
        json!([]),
        json!({}),
        json!([1]),
        json!(["0.1"]),
        json!({"value": "0.1"}),
        json!(huge),
    ];
    // A value that the field does take, or reads as absent, is no wrong type.
    let fits = |field: &str, value: &Value| match field {
        "nonce" | "gas_limit" => value.as_u64().is_some_and(|n| n < 10),
        "simulate_first" => value.is_boolean(),
        "mode" => *value == json!([]) || *value == json!({}),
        _ => false,
    };
    for field in [
        "to",
        "value",
        "chain",
        "data",
        "signing_key_path",
        "nonce",
        "gas_limit",
        "gas_price",
        "max_fee_per_gas",
        "max_priority_fee_per_gas",
        "simulate_first",
        "mode",
    ] {
        for value in &wrong {
            if fits(field, value) {
                continue;
            }
            let reply = agent.submit(with(json!({field: value}))).await;
            let shown: String = value.to_string().chars().take(40).collect();
            let case = format!("{field} = {shown}");
            assert_clear(&reply, &case);
            let detail = text(&reply.body, "detail");
            assert!(
                detail.contains(field) || detail.contains("signing key"),
                "{case}: the field is not named: {detail}"
            );
        }
    }
    assert_untouched(&stack, &agent, 0).await;
}

#[tokio::test]
async fn threat_42_every_field_at_its_limit_and_one_beyond() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let sixty = format!("{}.1", "0".repeat(58));
    let path = |length: usize| format!("keys/{}", "a".repeat(length - 5));
    // field, at the limit (what it is answered), one beyond (always 400)
    let cases = [
        ("value", json!(sixty), None, json!(format!("0{sixty}"))),
        ("value", json!("0.000000000000000001"), None, json!("0.0000000000000000001")),
        (
            "value",
            json!("115792089237316195423570985008687907853269984665640564039457"),
            Some(422),
            json!("115792089237316195423570985008687907853269984665640564039458"),
        ),
        (
            "data",
            json!(format!("0x{}", "00".repeat(128 * 1024))),
            Some(422),
            json!(format!("0x{}", "00".repeat(128 * 1024 + 1))),
        ),
        ("data", json!("0x00"), None, json!("0x0")),
        ("signing_key_path", json!(path(512)), Some(422), json!(path(513))),
        ("nonce", json!(i64::MAX), Some(422), json!(1u64 << 63)),
        ("gas_limit", json!(21_000), None, json!(0)),
        ("gas_limit", json!(i64::MAX), Some(422), json!(1u64 << 63)),
        ("gas_price", json!(u128::MAX.to_string()), Some(403), json!("340282366920938463463374607431768211456")),
        ("max_fee_per_gas", json!(u128::MAX.to_string()), Some(403), json!("340282366920938463463374607431768211456")),
        ("to", json!(TO), None, json!(format!("{TO}0"))),
        ("chain", json!("8453"), None, json!("08453")),
    ];
    let mut signed = 0;
    for (field, at_limit, refused, beyond) in cases {
        let shown: String = at_limit.to_string().chars().take(40).collect();
        let reply = agent.submit(with(json!({field: at_limit}))).await;
        match refused {
            None => {
                assert_eq!(reply.status, 201, "{field} = {shown}: {}", reply.body);
                signed += 1;
            }
            Some(status) => {
                assert_clear(&reply, &format!("{field} = {shown}"));
                assert_eq!(reply.status, status, "{field} = {shown}: {}", reply.body);
            }
        }
        let reply = agent.submit(with(json!({field: beyond}))).await;
        assert_clear(&reply, &format!("beyond {field} = {shown}"));
        assert_eq!(reply.status, 400, "beyond {field} = {shown}: {}", reply.body);
    }
    for (length, status) in [(255, 201), (256, 400), (0, 400)] {
        let reply = agent.submit_with_key(&"k".repeat(length), pay("0.001")).await;
        assert_eq!(reply.status, status, "Idempotency-Key of {length}: {}", reply.body);
        signed += u64::from(status == 201);
    }
    assert_untouched(&stack, &agent, signed).await;
}

#[tokio::test]
async fn threat_42_bodies_that_are_no_request_take_no_nonce() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let json = Some("application/json");
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_objects = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let good = pay("0.001").to_string();
    let cases: Vec<(&str, Option<&str>, Vec<u8>)> = vec![
        ("depth 10,000", json, deep.clone().into_bytes()),
        ("depth 10,000 of objects", json, deep_objects.into_bytes()),
        ("depth 10,000 in a field", json, format!("{}, \"memo2\": {deep}}}", &good[..good.len() - 1]).into_bytes()),
        ("empty", json, Vec::new()),
        ("empty, no type", None, Vec::new()),
        ("white space", json, b" \n ".to_vec()),
        ("not JSON", json, b"to=0x00&value=1".to_vec()),
        ("half of it", json, good.as_bytes()[..good.len() / 2].to_vec()),
        ("two of it", json, format!("{good}{good}").into_bytes()),
        ("not UTF-8", json, b"{\"chain\": \"\xff\xfe\"}".to_vec()),
        ("an array", json, format!("[{good}]").into_bytes()),
        ("a string", json, b"\"0.1\"".to_vec()),
        ("null", json, b"null".to_vec()),
        ("a number", json, b"7".to_vec()),
        ("NUL bytes", json, vec![0; 100]),
        ("a number beyond any", json, good.replace("\"0.001\"", "1e999999").into_bytes()),
        ("a field twice", json, good.replacen('{', "{\"value\": \"0.0001\", ", 1).into_bytes()),
        ("a chain twice", json, good.replacen('{', "{\"chain\": \"base\", ", 1).into_bytes()),
    ];
    for (case, content_type, body) in cases {
        let reply = send_raw(&agent, content_type, body).await;
        assert_clear(&reply, case);
        assert_eq!(reply.status, 400, "{case}: {}", reply.body);
    }
    for megabytes in [6, 10] {
        let large = format!("{{\"pad\": \"{}\"}}", "x".repeat(megabytes * MEGABYTE));
        let reply = send_raw(&agent, json, large).await;
        assert_clear(&reply, "a large body");
        assert_eq!(reply.status, 413, "{megabytes} MB: {}", reply.body);
    }
    // Clients differ in the type they send, not in what they mean.
    for (nonce, content_type) in
        [None, Some("text/plain"), Some("application/json; charset=utf-8")].into_iter().enumerate()
    {
        let reply = send_raw(&agent, content_type, good.clone()).await;
        assert_eq!(reply.expect(201)["nonce"], nonce, "{content_type:?}");
    }
    assert_untouched(&stack, &agent, 3).await;
}

#[tokio::test]
async fn threat_42_missing_fields_and_unknown_chains_are_named() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    for field in ["to", "value", "chain"] {
        for absent in [None, Some(Value::Null)] {
            let mut body = pay("0.001");
            match absent {
                None => drop(body.as_object_mut().unwrap().remove(field)),
                Some(null) => body[field] = null,
            }
            let detail = agent.submit(body).await.refused(400);
            assert!(detail.starts_with(&format!("{field}: is missing")), "{detail}");
        }
    }
    for chain in ["solana", "1", "0", "-8453", "BASE", "base ", "0x2105", "8453.0", "18446744073709551616"] {
        let detail = agent.submit(with(json!({"chain": chain}))).await.refused(400);
        assert!(detail.contains("is not a chain of this daemon"), "{chain}: {detail}");
    }
    assert_untouched(&stack, &agent, 0).await;
}
