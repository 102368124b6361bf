use std::time::Duration;

use alloy::primitives::U256;
use intentd::access::SecretPath;
use intentd::access::store::{principal_by_agent_key, still_proven};
use intentd::access::tokens::{KeyKind, PlainKey};
use intentd::vaults::keys::{self, ResolveError};
use serde_json::{Value, json};

use super::secrets::vault;
use crate::harness::client::Client;
use crate::harness::stack::{Stack, address_of, fresh_scalar, pay};

const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

fn key(scalar: &str) -> Value {
    json!({"value": scalar, "type": "private_key"})
}

/// An agent with rights on a vault, its Intents API on or off.
async fn agent(stack: &Stack, intents: bool, vault: &str, pattern: &str, permissions: &[&str]) -> (String, Client) {
    let made = stack.owner.post("/v1/agents", &json!({"name": "k", "intents_api_enabled": intents})).await.expect(201);
    let id = made["agent"]["id"].as_str().unwrap().to_owned();
    let grant = json!({
        "secret_path_pattern": pattern, "principal_type": "agent", "principal_id": id, "permissions": permissions,
    });
    stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &grant).await.expect(201);
    (id, stack.owner.by(made["api_key"].as_str()))
}

#[tokio::test]
async fn a_signing_key_goes_into_the_hsm_and_nobody_reads_it_back() {
    let stack = Stack::start().await;
    let vault = vault(&stack).await;
    let path = format!("/v1/vaults/{vault}/secrets/keys/base-signer");
    let (first, second) = (fresh_scalar(), fresh_scalar());
    let body = json!({"value": first, "type": "private_key", "metadata": {"chain": "base", "label": "l"}});
    let stored = stack.owner.put(&path, &body).await.expect(201);
    assert_eq!((&stored["version"], &stored["type"]), (&json!(1), &json!("private_key")));

    let (_, reader) = agent(&stack, false, &vault, "**", &["read"]).await;
    for client in [&stack.owner, &reader] {
        let problem = client.get(&path).await.expect(403);
        assert_eq!(problem["type"], "key_held_in_hsm");
        assert!(problem["detail"].as_str().unwrap().contains(&address_of(&first).to_string()), "{problem}");
    }
    let sealed = format!(
        "SELECT count(*) FROM secret_versions v JOIN secrets s ON s.id = v.secret_id
         WHERE s.vault_id = '{vault}' AND v.ciphertext IS NOT NULL"
    );
    assert_eq!(stack.count(&sealed).await, 0);

    // Storing over it supersedes the key, and keeps it.
    stack.owner.put(&path, &key(&second)).await.expect(201);
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys WHERE state = 'active'").await, 1);
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys WHERE state = 'superseded'").await, 1);
    let detail = stack.owner.get(&path).await.refused(403);
    assert!(detail.contains(&address_of(&second).to_string()), "{detail}");
    // An ordinary secret over it supersedes it too, and is readable; the history still closes the gate for Intents agents.
    stack.owner.put(&path, &json!({"value": "plain"})).await.expect(201);
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys WHERE state = 'active'").await, 0);
    assert_eq!(stack.owner.get(&path).await.expect(200)["value"], "plain");
    stack.owner.put(&path, &key(&second)).await.expect(201);
    stack.owner.delete(&path).await.expect(204);
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys WHERE state = 'active'").await, 0);
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys").await, 3, "no key is ever deleted");
}

#[tokio::test]
async fn threat_32_keys_that_are_none_are_refused_and_the_address_is_ours() {
    let stack = Stack::start().await;
    let vault = vault(&stack).await;
    let path = format!("/v1/vaults/{vault}/secrets/wallets/main");
    for zero_or_too_large in ["0".repeat(64), format!("0x{}", "0".repeat(64)), ORDER.to_owned(), "f".repeat(64)] {
        stack.owner.put(&path, &key(&zero_or_too_large)).await.refused(422);
    }
    for damaged in ["1", "0x01", &"1".repeat(63), &"1".repeat(65)] {
        stack.owner.put(&path, &key(damaged)).await.refused(400);
    }
    stack.owner.get(&path).await.refused(404);
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys").await, 0);
    // Known pairs: 1, and n - 1, whose points differ only in the sign of y.
    for (scalar, address) in [
        (format!("{:064x}", 1), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"),
        (format!("0x{}0", &ORDER[..63]), "0x80C0dbf239224071c59dD8970ab9d542E3414aB2"),
    ] {
        let body = json!({"value": scalar, "type": "private_key", "metadata": {"address": "0x0000000000000000000000000000000000000001"}});
        stack.owner.put(&path, &body).await.expect(201);
        let detail = stack.owner.get(&path).await.refused(403);
        assert!(detail.contains(address), "{detail}");
    }
}

#[tokio::test]
async fn a_readable_copy_is_kept_only_for_a_human_who_asks() {
    let stack = Stack::start().await;
    let vault = vault(&stack).await;
    let path = format!("/v1/vaults/{vault}/secrets/keys/exportable");
    let scalar = fresh_scalar();
    let mut body = key(&scalar);
    body["metadata"] = json!({"exportable": true});
    let (_, writer) = agent(&stack, false, &vault, "**", &["read", "write"]).await;
    writer.put(&path, &body).await.refused(403);
    stack.owner.put(&path, &body).await.expect(201);
    assert_eq!(stack.owner.get(&path).await.expect(200)["value"], json!(scalar));
    assert_eq!(writer.get(&path).await.expect(200)["value"], json!(scalar));
    let (_, intents) = agent(&stack, true, &vault, "**", &["read", "write"]).await;
    intents.get(&path).await.refused(403);
}

#[tokio::test]
async fn an_intents_agent_reads_and_replaces_no_key_whatever_its_policy() {
    let stack = Stack::start().await;
    let vault = vault(&stack).await;
    let base = format!("/v1/vaults/{vault}/secrets");
    let (_, intents) = agent(&stack, true, &vault, "**", &["read", "write", "delete"]).await;
    let (_, plain) = agent(&stack, false, &vault, "**", &["read"]).await;
    stack.owner.put(&format!("{base}/api/x"), &json!({"value": "v"})).await.expect(201);
    intents.get(&format!("{base}/api/x")).await.expect(200);

    // A PEM at an ordinary path, later "rotated" to another type; an SSH key; anything at a signing path.
    stack.owner.put(&format!("{base}/tls/key"), &key("-----BEGIN PRIVATE KEY-----")).await.expect(201);
    stack.owner.put(&format!("{base}/ssh"), &json!({"value": "k", "type": "ssh_key"})).await.expect(201);
    stack.owner.put(&format!("{base}/keys/note"), &json!({"value": "n"})).await.expect(201);
    for path in ["tls/key", "ssh", "keys/note"] {
        let path = format!("{base}/{path}");
        plain.get(&path).await.expect(200);
        intents.get(&path).await.refused(403);
        intents.put(&path, &json!({"value": "mine"})).await.refused(403);
        intents.delete(&path).await.refused(403);
        stack.owner.put(&path, &json!({"value": "rotated", "type": "generic"})).await.expect(201);
        intents.get(&path).await.refused(403);
        plain.get(&path).await.expect(200);
    }
    intents.get(&format!("{base}/keys/not-there")).await.refused(403);
}

#[tokio::test]
async fn which_key_signs_is_told_or_refused_never_guessed() {
    let stack = Stack::start().await;
    let (first, second) = (vault(&stack).await, vault(&stack).await);
    let path = |vault: &str| format!("/v1/vaults/{vault}/secrets/keys/base-signer");
    let (a, b) = (fresh_scalar(), fresh_scalar());
    for (vault, scalar) in [(&first, &a), (&second, &b)] {
        stack.owner.put(&path(vault), &key(scalar)).await.expect(201);
        stack.chain().set_balance(address_of(scalar), U256::from(10).pow(U256::from(20))).await;
    }

    // No right to the path anywhere: refused alike with a key there and without.
    let (id, client) = agent(&stack, true, &first, "api/*", &["read"]).await;
    let submit = format!("/v1/agents/{id}/transactions");
    let signer = async || client.post(&submit, &pay("0.01")).await.expect(201)["from"].as_str().unwrap().to_owned();
    let mut elsewhere = pay("0.01");
    elsewhere["signing_key_path"] = json!("keys/not-there");
    client.post(&submit, &pay("0.01")).await.refused(403);
    client.post(&submit, &elsewhere).await.refused(403);

    // One key: that one.
    let grant = json!({"secret_path_pattern": "keys/*", "principal_type": "agent", "principal_id": id, "permissions": ["read"]});
    let policies = |vault: &str| format!("/v1/vaults/{vault}/policies");
    let policy = stack.owner.post(&policies(&first), &grant).await.expect(201);
    assert_eq!(signer().await, address_of(&a).to_string());
    client.post(&submit, &elsewhere).await.refused(422);

    // Two of the same tier: both are named, none is used.
    stack.owner.post(&policies(&second), &grant).await.expect(201);
    let detail = client.post(&submit, &pay("0.01")).await.refused(422);
    for scalar in [&a, &b] {
        assert!(detail.contains(&address_of(scalar).to_string()), "{detail}");
    }
    // A binding decides.
    stack.owner.patch(&format!("/v1/agents/{id}"), &json!({"vault_ids": [second]})).await.expect(200);
    assert_eq!(signer().await, address_of(&b).to_string());
    stack.owner.patch(&format!("/v1/agents/{id}"), &json!({"vault_ids": []})).await.expect(200);

    // A revoked right is gone at the next request; so is a deleted vault's key.
    stack.owner.delete(&format!("{}/{}", policies(&first), policy["id"].as_str().unwrap())).await.expect(204);
    assert_eq!(signer().await, address_of(&b).to_string());
    stack.owner.delete(&format!("/v1/vaults/{second}")).await.expect(204);
    client.post(&submit, &pay("0.01")).await.refused(403);
}

/// What the transaction that signs relies on: checks that hold their rows until it ends.
#[tokio::test]
async fn a_right_that_was_checked_holds_and_one_that_was_revoked_does_not() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let mut conn = stack.db.acquire().await.unwrap();
    let agent_key = PlainKey::parse(KeyKind::Agent, &agent.api_key).unwrap();
    let (principal, _) = principal_by_agent_key(&mut conn, &agent_key, None).await.unwrap().unwrap();
    let path = SecretPath::parse("keys/base-signer").unwrap();
    let signer = keys::for_intent(&mut conn, &principal, Some(path.clone()), "base").await.unwrap();
    assert_eq!(signer.address, agent.signer);
    drop(conn);

    // Every way to take the right away waits for the transaction, and then holds.
    let vault = format!("/v1/vaults/{}", signer.vault_id);
    let policies = stack.owner.get(&format!("{vault}/policies")).await.expect(200);
    let policy = format!("{vault}/policies/{}", policies["policies"][0]["id"].as_str().unwrap());
    let mut signing = stack.db.begin().await.unwrap();
    assert!(still_proven(&mut signing, &principal).await.unwrap());
    keys::recheck(&mut signing, &principal, signer.id).await.unwrap();
    let mut revocation = Box::pin(stack.owner.delete(&policy));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut revocation).await.is_err(), "it did not wait");
    let rotate = format!("/v1/agents/{}/rotate-key", agent.id);
    let mut rotation = Box::pin(stack.owner.post(&rotate, &Value::Null));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut rotation).await.is_err(), "it did not wait");
    let secret = format!("{vault}/secrets/keys/base-signer");
    let mut removal = Box::pin(stack.owner.delete(&secret));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut removal).await.is_err(), "it did not wait");
    signing.commit().await.unwrap();
    revocation.await.expect(204);
    let mut conn = stack.db.acquire().await.unwrap();
    rotation.await.expect(200);
    assert!(!still_proven(&mut conn, &principal).await.unwrap(), "the key was rotated");
    removal.await.expect(204);
    let refused = keys::recheck(&mut conn, &principal, signer.id).await.unwrap_err();
    assert!(matches!(refused, ResolveError::NotActive), "{refused}");
    assert_eq!(keys::get(&mut conn, signer.id).await.unwrap().unwrap().state, keys::KeyState::Superseded);

    stack.owner.put(&secret, &key(&fresh_scalar())).await.expect(201);
    let grant = |permission: &str| json!({"secret_path_pattern": "**", "principal_type": "agent", "principal_id": agent.id, "permissions": [permission]});
    stack.owner.post(&format!("{vault}/policies"), &grant("write")).await.expect(201);
    let refused = keys::for_intent(&mut conn, &principal, Some(path.clone()), "base").await.unwrap_err();
    assert!(matches!(refused, ResolveError::Forbidden(_)), "writing is not reading: {refused}");
    stack.owner.post(&format!("{vault}/policies"), &grant("read")).await.expect(201);
    let renewed = keys::for_intent(&mut conn, &principal, Some(path.clone()), "base").await.unwrap();
    assert_eq!(renewed.version, 2);
    keys::recheck(&mut conn, &principal, renewed.id).await.unwrap();
    stack.owner.delete(&vault).await.expect(204);
    let refused = keys::recheck(&mut conn, &principal, renewed.id).await.unwrap_err();
    assert!(matches!(refused, ResolveError::NotActive), "{refused}");
}

/// The last statement of the transaction fails, as a crash between C_WrapKey and COMMIT would: nothing of the key may be visible.
#[tokio::test]
async fn a_key_its_blob_and_its_address_are_kept_together_or_not_at_all() {
    let stack = Stack::start().await;
    let path = format!("/v1/vaults/{}/secrets/keys/base-signer", vault(&stack).await);
    let secret = key(&fresh_scalar());
    stack
        .sql(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the end'; END $$;
             CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON signing_keys DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        .await;
    let refused = stack.owner.put(&path, &secret).await;
    assert!(refused.status.is_server_error(), "{}: {}", refused.status, refused.body);
    for table in ["signing_keys", "secrets", "secret_versions"] {
        assert_eq!(stack.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    stack.sql("DROP TRIGGER at_commit ON signing_keys").await;
    let kept = stack.owner.put(&path, &secret).await.expect(201);
    assert_eq!(kept["version"], 1);
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys WHERE state = 'active'").await, 1);
}

#[tokio::test]
async fn threat_21_a_member_puts_no_key_before_an_agent() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let member = stack.human(&stack.org_id, "member").await.client;
    let made = member.post("/v1/vaults", &json!({"name": "a member's"})).await.expect(201);
    let vault = format!("/v1/vaults/{}", made["id"].as_str().unwrap());
    member.put(&format!("{vault}/secrets/keys/base-signer"), &key(&fresh_scalar())).await.expect(201);
    let grant = |pattern: &str| json!({"secret_path_pattern": pattern, "principal_type": "agent", "principal_id": agent.id, "permissions": ["read"]});
    member.post(&format!("{vault}/policies"), &grant("keys/*")).await.refused(403);
    let policy = member.post(&format!("{vault}/policies"), &grant("**")).await.expect(201);
    member.put(&format!("{vault}/secrets/a"), &json!({"value": "v"})).await.expect(201);
    assert_eq!(agent.client.get(&format!("{vault}/secrets/a")).await.expect(200)["value"], "v");
    // Nothing is ambiguous, and the signature is by the key that a manager gave.
    assert_eq!(agent.sign(pay("0.001")).await.expect(200)["from"], json!(agent.signer.to_string()));
    // Also when a manager looks after the policy: whose it is stays.
    let change = json!({"permissions": ["read", "write"]});
    let path = format!("{vault}/policies/{}", policy["id"].as_str().unwrap());
    stack.owner.put(&path, &change).await.expect(200);
    agent.sign(pay("0.001")).await.expect(200);
}

#[tokio::test]
async fn an_agent_that_is_deleted_takes_its_own_key_along() {
    let stack = Stack::start().await;
    let made = stack.owner.post("/v1/agents", &json!({"name": "k", "intents_api_enabled": true})).await.expect(201);
    let id = made["agent"]["id"].as_str().unwrap();
    stack.owner.post(&format!("/v1/agents/{id}/signing-keys"), &json!({"chain": "ethereum"})).await.expect(201);
    let active = "SELECT count(*) FROM signing_keys WHERE state = 'active'";
    assert_eq!(stack.count(active).await, 1);
    stack.owner.delete(&format!("/v1/agents/{id}")).await.expect(204);
    assert_eq!(stack.count(active).await, 0);
}
