//! What an intent costs after a long history: nothing more, or so it should be.

use alloy::primitives::U256;
use serde_json::json;

use crate::Plan;
use crate::harness::stack::{Agent, pay};
use crate::report::Report;
use crate::world::{World, payers};

/// Transactions, and as many audit events, in the past of the same agents and keys.
const HISTORIES: [i64; 3] = [0, 100_000, 1_000_000];
const AGENTS: i64 = 8;
/// The keys' first nonce here: all of the past fits below it.
const FIRST_NONCE: u64 = 200_000;

/// 8 agents with a key each, 16 at once.
pub async fn measure(plan: &Plan, report: &mut Report) {
    report.part("submit by history: 8 agents with a key each, 16 at once");
    report.columns();
    let world = World::start(&[]).await;
    let agents = world.agents(AGENTS as usize).await;
    for agent in &agents {
        begin(&world, agent).await;
    }
    world.settle().await;
    world.stack.sql("CREATE TABLE model AS SELECT intent_id, address FROM slots").await;
    let callers = payers(&agents, "", &json!({}));
    let mut have = 0;
    for rows in HISTORIES {
        grow(&world, have / AGENTS, rows / AGENTS).await;
        have = rows;
        world.measure(plan, report, &format!("{rows} transactions and audit events"), &callers, 16, None).await;
        world.settle().await;
    }
}

/// One transaction, which the past is made of.
async fn begin(world: &World, agent: &Agent) {
    let nonce = format!("{:#x}", U256::from(FIRST_NONCE));
    world.stack.chain().request("anvil_setNonce", json!([agent.signer, nonce])).await;
    agent.submit(pay("0.000001")).await.expect(201);
}

/// Final transactions of 25 h ago at each key's nonces from `from` to `to` (excluded), each with its slot, bytes, spend and audit event,
/// by copying what the daemon has written for the first one.
async fn grow(world: &World, from: i64, to: i64) {
    if from == to {
        return;
    }
    let sql = format!(
        "CREATE TABLE made AS SELECT gen_random_uuid() AS id, model.intent_id AS model, nonce
         FROM model, generate_series({from}, {} - 1) AS nonce",
        to
    );
    world.stack.sql(&sql).await;
    let past = "r.created_at - interval '25 hours'";
    copy(world, "intents", "m.model = r.id", &[("id", "m.id"), ("created_at", past)]).await;
    copy(world, "slots", "m.model = r.intent_id", &[("intent_id", "m.id"), ("nonce", "m.nonce"), ("created_at", past)])
        .await;
    let of_slot = "r.nonce = (SELECT s.nonce FROM slots s WHERE s.intent_id = m.model) AND r.address = (SELECT s.address FROM slots s WHERE s.intent_id = m.model)";
    let hash = "sha256(m.id::text::bytea)";
    let changed = [("id", "gen_random_uuid()"), ("nonce", "m.nonce"), ("tx_hash", hash), ("created_at", past)];
    copy(world, "attempts", of_slot, &changed).await;
    let spent = [("intent_id", "m.id"), ("signed_at", "r.signed_at - interval '25 hours'"), ("counted", "false")];
    copy(world, "spends", "m.model = r.intent_id", &spent).await;
    let event = [("id", "gen_random_uuid()"), ("resource_id", "m.id::text"), ("created_at", past)];
    let signed = "r.resource_id = m.model::text AND r.details->>'outcome' = 'signed'";
    copy(world, "audit_events", signed, &event).await;
    world.stack.sql("DROP TABLE made").await;
    for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
        world.stack.sql(statement).await;
    }
}

/// Inserts a copy of the row of `table` that `which` finds for each row of `made`, with other values in some columns.
async fn copy(world: &World, table: &str, which: &str, changed: &[(&str, &str)]) {
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT column_name::text FROM information_schema.columns WHERE table_name = $1 AND is_generated = 'NEVER' AND is_identity = 'NO'",
    )
    .bind(table)
    .fetch_all(&world.stack.db)
    .await
    .unwrap();
    let value = |name: &String| {
        let other = changed.iter().find(|(column, _)| column == name);
        other.map_or_else(|| format!("r.{name}"), |(_, value)| (*value).to_owned())
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let (columns, values) = (columns.join(", "), values.join(", "));
    // The rows to copy are few: found once, not for each new row.
    let sql = format!(
        "CREATE TABLE sample AS SELECT DISTINCT ON (m.model) m.model AS made_of, r.* FROM {table} r, (SELECT DISTINCT model FROM made) m WHERE {which};
         INSERT INTO {table} ({columns}) SELECT {values} FROM sample r JOIN made m ON m.model = r.made_of;
         DROP TABLE sample"
    );
    world.stack.sql(&sql).await;
}
