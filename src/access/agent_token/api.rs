//! What documents how agents get tokens.

use serde_json::json;
use utoipa::ToSchema;

use crate::http::api::schemas::{AccessToken, Id, TokenType, text};
use crate::http::api::{Doc, Tag};

text!(
    /// An agent's key.
    AgentKey = "ocv_q1Zc0m8b3vJp5nR7tX9wY2uI4oP6aS8dF0gH1jK3lM5"
);

/// What proves who an agent is: its key; or, with its id, an assertion of its issuer or the certificate of the connection.
#[derive(ToSchema)]
pub struct AgentTokenRequest {
    /// Its key.
    pub api_key: Option<AgentKey>,
    /// Its id; not needed with a key, and held against it.
    #[schema(examples("9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f"))]
    pub agent_id: Option<String>,
    /// A JWT of its identity provider (RFC 7523).
    pub client_assertion: Option<String>,
}

/// An agent's token.
#[derive(ToSchema)]
pub struct AgentToken {
    /// The token.
    pub access_token: AccessToken,
    /// How it is sent.
    pub token_type: TokenType,
    /// How long it lasts, in seconds.
    #[schema(minimum = 1, examples(3600))]
    pub expires_in: u32,
    /// The agent.
    pub agent_id: Id,
    /// The vaults that it reaches, as of now.
    pub vault_ids: Vec<Id>,
}

/// An agent's token for its key, certificate or assertion.
#[must_use]
pub fn agent_token() -> Doc {
    Doc::new(Tag::Authentication, "exchangeAgentKey", "An agent's token for its key, certificate or assertion")
        .says("What proves who the agent is depends on its `auth_method`. A token ends with what it was given for.")
        .public()
        .body::<AgentTokenRequest>(json!({"api_key": "ocv_q1Zc0m8b3vJp5nR7tX9wY2uI4oP6aS8dF0gH1jK3lM5"}))
        .reply::<AgentToken>(
            200,
            "The token.",
            json!({
                "access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln",
                "token_type": "Bearer",
                "expires_in": 3600,
                "agent_id": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f",
                "vault_ids": ["3f2b8c1e-5d4a-4c1b-9e8f-7a6b5c4d3e2f"],
            }),
        )
        .problem(401, "What was shown is not valid, or is another agent's.")
        .problem(403, "The organisation's IP rules do not let this address in.")
}
