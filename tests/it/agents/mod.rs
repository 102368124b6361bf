//! Agents and their guardrails over HTTP.

mod enroll;
mod identity;

use serde_json::{Value, json};

use crate::harness::stack::{Stack, TO};

#[tokio::test]
async fn an_agent_is_made_shown_changed_and_deleted() {
    let stack = Stack::start().await;
    let made =
        stack.owner.post("/v1/agents", &json!({"name": "a", "crypto_proxy_enabled": true, "expires_at": null})).await;
    let made = made.expect(201);
    assert!(made["api_key"].as_str().unwrap().starts_with("ocv_"));
    let id = made["agent"]["id"].as_str().unwrap();
    let path = format!("/v1/agents/{id}");
    let shown = stack.owner.get(&path).await.expect(200);
    assert_eq!(shown, made["agent"]);
    for list in ["scopes", "tx_to_allowlist", "tx_allowed_chains", "vault_ids", "smart_accounts"] {
        assert_eq!(shown[list], json!([]), "{list}");
    }
    assert_eq!(shown["intents_api_enabled"], true);
    for absent in ["tx_max_value_eth", "tx_max_fee_eth", "tx_max_gas_limit", "frozen_at", "api_key"] {
        assert!(shown.get(absent).is_none(), "{absent}");
    }
    let changed = stack.owner.patch(&path, &json!({"name": "b", "description": "d"})).await.expect(200);
    assert_eq!((&changed["name"], &changed["description"]), (&json!("b"), &json!("d")));
    stack.owner.post("/v1/agents", &json!({})).await.refused(400);
    stack.owner.post("/v1/agents", &json!({"name": "x", "auth_method": "mtls"})).await.refused(400);

    assert_eq!(stack.owner.delete(&path).await.expect(204), Value::Null);
    stack.owner.get(&path).await.refused(404);
    stack.owner.delete(&path).await.refused(404);
    assert_eq!(stack.owner.get("/v1/agents").await.expect(200), json!({"agents": []}));
    assert_eq!(stack.count(&format!("SELECT count(*) FROM agents WHERE id = '{id}'")).await, 1, "the row stays");
    stack.owner.by(made["api_key"].as_str()).get("/v1/agents/me").await.refused(401);
}

#[tokio::test]
async fn threat_10_lifting_a_restriction_may_need_a_confirmation_and_is_always_audited() {
    let stack = Stack::start().await;
    let restricted = json!({"tx_to_allowlist": [TO], "tx_max_value_eth": "0.10", "tx_allowed_chains": ["8453"]});
    for confirm_needed in [false, true] {
        stack.sql(&format!("UPDATE organisations SET guardrail_widening_requires_confirm = {confirm_needed}")).await;
        let agent = stack.agent(restricted.clone()).await;
        let path = format!("/v1/agents/{}", agent.id);
        for (field, empty) in
            [("tx_to_allowlist", json!([])), ("tx_max_value_eth", json!(null)), ("tx_allowed_chains", json!([]))]
        {
            let mut body = json!({ field: empty });
            if confirm_needed {
                let detail = stack.owner.patch(&path, &body).await.refused(422);
                assert!(detail.contains(field) && detail.contains("confirm_unrestricted"), "{detail}");
                body["confirm_unrestricted"] = json!(true);
            }
            stack.owner.patch(&path, &body).await.expect(200);
            let events = stack
                .owner
                .get(&format!("/v1/audit/events?action=agent.update&resource_id={}", agent.id))
                .await
                .expect(200);
            let details = &events["events"][0]["details"];
            assert_eq!(details["lifted"], json!([field]), "{details}");
            assert!(!details["before"][field].is_null() && details["after"].get(field).is_some(), "{details}");
        }
        // Tightening, and changing without lifting, never needs one.
        stack.owner.patch(&path, &json!({"tx_max_value_eth": "5"})).await.expect(200);
        stack.owner.patch(&path, &json!({"tx_max_value_eth": "6"})).await.expect(200);
    }
}

#[tokio::test]
async fn threat_08_an_allowlist_is_bytes_whatever_was_typed() {
    let stack = Stack::start().await;
    let lower = TO.to_lowercase();
    let upper = format!("0x{}", TO[2..].to_uppercase());
    let agent = stack.agent(json!({"tx_to_allowlist": [lower, upper, TO]})).await;
    let path = format!("/v1/agents/{}", agent.id);
    assert_eq!(stack.owner.get(&path).await.expect(200)["tx_to_allowlist"], json!([TO]));
    let wrong = TO.replacen('C', "c", 1);
    for bad in [wrong.as_str(), &TO[2..], &TO[..40], "vitalik.eth", &TO.replacen("0x", "0X", 1)] {
        stack.owner.patch(&path, &json!({"tx_to_allowlist": [bad]})).await.refused(400);
    }
    assert_eq!(stack.owner.get(&path).await.expect(200)["tx_to_allowlist"], json!([TO]));
}
