//! `intentd dev`: what it gives, how it ends, and that it comes back.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{State, all_gone, all_text, output, send};
use crate::harness::client::Client;
use crate::harness::stack::until;

#[tokio::test]
async fn the_env_file_is_private_and_everything_in_it_works() {
    let state = State::new();
    let _stack = state.up(state.dev());
    let mode = |name: &str| std::fs::metadata(state.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("env"), mode("demo.json"), mode("token/pin")), (0o700, 0o600, 0o600, 0o600));
    let text = state.read("env");
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("export ")?.split('=').next()).collect();
    let expected = "INTENTD_URL INTENTD_USER_KEY INTENTD_USER_EMAIL INTENTD_USER_PASSWORD INTENTD_ORG_ID INTENTD_VAULT_ID \
                    INTENTD_AGENT_ID INTENTD_AGENT_KEY INTENTD_SIGNER_ADDRESS ANVIL_RPC_URL INTENTD_SIMULATOR_URL INTENTD_METRICS_URL DATABASE_URL INTENTD_PIDS";
    assert_eq!(names.join(" "), expected);

    let url = state.variable("INTENTD_URL");
    let human = Client::new(&url, Some(&state.variable("INTENTD_USER_KEY")));
    let agent = Client::new(&url, Some(&state.variable("INTENTD_AGENT_KEY")));
    let agent_id = state.variable("INTENTD_AGENT_ID");
    let me = agent.get("/v1/agents/me").await.expect(200);
    assert_eq!(me["id"], json!(agent_id));
    assert_eq!(me["org_id"], json!(state.variable("INTENTD_ORG_ID")));
    let vaults = human.get("/v1/vaults").await.expect(200);
    let login =
        json!({"email": state.variable("INTENTD_USER_EMAIL"), "password": state.variable("INTENTD_USER_PASSWORD")});
    let token = human.by(None).post("/v1/auth/token", &login).await.expect(200);
    let me = human.by(token["access_token"].as_str()).get("/v1/auth/me").await.expect(200);
    assert_eq!((&me["email"], &me["role"]), (&login["email"], &json!("owner")));
    // Anybody may sign up here, and finds the letter in the state folder.
    let wanted = json!({"email": "you@example.com", "password": "Correct-Horse-7"});
    human.by(None).post("/v1/auth/signup", &wanted).await.expect(200);
    let written = || std::fs::read_dir(state.path().join("mail")).is_ok_and(|mut files| files.next().is_some());
    until(super::PATIENCE, "the letter is in the state folder", async || written()).await;
    assert!(
        state.path().join("checkpoints.jsonl").is_file(),
        "the audit trail's checkpoints are outside of the database"
    );
    let vault_id = json!(state.variable("INTENTD_VAULT_ID"));
    assert!(vaults["vaults"].as_array().unwrap().iter().any(|vault| vault["id"] == vault_id), "{vaults}");

    let node = Client::new(&state.variable("ANVIL_RPC_URL"), None);
    let ask = async |method: &str, params: Value| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        node.post("", &body).await.expect(200)["result"].take()
    };
    assert_eq!(ask("eth_chainId", json!([])).await, json!("0x7a69"));
    let signer = state.variable("INTENTD_SIGNER_ADDRESS");
    assert_ne!(ask("eth_getBalance", json!([signer, "latest"])).await, json!("0x0"));
    let pool = sqlx::PgPool::connect(&state.variable("DATABASE_URL")).await.unwrap();
    let agents: i64 = sqlx::query_scalar("SELECT count(*) FROM agents").fetch_one(&pool).await.unwrap();
    assert_eq!(agents, 1);
}

#[tokio::test]
async fn the_printed_curl_works_as_printed_and_the_guardrails_hold() {
    let state = State::new();
    let stack = state.up(state.dev());
    // The env file is there a moment before the introduction is.
    let deadline = std::time::Instant::now() + super::PATIENCE;
    while !stack.output().contains("Ctrl-C stops everything") {
        assert!(std::time::Instant::now() < deadline, "{}", stack.output());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let printed = stack.output();
    let start = printed.find("\ncurl ").expect("a curl");
    let command: String =
        printed[start..].lines().skip(1).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    let sent = output({
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]);
        shell
    });
    let reply: Value = serde_json::from_slice(&sent.stdout).unwrap_or_else(|_| panic!("{}", all_text(&sent)));
    assert_eq!(reply["from"].as_str(), Some(&*state.variable("INTENTD_SIGNER_ADDRESS")), "{reply}");

    let agent = Client::new(&state.variable("INTENTD_URL"), Some(&state.variable("INTENTD_AGENT_KEY")));
    let path = format!("/v1/agents/{}/transactions", state.variable("INTENTD_AGENT_ID"));
    let to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    for body in
        [json!({"chain": "base", "to": to, "value": "0.11"}), json!({"chain": "ethereum", "to": to, "value": "0.01"})]
    {
        let detail = agent.post(&path, &body).await.refused(403);
        assert!(detail.contains("guardrail"), "{detail}");
    }
    // Both local chains, by the same signer.
    for chain in ["base", "anvil"] {
        agent.post(&path, &json!({"chain": chain, "to": to, "value": "0.01"})).await.expect(201);
    }
}

#[test]
fn a_signal_stops_everything_in_order() {
    for signal in [Signal::INT, Signal::TERM] {
        let state = State::new();
        let mut stack = state.up(state.dev());
        let pids = state.pids();
        assert_eq!(pids[0], stack.child.id());
        send(pids[0], signal);
        assert!(stack.ended().success(), "{}", stack.output());
        all_gone(&pids);
        assert!(!state.path().join("env").exists());
        assert!(state.read("logs/serve.log").contains("stopped"), "{}", state.read("logs/serve.log"));
        assert!(state.read("logs/postgres.log").contains("database system is shut down"));
    }
}

#[test]
fn the_death_of_a_part_ends_the_stack_and_is_named() {
    for part in ["serve", "anvil-base", "postgres"] {
        let state = State::new();
        let mut stack = state.up(state.dev());
        let pids = state.pids();
        send(state.pid_of(part), Signal::KILL);
        let status = stack.ended();
        let said = stack.output();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{part} (process")) && said.contains("died"), "{said}");
        all_gone(&pids);
    }
}

#[test]
fn a_stack_whose_processes_were_all_killed_comes_back_and_signs() {
    let state = State::new();
    let mut once = state.run_script();
    once.arg("--once");
    let first = output(once);
    assert!(first.status.success(), "{}", all_text(&first));
    let mut stack = state.up(state.dev());
    let address = state.variable("INTENTD_SIGNER_ADDRESS");
    let mut beside = state.run_script();
    beside.arg("--once");
    assert!(output(beside).status.success());
    for pid in state.pids() {
        send(pid, Signal::KILL);
    }
    stack.ended();
    let mut again = state.run_script();
    again.arg("--once");
    let again = output(again);
    let text = all_text(&again);
    assert!(again.status.success(), "{text}");
    assert!(text.contains(&address), "the signer is another: {text}");
}

#[cfg(target_os = "linux")]
#[test]
fn no_child_outlives_a_killed_supervisor() {
    let state = State::new();
    let mut stack = state.up(state.dev());
    let pids = state.pids();
    send(pids[0], Signal::KILL);
    stack.ended();
    all_gone(&pids);
}

#[test]
fn a_reset_starts_anew() {
    let state = State::new();
    let ids = |extra: &[&str]| {
        let mut command = state.dev();
        command.args(extra);
        let _stack = state.up(command);
        (state.variable("INTENTD_ORG_ID"), state.variable("INTENTD_SIGNER_ADDRESS"))
    };
    let first = ids(&[]);
    assert_eq!(ids(&[]), first);
    let anew = ids(&["--reset"]);
    assert!(anew.0 != first.0 && anew.1 != first.1);
}
