use futures::future::join_all;
use serde_json::{Value, json};

use super::{NEW_PASSWORD, PASSWORD, app_code, holds, letter, log_in, nobody, second_factor, seen, sign_up, stack};
use crate::harness::client::Reply;
use crate::harness::stack::{Stack, text};

/// A login up to its second factor.
async fn challenge(stack: &Stack) -> String {
    let body = log_in(&nobody(stack), "ada@example.com", PASSWORD).await.expect(200);
    assert_eq!((&body["mfa_required"], body.get("access_token")), (&json!(true), None), "{body}");
    assert_eq!(body["expires_in"], 300);
    text(&body, "mfa_token")
}

async fn verify(stack: &Stack, daemon: usize, token: &str, code: &str) -> Reply {
    let at = nobody(stack).at(&stack.daemons[daemon].url);
    at.post("/v1/auth/mfa/verify", &json!({"mfa_token": token, "code": code})).await
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_turned_off_by_who_has_it() {
    let stack = stack(1).await;
    let ada = sign_up(&stack, "ada@example.com").await;
    assert_eq!(ada.get("/v1/auth/mfa/status").await.expect(200)["enabled"], false);
    ada.post("/v1/auth/mfa/verify-setup", &json!({"code": "123456"})).await.refused(409);
    ada.delete_with("/v1/auth/mfa", &json!({"code": "123456"})).await.refused(409);
    // A secret that no app has shown to have is not asked for.
    ada.post("/v1/auth/mfa/setup", &json!({})).await.expect(200);
    ada.post("/v1/auth/mfa/verify-setup", &json!({"code": "12345x"})).await.refused(403);
    assert!(log_in(&ada, "ada@example.com", PASSWORD).await.expect(200)["access_token"].is_string());

    let (secret, recovery) = second_factor(&stack, &ada).await;
    assert_eq!(recovery.len(), 10);
    letter(&stack, "ada@example.com", "authentication is on", 1).await;
    ada.post("/v1/auth/mfa/setup", &json!({})).await.refused(409);
    let status = ada.get("/v1/auth/mfa/status").await.expect(200);
    assert_eq!((&status["enabled"], &status["recovery_codes_left"]), (&json!(true), &json!(10)));
    assert_eq!(ada.get("/v1/auth/me").await.expect(200)["totp_enabled"], true);

    // The token between is good for nothing else, and a token is none.
    let token = challenge(&stack).await;
    assert!(!holds(&stack.owner.by(Some(&token)), &stack.owner.base).await);
    let mut wrong = Vec::new();
    for (token, code) in [
        (token.as_str(), "000000"),
        (&token, "no code"),
        (ada.bearer.as_deref().unwrap(), &app_code(&secret, 0)),
        ("", &app_code(&secret, 0)),
        (&token, "aaaa-aaaa-aaaa-aaaa"),
    ] {
        let reply = verify(&stack, 0, token, code).await;
        assert_eq!(reply.status, 401);
        wrong.push(seen(&reply));
    }
    wrong.dedup();
    assert_eq!(wrong.len(), 1, "{wrong:#?}");
    // A right code after wrong ones; and neither it nor the token again.
    let code = app_code(&secret, 0);
    let body = verify(&stack, 0, &token, &code).await.expect(200);
    assert!(holds(&stack.owner.by(body["access_token"].as_str()), &stack.owner.base).await);
    verify(&stack, 0, &token, &app_code(&secret, 1)).await.refused(401);
    verify(&stack, 0, &challenge(&stack).await, &code).await.refused(401);

    // A recovery code, in any spelling, once.
    let spelled = recovery[0].to_uppercase().replace('-', " ");
    verify(&stack, 0, &challenge(&stack).await, &spelled).await.expect(200);
    verify(&stack, 0, &challenge(&stack).await, &recovery[0]).await.refused(401);
    letter(&stack, "ada@example.com", "recovery code was used", 1).await;
    assert_eq!(ada.get("/v1/auth/mfa/status").await.expect(200)["recovery_codes_left"], 9);

    // Five minutes later, or after a new password, the token between is nothing.
    let late = challenge(&stack).await;
    stack.sql("UPDATE login_challenges SET expires_at = now(); UPDATE second_factors SET last_step = 0").await;
    verify(&stack, 0, &late, &app_code(&secret, 0)).await.refused(401);
    let old = challenge(&stack).await;
    let change = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    let change_back = json!({"current_password": NEW_PASSWORD, "new_password": PASSWORD});
    ada.post("/v1/auth/change-password", &change).await.expect(204);
    verify(&stack, 0, &old, &app_code(&secret, 0)).await.refused(401);
    let body = log_in(&ada, "ada@example.com", NEW_PASSWORD).await.expect(200);
    let body = verify(&stack, 0, &text(&body, "mfa_token"), &app_code(&secret, 0)).await.expect(200);
    let ada = stack.owner.by(body["access_token"].as_str());

    // Off: with a code or the password, and not without.
    for wrong in [json!({}), json!({"code": null})] {
        ada.delete_with("/v1/auth/mfa", &wrong).await.refused(400);
    }
    for wrong in [json!({"code": "000000"}), json!({"password": "Wrong-Password-1"}), json!({"code": recovery[0]})] {
        ada.delete_with("/v1/auth/mfa", &wrong).await.refused(403);
    }
    assert_eq!(ada.delete_with("/v1/auth/mfa", &json!({"code": recovery[1]})).await.expect(204), Value::Null);
    letter(&stack, "ada@example.com", "authentication is off", 1).await;
    assert!(log_in(&ada, "ada@example.com", NEW_PASSWORD).await.expect(200)["access_token"].is_string());
    assert_eq!(stack.count("SELECT count(*) FROM recovery_codes").await, 0);
    second_factor(&stack, &ada).await;
    ada.delete_with("/v1/auth/mfa", &json!({"password": NEW_PASSWORD})).await.expect(204);
    ada.post("/v1/auth/change-password", &change_back).await.expect(204);
}

#[tokio::test]
async fn threat_26_a_code_passes_once_on_any_number_of_daemons_and_guesses_are_limited() {
    let stack = stack(2).await;
    let ada = sign_up(&stack, "ada@example.com").await;
    let (secret, recovery) = second_factor(&stack, &ada).await;
    let mut tokens = Vec::new();
    for _ in 0..10 {
        tokens.push(challenge(&stack).await);
    }
    // One code, ten logins, fifty attempts, two daemons.
    let stack_ref = &stack;
    let storm = async |code: &str| {
        let attempts = (0..50).map(|n| verify(stack_ref, n % 2, &tokens[n % 10], code));
        let replies = join_all(attempts).await;
        let count = |status: u16| replies.iter().filter(|reply| reply.status == status).count();
        assert_eq!(count(200) + count(401) + count(429), 50, "{replies:?}");
        count(200)
    };
    assert_eq!(storm(&app_code(&secret, 0)).await, 1, "a code of the app");
    stack.sql("DELETE FROM throttles").await;
    assert_eq!(storm(&recovery[0]).await, 1, "a recovery code");
    assert_eq!(stack.count("SELECT count(*) FROM recovery_codes").await, 9);

    // Five attempts in five minutes, whichever daemon is asked and whichever login goes on.
    stack.sql("DELETE FROM throttles; UPDATE second_factors SET last_step = 0").await;
    for n in 0..5 {
        verify(&stack, n % 2, &challenge(&stack).await, "000000").await.refused(401);
    }
    for n in 0..2 {
        let reply = verify(&stack, n, &challenge(&stack).await, &app_code(&secret, 0)).await;
        assert!(reply.headers.contains_key("retry-after"));
        reply.refused(429);
        ada.at(&stack.daemons[n].url).delete_with("/v1/auth/mfa", &json!({"code": recovery[1]})).await.refused(429);
    }
    // The secret is in the database sealed only: another human's row does not open it.
    sign_up(&stack, "eve@example.com").await;
    stack.sql("DELETE FROM throttles").await;
    let moved = "INSERT INTO second_factors SELECT (SELECT id FROM users WHERE email = 'eve@example.com'), (SELECT org_id FROM users WHERE email = 'eve@example.com'),
                 kek_id, dek_iv, dek_sealed, nonce, ciphertext, 0, now(), now() FROM second_factors";
    stack.sql(moved).await;
    let eve = log_in(&ada, "eve@example.com", PASSWORD).await.expect(200);
    assert_eq!(verify(&stack, 0, &text(&eve, "mfa_token"), &app_code(&secret, 0)).await.status, 500);
}
