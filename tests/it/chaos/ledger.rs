//! At the end: rows, chain and audit trail held against each other, and against what the agents were told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use alloy::primitives::{Address, U256};
use futures::StreamExt as _;
use intentd::audit::rules::Trail;
use intentd::audit::verify::{Cursor, verify};
use intentd::money::Wei;
use serde_json::json;
use uuid::Uuid;

use super::faults::Faults;
use super::workload::{Attempt, Known};
use super::{Field, TIGHT_LIMIT};
use crate::harness::stack::{TO, until};

/// By when everything must have come to its end.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);

/// What was found. Each list names what is wrong.
#[derive(Default)]
pub struct Verdict {
    pub paid: usize,
    pub failed: usize,
    pub closed: usize,
    lost: Vec<String>,
    double: Vec<String>,
    gaps: Vec<String>,
    breaches: Vec<String>,
    audit: Vec<String>,
    open: Vec<String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    agent_id: Uuid,
    to_address: Vec<u8>,
    nonce: i64,
    state: String,
    outcome: Option<String>,
    error_message: Option<String>,
    hashes: Vec<Vec<u8>>,
}

/// Waits until every nonce is settled, then compares.
pub async fn settle_and_compare(arena: &Field, attempts: &[Attempt]) -> Verdict {
    let mut verdict = Verdict::default();
    close_tails(arena).await;
    settle(arena, &mut verdict).await;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT i.id, i.agent_id, i.to_address, s.nonce, s.state, s.outcome, s.error_message,
                ARRAY(SELECT a.tx_hash FROM attempts a
                      WHERE a.chain_id = s.chain_id AND a.address = s.address AND a.nonce = s.nonce) AS hashes
         FROM intents i JOIN slots s ON s.intent_id = i.id",
    )
    .fetch_all(&arena.stack.db)
    .await
    .unwrap();
    money(arena, attempts, &rows, &mut verdict).await;
    nonces(arena, &mut verdict).await;
    windows(arena, &mut verdict).await;
    audit(arena, &mut verdict).await;
    verdict
}

/// Bytes that were only signed are closed when a later transaction of the key waits for them: here is one.
async fn close_tails(arena: &Field) {
    for agent in &arena.agents[1..] {
        let agent = agent.at(&arena.stack.daemons[0].url);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let reply = agent.submit(json!({"to": TO, "value": "0.0001", "chain": "base"})).await;
            if reply.status == 201 || Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn settle(arena: &Field, verdict: &mut Verdict) {
    let open = "SELECT count(*) FROM slots s WHERE state <> 'final' AND NOT (sign_only AND NOT EXISTS (
                    SELECT 1 FROM slots l WHERE l.chain_id = s.chain_id AND l.address = s.address AND l.nonce > s.nonce AND NOT l.sign_only))";
    let deadline = Instant::now() + SETTLED_WITHIN;
    while arena.stack.count(open).await > 0 {
        if Instant::now() > deadline {
            let left: Vec<(i64, Vec<u8>, String, Option<String>)> = sqlx::query_as(
                "SELECT nonce, address, state, error_message FROM slots WHERE state <> 'final' ORDER BY address, nonce LIMIT 10",
            )
            .fetch_all(&arena.stack.db)
            .await
            .unwrap();
            let name = |(nonce, address, state, error): (i64, Vec<u8>, String, Option<String>)| {
                format!("nonce {nonce} of {} is {state} ({})", Address::from_slice(&address), error.unwrap_or_default())
            };
            verdict.open.extend(left.into_iter().map(name));
            // Whether it is the node that keeps them.
            verdict
                .open
                .push(format!("the node's pool: {}", arena.stack.chain().request("txpool_inspect", json!([])).await));
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What every recipient has, against what was promised.
async fn money(arena: &Field, attempts: &[Attempt], rows: &[Row], verdict: &mut Verdict) {
    let mut by_recipient: BTreeMap<Address, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_recipient.entry(Address::from_slice(&row.to_address)).or_default().push(row);
    }
    let chain = arena.stack.chain();
    let balances: Vec<(&Attempt, U256)> = futures::stream::iter(attempts)
        .map(|attempt| async move { (attempt, chain.balance(attempt.recipient).await) })
        .buffer_unordered(32)
        .collect()
        .await;
    let mut spent: BTreeMap<usize, U256> = BTreeMap::new();
    for (attempt, balance) in balances {
        let signed = by_recipient.get(&attempt.recipient).map(Vec::as_slice).unwrap_or_default();
        let about = || {
            let rows: Vec<_> = signed.iter().map(|row| (row.id, row.nonce, &row.state, &row.outcome)).collect();
            format!("{:?} to {} ({balance} wei): {rows:?}", attempt.known, attempt.recipient)
        };
        *spent.entry(attempt.agent).or_default() += balance;
        let is_paid = balance == attempt.value.0;
        verdict.paid += usize::from(is_paid);
        if balance > attempt.value.0 || signed.len() > 1 || attempt.contradicted.is_some() {
            verdict.double.push(format!("{}, later {:?}", about(), attempt.contradicted));
        }
        let Some(row) = signed.first() else {
            // Nothing was signed: right for whoever was refused or knows nothing, and nothing was paid.
            if balance > U256::ZERO || matches!(attempt.known, Known::Acknowledged { .. }) {
                verdict.lost.push(about());
            }
            continue;
        };
        let as_told = match &attempt.known {
            Known::Acknowledged { id, tx_hash, nonce } => {
                let id = *id == row.id || attempt.sign_only && id.is_nil();
                id && *nonce == row.nonce.unsigned_abs() && row.hashes.iter().any(|hash| hash == tx_hash.as_slice())
            }
            Known::Refused(_) => false,
            Known::Nothing => true,
        };
        let as_is = match row.outcome.as_deref() {
            Some("success") => is_paid,
            Some("cancelled") => {
                verdict.closed += 1;
                !is_paid && (attempt.sign_only || row.error_message.is_some())
            }
            Some(_) => {
                verdict.failed += 1;
                !is_paid && row.error_message.is_some()
            }
            // Signed bytes that nobody sent, and no later transaction waits for.
            None => attempt.sign_only && !is_paid,
        };
        if !as_told || !as_is || row.agent_id.to_string() != arena.agents[attempt.agent].id {
            verdict.lost.push(about());
        }
    }
    let limit = Wei::from_units(TIGHT_LIMIT).unwrap().0;
    let tight = spent.get(&0).copied().unwrap_or_default();
    if tight > limit {
        verdict.breaches.push(format!("{tight} wei were paid under a limit of {limit}"));
    }
    if tight < limit / U256::from(2) && attempts.len() > 500 {
        verdict.breaches.push(format!("only {tight} wei of {limit}: the limit was not put to the test"));
    }
}

/// Contiguous slots, and as many on the chain.
async fn nonces(arena: &Field, verdict: &mut Verdict) {
    for signer in arena.agents.iter().map(|agent| agent.signer).collect::<BTreeSet<_>>() {
        let slots = arena.stack.slots(8453, signer).await;
        let expected: Vec<u64> = (0..slots.len() as u64).collect();
        if slots.iter().map(|(nonce, _)| *nonce).collect::<Vec<_>>() != expected {
            verdict
                .gaps
                .push(format!("{signer} has nonces {:?}", slots.iter().map(|(nonce, _)| nonce).collect::<Vec<_>>()));
        }
        let settled = slots.iter().filter(|(_, state)| state == "final").count() as u64;
        let mined = arena.stack.chain().nonce(signer).await;
        if mined != settled {
            verdict.gaps.push(format!("{signer}: {settled} settled, {mined} on the chain"));
        }
    }
}

/// Every signature has its entry, and running sums are those of their entries.
async fn windows(arena: &Field, verdict: &mut Verdict) {
    let without = "SELECT count(*) FROM intents i JOIN slots s ON s.intent_id = i.id
                   WHERE NOT EXISTS (SELECT 1 FROM spends p WHERE p.intent_id = i.id
                                     AND (p.value_wei = i.value_wei OR s.outcome = 'cancelled' AND p.value_wei = 0))";
    let without = arena.stack.count(without).await;
    if without > 0 {
        verdict.breaches.push(format!("{without} signatures have no entry in a window"));
    }
    let wrong: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT w.agent_id, w.spend_group FROM spending_windows w
         WHERE w.value_sum_wei <> (SELECT coalesce(sum(value_wei), 0) FROM spends s
                                   WHERE s.agent_id = w.agent_id AND s.spend_group = w.spend_group AND s.counted)",
    )
    .fetch_all(&arena.stack.db)
    .await
    .unwrap();
    verdict
        .breaches
        .extend(wrong.iter().map(|(agent, unit)| format!("the sum of {unit} of {agent} is not that of its entries")));
}

/// Every intent and every end has its event, and none is altered.
async fn audit(arena: &Field, verdict: &mut Verdict) {
    for (what, sql) in [
        (
            "signed without an event",
            "SELECT count(*) FROM intents i JOIN slots s ON s.intent_id = i.id WHERE NOT EXISTS (
                 SELECT 1 FROM audit_events e WHERE e.resource_id = i.id::text AND e.details ->> 'outcome' = 'signed'
                   AND e.action IN ('transaction.submit', 'transaction.sign'))",
        ),
        (
            "settled without an event",
            "SELECT count(*) FROM intents i JOIN slots s ON s.intent_id = i.id WHERE s.state = 'final' AND NOT EXISTS (
                 SELECT 1 FROM audit_events e WHERE e.resource_id = i.id::text AND e.action = 'transaction.final')",
        ),
        (
            "events of a signature that is not there",
            "SELECT count(*) FROM audit_events e
                 WHERE e.details ->> 'outcome' = 'signed' AND e.action IN ('transaction.submit', 'transaction.sign')
                 AND NOT EXISTS (SELECT 1 FROM intents i WHERE i.id::text = e.resource_id)",
        ),
    ] {
        let count = arena.stack.count(sql).await;
        if count > 0 {
            verdict.audit.push(format!("{count} {what}"));
        }
    }
    // Whoever died while linking or signing: every event has its place, and every checkpoint fits.
    let linked = async || arena.stack.count("SELECT count(*) FROM audit_unlinked").await == 0;
    until(Duration::from_secs(60), "every event has its link", linked).await;
    let db = &arena.stack.db;
    let keys = intentd::audit::store::trail::keys(&mut db.acquire().await.unwrap()).await.unwrap();
    let trail = Trail(Some(arena.stack.org_id.parse().unwrap()));
    let mut cursor = Some(Cursor::START);
    while let Some(at) = cursor {
        let walked = verify(db, trail, at, &keys).await.unwrap();
        verdict.audit.extend(walked.broken.map(|broken| format!("{}: {}", broken.kind.as_str(), broken.detail)));
        cursor = walked.next;
    }
}

impl Verdict {
    pub fn table(&self, seed: u64, seconds: u64, faults: &Faults, attempts: &[Attempt]) -> String {
        let of = |is: fn(&Known) -> bool| attempts.iter().filter(|attempt| is(&attempt.known)).count();
        let mut answers: BTreeMap<u16, usize> = BTreeMap::new();
        for (status, count) in attempts.iter().flat_map(|attempt| &attempt.answers) {
            *answers.entry(*status).or_default() += count;
        }
        let mut table = format!("\nchaos, {seconds} s, seed {seed}, {} daemons\n", super::DAEMONS);
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(table, "  {name:<44} {value:>8}");
        };
        line("intents", &attempts.len());
        line("  acknowledged", &of(|known| matches!(known, Known::Acknowledged { .. })));
        line("  refused by a rule", &of(|known| matches!(known, Known::Refused(_))));
        line("  never answered for sure", &of(|known| *known == Known::Nothing));
        for (status, count) in &answers {
            let name = if *status == 0 { "  connections broken".to_owned() } else { format!("  answers {status}") };
            line(&name, count);
        }
        line("faults", &faults.total());
        for (kind, count) in &faults.struck {
            line(&format!("  {kind}"), count);
        }
        line("paid", &self.paid);
        line("failed with a reason", &self.failed);
        line("nonces closed", &self.closed);
        for (name, list) in self.wrongs() {
            line(name, &list.len());
        }
        table
    }

    fn wrongs(&self) -> [(&'static str, &Vec<String>); 6] {
        [
            ("LOST", &self.lost),
            ("PAID TWICE, or though refused", &self.double),
            ("NONCE GAPS", &self.gaps),
            ("LIMIT BREACHES", &self.breaches),
            ("AUDIT BREAKS", &self.audit),
            ("NOT SETTLED IN TIME", &self.open),
        ]
    }

    pub fn assert_clean(&self) {
        let all: Vec<String> = self
            .wrongs()
            .iter()
            .flat_map(|(name, list)| list.iter().take(20).map(move |one| format!("{name}: {one}")))
            .collect();
        assert!(all.is_empty(), "{}", all.join("\n"));
    }
}
