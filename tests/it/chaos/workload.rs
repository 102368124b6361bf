//! Agents that submit and sign, and ask again with the same key until they know what became of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256, U256};
use intentd::money::Wei;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Field;
use super::random::Random;
use crate::harness::client::Client;
use crate::harness::stack::{Agent, hash, text};

/// Tasks of one agent.
const WORKERS: usize = 2;
/// How long one answer may take. Postgres may stand still for a while, and the pipeline with it.
const PATIENCE: Duration = Duration::from_secs(20);
/// After the end, how long somebody still asks what became of something.
const LAST_ASKS: Duration = Duration::from_secs(60);

/// What an agent knows of one of its intents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// 200 or 201: id, hash, nonce.
    Acknowledged { id: Uuid, tx_hash: B256, nonce: u64 },
    /// 4xx: nothing was signed.
    Refused(u16),
    /// No answer, or only "could not check", to the end.
    Nothing,
}

/// One intent, to a recipient of its own: what the recipient has in the end tells how often it was paid.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub agent: usize,
    pub sign_only: bool,
    pub recipient: Address,
    pub value: Wei,
    pub known: Known,
    /// What was answered on the way, by status; 0 is a connection that broke.
    pub answers: BTreeMap<u16, usize>,
    /// What the same key was answered later, if it was another transaction.
    pub contradicted: Option<Known>,
}

/// Where the daemons are now, and what has been tried.
pub struct Workload {
    daemons: Mutex<Vec<String>>,
    node: String,
    attempts: Mutex<Vec<Attempt>>,
}

impl Workload {
    pub fn new(arena: &Field) -> Self {
        let daemons = arena.stack.daemons.iter().map(|daemon| daemon.url.clone()).collect();
        Self { daemons: Mutex::new(daemons), node: arena.stack.chain().url(), attempts: Mutex::default() }
    }

    /// A daemon came back at another address.
    pub fn moved(&self, index: usize, url: &str) {
        self.daemons.lock().unwrap()[index] = url.to_owned();
    }

    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap().clone()
    }

    /// How many intents were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        let attempts = self.attempts.lock().unwrap();
        attempts.iter().filter(|attempt| matches!(attempt.known, Known::Acknowledged { .. })).count()
    }

    pub fn summary(&self) -> String {
        let attempts = self.attempts.lock().unwrap();
        let of = |is: fn(&Known) -> bool| attempts.iter().filter(|attempt| is(&attempt.known)).count();
        format!(
            "{} acknowledged, {} refused, {} unknown",
            of(|known| matches!(known, Known::Acknowledged { .. })),
            of(|known| matches!(known, Known::Refused(_))),
            of(|known| *known == Known::Nothing)
        )
    }

    pub fn start(
        self: &Arc<Self>,
        agents: &[Agent],
        mut random: Random,
        stop: &CancellationToken,
    ) -> Vec<JoinHandle<()>> {
        let mut workers = Vec::new();
        for (index, agent) in agents.iter().enumerate() {
            for _ in 0..WORKERS {
                let (this, agent, random, stop) = (Arc::clone(self), agent.clone(), random.fork(), stop.clone());
                workers.push(tokio::spawn(async move { this.work(index, &agent, random, &stop).await }));
            }
        }
        workers
    }

    async fn work(&self, index: usize, agent: &Agent, mut random: Random, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let attempt = self.one(index, agent, &mut random, stop).await;
            self.attempts.lock().unwrap().push(attempt);
            let rest = Duration::from_millis(50 + random.below(300));
            tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(rest) => {} }
        }
    }

    /// One intent, to the end of what can be known about it.
    async fn one(&self, index: usize, agent: &Agent, random: &mut Random, stop: &CancellationToken) -> Attempt {
        let recipient = Address::from(*<&[u8; 20]>::try_from(&random_bytes(random)[..20]).unwrap());
        let value = Wei(U256::from(100_000_000_000_000_u64 + random.below(900) * 1_000_000_000_000));
        // The first agent's limit ends its submits, and nothing would close the nonces of bytes behind them.
        let sign_only = index > 0 && random.one_in(8);
        let mut body = json!({"to": recipient, "value": value.to_units(), "chain": "base"});
        if !sign_only && random.one_in(6) {
            body["simulate_first"] = json!(true);
        }
        let key = Uuid::new_v4().to_string();
        let path = if sign_only { format!("{}/sign", agent.path()) } else { agent.path() };
        let mut attempt = Attempt {
            agent: index,
            sign_only,
            recipient,
            value,
            known: Known::Nothing,
            answers: BTreeMap::new(),
            contradicted: None,
        };
        let mut last_ask: Option<Instant> = None;
        loop {
            let daemon = {
                let daemons = self.daemons.lock().unwrap();
                daemons[usize::try_from(random.below(daemons.len() as u64)).unwrap()].clone()
            };
            let request = agent.client.at(&daemon).request(Method::POST, &path);
            let request = request.header("Idempotency-Key", &key).timeout(PATIENCE).json(&body);
            let (status, answer) = match Client::try_send(request).await {
                Ok(reply) => (reply.status.as_u16(), reply.body),
                Err(_) => (0, Value::Null),
            };
            *attempt.answers.entry(status).or_default() += 1;
            match status {
                200 | 201 => {
                    if sign_only && random.one_in(2) {
                        self.send_past_the_daemon(&answer).await;
                    }
                    let told = acknowledged(&answer);
                    if attempt.known != Known::Nothing {
                        attempt.contradicted = (attempt.known != told).then_some(told);
                        return attempt;
                    }
                    attempt.known = told;
                    // Somebody who has lost the answer asks again, somewhere else.
                    if !random.one_in(4) {
                        return attempt;
                    }
                }
                400..=499 if ![408, 409, 425, 429].contains(&status) => {
                    let told = Known::Refused(status);
                    if attempt.known == Known::Nothing {
                        attempt.known = told;
                    } else {
                        attempt.contradicted = Some(told);
                    }
                    return attempt;
                }
                _ => {}
            }
            if stop.is_cancelled() && last_ask.get_or_insert_with(Instant::now).elapsed() > LAST_ASKS {
                return attempt;
            }
            tokio::time::sleep(Duration::from_millis(100 + random.below(400))).await;
        }
    }

    /// Signed bytes are their agent's to send, when and where it likes.
    async fn send_past_the_daemon(&self, answer: &Value) {
        let body =
            json!({"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [answer["signed_tx"]]});
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let _ = client.post(&self.node).json(&body).timeout(PATIENCE).send().await;
    }
}

fn acknowledged(answer: &Value) -> Known {
    let id = answer.get("id").map_or_else(Uuid::nil, |_| text(answer, "id").parse().unwrap());
    Known::Acknowledged { id, tx_hash: hash(answer), nonce: answer["nonce"].as_u64().unwrap() }
}

fn random_bytes(random: &mut Random) -> [u8; 24] {
    let mut bytes = [0; 24];
    for eight in bytes.chunks_mut(8) {
        eight.copy_from_slice(&random.next().to_be_bytes());
    }
    // No precompile, and nobody else's.
    bytes[0] |= 0x80;
    bytes
}
