use futures::future::join_all;
use serde_json::json;

use super::{NEW_PASSWORD, PASSWORD, code, holds, letter, log_in, nobody, sign_up, stack};
use crate::harness::stack::{Stack, text};

async fn link(stack: &Stack, email: &str, n: usize) -> String {
    nobody(stack).post("/v1/auth/forgot-password", &json!({"email": email})).await.expect(200);
    code(&letter(stack, email, "Choose a new password", n).await)
}

#[tokio::test]
async fn threat_26_a_link_to_a_new_password_works_once_and_ends_every_login_everywhere() {
    let stack = stack(2).await;
    let elsewhere = stack.daemons[1].url.clone();
    let ada = sign_up(&stack, "ada@example.com").await;
    let key = ada.post("/v1/auth/api-keys", &json!({"name": "k"})).await.expect(201);
    let by_key = stack.owner.by(Some(&text(&key, "api_key")));
    let other = sign_up(&stack, "other@example.com").await;
    assert!(holds(&ada, &elsewhere).await);

    let replaced = link(&stack, "ada@example.com", 1).await;
    let live = link(&stack, "ada@example.com", 2).await;
    let reset = async |at: &str, token: &str, password: &str| {
        let body = json!({"token": token, "new_password": password});
        nobody(&stack).at(at).post("/v1/auth/reset-password", &body).await
    };
    reset(&elsewhere, &replaced, NEW_PASSWORD).await.refused(400);
    let told = reset(&elsewhere, &live, "too-weak").await.refused(400);
    assert!(told.starts_with("new_password must"), "{told}");
    assert!(holds(&ada, &elsewhere).await, "a refused reset ends nothing");

    // The link at once on two daemons, each time with another password: one wins.
    let passwords: Vec<String> = (0..20).map(|n| format!("Staple+Battery-{n:02}x")).collect();
    let attempts = passwords.iter().enumerate().map(|(n, password)| {
        let at = &stack.daemons[n % 2].url;
        let reset = &reset;
        let live = &live;
        async move { reset(at, live, password).await }
    });
    let replies = join_all(attempts).await;
    let won: Vec<&String> = passwords.iter().zip(&replies).filter(|(_, r)| r.status == 200).map(|(p, _)| p).collect();
    assert_eq!(won.len(), 1, "{replies:?}");
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        // Refused, or turned away because too many passwords were being hashed.
        assert!([400, 503].contains(&reply.status.as_u16()), "{reply:?}");
    }
    let account = "SELECT auth_epoch::bigint FROM users WHERE email = 'ada@example.com'";
    assert_eq!(stack.count(account).await, 1, "changed once");
    for at in [&stack.owner.base, &elsewhere] {
        assert!(!holds(&ada, at).await, "the login of before");
        assert!(holds(&by_key, at).await, "API keys are not ended by a new password");
        assert!(holds(&other, at).await, "nor is anybody else");
    }
    log_in(&ada, "ada@example.com", PASSWORD).await.refused(401);
    let ada = log_in(&ada, "ada@example.com", won[0]).await.expect(200);
    let ada = stack.owner.by(Some(&text(&ada, "access_token")));
    letter(&stack, "ada@example.com", "password was changed", 1).await;

    // Changing it with the current one does the same.
    let change = async |current: &str, new: &str| {
        ada.post("/v1/auth/change-password", &json!({"current_password": current, "new_password": new})).await
    };
    change(won[0], "weak").await.refused(400);
    change(won[0], won[0]).await.refused(400);
    change("Wrong-Password-1", NEW_PASSWORD).await.refused(403);
    assert!(holds(&ada, &elsewhere).await);
    change(won[0], NEW_PASSWORD).await.expect(204);
    assert!(!holds(&ada, &elsewhere).await && holds(&by_key, &elsewhere).await);
    log_in(&ada, "ada@example.com", NEW_PASSWORD).await.expect(200);

    // An hour later the link is nothing.
    stack.sql("DELETE FROM throttles").await;
    let late = link(&stack, "ada@example.com", 3).await;
    stack.sql("UPDATE password_resets SET expires_at = now()").await;
    reset(&elsewhere, &late, "Another-Pass-55").await.refused(400);
    // A link goes with the next change of the password.
    let older = link(&stack, "ada@example.com", 4).await;
    let body = json!({"current_password": NEW_PASSWORD, "new_password": PASSWORD});
    by_key.post("/v1/auth/change-password", &body).await.expect(204);
    reset(&elsewhere, &older, "Another-Pass-55").await.refused(400);
}

#[tokio::test]
async fn threat_26_guesses_are_limited_by_address_across_daemons() {
    let stack = stack(2).await;
    let ada = sign_up(&stack, "ada@example.com").await;
    sign_up(&stack, "bob@example.com").await;
    let at = |n: usize| ada.at(&stack.daemons[n % 2].url);
    for email in ["ada@example.com", "nobody@example.com"] {
        for n in 0..10 {
            log_in(&at(n), email, "Wrong-Password-1").await.refused(401);
        }
        for n in 0..2 {
            let reply = log_in(&at(n), &email.to_uppercase(), PASSWORD).await;
            assert!(reply.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 600);
            reply.refused(429);
        }
    }
    // Somebody else is not locked out, and the right password forgets the wrong ones.
    for _ in 0..2 {
        for n in 0..9 {
            log_in(&at(n), "bob@example.com", "Wrong-Password-1").await.refused(401);
        }
        log_in(&at(0), "bob@example.com", PASSWORD).await.expect(200);
    }
    // Whoever was locked out by others comes in again by a letter.
    let link = link(&stack, "ada@example.com", 1).await;
    let body = json!({"token": link, "new_password": NEW_PASSWORD});
    nobody(&stack).post("/v1/auth/reset-password", &body).await.expect(200);
    log_in(&at(1), "ada@example.com", NEW_PASSWORD).await.expect(200);
    // Letters are limited alike, whether there is somebody to read them or not. One was sent for each sign-up and reset above.
    for (email, left) in [("ada@example.com", 1), ("nobody@example.com", 3)] {
        for n in 0..left {
            at(n).by(None).post("/v1/auth/forgot-password", &json!({"email": email})).await.expect(200);
        }
        for (n, path) in ["/v1/auth/forgot-password", "/v1/auth/signup"].into_iter().enumerate() {
            at(n).by(None).post(path, &json!({"email": email, "password": PASSWORD})).await.refused(429);
        }
    }
}

#[tokio::test]
async fn threat_26_a_forgotten_password_is_answered_before_anything_is_done_for_the_account() {
    let stack = stack(1).await;
    sign_up(&stack, "ada@example.com").await;
    // Whoever has an account would wait here.
    let mut held = stack.db.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM users WHERE email = 'ada@example.com' FOR UPDATE").execute(&mut *held).await.unwrap();
    let ask = |email: &str| {
        let body = json!({ "email": email });
        let client = nobody(&stack);
        async move { client.post("/v1/auth/forgot-password", &body).await.expect(200) }
    };
    let known = tokio::time::timeout(std::time::Duration::from_secs(20), ask("ada@example.com")).await;
    assert_eq!(known.expect("the reply waits for the account"), ask("nobody@example.com").await);
    held.rollback().await.unwrap();
    letter(&stack, "ada@example.com", "Choose a new password", 1).await;
    assert!(stack.letters("nobody@example.com", "").is_empty());
}

#[tokio::test]
async fn a_password_is_hashed_again_when_the_parameters_are_of_the_past() {
    use argon2::PasswordHasher as _;
    let stack = stack(1).await;
    sign_up(&stack, "ada@example.com").await;
    let params = argon2::Params::new(8 * 1024, 1, 1, None).unwrap();
    let weak = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let weak: argon2::password_hash::phc::PasswordHash =
        weak.hash_password_with_salt(PASSWORD.as_bytes(), &[7; 16]).unwrap();
    stack.sql(&format!("UPDATE users SET password_hash = '{weak}' WHERE email = 'ada@example.com'")).await;
    let dated = "SELECT count(*) FROM users WHERE password_hash LIKE '%m=8192,%'";
    log_in(&nobody(&stack), "ada@example.com", "Wrong-Password-1").await.refused(401);
    assert_eq!(stack.count(dated).await, 1);
    log_in(&nobody(&stack), "ada@example.com", PASSWORD).await.expect(200);
    assert_eq!(stack.count(dated).await, 0);
    log_in(&nobody(&stack), "ada@example.com", PASSWORD).await.expect(200);
}
