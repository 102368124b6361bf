//! Signing keys that clients store.

use serde_json::{Value, json};

use super::{agent, grant, light, secret, vault};
use crate::harness::client::Client;
use crate::harness::stack::{Stack, address_of, fresh_scalar, pay, text};

fn key(value: &str) -> Value {
    json!({"value": value, "type": "private_key", "metadata": {"chain": "base", "label": "signer"}})
}

#[tokio::test]
async fn row_40_keys_that_clients_store_sign_and_decided_imports_happen_on_put() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({})).await;
    let own = stack.vault_of(&payer).await;
    // As examples send them: hex with 0x and without, in upper case too.
    let spellings: [fn(String) -> String; 3] =
        [|hex| hex, |hex| hex.trim_start_matches("0x").to_owned(), |hex| hex.trim_start_matches("0x").to_uppercase()];
    for spelled in spellings {
        let scalar = fresh_scalar();
        let held = stack.count("SELECT count(*) FROM signing_keys").await;
        stack.owner.put(&secret(&own, "keys/base-signer"), &key(&spelled(scalar.clone()))).await.expect(201);
        assert_eq!(stack.count("SELECT count(*) FROM signing_keys").await, held + 1, "before anything is signed");
        let address = address_of(&scalar).to_string();
        let active = "SELECT count(*) FROM signing_keys WHERE state = 'active' AND encode(address, 'hex') = ";
        assert_eq!(stack.count(&format!("{active}'{}'", address[2..].to_lowercase())).await, 1);
        assert_eq!(payer.sign(pay("0")).await.expect(200)["from"], json!(address));
    }
    assert_eq!(
        stack.count("SELECT count(*) FROM secret_versions WHERE ciphertext IS NOT NULL").await,
        2,
        "identity keys"
    );
}

/// What they read at a path, one after the other.
async fn read_by(path: &str, readers: [&Client; 3]) -> [(u16, Value); 3] {
    let mut read = [const { (0, Value::Null) }; 3];
    for (slot, reader) in read.iter_mut().zip(readers) {
        let reply = reader.get(path).await;
        *slot = (reply.status.as_u16(), reply.body);
    }
    read
}

/// A vault with an agent that reads all of it, and another one whose intents flag is on.
async fn readers(stack: &Stack) -> (String, String, Client, Client) {
    let own = vault(&stack.owner).await;
    let ((id, plain), (intents_id, intents)) =
        (agent(stack, json!({})).await, agent(stack, json!({"intents_api_enabled": true})).await);
    for id in [&id, &intents_id] {
        grant(stack, &own, id, "**", &["read", "write"]).await;
    }
    (own, id, plain, intents)
}

#[tokio::test]
async fn decided_a_key_at_a_signing_path_is_in_the_hsm_alone_unless_a_human_wants_a_copy() {
    let stack = light().await;
    let (own, id, plain, intents) = readers(&stack).await;
    for path in ["keys/base-signer".to_owned(), "wallets/hot".to_owned(), format!("agents/{id}/keys/k")] {
        let (scalar, path) = (fresh_scalar(), secret(&own, &path));
        stack.owner.put(&path, &key(&scalar)).await.expect(201);
        let [human, plain_agent, intents_agent] = read_by(&path, [&stack.owner, &plain, &intents]).await;
        for (status, problem) in [human, plain_agent] {
            assert_eq!((status, &problem["type"]), (403, &json!("key_held_in_hsm")));
            assert!(text(&problem, "detail").contains(&address_of(&scalar).to_string()), "{problem}");
        }
        assert_eq!(intents_agent.0, 403);
    }
    let sealed = format!(
        "SELECT count(*) FROM secret_versions v JOIN secrets s ON s.id = v.secret_id WHERE s.vault_id = '{own}' AND v.ciphertext IS NOT NULL"
    );
    assert_eq!(stack.count(&sealed).await, 0, "its plaintext is nowhere");

    let (scalar, path) = (fresh_scalar(), secret(&own, "keys/copy"));
    let mut exportable = key(&scalar);
    exportable["metadata"]["exportable"] = json!(true);
    plain.put(&path, &exportable).await.refused(403);
    stack.owner.put(&path, &exportable).await.expect(201);
    let [human, plain_agent, intents_agent] = read_by(&path, [&stack.owner, &plain, &intents]).await;
    assert_eq!((&human.1["value"], &plain_agent.1["value"]), (&json!(scalar), &json!(scalar)));
    assert_eq!(intents_agent.0, 403);
    for not_true in [json!("true"), json!(1), json!(null)] {
        exportable["metadata"]["exportable"] = not_true;
        stack.owner.put(&path, &exportable).await.expect(201);
        assert_eq!(stack.owner.get(&path).await.expect(403)["type"], "key_held_in_hsm");
    }
}

#[tokio::test]
async fn decided_a_key_elsewhere_is_an_ordinary_secret_that_the_intents_flag_closes() {
    let stack = light().await;
    let (own, _, plain, intents) = readers(&stack).await;
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----";
    let scalar = fresh_scalar();
    for (path, kind, value) in [
        ("backup/base-signer", "private_key", scalar.as_str()),
        ("mykeys/k", "private_key", &scalar),
        ("tls/server", "private_key", pem),
        ("keys/tls", "private_key", pem),
        ("ssh/deploy", "ssh_key", "k"),
    ] {
        let path = secret(&own, path);
        stack.owner.put(&path, &json!({"value": value, "type": kind})).await.expect(201);
        let [human, plain_agent, intents_agent] = read_by(&path, [&stack.owner, &plain, &intents]).await;
        assert_eq!((&human.1["value"], &plain_agent.1["value"]), (&json!(value), &json!(value)), "{path}");
        assert_eq!(intents_agent.0, 403, "{path}");
    }
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys").await, 0);
    // Another type is open to it.
    stack.owner.put(&secret(&own, "api"), &json!({"value": "v", "type": "api_key"})).await.expect(201);
    intents.get(&secret(&own, "api")).await.expect(200);
}
