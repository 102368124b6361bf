//! What strikes, and how it ends again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::random::Random;
use super::workload::Workload;
use super::{Arena, DAEMONS};
use crate::harness::daemon::Daemon;
use crate::harness::freeze::{Frozen, backends, signal_all};
use crate::harness::pg_proxy::Fault;
use crate::harness::rpc_proxy::Act;

/// How long a held COMMIT is waited for.
const COMMIT_COMES: Duration = Duration::from_secs(3);

/// How long Postgres may take to recover from a crash.
const RECOVERY: Duration = Duration::from_secs(60);

/// What there is to draw from. Each name stands in the table.
const KINDS: [&str; 18] = [
    "daemon killed (-9) at any time",
    "daemon killed at a COMMIT that signed",
    "daemon killed between COMMIT and broadcast",
    "daemon stopped and continued",
    "daemon terminated and restarted",
    "answer to COMMIT lost",
    "COMMIT lost",
    "Postgres crashed (-9)",
    "Postgres stopped and continued",
    "token's folder away",
    "node takes bytes, reply lost",
    "node silent",
    "node slow",
    "node answers 500 and rubbish",
    "node lies about nonces",
    "node lies about fees",
    "node of another chain",
    "chain reorganised or transaction dropped",
];

/// What has struck.
pub struct Faults {
    random: Random,
    pub struck: BTreeMap<&'static str, usize>,
    generation: usize,
}

impl Faults {
    pub fn new(random: Random) -> Self {
        Self { random, struck: BTreeMap::new(), generation: 0 }
    }

    pub fn total(&self) -> usize {
        self.struck.values().sum()
    }

    fn pause(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(from_ms + self.random.below(to_ms - from_ms))
    }

    fn any_daemon(&mut self) -> usize {
        usize::try_from(self.random.below(DAEMONS as u64)).unwrap()
    }

    /// One fault, from its beginning to a while after its end.
    pub async fn strike(&mut self, arena: &mut Arena, workload: &Workload) {
        let kind = KINDS[usize::try_from(self.random.below(KINDS.len() as u64)).unwrap()];
        *self.struck.entry(kind).or_default() += 1;
        match kind {
            "daemon killed (-9) at any time" => {
                let index = self.any_daemon();
                self.restart(arena, workload, index).await;
            }
            "daemon killed at a COMMIT that signed" => {
                arena.pg.arm(Fault::Hold);
                // Of whichever daemon it is, so all of them: nobody is left who knows.
                if tokio::time::timeout(COMMIT_COMES, arena.pg.struck()).await.is_ok() {
                    for daemon in &mut arena.stack.daemons {
                        daemon.kill();
                    }
                }
                arena.pg.disarm();
                arena.pg.release();
                for index in 0..DAEMONS {
                    self.restart(arena, workload, index).await;
                }
            }
            "daemon killed between COMMIT and broadcast" => {
                arena.rpc.on("eth_sendRawTransaction", Act::DropRequest);
                tokio::time::sleep(self.pause(200, 1_000)).await;
                let index = self.any_daemon();
                arena.stack.daemons[index].kill();
                arena.rpc.clear();
                self.restart(arena, workload, index).await;
            }
            "daemon stopped and continued" => {
                let index = self.any_daemon();
                arena.stack.daemons[index].signal(Signal::STOP);
                // Longer than a lease and a claim.
                tokio::time::sleep(self.pause(1_000, 6_000)).await;
                arena.stack.daemons[index].signal(Signal::CONT);
            }
            "daemon terminated and restarted" => {
                let index = self.any_daemon();
                arena.stack.daemons[index].signal(Signal::TERM);
                tokio::time::sleep(self.pause(0, 1_500)).await;
                self.restart(arena, workload, index).await;
            }
            "answer to COMMIT lost" => self.commits(arena, Fault::LoseAnswer).await,
            "COMMIT lost" => self.commits(arena, Fault::LoseCommit).await,
            "Postgres crashed (-9)" => {
                // One dies, and the postmaster ends all of them and recovers from the log, as after a power cut.
                signal_all(&backends(&arena.stack), Signal::KILL);
                tokio::time::sleep(self.pause(500, 2_000)).await;
            }
            "Postgres stopped and continued" => {
                let frozen = Frozen::postgres(&arena.stack);
                tokio::time::sleep(self.pause(500, 4_000)).await;
                drop(frozen);
            }
            "token's folder away" => {
                let tokens = arena.stack.install.root.join("token/tokens");
                let away = tokens.with_extension("away");
                std::fs::rename(&tokens, &away).unwrap();
                tokio::time::sleep(self.pause(300, 3_000)).await;
                let _ = std::fs::remove_dir_all(&tokens);
                std::fs::rename(&away, &tokens).unwrap();
            }
            "chain reorganised or transaction dropped" => self.chain(arena).await,
            node => self.node(arena, node).await,
        }
        tokio::time::sleep(self.pause(200, 1_500)).await;
    }

    /// Everything works again.
    pub async fn heal(&mut self, arena: &mut Arena, workload: &Workload) {
        arena.rpc.clear();
        arena.pg.disarm();
        arena.pg.release();
        for index in 0..DAEMONS {
            self.restart(arena, workload, index).await;
        }
    }

    /// kill -9, and another one in its place, as a supervisor would: it starts again what cannot start while Postgres recovers.
    async fn restart(&mut self, arena: &mut Arena, workload: &Workload, index: usize) {
        arena.stack.daemons[index].kill();
        self.generation += 1;
        let (name, root) = (format!("daemon-{index}-{}", self.generation), arena.stack.install.root.clone());
        let deadline = Instant::now() + RECOVERY;
        let daemon = loop {
            match Daemon::try_start(arena.stack.command(), &root, &name).await {
                Ok(daemon) => break daemon,
                Err((status, log)) => assert!(Instant::now() < deadline, "{name} ends with {status}:\n{log}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        workload.moved(index, &daemon.url);
        arena.stack.daemons[index] = daemon;
    }

    async fn commits(&mut self, arena: &Arena, fault: Fault) {
        for _ in 0..3 {
            arena.pg.arm(fault);
            let _ = tokio::time::timeout(COMMIT_COMES, arena.pg.struck()).await;
        }
        arena.pg.disarm();
    }

    async fn chain(&mut self, arena: &Arena) {
        let anvil = arena.stack.chain();
        if self.random.one_in(2) {
            let depth = 1 + self.random.below(3);
            anvil.request("anvil_reorg", json!([depth, []])).await;
            return;
        }
        for _ in 0..4 {
            let pool = anvil.request("txpool_content", json!([])).await;
            let hashes: Vec<Value> = pool["pending"]
                .as_object()
                .into_iter()
                .flat_map(|senders| senders.values())
                .flat_map(|nonces| nonces.as_object().unwrap().values().map(|tx| tx["hash"].clone()))
                .collect();
            if let Some(hash) = hashes.get(usize::try_from(self.random.below(hashes.len().max(1) as u64)).unwrap()) {
                anvil.request("anvil_dropTransaction", json!([hash])).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn node(&mut self, arena: &Arena, kind: &str) {
        let rpc = &arena.rpc;
        match kind {
            "node takes bytes, reply lost" => rpc.on("eth_sendRawTransaction", Act::DropReply),
            "node silent" => rpc.freeze(),
            "node slow" => rpc.on_everything(Act::Delay(self.pause(200, 2_000))),
            "node answers 500 and rubbish" => {
                rpc.on_everything(if self.random.one_in(2) {
                    Act::Http(500)
                } else {
                    Act::Garbage(b"<html>".to_vec())
                });
            }
            "node lies about nonces" => {
                let (up, by) = (self.random.one_in(2), 1 + self.random.below(5));
                rpc.on("eth_getTransactionCount", Act::edit(move |_, answer| shifted(&answer, up, by)));
            }
            "node lies about fees" => {
                let lie = if self.random.one_in(2) { json!("0x1") } else { json!("0xffffffffffffffff") };
                rpc.on("eth_gasPrice", Act::Answer(lie.clone()));
                rpc.on("eth_maxPriorityFeePerGas", Act::Answer(lie.clone()));
                rpc.on(
                    "eth_feeHistory",
                    Act::edit(move |_, mut answer| {
                        if let Some(fees) = answer["baseFeePerGas"].as_array_mut() {
                            fees.fill(lie.clone());
                        }
                        answer
                    }),
                );
            }
            "node of another chain" => {
                rpc.on("eth_chainId", Act::Answer(json!("0x1")));
                rpc.hang_up();
            }
            other => unreachable!("{other} is no kind"),
        }
        tokio::time::sleep(self.pause(500, 4_000)).await;
        rpc.clear();
        if self.random.one_in(3) {
            rpc.hang_up();
        }
    }
}

/// A quantity that is a little too high or too low.
fn shifted(answer: &Value, up: bool, by: u64) -> Value {
    let Some(digits) = answer.as_str().and_then(|text| text.strip_prefix("0x")) else { return answer.clone() };
    let count = u64::from_str_radix(digits, 16).unwrap();
    json!(format!("{:#x}", if up { count + by } else { count.saturating_sub(by) }))
}
