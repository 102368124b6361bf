//! Canaries in all that humans prove themselves with, and then a look at all that leaves the daemon but the letters.

use std::process::Command;

use serde_json::{Value, json};

use super::{NEW_PASSWORD, PASSWORD, app_code, code, letter, log_in, nobody, second_factor, sign_up, stack};
use crate::harness::stack::text;

#[tokio::test]
async fn threat_23_nothing_that_proves_a_human_is_in_a_log_line_an_audit_row_or_the_database() {
    let mut stack = stack(0).await;
    stack.options.env.push(("INTENTD_LOG".to_owned(), "trace".to_owned()));
    stack.add_daemon("traced").await;
    let nobody = nobody(&stack);
    let mut canaries: Vec<(&str, String)> =
        vec![("the password", PASSWORD.to_owned()), ("the new password", NEW_PASSWORD.to_owned())];

    let ada = sign_up(&stack, "ada@example.com").await;
    canaries.push(("the sign-up's code", code(&letter(&stack, "ada@example.com", "Confirm", 1).await)));
    canaries.push(("the token", ada.bearer.clone().unwrap()));
    let key = ada.post("/v1/auth/api-keys", &json!({"name": "k"})).await.expect(201);
    canaries.push(("the API key", text(&key, "api_key")));
    let (secret, recovery) = second_factor(&stack, &ada).await;
    let raw = totp_rs::Secret::try_from_base32(&secret).unwrap();
    canaries.push(("the app's secret in hex", hex::encode(raw.as_ref() as &[u8])));
    canaries.push(("the app's secret", secret.clone()));
    for code in &recovery {
        canaries.push(("a recovery code", code.clone()));
        canaries.push(("a recovery code", code.replace('-', "")));
    }
    let body = log_in(&nobody, "ada@example.com", PASSWORD).await.expect(200);
    canaries.push(("the mfa_token", text(&body, "mfa_token")));
    let body = json!({"mfa_token": body["mfa_token"], "code": recovery[0]});
    nobody.post("/v1/auth/mfa/verify", &body).await.expect(200);
    log_in(&nobody, "ada@example.com", "Wrong-Guess-5150").await.refused(401);
    canaries.push(("a wrong password", "Wrong-Guess-5150".to_owned()));
    log_in(&nobody, "Misplaced-Pass-61", "x").await.refused(401);
    canaries.push(("a password in the wrong field", "misplaced-pass-61".to_owned()));
    nobody.post("/v1/auth/token", &json!({"email": "a@b.example", "password": ["Listed-Pass-62"]})).await.refused(400);
    canaries.push(("a password in a list", "Listed-Pass-62".to_owned()));

    let codes = nobody.post("/v1/auth/device/code", &json!({"client_id": "cli"})).await.expect(200);
    for name in ["device_code", "user_code"] {
        canaries.push((if name == "device_code" { "the device code" } else { "the user code" }, text(&codes, name)));
    }
    canaries.push(("the user code", text(&codes, "user_code").replace('-', "")));
    ada.get(&format!("/v1/auth/device/code/{}", text(&codes, "user_code"))).await.expect(200);
    ada.post("/v1/auth/device/approve", &json!({"user_code": codes["user_code"]})).await.expect(200);
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let token =
        nobody.post("/v1/auth/device/token", &json!({"device_code": codes["device_code"], "grant_type": grant})).await;
    canaries.push(("the device's token", text(&token.expect(200), "access_token")));

    nobody.post("/v1/auth/forgot-password", &json!({"email": "ada@example.com"})).await.expect(200);
    let link = code(&letter(&stack, "ada@example.com", "Choose a new password", 1).await);
    canaries.push(("the reset's code", link.clone()));
    let live = dump(&stack);
    nobody.post("/v1/auth/reset-password", &json!({"token": link, "new_password": NEW_PASSWORD})).await.expect(200);
    letter(&stack, "ada@example.com", "password was changed", 1).await;
    // A letter that waits, as the database has it.
    stack.sql("UPDATE throttles SET taken = '{}'").await;
    let _ = app_code(&secret, 0);

    stack.daemons[0].signal(rustix::process::Signal::TERM);
    let _ = stack.daemons[0].ended().await;
    let log = stack.daemons[0].log_text();
    assert!(log.len() > 20_000 && log.contains("TRACE"), "the log is not at trace: {} bytes", log.len());
    let audit: Vec<(Value,)> =
        sqlx::query_as("SELECT to_jsonb(e) FROM audit_events e").fetch_all(&stack.db).await.unwrap();
    let audit = audit.iter().map(|(row,)| row.to_string()).collect::<Vec<_>>().join("\n");
    let actions = [
        "user.signup",
        "user.create",
        "api_key.create",
        "user.mfa_setup",
        "user.mfa_enable",
        "user.mfa_verify",
        "user.recovery_code_used",
        "device.request",
        "device.approve",
        "user.password_forgotten",
        "user.password_reset",
        "auth.success",
        "auth.failure",
    ];
    for action in actions {
        assert!(audit.contains(&format!("\"{action}\"")), "no audit row of {action}");
    }
    for (what, secret) in &canaries {
        for (place, text) in
            [("the log", &log), ("the audit trail", &audit), ("the database", &live), ("the database", &dump(&stack))]
        {
            for spelling in [secret.clone(), hex::encode(secret)] {
                if let Some(at) = text.find(&spelling) {
                    let begins = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
                    panic!("{what} is in {place}: {}", text[begins..].chars().take(300).collect::<String>());
                }
            }
        }
    }
}

/// The whole database as text.
fn dump(stack: &crate::harness::stack::Stack) -> String {
    let newest =
        std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path().join("bin/pg_dump"));
    let program = newest.filter(|path| path.exists()).max().unwrap_or_else(|| "pg_dump".into());
    let output = Command::new(program).arg("--dbname").arg(stack.postgres.url("intentd")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump = String::from_utf8(output.stdout).unwrap();
    assert!(dump.contains("COPY public.password_resets"));
    dump
}
