//! Who comes in, and how.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{agent, exchange, grant, light, raw, secret, strictly, tomorrow, vault};
use crate::harness::daemon::Daemon;
use crate::harness::stack::{Options, Stack, text};
use crate::users::{PASSWORD, log_in, sign_up};

#[tokio::test]
async fn point_03_expires_in_is_an_integer_and_point_04_no_lifetime_is_shorter_than_clients_can_use() {
    let stack = light().await;
    let lifetimes =
        [(json!({}), 3600), (json!({"token_ttl_seconds": 120}), 120), (json!({"token_ttl_seconds": 86_400}), 86_400)];
    for (fields, expected) in lifetimes {
        let (_, program) = agent(&stack, fields).await;
        let body = json!({"api_key": program.bearer}).to_string();
        let reply = raw(&stack.owner.by(None), "POST", "/v1/auth/agent-token", &[], &body);
        assert_eq!(reply.json()["expires_in"].as_u64(), Some(expected));
        let written = format!("\"expires_in\":{expected}");
        assert!(String::from_utf8(reply.body).unwrap().contains(&written), "neither a text nor a fraction");
    }
    // Also where the agent ends before its token would.
    let (_, program) = agent(&stack, json!({"expires_at": tomorrow(), "token_ttl_seconds": 86_400})).await;
    stack.sql("UPDATE agents SET expires_at = now() + interval '90.5 seconds' WHERE expires_at IS NOT NULL").await;
    let left = exchange(&stack, json!({"api_key": program.bearer})).await["expires_in"].as_u64().unwrap();
    assert!((1..=90).contains(&left), "{left}");
    for short in [0, 1, 30, 60, 61, 119] {
        stack.owner.post("/v1/agents", &json!({"name": "a", "token_ttl_seconds": short})).await.refused(400);
    }
}

#[tokio::test]
async fn point_05_row_01_agent_token_is_200_with_five_members_which_point_06_a_strict_decoder_of_tokens_refuses() {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "what is read is that it can be read")]
    struct TokenResponse {
        access_token: String,
        token_type: String,
        expires_in: Option<u64>,
        refresh_token: Option<String>,
    }
    let stack = light().await;
    let (id, program) = agent(&stack, json!({})).await;
    let body = json!({"api_key": program.bearer}).to_string();
    let reply = raw(&stack.owner.by(None), "POST", "/v1/auth/agent-token", &[], &body);
    assert_eq!(reply.status, 200);
    let token = reply.json();
    strictly(&token, &["access_token", "token_type", "expires_in", "agent_id", "vault_ids"], &[]);
    assert_eq!((&token["agent_id"], &token["token_type"]), (&json!(id), &json!("Bearer")));
    assert!(token["vault_ids"].is_array());
    assert!(serde_json::from_value::<TokenResponse>(token).is_err());
    let key = json!({"api_key": stack.owner.bearer});
    let token = stack.owner.by(None).post("/v1/auth/api-key-token", &key).await.expect(200);
    assert!(serde_json::from_value::<TokenResponse>(token).is_ok());
}

#[tokio::test]
async fn row_02_agent_id_is_optional_and_a_wrong_pair_is_401() {
    let stack = light().await;
    let ((id, program), (other, _)) = (agent(&stack, json!({})).await, agent(&stack, json!({})).await);
    let key = &program.bearer;
    for body in [json!({"api_key": key}), json!({"api_key": key, "agent_id": id})] {
        assert_eq!(exchange(&stack, body).await["agent_id"], json!(id));
    }
    for wrong in [other, uuid::Uuid::new_v4().to_string(), String::new()] {
        let body = json!({"api_key": key, "agent_id": wrong});
        stack.owner.by(None).post("/v1/auth/agent-token", &body).await.refused(401);
    }
}

#[tokio::test]
async fn point_25_row_24_no_credential_is_401_at_once_and_tokens_are_eddsa_jwts() {
    let stack = light().await;
    let (id, program) = agent(&stack, json!({"intents_api_enabled": true})).await;
    let nobody = stack.owner.by(None);
    let (paid, share) = (format!("/v1/agents/{id}/transactions"), format!("/v1/secrets/{id}/share"));
    for (method, target) in [
        ("GET", "/v1/vaults"),
        ("POST", "/v1/vaults"),
        ("PUT", "/v1/vaults/x/secrets/a"),
        ("GET", "/v1/audit/events"),
        ("POST", &paid),
        ("POST", &format!("{paid}/simulate")),
        ("POST", &share),
    ] {
        let reply = raw(&nobody, method, target, &[], "{}");
        assert_eq!(reply.status, 401, "{method} {target}, and not 402");
        assert!(reply.json()["detail"].is_string(), "{target}");
    }

    let token = text(&exchange(&stack, json!({"api_key": program.bearer})).await, "access_token");
    let parts: Vec<&str> = token.split('.').collect();
    let part =
        |index: usize| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[index]).unwrap()).unwrap() };
    let (header, claims) = (part(0), part(1));
    assert_eq!((parts.len(), &header["alg"], &header["typ"]), (3, &json!("EdDSA"), &json!("JWT")));
    assert_eq!(claims["sub"], json!(format!("agent:{id}")));
    assert_eq!((&claims["org"], &claims["intents_api_enabled"]), (&json!(stack.org_id), &json!(true)));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert!(claims["scopes"].is_array() && claims["vault_ids"].is_array() && claims["jti"].is_string());
    let published = nobody.get("/v1/auth/jwt-public-key").await.expect(200);
    strictly(&published, &["alg", "public_key_base64"], &[]);
    assert_eq!(published["alg"], "EdDSA");
    let key = STANDARD.decode(text(&published, "public_key_base64")).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    let signed = format!("{}.{}", parts[0], parts[1]);
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, key);
    key.verify(signed.as_bytes(), &signature).expect("the raw key verifies it");
}

#[tokio::test]
async fn row_14_refresh_is_400_and_no_refresh_token_is_given() {
    let stack = light().await;
    let (_, program) = agent(&stack, json!({})).await;
    let nobody = stack.owner.by(None);
    let human = nobody.post("/v1/auth/api-key-token", &json!({"api_key": stack.owner.bearer})).await.expect(200);
    for token in [human, exchange(&stack, json!({"api_key": program.bearer})).await] {
        assert!(token.get("refresh_token").is_none(), "{token}");
    }
    for body in ["", "{}", r#"{"refresh_token":"x"}"#] {
        let reply = raw(&nobody, "POST", "/v1/auth/refresh", &["Content-Type: application/json"], body);
        assert_eq!(reply.status, 400);
        assert!(text(&reply.json(), "detail").contains("no refresh tokens"));
    }
}

#[tokio::test]
async fn row_15_logout_is_204_and_ends_that_token() {
    let stack = light().await;
    let (_, program) = agent(&stack, json!({})).await;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        tokens.push(text(&exchange(&stack, json!({"api_key": program.bearer})).await, "access_token"));
    }
    let (first, second) = (program.by(Some(&tokens[0])), program.by(Some(&tokens[1])));
    assert_eq!(first.delete("/v1/auth/token").await.expect(204), Value::Null);
    first.get("/v1/agents/me").await.refused(401);
    first.delete("/v1/auth/token").await.refused(401);
    second.get("/v1/agents/me").await.expect(200);
}

#[tokio::test]
async fn row_16_delete_me_takes_confirmation_and_confirm() {
    let stack = light().await;
    for name in ["confirmation", "confirm"] {
        let human = stack.human(&stack.org_id, "member").await;
        for wrong in [json!({}), json!({(name): "yes"}), json!({(name): "delete my account"})] {
            human.client.delete_with("/v1/auth/me", &wrong).await.refused(400);
        }
        let confirmed = json!({(name): "DELETE MY ACCOUNT"});
        assert_eq!(human.client.delete_with("/v1/auth/me", &confirmed).await.expect(204), Value::Null);
        human.client.get("/v1/auth/me").await.refused(401);
    }
}

#[tokio::test]
async fn row_34_signup_is_200_with_or_without_a_token_and_row_17_change_password_is_204() {
    let env = vec![("INTENTD_SIGNUP_ENABLED".to_owned(), "true".to_owned())];
    let stack = Stack::with(Options { chains: Vec::new(), env, ..Options::default() }).await;
    let wanted = json!({"email": "bob@example.test", "password": PASSWORD});
    let body = stack.owner.by(None).post("/v1/auth/signup", &wanted).await.expect(200);
    strictly(&body, &["message", "email"], &["access_token", "token_type"]);
    let ada = sign_up(&stack, "ada@example.test").await;
    let change = json!({"current_password": PASSWORD, "new_password": "Battery+Staple-9"});
    assert_eq!(ada.post("/v1/auth/change-password", &change).await.expect(204), Value::Null);
    log_in(&stack.owner, "ada@example.test", PASSWORD).await.refused(401);
    let token = log_in(&stack.owner, "ada@example.test", "Battery+Staple-9").await.expect(200);
    strictly(&token, &["access_token", "token_type", "expires_in"], &[]);
}

#[tokio::test]
async fn row_26_authentication_has_a_burst_of_five_and_one_a_second() {
    let stack = light().await;
    let (_, program) = agent(&stack, json!({})).await;
    let mut command = stack.command();
    command.env_remove("INTENTD_LIMITS_AUTH_BURST");
    let daemon = Daemon::start(command, &stack.install.root, "as shipped").await;
    let nobody = stack.owner.by(None).at(&daemon.url);
    let began = Instant::now();
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..20 {
        let reply = nobody.post("/v1/auth/agent-token", &json!({"api_key": program.bearer})).await;
        if reply.status == 200 {
            passed += 1;
            continue;
        }
        refused += 1;
        let seconds: u64 = reply.headers["retry-after"].to_str().unwrap().parse().expect("whole seconds, not a date");
        assert!((1..=60).contains(&seconds), "{seconds}");
        reply.refused(429);
    }
    assert!(passed >= 5 && passed <= 6 + began.elapsed().as_secs() && refused > 0, "{passed} and {refused}");
    // Who has a token, or sends the key as one, goes on.
    program.at(&daemon.url).get("/v1/agents/me").await.expect(200);
}

#[tokio::test]
async fn row_27_row_41_vault_ids_are_the_vaults_that_an_agent_reaches_and_not_all() {
    let stack = light().await;
    let (granted, bound, other) = (vault(&stack.owner).await, vault(&stack.owner).await, vault(&stack.owner).await);
    let (id, program) = agent(&stack, json!({})).await;
    let vault_ids = async |key: &Option<String>| -> Vec<String> {
        let token = exchange(&stack, json!({"api_key": key})).await;
        serde_json::from_value(token["vault_ids"].clone()).unwrap()
    };
    assert!(vault_ids(&program.bearer).await.is_empty());
    grant(&stack, &granted, &id, "a/*", &["read"]).await;
    let own = vault(&program).await;
    let mut reached = vault_ids(&program.bearer).await;
    reached.sort();
    let mut expected = vec![granted, own];
    expected.sort();
    assert_eq!(reached, expected);

    // Bound to one: nothing else opens, whatever policies say.
    let (id, program) = agent(&stack, json!({"vault_ids": [bound]})).await;
    for vault in [&bound, &other] {
        grant(&stack, vault, &id, "**", &["read"]).await;
        stack.owner.put(&secret(vault, "a"), &json!({"value": "v"})).await.expect(201);
    }
    assert_eq!(vault_ids(&program.bearer).await, std::slice::from_ref(&bound));
    program.get(&secret(&bound, "a")).await.expect(200);
    program.get(&secret(&other, "a")).await.refused(403);
}
