//! What is refused, and in which words.

use serde_json::json;

use super::{agent, grant, light, policy, raw, secret, vault};
use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack, TO, fresh_scalar, pay, text};
use crate::orgs::platform_admin;

#[tokio::test]
async fn point_17_a_refusal_is_a_problem_with_a_detail_of_decided_problem_types() {
    let stack = light().await;
    let owner = &stack.owner;
    let own = vault(owner).await;
    let (id, program) = agent(&stack, json!({})).await;
    owner.post("/v1/vaults", &json!({"name": "taken"})).await.expect(201);
    owner.put(&secret(&own, "gone"), &json!({"value": "v"})).await.expect(201);
    owner.delete(&secret(&own, "gone")).await.expect(204);
    let key = json!({"value": fresh_scalar(), "type": "private_key"});
    owner.put(&secret(&own, "keys/k"), &key).await.expect(201);
    let (nobody, txs) = (owner.by(None), format!("/v1/agents/{id}/transactions"));
    let huge = format!("{{\"name\":\"{}\"}}", "x".repeat(5 * 1024 * 1024));
    let unknown = "00000000-0000-4000-8000-000000000000";
    let cases: Vec<(&Client, &str, String, &str, u16, &str)> = vec![
        (owner, "POST", "/v1/vaults".into(), "{", 400, "about:blank"),
        (owner, "POST", "/v1/vaults".into(), "[]", 400, "about:blank"),
        (owner, "POST", "/v1/vaults".into(), r#"{"name":1}"#, 400, "about:blank"),
        (owner, "PUT", secret(&own, "a..b"), r#"{"value":"v"}"#, 400, "about:blank"),
        (owner, "GET", "/v1/audit/events?limit=many".into(), "", 400, "about:blank"),
        (owner, "GET", format!("/v1/vaults/{own}/secrets?limit=-1"), "", 400, "about:blank"),
        (owner, "GET", format!("{txs}?limit=1&limit=2"), "", 400, "about:blank"),
        (owner, "GET", format!("{txs}/{unknown}?include_signed_tx=1&include_signed_tx=1"), "", 400, "about:blank"),
        (owner, "GET", "/v1/vaults?limit=1&limit=2".into(), "", 400, "about:blank"),
        (owner, "GET", "/v1/shares/inbound?limit=x".into(), "", 400, "about:blank"),
        (&nobody, "GET", "/v1/vaults".into(), "", 401, "about:blank"),
        (&nobody, "POST", "/v1/auth/agent-token".into(), r#"{"api_key":"ocv_x"}"#, 401, "about:blank"),
        (&program, "POST", "/v1/agents".into(), r#"{"name":"n"}"#, 403, "about:blank"),
        (&program, "GET", secret(&own, "a"), "", 403, "about:blank"),
        (owner, "GET", secret(&own, "keys/k"), "", 403, "key_held_in_hsm"),
        (owner, "GET", format!("/v1/vaults/{unknown}"), "", 404, "about:blank"),
        (owner, "GET", "/v1/vaults/none".into(), "", 404, "about:blank"),
        (owner, "GET", "/v1/nothing".into(), "", 404, "about:blank"),
        (&nobody, "GET", "/".into(), "", 404, "about:blank"),
        (owner, "GET", "/v1/chains/nowhere".into(), "", 404, "about:blank"),
        // No text: nobody's.
        (owner, "GET", "/v1/chains/%FF".into(), "", 404, "about:blank"),
        (owner, "GET", "/v1/agents/%FF/transactions".into(), "", 404, "about:blank"),
        (owner, "GET", format!("{txs}/%FF"), "", 404, "about:blank"),
        (&program, "POST", "/v1/agents/%FF/transactions/sign".into(), "{}", 404, "about:blank"),
        (&program, "POST", "/v1/agents/%FF/transactions/simulate".into(), "{}", 404, "about:blank"),
        (owner, "PATCH", format!("/v1/vaults/{own}"), "{}", 405, "about:blank"),
        (owner, "DELETE", "/v1/vaults".into(), "", 405, "about:blank"),
        (owner, "POST", "/v1/vaults".into(), r#"{"name":"taken"}"#, 409, "about:blank"),
        (owner, "GET", secret(&own, "gone"), "", 410, "about:blank"),
        (owner, "POST", "/v1/vaults".into(), &huge, 413, "about:blank"),
        (
            owner,
            "PUT",
            secret(&own, "keys/z"),
            r#"{"type":"private_key","value":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
            422,
            "about:blank",
        ),
    ];
    for (client, method, target, body, status, kind) in cases {
        let reply = raw(client, method, &target, &["Content-Type: application/json"], body);
        assert_eq!(reply.status, status, "{method} {target}: {}", String::from_utf8_lossy(&reply.body));
        assert!(reply.head.contains("content-type: application/problem+json"), "{method} {target}: {}", reply.head);
        let problem = reply.json();
        assert_eq!((problem["status"].as_u64(), &problem["type"]), (Some(u64::from(status)), &json!(kind)), "{target}");
        assert!(!text(&problem, "title").is_empty() && text(&problem, "detail").len() > 8, "{target}: {problem}");
    }

    // The words that clients compare.
    platform_admin(&stack);
    owner.put(&format!("/v1/admin/organisations/{}/limits", stack.org_id), &json!({"vaults": 2})).await.expect(200);
    let full = owner.post("/v1/vaults", &json!({"name": "third"})).await.expect(403);
    assert_eq!(full["type"], "resource_limit_exceeded");
    assert!(text(&full, "detail").contains("Vault limit reached (2/2"), "{full}");
    let known = ["resource_limit_exceeded", "approval_required", "idempotency_mismatch", "key_held_in_hsm"];
    for kind in types_in(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        assert!(known.contains(&kind.as_str()), "{kind}");
    }
}

/// Every type that the sources give a problem.
fn types_in(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(types_in(&path));
        } else {
            let source = std::fs::read_to_string(&path).unwrap();
            found.extend(source.split(".of_type(\"").skip(1).map(|text| text.split('"').next().unwrap().to_owned()));
        }
    }
    found
}

#[tokio::test]
async fn point_19_guardrails_say_so_and_point_20_no_refusal_makes_a_client_repeat_itself() {
    let stack = Stack::with(Options { chains: vec![("base", 8453), ("ethereum", 1)], ..Options::default() }).await;
    let payer = stack
        .agent(json!({
            "tx_to_allowlist": [TO], "tx_max_value_eth": "0.1", "tx_daily_limit_eth": "0.15", "tx_allowed_chains": ["base"],
            "tx_max_fee_eth": "0.001", "tx_max_gas_limit": 200_000,
        }))
        .await;
    let harmless = |detail: &str| {
        // A client takes these for a token that has ended, and sends the request again.
        let detail = detail.to_lowercase();
        for words in ["no scopes", "scopes do not cover", "token has been revoked"] {
            assert!(!detail.contains(words), "{detail}");
        }
    };
    payer.submit(pay("0.1")).await.expect(201);
    for (changes, field) in [
        (json!({"to": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"}), "tx_to_allowlist"),
        (json!({"value": "0.11"}), "tx_max_value_eth"),
        (json!({"value": "0.06"}), "tx_daily_limit_eth"),
        (json!({"chain": "ethereum"}), "tx_allowed_chains"),
        (json!({"gas_limit": 200_001}), "tx_max_gas_limit"),
        (json!({"gas_limit": 100_000, "gas_price": "20000000000"}), "tx_max_fee_eth"),
        (json!({"gas_price": "600000000000"}), "ceiling"),
    ] {
        let mut body = pay("0.001");
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        for reply in [payer.submit(body.clone()).await, payer.sign(body).await] {
            let detail = reply.refused(403);
            assert!(detail.starts_with("Transaction denied by guardrail: ") && detail.contains(field), "{detail}");
            harmless(&detail);
        }
    }
    // Other refusals, by policies and scopes too.
    let own = vault(&stack.owner).await;
    let (id, program) = agent(&stack, json!({"scopes": ["a/*"], "vault_ids": [stack.vault_of(&payer).await]})).await;
    grant(&stack, &own, &id, "**", &["read"]).await;
    let mut elsewhere = pay("0.001");
    elsewhere["signing_key_path"] = json!("agents/00000000-0000-4000-8000-000000000000/keys/k");
    let path = format!("/v1/agents/{id}");
    for reply in [
        program.get(&secret(&own, "b")).await,
        program.put(&secret(&own, "a/b"), &json!({"value": "v"})).await,
        program.post(&format!("/v1/vaults/{own}/policies"), &policy(&id, "**", &["read"])).await,
        program.patch(&path, &json!({"tx_max_value_eth": null})).await,
        program.post(&format!("{path}/transactions"), &pay("0.001")).await,
        program.post(&payer.path(), &pay("0.001")).await,
        stack.owner.post(&payer.path(), &pay("0.001")).await,
        payer.submit(elsewhere).await,
    ] {
        harmless(&reply.refused(403));
    }
}
