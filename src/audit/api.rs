//! What documents the audit trail.

use serde_json::json;
use utoipa::ToSchema;

use crate::http::api::schemas::{Cursor, Id, JsonObject, Time, words};
use crate::http::api::{Doc, Tag};

words!(
    /// Who did it: a human, an agent, the daemon itself, or somebody without valid credentials.
    AuditActor: "user" | "agent" | "system" | "anonymous"
);

/// Something that was done, or refused.
#[derive(ToSchema)]
pub struct AuditEvent {
    /// Its id.
    pub id: Id,
    /// What.
    #[schema(examples("transaction.submit"))]
    pub action: String,
    /// Who.
    #[schema(required = true)]
    pub actor_id: Option<Id>,
    /// What that is.
    pub actor_type: AuditActor,
    /// What kind of thing it is about.
    #[schema(examples("agent"))]
    pub resource_type: String,
    /// Which.
    #[schema(required = true)]
    pub resource_id: Option<String>,
    /// Of which organisation.
    pub org_id: Id,
    /// The rest. Never a secret, key, token or signed byte.
    pub details: JsonObject,
    /// From where.
    #[schema(required = true, examples("203.0.113.7"))]
    pub ip_address: Option<String>,
    /// When.
    pub created_at: Time,
}

/// What was done.
#[derive(ToSchema)]
pub struct AuditEventList {
    /// The newest first.
    pub events: Vec<AuditEvent>,
    /// How many are in this page.
    #[schema(minimum = 0)]
    pub count: u64,
    /// Only when the page is full.
    #[schema(required = false)]
    pub next_cursor: Cursor,
}

/// List what was done.
#[must_use]
pub fn events() -> Doc {
    let time = json!({"type": "string", "format": "date-time"});
    Doc::new(Tag::Audit, "listAuditEvents", "List what was done")
        .says("For humans.")
        .query("resource_id", json!({"type": "string", "maxLength": 1024}), "Only about this.")
        .query("actor_id", json!({"type": "string", "maxLength": 1024}), "Only by them.")
        .query("action", json!({"type": "string", "maxLength": 1024}), "Only this.")
        .query("from", time.clone(), "From then on.")
        .query("to", time, "Until then.")
        .query(
            "limit",
            json!({"type": "integer", "minimum": 1, "format": "int64", "default": 100}),
            "Events of a page; more than 1000 are 1000.",
        )
        .query(
            "offset",
            json!({"type": "integer", "minimum": 0, "format": "int64", "default": 0}),
            "How many to pass over.",
        )
        .query(
            "cursor",
            json!({"type": "string", "maxLength": 1024}),
            "Where to go on: the `next_cursor` of the page before.",
        )
        .reply::<AuditEventList>(
            200,
            "The events.",
            json!({
                "events": [{
                    "id": "0b2d4f6a-8c0e-4a2c-9e4b-6d8f0a2c4e6b",
                    "action": "transaction.submit",
                    "actor_id": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f",
                    "actor_type": "agent",
                    "resource_type": "transaction",
                    "resource_id": "1c3e5a7b-9d1f-4b3d-8f5a-7c9e1b3d5f7a",
                    "org_id": "7f9c24e8-3b12-4f6d-8a5e-9c1d2e3f4a5b",
                    "details": {"chain": "base", "value_wei": "50000000000000000"},
                    "ip_address": "203.0.113.7",
                    "created_at": "2026-11-21T12:00:00Z",
                }],
                "count": 1,
            }),
        )
}
