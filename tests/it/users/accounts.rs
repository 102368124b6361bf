use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{PASSWORD, code, holds, letter, log_in, member, nobody, seen, sign_up, stack};
use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack, text};

#[tokio::test]
async fn an_account_begins_with_its_letter_and_no_sooner() {
    let stack = stack(1).await;
    let nobody = nobody(&stack);
    let wanted = json!({"email": " Ada@Example.COM ", "password": PASSWORD, "display_name": null});
    let body = nobody.post("/v1/auth/signup", &wanted).await.expect(200);
    assert_eq!(
        (member(&body), body["email"].as_str()),
        (BTreeSet::from(["email", "message"]), Some("ada@example.com"))
    );
    assert_eq!(
        stack.count("SELECT count(*) FROM users WHERE email LIKE 'ada%'").await,
        0,
        "an account before the letter"
    );
    log_in(&nobody, "ada@example.com", PASSWORD).await.refused(401);

    // Somebody else's sign-up with the same address and another password takes nothing from mine.
    let theirs = json!({"email": "ada@example.com", "password": "Somebody-Elses-4"});
    nobody.post("/v1/auth/signup", &theirs).await.expect(200);
    letter(&stack, "ada@example.com", "Confirm", 2).await;
    let letters = stack.letters("ada@example.com", "Confirm");
    let (mine, other) = (code(&letters[0]), code(&letters[1]));
    for wrong in [json!({"token": format!("{}x", &mine[1..])}), json!({"token": ""}), json!({"token": "é"}), json!({})]
    {
        nobody.post("/v1/auth/verify-email", &wrong).await.refused(400);
    }
    let body = nobody.post("/v1/auth/verify-email", &json!({"token": mine})).await.expect(200);
    assert_eq!(member(&body), BTreeSet::from(["access_token", "expires_in", "token_type"]));
    for spent in [&mine, &other] {
        nobody.post("/v1/auth/verify-email", &json!({"token": spent})).await.refused(400);
    }
    log_in(&nobody, "ada@example.com", "Somebody-Elses-4").await.refused(401);

    let ada = stack.owner.by(Some(&text(&body, "access_token")));
    let me = ada.get("/v1/auth/me").await.expect(200);
    assert_eq!(me["email"], "ada@example.com");
    let shown =
        ["role", "email_verified", "totp_enabled", "marketing_emails", "auth_method"].map(|name| me[name].clone());
    assert_eq!(shown, [json!("owner"), json!(true), json!(false), json!(false), json!("password")]);
    let changed = ada
        .patch("/v1/auth/me", &json!({"display_name": "Ada L.", "marketing_emails": true, "role": "x"}))
        .await
        .expect(200);
    assert_eq!((&changed["display_name"], &changed["marketing_emails"]), (&json!("Ada L."), &json!(true)));
    let same = ada.patch("/v1/auth/me", &json!({"display_name": null, "marketing_emails": null})).await.expect(200);
    assert_eq!(same["display_name"], "Ada L.");
    assert!(ada.patch("/v1/auth/me", &json!({"display_name": ""})).await.expect(200).get("display_name").is_none());

    // She owns an organisation of her own, and sees nothing of others.
    ada.post("/v1/agents", &json!({"name": "mine"})).await.expect(201);
    let members = ada.get("/v1/org/members").await.expect(200);
    assert_eq!(members["members"].as_array().unwrap().len(), 1);
    // Her token is a token like any other.
    let second = log_in(&nobody, "ADA@example.com", PASSWORD).await.expect(200);
    assert_eq!(member(&second), BTreeSet::from(["access_token", "expires_in", "token_type"]));
    let second = stack.owner.by(Some(&text(&second, "access_token")));
    assert_eq!(second.delete("/v1/auth/token").await.expect(204), Value::Null);
    assert!(!holds(&second, &stack.owner.base).await && holds(&ada, &stack.owner.base).await);
    nobody.post("/v1/auth/google", &json!({"id_token": "x"})).await.refused(501);

    // What comes too late is not taken.
    nobody.post("/v1/auth/signup", &json!({"email": "late@example.com", "password": PASSWORD})).await.expect(200);
    let late = code(&letter(&stack, "late@example.com", "Confirm", 1).await);
    stack.sql("UPDATE signups SET expires_at = now()").await;
    nobody.post("/v1/auth/verify-email", &json!({"token": late})).await.refused(400);
}

#[tokio::test]
async fn sign_up_is_off_unless_it_is_switched_on_and_says_so() {
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    let nobody = nobody(&stack);
    let told =
        nobody.post("/v1/auth/signup", &json!({"email": "a@example.com", "password": PASSWORD})).await.refused(403);
    assert!(told.contains("signup.enabled"), "{told}");
    nobody.post("/v1/auth/verify-email", &json!({"token": "x"})).await.refused(403);
    assert_eq!(stack.count("SELECT count(*) FROM mail_outbox").await, 0);
}

#[tokio::test]
async fn threat_26_no_reply_tells_whether_an_address_has_an_account() {
    let stack = stack(1).await;
    let nobody = nobody(&stack);
    let ada = sign_up(&stack, "ada@example.com").await;
    sign_up(&stack, "gone@example.com")
        .await
        .delete_with("/v1/auth/me", &json!({"confirm": "DELETE MY ACCOUNT"}))
        .await
        .expect(204);
    nobody.post("/v1/auth/signup", &json!({"email": "pending@example.com", "password": PASSWORD})).await.expect(200);

    // Logins: a wrong password, no account, one without a password, one that is gone, one that is pending, no address at all.
    let long = "x".repeat(100_000);
    let attempts = [
        ("ada@example.com", "Wrong-Password-1"),
        ("ada@example.com", ""),
        ("ada@example.com", &long),
        ("nobody@example.com", PASSWORD),
        ("owner@example.test", PASSWORD),
        ("gone@example.com", PASSWORD),
        ("pending@example.com", PASSWORD),
        ("not an address\0", PASSWORD),
        ("", PASSWORD),
    ];
    let mut replies = BTreeSet::new();
    for (email, password) in attempts {
        let reply = log_in(&nobody, email, password).await;
        assert_eq!(reply.status, 401);
        replies.insert(seen(&reply));
    }
    assert_eq!(replies.len(), 1, "{replies:#?}");

    let alike = async |path: &str, with: Value| {
        let mut replies = BTreeSet::new();
        for email in ["ada@example.com", "free@example.com"] {
            let mut body = with.clone();
            body["email"] = json!(email);
            let reply = nobody.post(path, &body).await;
            assert_eq!(reply.status, 200);
            // The same length, so that the lengths of the replies are compared too.
            replies.insert(seen(&reply).replace(email, "EMAIL").replace("\"content-length\"", ""));
        }
        let lengths: BTreeSet<usize> = replies.iter().map(String::len).collect();
        assert_eq!(lengths.len(), 1, "{replies:#?}");
        let same: BTreeSet<String> =
            replies.iter().map(|reply| reply.split("content-length").next().unwrap().to_owned()).collect();
        assert_eq!(same.len(), 1, "{replies:#?}");
    };
    alike("/v1/auth/forgot-password", json!({})).await;
    alike("/v1/auth/signup", json!({"password": PASSWORD, "display_name": "X"})).await;
    // The owner of the address is told.
    let told = letter(&stack, "ada@example.com", "have an account already", 1).await;
    assert!(!told.contains('#') && holds(&ada, &stack.owner.base).await, "{told}");
    assert!(stack.letters("free@example.com", "new password").is_empty());
    letter(&stack, "ada@example.com", "new password", 1).await;
    // Rules of form are told to everybody alike.
    for (body, word) in [
        (json!({"email": "ada@example.com", "password": "short"}), "12 characters"),
        (json!({"email": "ada@example.com", "password": "Correct-Horse-abc1"}), "follow each other"),
        (json!({"email": "nowhere", "password": PASSWORD}), "email"),
        (json!({"password": PASSWORD}), "email is required"),
        (json!({"email": "x@example.com", "password": 12}), "does not fit"),
    ] {
        let told = nobody.post("/v1/auth/signup", &body).await.refused(400);
        assert!(told.contains(word), "{body}: {told}");
    }
}

#[tokio::test]
async fn an_account_goes_with_all_that_opens_it_and_its_address_is_free() {
    let stack = stack(2).await;
    let elsewhere = stack.daemons[1].url.clone();
    let ada = sign_up(&stack, "ada@example.com").await;
    let key = ada.post("/v1/auth/api-keys", &json!({"name": "k"})).await.expect(201);
    let by_key = stack.owner.by(Some(&text(&key, "api_key")));
    let exchanged =
        nobody(&stack).post("/v1/auth/api-key-token", &json!({"api_key": key["api_key"]})).await.expect(200);
    let exchanged = stack.owner.by(Some(&text(&exchanged, "access_token")));
    let agent = ada.post("/v1/agents", &json!({"name": "a"})).await.expect(201);
    let agent_client = stack.owner.by(agent["api_key"].as_str());

    for wrong in [
        json!({}),
        json!({"confirm": "delete my account"}),
        json!({"confirmation": "DELETE MY ACCOUNT", "confirm": "no"}),
    ] {
        ada.delete_with("/v1/auth/me", &wrong).await.refused(400);
    }
    let yes = json!({"confirmation": "DELETE MY ACCOUNT"});
    agent_client.delete_with("/v1/auth/me", &yes).await.refused(403);
    agent_client.get("/v1/auth/me").await.refused(403);
    // The only owner stays while an agent or a member depends on them.
    let told = ada.delete_with("/v1/auth/me", &yes).await.refused(409);
    assert!(told.contains("1 active agents"), "{told}");
    ada.delete(&format!("/v1/agents/{}", agent["agent"]["id"].as_str().unwrap())).await.expect(204);
    let bob = sign_up(&stack, "bob@example.com").await;
    let joined = "UPDATE users SET org_id = (SELECT org_id FROM users WHERE email = 'ada@example.com'), role = 'member' WHERE email = 'bob@example.com'";
    stack.sql(joined).await;
    ada.delete_with("/v1/auth/me", &yes).await.refused(409);
    stack.sql("UPDATE users SET role = 'owner' WHERE email = 'bob@example.com'").await;
    // Of two owners that leave at once, one stays: an organisation with somebody in it has an owner.
    let bob = {
        let body = log_in(&bob, "bob@example.com", PASSWORD).await.expect(200);
        stack.owner.by(Some(&text(&body, "access_token")))
    };
    stack.sql("INSERT INTO users (id, org_id, email, role) SELECT gen_random_uuid(), org_id, 'm@example.com', 'member' FROM users WHERE email = 'bob@example.com'").await;
    let bob_there = bob.at(&elsewhere);
    let (a, b) = tokio::join!(ada.delete_with("/v1/auth/me", &yes), bob_there.delete_with("/v1/auth/me", &yes));
    let mut both = [a.status.as_u16(), b.status.as_u16()];
    both.sort_unstable();
    assert_eq!(both, [204, 409]);
    if a.status != 204 {
        stack.sql("UPDATE users SET role = 'owner' WHERE email = 'm@example.com'").await;
        ada.delete_with("/v1/auth/me", &yes).await.expect(204);
    }
    for client in [&ada, &by_key, &exchanged] {
        assert!(!holds(client, &elsewhere).await && !holds(client, &stack.owner.base).await);
    }
    log_in(&ada, "ada@example.com", PASSWORD).await.refused(401);
    letter(&stack, "ada@example.com", "was deleted", 1).await;
    let kept = "SELECT count(*) FROM users WHERE email LIKE '%@deleted.invalid' AND display_name IS NULL AND password_hash IS NULL";
    assert!(stack.count(kept).await >= 1);
    assert!(stack.count("SELECT count(*) FROM audit_events WHERE action = 'user.delete'").await >= 1);
    // The address begins anew, in an organisation of its own.
    stack.sql("DELETE FROM throttles").await;
    nobody(&stack)
        .post("/v1/auth/signup", &json!({"email": "ada@example.com", "password": PASSWORD}))
        .await
        .expect(200);
    let again = code(&letter(&stack, "ada@example.com", "Confirm", 2).await);
    let again = nobody(&stack).post("/v1/auth/verify-email", &json!({"token": again})).await.expect(200);
    let again = stack.owner.by(Some(&text(&again, "access_token")));
    assert_eq!(again.get("/v1/vaults").await.expect(200)["vaults"], json!([]));
    // Whoever is alone in an organisation may go; nothing is signed for it any more.
    let org = "SELECT count(*) FROM freezes WHERE scope = 'organisation'";
    let frozen = stack.count(org).await;
    again.delete_with("/v1/auth/me", &yes).await.expect(204);
    assert_eq!(stack.count(org).await, frozen + 1);
}

#[tokio::test]
async fn threat_30_only_these_routes_of_humans_are_public() {
    let stack = stack(1).await;
    let agent = stack.owner.post("/v1/agents", &json!({"name": "a"})).await.expect(201);
    let agent = stack.owner.by(agent["api_key"].as_str());
    let id = uuid::Uuid::new_v4();
    let routes: [(&str, &str); 17] = [
        ("POST", "/v1/auth/change-password"),
        ("GET", "/v1/auth/me"),
        ("PATCH", "/v1/auth/me"),
        ("DELETE", "/v1/auth/me"),
        ("DELETE", "/v1/auth/token"),
        ("POST", "/v1/auth/api-keys"),
        ("GET", "/v1/auth/api-keys"),
        ("DELETE", &format!("/v1/auth/api-keys/{id}")),
        ("GET", "/v1/auth/mfa/status"),
        ("POST", "/v1/auth/mfa/setup"),
        ("POST", "/v1/auth/mfa/verify-setup"),
        ("DELETE", "/v1/auth/mfa"),
        ("GET", "/v1/auth/device/code/BCDF-GHJK"),
        ("POST", "/v1/auth/device/approve"),
        ("POST", "/v1/auth/device/deny"),
        ("GET", "/v1/org/members"),
        ("POST", "/v1/vaults"),
    ];
    for (method, path) in routes {
        let call = async |client: &Client| {
            let request = client.request(method.parse().unwrap(), path).json(&json!({"code": "123456", "name": "x"}));
            Client::send(request).await.status.as_u16()
        };
        assert_eq!(call(&nobody(&stack)).await, 401, "{method} {path}");
        // 21: and an agent is no human.
        if !["/v1/vaults", "/v1/auth/token"].contains(&path) {
            assert_eq!(call(&agent).await, 403, "{method} {path}");
        }
    }
    for page in ["/device", "/verify-email", "/reset-password", "/account.js", "/account.css"] {
        let reply = nobody(&stack).get(page).await;
        assert_eq!(reply.status, 200);
        let policy = reply.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe") && !policy.contains('*'),
            "{policy}"
        );
    }
}
