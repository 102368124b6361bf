//! A backup is the database and the token: together they are everything, and neither is anything without the other.

use std::process::{Command, Stdio};

use intentd::dev::postgres::NAME;
use intentd::hsm::softhsm;
use serde_json::json;

use super::{admin, admin_fails, begin, filled, quick, reaches, token};
use crate::harness::daemon::Daemon;
use crate::harness::install::{PIN, TOKEN_LABEL};
use crate::harness::stack::{Stack, pay, text};
use crate::orgs::run;

/// A program of the Postgres that the stack runs.
fn program(stack: &Stack, name: &str, database: &str) -> Command {
    let server = std::fs::read_link(format!("/proc/{}/exe", stack.postgres.server().pid())).unwrap();
    let mut command = Command::new(server.parent().unwrap().join(name));
    command.arg("-h").arg(stack.postgres.socket()).args(["-U", NAME, database]).current_dir("/");
    command
}

/// A dump of the database, restored beside it; its URL.
async fn restored(stack: &Stack, name: &str) -> String {
    stack.sql(&format!("CREATE DATABASE {name}")).await;
    let dump = stack.install.root.join(format!("{name}.sql"));
    std::fs::write(&dump, run(program(stack, "pg_dump", NAME))).unwrap();
    let mut load = program(stack, "psql", name);
    load.args(["--quiet", "--set", "ON_ERROR_STOP=1", "--file"]).arg(&dump).stdout(Stdio::null());
    run(load);
    stack.postgres.url(name)
}

#[tokio::test]
async fn a_restored_database_works_with_its_own_token_and_is_refused_with_another() {
    let mut stack = Stack::with(quick(1, vec![("base", 8453)], &[])).await;
    let vault = filled(&stack, 3, 2).await;
    let agent = stack.agent(json!({})).await;
    let born = stack.agent(json!({})).await;
    let keys = format!("/v1/agents/{}/signing-keys", born.id);
    let born_at = text(&stack.owner.post(&keys, &json!({"chain": "base"})).await.expect(201), "address");
    stack.chain().set_balance(born_at.parse().unwrap(), "1000000000000000000".parse().unwrap()).await;
    let sent = agent.submit(pay("0.01")).await.expect(201);
    agent.settled(&text(&sent, "id")).await;
    let jwt = token(&agent.client).await;
    // A key was rotated once: a backup has such rows, and the token both keys.
    let old = begin(&stack, "data").await;
    reaches(&stack, &old, "retired").await;
    let url = restored(&stack, "restored").await;
    stack.daemons[0].kill();

    stack.options.database_url = Some(url);
    let said = admin(&stack, &["check"]);
    for line in ["keys of the token", "7 of 7", "5 of 5", "belong together"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let daemon = stack.start_daemon("restored").await;
    let owner = stack.owner.at(&daemon.url);
    for n in 0..3 {
        let body = owner.get(&format!("/v1/vaults/{vault}/secrets/s/{n}")).await.expect(200);
        assert_eq!(body["value"], format!("value of s/{n}"));
    }
    owner.by(Some(&jwt)).get("/v1/agents/me").await.expect(200);
    for (agent, from) in [(&agent, agent.signer.to_string()), (&born, born_at)] {
        let agent = agent.at(&daemon.url);
        let sent = agent.submit(pay("0.01")).await.expect(201);
        assert_eq!(sent["from"], from);
        assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");
    }
    drop(daemon);

    // Another token, with the same label and PIN; and one with keys of its own.
    let other = stack.install.root.join("other-token");
    let conf = softhsm::prepare(&other).unwrap();
    let mut make = Command::new("softhsm2-util");
    make.args(["--init-token", "--free", "--label", TOKEN_LABEL, "--pin", PIN, "--so-pin", PIN]);
    run({
        make.env(softhsm::CONF_VARIABLE, &conf);
        make
    });
    stack.options.env.push((softhsm::CONF_VARIABLE.to_owned(), conf.to_string_lossy().into_owned()));
    for keys_of_its_own in [false, true] {
        if keys_of_its_own {
            let empty = stack.postgres.url("empty");
            stack.sql("CREATE DATABASE empty").await;
            let mut init = stack.command();
            init.env("INTENTD_DATABASE_URL", empty).args(["admin", "hsm", "init"]);
            run(init);
        }
        let name = format!("refused-{keys_of_its_own}");
        let Err((status, log)) = Daemon::try_start(stack.command(), &stack.install.root, &name).await else {
            panic!("it started")
        };
        assert!(!status.success());
        for part in ["the token does not hold this database's keys", "it may be another token", "Restore the token"] {
            assert!(log.contains(part), "{part}: {log}");
        }
        let said = admin_fails(&stack, &["check"]);
        assert!(said.contains("WRONG") && said.contains("Restore the token"), "{said}");
        let said = admin_fails(&stack, &["hsm", "init"]);
        assert!(said.contains("the token does not hold them"), "{said}");
    }
}
