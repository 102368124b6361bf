//! How humans prove who they are.

mod accounts;
mod device;
mod keys;
mod leaks;
mod mail;
mod mfa;
mod passwords;

use std::collections::BTreeSet;
use std::time::Duration;

use intentd::users::mfa::rules;
use serde_json::{Value, json};

use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Options, Stack, text, until};

pub const PASSWORD: &str = "Correct-Horse-7";
const NEW_PASSWORD: &str = "Battery+Staple-9";

/// Daemons without chains, with sign-up.
async fn stack(daemons: usize) -> Stack {
    let mut stack = Stack::with(Options { daemons: 0, chains: Vec::new(), ..Options::default() }).await;
    stack.options.env.push(("INTENTD_SIGNUP_ENABLED".to_owned(), "true".to_owned()));
    for index in 0..daemons {
        stack.add_daemon(&format!("daemon-{index}")).await;
    }
    stack
}

pub fn nobody(stack: &Stack) -> Client {
    stack.owner.by(None)
}

/// Waits for the n-th such letter.
async fn letter(stack: &Stack, to: &str, subject: &str, n: usize) -> String {
    until(Duration::from_secs(20), subject, async || stack.letters(to, subject).len() >= n).await;
    stack.letters(to, subject).remove(n - 1)
}

/// The code behind the `#` of a letter's link.
fn code(letter: &str) -> String {
    let code = letter.split_once('#').unwrap_or_else(|| panic!("no link: {letter}")).1;
    code.split_whitespace().next().unwrap().to_owned()
}

pub async fn log_in(client: &Client, email: &str, password: &str) -> Reply {
    client.by(None).post("/v1/auth/token", &json!({"email": email, "password": password})).await
}

/// Signs somebody up, and returns a client with their token.
pub async fn sign_up(stack: &Stack, email: &str) -> Client {
    let wanted = json!({"email": email, "password": PASSWORD, "display_name": "Somebody"});
    nobody(stack).post("/v1/auth/signup", &wanted).await.expect(200);
    let token = code(&letter(stack, email, "Confirm", 1).await);
    let body = nobody(stack).post("/v1/auth/verify-email", &json!({"token": token})).await.expect(200);
    stack.owner.by(Some(&text(&body, "access_token")))
}

/// What a client could tell two replies apart by.
fn seen(reply: &Reply) -> String {
    let headers: BTreeSet<String> = reply
        .headers
        .iter()
        // The time, and a number of the request alone, tell nothing.
        .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    format!("{} {headers:?} {}", reply.status, reply.body)
}

/// Whether a token or key is still good at a daemon.
async fn holds(client: &Client, at: &str) -> bool {
    match client.at(at).get("/v1/auth/me").await.status.as_u16() {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

/// The code of an authenticator app, `steps` from now.
pub fn app_code(secret: &str, steps: i64) -> String {
    let secret = totp_rs::Secret::try_from_base32(secret).unwrap();
    let totp = totp_rs::Builder::new().with_secret(secret).build().unwrap();
    let now = intentd::clock::now().unix_timestamp() + 30 * steps;
    let code = totp.generate(now.unsigned_abs()).to_string();
    assert!(rules::Code::parse(&code).is_some());
    code
}

/// Turns the second factor on; the app's secret and the recovery codes.
pub async fn second_factor(stack: &Stack, human: &Client) -> (String, Vec<String>) {
    let setup = human.post("/v1/auth/mfa/setup", &json!({})).await.expect(200);
    let secret = text(&setup, "secret");
    assert!(text(&setup, "otpauth_uri").contains(&format!("secret={secret}&")));
    let on = human.post("/v1/auth/mfa/verify-setup", &json!({"code": app_code(&secret, 0)})).await.expect(200);
    let codes: Vec<String> = serde_json::from_value::<Vec<String>>(on["recovery_codes"].clone()).unwrap();
    // The code that was just used is not to be in the way.
    stack.sql("UPDATE second_factors SET last_step = 0").await;
    (secret, codes)
}

fn member(body: &Value) -> BTreeSet<&str> {
    body.as_object().unwrap().keys().map(String::as_str).collect()
}
