//! The daemon against its own description: schemathesis asks for everything that `/openapi.json` offers, in ways that fit it and in ways
//! that do not, and holds each reply against it. `tests/clients/schema/schemathesis.toml` says what is left out.

use std::path::Path;

use serde_json::json;

use crate::harness::stack::Stack;

/// For each of the two askers.
const SECONDS: &str = "35";

#[tokio::test]
async fn whatever_is_asked_by_the_description_is_answered_as_it_says() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = format!("{}/openapi.json", stack.daemons[0].url);
    for bearer in [stack.owner.bearer.as_deref().unwrap(), &agent.api_key] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = tokio::process::Command::new(root.join(".tools/venv/bin/st"));
        command.arg("--config-file").arg(root.join("tests/clients/schema/schemathesis.toml"));
        command.args([
            "run",
            &document,
            "--max-time",
            SECONDS,
            "--max-examples",
            "3",
            "--no-color",
            "--warnings",
            "off",
        ]);
        command.env("SCHEMA_BEARER", bearer).env("NO_PROXY", "*").current_dir(folder.path()).kill_on_drop(true);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stdout));
    }
    let log = stack.daemons[0].log_text();
    assert!(!log.contains("a handler panicked"), "{log}");
}
