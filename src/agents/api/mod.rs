//! What documents the routes of agents.

pub mod guardrails;
pub mod schemas;
pub mod shown;

use serde_json::{Value, json};

use self::schemas::{CreateAgent, EnrollAgent, UpdateAgent};
use self::shown::{Agent, AgentKeysVault, AgentList, CreatedAgent, Enrolled, OwnAgent, RotatedAgentKey};
use crate::http::api::{Doc, Tag};

fn example() -> Value {
    json!({
        "id": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f",
        "name": "trader",
        "auth_method": "api_key",
        "scopes": ["prod/**"],
        "is_active": true,
        "intents_api_enabled": true,
        "tx_to_allowlist": ["0x70997970C51812dc3A010C7d01b50e0d17dc79C8"],
        "tx_allowed_chains": ["base"],
        "tx_max_value_eth": "0.1",
        "tx_daily_limit_eth": "1",
        "vault_ids": [],
        "shroud_enabled": false,
        "smart_accounts": [],
        "created_at": "2026-11-21T12:00:00Z",
        "ssh_public_key": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    })
}

const KEY: &str = "ocv_q1Zc0m8b3vJp5nR7tX9wY2uI4oP6aS8dF0gH1jK3lM5";

/// Register an agent.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Agents, "createAgent", "Register an agent")
        .says(
            "For owners and admins. It may do nothing until a policy grants something; with `intents_api_enabled` it may send intents, \
             within the guardrails that are set here. Empty and absent guardrails restrict nothing; all that are set hold.",
        )
        .body::<CreateAgent>(json!({
            "name": "trader",
            "scopes": ["prod/**"],
            "intents_api_enabled": true,
            "tx_to_allowlist": ["0x70997970C51812dc3A010C7d01b50e0d17dc79C8"],
            "tx_allowed_chains": ["base"],
            "tx_max_value_eth": "0.1",
            "tx_daily_limit_eth": "1",
            "tx_token_limits": [{
                "token": "base:0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "max_value": "50", "daily_limit": "200", "decimals": 6,
            }],
        }))
        .reply::<CreatedAgent>(201, "The agent.", json!({"agent": example(), "api_key": KEY}))
        .problem(403, "Refused by a rule; `resource_limit_exceeded` when there are as many agents as there may be.")
}

/// List the agents.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Agents, "listAgents", "List the agents").reply::<AgentList>(
        200,
        "The agents.",
        json!({"agents": [example()]}),
    )
}

/// An agent looks at itself.
#[must_use]
pub fn me() -> Doc {
    Doc::new(Tag::Agents, "getOwnAgent", "An agent looks at itself").says("For agents only.").reply::<OwnAgent>(
        200,
        "The agent.",
        json!({
            "id": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f",
            "name": "trader",
            "org_id": "7f9c24e8-3b12-4f6d-8a5e-9c1d2e3f4a5b",
            "scopes": ["prod/**"],
            "is_active": true,
            "intents_api_enabled": true,
            "created_by": "8f14e45f-ceea-467f-a83c-3b1a5f9e6d01",
            "created_at": "2026-11-21T12:00:00Z",
            "shroud_enabled": false,
        }),
    )
}

/// An agent asks a human to be registered.
#[must_use]
pub fn enroll() -> Doc {
    Doc::new(Tag::Agents, "enrollAgent", "An agent asks a human to be registered")
        .says(
            "The reply is the same whether or not the address has an account. If it has, its human gets the agent's id and key by mail. \
             Once in ten minutes for each address.",
        )
        .public()
        .body::<EnrollAgent>(json!({"name": "helper", "human_email": "ada@example.com", "description": "Reads invoices"}))
        .reply::<Enrolled>(
            201,
            "It was asked for.",
            json!({
                "agent_id": "00000000-0000-0000-0000-000000000000",
                "message": "If this address belongs to an account, its owner now gets a mail with the agent's id and key.",
            }),
        )
}

/// Look at an agent.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Agents, "getAgent", "Look at an agent")
        .says("An agent looks at itself only. Where a limit of the newer kinds is set, what counts of the 24 hours is shown too.")
        .reply::<Agent>(200, "The agent.", example())
}

/// Change an agent.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Agents, "updateAgent", "Change an agent")
        .says(
            "For owners and admins. It holds for what is signed from then on, also with tokens that were made before.",
        )
        .optional_body::<UpdateAgent>(json!({"tx_max_value_eth": "0.2", "tx_to_allowlist": []}))
        .reply::<Agent>(200, "The agent.", example())
        .problem(422, "It lifts a restriction, and the organisation wants `\"confirm_unrestricted\": true` for that.")
}

/// Deactivate an agent.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Agents, "deleteAgent", "Deactivate an agent")
        .says("Its key, tokens and signing key end. Its transactions and audit rows stay.")
        .empty(204, "It does nothing any more.")
}

/// Give an agent a new key.
#[must_use]
pub fn rotate_key() -> Doc {
    Doc::new(Tag::Agents, "rotateAgentKey", "Give an agent a new key")
        .says("The old one, and tokens that it was exchanged for, end at once.")
        .reply::<RotatedAgentKey>(200, "The key.", json!({"api_key": KEY}))
        .problem(400, "The agent has no key: it proves who it is in another way.")
}

/// Make an agent's identity keys anew.
#[must_use]
pub fn rotate_identity_keys() -> Doc {
    Doc::new(Tag::Agents, "rotateIdentityKeys", "Make an agent's identity keys anew").reply::<Agent>(
        200,
        "The agent with its new public keys.",
        example(),
    )
}

/// The vault of the agents' private identity keys.
#[must_use]
pub fn agent_keys_vault() -> Doc {
    Doc::new(Tag::Agents, "getAgentKeysVault", "The vault of the agents' private identity keys")
        .says("For humans, and for agents that a policy opens it for.")
        .reply::<AgentKeysVault>(200, "The vault.", json!({"vault_id": "3f2b8c1e-5d4a-4c1b-9e8f-7a6b5c4d3e2f"}))
}
