//! What documents the audit trail.

use serde_json::json;
use utoipa::ToSchema;

use crate::http::api::schemas::{Cursor, Fingerprint, Id, JsonObject, Time, words};
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

/// Which links were walked.
#[derive(ToSchema)]
pub struct AuditLinks {
    /// From behind this one.
    #[schema(minimum = 0)]
    pub after: u64,
    /// To this one.
    #[schema(minimum = 0)]
    pub to: u64,
    /// The newest there is.
    #[schema(minimum = 0)]
    pub head: u64,
}

/// Where a chain is broken.
#[derive(ToSchema)]
pub struct AuditBreak {
    /// What was done: `edited`, `removed`, `reordered`, `inserted`, `truncated`, `rewritten` or `forged`.
    #[schema(examples("edited"))]
    pub kind: String,
    /// At which link.
    #[schema(required = true)]
    pub seq: Option<u64>,
    /// At which event.
    #[schema(required = true)]
    pub event_id: Option<Id>,
    /// In words.
    pub detail: String,
}

/// What the proof shows.
#[derive(ToSchema)]
pub struct AuditProof {
    /// What the proof is made of.
    pub scheme: String,
    /// Whether nothing is broken as far as was looked.
    pub chain_valid: bool,
    /// In words.
    pub verdict: String,
    /// Events that were looked at.
    #[schema(required = false, minimum = 0)]
    pub events_checked: u64,
    /// Events that stand where their links say, unaltered.
    #[schema(required = false, minimum = 0)]
    pub events_verified: u64,
    /// Which links were walked.
    #[schema(required = false)]
    pub links: AuditLinks,
    /// Checkpoints of keys that are on the token, which hold.
    #[schema(required = false, minimum = 0)]
    pub checkpoints_verified: u64,
    /// Checkpoints of other keys, which count for nothing.
    #[schema(required = false, minimum = 0)]
    pub checkpoints_of_other_keys: u64,
    /// Up to which link a checkpoint proves it.
    pub proven_to: Option<u64>,
    /// Events that have no link yet.
    #[schema(required = false, minimum = 0)]
    pub waiting_for_link: u64,
    /// Where to go on.
    #[schema(required = false)]
    pub next_cursor: String,
    /// Where it is broken first.
    #[schema(required = false)]
    pub broken: AuditBreak,
    /// The event at which it is broken.
    pub broken_at_event_id: Option<Id>,
}

/// A key that signs checkpoints.
#[derive(ToSchema)]
pub struct AuditKey {
    /// Its id.
    pub key_id: Id,
    /// The only one.
    #[schema(examples("Ed25519"))]
    pub algorithm: String,
    /// Its public half, in hex.
    pub public_key: Fingerprint,
    /// Whether it is on the token.
    pub on_token: bool,
    /// Whether it signs now.
    pub active: bool,
}

/// Keys that sign checkpoints.
#[derive(ToSchema)]
pub struct AuditKeyList {
    /// All that there ever were.
    pub keys: Vec<AuditKey>,
}

/// Prove that nothing was changed.
#[must_use]
pub fn verify() -> Doc {
    Doc::new(Tag::Audit, "verifyAudit", "Prove that nothing in the audit trail was changed")
        .says("For owners and admins. At most 10,000 links at once; `next_cursor` goes on.")
        .query(
            "cursor",
            json!({"type": "string", "maxLength": 4096}),
            "Where to go on: the `next_cursor` of the page before.",
        )
        .query(
            "from_checkpoint",
            json!({"type": "integer", "minimum": 0}),
            "Begin at the newest checkpoint up to this link, instead of at the beginning.",
        )
        .reply::<AuditProof>(
            200,
            "What was found.",
            json!({
                "scheme": "intentd audit 1: SHA-256 over every field and over links, Ed25519 over checkpoints",
                "chain_valid": true, "verdict": "whole", "events_checked": 42, "events_verified": 42,
                "links": {"after": 0, "to": 42, "head": 42}, "checkpoints_verified": 1, "checkpoints_of_other_keys": 0,
                "proven_to": 40, "waiting_for_link": 0,
            }),
        )
        .problem(404, "There is no such checkpoint.")
}

/// Take the audit trail out.
#[must_use]
pub fn export() -> Doc {
    Doc::new(Tag::Audit, "exportAudit", "Take the audit trail out")
        .says("For owners and admins. JSON Lines: events, links, checkpoints, and at the end `end`, without which it is not whole.")
        .query("after", json!({"type": "integer", "minimum": 0}), "Leave out what is up to this link: it was exported before.")
        .file("application/x-ndjson", "The trail.")
        .problem(404, "The chain has no such link.")
}

/// List the keys that sign checkpoints.
#[must_use]
pub fn keys() -> Doc {
    Doc::new(Tag::Audit, "listAuditKeys", "List the public keys that checkpoints are signed by").says("For humans.").reply::<AuditKeyList>(
        200,
        "The keys.",
        json!({"keys": [{
            "key_id": "8f14e45f-ceea-467f-a83c-3b1a5f9e6d01", "algorithm": "Ed25519",
            "public_key": "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29", "on_token": true, "active": true,
        }]}),
    )
}
