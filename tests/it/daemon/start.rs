//! What keeps the daemon from starting: a non-zero exit, one clear sentence that names the thing, and no secret in it.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::install::{DAEMON, PIN};
use crate::harness::stack::{Options, Stack};

/// In every secret setting of these tests.
const CANARY: &str = "hunter2canary";

/// Its end. Panics when it does not come: then it serves.
async fn ended(mut command: Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it did not end: {:?}", child.wait_with_output());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child.wait_with_output().unwrap()
}

/// Ends non-zero, with `says` in its last words and no secret anywhere.
async fn assert_refuses(case: &str, mut command: Command, says: &[&str]) {
    let output = ended({
        command.arg("serve");
        command
    })
    .await;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code != 0), "{case}: ended with {:?}\n{log}", output.status);
    let last_words = log.rsplit_once("intentd: ").unwrap_or_else(|| panic!("{case}: no last words:\n{log}")).1;
    for word in says {
        assert!(last_words.contains(word), "{case}: {word:?} is not said:\n{last_words}");
    }
    assert!(last_words.len() < 1_000 && !last_words.contains("panicked"), "{case}: {last_words}");
    for secret in [CANARY, PIN] {
        assert!(!log.contains(secret), "{case}: a secret is in the log:\n{log}");
    }
    assert!(output.stdout.is_empty(), "{case}: stdout is for results");
}

fn file(stack: &Stack, name: &str, text: &str) -> String {
    let path = stack.install.root.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A stack's environment, listening on any port, with changes; an empty value unsets.
fn changed(stack: &Stack, changes: &[(&str, &str)]) -> Command {
    let mut command = stack.command();
    command.env("INTENTD_LISTEN", "127.0.0.1:0");
    for (name, value) in changes {
        if value.is_empty() {
            command.env_remove(name)
        } else {
            command.env(name, value)
        };
    }
    command
}

async fn resting() -> Stack {
    Stack::with(Options { daemons: 0, ..Options::default() }).await
}

#[tokio::test]
async fn threat_39_a_broken_configuration_ends_the_start() {
    let stack = resting().await;
    let mut bare = Command::new(DAEMON);
    bare.env_clear();
    assert_refuses("nothing is configured", bare, &["database.url", "INTENTD_DATABASE_URL", "hsm.module", "hsm.pin"])
        .await;
    let toml = |name: &str, text: &str| file(&stack, name, text);
    let url = format!("postgres://u:{CANARY}@127.0.0.1:1/d");
    let files = [
        ("unknown key", toml("a.toml", "listne = 1"), vec!["`listne`"]),
        ("unknown key in a table", toml("b.toml", &format!("[database]\nurll = \"{url}\"")), vec!["database.urll"]),
        ("not TOML", toml("c.toml", &format!("[database]\nurl = \"{url}\n")), vec!["c.toml", "line 2"]),
        (
            "a wrong type",
            toml("d.toml", &format!("[chains.rpc_urls]\nbase = [\"http://{CANARY}\"]")),
            vec!["chains.rpc_urls.base"],
        ),
        ("a rate of zero", toml("e.toml", "[limits]\nprincipal_burst = 0"), vec!["limits.principal_burst", "above 0"]),
        ("too few connections", toml("f.toml", "[database]\nmax_connections = 2"), vec!["database.max_connections"]),
        ("no such file", "/nowhere/intentd.toml".to_owned(), vec!["/nowhere/intentd.toml"]),
        ("a PIN in the file", toml("g.toml", &format!("[hsm]\npin = \"{CANARY}\"")), vec!["hsm.pin"]),
    ];
    for (case, path, says) in files {
        let pin_file = if case.contains("PIN") { "" } else { "/nowhere/pin" };
        assert_refuses(
            case,
            changed(
                &stack,
                &[("INTENTD_CONFIG", &path), ("INTENTD_HSM_PIN_FILE", pin_file), ("INTENTD_RPC_URL_BASE", "")],
            ),
            &says,
        )
        .await;
    }
    for (variable, value, key) in [
        ("INTENTD_LISTEN", "nowhere", "listen"),
        ("INTENTD_ENVIRONMENT", "staging", "environment"),
        ("INTENTD_LOG", "=,=", "log"),
        ("INTENTD_LOG_FORMAT", "xml", "log_format"),
        ("INTENTD_CLAIM_LEASE_S", "-3", "intents.claim_lease_s"),
        ("INTENTD_DATABASE_MAX_CONNECTIONS", "many", "database.max_connections"),
        ("INTENTD_REQUIRE_SIMULATION", "perhaps", "intents.require_simulation"),
        ("INTENTD_HSM_CUSTODY", "paper", "hsm.custody"),
        ("INTENTD_TRACKER_INTERVAL_MS", "1.5", "intents.tracker_interval_ms"),
    ] {
        assert_refuses(variable, changed(&stack, &[(variable, value)]), &[key, variable]).await;
    }
    // The PIN's own variable is no setting: only the file's key names one.
    let output = ended({
        let mut command = changed(&stack, &[]);
        command.args(["serve", "--pin", CANARY]);
        command
    })
    .await;
    assert!(!output.status.success(), "a PIN on the command line was accepted");
}

#[tokio::test]
async fn threat_39_a_missing_or_wrong_hsm_ends_the_start() {
    let stack = resting().await;
    let (wrong, empty) = (file(&stack, "wrong-pin", CANARY), file(&stack, "empty-pin", "\n"));
    for (case, changes, says) in [
        ("wrong PIN", [("INTENTD_HSM_PIN_FILE", &*wrong)], ["PIN was refused"]),
        ("empty PIN", [("INTENTD_HSM_PIN_FILE", &*empty)], ["empty-pin is empty"]),
        ("no PIN file", [("INTENTD_HSM_PIN_FILE", "/nowhere/pin")], ["/nowhere/pin"]),
        ("wrong label", [("INTENTD_HSM_TOKEN_LABEL", "other")], ["\"other\""]),
        ("wrong serial", [("INTENTD_HSM_TOKEN_SERIAL", "0000")], ["serial"]),
        ("no module", [("INTENTD_HSM_MODULE", "/nowhere/lib.so")], ["/nowhere/lib.so"]),
        ("not a module", [("INTENTD_HSM_MODULE", "/bin/true")], ["/bin/true"]),
    ] {
        assert_refuses(case, changed(&stack, &changes), &says).await;
    }
    // One wrong PIN was tried once, and the token is not locked.
    let other = stack.install.root.join("other-token");
    let conf = intentd::hsm::softhsm::prepare(&other).unwrap();
    let init = Command::new("softhsm2-util")
        .args([
            "--init-token",
            "--free",
            "--label",
            crate::harness::install::TOKEN_LABEL,
            "--pin",
            PIN,
            "--so-pin",
            PIN,
        ])
        .env(intentd::hsm::softhsm::CONF_VARIABLE, &conf)
        .output();
    assert!(init.unwrap().status.success());
    let conf = conf.display().to_string();
    let elsewhere = changed(&stack, &[(intentd::hsm::softhsm::CONF_VARIABLE, &conf)]);
    assert_refuses("a token without our keys", elsewhere, &["the token does not hold this database's keys"]).await;
    stack.sql("DELETE FROM keks").await;
    assert_refuses("a database without keys", changed(&stack, &[]), &["intentd admin hsm init"]).await;
}

#[tokio::test]
async fn threat_39_a_missing_or_wrong_database_ends_the_start() {
    let stack = resting().await;
    let unreachable = format!("postgres://u:{CANARY}@127.0.0.1:1/d");
    let no_host = format!("postgres://u:{CANARY}@no-such-host.invalid/d");
    let no_role = stack.postgres.url("intentd").replacen("intentd@", &format!("nobody:{CANARY}@"), 1);
    let not_a_url = format!("u:{CANARY}@h");
    for (case, url, says) in [
        ("unreachable", &unreachable, ["cannot use the database", "refused"]),
        ("no such host", &no_host, ["cannot use the database", ""]),
        ("no such role", &no_role, ["cannot use the database", "\"nobody\""]),
        ("no such database", &stack.postgres.url("other"), ["cannot use the database", "\"other\""]),
        ("not a URL", &not_a_url, ["cannot use the database", ""]),
    ] {
        assert_refuses(case, changed(&stack, &[("INTENTD_DATABASE_URL", url)]), &says).await;
    }
    stack
        .sql("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'x', true, '', 0)")
        .await;
    let newer = ["schema is newer than this binary", "9999"];
    assert_refuses("a newer schema", changed(&stack, &[]), &newer).await;
    stack.sql("DELETE FROM _sqlx_migrations WHERE version = 9999; UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
    assert_refuses("another schema", changed(&stack, &[]), &["this binary's schema"]).await;
}

#[tokio::test]
async fn threat_39_broken_chains_and_a_taken_address_end_the_start() {
    let stack = resting().await;
    drop(stack.command());
    let good = std::fs::read_to_string(stack.install.root.join("chains.toml")).unwrap();
    let cases = [
        ("chain id 0", good.replace("chain_id = 8453", "chain_id = 0"), vec!["\"base\"", "chain_id", "must not be 0"]),
        ("a name twice", good.repeat(2), vec!["\"base\"", "given twice"]),
        (
            "an id twice",
            format!("{good}{}", good.replacen("name = \"base\"", "name = \"also\"", 1)),
            vec!["8453", "\"base\""],
        ),
        ("an unknown key", format!("{good}rpc = \"http://{CANARY}\"\n"), vec!["rpc"]),
        ("a missing key", good.replace("spend_group = \"eth\"\n", ""), vec!["spend_group"]),
        ("a ceiling of 0", good.replace("500_000_000_000", "0"), vec!["max_fee_per_gas_ceiling_wei"]),
        ("not TOML", good.replacen("[[chain]]", "[[chain", 1), vec!["line 1"]),
        ("nothing", String::new(), vec!["chain"]),
    ];
    for (case, text, says) in cases {
        let path = file(&stack, "broken-chains.toml", &text);
        assert_refuses(case, changed(&stack, &[("INTENTD_CHAINS_FILE", &path)]), &says).await;
    }
    let url = format!("http://127.0.0.1:1/{CANARY}");
    for (case, variable, value, says) in [
        ("a URL for no chain", "INTENTD_RPC_URL_NOWHERE", &*url, "`nowhere`"),
        ("not a URL", "INTENTD_RPC_URL_BASE", CANARY, "INTENTD_RPC_URL_BASE"),
        ("another scheme", "INTENTD_RPC_URL_BASE", "file:///etc/passwd", "INTENTD_RPC_URL_BASE"),
        ("no chains file", "INTENTD_CHAINS_FILE", "/nowhere/chains.toml", "/nowhere/chains.toml"),
        ("a ready file nowhere", "INTENTD_READY_FILE", "/nowhere/ready", "/nowhere/ready"),
    ] {
        assert_refuses(case, changed(&stack, &[(variable, value)]), &[says]).await;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_refuses(
        "a taken address",
        changed(&stack, &[("INTENTD_LISTEN", &address)]),
        &["cannot listen on", &address],
    )
    .await;
}

#[tokio::test]
async fn threat_39_loopback_by_default_no_core_dumps_and_secrets_redacted() {
    // Whatever this machine's default is, the daemon begins with core dumps on.
    let hard = rustix::process::getrlimit(rustix::process::Resource::Core).maximum;
    let on = rustix::process::Rlimit { current: hard, maximum: hard };
    rustix::process::setrlimit(rustix::process::Resource::Core, on).unwrap();
    let rpc = format!("http://user:{CANARY}@127.0.0.1:1/{CANARY}");
    let env = vec![("INTENTD_LOG".to_owned(), "debug".to_owned())];
    let stack = Stack::with(Options { env, ..Options::default() }).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", stack.daemons[0].pid())).unwrap();
    let core: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "soft and hard");
    let command_line = std::fs::read_to_string(format!("/proc/{}/cmdline", stack.daemons[0].pid())).unwrap();
    assert!(!command_line.contains(PIN) && !command_line.contains("postgres://"), "{command_line}");

    let mut command = changed(&stack, &[("INTENTD_LISTEN", ""), ("INTENTD_RPC_URL_BASE", &rpc)]);
    command.env("INTENTD_DATABASE_URL", format!("postgres://u:{CANARY}@127.0.0.1:1/d"));
    command.args(["admin", "config"]);
    let output = ended(command).await;
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("listen: 127.0.0.1:8787"), "{printed}");
    assert!(printed.contains("(redacted)") && printed.contains("RPC URL set"), "{printed}");
    for secret in [CANARY, PIN] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
