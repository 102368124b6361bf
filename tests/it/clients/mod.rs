//! Programs that others wrote, as they are, against real daemons: an SDK, decoders of transactions, a gateway.

mod browsers;
mod connections;
mod decoding;
mod gateway;
mod nginx;
mod schema;
mod sdk;

use std::path::Path;

use crate::harness::stack::Stack;

/// Runs tests of `tests/clients` by the Python that has the clients. What they print is shown when one of them fails; none may be left
/// out.
async fn pytest(tests: &[&str], env: Vec<(&str, String)>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".tools/venv/bin/python");
    assert!(python.is_file(), "existing clients are not installed: run anvil/test once");
    let mut command = tokio::process::Command::new(python);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("INTENTD_")) {
        command.env_remove(name);
    }
    command.args(["-m", "pytest"]).args(tests).current_dir(root.join("tests/clients"));
    command.envs(env).env("PYTHONDONTWRITEBYTECODE", "1").env("NO_PROXY", "*").kill_on_drop(true);
    let output = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let (Some(0), false) = (output.status.code(), text.contains(" skipped")) else {
        panic!("{tests:?}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    };
}

/// What the tests of the SDK read of a stack that signs people up: an owner of an organisation of their own.
async fn owner_of_their_own(stack: &Stack) -> Vec<(&'static str, String)> {
    let email = "sdk@example.test";
    let owner = crate::users::sign_up(stack, email).await;
    let made = owner.post("/v1/auth/api-keys", &serde_json::json!({"name": "the SDK's"})).await.expect(201);
    vec![
        ("INTENTD_URL", stack.daemons[0].url.clone()),
        ("INTENTD_USER_KEY", made["api_key"].as_str().unwrap().to_owned()),
        ("INTENTD_USER_EMAIL", email.to_owned()),
        ("INTENTD_USER_PASSWORD", crate::users::PASSWORD.to_owned()),
    ]
}

/// A daemon's settings for [`owner_of_their_own`].
fn with_sign_up() -> (String, String) {
    ("INTENTD_SIGNUP_ENABLED".to_owned(), "true".to_owned())
}
