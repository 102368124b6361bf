//! What documents the routes of lanes.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Address, Time};
use crate::http::api::{Doc, Tag};

/// One key on one chain.
#[derive(ToSchema)]
pub struct Lane {
    /// The chain's name.
    pub chain: String,
    /// Its chain id.
    #[schema(minimum = 1)]
    pub chain_id: u64,
    /// The key's address.
    pub address: Address,
    /// The nonce that is given out next; `null` before the first.
    #[schema(required = true)]
    pub next_nonce: Option<u64>,
    /// How many of its transactions are not final.
    #[schema(minimum = 0)]
    pub depth: u64,
    /// Whether it waits for a human.
    pub is_frozen: bool,
    /// Why.
    #[schema(required = false)]
    pub frozen_reason: String,
    /// Since when.
    #[schema(required = false)]
    pub frozen_at: Time,
    /// Why a transaction of it that no node has is not sent. Later ones wait for its nonce.
    #[schema(required = false)]
    pub hold_reason: String,
}

/// The lanes of the organisation's keys.
#[derive(ToSchema)]
pub struct LaneList {
    /// By chain and address.
    pub lanes: Vec<Lane>,
    /// Only when there is more.
    #[schema(required = false)]
    pub next_cursor: String,
}

/// Where a frozen lane is to go on.
#[derive(ToSchema)]
pub struct ResumeLane {
    /// The nonce to go on with; what lies below is taken as used by others. As the chain counts if not given.
    #[schema(minimum = 0)]
    pub next_nonce: Option<u64>,
}

/// A lane that goes on.
#[derive(ToSchema)]
pub struct ResumedLane {
    /// The chain's name.
    pub chain: String,
    /// The key's address.
    pub address: Address,
    /// The nonce that is given out next.
    #[schema(required = true)]
    pub next_nonce: Option<u64>,
    /// It is not any more.
    pub is_frozen: bool,
}

fn lane() -> Value {
    json!({
        "chain": "base", "chain_id": 8453, "address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "next_nonce": 18, "depth": 2,
        "is_frozen": false,
    })
}

/// List lanes.
#[must_use]
pub fn lanes() -> Doc {
    Doc::new(Tag::Intents, "listLanes", "List lanes")
        .says("For humans. A lane is one key on one chain; a frozen one waits until somebody has looked who else used its key.")
        .pages(200, 200)
        .reply::<LaneList>(200, "By chain and address.", json!({"lanes": [lane()]}))
}

/// Let a frozen lane go on.
#[must_use]
pub fn resume_lane() -> Doc {
    Doc::new(Tag::Intents, "resumeLane", "Let a frozen lane go on")
        .says("For owners and admins, after somebody has found out what happened.")
        .optional_body::<ResumeLane>(json!({"next_nonce": 18}))
        .reply::<ResumedLane>(
            200,
            "It goes on.",
            json!({"chain": "base", "address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "next_nonce": 18, "is_frozen": false}),
        )
        .problem(409, "It is not frozen.")
        .problem(422, "It cannot go on there.")
}
