//! What we sign, read by others: `eth-account` (Python) and Foundry's `cast`. Their checks are in `tests/clients/decoding`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::pytest;
use crate::harness::anvil;
use crate::harness::stack::{Agent, Options, Stack, TO, hash, until};

/// The largest id that a chain may have whose legacy signatures fit in 64 bits (EIP-2294).
const LARGEST_CHAIN_ID: u64 = u64::MAX / 2 - 36;

/// `kind`, `chain_id`, `nonce`, `address`, `tx_hash`, `raw`, and `gas_limit` and the fees as JSON.
type Attempt = (String, i64, i64, Vec<u8>, Vec<u8>, Vec<u8>, Value);

const FIELDS: [&str; 11] = [
    "signed_tx",
    "tx_hash",
    "from",
    "to",
    "chain_id",
    "nonce",
    "value_wei",
    "gas_limit",
    "gas_price",
    "max_fee_per_gas",
    "max_priority_fee_per_gas",
];

/// What the API says of a transaction, all fields that are in it.
async fn said(agent: &Agent, reply: &Value, data: &Value) -> Value {
    let listed = agent.client.get(&agent.path()).await.expect(200);
    let row = listed["transactions"].as_array().unwrap().iter().find(|row| row["tx_hash"] == reply["tx_hash"]).unwrap();
    let mut said = Map::new();
    for field in FIELDS {
        let value = if reply[field].is_null() { &row[field] } else { &reply[field] };
        said.insert(field.to_owned(), value.clone());
    }
    said.insert("data".to_owned(), if data.is_null() { json!("0x") } else { data.clone() });
    Value::Object(said)
}

#[tokio::test]
async fn other_peoples_decoders_read_in_our_bytes_what_the_api_says_of_them() {
    let chains = vec![("base", 8453), ("wide", (1 << 32) + 7), ("widest", LARGEST_CHAIN_ID)];
    let stack = Stack::with(Options { chains: chains.clone(), ..Options::default() }).await;
    let agent = stack.agent(json!({"tx_allow_privileged_calls": true})).await;
    let transfer = format!("0xa9059cbb{:0>64}{:064x}", &TO[2..].to_lowercase(), 5);
    let legacy = json!({"gas_price": "3000000000"});
    let type_2 = json!({"max_fee_per_gas": "30000000007", "max_priority_fee_per_gas": "1000000001"});
    let mut signed = Vec::new();
    for (chain, _) in &chains {
        for fees in [&legacy, &type_2, &json!({})] {
            for more in [
                json!({"value": "0"}),
                json!({"value": "0.000000000000000001"}),
                json!({"value": "123.456789012345678901", "gas_limit": 21_000}),
                json!({"value": "0", "data": transfer, "gas_limit": 100_000}),
                json!({"value": "0.5", "data": format!("0x{}", "00ff".repeat(2_000)), "gas_limit": 500_000}),
            ] {
                let mut intent = json!({"chain": chain, "to": TO});
                intent.as_object_mut().unwrap().extend(fees.as_object().unwrap().clone());
                intent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let reply = agent.sign(intent).await.expect(200);
                signed.push(said(&agent, &reply, &more["data"]).await);
            }
        }
    }
    // Sent ones, at nonces that the sign-only ones leave open.
    let sender = stack.agent(json!({})).await;
    for (chain, _) in &chains {
        let reply = sender.submit(json!({"chain": chain, "to": TO, "value": "1"})).await.expect(201);
        signed.push(said(&sender, &reply, &Value::Null).await);
    }

    // What the daemon signs of itself: it closes the nonce of bytes that nobody has sent, for what waits behind them.
    let closed = stack.agent(json!({})).await;
    closed.sign(json!({"chain": "wide", "to": TO, "value": "0.1"})).await.expect(200);
    closed.submit(json!({"chain": "wide", "to": TO, "value": "0.1"})).await.expect(201);
    stack.sql("UPDATE slots SET created_at = created_at - interval '901 seconds' WHERE sign_only").await;
    let noops = async || stack.count("SELECT count(*) FROM attempts WHERE kind = 'noop'").await > 0;
    until(Duration::from_secs(30), "a no-op", noops).await;
    // Further attempts of a nonce: the same payment with higher fees, and what takes its nonce.
    let replacing = stack.agent(json!({})).await;
    for (chain, _) in &chains {
        stack.anvil(chain).request("evm_setAutomine", json!([false])).await;
        for fees in [&legacy, &type_2] {
            let mut intent = json!({"chain": chain, "to": TO, "value": "0.1", "data": "0x00ff", "gas_limit": 60_000});
            intent.as_object_mut().unwrap().extend(fees.as_object().unwrap().clone());
            let sent = replacing.submit(intent).await.expect(201);
            let path = format!("{}/{}", replacing.path(), sent["id"].as_str().unwrap());
            let faster = replacing.client.post(&format!("{path}/speed-up"), &json!({})).await.expect(200);
            assert_ne!(faster["tx_hash"], sent["tx_hash"]);
            let mut faster = said(&replacing, &faster, &json!("0x00ff")).await;
            let raw: Vec<u8> = sqlx::query_scalar("SELECT raw FROM attempts WHERE tx_hash = $1")
                .bind(hash(&faster).as_slice())
                .fetch_one(&stack.db)
                .await
                .unwrap();
            faster["signed_tx"] = json!(format!("0x{}", hex::encode(raw)));
            signed.push(faster);
            replacing.client.post(&format!("{path}/cancel"), &json!({})).await.expect(200);
        }
    }
    let attempts: Vec<Attempt> = sqlx::query_as(
        "SELECT kind, chain_id, nonce, address, tx_hash, raw, jsonb_build_object('gas_limit', gas_limit, 'gas_price', gas_price::text,
             'max_fee_per_gas', max_fee_per_gas::text, 'max_priority_fee_per_gas', max_priority_fee_per_gas::text) FROM attempts",
    )
    .fetch_all(&stack.db)
    .await
    .unwrap();
    let hex = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
    for (kind, chain_id, nonce, address, tx_hash, raw, fees) in &attempts {
        let mut said = json!({
            "chain_id": chain_id, "nonce": nonce, "from": hex(address), "tx_hash": hex(tx_hash), "signed_tx": hex(raw),
        });
        said.as_object_mut().unwrap().extend(fees.as_object().unwrap().clone());
        if kind != "intent" {
            let nothing = json!({"to": hex(address), "value_wei": "0", "data": "0x"});
            said.as_object_mut().unwrap().extend(nothing.as_object().unwrap().clone());
        }
        signed.push(said);
    }
    let replaced = attempts.iter().filter(|(kind, ..)| kind == "noop").count();
    assert!(replaced > 2 * chains.len(), "{replaced}");
    assert!(signed.len() >= 2 * 45 + 3 + 3 + 2 + 4 * 6, "{}", signed.len());

    let file = stack.install.root.join("signed.json");
    std::fs::write(&file, serde_json::to_vec(&signed).unwrap()).unwrap();
    let env = vec![
        ("SIGNED_JSON", file.display().to_string()),
        ("CAST", anvil::binary("cast", "INTENTD_CAST_BIN").display().to_string()),
    ];
    pytest(&["decoding"], env).await;
}
