//! Which nonce an intent gets, and what becomes of nonces that others use, or nobody.

use std::time::Duration;

use alloy::primitives::Address;
use intentd::money::Wei;
use serde_json::{Value, json};

use super::outside::{decode, decode_reply, proxied, rounds, use_key_elsewhere};
use crate::harness::anvil::{AnvilOptions, OTHER};
use crate::harness::client::Reply;
use crate::harness::rpc_proxy::Act;
use crate::harness::stack::{Agent, Options, Stack, fresh_scalar, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

fn at_nonce(nonce: u64) -> Value {
    let mut body = pay("0.001");
    body["nonce"] = json!(nonce);
    body
}

async fn submit_at(agent: &Agent, nonce: u64) -> Reply {
    agent.submit(at_nonce(nonce)).await
}

fn by_hand(_: &str, anvil: &mut AnvilOptions) {
    anvil.no_mining = true;
}

/// The kinds of a slot's attempts, oldest first.
async fn attempts(stack: &Stack, signer: Address, nonce: i64) -> Vec<(String, Vec<u8>)> {
    sqlx::query_as("SELECT kind, raw FROM attempts WHERE address = $1 AND nonce = $2 ORDER BY created_at")
        .bind(signer.as_slice())
        .bind(nonce)
        .fetch_all(&stack.db)
        .await
        .unwrap()
}

pub async fn outcomes(stack: &Stack, signer: Address) -> Vec<Option<String>> {
    sqlx::query_scalar("SELECT outcome FROM slots WHERE address = $1 ORDER BY nonce")
        .bind(signer.as_slice())
        .fetch_all(&stack.db)
        .await
        .unwrap()
}

// ---- the key is used elsewhere ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn threat_02_a_nonce_used_by_others_is_stepped_over_and_leaves_no_gap() {
    let stack = Stack::start().await;
    let scalar = fresh_scalar();
    let agent = stack.agent_with_key(json!({}), &scalar).await;
    let first = agent.submit(pay("0.001")).await.expect(201);
    agent.settled(&text(&first, "id")).await;
    use_key_elsewhere(stack.chain(), &scalar, agent.signer, 1).await;
    let second = agent.submit(pay("0.001")).await.expect(201);
    assert_eq!((first["nonce"].as_u64(), second["nonce"].as_u64()), (Some(0), Some(2)));
    stack.assert_settled("base", agent.signer, 0, 3).await;
    let ends: Vec<_> = outcomes(&stack, agent.signer).await.into_iter().flatten().collect();
    assert_eq!(ends, ["success", "foreign", "success"]);
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE intent_id IS NULL").await, 1);
}

#[tokio::test]
async fn threat_02_a_nonce_in_anothers_pooled_transaction_is_taken_too() {
    let stack = Stack::with(Options { anvil: by_hand, ..Options::default() }).await;
    let scalar = fresh_scalar();
    let agent = stack.agent_with_key(json!({}), &scalar).await;
    agent.submit(pay("0.001")).await.expect(201);
    use_key_elsewhere(stack.chain(), &scalar, agent.signer, 1).await;
    assert_eq!(agent.submit(pay("0.001")).await.expect(201)["nonce"], 2);
    stack.chain().mine(1).await;
    stack.assert_settled("base", agent.signer, 0, 3).await;
    let ends: Vec<_> = outcomes(&stack, agent.signer).await.into_iter().flatten().collect();
    assert_eq!(ends, ["success", "foreign", "success"]);
}

#[tokio::test]
async fn threat_02_sixteen_skipped_nonces_are_stepped_over_and_seventeen_freeze_the_lane() {
    let stack = Stack::start().await;
    let (near, far, other) = (stack.agent(json!({})).await, stack.agent(json!({})).await, stack.agent(json!({})).await);
    for agent in [&near, &far] {
        let sent = agent.submit(pay("0.001")).await.expect(201);
        agent.settled(&text(&sent, "id")).await;
    }
    stack.chain().request("anvil_setNonce", json!([near.signer, "0x11"])).await;
    stack.chain().request("anvil_setNonce", json!([far.signer, "0x12"])).await;

    assert_eq!(near.submit(pay("0.001")).await.expect(201)["nonce"], 17);
    stack.assert_settled("base", near.signer, 0, 18).await;

    let jump = far.submit(pay("0.001")).await;
    assert!(jump.headers.contains_key("retry-after"));
    let detail = jump.refused(503);
    assert!(detail.contains("jumped from 1 to 18") && detail.contains("frozen"), "{detail}");
    // And it stays so, for either route, when the node says something else again.
    stack.chain().request("anvil_setNonce", json!([far.signer, "0x1"])).await;
    for refused in [far.submit(pay("0.001")).await, far.sign(pay("0.001")).await, submit_at(&far, 1).await] {
        let detail = refused.refused(503);
        assert!(detail.contains("frozen") && detail.contains(&far.signer.to_string()), "{detail}");
    }
    assert_eq!(stack.slots(8453, far.signer).await.len(), 1, "nothing was signed");
    assert_eq!(stack.chain().nonce(far.signer).await, 1);
    let sent = other.submit(pay("0.001")).await.expect(201);
    assert_eq!(other.settled(&text(&sent, "id")).await["receipt_status"], "success");
}

/// The node says once that two more nonces are used than are; whoever believes that leaves a gap that only we can fill.
async fn nonces_that_were_left_out_are_filled(first_use: bool) {
    let env = vec![("INTENTD_FOREIGN_FILL_BLOCKS".to_owned(), "3".to_owned())];
    let (stack, proxy) = proxied(Options { env, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    if !first_use {
        let sent = agent.submit(pay("0.001")).await.expect(201);
        agent.settled(&text(&sent, "id")).await;
    }
    let real = u64::from(!first_use);
    let ahead = format!("{:#x}", real + 2);
    proxy.on(
        "eth_getTransactionCount",
        Act::edit(move |request, count| if request["params"][1] == "pending" { json!(ahead) } else { count }),
    );
    let sent = agent.submit(pay("0.001")).await.expect(201);
    assert_eq!(sent["nonce"].as_u64(), Some(real + 2));
    proxy.clear();

    let gap = [i64::try_from(real).unwrap(), i64::try_from(real).unwrap() + 1];
    rounds(&proxy, 2).await;
    for nonce in gap {
        assert!(attempts(&stack, agent.signer, nonce).await.is_empty(), "others may still use it");
    }
    stack.chain().mine(3).await;
    stack.assert_settled("base", agent.signer, 0, real + 3).await;
    for nonce in gap {
        let filled = attempts(&stack, agent.signer, nonce).await;
        assert_eq!(filled.len(), 1);
        assert_eq!(filled[0].0, "noop");
        let noop = decode(&filled[0].1);
        assert_eq!((noop.tx.from, noop.tx.to), (agent.signer, agent.signer));
        assert_eq!((noop.tx.value, noop.tx.data.len(), noop.nonce), (Wei::ZERO, 0, nonce.unsigned_abs()));
    }
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");
}

#[tokio::test]
async fn threat_02_nonces_that_were_left_out_are_filled_after_some_blocks() {
    nonces_that_were_left_out_are_filled(false).await;
}

#[tokio::test]
async fn threat_02_nonces_left_out_at_the_first_use_of_a_key_are_filled_too() {
    nonces_that_were_left_out_are_filled(true).await;
}

// ---- explicit nonces ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_parked_nonce_waits_for_those_below_and_allocation_skips_it() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    assert_eq!(submit_at(&agent, 0).await.expect(201)["nonce"], 0);
    assert_eq!(submit_at(&agent, 4).await.expect(201)["nonce"], 4);
    assert_eq!(stack.count("SELECT next_nonce FROM lanes").await, 1, "a parked slot does not move the lane");
    for expected in [1, 2, 3, 5, 6] {
        assert_eq!(agent.submit(pay("0.001")).await.expect(201)["nonce"], expected);
    }
    stack.assert_settled("base", agent.signer, 0, 7).await;
    assert_eq!(stack.count("SELECT next_nonce FROM lanes").await, 7);
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE outcome = 'success'").await, 7);
}

#[tokio::test]
async fn a_nonce_is_never_a_bare_replacement() {
    let stack = Stack::with(Options { anvil: by_hand, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    for nonce in [0, 1, 5] {
        submit_at(&agent, nonce).await.expect(201);
    }
    // Nothing is mined: the chain's count is 0, and 0, 1 and 5 are ours.
    for nonce in [0, 1, 5] {
        for refused in [submit_at(&agent, nonce).await, agent.sign(at_nonce(nonce)).await] {
            let detail = refused.refused(409);
            assert!(detail.contains("speed-up") && detail.contains("cancel"), "{detail}");
        }
    }
    let detail = submit_at(&agent, 2 + 17).await.refused(422);
    assert!(detail.contains("more than 16 above") && detail.contains("which is 2"), "{detail}");
    submit_at(&agent, u64::try_from(i64::MAX).unwrap()).await.refused(422);
    submit_at(&agent, u64::MAX).await.refused(400);
    submit_at(&agent, 2 + 16).await.expect(201);

    stack.chain().mine(1).await;
    until(SOON, "0 and 1 are mined", async || stack.chain().nonce(agent.signer).await == 2).await;
    for nonce in [0, 1] {
        let detail = submit_at(&agent, nonce).await.refused(422);
        assert!(detail.contains("used") && detail.contains("next nonce is 2"), "{detail}");
    }
    let nonces: Vec<u64> = stack.slots(8453, agent.signer).await.into_iter().map(|(nonce, _)| nonce).collect();
    assert_eq!(nonces, [0, 1, 5, 18], "what was refused took no nonce");
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 4);
}

#[tokio::test]
async fn of_twenty_at_once_for_one_nonce_exactly_one_wins() {
    let stack = Stack::with(Options { daemons: 2, anvil: by_hand, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    for nonce in [0, 3] {
        let racing: Vec<_> = (0..20)
            .map(|index| {
                let agent = agent.at(&stack.daemons[index % 2].url);
                tokio::spawn(async move { submit_at(&agent, nonce).await })
            })
            .collect();
        let (mut won, mut lost) = (0, 0);
        for reply in racing {
            match reply.await.unwrap() {
                reply if reply.status == 201 => won += 1,
                reply => {
                    reply.refused(409);
                    lost += 1;
                }
            }
        }
        assert_eq!((won, lost), (1, 19), "nonce {nonce}");
    }
    for _ in 0..2 {
        agent.submit(pay("0.001")).await.expect(201);
    }
    stack.chain().mine(1).await;
    stack.assert_settled("base", agent.signer, 0, 4).await;
}

// ---- bytes that were only signed ----------------------------------------------------------------------------------------------

async fn value_sum(stack: &Stack) -> Wei {
    sqlx::query_scalar("SELECT value_sum_wei FROM spending_windows").fetch_one(&stack.db).await.unwrap()
}

async fn age_slots(stack: &Stack) {
    stack.sql("UPDATE slots SET created_at = created_at - interval '901 seconds' WHERE sign_only").await;
}

#[tokio::test]
async fn bytes_that_nobody_sends_are_closed_once_a_later_slot_waits_too_long() {
    let (stack, proxy) = proxied(Options { confirmations: 3, ..Options::default() }).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let signed = agent.sign(pay("0.6")).await.expect(200);
    assert_eq!(signed["nonce"], 0);
    for refused in [agent.sign(pay("0.6")).await, agent.submit(pay("0.6")).await] {
        assert!(refused.refused(403).contains("tx_daily_limit_eth"), "it counts although nobody has sent it");
    }
    // Old, and nothing waits for it: it is its holder's to send.
    age_slots(&stack).await;
    rounds(&proxy, 2).await;
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 1);
    // Something waits, and it is young.
    stack.sql("UPDATE slots SET created_at = clock_timestamp()").await;
    let waiting = agent.submit(pay("0.1")).await.expect(201);
    assert_eq!(waiting["nonce"], 1);
    rounds(&proxy, 2).await;
    assert_eq!(stack.chain().nonce(agent.signer).await, 0);
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 2);

    age_slots(&stack).await;
    until(SOON, "both nonces are mined", async || stack.chain().nonce(agent.signer).await == 2).await;
    let tried = attempts(&stack, agent.signer, 0).await;
    assert_eq!(tried.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(), ["intent", "noop"]);
    let noop = decode(&tried[1].1);
    assert_eq!((noop.tx.from, noop.tx.to, noop.nonce), (agent.signer, agent.signer, 0));
    assert_eq!((noop.tx.value, noop.tx.data.len(), noop.tx.gas_limit), (Wei::ZERO, 0, 21_000));

    // Mined, and not final: a reorganisation could still bring the holder's bytes, so their value counts.
    rounds(&proxy, 2).await;
    let shown = agent.transaction(&text(&signed, "id")).await;
    assert_eq!((shown["status"].as_str(), shown["final"].as_bool()), (Some("sign_only"), Some(false)), "{shown}");
    assert_eq!(value_sum(&stack).await, Wei::from_units("0.7").unwrap());
    stack.chain().mine(3).await;
    let closed = agent.settled(&text(&signed, "id")).await;
    assert_eq!((closed["status"].as_str(), closed["receipt_status"].as_str()), (Some("failed"), Some("cancelled")));
    assert_eq!(closed["replaced_by"], noop.hash.to_string());
    assert_eq!(closed["tx_hash"], signed["tx_hash"]);
    assert_eq!(agent.settled(&text(&waiting, "id")).await["receipt_status"], "success");
    assert_eq!(value_sum(&stack).await, Wei::from_units("0.1").unwrap());
    agent.submit(pay("0.9")).await.expect(201);
    agent.submit(pay("0.000000000000000001")).await.refused(403);
}

#[tokio::test]
async fn bytes_that_their_holder_sends_in_time_are_mined_and_nothing_is_closed() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let before = stack.chain().balance(OTHER).await;
    let signed = agent.sign(pay("0.6")).await.expect(200);
    let waiting = agent.submit(pay("0.1")).await.expect(201);
    assert_eq!(decode_reply(&signed).hash.to_string(), text(&signed, "tx_hash"));
    stack.chain().request("eth_sendRawTransaction", json!([signed["signed_tx"]])).await;
    let done = agent.settled(&text(&signed, "id")).await;
    assert_eq!((done["receipt_status"].as_str(), done.get("replaced_by")), (Some("success"), None));
    assert_eq!(agent.settled(&text(&waiting, "id")).await["receipt_status"], "success");
    age_slots(&stack).await;
    stack.assert_settled("base", agent.signer, 0, 2).await;
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 2, "no no-op was signed");
    assert_eq!(stack.chain().balance(OTHER).await - before, Wei::from_units("0.7").unwrap().0);
    assert_eq!(value_sum(&stack).await, Wei::from_units("0.7").unwrap(), "it was spent");
}

/// The no-op is signed, and the holder's bytes are mined all the same: what the chain says is what counts.
#[tokio::test]
async fn bytes_that_their_holder_sends_after_the_no_op_was_signed_are_still_followed() {
    let (stack, proxy) = proxied(Options::default()).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let signed = agent.sign(pay("0.6")).await.expect(200);
    proxy.on("eth_sendRawTransaction", Act::DropRequest);
    let waiting = agent.submit(pay("0.1")).await.expect(201);
    age_slots(&stack).await;
    let two = async || attempts(&stack, agent.signer, 0).await.len() == 2;
    until(SOON, "the no-op is signed, and cannot be sent", two).await;
    stack.chain().request("eth_sendRawTransaction", json!([signed["signed_tx"]])).await;
    proxy.clear();
    let done = agent.settled(&text(&signed, "id")).await;
    assert_eq!((done["receipt_status"].as_str(), done.get("replaced_by")), (Some("success"), None));
    assert_eq!(agent.settled(&text(&waiting, "id")).await["receipt_status"], "success");
    assert_eq!(value_sum(&stack).await, Wei::from_units("0.7").unwrap());
}
