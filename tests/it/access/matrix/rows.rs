//! A good body for every route that takes one.

use intentd::http::routes::Route;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::World;
use crate::harness::stack::pay;

pub fn body(route: &Route, world: &World) -> Option<Value> {
    if matches!(route.method, Method::GET | Method::DELETE) {
        return None;
    }
    let agent = world.value("agent_id");
    let body = match route.to_string().as_str() {
        "POST /v1/auth/agent-token" => json!({ "api_key": world.agent_key }),
        "POST /v1/auth/api-key-token" => json!({ "api_key": world.owner_key }),
        "POST /v1/auth/refresh" => json!({}),
        "POST /v1/agents" => json!({"name": "new"}),
        "PATCH /v1/agents/{agent_id}" => json!({"name": "renamed"}),
        "POST /v1/agents/{agent_id}/rotate-key" => json!({}),
        "POST /v1/agents/{agent_id}/transactions" | "POST /v1/agents/{agent_id}/transactions/sign" => pay("0.001"),
        "POST /v1/agents/{agent_id}/transactions/simulate" => pay("0.001"),
        "POST /v1/agents/{agent_id}/transactions/simulate-bundle" => json!({"transactions": [pay("0.001")]}),
        "POST /v1/agents/{agent_id}/transactions/{transaction_id}/cancel"
        | "POST /v1/agents/{agent_id}/transactions/{transaction_id}/speed-up" => json!({}),
        "POST /v1/lanes/{chain}/{address}/resume" => json!({}),
        "PUT /v1/org/simulation" => json!({"backend": "rpc"}),
        "POST /v1/org/contract-abis" => {
            json!({"name": Uuid::new_v4(), "abi": [{"type": "error", "name": "Closed", "inputs": []}]})
        }
        "POST /v1/vaults" => json!({"name": Uuid::new_v4()}),
        "PUT /v1/vaults/{vault_id}/secrets/{*path}" => json!({"value": "w"}),
        "POST /v1/vaults/{vault_id}/policies" => {
            json!({"secret_path_pattern": "x", "principal_type": "agent", "principal_id": agent, "permissions": ["read"]})
        }
        "PUT /v1/vaults/{vault_id}/policies/{policy_id}" => json!({"permissions": ["read"]}),
        "POST /v1/secrets/{secret_id}/share" => {
            let tomorrow = intentd::clock::rfc3339(intentd::clock::now() + time::Duration::days(1));
            json!({"recipient_type": "anyone_with_link", "expires_at": tomorrow})
        }
        "POST /v1/shares/{share_id}/accept" | "POST /v1/shares/{share_id}/decline" => json!({}),
        "POST /v1/agents/{agent_id}/signing-keys" => json!({"chain": "ethereum"}),
        "POST /v1/agents/{agent_id}/signing-keys/{chain}/rotate" => json!({}),
        "POST /v1/vaults/{vault_id}/secret-rotate/{*path}" => json!({"length": 20}),
        "POST /v1/vaults/{vault_id}/secret-restore/{*path}"
        | "POST /v1/vaults/{vault_id}/secret-version-disable/{*path}" => json!({}),
        "POST /v1/vaults/{vault_id}/cmek" => json!({"fingerprint": "ab".repeat(32)}),
        "POST /v1/vaults/{vault_id}/cmek-rotate" => json!({"new_fingerprint": "cd".repeat(32)}),
        "POST /v1/org/invite" => json!({"email": format!("{}@example.org", Uuid::new_v4()), "role": "member"}),
        "POST /v1/auth/accept-invite" => json!({"token": "none", "password": "correct horse battery"}),
        "PATCH /v1/org/members/{user_id}" => json!({"role": "member"}),
        "POST /v1/webhooks" => json!({"url": "https://hooks.example.com/x"}),
        "PATCH /v1/webhooks/{webhook_id}" => json!({"description": "ours"}),
        "POST /v1/webhooks/{webhook_id}/test" | "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver" => {
            json!({})
        }
        "POST /v1/freezes" => json!({"scope": "agent", "subject": agent, "reason": "a drill"}),
        "PATCH /v1/org/settings" => json!({"require_simulation": false}),
        "POST /v1/security/ip-rules" => json!({"rule_type": "deny", "cidr": "198.51.100.0/24"}),
        "PATCH /v1/billing/overage-method" | "PATCH /v1/billing/credits/overage-method" => json!({"method": "credits"}),
        // Whether somebody may is decided before the body is looked at; a new chain needs a node that answers.
        "POST /v1/admin/chains" => json!({}),
        "PUT /v1/admin/chains/{chain_id}" => json!({"display_name": "Base"}),
        "PUT /v1/admin/settings" => json!({}),
        "PUT /v1/admin/organisations/{org_id}/limits" => json!({"vaults": 1_000_000}),
        // What is in the body proves who somebody is, or is for somebody: nothing in it, and it is only read.
        "POST /v1/auth/signup"
        | "POST /v1/auth/verify-email"
        | "POST /v1/auth/token"
        | "POST /v1/auth/forgot-password"
        | "POST /v1/auth/reset-password"
        | "POST /v1/auth/change-password"
        | "POST /v1/auth/google"
        | "POST /v1/auth/mfa/verify"
        | "POST /v1/auth/mfa/verify-setup"
        | "POST /v1/auth/device/code"
        | "POST /v1/auth/device/token"
        | "POST /v1/auth/device/approve"
        | "POST /v1/auth/device/deny"
        | "POST /v1/agents/enroll" => json!({}),
        "POST /v1/auth/mfa/setup" => json!({}),
        "PATCH /v1/auth/me" => json!({"display_name": "Somebody"}),
        "POST /v1/auth/api-keys" => json!({"name": "another"}),
        "POST /v1/agents/{agent_id}/rotate-identity-keys" => json!({}),
        route => panic!("{route} has no row: give it a good body here"),
    };
    Some(body)
}
