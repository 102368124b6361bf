use serde_json::json;

use super::{human, last_event};
use crate::harness::stack::{Options, Stack, TO};

#[tokio::test]
async fn threat_10_widening_under_both_settings_which_owners_set_and_every_daemon_follows() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    let (admin, member) = (human(&stack, "admin").await, human(&stack, "member").await);
    let agent = stack.agent(json!({})).await;
    let path = "/v1/org/settings";
    let off = json!({"require_simulation": false, "guardrail_widening_requires_confirm": false});
    assert_eq!(member.client.get(path).await.expect(200), off);
    agent.client.get(path).await.refused(403);
    for nobody in [&admin.client, &member.client, &agent.client] {
        nobody.patch(path, &json!({"guardrail_widening_requires_confirm": true})).await.refused(403);
    }
    for bad in [json!({"require_simulation": "true"}), json!({"guardrail_widening_requires_confirm": 1})] {
        stack.owner.patch(path, &bad).await.refused(400);
    }
    assert_eq!(stack.owner.patch(path, &json!({"require_simulation": null, "other": 1})).await.expect(200), off);

    // One by its name, as existing clients send it. What is no setting is not taken for one.
    let named = |key: &str, value: serde_json::Value| json!({"key": key, "value": value});
    let on = stack.owner.patch(path, &named("intents_api.require_simulation", json!("true"))).await.expect(200);
    assert_eq!((&on["require_simulation"], &last_event(&stack, "org.update").await["after"]), (&json!(true), &on));
    for bad in [
        named("no.such", json!("true")),
        named("require_simulation", json!("yes")),
        json!({"key": "require_simulation"}),
    ] {
        stack.owner.patch(path, &bad).await.refused(400);
    }
    admin.client.patch(path, &named("require_simulation", json!("false"))).await.refused(403);
    assert_eq!(stack.owner.patch(path, &named("require_simulation", json!("false"))).await.expect(200), off);

    let elsewhere = admin.client.at(&stack.daemons[1].url);
    for confirm_needed in [true, false, true] {
        let change = json!({"guardrail_widening_requires_confirm": confirm_needed});
        let now = stack.owner.patch(path, &change).await.expect(200);
        assert_eq!(now["guardrail_widening_requires_confirm"], confirm_needed);
        let event = last_event(&stack, "org.update").await;
        assert_eq!(event["after"], now);
        assert_eq!(event["before"]["guardrail_widening_requires_confirm"], !confirm_needed);
        // Every list and cap, removed for good by the last entry or by null, at the other daemon.
        let restricted = json!({
            "name": "a", "tx_to_allowlist": [TO], "tx_max_value_eth": "1", "tx_daily_limit_eth": "2", "tx_max_fee_eth": "0.1",
            "tx_daily_fee_limit_eth": "0.2", "tx_max_gas_limit": 100_000,
        });
        let made = stack.owner.post("/v1/agents", &restricted).await.expect(201);
        let agent = format!("/v1/agents/{}", made["agent"]["id"].as_str().unwrap());
        for (field, empty) in [
            ("tx_to_allowlist", json!([])),
            ("tx_max_value_eth", json!(null)),
            ("tx_daily_limit_eth", json!(null)),
            ("tx_max_fee_eth", json!(null)),
            ("tx_daily_fee_limit_eth", json!(null)),
            ("tx_max_gas_limit", json!(null)),
        ] {
            let reply = elsewhere.patch(&agent, &json!({ field: empty })).await;
            if confirm_needed {
                let detail = reply.refused(422);
                assert!(detail.contains(field) && detail.contains("confirm_unrestricted"), "{detail}");
                for not_true in [json!(false), json!(null)] {
                    let body = json!({ field: empty, "confirm_unrestricted": not_true });
                    elsewhere.patch(&agent, &body).await.refused(422);
                }
                elsewhere.patch(&agent, &json!({ field: empty, "confirm_unrestricted": true })).await.expect(200);
            } else {
                reply.expect(200);
            }
            let event = last_event(&stack, "agent.update").await;
            assert_eq!(event["lifted"], json!([field]), "audited either way");
            assert!(!event["before"][field].is_null(), "{event}");
        }
        elsewhere.patch(&agent, &json!({"tx_to_allowlist": [TO]})).await.expect(200);
    }
}
