//! I1 to I7, after a load of everything at once, held against the chain; and those that can be asked for by themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alloy::primitives::{Address, B256};
use intentd::money::Wei;
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::outside::{Decoded, decode, proxied, use_key_elsewhere};
use crate::harness::client::Reply;
use crate::harness::pg_proxy::{Fault, PgProxy};
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Agent, Options, Stack, fresh_scalar, pay, text, until};

const SOON: Duration = Duration::from_secs(30);
const LIMIT: &str = "0.5";

// ---- the load -------------------------------------------------------------------------------------------------------------------

/// What a client of the load asks for next.
async fn ask(agent: &Agent, index: usize) -> Reply {
    let mut body = pay("0.01");
    match index % 8 {
        0 => return agent.sign(body).await,
        1 => body["gas_price"] = json!("4000000000"),
        2 => body["data"] = json!("0x0badc0de"),
        3 => body["value"] = json!("0.7"),
        4 => body["nonce"] = json!(index / 2),
        _ => {}
    }
    agent.submit(body).await
}

/// Two daemons, four agents (two of them with one key), a node that loses every fifth answer; and one more key, which somebody else
/// uses too.
async fn load(stack: &Stack, proxy: &RpcProxy) -> Vec<Agent> {
    let (shared, elsewhere) = (fresh_scalar(), fresh_scalar());
    let limited = json!({"tx_daily_limit_eth": LIMIT});
    let agents = [
        stack.agent(limited.clone()).await,
        stack.agent_with_key(json!({}), &shared).await,
        stack.agent_with_key(limited.clone(), &shared).await,
        stack.agent(limited).await,
    ];
    let sends = AtomicUsize::new(0);
    proxy.on(
        "eth_sendRawTransaction",
        Act::Edit(Arc::new(move |_, mut answer| {
            if sends.fetch_add(1, Ordering::Relaxed).is_multiple_of(5) {
                answer = json!({"id": answer["id"], "jsonrpc": "2.0", "error": {"code": -1, "message": "timeout"}});
            }
            answer
        })),
    );
    let mut running = Vec::new();
    for index in 0..240 {
        let agent = agents[index % agents.len()].at(&stack.daemons[(index / agents.len()) % 2].url);
        running.push(tokio::spawn(async move { ask(&agent, index / 4).await.status.as_u16() }));
    }
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    for request in running {
        *statuses.entry(request.await.unwrap()).or_default() += 1;
    }
    let expected: BTreeSet<u16> = [200, 201, 403, 409, 422].into();
    assert!(statuses.keys().all(|status| expected.contains(status)), "{statuses:?}");
    for status in [200, 201, 403] {
        assert!(statuses.contains_key(&status), "the load is to have some of everything: {statuses:?}");
    }
    // A key that somebody else uses too: its next nonce is foreign.
    let used = stack.agent_with_key(json!({}), &elsewhere).await;
    let sent = used.submit(pay("0.01")).await.expect(201);
    used.settled(&text(&sent, "id")).await;
    use_key_elsewhere(stack.chain(), &elsewhere, used.signer, 1).await;
    let mut agents = agents.to_vec();
    agents.push(used);
    agents
}

/// Fills what is parked, so that nothing waits for a nonce that nobody asked for; then lets what was only signed be abandoned.
async fn let_it_settle(stack: &Stack, agents: &[Agent]) {
    for agent in &agents[..4] {
        for _ in 0..60 {
            let sql = format!(
                "SELECT count(*) FROM slots s JOIN lanes l USING (chain_id, address) WHERE s.nonce >= l.next_nonce AND l.address = '\\x{}'",
                hex::encode(agent.signer)
            );
            if stack.count(&sql).await == 0 {
                break;
            }
            let mut nothing = pay("0");
            nothing["max_fee_per_gas"] = json!("10000000000");
            agent.submit(nothing).await.expect(201);
        }
    }
    let mut last = pay("0");
    last["max_fee_per_gas"] = json!("10000000000");
    for agent in agents {
        agent.submit(last.clone()).await.expect(201);
    }
    stack.sql("UPDATE slots SET created_at = created_at - interval '1 hour' WHERE sign_only").await;
    let open = async || {
        // Blocks go on: some things are final only when they have stayed so for a while.
        stack.chain().mine(1).await;
        stack.count("SELECT count(*) FROM slots WHERE state <> 'final'").await == 0
    };
    until(Duration::from_secs(90), "everything is final", open).await;
}

// ---- the invariants -------------------------------------------------------------------------------------------------------------

async fn rows(stack: &Stack, sql: &str) -> Vec<PgRow> {
    sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(&stack.db).await.unwrap()
}

fn bytes(row: &PgRow, column: &str) -> Vec<u8> {
    row.get(column)
}

async fn i1_every_nonce_has_a_slot_that_can_be_healed(stack: &Stack) {
    let gaps = stack
        .count(
            "SELECT count(*) FROM lanes l CROSS JOIN LATERAL generate_series(0, l.next_nonce - 1) AS n(nonce)
             LEFT JOIN slots s ON s.chain_id = l.chain_id AND s.address = l.address AND s.nonce = n.nonce
             WHERE s.nonce IS NULL OR (s.intent_id IS NOT NULL AND NOT EXISTS (
                 SELECT 1 FROM attempts a WHERE a.chain_id = s.chain_id AND a.address = s.address AND a.nonce = s.nonce))",
        )
        .await;
    assert_eq!(gaps, 0, "I1");
    for lane in rows(stack, "SELECT address, next_nonce FROM lanes").await {
        let address = Address::from_slice(&bytes(&lane, "address"));
        assert_eq!(
            stack.chain().nonce(address).await,
            lane.get::<i64, _>("next_nonce").unsigned_abs(),
            "I1: the chain's count"
        );
    }
}

async fn i2_what_was_sent_is_stored(stack: &Stack, proxy: &RpcProxy) {
    let stored: BTreeSet<Vec<u8>> =
        rows(stack, "SELECT tx_hash FROM attempts").await.iter().map(|row| bytes(row, "tx_hash")).collect();
    for decoded in given(proxy) {
        assert!(stored.contains(decoded.hash.as_slice()), "I2: bytes that no row has were sent");
    }
}

async fn i3_i4_a_nonce_is_one_slot_of_one_intent(stack: &Stack) {
    let twice = "INSERT INTO slots (chain_id, address, nonce, key_id, state) SELECT chain_id, address, nonce, key_id, 'foreign' FROM slots LIMIT 1";
    let moved = "INSERT INTO slots (chain_id, address, nonce, intent_id, key_id, state)
                 SELECT chain_id, address, nonce + 1000, intent_id, key_id, 'signed' FROM slots WHERE intent_id IS NOT NULL LIMIT 1";
    for statement in [twice, moved] {
        let refused = sqlx::query(statement).execute(&stack.db).await.unwrap_err();
        assert!(refused.as_database_error().is_some_and(|e| e.is_unique_violation()), "I3, I4: {refused}");
    }
    let shared = "SELECT count(*) FROM (SELECT 1 FROM attempts WHERE kind = 'intent' GROUP BY chain_id, address, nonce HAVING count(*) > 1) AS x";
    assert_eq!(stack.count(shared).await, 0, "I4: an intent was signed twice, or a nonce was given twice");
    let slotless = "SELECT count(*) FROM intents i WHERE NOT EXISTS (SELECT 1 FROM slots s WHERE s.intent_id = i.id)";
    assert_eq!(stack.count(slotless).await, 0);
}

async fn i5_rows_say_what_the_chain_says(stack: &Stack) {
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for slot in rows(stack, "SELECT address, nonce, outcome, mined_tx_hash FROM slots").await {
        let outcome: String = slot.get("outcome");
        *ends.entry(outcome.clone()).or_default() += 1;
        let attempts: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT kind, tx_hash FROM attempts WHERE address = $1 AND nonce = $2")
                .bind(bytes(&slot, "address"))
                .bind(slot.get::<i64, _>("nonce"))
                .fetch_all(&stack.db)
                .await
                .unwrap();
        let mut mined = Vec::new();
        for (kind, hash) in attempts {
            let receipt = stack.chain().request("eth_getTransactionReceipt", json!([B256::from_slice(&hash)])).await;
            if receipt.is_object() {
                mined.push((kind, hash, receipt["status"] == "0x1"));
            }
        }
        match (outcome.as_str(), mined.as_slice()) {
            ("success", [(kind, hash, true)]) | ("reverted", [(kind, hash, false)]) => {
                assert_eq!((kind.as_str(), Some(hash.clone())), ("intent", slot.get("mined_tx_hash")));
            }
            ("cancelled", [(kind, hash, true)]) => {
                assert_eq!((kind.as_str(), Some(hash.clone())), ("noop", slot.get("mined_tx_hash")));
            }
            ("foreign", []) => {}
            other => panic!("I5: {other:?}"),
        }
    }
    for end in ["success", "cancelled", "foreign"] {
        assert!(ends.contains_key(end), "the load is to have some of everything: {ends:?}");
    }
}

async fn i6_sums_are_what_is_counted_and_within_the_limit(stack: &Stack) {
    let windows = rows(
        stack,
        "SELECT w.agent_id, w.value_sum_wei, w.fee_sum_wei, coalesce(sum(s.value_wei), 0)::numeric(78, 0) AS value_wei,
                coalesce(sum(s.fee_wei), 0)::numeric(78, 0) AS fee_wei
         FROM spending_windows w LEFT JOIN spends s ON s.agent_id = w.agent_id AND s.spend_group = w.spend_group AND s.counted
         GROUP BY w.agent_id, w.spend_group",
    )
    .await;
    assert!(!windows.is_empty());
    for window in windows {
        assert_eq!(window.get::<Wei, _>("value_sum_wei"), window.get::<Wei, _>("value_wei"), "I6");
        assert_eq!(window.get::<Wei, _>("fee_sum_wei"), window.get::<Wei, _>("fee_wei"), "I6");
    }
    // Nothing has aged out; a value is free when our own no-op has taken the nonce, and only then.
    let unsettled = "SELECT count(*) FROM spends s JOIN slots USING (intent_id) JOIN intents i ON i.id = s.intent_id
                     WHERE NOT s.counted OR s.settled <> (state = 'final')
                        OR s.value_wei <> (CASE WHEN outcome = 'cancelled' THEN 0 ELSE i.value_wei END)";
    assert_eq!(stack.count(unsettled).await, 0, "I6: released when it can no longer move money, and only then");
}

/// At any time, not only at the end: what an agent with a limit ever had signed and not yet dead was within it.
async fn i6_the_limit_held(stack: &Stack, agents: &[Agent]) {
    let limit = Wei::from_units(LIMIT).unwrap();
    let mut signed: HashMap<uuid::Uuid, Wei> = HashMap::new();
    for row in rows(stack, "SELECT agent_id, value_wei FROM spends").await {
        let sum = signed.entry(row.get("agent_id")).or_insert(Wei::ZERO);
        *sum = sum.checked_add(row.get("value_wei")).unwrap();
    }
    for limited in [&agents[0], &agents[2], &agents[3]] {
        let sum = signed[&limited.id.parse().unwrap()];
        assert!(sum <= limit, "I6: {} of {}", sum.to_units(), limit.to_units());
    }
}

async fn i7_what_is_signed_is_what_was_checked(stack: &Stack) {
    let sql = "SELECT a.raw, a.tx_hash, s.nonce, i.* FROM attempts a JOIN slots s USING (chain_id, address, nonce)
               JOIN intents i ON i.id = s.intent_id WHERE a.kind = 'intent'";
    let attempts = rows(stack, sql).await;
    assert!(attempts.len() > 50);
    for row in attempts {
        let Decoded { tx, nonce, hash } = decode(&bytes(&row, "raw"));
        assert_eq!(tx.checked_hash().to_vec(), bytes(&row, "checked_hash"), "I7");
        assert_eq!(hash.to_vec(), bytes(&row, "tx_hash"));
        assert_eq!(nonce, row.get::<i64, _>("nonce").unsigned_abs());
        let shown = (tx.chain_id.0, tx.from.to_vec(), tx.to.to_vec(), tx.value, tx.data.to_vec(), tx.gas_limit);
        let stored = (
            row.get::<i64, _>("chain_id").unsigned_abs(),
            bytes(&row, "from_address"),
            bytes(&row, "to_address"),
            row.get::<Wei, _>("value_wei"),
            bytes(&row, "data"),
            row.get::<i64, _>("gas_limit").unsigned_abs(),
        );
        assert_eq!(shown, stored, "I7");
        let per_gas: Wei = row.get::<Option<Wei>, _>("gas_price").unwrap_or_else(|| row.get("max_fee_per_gas"));
        assert_eq!(Wei::from(tx.fees.max_per_gas()), per_gas, "I7");
    }
}

#[tokio::test]
async fn after_a_mixed_load_every_invariant_holds_against_the_chain() {
    let (stack, proxy) = proxied(Options { daemons: 2, ..Options::default() }).await;
    let agents = load(&stack, &proxy).await;
    i6_the_limit_held(&stack, &agents).await;
    let_it_settle(&stack, &agents).await;
    i1_every_nonce_has_a_slot_that_can_be_healed(&stack).await;
    i2_what_was_sent_is_stored(&stack, &proxy).await;
    i3_i4_a_nonce_is_one_slot_of_one_intent(&stack).await;
    i5_rows_say_what_the_chain_says(&stack).await;
    i6_sums_are_what_is_counted_and_within_the_limit(&stack).await;
    i7_what_is_signed_is_what_was_checked(&stack).await;
}

// ---- I2, at the one moment that matters -----------------------------------------------------------------------------------------

struct Held {
    stack: Stack,
    pg: PgProxy,
    rpc: RpcProxy,
}

/// A stack whose daemon speaks to Postgres through a proxy too.
async fn holding() -> Held {
    let (mut stack, rpc) = proxied(Options { daemons: 0, ..Options::default() }).await;
    let pg = PgProxy::start(stack.postgres.socket(), intentd::dev::postgres::NAME).await;
    stack.options.database_url = Some(pg.url());
    stack.add_daemon("held").await;
    Held { stack, pg, rpc }
}

impl Held {
    /// As long as COMMIT is held, nobody outside has the bytes; another key's transaction goes all its way meanwhile.
    async fn nothing_is_out(&self, by: Address, other: &Agent) {
        let sent = other.submit(pay("0.1")).await.expect(201);
        other.settled(&text(&sent, "id")).await;
        for decoded in given(&self.rpc).into_iter().filter(|decoded| decoded.tx.from == by) {
            let hash = hex::encode(decoded.hash);
            let stored = self.stack.count(&format!("SELECT count(*) FROM attempts WHERE tx_hash = '\\x{hash}'")).await;
            assert_eq!(stored, 1, "uncommitted bytes left the process");
        }
    }
}

/// What the node was given.
fn given(rpc: &RpcProxy) -> Vec<Decoded> {
    let raw = |params: &Value| hex::decode(params[0].as_str().unwrap().trim_start_matches("0x")).unwrap();
    rpc.calls("eth_sendRawTransaction").iter().map(|call| decode(&raw(&call.params))).collect()
}

#[tokio::test]
async fn i2_nothing_leaves_the_process_before_it_is_committed() {
    let held = holding().await;
    let (agent, other) = (held.stack.agent(json!({})).await, held.stack.agent(json!({})).await);
    for route in ["submit", "sign"] {
        held.pg.arm(Fault::Hold);
        let asking = tokio::spawn({
            let agent = agent.clone();
            async move { if route == "sign" { agent.sign(pay("0.1")).await } else { agent.submit(pay("0.1")).await } }
        });
        held.pg.struck().await;
        held.nothing_is_out(agent.signer, &other).await;
        assert!(!asking.is_finished(), "{route}: the answer has the bytes in it");
        held.pg.release();
        let reply = asking.await.unwrap();
        assert!(reply.status.is_success() && reply.body["signed_tx"].is_string(), "{}", reply.body);
    }
}

#[tokio::test]
async fn i2_our_own_no_op_is_committed_before_it_is_sent() {
    let held = holding().await;
    let agent = held.stack.agent(json!({})).await;
    let signed = agent.sign(pay("0.1")).await.expect(200);
    agent.submit(pay("0.1")).await.expect(201);
    held.pg.arm(Fault::Hold);
    held.stack.sql("UPDATE slots SET created_at = created_at - interval '1 hour' WHERE sign_only").await;
    held.pg.struck().await;
    assert_eq!(held.stack.count("SELECT count(*) FROM attempts WHERE kind = 'noop'").await, 0, "it is held");
    assert!(given(&held.rpc).iter().all(|decoded| decoded.nonce == 1), "an uncommitted no-op was sent");
    held.pg.release();
    assert_eq!(agent.settled(&text(&signed, "id")).await["receipt_status"], "cancelled");
    until(SOON, "both are mined", async || held.stack.chain().nonce(agent.signer).await == 2).await;
}

/// No foreign key keeps them: what others name is kept by itself.
#[tokio::test]
async fn rows_that_others_name_are_never_deleted() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let sent = agent.submit(pay("0.1")).await.expect(201);
    agent.settled(&text(&sent, "id")).await;
    for table in ["organisations", "agents", "signing_keys", "lanes", "intents", "slots", "spending_windows"] {
        for statement in [format!("DELETE FROM {table}"), format!("TRUNCATE {table} CASCADE")] {
            let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&stack.db).await.unwrap_err();
            assert!(refused.to_string().contains(&format!("rows of {table} are never deleted")), "{refused}");
        }
    }
}
