//! What documents the routes of humans' API keys.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::access::api::UserKey;
use crate::http::api::schemas::{Id, Name, Time, text};
use crate::http::api::{Doc, Tag};

text!(
    /// What a key may be used for: a path glob, or a text of the client's. A key whose scopes are all path globs reaches secrets at these
    /// paths, and nothing else.
    Scope = "prod/**", min_length: 1, max_length: 1024
);

/// An API key to be made.
#[derive(ToSchema)]
pub struct CreateApiKey {
    /// What it is for.
    pub name: Name,
    /// Its scopes; without any it may what its human may.
    #[schema(max_items = 100)]
    pub scopes: Option<Vec<Scope>>,
    /// When it ends.
    pub expires_at: Option<Time>,
}

/// An API key, without the key itself.
#[derive(ToSchema)]
pub struct ApiKey {
    /// Its id.
    pub id: Id,
    /// What it is for.
    pub name: Name,
    /// Its first characters.
    #[schema(examples("1ck_q1Zc0m8b"))]
    pub key_prefix: String,
    /// Its scopes.
    pub scopes: Vec<Scope>,
    /// Whether it is accepted.
    pub is_active: bool,
    /// When it was made.
    pub created_at: Time,
    /// When it ends.
    #[schema(required = false)]
    pub expires_at: Time,
    /// When it was last used, within some seconds.
    #[schema(required = false)]
    pub last_used_at: Time,
}

/// A new API key.
#[derive(ToSchema)]
pub struct CreatedApiKey {
    /// What it is.
    pub key: ApiKey,
    /// The key itself. It is shown once.
    pub api_key: UserKey,
}

/// API keys.
#[derive(ToSchema)]
pub struct ApiKeyList {
    /// All of the caller's.
    pub keys: Vec<ApiKey>,
}

fn example() -> Value {
    json!({
        "id": "4e6a8c0d-2f3b-4c5e-9a7d-1b3d5f7a9c1e",
        "name": "deploy",
        "key_prefix": "1ck_q1Zc0m8b",
        "scopes": ["prod/**"],
        "is_active": true,
        "created_at": "2026-11-21T12:00:00Z",
    })
}

/// Make an API key.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Account, "createApiKey", "Make an API key")
        .says("One that is made with a key which ends must end no later.")
        .body::<CreateApiKey>(json!({"name": "deploy", "scopes": ["prod/**"]}))
        .reply::<CreatedApiKey>(
            201,
            "The key.",
            json!({"key": example(), "api_key": "1ck_q1Zc0m8b3vJp5nR7tX9wY2uI4oP6aS8dF0gH1jK3lM5"}),
        )
        .problem(403, "Refused by a rule; `resource_limit_exceeded` when there are as many keys as there may be.")
}

/// List the own API keys.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Account, "listApiKeys", "List the own API keys").reply::<ApiKeyList>(
        200,
        "The keys.",
        json!({"keys": [example()]}),
    )
}

/// Revoke an API key.
#[must_use]
pub fn revoke() -> Doc {
    Doc::new(Tag::Account, "revokeApiKey", "Revoke an API key")
        .says("It is not accepted any more, nor is a token that it was exchanged for.")
        .empty(204, "It is revoked.")
}
