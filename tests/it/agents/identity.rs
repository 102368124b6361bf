use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack};

fn bytes(body: &Value, name: &str) -> Vec<u8> {
    STANDARD.decode(body[name].as_str().unwrap_or_else(|| panic!("no {name}: {body}"))).unwrap()
}

async fn private(client: &Client, vault: &str, id: &str, kind: &str) -> Vec<u8> {
    let secret = client.get(&format!("/v1/vaults/{vault}/secrets/agents/{id}/{kind}/private_key")).await.expect(200);
    bytes(&secret, "value")
}

/// The private halves belong to the public ones that are shown.
async fn assert_pairs(client: &Client, vault: &str, agent: &Value) {
    let id = agent["id"].as_str().unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&private(client, vault, id, "ssh").await).unwrap();
    let ssh = bytes(agent, "ssh_public_key");
    assert_eq!(ssh.len(), 32);
    aws_lc_rs::signature::UnparsedPublicKey::new(&ED25519, &ssh).verify(b"m", pair.sign(b"m").as_ref()).unwrap();

    let ecdh = bytes(agent, "ecdh_public_key");
    assert_eq!((ecdh.len(), ecdh[0]), (65, 4));
    let own = PrivateKey::from_private_key(&ECDH_P256, &private(client, vault, id, "ecdh").await).unwrap();
    let theirs = PrivateKey::generate(&ECDH_P256).unwrap();
    let shared = |own: &PrivateKey, public: &[u8]| {
        aws_lc_rs::agreement::agree(own, UnparsedPublicKey::new(&ECDH_P256, public), (), |s| Ok(s.to_vec())).unwrap()
    };
    assert_eq!(shared(&own, theirs.compute_public_key().unwrap().as_ref()), shared(&theirs, &ecdh));
}

#[tokio::test]
async fn an_agent_has_keys_of_its_own_from_the_start_and_reads_them_by_policy_alone() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    // Many at once, on two daemons: one vault.
    let made = futures::future::join_all((0..8).map(|n| {
        let owner = stack.owner.at(&stack.daemons[n % 2].url);
        async move { owner.post("/v1/agents", &json!({"name": format!("a{n}")})).await.expect(201) }
    }))
    .await;
    let vaults = stack.owner.get("/v1/vaults").await.expect(200);
    let found: Vec<&Value> =
        vaults["vaults"].as_array().unwrap().iter().filter(|vault| vault["name"] == "__agent-keys").collect();
    assert_eq!(found.len(), 1, "{vaults}");
    let vault = found[0]["id"].as_str().unwrap();
    assert_eq!(stack.owner.get("/v1/org/agent-keys-vault").await.expect(200), json!({"vault_id": vault}));
    for agent in &made {
        assert_pairs(&stack.owner, vault, &agent["agent"]).await;
    }
    let (first, second) = (&made[0]["agent"], &made[1]["agent"]);
    assert_ne!(first["ssh_public_key"], second["ssh_public_key"]);
    let id = first["id"].as_str().unwrap();
    let agent = stack.owner.by(made[0]["api_key"].as_str());
    let me = agent.get("/v1/agents/me").await.expect(200);
    assert_eq!((&me["ssh_public_key"], &me["ecdh_public_key"]), (&first["ssh_public_key"], &first["ecdh_public_key"]));

    // Its own keys are no exception to "nothing without a policy".
    let own = format!("/v1/vaults/{vault}/secrets/agents/{id}/ssh/private_key");
    agent.get(&own).await.refused(403);
    agent.get("/v1/org/agent-keys-vault").await.refused(403);
    assert_eq!(agent.get("/v1/vaults").await.expect(200), json!({"vaults": []}));
    let policy = json!({
        "secret_path_pattern": format!("agents/{id}/**"), "principal_type": "agent", "principal_id": id,
        "permissions": ["read", "write", "delete"],
    });
    stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &policy).await.expect(201);
    assert_eq!(agent.get("/v1/vaults").await.expect(200)["vaults"][0]["name"], "__agent-keys");
    assert_eq!(agent.get("/v1/org/agent-keys-vault").await.expect(200), json!({"vault_id": vault}));
    assert_pairs(&agent, vault, first).await;
    let others = format!("/v1/vaults/{vault}/secrets/agents/{}/ssh/private_key", second["id"].as_str().unwrap());
    agent.get(&others).await.refused(403);
    // Nobody else writes there: not by policy, not as an owner of the organisation.
    for client in [&agent, &stack.owner] {
        client.put(&own, &json!({"value": "x"})).await.refused(403);
        client.put(&format!("/v1/vaults/{vault}/secrets/new"), &json!({"value": "x"})).await.refused(403);
        client.delete(&own).await.refused(403);
        client.delete(&format!("/v1/vaults/{vault}")).await.refused(403);
        for name in ["__agent-keys", "__Agent-Keys", " __agent-keys "] {
            client.post("/v1/vaults", &json!({ "name": name })).await.refused(400);
        }
    }
    // What is done with other secrets is not done with these.
    let cmek = json!({"fingerprint": "ab".repeat(32)});
    stack.owner.post(&format!("/v1/vaults/{vault}/cmek"), &cmek).await.refused(409);
    let restore = format!("/v1/vaults/{vault}/secret-restore/agents/{id}/ssh/private_key");
    stack.owner.post(&restore, &json!({})).await.refused(403);
    stack.owner.post(&restore.replace("restore", "rotate"), &json!({})).await.refused(403);
    let secret = stack.owner.get(&own).await.expect(200)["id"].as_str().unwrap().to_owned();
    let tomorrow = intentd::clock::rfc3339(intentd::clock::now() + time::Duration::days(1));
    let link = json!({"recipient_type": "anyone_with_link", "expires_at": tomorrow});
    for client in [&agent, &stack.owner] {
        client.post(&format!("/v1/secrets/{secret}/share"), &link).await.refused(403);
    }
    // An agent that sends intents reads no keys, these neither.
    stack.owner.patch(&format!("/v1/agents/{id}"), &json!({"intents_api_enabled": true})).await.expect(200);
    agent.get(&own).await.refused(403);
    assert_pairs(&stack.owner, vault, first).await;

    // No private half anywhere in clear.
    let seed = STANDARD.encode(private(&stack.owner, vault, id, "ssh").await);
    let dump = stack.count(&format!("SELECT count(*) FROM audit_events WHERE details::text LIKE '%{seed}%'")).await;
    assert_eq!(dump, 0);
    for daemon in &stack.daemons {
        assert!(!daemon.log_text().contains(&seed));
    }
}

#[tokio::test]
async fn identity_keys_are_rotated_by_humans_and_are_whole_at_any_time() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    let made = stack.owner.post("/v1/agents", &json!({"name": "a"})).await.expect(201);
    let id = made["agent"]["id"].as_str().unwrap();
    let vault = stack.owner.get("/v1/org/agent-keys-vault").await.expect(200)["vault_id"].as_str().unwrap().to_owned();
    let rotate = format!("/v1/agents/{id}/rotate-identity-keys");
    stack.owner.by(made["api_key"].as_str()).post(&rotate, &json!({})).await.refused(403);
    stack
        .owner
        .post(&format!("/v1/agents/{}/rotate-identity-keys", uuid::Uuid::new_v4()), &json!({}))
        .await
        .refused(404);
    // As clients send it: a content type, and no body.
    let request = stack.owner.request(reqwest::Method::POST, &rotate).header("content-type", "application/json");
    let rotated = Client::send(request).await.expect(200);
    assert_ne!(rotated["ssh_public_key"], made["agent"]["ssh_public_key"]);
    assert_ne!(rotated["ecdh_public_key"], made["agent"]["ecdh_public_key"]);
    assert_pairs(&stack.owner, &vault, &rotated).await;
    assert_eq!(rotated.as_object().unwrap().len(), made["agent"].as_object().unwrap().len());

    // Several at once: whoever is last, the halves belong together, and who was too late is told so.
    let replies = futures::future::join_all((0..6).map(|n| {
        let owner = stack.owner.at(&stack.daemons[n % 2].url);
        let rotate = rotate.clone();
        async move { owner.post(&rotate, &json!({})).await.status.as_u16() }
    }))
    .await;
    assert!(replies.contains(&200) && replies.iter().all(|status| [200, 503].contains(status)), "{replies:?}");
    let shown = stack.owner.get(&format!("/v1/agents/{id}")).await.expect(200);
    assert_pairs(&stack.owner, &vault, &shown).await;
    let rotations = replies.iter().filter(|status| **status == 200).count() as i64;
    let versions = format!("SELECT version::int8 FROM secrets WHERE path = 'agents/{id}/ssh/private_key'");
    assert_eq!(stack.count(&versions).await, 2 + rotations);
    let audited = "SELECT count(*) FROM audit_events WHERE action = 'agent.rotate_identity_keys'";
    assert_eq!(stack.count(audited).await, 1 + rotations);
    // An agent from before there were such keys gets its first.
    stack.sql(&format!("UPDATE agents SET ssh_public_key = NULL, ecdh_public_key = NULL WHERE id = '{id}'")).await;
    let bare = stack.owner.get(&format!("/v1/agents/{id}")).await.expect(200);
    assert!(bare.get("ssh_public_key").is_none(), "{bare}");
    let rotated = stack.owner.post(&rotate, &json!({})).await.expect(200);
    assert_pairs(&stack.owner, &vault, &rotated).await;
}
