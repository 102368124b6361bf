//! What is refused before anything is reserved, as clients see it: each refusal says why and takes no nonce, and submit and sign
//! refuse alike.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Agent, Options, Stack, TO, pay, text};

/// Not in the guarded agent's allowlist.
const STRANGER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

/// `pay("0.001")` with other or further fields.
pub(super) fn with(changes: Value) -> Value {
    let mut body = pay("0.001");
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    body
}

/// A problem body whose detail a person can act on: one sentence, not an echo of megabytes.
#[track_caller]
pub(super) fn assert_clear(reply: &Reply, case: &str) {
    let status = reply.status.as_u16();
    assert!((400..500).contains(&status), "{case}: {status} {}", reply.body);
    assert_eq!(reply.headers["content-type"], "application/problem+json", "{case}");
    assert_eq!(reply.body["status"], status, "{case}");
    let detail = reply.body["detail"].as_str().unwrap_or_default();
    assert!((10..2_000).contains(&detail.len()), "{case}: {detail:?}");
}

/// Nothing is signed, reserved or spent, and the next intent takes nonce `next` and is mined.
pub(super) async fn assert_untouched(stack: &Stack, agent: &Agent, next: u64) {
    for table in ["slots", "attempts", "spends"] {
        assert_eq!(
            stack.count(&format!("SELECT count(*) FROM {table}")).await,
            i64::try_from(next).unwrap(),
            "{table}"
        );
    }
    assert_eq!(stack.count("SELECT count(*) FROM lanes WHERE next_nonce > 0").await, i64::from(next > 0));
    assert_eq!(stack.count("SELECT count(*) FROM idempotency WHERE state = 'in_flight'").await, 0);
    let good = agent.submit(pay("0.001")).await.expect(201);
    assert_eq!(good["nonce"].as_u64(), Some(next), "a refused request took a nonce");
    assert_eq!(agent.settled(&text(&good, "id")).await["receipt_status"], "success");
}

#[tokio::test]
async fn threat_19_no_spelling_of_an_empty_recipient_creates_a_contract() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let creation = |to: Option<Value>| {
        let mut body = with(json!({"data": "0x600160005500", "gas_limit": 100_000}));
        match to {
            None => drop(body.as_object_mut().unwrap().remove("to")),
            Some(to) => body["to"] = to,
        }
        body
    };
    for to in [None, Some(Value::Null), Some(json!("")), Some(json!("0x")), Some(json!("0x0")), Some(json!([]))] {
        for reply in [agent.submit(creation(to.clone())).await, agent.sign(creation(to.clone())).await] {
            let detail = reply.refused(400);
            assert!(detail.starts_with("to: "), "{to:?}: {detail}");
        }
    }
    assert_untouched(&stack, &agent, 0).await;
}

#[tokio::test]
async fn threat_08_an_allowlist_means_twenty_bytes_in_any_spelling() {
    let stack = Stack::start().await;
    let upper = format!("0x{}", TO[2..].to_uppercase());
    for listed in [TO.to_owned(), TO.to_lowercase(), upper.clone()] {
        let agent = stack.agent(json!({"tx_to_allowlist": [listed]})).await;
        for to in [TO.to_owned(), TO.to_lowercase(), upper.clone()] {
            let sent = agent.sign(with(json!({"to": to}))).await.expect(200);
            assert_eq!(sent["to"].as_str().map(str::to_lowercase), Some(TO.to_lowercase()));
        }
        for to in [STRANGER.to_owned(), STRANGER.to_lowercase(), format!("0x{}", STRANGER[2..].to_uppercase())] {
            let detail = agent.submit(with(json!({"to": to}))).await.refused(403);
            assert!(detail.contains("denied by guardrail") && detail.contains("tx_to_allowlist"), "{detail}");
        }
    }
    let agent = stack.agent(json!({})).await;
    let flipped = TO.replacen('C', "c", 1);
    let capital = format!("0X{}", &TO[2..]);
    let (short, long) = (&TO[..40], format!("{TO}00"));
    let bare = &TO[2..];
    let padded = format!("{TO} ");
    for to in [&*flipped, &*capital, short, &*long, bare, &*padded, "vitalik.eth", "0x12"] {
        let detail = agent.submit(with(json!({"to": to}))).await.refused(400);
        assert!(detail.starts_with("to: "), "{to}: {detail}");
    }
    assert_eq!(stack.slots(8453, agent.signer).await.len(), 0);
}

#[tokio::test]
async fn threat_47_a_field_that_would_change_what_is_sent_is_refused() {
    let stack = Stack::with(Options { chains: vec![("base", 8453), ("ethereum", 1)], ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let contradicting = [
        json!({"chain_id": 1}),
        json!({"chainId": "1"}),
        json!({"chain_id": "ethereum"}),
        json!({"network": "ethereum"}),
        json!({"to_address": STRANGER}),
        json!({"recipient": STRANGER}),
        json!({"toAddress": STRANGER}),
        json!({"amount": "5"}),
        json!({"value_wei": "1"}),
        json!({"valueWei": 1}),
        json!({"value_eth": "0.002"}),
        json!({"token": "USDC"}),
        json!({"token_mint": "x"}),
        json!({"token_address": STRANGER}),
        json!({"asset": "USDC"}),
        json!({"mode": "smart_account"}),
        json!({"gasless": true}),
        json!({"sponsored": true}),
        json!({"paymaster": STRANGER}),
        json!({"raw_transaction": "0x02"}),
        json!({"transaction": {"to": STRANGER}}),
        json!({"transactions": [{}]}),
        json!({"calls": [{"to": STRANGER}]}),
        json!({"access_list": [{"address": STRANGER, "storageKeys": []}]}),
        json!({"authorization_list": [{"address": STRANGER}]}),
        json!({"from": STRANGER}),
        json!({"sender": STRANGER}),
        json!({"input": "0xdeadbeef"}),
        json!({"calldata": "0xdeadbeef"}),
        json!({"gasLimit": 99_999}),
        json!({"gas": 99_999}),
        json!({"gasPrice": "7"}),
        json!({"maxFeePerGas": "7"}),
        json!({"type": 0}),
        json!({"type": "0x1"}),
        json!({"digest": "0x00"}),
        json!({"message": "x"}),
        json!({"typed_data": {"a": 1}}),
        json!({"intent_type": "message"}),
        json!({"signingKeyPath": "keys/other"}),
        json!({"key_path": "keys/other"}),
        json!({"replace_tx_hash": "0x00"}),
        json!({"simulateFirst": true}),
    ];
    for fields in contradicting {
        for reply in [agent.submit(with(fields.clone())).await, agent.sign(with(fields.clone())).await] {
            assert_clear(&reply, &fields.to_string());
            let detail = reply.refused(400);
            let name = fields.as_object().unwrap().keys().next().unwrap();
            let named = if name == "sender" { "from" } else { name };
            assert!(detail.starts_with(&format!("{named}: ")), "{fields}: {detail}");
        }
    }
    for (fields, route) in [(json!({"broadcast": true}), "/sign"), (json!({"sign_only": true}), "")] {
        let reply = agent.client.post(&format!("{}{route}", agent.path()), &with(fields.clone())).await;
        assert_clear(&reply, &fields.to_string());
        assert_eq!(reply.status, 400, "{fields}");
    }
    for table in ["slots", "attempts", "spends"] {
        assert_eq!(stack.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    let agreeing = json!({
        "chain_id": 8453, "network": "base", "to_address": TO.to_lowercase(), "amount": "0.0010", "value_wei": "1000000000000000",
        "mode": "eoa", "gasless": false, "token": null, "access_list": [], "raw_transaction": "", "from": agent.signer,
        "something_else": {"of": ["another", "version"]},
    });
    assert_eq!(agent.submit(with(agreeing)).await.expect(201)["nonce"], 0);
}

#[tokio::test]
async fn threat_41_submit_and_sign_refuse_the_same() {
    let stack = Stack::with(Options { chains: vec![("base", 8453), ("ethereum", 1)], ..Options::default() }).await;
    let agent = stack
        .agent(json!({
            "tx_to_allowlist": [TO], "tx_max_value_eth": "0.1", "tx_daily_limit_eth": "0.15", "tx_allowed_chains": ["base"],
            "tx_max_fee_eth": "0.001", "tx_daily_fee_limit_eth": "0.0015", "tx_max_gas_limit": 200_000,
        }))
        .await;
    let stranger = stack.agent(json!({})).await;
    agent.submit(with(json!({"value": "0.1"}))).await.expect(201);
    let forbidden = [
        (with(json!({"to": STRANGER})), 403, "tx_to_allowlist"),
        (with(json!({"to": STRANGER, "value": "0"})), 403, "tx_to_allowlist"),
        (with(json!({"value": "0.100000000000000001"})), 403, "tx_max_value_eth"),
        (with(json!({"value": "0.06"})), 403, "tx_daily_limit_eth"),
        (with(json!({"chain": "ethereum"})), 403, "tx_allowed_chains"),
        (with(json!({"chain": "1"})), 403, "tx_allowed_chains"),
        (with(json!({"gas_limit": 200_001})), 403, "tx_max_gas_limit"),
        (with(json!({"gas_limit": 100_000, "max_fee_per_gas": "20000000000"})), 403, "tx_max_fee_eth"),
        (with(json!({"gas_limit": 100_000, "gas_price": "20000000000"})), 403, "tx_max_fee_eth"),
        (with(json!({"gas_limit": 99_000, "gas_price": "10000000000", "value": "0.06"})), 403, "tx_daily_limit_eth"),
        (with(json!({"gas_price": "600000000000"})), 403, "denied by guardrail"),
        (with(json!({"to": STRANGER, "value": "0.5", "gas_limit": 300_000})), 403, "tx_max_value_eth"),
        (with(json!({"gas_price": "1", "max_fee_per_gas": "1"})), 400, ""),
        (with(json!({"gas_limit": 20_999})), 422, ""),
        (with(json!({"max_fee_per_gas": "1", "max_priority_fee_per_gas": "2"})), 400, ""),
        (with(json!({"max_fee_per_gas": "1", "max_priority_fee_per_gas": "1"})), 422, ""),
        (with(json!({"signing_key_path": "keys/not-there"})), 422, ""),
        (with(json!({"signing_key_path": "passwords/root"})), 403, ""),
        (with(json!({"signing_key_path": "../keys/base-signer"})), 400, ""),
        (with(json!({"nonce": 17 + 1})), 422, ""),
        (with(json!({"nonce": 0})), 422, ""),
        (with(json!({"value": "-1"})), 400, "value"),
        (with(json!({"chain_id": 1})), 400, "chain_id"),
    ];
    let before = stack.count("SELECT count(*) FROM attempts").await;
    for (body, status, names) in &forbidden {
        let submit = agent.submit(body.clone()).await.refused(*status);
        let sign = agent.sign(body.clone()).await.refused(*status);
        assert_eq!(submit, sign, "{body}");
        assert!(submit.contains(names), "{body}: {submit}");
    }
    // Another's agent id, and no credential at all.
    for route in ["", "/sign"] {
        let path = format!("{}{route}", agent.path());
        stranger.client.post(&path, &pay("0.001")).await.refused(403);
        stack.owner.post(&path, &pay("0.001")).await.refused(403);
        stack.owner.by(None).post(&path, &pay("0.001")).await.refused(401);
    }
    // Switched off by a human.
    for (off, on) in [
        (json!({"intents_api_enabled": false}), json!({"intents_api_enabled": true})),
        (json!({"tx_to_allowlist": [STRANGER]}), json!({"tx_to_allowlist": [TO]})),
        (json!({"tx_max_value_eth": "0.0001"}), json!({"tx_max_value_eth": "0.1"})),
    ] {
        stack.guardrails(&agent, off.clone()).await;
        assert_eq!(agent.submit(pay("0.001")).await.refused(403), agent.sign(pay("0.001")).await.refused(403), "{off}");
        stack.guardrails(&agent, on).await;
    }
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, before, "something was signed");
    // And both let pass what is allowed, into one window.
    agent.submit(with(json!({"value": "0.02"}))).await.expect(201);
    agent.sign(with(json!({"value": "0.02"}))).await.expect(200);
    let detail = agent.submit(with(json!({"value": "0.02"}))).await.refused(403);
    assert!(detail.contains("rolling 24h total 0.16 ETH"), "{detail}");
}

/// A 32-byte "message" can be the hash of a transaction, and a typed message can be a spend.
#[tokio::test]
async fn threat_20_no_route_signs_a_digest_or_a_message() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let digest = format!("0x{}", "11".repeat(32));
    let asked = json!({
        "digest": digest, "hash": digest, "message": digest, "message_hash": digest, "data": digest, "payload": digest,
        "params": [agent.signer, digest], "intent_type": "message", "chain": "base", "raw": true, "typed_data": {}, "encoding": "hex",
        "method": "eth_sign",
    });
    let id = &agent.id;
    for base in [format!("/v1/agents/{id}"), format!("/v1/agents/{id}/transactions"), "/v1".to_owned(), String::new()] {
        for name in [
            "sign-message",
            "sign_message",
            "sign-digest",
            "sign-hash",
            "sign-raw",
            "raw-sign",
            "personal_sign",
            "personal-sign",
            "eth_sign",
            "eth_signTypedData_v4",
            "sign-typed-data",
            "signatures",
            "signature",
            "messages",
            "digest",
            "rpc",
            "sign/message",
            "sign/raw",
            "sign/digest",
            "sign/typed-data",
            "sign-batch",
            "sign-user-operation",
            "permit",
        ] {
            for method in [Method::POST, Method::PUT, Method::GET] {
                // A GET of something below a list of transactions is a look-up of an id.
                let path = format!("{base}/{name}");
                let reply = Client::send(agent.client.request(method.clone(), &path).json(&asked)).await;
                assert!(
                    [404, 405].contains(&reply.status.as_u16()),
                    "{method} {path}: {} {}",
                    reply.status,
                    reply.body
                );
                assert_eq!(reply.headers["content-type"], "application/problem+json", "{method} {path}");
            }
        }
    }
    for path in [format!("/v1/agents/{id}/sign"), "/v1/sign".to_owned(), "/sign".to_owned(), "/".to_owned()] {
        let reply = agent.client.post(&path, &asked).await;
        assert!([404, 405].contains(&reply.status.as_u16()), "{path}: {} {}", reply.status, reply.body);
    }
    // The routes that sign sign transactions only, and fields that ask for more are not overlooked.
    for fields in [
        json!({"intent_type": "message"}),
        json!({"intent_type": "personal_sign"}),
        json!({"intent_type": "typed_data"}),
        json!({"digest": digest}),
        json!({"message": digest}),
        json!({"message_hash": digest}),
        json!({"typed_data": {"types": {}}}),
        json!({"messageHash": digest}),
        json!({"raw_transaction": digest}),
    ] {
        agent.submit(with(fields.clone())).await.refused(400);
        agent.sign(with(fields.clone())).await.refused(400);
        // Without a transaction beside it, too.
        agent.sign(fields).await.refused(400);
    }
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 0);
}
