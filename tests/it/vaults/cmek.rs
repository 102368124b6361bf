//! Values that clients encrypt under a key of their own.

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::at;
use super::secrets::vault;
use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Stack, fresh_scalar, pay};

/// A customer's key, used as clients use theirs.
#[derive(Clone)]
pub struct Customer(pub [u8; 32]);

impl Customer {
    pub fn new() -> Self {
        let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        Self([*a.as_bytes(), *b.as_bytes()].concat().try_into().unwrap())
    }

    pub fn base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(self.0))
    }

    pub fn encrypt(&self, plain: &str) -> String {
        let iv: [u8; 12] = uuid::Uuid::new_v4().as_bytes()[..12].try_into().unwrap();
        let ciphertext = Aes256Gcm::new(&self.0.into()).encrypt(&Nonce::from(iv), plain.as_bytes()).unwrap();
        STANDARD.encode([&[1], &iv[..], &ciphertext].concat())
    }

    pub fn decrypt(&self, value: &str) -> Option<String> {
        let blob = STANDARD.decode(value).ok()?;
        let iv: [u8; 12] = blob[1..13].try_into().unwrap();
        let plain = Aes256Gcm::new(&self.0.into()).decrypt(&Nonce::from(iv), &blob[13..]).ok()?;
        String::from_utf8(plain).ok()
    }
}

pub async fn enable(client: &Client, vault: &str, key: &Customer) -> Reply {
    client.post(&format!("/v1/vaults/{vault}/cmek"), &json!({"fingerprint": key.fingerprint()})).await
}

pub async fn rotate(client: &Client, vault: &str, old: &Customer, new: &Customer) -> Reply {
    let request = client
        .request(reqwest::Method::POST, &format!("/v1/vaults/{vault}/cmek-rotate"))
        .header("x-cmek-old-key", old.base64())
        .header("x-cmek-new-key", new.base64())
        .json(&json!({"new_fingerprint": new.fingerprint()}));
    Client::send(request).await
}

#[tokio::test]
async fn what_a_client_encrypted_comes_back_as_it_was_and_says_so() {
    let stack = super::stack(1, &[]).await;
    let vault = vault(&stack).await;
    let own = format!("/v1/vaults/{vault}");
    let cmek = format!("{own}/cmek");
    let key = Customer::new();
    let put = async |path: &str, body: Value| stack.owner.put(&at(&vault, "secrets", path), &body).await.expect(201);
    let get = async |path: &str| stack.owner.get(&at(&vault, "secrets", path)).await.expect(200);

    // Before it is on, a blob is a value like any other.
    put("before", json!({"value": key.encrypt("x")})).await;
    assert!(get("before").await.get("cmek_encrypted").is_none());
    for wrong in
        [json!({}), json!({"fingerprint": null}), json!({"fingerprint": "ab"}), json!({"fingerprint": "g".repeat(64)})]
    {
        stack.owner.post(&cmek, &wrong).await.refused(400);
    }
    let upper = json!({"fingerprint": key.fingerprint().to_uppercase()});
    let on = stack.owner.post(&cmek, &upper).await.expect(200);
    assert_eq!((&on["cmek_enabled"], &on["cmek_fingerprint"]), (&json!(true), &json!(key.fingerprint())));
    assert_eq!(stack.owner.get(&own).await.expect(200), on);
    assert_eq!(enable(&stack.owner, &vault, &key).await.expect(200), on, "again");
    enable(&stack.owner, &vault, &Customer::new()).await.refused(409);

    let blob = key.encrypt("hunter2");
    let stored = put("a", json!({"value": blob, "type": "password"})).await;
    assert!(stored.get("cmek_encrypted").is_none(), "strict decoders: {stored}");
    let read = get("a").await;
    assert_eq!(
        (&read["value"], &read["cmek_encrypted"], &read["type"]),
        (&json!(blob), &json!(true), &json!("password"))
    );
    assert_eq!(key.decrypt(read["value"].as_str().unwrap()).as_deref(), Some("hunter2"));
    let versions = stack.owner.get(&at(&vault, "secret-versions", "a")).await.expect(200);
    assert_eq!(versions["versions"][0]["cmek_fingerprint"], json!(key.fingerprint()));
    // Under our own envelope all the same: the blob itself is nowhere.
    let raw = hex::encode(STANDARD.decode(&blob).unwrap());
    let count = format!("SELECT count(*) FROM secret_versions WHERE encode(ciphertext, 'hex') LIKE '%{raw}%'");
    assert_eq!(stack.count(&count).await, 0);

    // What does not have the form is not encrypted, and neither is what says so itself.
    for (path, body) in [
        ("plain", json!({"value": "plain"})),
        ("denied", json!({"value": blob, "metadata": {"cmek_encrypted": false}})),
        ("short", json!({"value": STANDARD.encode([1; 28])})),
        ("other", json!({"value": STANDARD.encode([2; 64])})),
    ] {
        put(path, body.clone()).await;
        let read = get(path).await;
        assert!(read["value"] == body["value"] && read.get("cmek_encrypted").is_none(), "{path}: {read}");
    }
    stack.owner.post(&at(&vault, "secret-rotate", "plain"), &json!({})).await.refused(422);

    // Off: what is encrypted stays so. On with another key: each value is under its own.
    let off = stack.owner.delete(&cmek).await.expect(200);
    assert!(off.get("cmek_enabled").is_none() && off.get("cmek_fingerprint").is_none(), "{off}");
    assert_eq!(stack.owner.delete(&cmek).await.expect(200), off, "again");
    assert_eq!(get("a").await["cmek_encrypted"], true);
    put("off", json!({"value": blob})).await;
    assert!(get("off").await.get("cmek_encrypted").is_none());
    let second = Customer::new();
    enable(&stack.owner, &vault, &second).await.expect(200);
    put("a", json!({"value": second.encrypt("v2")})).await;
    let versions = stack.owner.get(&at(&vault, "secret-versions", "a")).await.expect(200);
    let under = |n: usize| versions["versions"][n]["cmek_fingerprint"].clone();
    assert_eq!((under(0), under(1)), (json!(second.fingerprint()), json!(key.fingerprint())));
    let actions = stack.owner.get("/v1/audit/events?resource_id=".to_owned().as_str()).await.expect(200).to_string();
    assert!(actions.contains("cmek.enable") && actions.contains("cmek.disable"));
}

#[tokio::test]
async fn nothing_is_signed_with_a_key_that_only_its_client_can_decrypt() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let vault = stack.vault_of(&agent).await;
    let vault = vault.as_str();
    let key = Customer::new();
    enable(&stack.owner, vault, &key).await.expect(200);
    // The key that is in the HSM is not the client's to encrypt.
    agent.sign(pay("0.001")).await.expect(200);
    let path = at(vault, "secrets", "keys/base-signer");
    let encrypted = json!({"value": key.encrypt(&fresh_scalar()), "type": "private_key"});
    stack.owner.put(&path, &encrypted).await.expect(201);
    for reply in [agent.sign(pay("0.001")).await, agent.submit(pay("0.001")).await] {
        let detail = reply.refused(422);
        assert!(detail.contains("CMEK") && detail.contains("keys/base-signer"), "{detail}");
    }
    assert_eq!(stack.owner.get(&path).await.expect(200)["cmek_encrypted"], true);
    // And a plain one goes into the HSM in this vault too.
    let scalar = fresh_scalar();
    stack.owner.put(&path, &json!({"value": scalar, "type": "private_key"})).await.expect(201);
    agent.sign(pay("0.001")).await.expect(200);
    assert_eq!(stack.owner.get(&path).await.expect(403)["type"], "key_held_in_hsm");
}
