//! A primary whose commits wait for a standby, three daemons that know of both, and agents that submit. The primary dies, or falls silent and
//! comes back, and the standby takes over: what was acknowledged is there, and is paid once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use intentd::dev::postgres::{Cluster, ClusterOptions, NAME};
use intentd::dev::user;
use rustix::process::Signal;
use sqlx::PgPool;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::chaos::random::Random;
use crate::chaos::workload::Workload;
use crate::chaos::{Field, ledger};
use crate::harness::freeze::{Frozen, backends, kill_cluster, signal_all};
use crate::harness::stack::{Stack, pay, until};

const SOON: Duration = Duration::from_secs(60);
const SEED: u64 = 20_261_122;

/// A copy of the stack's cluster that follows it and can take its place. Commits of the stack's wait for it from now on.
async fn standby(stack: &Stack) -> Cluster {
    let owner = user::for_postgres().unwrap();
    let root = &stack.install.root;
    let data = root.join("pg-standby");
    user::make_private_folder(&data, owner.as_ref()).unwrap();
    let server = std::fs::read_link(format!("/proc/{}/exe", stack.postgres.server().pid())).unwrap();
    let mut copy = Command::new(server.with_file_name("pg_basebackup"));
    if let Some(user) = &owner {
        copy.uid(user.uid).gid(user.gid).env("HOME", "/");
    }
    copy.current_dir("/").args(["-U", NAME, "-R", "-X", "stream", "-c", "fast", "-h"]).arg(stack.postgres.socket());
    let done = copy.arg("-D").arg(&data).output().await.unwrap();
    assert!(done.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&done.stderr));
    // It names the socket of the cluster that it was copied from.
    std::fs::remove_file(data.join("intentd.socket")).unwrap();
    let cluster = start(data, root, owner).await;
    stack.sql("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    stack.sql("SELECT pg_reload_conf()").await;
    let follows = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    until(SOON, "the standby follows", async || stack.count(follows).await == 1).await;
    cluster
}

async fn start(data: PathBuf, root: &Path, owner: Option<user::User>) -> Cluster {
    let settings = ["shared_buffers=32MB", "max_connections=200"].map(str::to_owned).to_vec();
    let log = root.join("standby.log");
    Cluster::start(ClusterOptions { data, log, owner, settings, bound: true }).await.unwrap()
}

/// Daemons on both servers, and agents at work.
struct Pair {
    field: Field,
    standby: Option<Cluster>,
    workload: Arc<Workload>,
    workers: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Pair {
    async fn at_work() -> Self {
        let mut stack = Stack::with(Field::options()).await;
        let standby = standby(&stack).await;
        // The standby comes first: the order says nothing.
        stack.options.database_url = Some(format!("{},{}", standby.url(NAME), stack.postgres.url(NAME)));
        let places = stack.install.root.clone();
        stack.options.env.push(("TMPDIR".to_owned(), places.display().to_string()));
        let field = Field::of(stack).await;
        let stop = CancellationToken::new();
        let workload = Arc::new(Workload::new(&field));
        let workers = workload.start(&field.agents, Random::new(SEED), &stop);
        let pair = Self { field, standby: Some(standby), workload, workers, stop };
        pair.more(20).await;
        pair
    }

    async fn more(&self, count: usize) {
        let before = self.workload.acknowledged();
        until(SOON, "intents are acknowledged", async || self.workload.acknowledged() >= before + count).await;
    }

    /// What each daemon says of the database.
    async fn databases(&self) -> Vec<String> {
        let mut told = Vec::new();
        for daemon in &self.field.stack.daemons {
            let shown = self.field.stack.owner.by(None).at(&daemon.url).get("/v1/health").await.expect(200);
            assert_eq!(shown["status"] == "healthy", shown["database"] == "ok", "{shown}");
            told.push(shown["database"].as_str().unwrap().to_owned());
        }
        told
    }

    async fn all_say(&self, database: &str) {
        let same = async || self.databases().await.iter().all(|told| told == database);
        until(SOON, &format!("every daemon says that the database is {database}"), same).await;
    }

    /// Each daemon refuses, and says when to come back.
    async fn all_unavailable(&self) {
        for daemon in &self.field.stack.daemons {
            let reply = self.field.agents[2].at(&daemon.url).submit(pay("0.0001")).await;
            assert_eq!(reply.status, 503, "{}", reply.body);
            assert!(reply.headers.contains_key("retry-after"), "{:?}", reply.headers);
        }
    }

    /// The standby becomes the primary, and what the test looks at. Returns the former one.
    async fn promote(&mut self) -> Cluster {
        let standby = self.standby.take().unwrap();
        let db = PgPool::connect(&standby.url(NAME)).await.unwrap();
        let done: bool = sqlx::query_scalar("SELECT pg_promote(true, 60)").fetch_one(&db).await.unwrap();
        assert!(done, "the standby was not promoted");
        self.field.stack.db = db;
        std::mem::replace(&mut self.field.stack.postgres, standby)
    }

    async fn assert_nothing_lost(mut self) {
        self.more(40).await;
        self.all_say("ok").await;
        self.stop.cancel();
        for worker in std::mem::take(&mut self.workers) {
            worker.await.unwrap();
        }
        let attempts = self.workload.attempts();
        let verdict = ledger::settle_and_compare(&self.field, &attempts).await;
        eprintln!("{}", self.workload.summary());
        verdict.assert_clean();
        assert!(verdict.paid > 40, "hardly anything was paid: this shows nothing");
    }

    /// How many transactions of the agents' keys the chain has.
    async fn sent(&self) -> u64 {
        let signers: BTreeSet<_> = self.field.agents.iter().map(|agent| agent.signer).collect();
        let mut sent = 0;
        for signer in signers {
            sent += self.field.stack.chain().nonce(signer).await;
        }
        sent
    }

    /// The first that has moved may have signed for some time before the last does.
    async fn all_move(&self) {
        let moved = "the database's primary is another server: moved there";
        let all = async || self.field.stack.daemons.iter().all(|daemon| daemon.log_text().contains(moved));
        until(SOON, "every daemon has moved", all).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_44_a_primary_that_dies_loses_nothing_that_was_acknowledged() {
    let mut pair = Pair::at_work().await;
    kill_cluster(&mut pair.field.stack.postgres).await;
    pair.all_say("unavailable").await;
    pair.all_unavailable().await;
    let _dead = pair.promote().await;
    pair.more(10).await;
    pair.all_move().await;
    pair.assert_nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_44_a_primary_that_falls_silent_and_comes_back_is_never_gone_back_to() {
    let mut pair = Pair::at_work().await;
    let silent = Frozen::cluster(&pair.field.stack.postgres);
    pair.all_say("unavailable").await;
    let former = pair.promote().await;
    // What hangs at the silent one holds no lane up.
    pair.more(20).await;
    pair.all_move().await;
    drop(silent);
    // Both take writes now, and only one has a standby's place to fill.
    let old = PgPool::connect(&former.url(NAME)).await.unwrap();
    let theirs = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'intentd' AND query NOT LIKE '%pg_is_in_recovery%'";
    let gone = async || sqlx::query_scalar::<_, i64>(theirs).fetch_one(&old).await.unwrap() == 0;
    until(SOON, "no daemon has anything at the former primary", gone).await;
    pair.assert_nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_44_without_its_standby_nothing_is_acknowledged_and_health_says_so() {
    let mut pair = Pair::at_work().await;
    kill_cluster(pair.standby.as_mut().unwrap()).await;
    // Longer than the time-out of T1's statements, which must not end the wait of its COMMIT.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'
                   AND application_name = 'intentd' AND query_start < clock_timestamp() - interval '7 seconds'";
    let stack = &pair.field.stack;
    until(SOON, "commits wait", async || stack.count(waiting).await > 0).await;
    let acknowledged = pair.workload.acknowledged();
    pair.all_say("unavailable").await;
    let sent = pair.sent().await;
    // The server recovers from a crash, and shows what only it has. Neither the look for an outcome nor a replay believes it.
    let unseen = "SELECT count(*) FROM intents";
    let before = stack.count(unseen).await;
    signal_all(&backends(stack), Signal::KILL);
    let recovered = async || {
        let count = sqlx::query_scalar::<_, i64>(unseen).fetch_one(&stack.db).await;
        count.is_ok_and(|count| count > before)
    };
    until(SOON, "what was only committed here is visible", recovered).await;
    until(SOON, "commits wait again", async || stack.count(waiting).await > 0).await;
    pair.all_say("unavailable").await;
    assert_eq!(pair.workload.acknowledged(), acknowledged, "acknowledged without a standby");
    assert_eq!(pair.sent().await, sent, "bytes left without a standby");
    // An operator decides to go on without one.
    let stack = &pair.field.stack;
    stack.sql("ALTER SYSTEM SET synchronous_standby_names = ''").await;
    stack.sql("SELECT pg_reload_conf()").await;
    pair.assert_nothing_lost().await;
}
