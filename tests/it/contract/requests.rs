//! What requests may look like.

use serde_json::{Value, json};

use super::{agent, grant, light, policy, raw, secret, tomorrow, vault};
use crate::harness::client::Client;
use crate::harness::stack::{Stack, pay, text};

const JSON: &str = "Content-Type: application/json";

async fn share_of(stack: &Stack, vault: &str, fields: Value) -> String {
    let stored = stack.owner.put(&secret(vault, "shared"), &json!({"value": "v"})).await.expect(201);
    let mut body = json!({"recipient_type": "anyone_with_link", "expires_at": tomorrow()});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    text(&stack.owner.post(&format!("/v1/secrets/{}/share", text(&stored, "id")), &body).await.expect(201), "id")
}

#[tokio::test]
async fn point_10_an_empty_body_under_a_json_header_is_no_body() {
    let stack = light().await;
    let owner = &stack.owner;
    let own = vault(owner).await;
    let (id, _) = agent(&stack, json!({})).await;
    let recipient = stack.human(&stack.org_id, "member").await;
    let to_them = json!({"recipient_type": "user", "recipient_id": recipient.id});
    let (first, second) = (share_of(&stack, &own, to_them.clone()).await, share_of(&stack, &own, to_them).await);
    let policy = grant(&stack, &own, &id, "**", &["read"]).await;
    let token = owner.by(None).post("/v1/auth/api-key-token", &json!({"api_key": owner.bearer})).await.expect(200);
    let token = owner.by(token["access_token"].as_str());
    for (client, method, target, status) in [
        (owner, "GET", "/v1/vaults".to_owned(), 200),
        (owner, "GET", format!("/v1/vaults/{own}/secrets?prefix="), 200),
        (owner, "GET", secret(&own, "shared"), 200),
        (owner, "GET", format!("/v1/agents/{id}"), 200),
        (owner, "GET", "/v1/chains".to_owned(), 200),
        (owner, "GET", "/v1/audit/events?limit=5&offset=0".to_owned(), 200),
        (owner, "POST", format!("/v1/agents/{id}/rotate-key"), 200),
        (owner, "POST", format!("/v1/agents/{id}/rotate-identity-keys"), 200),
        (&recipient.client, "POST", format!("/v1/shares/{first}/accept"), 204),
        (&recipient.client, "POST", format!("/v1/shares/{second}/decline"), 204),
        (&recipient.client, "GET", format!("/v1/share/{first}"), 200),
        (owner, "DELETE", format!("/v1/share/{first}"), 204),
        (owner, "DELETE", format!("/v1/vaults/{own}/policies/{policy}"), 204),
        (owner, "DELETE", secret(&own, "shared"), 204),
        (owner, "DELETE", format!("/v1/vaults/{own}"), 204),
        (owner, "DELETE", format!("/v1/agents/{id}"), 204),
        (&token, "DELETE", "/v1/auth/token".to_owned(), 204),
        // Where something is required, the reply says what.
        (owner, "POST", "/v1/vaults".to_owned(), 400),
        (owner, "POST", "/v1/auth/refresh".to_owned(), 400),
    ] {
        let reply = raw(client, method, &target, &[JSON], "");
        assert_eq!(reply.status, status, "{method} {target}: {}", String::from_utf8_lossy(&reply.body));
    }
}

#[tokio::test]
async fn point_11_row_37_a_get_may_have_a_body_and_a_passphrase_comes_there() {
    let stack = light().await;
    let vault = vault(&stack.owner).await;
    let id = share_of(&stack, &vault, json!({"passphrase": "open sesame"})).await;
    let (nobody, path) = (stack.owner.by(None), format!("/v1/share/{id}"));
    let opened = raw(&nobody, "GET", &path, &[JSON], r#"{"passphrase":"open sesame"}"#);
    assert_eq!((opened.status, opened.json()["value"].as_str()), (200, Some("v")));
    let wrong = raw(&nobody, "GET", &path, &[JSON], r#"{"passphrase":"open sesam"}"#);
    assert_eq!(wrong.status, 403);
    // A query would end up in logs: it opens nothing.
    assert_eq!(raw(&nobody, "GET", &format!("{path}?passphrase=open%20sesame"), &[], "").status, 403);
    for target in ["/v1/vaults", "/v1/agents", "/v1/chains", "/v1/auth/me", &secret(&vault, "shared")] {
        assert_eq!(raw(&stack.owner, "GET", target, &[JSON], r#"{"a":[1]}"#).status, 200, "{target}");
    }
}

#[tokio::test]
async fn point_12_unknown_members_and_headers_are_ignored() {
    let stack = light().await;
    let owner = &stack.owner;
    let own =
        text(&owner.post("/v1/vaults", &json!({"name": "v", "description": "", "icon": 1})).await.expect(201), "id");
    let (id, _) = agent(&stack, json!({"colour": "red", "labels": {"a": []}})).await;
    // As newer libraries send it.
    let mut newer = policy(&id, "a/**", &["read"]);
    newer["policy_schema_version"] = json!(1);
    newer["effect"] = json!("allow");
    newer["priority"] = json!(0);
    let made = owner.post(&format!("/v1/vaults/{own}/policies"), &newer).await.expect(201);
    assert!(made.get("effect").is_none() && made.get("priority").is_none(), "{made}");
    let described = json!({"value": "v", "description": "of a tool", "tags": ["x"]});
    let stored = owner.put(&secret(&own, "a/b"), &described).await.expect(201);
    assert!(stored.get("description").is_none());
    owner.patch(&format!("/v1/agents/{id}"), &json!({"name": "n", "colour": "blue"})).await.expect(200);
    owner.post("/v1/auth/api-keys", &json!({"name": "k", "colour": 1})).await.expect(201);
    let headers = ["X-1Claw-Runtime-Id: r-1", "X-Auth-Confirm: x", "X-PAYMENT: {}", "X-Anything: else"];
    assert_eq!(raw(owner, "GET", "/v1/vaults", &headers, "").status, 200);
    // What would restrict is not dropped in silence.
    newer["effect"] = json!("deny");
    owner.post(&format!("/v1/vaults/{own}/policies"), &newer).await.refused(400);
}

#[tokio::test]
async fn point_13_an_explicit_null_is_a_member_not_given() {
    let stack = Stack::start().await;
    let payer = stack.agent(json!({})).await;
    let owner = &stack.owner;
    let own = text(&owner.post("/v1/vaults", &json!({"name": "v", "description": null})).await.expect(201), "id");
    let nulls = |mut body: Value, names: &[&str]| {
        names.iter().for_each(|name| body[*name] = Value::Null);
        body
    };
    let optional = ["type", "metadata", "expires_at", "rotation_policy", "max_access_count"];
    let stored = owner.put(&secret(&own, "a"), &nulls(json!({"value": "v"}), &optional)).await.expect(201);
    assert_eq!((&stored["type"], &stored["metadata"]), (&json!("generic"), &json!({})));
    let optional = [
        "description",
        "auth_method",
        "scopes",
        "expires_at",
        "intents_api_enabled",
        "tx_to_allowlist",
        "tx_max_value_eth",
        "tx_daily_limit_eth",
        "tx_allowed_chains",
        "token_ttl_seconds",
        "vault_ids",
        "client_cert_fingerprint",
        "oidc_issuer",
        "oidc_client_id",
        "shroud_enabled",
        "shroud_config",
    ];
    let made = owner.post("/v1/agents", &nulls(json!({"name": "a"}), &optional)).await.expect(201);
    let id = text(&made["agent"], "id");
    let patch = nulls(json!({}), &[&optional[..], &["name", "is_active"]].concat());
    let same = owner.patch(&format!("/v1/agents/{id}"), &patch).await.expect(200);
    assert_eq!(same, made["agent"]);
    let api_key = &made["api_key"];
    owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": api_key, "agent_id": null})).await.expect(200);
    let granted = nulls(policy(&id, "a", &["read"]), &["conditions", "expires_at"]);
    let policies = format!("/v1/vaults/{own}/policies");
    let granted = owner.post(&policies, &granted).await.expect(201);
    let unchanged = nulls(json!({}), &["permissions", "conditions", "expires_at"]);
    owner.put(&format!("{policies}/{}", text(&granted, "id")), &unchanged).await.expect(200);
    owner.post("/v1/auth/api-keys", &json!({"name": "k", "scopes": null, "expires_at": null})).await.expect(201);
    let nothing = ["recipient_id", "email", "permissions", "max_access_count", "passphrase", "ip_allowlist"];
    let all: serde_json::Map<String, Value> = nothing.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    share_of(&stack, &own, Value::Object(all)).await;
    let rule = json!({"rule_type": "deny", "cidr": "203.0.113.0/24", "label": null, "applies_to": null});
    owner.post("/v1/security/ip-rules", &rule).await.expect(201);
    owner.patch("/v1/auth/me", &json!({"display_name": null, "marketing_emails": null})).await.expect(200);
    let optional = [
        "data",
        "signing_key_path",
        "nonce",
        "gas_price",
        "gas_limit",
        "max_fee_per_gas",
        "max_priority_fee_per_gas",
        "simulate_first",
        "mode",
    ];
    let body = nulls(pay("0.001"), &optional);
    payer.submit(body.clone()).await.expect(201);
    payer.sign(body.clone()).await.expect(200);
    payer.simulate(body).await.expect(200);
}

#[tokio::test]
async fn point_14_a_secrets_path_is_one_path_raw_and_encoded() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    let (id, program) = agent(&stack, json!({})).await;
    grant(&stack, &own, &id, "a/**", &["read", "write"]).await;
    let spellings = ["a/b/c", "a%2Fb%2Fc", "a%2fb/c", "a/b%2Fc", "%61/b/%63"];
    for (version, spelling) in (1..).zip(spellings) {
        let stored = raw(&program, "PUT", &secret(&own, spelling), &[JSON], &json!({"value": spelling}).to_string());
        assert_eq!((stored.status, stored.json()["version"].as_u64()), (201, Some(version)), "{spelling}");
        assert_eq!(stored.json()["path"], "a/b/c", "{spelling}");
        for other in spellings {
            let read = raw(&program, "GET", &secret(&own, other), &[], "");
            assert_eq!((read.status, read.json()["value"].as_str()), (200, Some(spelling)), "{other}");
        }
    }
    let listed = stack.owner.get(&format!("/v1/vaults/{own}/secrets?prefix=a%2Fb")).await.expect(200);
    assert_eq!(listed["secrets"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(raw(&program, "DELETE", &secret(&own, "a%2Fb%2Fc"), &[], "").status, 204);
    assert_eq!(raw(&program, "GET", &secret(&own, "a/b/c"), &[], "").status, 410);
    // A policy is no wider for a spelling.
    let elsewhere: &Client = &program;
    assert_eq!(raw(elsewhere, "GET", &secret(&own, "b%2Fc"), &[], "").status, 403);
}
