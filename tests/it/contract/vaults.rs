//! Vaults, what encloses them, and what tells about the installation.

use serde_json::json;

use super::{light, secret, strictly, vault};
use crate::harness::stack::text;

#[tokio::test]
async fn row_18_health_has_what_each_client_reads() {
    let stack = light().await;
    let nobody = stack.owner.by(None);
    let body = nobody.get("/v1/health").await.expect(200);
    assert_eq!((&body["status"], &body["service"]), (&json!("healthy"), &json!("intentd")));
    assert!(!text(&body, "version").is_empty());
    let body = nobody.get("/v1/health/hsm").await.expect(200);
    strictly(&body, &["status", "hsm_provider", "connected"], &[]);
    assert_eq!((&body["status"], &body["connected"]), (&json!("ok"), &json!(true)));
    assert!(!text(&body, "hsm_provider").is_empty());
}

#[tokio::test]
async fn row_19_audit_events_have_these_members_and_filters() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    stack.owner.put(&secret(&own, "a"), &json!({"value": "v"})).await.expect(201);
    stack.owner.get(&secret(&own, "a")).await.expect(200);
    let me = stack.owner.get("/v1/auth/me").await.expect(200);
    let all = stack.owner.get("/v1/audit/events?limit=100&offset=0").await.expect(200);
    assert_eq!(all["count"].as_u64(), Some(all["events"].as_array().unwrap().len() as u64));
    for event in all["events"].as_array().unwrap() {
        let members = [
            "id",
            "action",
            "actor_id",
            "actor_type",
            "resource_type",
            "resource_id",
            "org_id",
            "details",
            "ip_address",
            "created_at",
        ];
        strictly(event, &members, &[]);
    }
    let read = &stack.owner.get("/v1/audit/events?action=secret.read").await.expect(200)["events"];
    assert_eq!(read.as_array().unwrap().len(), 1, "{read}");
    assert_eq!((&read[0]["actor_id"], &read[0]["actor_type"]), (&me["id"], &json!("user")));
    assert!(read[0]["details"].is_object() && text(&read[0], "created_at").ends_with('Z'));
    for (query, some) in [
        (format!("resource_id={own}"), true),
        (format!("actor_id={}", text(&me, "id")), true),
        ("from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00%2B01:00".to_owned(), true),
        ("to=2020-01-01T00:00:00Z".to_owned(), false),
        ("offset=1000".to_owned(), false),
        ("action=transaction.submit".to_owned(), false),
    ] {
        let found = stack.owner.get(&format!("/v1/audit/events?{query}")).await.expect(200);
        assert_eq!(found["events"].as_array().unwrap().is_empty(), !some, "{query}");
    }
    for action in ["vault.create", "secret.write"] {
        let found = stack.owner.get(&format!("/v1/audit/events?action={action}")).await.expect(200);
        assert_eq!(found["count"], 1, "{action}");
    }
}

#[tokio::test]
async fn row_20_ip_rules_take_block_and_description() {
    let stack = light().await;
    let rules = "/v1/security/ip-rules";
    for (sent, kind) in [
        (json!({"rule_type": "block", "cidr": "203.0.113.0/24", "description": "them"}), "deny"),
        (json!({"rule_type": "deny", "cidr": "198.51.100.7/32", "label": "them"}), "deny"),
        (json!({"rule_type": "allow", "cidr": "127.0.0.0/8", "label": "them"}), "allow"),
    ] {
        let rule = stack.owner.post(rules, &sent).await.expect(201);
        let members = ["id", "org_id", "rule_type", "cidr", "label", "applies_to", "created_by", "created_at"];
        strictly(&rule, &members, &[]);
        assert_eq!((&rule["rule_type"], &rule["label"], &rule["cidr"]), (&json!(kind), &json!("them"), &sent["cidr"]));
    }
    stack.owner.post(rules, &json!({"rule_type": "refuse", "cidr": "203.0.113.0/24"})).await.refused(400);
    assert_eq!(stack.owner.get(rules).await.expect(200)["rules"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn row_25_another_organisations_vault_is_404_as_one_that_is_nowhere() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    stack.owner.put(&secret(&own, "a"), &json!({"value": "v"})).await.expect(201);
    let other = stack.organisation("other").await;
    let stranger = stack.human(&other, "owner").await.client;
    let nowhere = uuid::Uuid::new_v4().to_string();
    for path in ["", "/secrets", "/secrets/a", "/secrets/b", "/policies"] {
        let there = stranger.get(&format!("/v1/vaults/{own}{path}")).await.expect(404);
        let nowhere = stranger.get(&format!("/v1/vaults/{nowhere}{path}")).await.expect(404);
        assert_eq!(there, nowhere, "{path}");
    }
    stranger.put(&secret(&own, "a"), &json!({"value": "w"})).await.refused(404);
    stranger.delete(&format!("/v1/vaults/{own}")).await.refused(404);
    assert_eq!(stack.owner.get(&secret(&own, "a")).await.expect(200)["version"], 1);
}

#[tokio::test]
async fn row_33_cmek_is_turned_on_and_off_with_the_vault_as_the_reply() {
    let stack = light().await;
    let own = vault(&stack.owner).await;
    let (path, fingerprint) = (format!("/v1/vaults/{own}/cmek"), "ab".repeat(32));
    let on = stack.owner.post(&path, &json!({"fingerprint": fingerprint})).await.expect(200);
    assert_eq!((&on["id"], &on["cmek_enabled"]), (&json!(own), &json!(true)));
    assert_eq!(on["cmek_fingerprint"], json!(fingerprint));
    let off = stack.owner.delete(&path).await.expect(200);
    assert_eq!((&off["id"], off.get("cmek_fingerprint")), (&json!(own), None));
    assert_ne!(off["cmek_enabled"], true);
}
