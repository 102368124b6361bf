//! What replies look like.

use serde_json::{Value, json};

use super::{agent, grant, light, policy, raw, secret, strictly, tomorrow, vault};
use crate::harness::anvil::OTHER;
use crate::harness::stack::{Stack, pay, text};

#[tokio::test]
async fn point_01_bodies_are_bare() {
    let stack = light().await;
    let owner = &stack.owner;
    let vault = vault(owner).await;
    let (id, program) = agent(&stack, json!({})).await;
    owner.put(&secret(&vault, "a"), &json!({"value": "v"})).await.expect(201);
    for (client, path, member) in [
        (owner, format!("/v1/vaults/{vault}"), "name"),
        (owner, secret(&vault, "a"), "value"),
        (owner, format!("/v1/agents/{id}"), "name"),
        (owner, "/v1/auth/me".to_owned(), "email"),
        (owner, "/v1/vaults".to_owned(), "vaults"),
        (owner, format!("/v1/vaults/{vault}/secrets"), "secrets"),
        (owner, "/v1/audit/events".to_owned(), "events"),
        (&program, "/v1/agents/me".to_owned(), "org_id"),
        (&program, format!("/v1/agents/{id}/transactions"), "transactions"),
        (&owner.by(None), "/v1/health".to_owned(), "version"),
    ] {
        let body = client.get(&path).await.expect(200);
        assert!(body.get(member).is_some(), "{path}: {body}");
        assert!(["data", "error", "meta"].iter().all(|wrapper| body.get(wrapper).is_none()), "{path}: {body}");
    }
    let problem = owner.get("/v1/vaults/00000000-0000-4000-8000-000000000000").await.expect(404);
    assert!(problem["detail"].is_string() && problem.get("data").is_none() && problem.get("error").is_none());
}

#[tokio::test]
async fn point_02_every_list_is_an_object() {
    let stack = light().await;
    let vault = vault(&stack.owner).await;
    let (id, _) = agent(&stack, json!({})).await;
    for filled in [false, true] {
        for (path, name) in [
            ("/v1/vaults", "vaults"),
            (&format!("/v1/vaults/{vault}/secrets"), "secrets"),
            (&format!("/v1/vaults/{vault}/policies"), "policies"),
            ("/v1/agents", "agents"),
            (&format!("/v1/agents/{id}/transactions"), "transactions"),
            (&format!("/v1/agents/{id}/signing-keys"), "keys"),
            ("/v1/chains", "chains"),
            ("/v1/shares/outbound", "shares"),
            ("/v1/shares/inbound", "shares"),
            ("/v1/auth/api-keys", "keys"),
            ("/v1/org/members", "members"),
            ("/v1/security/ip-rules", "rules"),
            ("/v1/audit/events", "events"),
        ] {
            let body = stack.owner.get(path).await.expect(200);
            assert!(body[name].is_array(), "{filled} {path}: {body}");
            assert!(name != "events" || body["count"].is_u64(), "{body}");
        }
        stack.owner.put(&secret(&vault, "a"), &json!({"value": "v"})).await.expect(201);
        grant(&stack, &vault, &id, "a", &["read"]).await;
    }
}

const VAULT: &[&str] = &["id", "name", "created_at"];
const VAULT_MORE: &[&str] = &["description", "created_by", "created_by_type", "cmek_enabled", "cmek_fingerprint"];
const METADATA: &[&str] = &["id", "path", "type", "version", "created_at"];
const METADATA_MORE: &[&str] = &["metadata", "expires_at"];
const SECRET: &[&str] = &["id", "path", "type", "value", "version", "created_at"];
const SECRET_MORE: &[&str] = &["metadata", "created_by", "expires_at", "cmek_encrypted"];
const POLICY: &[&str] =
    &["id", "vault_id", "secret_path_pattern", "principal_type", "principal_id", "permissions", "created_at"];
const POLICY_MORE: &[&str] = &["conditions", "expires_at", "created_by", "created_by_type"];
const AGENT: &[&str] =
    &["id", "name", "auth_method", "is_active", "intents_api_enabled", "shroud_enabled", "created_at"];
const AGENT_MORE: &[&str] = &[
    "description",
    "scopes",
    "tx_to_allowlist",
    "tx_max_value_eth",
    "tx_daily_limit_eth",
    "tx_allowed_chains",
    "token_ttl_seconds",
    "vault_ids",
    "client_cert_fingerprint",
    "oidc_issuer",
    "oidc_client_id",
    "ssh_public_key",
    "ecdh_public_key",
    "shroud_config",
    "expires_at",
    "last_active_at",
    "smart_accounts",
];

#[tokio::test]
async fn point_07_strict_decoders_read_every_body_and_decided_newer_fields_only_when_set() {
    let stack = light().await;
    let owner = &stack.owner;
    let made = owner.post("/v1/vaults", &json!({"name": "v", "description": "d"})).await.expect(201);
    let vault = text(&made, "id");
    let shown = owner.get(&format!("/v1/vaults/{vault}")).await.expect(200);
    let listed = owner.get("/v1/vaults").await.expect(200);
    for body in listed["vaults"].as_array().unwrap().iter().chain([&made, &shown]) {
        strictly(body, VAULT, VAULT_MORE);
    }

    let path = secret(&vault, "a/b");
    let new = json!({"value": "v", "metadata": {"a": 1}, "expires_at": tomorrow(), "max_access_count": 9});
    strictly(&owner.put(&path, &new).await.expect(201), METADATA, METADATA_MORE);
    strictly(&owner.get(&path).await.expect(200), SECRET, SECRET_MORE);
    let listed = owner.get(&format!("/v1/vaults/{vault}/secrets")).await.expect(200);
    strictly(&listed["secrets"][0], METADATA, METADATA_MORE);

    // Everything that the contract knows is set.
    let full = json!({
        "name": "a", "description": "d", "auth_method": "api_key", "scopes": ["a/*"], "expires_at": tomorrow(),
        "intents_api_enabled": true, "tx_to_allowlist": [OTHER], "tx_max_value_eth": "1", "tx_daily_limit_eth": "2",
        "token_ttl_seconds": 600, "vault_ids": [vault], "shroud_enabled": true, "shroud_config": {"strictness": "warn"},
    });
    let made = owner.post("/v1/agents", &full).await.expect(201);
    strictly(&made, &["agent"], &["api_key"]);
    let id = text(&made["agent"], "id");
    let path = format!("/v1/agents/{id}");
    let shown = owner.get(&path).await.expect(200);
    let changed = owner.patch(&path, &json!({"name": "b"})).await.expect(200);
    let rotated = owner.post(&format!("{path}/rotate-identity-keys"), &json!({})).await.expect(200);
    let listed = owner.get("/v1/agents").await.expect(200);
    for body in [&made["agent"], &shown, &changed, &rotated, &listed["agents"][0]] {
        strictly(body, AGENT, AGENT_MORE);
    }

    let mut wanted = policy(&id, "a/*", &["read", "write"]);
    wanted["conditions"] = json!({"ip_allowlist": ["10.0.0.0/8"]});
    wanted["expires_at"] = json!(tomorrow());
    let policies = format!("/v1/vaults/{vault}/policies");
    let made = owner.post(&policies, &wanted).await.expect(201);
    let one = format!("{policies}/{}", text(&made, "id"));
    let changed = owner.put(&one, &json!({"permissions": ["read"]})).await.expect(200);
    for body in [&made, &changed, &owner.get(&policies).await.expect(200)["policies"][0]] {
        strictly(body, POLICY, POLICY_MORE);
    }

    let key = json!({"api_key": owner.bearer});
    let token = owner.by(None).post("/v1/auth/api-key-token", &key).await.expect(200);
    strictly(&token, &["access_token", "token_type", "expires_in"], &[]);

    // What the contract does not know comes with what was set, and goes with it.
    let changed = owner.patch(&path, &json!({"tx_max_gas_limit": 100_000})).await.expect(200);
    strictly(&changed, AGENT, &[AGENT_MORE, &["tx_max_gas_limit"]].concat());
    strictly(&owner.patch(&path, &json!({"tx_max_gas_limit": null})).await.expect(200), AGENT, AGENT_MORE);
}

#[tokio::test]
async fn point_08_every_2xx_carries_json_but_point_09_204_carries_nothing() {
    let stack = light().await;
    let owner = &stack.owner;
    let own = vault(owner).await;
    let (id, _) = agent(&stack, json!({})).await;
    let made = owner.put(&secret(&own, "a"), &json!({"value": "v"})).await.expect(201);
    let share = format!("/v1/secrets/{}/share", text(&made, "id"));
    let recipient = stack.human(&stack.org_id, "member").await;
    let mut shares = Vec::new();
    for _ in 0..2 {
        let body = json!({"recipient_type": "user", "recipient_id": recipient.id, "expires_at": tomorrow()});
        shares.push(text(&owner.post(&share, &body).await.expect(201), "id"));
    }
    let policy_id = grant(&stack, &own, &id, "a", &["read"]).await;
    let rule = json!({"rule_type": "deny", "cidr": "203.0.113.0/24"});
    let rule = text(&owner.post("/v1/security/ip-rules", &rule).await.expect(201), "id");
    let key = text(&owner.post("/v1/auth/api-keys", &json!({"name": "k"})).await.expect(201)["key"], "id");
    let token = owner.by(None).post("/v1/auth/api-key-token", &json!({"api_key": owner.bearer})).await.expect(200);
    let token = owner.by(token["access_token"].as_str());

    let (in_vault, in_agent) = (format!("/v1/vaults/{own}"), format!("/v1/agents/{id}"));
    for (method, target, body, status) in [
        ("POST", "/v1/vaults".to_owned(), r#"{"name":"n"}"#, 201),
        ("GET", in_vault.clone(), "", 200),
        ("PUT", format!("{in_vault}/secrets/b"), r#"{"value":"v"}"#, 201),
        ("GET", format!("{in_vault}/secrets/b"), "", 200),
        ("PUT", format!("{in_vault}/policies/{policy_id}"), r#"{"permissions":["read"]}"#, 200),
        ("POST", "/v1/agents".to_owned(), r#"{"name":"n"}"#, 201),
        ("PATCH", in_agent.clone(), r#"{"name":"m"}"#, 200),
        ("POST", format!("{in_agent}/rotate-key"), "", 200),
        ("POST", format!("{in_agent}/rotate-identity-keys"), "", 200),
        ("POST", "/v1/agents/enroll".to_owned(), r#"{"name":"n","human_email":"nobody@example.test"}"#, 201),
        ("POST", share, &format!(r#"{{"recipient_type":"anyone_with_link","expires_at":"{}"}}"#, tomorrow()), 201),
        ("PATCH", "/v1/auth/me".to_owned(), "{}", 200),
        ("PATCH", format!("/v1/org/members/{}", recipient.id), r#"{"role":"member"}"#, 200),
        ("GET", "/v1/health".to_owned(), "", 200),
        ("GET", "/v1/health/hsm".to_owned(), "", 200),
        ("GET", "/v1/auth/jwt-public-key".to_owned(), "", 200),
    ] {
        let reply = raw(owner, method, &target, &[], body);
        assert_eq!(reply.status, status, "{method} {target}: {}", String::from_utf8_lossy(&reply.body));
        assert!(reply.head.contains("\r\ncontent-type: application/json"), "{method} {target}: {}", reply.head);
        assert!(reply.json().is_object(), "{method} {target}");
    }
    for (client, method, target) in [
        (&recipient.client, "POST", format!("/v1/shares/{}/accept", shares[0])),
        (&recipient.client, "POST", format!("/v1/shares/{}/decline", shares[1])),
        (owner, "DELETE", format!("/v1/share/{}", shares[0])),
        (owner, "DELETE", format!("{in_vault}/policies/{policy_id}")),
        (owner, "DELETE", format!("{in_vault}/secrets/a")),
        (owner, "DELETE", in_vault),
        (owner, "DELETE", in_agent),
        (owner, "DELETE", format!("/v1/security/ip-rules/{rule}")),
        (owner, "DELETE", format!("/v1/auth/api-keys/{key}")),
        (owner, "DELETE", format!("/v1/org/members/{}", recipient.id)),
        (&token, "DELETE", "/v1/auth/token".to_owned()),
    ] {
        let reply = raw(client, method, &target, &[], "");
        assert_eq!((reply.status, reply.body.len()), (204, 0), "{method} {target}: {}", reply.head);
    }
}

#[tokio::test]
async fn point_22_agent_ids_have_a_version_and_point_23_lists_and_numbers_are_what_clients_take_them_for() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({})).await;
    for _ in 0..4 {
        agent(&stack, json!({})).await;
    }
    let agents = stack.owner.get("/v1/agents").await.expect(200);
    for one in agents["agents"].as_array().unwrap() {
        let id = text(one, "id");
        let (version, variant) = (&id[14..15], &id[19..20]);
        assert!("12345".contains(version) && "89ab".contains(variant) && id.len() == 36, "{id}");
        for list in ["scopes", "tx_to_allowlist", "tx_allowed_chains", "vault_ids", "smart_accounts"] {
            assert!(one[list].is_array(), "{list}: {one}");
        }
    }
    assert!(payer.client.get("/v1/agents/me").await.expect(200)["scopes"].is_array());
    let vault = stack.vault_of(&payer).await;
    let policies = stack.owner.get(&format!("/v1/vaults/{vault}/policies")).await.expect(200);
    assert!(policies["policies"][0]["permissions"].is_array());

    // revert() for every call.
    stack.chain().set_code(alloy::primitives::Address::repeat_byte(0xc1), &[0x5f, 0x5f, 0xfd]).await;
    let mut doomed = pay("0.1");
    doomed["to"] = json!(alloy::primitives::Address::repeat_byte(0xc1));
    for body in [pay("0.1"), doomed, pay("100000")] {
        let simulated = payer.simulate(body.clone()).await.expect(200);
        let bundled = payer.simulate_bundle(vec![body]).await.expect(200)["simulations"][0].clone();
        for simulated in [simulated, bundled] {
            assert!(simulated["balance_changes"].is_array() && simulated["gas_used"].is_u64(), "{simulated}");
            assert!(["success", "reverted", "error"].contains(&simulated["status"].as_str().unwrap()), "{simulated}");
        }
    }
    let sent = payer.submit(pay("0.1")).await.expect(201);
    for transaction in [&sent, &payer.client.get(&payer.path()).await.expect(200)["transactions"][0]] {
        let words = ["pending", "signed", "sign_only", "broadcast", "failed", "simulation_failed"];
        assert!(words.contains(&transaction["status"].as_str().unwrap()), "{transaction}");
        let integers: Vec<&Value> = ["chain_id", "nonce", "gas_limit"].iter().map(|name| &transaction[name]).collect();
        assert!(integers.iter().all(|number| number.is_u64()), "{transaction}");
        let texts = ["value_wei", "max_fee_per_gas", "max_priority_fee_per_gas", "tx_hash", "id", "chain", "to"];
        assert!(texts.iter().all(|name| transaction[name].is_string()), "{transaction}");
    }
}
