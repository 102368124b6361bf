//! The hash that is answered is the hash that is mined.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::stack::{Stack, pay, text};

const KEYS: usize = 4;
const EACH: usize = 250;

/// A thousand intents over four keys, a third of them by way of `/sign` and whoever sends the bytes.
#[tokio::test]
async fn threat_44_the_hash_answered_is_the_hash_mined_for_a_thousand_intents() {
    let stack = Stack::start().await;
    let mut lanes = Vec::new();
    for _ in 0..KEYS {
        let agent = stack.agent(json!({})).await;
        let node = stack.chain().url();
        lanes.push(tokio::spawn(async move {
            let node = crate::harness::client::Client::new(&node, None);
            let mut answered = BTreeMap::new();
            for n in 0..EACH {
                let body = if n % 3 == 2 {
                    let signed = agent.sign(pay("0.0001")).await.expect(200);
                    let send = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [signed["signed_tx"]]});
                    let sent = node.post("", &send).await.expect(200);
                    assert_eq!(sent["result"], signed["tx_hash"], "the bytes that were given out have another hash: {sent}");
                    signed
                } else {
                    agent.submit(pay("0.0001")).await.expect(201)
                };
                answered.insert(body["nonce"].as_u64().unwrap(), text(&body, "tx_hash"));
            }
            (agent, answered)
        }));
    }
    let mut all = BTreeSet::new();
    for lane in lanes {
        let (agent, answered) = lane.await.unwrap();
        assert_eq!(answered.keys().copied().collect::<Vec<_>>(), (0..EACH as u64).collect::<Vec<_>>());
        stack.assert_settled("base", agent.signer, 0, EACH as u64).await;
        // By the chain alone: the transaction of this hash is this sender's of this nonce, and succeeded.
        for (nonce, hash) in &answered {
            let mined: Value = stack.chain().request("eth_getTransactionByHash", json!([hash])).await;
            let from = text(&mined, "from");
            assert_eq!(
                (from.to_lowercase(), &mined["nonce"]),
                (agent.signer.to_string().to_lowercase(), &json!(format!("{nonce:#x}")))
            );
            assert!(mined["blockNumber"].is_string(), "{hash} is not mined: {mined}");
        }
        all.extend(answered.into_values());
    }
    assert_eq!(all.len(), KEYS * EACH);
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, (KEYS * EACH) as i64, "one signature for each");
}
