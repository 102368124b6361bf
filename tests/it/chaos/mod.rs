//! Everything dies, lies and stalls while agents submit, and at the end rows, chain and audit trail are held against each other.
//!
//! The daemons, Postgres, the token and the chain are real. Between the daemons and Postgres, and between them and the node, stand the
//! proxies that also serve other tests. What strikes when is drawn from a seed, which the table names: `anvil/chaos --seed N` draws the
//! same again (the machine's own timing is not part of it). Without further words it lasts three minutes, in the suite.

mod faults;
pub mod ledger;
pub mod random;
pub mod workload;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use faults::Faults;
use random::Random;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use workload::Workload;

use crate::harness::pg_proxy::PgProxy;
use crate::harness::rpc_proxy::RpcProxy;
use crate::harness::stack::{Agent, Options, Stack, fresh_scalar};

/// Daemons on one database, one token and one chain.
const DAEMONS: usize = 3;
/// What one of the agents may spend, in ETH: it is meant to be reached.
const TIGHT_LIMIT: &str = "0.05";

/// A number of the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// What is compared at the end.
pub struct Field {
    pub stack: Stack,
    /// The first has [`TIGHT_LIMIT`].
    pub agents: Vec<Agent>,
}

impl Field {
    /// With all daemons running.
    pub async fn of(mut stack: Stack) -> Self {
        for index in 0..DAEMONS {
            stack.add_daemon(&format!("daemon-{index}")).await;
        }
        let shared = fresh_scalar();
        let agents = vec![
            stack.agent(json!({"tx_daily_limit_eth": TIGHT_LIMIT})).await,
            stack.agent(json!({"tx_max_value_eth": "0.01", "tx_max_per_day": 1_000_000})).await,
            stack.agent(json!({"tx_daily_limit_eth": "500"})).await,
            // Two agents on one key: one lane, two windows.
            stack.agent_with_key(json!({"tx_daily_limit_eth": "500"}), &shared).await,
            stack.agent_with_key(json!({}), &shared).await,
        ];
        Self { stack, agents }
    }

    /// What its stack is made of: three daemons will be added.
    pub fn options() -> Options {
        let env = [
            ("INTENTD_CLAIM_LEASE_S", "2"),
            ("INTENTD_FOREIGN_FILL_BLOCKS", "3"),
            ("INTENTD_DATABASE_MAX_CONNECTIONS", "12"),
        ];
        Options {
            daemons: 0,
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            postgres: vec!["max_connections=100"],
            anvil: |_, anvil| anvil.block_time_s = Some(1),
            confirmations: 5,
            sign_only_ttl_s: 5,
            // anvil keeps for ever what comes out of order while it mines: only other bytes for the nonce get a lane going again.
            chain_toml: "bump_after_s = 8\nbump_max = 24",
            ..Options::default()
        }
    }
}

/// What is under attack.
pub struct Arena {
    field: Field,
    pub pg: PgProxy,
    pub rpc: RpcProxy,
}

impl Deref for Arena {
    type Target = Field;

    fn deref(&self) -> &Field {
        &self.field
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut Field {
        &mut self.field
    }
}

impl Arena {
    async fn set() -> Self {
        let rpc = RpcProxy::start("http://127.0.0.1:1");
        let options = Options { rpc_urls: [("base", rpc.url())].into(), ..Field::options() };
        let mut stack = Stack::with(options).await;
        rpc.forward_to(&stack.chain().url());
        let pg = PgProxy::start(stack.postgres.socket(), intentd::dev::postgres::NAME).await;
        stack.options.database_url = Some(pg.url());
        Self { field: Field::of(stack).await, pg, rpc }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_44_whatever_dies_every_intent_is_paid_once_or_failed_with_a_reason() {
    let seconds = setting("INTENTD_CHAOS_SECONDS", 150);
    let seed = setting("INTENTD_CHAOS_SEED", 20_261_121);
    eprintln!("chaos: {seconds} s, seed {seed} (the same again: anvil/chaos --seconds {seconds} --seed {seed})");
    let mut arena = Arena::set().await;
    let stop = CancellationToken::new();
    let workload = Arc::new(Workload::new(&arena));
    let workers = workload.start(&arena.agents, Random::new(seed), &stop);

    let mut faults = Faults::new(Random::new(seed ^ 0xfa17));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut told = Instant::now();
    while Instant::now() < end {
        faults.strike(&mut arena, &workload).await;
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            eprintln!("chaos: {} s to go, {}", (end - Instant::now()).as_secs(), workload.summary());
        }
    }
    faults.heal(&mut arena, &workload).await;
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
    let attempts = workload.attempts();
    let verdict = ledger::settle_and_compare(&arena, &attempts).await;
    eprintln!("{}", verdict.table(seed, seconds, &faults, &attempts));
    verdict.assert_clean();
    assert!(verdict.paid > 20, "hardly anything was paid: this shows nothing");
    assert!(faults.total() > 10, "hardly anything struck: this shows nothing");
}
