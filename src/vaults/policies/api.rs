//! What documents the routes of policies.

use serde_json::{Value, json};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::http::api::schemas::{ActorType, Id, PathPattern, Time, text, words};
use crate::http::api::{Doc, Tag};

words!(
    /// What is granted. `write` implies `delete`.
    Permission: "read" | "write" | "delete"
);
text!(
    /// A network such as `10.0.0.0/8` or `2001:db8::/32`, or a single address.
    Network = "203.0.113.0/24", min_length: 1, max_length: 64
);
text!(
    /// An hour of the day.
    ClockTime = "08:00", pattern: "^([01][0-9]|2[0-3]):[0-5][0-9]$"
);

/// A day of the week: `mon` to `sun`, `monday` to `sunday`, or a number from 1 for Monday to 7 (or 0) for Sunday.
pub struct Weekday;

impl PartialSchema for Weekday {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(7));
        OneOfBuilder::new()
            .description(Some(
                "A day of the week: `mon`, `monday`, or a number from 1 for Monday to 7 (or 0) for Sunday.",
            ))
            .item(ObjectBuilder::new().schema_type(Type::String).max_length(Some(9)))
            .item(number)
            .into()
    }
}

impl ToSchema for Weekday {}

/// Hours of the day and days of the week, as the clock on the wall of a place shows them.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeWindow {
    /// From when on.
    pub after: Option<ClockTime>,
    /// Until when. Before `after`, it passes midnight, and belongs to the day on which it began.
    pub before: Option<ClockTime>,
    /// Where the clock is (IANA); `UTC` if not given.
    #[schema(max_length = 64, examples("Europe/Berlin"))]
    pub timezone: Option<String>,
    /// On which days; all of them if not given.
    #[schema(min_items = 1, max_items = 14)]
    pub days: Option<Vec<Weekday>>,
}

/// When a policy grants. All that are given must hold; one that is not known is refused.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// From where it grants.
    #[schema(min_items = 1, max_items = 256)]
    pub ip_allowlist: Option<Vec<Network>>,
    /// When it grants.
    pub time_window: Option<TimeWindow>,
}

/// What is granted: at least one.
pub struct Permissions;

impl PartialSchema for Permissions {
    fn schema() -> RefOr<Schema> {
        let items = utoipa::openapi::Ref::from_schema_name(Permission::name());
        ArrayBuilder::new().description(Some("What is granted: at least one.")).items(items).min_items(Some(1)).into()
    }
}

impl ToSchema for Permissions {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Permission::name().into_owned(), Permission::schema()));
    }
}

/// A policy to be made. Members of other versions of this API that would restrict it more are refused.
#[derive(ToSchema)]
pub struct CreatePolicy {
    /// On which paths.
    pub secret_path_pattern: PathPattern,
    /// To what.
    pub principal_type: ActorType,
    /// To whom: a human's or an agent's id.
    pub principal_id: Id,
    /// What.
    pub permissions: Permissions,
    /// When it grants.
    pub conditions: Option<Conditions>,
    /// Until when.
    pub expires_at: Option<Time>,
}

/// What is to be changed of a policy. What is `null` or not given stays; conditions are lifted by `{}`.
#[derive(ToSchema)]
pub struct UpdatePolicy {
    /// What is granted.
    pub permissions: Option<Permissions>,
    /// When it grants.
    pub conditions: Option<Conditions>,
    /// Until when.
    pub expires_at: Option<Time>,
}

/// A policy.
#[derive(ToSchema)]
pub struct Policy {
    /// Its id.
    pub id: Id,
    /// Of which vault.
    pub vault_id: Id,
    /// On which paths.
    pub secret_path_pattern: PathPattern,
    /// To what.
    pub principal_type: ActorType,
    /// To whom.
    pub principal_id: Id,
    /// What it grants.
    pub permissions: Permissions,
    /// When it grants; `{}` is always.
    pub conditions: Conditions,
    /// Until when.
    #[schema(required = false)]
    pub expires_at: Time,
    /// Who made it.
    pub created_by: Id,
    /// What that is.
    pub created_by_type: ActorType,
    /// When.
    pub created_at: Time,
}

/// Policies.
#[derive(ToSchema)]
pub struct PolicyList {
    /// The oldest first.
    pub policies: Vec<Policy>,
}

fn example() -> Value {
    json!({
        "id": "6c1f7e3d-2a4b-4c6d-9e0f-b1c2d3e4f5a6",
        "vault_id": "3f2b8c1e-5d4a-4c1b-9e8f-7a6b5c4d3e2f",
        "secret_path_pattern": "prod/**",
        "principal_type": "agent",
        "principal_id": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f",
        "permissions": ["read"],
        "conditions": {"time_window": {"after": "08:00", "before": "20:00", "timezone": "Europe/Berlin"}},
        "created_by": "8f14e45f-ceea-467f-a83c-3b1a5f9e6d01",
        "created_by_type": "user",
        "created_at": "2026-11-21T12:00:00Z",
    })
}

/// Grant access to secrets.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Policies, "createPolicy", "Grant access to secrets")
        .says("For who made the vault, and for owners and admins. Only owners' and admins' policies open signing keys.")
        .body::<CreatePolicy>(json!({
            "secret_path_pattern": "prod/**",
            "principal_type": "agent",
            "principal_id": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f",
            "permissions": ["read"],
            "conditions": {"time_window": {"after": "08:00", "before": "20:00", "timezone": "Europe/Berlin"}},
        }))
        .reply::<Policy>(201, "The policy.", example())
        .problem(403, "Refused by a rule; `resource_limit_exceeded` when there are as many policies as there may be.")
}

/// List a vault's policies.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Policies, "listPolicies", "List a vault's policies")
        .says("All of them for humans and for the vault's owner; another agent sees those for itself.")
        .reply::<PolicyList>(200, "The policies.", json!({"policies": [example()]}))
}

/// Change a policy.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Policies, "updatePolicy", "Change a policy")
        .says("An agent changes only the policies that it made.")
        .optional_body::<UpdatePolicy>(json!({"permissions": ["read", "write"]}))
        .reply::<Policy>(200, "The policy.", example())
}

/// Delete a policy.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Policies, "deletePolicy", "Delete a policy")
        .says("It grants nothing from then on, also to tokens that were made before.")
        .empty(204, "It is gone.")
}
