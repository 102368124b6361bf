//! Cancelling and speeding up what is not mined yet.

use std::time::Duration;

use intentd::chain::Fees;
use intentd::money::Wei;
use serde_json::{Value, json};

use super::outside::{decode, proxied};
use crate::harness::anvil::{AnvilOptions, OTHER};
use crate::harness::client::{Client, Reply};
use crate::harness::rpc_proxy::Act;
use crate::harness::stack::{Agent, Options, Stack, hash, pay, text, until};

const SOON: Duration = Duration::from_secs(30);
const GWEI: u128 = 1_000_000_000;

pub(super) fn by_hand(_: &str, anvil: &mut AnvilOptions) {
    anvil.no_mining = true;
}

pub(super) async fn cancel(client: &Client, agent: &Agent, sent: &Value) -> Reply {
    client.post(&format!("{}/{}/cancel", agent.path(), text(sent, "id")), &json!({})).await
}

pub(super) async fn speed_up(client: &Client, agent: &Agent, sent: &Value, fees: Value) -> Reply {
    client.post(&format!("{}/{}/speed-up", agent.path(), text(sent, "id")), &fees).await
}

pub(super) fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A slot's attempts, in order: kind, why, bytes.
pub(super) async fn attempts(stack: &Stack, agent: &Agent, nonce: i64) -> Vec<(String, String, Vec<u8>)> {
    sqlx::query_as("SELECT kind, reason, raw FROM attempts WHERE address = $1 AND nonce = $2 ORDER BY ordinal")
        .bind(agent.signer.as_slice())
        .bind(nonce)
        .fetch_all(&stack.db)
        .await
        .unwrap()
}

async fn sums(stack: &Stack) -> (Wei, Wei) {
    sqlx::query_as("SELECT value_sum_wei, fee_sum_wei FROM spending_windows").fetch_one(&stack.db).await.unwrap()
}

fn ether(text: &str) -> Wei {
    Wei::from_units(text).unwrap()
}

#[tokio::test]
async fn a_cancel_takes_the_nonce_once_and_gives_the_value_back_when_it_is_final() {
    let stack = Stack::with(Options { daemons: 2, anvil: by_hand, confirmations: 3, ..Options::default() }).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let before = stack.chain().balance(OTHER).await;
    let sent = agent.submit(pay("0.6")).await.expect(201);
    let kept = agent.submit(pay("0.1")).await.expect(201);
    // By the agent and by a human, at two daemons, at once and again: one no-op.
    let racing: Vec<_> = (0..10)
        .map(|index| {
            let (agent, sent) = (agent.clone(), sent.clone());
            let client = if index % 3 == 0 { stack.owner.clone() } else { agent.client.clone() };
            let client = client.at(&stack.daemons[index % 2].url);
            tokio::spawn(async move { cancel(&client, &agent, &sent).await })
        })
        .collect();
    for reply in racing {
        let reply = reply.await.unwrap();
        // Who finds it changed under the lock is told to look again.
        assert!(reply.status == 200 || reply.status == 503, "{}", reply.body);
    }
    let shown = cancel(&agent.client, &agent, &sent).await.expect(200);
    let tried = attempts(&stack, &agent, 0).await;
    assert_eq!(tried.iter().map(|(_, why, _)| why.as_str()).collect::<Vec<_>>(), ["submit", "cancel"]);
    let (intent, noop) = (decode(&tried[0].2), decode(&tried[1].2));
    assert_eq!((noop.tx.from, noop.tx.to, noop.nonce), (agent.signer, agent.signer, 0));
    assert_eq!((noop.tx.value, noop.tx.data.len(), noop.tx.gas_limit), (Wei::ZERO, 0, 21_000));
    assert!(noop.tx.fees.max_per_gas() >= intent.tx.fees.max_per_gas() * 9 / 8);
    assert_eq!(shown["tx_hash"], sent["tx_hash"]);
    assert_eq!((&shown["replaced_by"], shown.get("final")), (&json!(noop.hash.to_string()), None), "{shown}");

    stack.chain().mine(1).await;
    let mined = async || agent.transaction(&text(&sent, "id")).await["receipt_status"] == "cancelled";
    until(SOON, "the no-op is mined", mined).await;
    assert_eq!(sums(&stack).await.0, ether("0.7"), "a reorganisation could still bring the payment");
    cancel(&agent.client, &agent, &sent).await.expect(200);
    let detail = cancel(&agent.client, &agent, &kept).await.refused(409);
    assert!(detail.contains("nonce 1 is"), "{detail}");
    stack.chain().mine(3).await;
    let done = agent.settled(&text(&sent, "id")).await;
    assert_eq!((done["status"].as_str(), done["receipt_status"].as_str()), (Some("failed"), Some("cancelled")));
    assert_eq!(done["replaced_by"], noop.hash.to_string());
    assert_eq!(agent.settled(&text(&kept, "id")).await["receipt_status"], "success");
    assert_eq!(sums(&stack).await.0, ether("0.1"), "released once");
    cancel(&agent.client, &agent, &sent).await.expect(200);
    assert_eq!(sums(&stack).await.0, ether("0.1"));
    assert!(speed_up(&agent.client, &agent, &sent, json!({})).await.refused(409).contains("final (cancelled)"));
    assert_eq!(stack.chain().balance(OTHER).await - before, ether("0.1").0);
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 3);
    stack.assert_settled("base", agent.signer, 0, 2).await;
}

#[tokio::test]
async fn a_speed_up_is_the_same_payment_with_higher_fees_and_counts_once() {
    let stack = Stack::with(Options { anvil: by_hand, ..Options::default() }).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let before = stack.chain().balance(OTHER).await;
    let typed = json!({"max_fee_per_gas": "30000000000", "max_priority_fee_per_gas": "1000000000"});
    let sent = agent.submit(with(pay("0.4"), typed)).await.expect(201);
    let old = agent.submit(with(pay("0.2"), json!({"gas_price": "30000000000"}))).await.expect(201);

    for (wrong, status, part) in [
        (json!({"max_fee_per_gas": "32000000000"}), 422, "too low to replace"),
        (json!({"max_fee_per_gas": "90000000000", "max_priority_fee_per_gas": "1000000001"}), 422, "too low"),
        (json!({"gas_price": "90000000000"}), 400, "keeps the type"),
        (json!({"max_fee_per_gas": "500000000001"}), 403, "ceiling"),
        (json!({"max_fee_per_gas": 5}), 400, "max_fee_per_gas"),
        (json!({"value": "5"}), 400, "fees alone"),
        (json!({"to": OTHER}), 400, "fees alone"),
    ] {
        let detail = speed_up(&agent.client, &agent, &sent, wrong).await.refused(status);
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 2, "nothing was signed");

    // By an eighth; then by the caller's own fees, once for each key.
    let faster = speed_up(&agent.client, &agent, &sent, json!({})).await.expect(200);
    assert_ne!(faster["tx_hash"], sent["tx_hash"]);
    assert_eq!((&faster["max_fee_per_gas"], &faster["id"]), (&json!("33750000000"), &sent["id"]));
    assert_eq!((faster["status"].as_str(), faster.get("replaced_by")), (Some("broadcast"), None), "{faster}");
    let path = format!("{}/{}/speed-up", agent.path(), text(&sent, "id"));
    let own = json!({"max_fee_per_gas": "60000000000", "max_priority_fee_per_gas": "2000000000"});
    let keyed = async |body: &Value| {
        let request = agent.client.request(reqwest::Method::POST, &path).header("Idempotency-Key", "k");
        Client::send(request.json(body)).await
    };
    let first = keyed(&own).await.expect(200);
    let again = keyed(&own).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.expect(200)["tx_hash"], first["tx_hash"]);
    keyed(&json!({"max_fee_per_gas": "90000000000"})).await.refused(422);
    // The agent's own keys for submits are others.
    assert_eq!(agent.submit_with_key("k", pay("0.05")).await.expect(201)["nonce"], 2);
    let by_human = speed_up(&stack.owner, &agent, &old, json!({})).await.expect(200);
    assert_eq!(by_human["gas_price"], "33750000000");

    let tried = attempts(&stack, &agent, 0).await;
    assert_eq!(tried.iter().map(|(_, why, _)| why.as_str()).collect::<Vec<_>>(), ["submit", "speed_up", "speed_up"]);
    let payments: Vec<_> = tried.iter().map(|(_, _, raw)| decode(raw)).collect();
    for one in &payments {
        let same = |tx: &intentd::chain::UnsignedTx| (tx.to, tx.value, tx.data.clone(), tx.gas_limit, tx.chain_id);
        assert_eq!((same(&one.tx), one.nonce), (same(&payments[0].tx), 0));
    }
    let expected = Fees::Eip1559 { max_fee_per_gas: 60 * GWEI, max_priority_fee_per_gas: 2 * GWEI };
    assert_eq!(payments[2].tx.fees, expected);
    assert_eq!(payments[2].hash.to_string(), text(&first, "tx_hash"));
    let (value, fee) = sums(&stack).await;
    assert_eq!(value, ether("0.65"), "each payment counts once");
    let third: Wei = sqlx::query_scalar("SELECT fee_wei FROM spends ORDER BY signed_at DESC, fee_wei LIMIT 1")
        .fetch_one(&stack.db)
        .await
        .unwrap();
    assert!(fee > Wei::from(21_000 * (60 * GWEI + 33 * GWEI)) && fee > third, "the fee is that of the dearest attempt");
    let detail = agent.submit(pay("0.4")).await.refused(403);
    assert!(detail.contains("rolling 24h total 1.05 ETH"), "{detail}");

    stack.chain().mine(1).await;
    for (sent, hash) in [(&sent, &first["tx_hash"]), (&old, &by_human["tx_hash"])] {
        let done = agent.settled(&text(sent, "id")).await;
        assert_eq!((done["receipt_status"].as_str(), &done["tx_hash"]), (Some("success"), hash));
        assert_eq!(done.get("replaced_by"), None);
        assert!(speed_up(&agent.client, &agent, sent, json!({})).await.refused(409).contains("final (success)"));
    }
    assert_eq!(stack.chain().balance(OTHER).await - before, ether("0.65").0, "paid once each");
    stack.assert_settled("base", agent.signer, 0, 3).await;
}

/// The way past the allowlist: a route that changes a payload and asks only what the first one was asked.
#[tokio::test]
async fn threat_41_a_replacement_is_held_to_the_rules_as_they_are_now() {
    let stack = Stack::with(Options { anvil: by_hand, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let other = stack.agent(json!({})).await;
    let sent = agent.submit(pay("0.1")).await.expect(201);
    let before = stack.count("SELECT count(*) FROM attempts").await;
    let member = stack.human(&stack.org_id, "member").await.client;
    let stranger_org = stack.organisation("Other").await;
    let stranger = stack.human(&stranger_org, "owner").await.client;
    for reply in [
        speed_up(&other.client, &agent, &sent, json!({})).await,
        cancel(&other.client, &agent, &sent).await,
        speed_up(&member, &agent, &sent, json!({})).await,
        cancel(&member, &agent, &sent).await,
    ] {
        reply.refused(403);
    }
    speed_up(&stranger, &agent, &sent, json!({})).await.refused(404);
    cancel(&stranger, &agent, &sent).await.refused(404);
    // Another agent's transaction under one's own name.
    let path = format!("{}/{}/cancel", other.path(), text(&sent, "id"));
    other.client.post(&path, &json!({})).await.refused(404);

    // Whoever asks for the payment again: the rules of now decide.
    let rules = [
        (json!({"tx_to_allowlist": [agent.signer]}), json!({"tx_to_allowlist": []}), "tx_to_allowlist"),
        (json!({"tx_max_value_eth": "0.01"}), json!({"tx_max_value_eth": null}), "tx_max_value_eth"),
        (json!({"tx_daily_limit_eth": "0.01"}), json!({"tx_daily_limit_eth": null}), "tx_daily_limit_eth"),
    ];
    for (rule, none, part) in rules {
        stack.guardrails(&agent, rule).await;
        for client in [&agent.client, &stack.owner] {
            let detail = speed_up(client, &agent, &sent, json!({})).await.refused(403);
            assert!(detail.contains(part), "{detail}");
        }
        stack.guardrails(&agent, none).await;
    }
    // What it may pay for gas: for the agent's own cancel too.
    let caps = [
        (json!({"tx_max_fee_eth": "0.000000001"}), json!({"tx_max_fee_eth": null})),
        (json!({"tx_daily_fee_limit_eth": "0.000000001"}), json!({"tx_daily_fee_limit_eth": null})),
        (json!({"per_chain_guardrails": {"base": {"max_fee_per_gas_gwei": "1"}}}), json!({"per_chain_guardrails": {}})),
        (json!({"intents_api_enabled": false}), json!({"intents_api_enabled": true})),
    ];
    for (cap, none) in caps {
        stack.guardrails(&agent, cap.clone()).await;
        speed_up(&agent.client, &agent, &sent, json!({})).await.refused(403);
        speed_up(&stack.owner, &agent, &sent, json!({})).await.refused(403);
        let refused = cancel(&agent.client, &agent, &sent).await;
        assert!(refused.status == 403, "{cap}: {} {}", refused.status, refused.body);
        stack.guardrails(&agent, none).await;
    }
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, before, "nothing was signed");
    let refusals = "SELECT count(*) FROM audit_events WHERE details->>'outcome' = 'refused' AND action IN ('transaction.speed_up', 'transaction.cancel')";
    assert!(stack.count(refusals).await >= 18, "each refusal is written down");

    // A key that was replaced signs no payment again; a human's cancel passes all of it.
    let vault = stack.vault_of(&agent).await;
    let secret = json!({"value": crate::harness::stack::fresh_scalar(), "type": "private_key"});
    stack.owner.put(&format!("/v1/vaults/{vault}/secrets/keys/base-signer"), &secret).await;
    for client in [&agent.client, &stack.owner] {
        let refused = speed_up(client, &agent, &sent, json!({})).await;
        assert!((400..500).contains(&refused.status.as_u16()), "{} {}", refused.status, refused.body);
    }
    stack.guardrails(&agent, json!({"tx_max_fee_eth": "0.000000001", "is_active": false})).await;
    speed_up(&stack.owner, &agent, &sent, json!({})).await.refused(403);
    cancel(&agent.client, &agent, &sent).await.refused(401);
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, before, "nothing was signed");
    cancel(&stack.owner, &agent, &sent).await.expect(200);
    stack.chain().mine(1).await;
    stack.assert_settled("base", agent.signer, 0, 1).await;
    let ends = "SELECT count(*) FROM slots WHERE outcome = 'cancelled'";
    assert_eq!(stack.count(ends).await, 1);
}

#[tokio::test]
async fn bytes_that_were_only_signed_are_cancelled_and_never_sped_up() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let signed = [agent.sign(pay("0.3")).await.expect(200), agent.sign(pay("0.3")).await.expect(200)];
    let detail = speed_up(&agent.client, &agent, &signed[0], json!({})).await.refused(409);
    assert!(detail.contains("never sends"), "{detail}");
    cancel(&agent.client, &agent, &signed[0]).await.expect(200);
    cancel(&stack.owner, &agent, &signed[1]).await.expect(200);
    for signed in &signed {
        let done = agent.settled(&text(signed, "id")).await;
        assert_eq!((done["status"].as_str(), done["receipt_status"].as_str()), (Some("failed"), Some("cancelled")));
    }
    assert_eq!(sums(&stack).await.0, Wei::ZERO);
    stack.assert_settled("base", agent.signer, 0, 2).await;
}

/// Many who want different things at once: one of the attempts is mined, and nothing is paid twice.
#[tokio::test]
async fn threat_01_replacements_at_once_leave_one_chain_of_attempts() {
    let stack = Stack::with(Options { daemons: 2, anvil: by_hand, ..Options::default() }).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let before = stack.chain().balance(OTHER).await;
    let sent = agent.submit(with(pay("0.6"), json!({"gas_price": "3000000000"}))).await.expect(201);
    let racing: Vec<_> = (0..24)
        .map(|index| {
            let (agent, sent) = (agent.at(&stack.daemons[index % 2].url), sent.clone());
            tokio::spawn(async move {
                match index % 8 {
                    7 => cancel(&agent.client, &agent, &sent).await,
                    _ => speed_up(&agent.client, &agent, &sent, json!({})).await,
                }
            })
        })
        .collect();
    for reply in racing {
        let reply = reply.await.unwrap();
        assert!(matches!(reply.status.as_u16(), 200 | 409 | 503), "{} {}", reply.status, reply.body);
    }
    let cancelled = async || cancel(&agent.client, &agent, &sent).await.status == 200;
    until(SOON, "it is cancelled", cancelled).await;
    let tried = attempts(&stack, &agent, 0).await;
    let first_noop = tried.iter().position(|(kind, ..)| kind == "noop").unwrap();
    assert_eq!(first_noop, tried.len() - 1, "nothing is paid after the cancel");
    let prices: Vec<u128> = tried.iter().map(|(_, _, raw)| decode(raw).tx.fees.max_per_gas()).collect();
    assert!(prices.windows(2).all(|pair| pair[1] >= pair[0] * 9 / 8), "{prices:?}");
    assert_eq!(sums(&stack).await.0, ether("0.6"));
    stack.chain().mine(1).await;
    stack.assert_settled("base", agent.signer, 0, 1).await;
    let done = agent.transaction(&text(&sent, "id")).await;
    let paid = if done["receipt_status"] == "success" { ether("0.6") } else { Wei::ZERO };
    assert_eq!(stack.chain().balance(OTHER).await - before, paid.0);
    assert_eq!(sums(&stack).await.0, paid);
}

#[tokio::test]
async fn threat_44_a_replacement_that_was_committed_and_not_sent_is_sent_by_the_next_daemon() {
    let (mut stack, proxy) = proxied(Options { anvil: by_hand, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let sent = agent.submit(pay("0.1")).await.expect(201);
    proxy.on("eth_sendRawTransaction", Act::Freeze);
    let asking = {
        let (agent, sent) = (agent.clone(), sent.clone());
        tokio::spawn(async move {
            let path = format!("{}/{}/cancel", agent.path(), text(&sent, "id"));
            let request = agent.client.request(reqwest::Method::POST, &path).json(&json!({}));
            Client::try_send(request).await.is_ok()
        })
    };
    let committed = async || attempts(&stack, &agent, 0).await.len() == 2;
    until(SOON, "the no-op is committed", committed).await;
    stack.daemons.remove(0).kill();
    let _ = asking.await;
    proxy.clear();
    stack.add_daemon("second").await;
    let noop = decode(&attempts(&stack, &agent, 0).await[1].2);
    let pooled = async || !stack.chain().request("eth_getTransactionByHash", json!([noop.hash])).await.is_null();
    until(SOON, "the same bytes are sent", pooled).await;
    stack.chain().mine(1).await;
    stack.assert_settled("base", agent.signer, 0, 1).await;
    assert_eq!(attempts(&stack, &agent, 0).await.len(), 2);
    assert!(stack.chain().request("eth_getTransactionReceipt", json!([hash(&sent)])).await.is_null());
}

#[tokio::test]
async fn a_speed_up_is_simulated_where_a_submit_would_be() {
    let stack = Stack::with(Options { anvil: by_hand, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let sent = [agent.submit(pay("0.1")).await.expect(201), agent.submit(pay("0.1")).await.expect(201)];
    stack.owner.patch("/v1/org/settings", &json!({"require_simulation": true})).await.expect(200);
    // After the one before it, which is not mined either.
    speed_up(&agent.client, &agent, &sent[1], json!({})).await.expect(200);
    // By now the recipient takes nothing.
    stack.chain().set_code(OTHER, &[0x60, 0, 0x60, 0, 0xfd]).await;
    for client in [&agent.client, &stack.owner] {
        let detail = speed_up(client, &agent, &sent[0], json!({})).await.refused(422);
        assert!(detail.contains("would fail by now"), "{detail}");
    }
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 3);
    // What pays nobody needs no simulation.
    for sent in &sent {
        cancel(&agent.client, &agent, sent).await.expect(200);
    }
    stack.chain().mine(1).await;
    stack.assert_settled("base", agent.signer, 0, 2).await;
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE outcome = 'cancelled'").await, 2);
}

/// Whoever held a connection while asking for a second one would wait for others who do the same.
#[tokio::test]
async fn as_many_replays_at_once_as_there_are_connections_are_all_answered() {
    let env = vec![("INTENTD_DATABASE_MAX_CONNECTIONS".to_owned(), "4".to_owned())];
    let stack = Stack::with(Options { anvil: by_hand, env, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let sent = agent.submit(pay("0.1")).await.expect(201);
    let path = format!("{}/{}/speed-up", agent.path(), text(&sent, "id"));
    let keyed = async || {
        let request = agent.client.request(reqwest::Method::POST, &path).header("Idempotency-Key", "k");
        Client::send(request.json(&json!({}))).await
    };
    let first = keyed().await.expect(200);
    for again in futures::future::join_all((0..40).map(|_| keyed())).await {
        assert_eq!(again.expect(200)["tx_hash"], first["tx_hash"]);
    }
}
