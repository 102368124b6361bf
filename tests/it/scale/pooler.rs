//! pgbouncer between the daemons and Postgres, in session pooling: what is decided in the database is decided as without it.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use intentd::dev::postgres::NAME;
use intentd::dev::process::{Process, Signal, bound_command};
use intentd::dev::user;
use intentd::money::Wei;
use serde_json::json;

use crate::harness::daemon::Daemon;
use crate::harness::stack::{Options, Stack, pay, text};

/// pgbouncer in front of the stack's cluster, ended with this process, and its URL.
async fn pgbouncer(stack: &Stack, settings: &str) -> (Process, String) {
    let root = &stack.install.root;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = root.join("pgbouncer.ini");
    let text = format!(
        "[databases]\n* = host={} user={NAME}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\nmax_client_conn = 500\n{settings}\n",
        stack.postgres.socket().display()
    );
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).unwrap();
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
    let program = program.into_iter().find(|path| std::path::Path::new(path).exists());
    let mut command = bound_command(program.expect("pgbouncer is not installed: run anvil/test once"), "KILL");
    // It refuses to run as root.
    if let Some(user) = user::for_postgres().unwrap() {
        command.uid(user.uid).gid(user.gid);
    }
    command.arg(&config).current_dir("/");
    let mut process = Process::spawn("pgbouncer", command, &root.join("pgbouncer.log")).unwrap();
    let listens = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
    process.until_ready(Duration::from_secs(20), listens).await.unwrap();
    (process, format!("postgres://{NAME}@127.0.0.1:{port}/{NAME}?sslmode=disable"))
}

#[tokio::test]
async fn threat_37_three_daemons_behind_pgbouncer_share_nonces_limits_and_secrets() {
    let env = vec![("INTENTD_DATABASE_MAX_CONNECTIONS".to_owned(), "10".to_owned())];
    let mut stack = Stack::with(Options { daemons: 0, env, ..Options::default() }).await;
    let (pooler, url) = pgbouncer(&stack, "pool_mode = session\ndefault_pool_size = 40").await;
    stack.options.database_url = Some(url);
    for name in ["one", "two", "three"] {
        stack.add_daemon(name).await;
    }
    let daemon = |index: usize| stack.daemons[index % 3].url.as_str();
    let (free, tight) = (stack.agent(json!({})).await, stack.agent(json!({"tx_daily_limit_eth": "0.01"})).await);
    let requests = (0..120).map(|index| {
        let agent = if index % 2 == 0 { &free } else { &tight }.at(daemon(index / 2));
        async move { agent.submit(pay("0.001")).await }
    });
    let replies = futures::future::join_all(requests).await;
    let statuses = |first: usize| replies.iter().skip(first).step_by(2).map(|reply| reply.status.as_u16());
    assert!(statuses(0).all(|status| status == 201), "{:?}", statuses(0).collect::<Vec<_>>());
    assert_eq!(statuses(1).filter(|status| *status == 201).count(), 10, "the limit is not exact");
    assert_eq!(statuses(1).filter(|status| *status == 403).count(), 50);
    stack.assert_settled("base", free.signer, 0, 60).await;
    stack.assert_settled("base", tight.signer, 0, 10).await;
    let window = "SELECT value_sum_wei FROM spending_windows WHERE agent_id = $1::uuid AND spend_group = 'eth'";
    let sum: Wei = sqlx::query_scalar(window).bind(&tight.id).fetch_one(&stack.db).await.unwrap();
    assert_eq!(sum, Wei::from_units("0.01").unwrap());
    // One key, sent to all of them at once, is one transaction.
    let same = (0..12).map(|index| {
        let agent = free.at(daemon(index));
        async move { agent.submit_with_key("once", pay("0.002")).await }
    });
    let replies = futures::future::join_all(same).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1, "{replies:?}");
    stack.assert_settled("base", free.signer, 0, 61).await;
    // What one daemon stored another reads.
    let vault = text(&stack.owner.post("/v1/vaults", &json!({"name": "pooled"})).await.expect(201), "id");
    for round in 0..12 {
        let path = format!("/v1/vaults/{vault}/secrets/s{round}");
        let value = json!({"value": format!("value {round}"), "type": "generic"});
        stack.owner.at(daemon(round)).put(&path, &value).await.expect(201);
        let read = stack.owner.at(daemon(round + 1)).get(&path).await.expect(200);
        assert_eq!(read["value"], format!("value {round}"));
    }
    pooler.stop(Signal::INT, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_daemon_behind_a_pooler_of_transactions_says_what_to_change_instead_of_starting() {
    let stack = Stack::with(Options { daemons: 0, chains: vec![], ..Options::default() }).await;
    let (pooler, url) = pgbouncer(&stack, "pool_mode = transaction\ndefault_pool_size = 40").await;
    // One that keeps no statements, and one that asks at a pooler that others have used.
    for cache in ["256", "0"] {
        let mut command = stack.command();
        let config = stack.install.root.join("pooled.toml");
        std::fs::write(&config, format!("[database]\nstatement_cache = {cache}\n")).unwrap();
        command.env("INTENTD_DATABASE_URL", &url).env("INTENTD_CONFIG", &config);
        let started = Daemon::try_start(command, &stack.install.root, &format!("pooled-{cache}")).await;
        let Err((_, said)) = started else { panic!("it started") };
        assert!(said.contains("pool_mode = session") && said.contains("max_prepared_statements"), "{said}");
    }
    pooler.stop(Signal::INT, Duration::from_secs(1)).await;
}
