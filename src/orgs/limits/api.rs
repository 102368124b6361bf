//! What documents the routes of organisations' limits.

use serde_json::json;
use utoipa::ToSchema;

use crate::http::api::schemas::Id;
use crate::http::api::{Doc, Tag};

/// How many there may be; `null` is any number.
#[derive(ToSchema)]
pub struct Limits {
    /// Vaults.
    #[schema(required = true, minimum = 0)]
    pub vaults: Option<i32>,
    /// Secrets.
    #[schema(required = true, minimum = 0)]
    pub secrets: Option<i32>,
    /// Agents.
    #[schema(required = true, minimum = 0)]
    pub agents: Option<i32>,
    /// Policies.
    #[schema(required = true, minimum = 0)]
    pub policies: Option<i32>,
    /// Members.
    #[schema(required = true, minimum = 0)]
    pub members: Option<i32>,
    /// Humans' API keys.
    #[schema(required = true, minimum = 0)]
    pub api_keys: Option<i32>,
}

/// An organisation's limits.
#[derive(ToSchema)]
pub struct OrgLimits {
    /// Of which organisation.
    pub org_id: Id,
    /// The limits.
    pub limits: Limits,
}

/// What is to be changed: what is given. `null` goes back to the default.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLimits {
    /// Vaults.
    #[schema(minimum = 0)]
    pub vaults: Option<i32>,
    /// Secrets.
    #[schema(minimum = 0)]
    pub secrets: Option<i32>,
    /// Agents.
    #[schema(minimum = 0)]
    pub agents: Option<i32>,
    /// Policies.
    #[schema(minimum = 0)]
    pub policies: Option<i32>,
    /// Members.
    #[schema(minimum = 0)]
    pub members: Option<i32>,
    /// Humans' API keys.
    #[schema(minimum = 0)]
    pub api_keys: Option<i32>,
    /// The same limits in an object of their own, as they are read; then nothing beside it is looked at.
    #[schema(nullable = false)]
    pub limits: Option<GivenLimits>,
}

/// Limits, as they are read.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GivenLimits {
    /// Vaults.
    #[schema(minimum = 0)]
    pub vaults: Option<i32>,
    /// Secrets.
    #[schema(minimum = 0)]
    pub secrets: Option<i32>,
    /// Agents.
    #[schema(minimum = 0)]
    pub agents: Option<i32>,
    /// Policies.
    #[schema(minimum = 0)]
    pub policies: Option<i32>,
    /// Members.
    #[schema(minimum = 0)]
    pub members: Option<i32>,
    /// Humans' API keys.
    #[schema(minimum = 0)]
    pub api_keys: Option<i32>,
}

fn example() -> serde_json::Value {
    json!({
        "org_id": "7f9c24e8-3b12-4f6d-8a5e-9c1d2e3f4a5b",
        "limits": {"vaults": 100, "secrets": null, "agents": 50, "policies": null, "members": 20, "api_keys": null},
    })
}

/// Look at an organisation's limits.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Platform, "getOrgLimits", "Look at an organisation's limits").reply::<OrgLimits>(
        200,
        "The limits.",
        example(),
    )
}

/// Change an organisation's limits.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Platform, "setOrgLimits", "Change an organisation's limits")
        .says("They hold for what is made from then on.")
        .optional_body::<SetLimits>(json!({"vaults": 100}))
        .reply::<OrgLimits>(200, "The limits.", example())
}
