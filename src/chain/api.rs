//! What documents the routes of chains.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Id, Time};
use crate::http::api::{Doc, Tag};

/// A chain.
#[derive(ToSchema)]
pub struct Chain {
    /// The id that the API shows, made of the chain id.
    pub id: Id,
    /// Its name, by which requests may call it.
    #[schema(examples("base"))]
    pub name: String,
    /// Its name for people.
    #[schema(examples("Base"))]
    pub display_name: String,
    /// Its chain id (EIP-155).
    #[schema(examples(8453))]
    pub chain_id: u64,
    /// What its native unit is called.
    #[schema(examples("ETH"))]
    pub native_currency: String,
    /// Whether its money is worth nothing.
    pub is_testnet: bool,
    /// Whether anything new is signed for it here.
    pub is_enabled: bool,
    /// Where people look at it.
    #[schema(required = false, format = "uri")]
    pub explorer_url: String,
    /// Since when it is there.
    pub created_at: Time,
    /// When it was changed.
    pub updated_at: Time,
}

/// Chains.
#[derive(ToSchema)]
pub struct ChainList {
    /// All of them.
    pub chains: Vec<Chain>,
}

/// A chain to show.
#[must_use]
pub fn example() -> Value {
    json!({
        "id": "00000000-0000-4000-8000-000000002105",
        "name": "base",
        "display_name": "Base",
        "chain_id": 8453,
        "native_currency": "ETH",
        "is_testnet": false,
        "is_enabled": true,
        "explorer_url": "https://basescan.org/",
        "created_at": "2026-11-21T12:00:00Z",
        "updated_at": "2026-11-21T12:00:00Z",
    })
}

/// List the chains.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Chains, "listChains", "List the chains")
        .says("Never the URL of a node: it usually holds a key.")
        .public()
        .reply::<ChainList>(200, "The chains.", json!({"chains": [example()]}))
}

/// Look at a chain.
#[must_use]
pub fn get_one() -> Doc {
    Doc::new(Tag::Chains, "getChain", "Look at a chain").public().reply::<Chain>(200, "The chain.", example())
}
