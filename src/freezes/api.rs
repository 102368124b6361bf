//! What documents the routes of freezes.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Cursor, Id, Time, words};
use crate::http::api::{Doc, Tag};

words!(
    /// What is frozen.
    FreezeScope: "organisation" | "agent" | "key" | "chain"
);
words!(
    /// Who did it: a human, or the daemon itself after repeated denials.
    FreezeActor: "user" | "system"
);

/// What is to be frozen.
#[derive(ToSchema)]
pub struct NewFreeze {
    /// What kind of thing.
    pub scope: FreezeScope,
    /// Which: an agent's id, a key's address, or a chain's name or id. May be left out for the organisation.
    #[schema(max_length = 255)]
    pub subject: Option<String>,
    /// Why.
    #[schema(max_length = 500)]
    pub reason: Option<String>,
}

/// A freeze in force.
#[derive(ToSchema)]
pub struct Freeze {
    /// Its id.
    pub id: Id,
    /// What kind of thing.
    pub scope: FreezeScope,
    /// Which.
    pub subject: String,
    /// Why.
    pub reason: String,
    /// Who did it, if it was a human.
    #[schema(required = true)]
    pub created_by: Option<Id>,
    /// What that is.
    pub created_by_type: FreezeActor,
    /// Since when.
    pub created_at: Time,
}

/// What is frozen.
#[derive(ToSchema)]
pub struct FreezeList {
    /// The newest first.
    pub freezes: Vec<Freeze>,
    /// Only when there is more.
    #[schema(required = false)]
    pub next_cursor: Cursor,
}

fn example() -> Value {
    json!({
        "id": "8f14e45f-ceea-467f-a83c-3b1a5f9e6d01",
        "scope": "agent",
        "subject": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f",
        "reason": "its key leaked",
        "created_by": "7f9c24e8-3b12-4f6d-8a5e-9c1d2e3f4a5b",
        "created_by_type": "user",
        "created_at": "2026-11-21T12:00:00Z",
    })
}

/// Freeze something.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Freezes, "createFreeze", "Freeze something")
        .says(
            "For every human. Answered when no daemon signs anything new of it any more. What is signed and no node has yet is held \
             (`hold_reason`) until the freeze is lifted, unless a human cancels it; what a node has is followed to its end. Repeating it is harmless.",
        )
        .body::<NewFreeze>(json!({"scope": "agent", "subject": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f", "reason": "its key leaked"}))
        .reply::<Freeze>(201, "It is frozen now.", example())
        .reply::<Freeze>(200, "It was frozen before.", example())
        .problem(404, "There is no such agent, key or organisation.")
}

/// List what is frozen.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Freezes, "listFreezes", "List what is frozen")
        .says("For humans.")
        .query(
            "cursor",
            json!({"type": "string", "maxLength": 4096}),
            "Where to go on: the `next_cursor` of the page before.",
        )
        .reply::<FreezeList>(200, "What is in force.", json!({"freezes": [example()]}))
}

/// Lift a freeze.
#[must_use]
pub fn lift() -> Doc {
    Doc::new(Tag::Freezes, "liftFreeze", "Lift a freeze").says("For owners and admins.").empty(204, "It is lifted.")
}
