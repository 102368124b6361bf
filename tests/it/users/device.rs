use futures::future::join_all;
use serde_json::{Value, json};

use super::{NEW_PASSWORD, PASSWORD, holds, nobody, sign_up, stack};
use crate::harness::client::Client;
use crate::harness::stack::{Stack, text};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

async fn begin(stack: &Stack, email: Option<&str>) -> Value {
    let body =
        nobody(stack).post("/v1/auth/device/code", &json!({"client_id": "cli", "email": email})).await.expect(200);
    assert_eq!((&body["expires_in"], &body["interval"]), (&json!(600), &json!(5)), "{body}");
    body
}

/// The program asks, as if it had waited.
async fn poll(stack: &Stack, daemon: usize, codes: &Value) -> (u16, Value) {
    stack.sql("UPDATE device_grants SET polled_at = NULL").await;
    poll_at_once(stack, daemon, codes).await
}

async fn poll_at_once(stack: &Stack, daemon: usize, codes: &Value) -> (u16, Value) {
    let body = json!({"device_code": codes["device_code"], "grant_type": GRANT});
    let reply = nobody(stack).at(&stack.daemons[daemon].url).post("/v1/auth/device/token", &body).await;
    if reply.status != 200 {
        assert!(reply.body["detail"].is_string() && reply.body["status"] == 400, "{}", reply.body);
    }
    (reply.status.as_u16(), reply.body)
}

#[track_caller]
fn refused((status, body): (u16, Value), error: &str) {
    assert_eq!((status, body["error"].as_str()), (400, Some(error)), "{body}");
}

async fn answer(human: &Client, codes: &Value, word: &str) -> u16 {
    human.post(&format!("/v1/auth/device/{word}"), &json!({"user_code": codes["user_code"]})).await.status.as_u16()
}

#[tokio::test]
async fn a_program_comes_in_with_a_humans_yes_and_once() {
    let stack = stack(2).await;
    let ada = sign_up(&stack, "ada@example.com").await;
    let eve = sign_up(&stack, "eve@example.com").await;
    let there = ada.at(&stack.daemons[1].url);
    let codes = begin(&stack, Some("Ada@example.com")).await;
    let page = text(&codes, "verification_uri");
    assert_eq!(page, format!("{}/device", stack.daemons[0].url));
    assert_eq!(nobody(&stack).get("/device").await.status, 200);

    refused(poll(&stack, 0, &codes).await, "authorization_pending");
    refused(poll_at_once(&stack, 1, &codes).await, "slow_down");
    let (_, slower) = poll_at_once(&stack, 1, &codes).await;
    assert_eq!((&slower["error"], &slower["interval"]), (&json!("slow_down"), &json!(15)));

    // It is for Ada: nobody else sees it, or says yes or no to it.
    let status = format!("/v1/auth/device/code/{}", text(&codes, "user_code").to_lowercase());
    eve.get(&status).await.refused(404);
    assert_eq!((answer(&eve, &codes, "approve").await, answer(&eve, &codes, "deny").await), (404, 404));
    let seen = there.get(&status).await.expect(200);
    assert_eq!((&seen["status"], &seen["client_id"]), (&json!("pending"), &json!("cli")));
    assert_eq!(answer(&there, &codes, "approve").await, 200);
    assert_eq!(answer(&ada, &codes, "deny").await, 404, "the first answer counts");

    // Of twenty questions on two daemons one gets the token.
    stack.sql("UPDATE device_grants SET polled_at = NULL").await;
    let (stack_ref, codes_ref) = (&stack, &codes);
    let replies = join_all((0..20).map(|n| poll_at_once(stack_ref, n % 2, codes_ref))).await;
    let tokens: Vec<&Value> = replies.iter().filter(|(status, _)| *status == 200).map(|(_, body)| body).collect();
    assert_eq!(tokens.len(), 1, "{replies:?}");
    assert_eq!(super::member(tokens[0]), ["access_token", "expires_in", "token_type"].into());
    assert_eq!(tokens[0]["expires_in"], 86_400);
    refused(poll(&stack, 0, &codes).await, "expired_token");
    let device = stack.owner.by(tokens[0]["access_token"].as_str());
    assert_eq!(device.get("/v1/auth/me").await.expect(200)["email"], "ada@example.com");

    // It ends with the login's epoch: a new password.
    let change = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    ada.post("/v1/auth/change-password", &change).await.expect(204);
    assert!(!holds(&device, &stack.daemons[1].url).await);

    // No, too late, nonsense.
    let denied = begin(&stack, Some("eve@example.com")).await;
    assert_eq!(answer(&eve, &denied, "deny").await, 200);
    refused(poll(&stack, 1, &denied).await, "access_denied");
    let late = begin(&stack, None).await;
    stack.sql("UPDATE device_grants SET expires_at = now()").await;
    assert_eq!(answer(&eve, &late, "approve").await, 404);
    refused(poll(&stack, 0, &late).await, "expired_token");
    refused(poll(&stack, 0, &json!({"device_code": "nonsense"})).await, "expired_token");
    let nobody = nobody(&stack);
    let body = nobody.post("/v1/auth/device/token", &json!({"device_code": "x", "grant_type": "password"})).await;
    refused((body.status.as_u16(), body.body), "unsupported_grant_type");
    nobody.post("/v1/auth/device/code", &json!({"email": "ada@example.com"})).await.refused(400);
    assert_eq!(stack.count("SELECT count(*) FROM device_grants WHERE octet_length(device_hash) <> 32").await, 0);
}

#[tokio::test]
async fn a_yes_rests_on_what_it_was_said_with_and_guesses_are_limited() {
    let stack = stack(2).await;
    let ada = sign_up(&stack, "ada@example.com").await;
    let key = ada.post("/v1/auth/api-keys", &json!({"name": "k"})).await.expect(201);
    let by_key = stack.owner.by(Some(&text(&key, "api_key")));
    let limited = ada.post("/v1/auth/api-keys", &json!({"name": "l", "scopes": ["a/*"]})).await.expect(201);
    let limited = stack.owner.by(Some(&text(&limited, "api_key")));
    let revoke = format!("/v1/auth/api-keys/{}", text(&key["key"], "id"));

    let (codes, waiting) = (begin(&stack, None).await, begin(&stack, None).await);
    assert_eq!(answer(&limited, &codes, "approve").await, 403);
    assert_eq!((answer(&by_key, &codes, "approve").await, answer(&by_key, &waiting, "approve").await), (200, 200));
    let (status, body) = poll(&stack, 0, &codes).await;
    assert_eq!(status, 200, "{body}");
    let device = stack.owner.by(body["access_token"].as_str());
    assert!(holds(&device, &stack.daemons[1].url).await);
    ada.delete(&revoke).await.expect(204);
    assert!(!holds(&device, &stack.daemons[1].url).await, "a device's token ends with the key it rests on");
    refused(poll(&stack, 1, &waiting).await, "access_denied");

    // Ten codes in ten minutes, right or wrong, for one human, whichever daemon is asked.
    stack.sql("DELETE FROM throttles").await;
    let codes = begin(&stack, None).await;
    for n in 0..10 {
        let at = ada.at(&stack.daemons[n % 2].url);
        let path = if n % 3 == 0 { "/v1/auth/device/deny" } else { "/v1/auth/device/approve" };
        at.post(path, &json!({"user_code": "BBBB-BBBB"})).await.refused(404);
    }
    for daemon in &stack.daemons {
        assert_eq!(answer(&ada.at(&daemon.url), &codes, "approve").await, 429);
    }
    // And so many codes for one address.
    for _ in 0..3 {
        begin(&stack, Some("ada@example.com")).await;
    }
    let body = json!({"client_id": "cli", "email": "ada@example.com"});
    nobody(&stack).post("/v1/auth/device/code", &body).await.refused(429);
}
