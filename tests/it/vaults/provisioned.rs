//! `/v1/agents/{id}/signing-keys`: keys that are born in the HSM for one agent.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use super::secrets::vault;
use crate::harness::client::Client;
use crate::harness::stack::{Agent, Options, Stack, TO, fresh_scalar, pay, text};
use crate::orgs::{human, other_org};

fn keys(agent: &str) -> String {
    format!("/v1/agents/{agent}/signing-keys")
}

async fn fund(stack: &Stack, address: &str) {
    stack.chain().set_balance(address.parse().unwrap(), "1000000000000000000".parse().unwrap()).await;
}

/// An agent with the Intents API and nothing else.
async fn bare(stack: &Stack) -> Agent {
    let body = json!({"name": format!("bare-{}", uuid::Uuid::new_v4()), "intents_api_enabled": true});
    let made = stack.owner.post("/v1/agents", &body).await.expect(201);
    let api_key = text(&made, "api_key");
    let client = stack.owner.by(Some(&api_key));
    Agent { id: text(&made["agent"], "id"), api_key, signer: TO.parse().unwrap(), client }
}

/// Objects on the token: SoftHSM keeps a file for each.
fn objects(stack: &Stack) -> usize {
    let tokens = std::fs::read_dir(stack.install.root.join("token/tokens")).unwrap().flatten();
    let files = tokens.flat_map(|token| std::fs::read_dir(token.path()).unwrap().flatten());
    files.filter(|file| file.path().extension().is_some_and(|extension| extension == "object")).count()
}

/// The whole life of a key, by the default custody of two daemons.
async fn life(custody: &'static str) {
    let env = vec![("INTENTD_HSM_CUSTODY".to_owned(), custody.to_owned())];
    let stack = Stack::with(Options { daemons: 2, env, ..Options::default() }).await;
    let (agent, there) = (bare(&stack).await, stack.owner.at(&stack.daemons[1].url));
    let path = keys(&agent.id);
    assert_eq!(stack.owner.get(&path).await.expect(200)["keys"], json!([]));
    agent.submit(pay("0.01")).await.refused(403);
    for (method, missing) in [
        ("DELETE", path.clone() + "/ethereum"),
        ("POST", path.clone() + "/ethereum/rotate"),
        ("GET", path.clone() + "/base/balance"),
    ] {
        let request = stack.owner.request(method.parse().unwrap(), &missing);
        Client::send(request).await.refused(404);
    }

    // Born: one key for every EVM chain, whichever is named, and nothing that could be read.
    let made = stack.owner.post(&path, &json!({"chain": "base"})).await.expect(201);
    let fields: BTreeSet<&str> = made.as_object().unwrap().keys().map(String::as_str).collect();
    let of_contract = [
        "id",
        "agent_id",
        "chain",
        "curve",
        "public_key",
        "address",
        "key_version",
        "is_active",
        "created_at",
        "rotated_at",
    ];
    assert!(of_contract.iter().all(|field| fields.contains(field)), "{made}");
    assert_eq!(
        (&made["agent_id"], &made["chain"], &made["curve"], &made["key_version"], &made["is_active"], &made["custody"]),
        (&json!(agent.id), &json!("ethereum"), &json!("secp256k1"), &json!(1), &json!(true), &json!(custody))
    );
    assert_eq!(text(&made, "public_key").len(), 2 + 130);
    assert_eq!(made["rotated_at"], Value::Null);
    for chain in ["ethereum", "base", "8453"] {
        there.post(&path, &json!({ "chain": chain })).await.refused(409);
    }
    for (body, status) in [
        (json!({}), 400),
        (json!({"chain": "solana"}), 422),
        (json!({"chain": "bitcoin"}), 422),
        (json!({"chain": "ethereum", "custody": "paper"}), 400),
    ] {
        stack.owner.post(&path, &body).await.refused(status);
    }
    let first = text(&made, "address");
    assert_eq!(there.get(&format!("/v1/agents/{}", agent.id)).await.expect(200)["evm_address"], json!(first));
    let listed = there.get(&path).await.expect(200);
    assert_eq!((&listed["keys"], &listed["signing_keys"]), (&json!([made]), &json!([made])));

    // Signs at once, everywhere, without a policy; its balance is told.
    fund(&stack, &first).await;
    let sent = agent.at(&there.base).submit(pay("0.01")).await.expect(201);
    assert_eq!(sent["from"], first);
    agent.settled(&text(&sent, "id")).await;
    for client in [&stack.owner, &agent.client] {
        let balance = client.get(&format!("{path}/base/balance?tokens={TO}")).await.expect(200);
        assert_eq!(
            (&balance["address"], &balance["symbol"], &balance["chain_id"]),
            (&json!(first), &json!("ETH"), &json!(8453))
        );
        assert!(text(&balance, "balance").starts_with("0.98"), "{balance}");
        assert_eq!(balance["tokens"].as_array().unwrap().len(), 1);
    }
    stack.owner.get(&format!("{path}/base/balance?tokens=0x12")).await.refused(400);
    stack.owner.get(&format!("{path}/solana/balance")).await.refused(422);

    // Rotated while something is under way: the old address is followed to its end, the new one signs.
    stack.chain().request("evm_setAutomine", json!([false])).await;
    stack.chain().request("evm_setIntervalMining", json!([0])).await;
    let under_way = agent.submit(pay("0.02")).await.expect(201);
    let rotated = stack.owner.post(&format!("{path}/8453/rotate"), &json!({})).await.expect(200);
    let second = text(&rotated, "address");
    assert_ne!(first, second);
    assert_eq!(
        (&rotated["key_version"], &rotated["custody"], &rotated["is_active"]),
        (&json!(2), &json!(custody), &json!(true))
    );
    fund(&stack, &second).await;
    assert_eq!(agent.at(&there.base).submit(pay("0.01")).await.expect(201)["from"], second);
    stack.chain().request("evm_setAutomine", json!([true])).await;
    stack.chain().mine(2).await;
    assert_eq!(agent.settled(&text(&under_way, "id")).await["receipt_status"], "success");
    let listed = stack.owner.get(&path).await.expect(200);
    let states: Vec<_> =
        listed["keys"].as_array().unwrap().iter().map(|key| (&key["address"], &key["is_active"])).collect();
    assert_eq!(states, [(&json!(second), &json!(true)), (&json!(first), &json!(false))]);
    assert!(listed["keys"].as_array().unwrap().iter().all(|key| key["rotated_at"].is_string()), "{listed}");

    // Deactivated: nothing new; created again, a third key.
    assert_eq!(there.delete(&format!("{path}/ethereum")).await.expect(204), Value::Null);
    stack.owner.delete(&format!("{path}/ethereum")).await.refused(404);
    stack.owner.post(&format!("{path}/ethereum/rotate"), &json!({})).await.refused(404);
    stack.owner.get(&format!("{path}/base/balance")).await.refused(404);
    agent.submit(pay("0.01")).await.refused(403);
    assert!(
        stack
            .owner
            .get(&format!("/v1/agents/{}", agent.id))
            .await
            .expect(200)
            .get("evm_address")
            .is_none_or(Value::is_null)
    );
    let third = stack.owner.post(&path, &json!({"chain": "ethereum"})).await.expect(201);
    assert_eq!(third["key_version"], 3);
    let addresses = [first, second, text(&third, "address")];
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 3);
    for action in ["signing_key.create", "signing_key.rotate", "signing_key.deactivate"] {
        assert_ne!(crate::orgs::last_event(&stack, action).await, Value::Null, "{action}");
    }
}

#[tokio::test]
async fn an_agents_key_is_born_signs_is_rotated_and_ends() {
    life("wrapped").await;
}

#[tokio::test]
async fn an_agents_key_on_the_token_lives_likewise() {
    life("token").await;
}

#[tokio::test]
async fn one_key_comes_of_many_requests_and_nobody_else_makes_reads_or_hides_it() {
    let stack = Stack::with(Options { daemons: 2, ..Options::default() }).await;
    let agent = bare(&stack).await;
    let path = keys(&agent.id);
    // No agent, no member, no other organisation.
    let (other, stranger) = other_org(&stack).await;
    assert_ne!(other, stack.org_id);
    let member = human(&stack, "member").await.client;
    let another = bare(&stack).await;
    for client in [&agent.client, &another.client, &member] {
        client.post(&path, &json!({"chain": "ethereum"})).await.refused(403);
        client.post(&format!("{path}/ethereum/rotate"), &json!({})).await.refused(403);
        client.delete(&format!("{path}/ethereum")).await.refused(403);
    }
    another.client.get(&path).await.refused(403);
    another.client.get(&format!("{path}/base/balance")).await.refused(403);
    member.get(&path).await.expect(200);
    stranger.post(&path, &json!({"chain": "ethereum"})).await.refused(404);
    stranger.post(&format!("{path}/ethereum/rotate"), &json!({})).await.refused(404);
    stranger.delete(&format!("{path}/ethereum")).await.refused(404);
    stranger.get(&path).await.refused(404);
    stranger.get(&format!("{path}/base/balance")).await.refused(404);
    stack.owner.by(None).get(&path).await.refused(401);
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys").await, 0);

    let before = objects(&stack);
    // Twenty at once on two daemons, half of them for a key on the token: one key, and no object that no row names.
    let create = (0..20).map(|n| {
        let client = stack.owner.at(&stack.daemons[n % 2].url);
        let (path, custody) = (path.clone(), if n % 4 < 2 { "wrapped" } else { "token" });
        async move { client.post(&path, &json!({"chain": "ethereum", "custody": custody})).await }
    });
    let replies = join_all(create).await;
    let made: Vec<_> = replies.iter().filter(|reply| reply.status == 201).collect();
    assert_eq!(made.len(), 1, "{replies:?}");
    assert!(replies.iter().all(|reply| [201, 409, 503].contains(&reply.status.as_u16())), "{replies:?}");
    assert_eq!(stack.count("SELECT count(*) FROM signing_keys").await, 1);
    let address = text(&made[0].body, "address");
    // Rotations at once: a line of versions, one of them active.
    let rotate = (0..10).map(|n| {
        let client = stack.owner.at(&stack.daemons[n % 2].url);
        let path = format!("{path}/ethereum/rotate");
        async move { client.post(&path, &json!({"custody": "token"})).await }
    });
    let replies = join_all(rotate).await;
    let rotated = replies.iter().filter(|reply| reply.status == 200).count();
    assert!(rotated >= 1 && replies.iter().all(|reply| [200, 503].contains(&reply.status.as_u16())), "{replies:?}");
    let listed = stack.owner.get(&path).await.expect(200)["keys"].as_array().unwrap().clone();
    assert_eq!(listed.len(), rotated + 1);
    assert_eq!(listed.iter().filter(|key| key["is_active"] == true).count(), 1);
    assert_eq!(listed.last().unwrap()["address"], json!(address));
    let on_token = stack.count("SELECT count(*) FROM signing_keys WHERE custody = 'token'").await;
    assert_eq!(objects(&stack) - before, 2 * usize::try_from(on_token).unwrap(), "a private and a public one each");

    // A rotation and the end at once: whichever comes last, what was ended has no successor that was not asked for afterwards.
    for n in 0..6 {
        let (one, two) = (stack.owner.at(&stack.daemons[n % 2].url), stack.owner.at(&stack.daemons[(n + 1) % 2].url));
        let (rotate, end) = (format!("{path}/ethereum/rotate"), format!("{path}/ethereum"));
        let body = json!({});
        let (rotated, ended) = tokio::join!(one.post(&rotate, &body), two.delete(&end));
        assert!([200, 404].contains(&rotated.status.as_u16()) && ended.status == 204, "{rotated:?} {ended:?}");
        assert_eq!(stack.count("SELECT count(*) FROM signing_keys WHERE state = 'active'").await, 0);
        stack.owner.post(&path, &json!({"chain": "ethereum"})).await.expect(201);
    }

    // Nobody reads it, lists its value, stores over it, shares it or turns its vault into one that clients encrypt.
    let listed = stack.owner.get("/v1/vaults").await.expect(200);
    let reserved = listed["vaults"].as_array().unwrap().iter().find(|vault| vault["name"] == "__agent-keys").unwrap();
    let vault_path = format!("/v1/vaults/{}", text(reserved, "id"));
    let at = format!("{vault_path}/secrets/agents/{}/chains/ethereum/private_key", agent.id);
    for client in [&stack.owner, &member, &agent.client, &another.client] {
        let refused = client.get(&at).await;
        assert!([403, 404].contains(&refused.status.as_u16()), "{} {}", refused.status, refused.body);
        assert!(client.put(&at, &json!({"value": fresh_scalar(), "type": "private_key"})).await.status == 403);
        assert!(client.delete(&at).await.status == 403);
    }
    let grant = json!({"secret_path_pattern": "**", "principal_type": "agent", "principal_id": another.id, "permissions": ["read"]});
    stack.owner.post(&format!("{vault_path}/policies"), &grant).await;
    let refused = another.client.get(&at).await;
    assert!([403, 404].contains(&refused.status.as_u16()), "{} {}", refused.status, refused.body);
    let secret: String =
        sqlx::query_scalar("SELECT secret_id::text FROM signing_keys LIMIT 1").fetch_one(&stack.db).await.unwrap();
    for client in [&stack.owner, &agent.client] {
        let share = json!({"recipient_type": "anyone_with_link", "expires_at": intentd::clock::rfc3339(intentd::clock::now() + time::Duration::days(1))});
        client.post(&format!("/v1/secrets/{secret}/share"), &share).await.refused(403);
    }
    let fingerprint = json!({"fingerprint": "ab".repeat(32)});
    stack.owner.post(&format!("{vault_path}/cmek"), &fingerprint).await.refused(409);
    assert_eq!(stack.count("SELECT count(*) FROM vaults WHERE cmek_fingerprint IS NOT NULL").await, 0);
    stack.owner.delete(&vault_path).await.refused(403);

    // The address of another's key is not signed for, whatever path is named.
    let mut theirs = pay("0.01");
    theirs["signing_key_path"] = json!(format!("agents/{}/chains/ethereum/private_key", agent.id));
    another.submit(theirs).await.refused(403);
}

#[tokio::test]
async fn the_agents_own_key_goes_first_and_what_cannot_sign_says_why() {
    let stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let path = keys(&agent.id);
    let from = async |body: Value| agent.submit(body).await.expect(201)["from"].as_str().unwrap().to_owned();
    assert_eq!(from(pay("0.001")).await, agent.signer.to_string());
    let own = text(&stack.owner.post(&path, &json!({"chain": "ethereum"})).await.expect(201), "address");
    fund(&stack, &own).await;
    assert_eq!(from(pay("0.001")).await, own);
    let named = |path: String| {
        let mut body = pay("0.001");
        body["signing_key_path"] = json!(path);
        body
    };
    assert_eq!(from(named("keys/base-signer".to_owned())).await, agent.signer.to_string());
    assert_eq!(from(named(format!("agents/{}/chains/ethereum/private_key", agent.id))).await, own);
    stack.owner.delete(&format!("{path}/ethereum")).await.expect(204);
    assert_eq!(from(pay("0.001")).await, agent.signer.to_string());

    // A value of another type, and one that only its client can decrypt.
    let plain = vault(&stack).await;
    let grant = json!({"secret_path_pattern": "wallets/*", "principal_type": "agent", "principal_id": agent.id, "permissions": ["read"]});
    stack.owner.post(&format!("/v1/vaults/{plain}/policies"), &grant).await.expect(201);
    let at = |name: &str| format!("/v1/vaults/{plain}/secrets/wallets/{name}");
    stack.owner.put(&at("generic"), &json!({"value": fresh_scalar()})).await.expect(201);
    let detail = agent.submit(named("wallets/generic".to_owned())).await.refused(422);
    assert!(detail.contains("not a signing key") && detail.contains("private_key"), "{detail}");
    let missing = agent.submit(named("wallets/missing".to_owned())).await.refused(422);
    assert!(missing.contains("no signing key at wallets/missing"), "{missing}");
    stack.owner.post(&format!("/v1/vaults/{plain}/cmek"), &json!({"fingerprint": "ab".repeat(32)})).await.expect(200);
    // The clients' format: a version byte, a nonce, what is encrypted, a tag.
    use base64::Engine as _;
    let sealed = base64::engine::general_purpose::STANDARD.encode([&[1_u8][..], &[7; 12 + 66 + 16]].concat());
    stack.owner.put(&at("theirs"), &json!({"value": sealed, "type": "private_key"})).await.expect(201);
    let detail = agent.submit(named("wallets/theirs".to_owned())).await.refused(422);
    assert!(detail.contains("CMEK") && detail.contains("nothing can be signed"), "{detail}");
}
