//! What documents the routes of vaults.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{ActorType, Cursor, Description, Fingerprint, Id, Name, Time};
use crate::http::api::{Doc, Tag};

/// A vault to be made.
#[derive(ToSchema)]
pub struct CreateVault {
    /// Its name, which no other vault of the organisation has. Names that begin with `__` are the daemon's own.
    pub name: Name,
    /// What it is for.
    pub description: Option<Description>,
}

/// A vault.
#[derive(ToSchema)]
pub struct Vault {
    /// Its id.
    pub id: Id,
    /// Its name.
    pub name: Name,
    /// What it is for, if that was said.
    #[schema(required = false)]
    pub description: Description,
    /// Who made it, and owns it.
    pub created_by: Id,
    /// What that is.
    pub created_by_type: ActorType,
    /// When.
    pub created_at: Time,
    /// `true` while clients encrypt its values; not there otherwise.
    #[schema(required = false)]
    pub cmek_enabled: bool,
    /// The SHA-256 of the key that they encrypt them with.
    #[schema(required = false)]
    pub cmek_fingerprint: Fingerprint,
}

/// Vaults.
#[derive(ToSchema)]
pub struct VaultList {
    /// The newest last.
    pub vaults: Vec<Vault>,
    /// Only when there are more.
    #[schema(required = false)]
    pub next_cursor: Cursor,
}

/// A vault to show.
#[must_use]
pub fn example() -> Value {
    json!({
        "id": "3f2b8c1e-5d4a-4c1b-9e8f-7a6b5c4d3e2f",
        "name": "production",
        "description": "What the trading agents need",
        "created_by": "8f14e45f-ceea-467f-a83c-3b1a5f9e6d01",
        "created_by_type": "user",
        "created_at": "2026-11-21T12:00:00Z",
    })
}

/// Create a vault.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Vaults, "createVault", "Create a vault")
        .says("It belongs to who makes it: a human, or an agent.")
        .body::<CreateVault>(json!({"name": "production", "description": "What the trading agents need"}))
        .reply::<Vault>(201, "The vault.", example())
        .problem(403, "Refused by a rule; `resource_limit_exceeded` when there are as many vaults as there may be.")
        .problem(409, "There is a vault of this name already.")
}

/// List the vaults.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Vaults, "listVaults", "List the vaults")
        .says("All of the organisation's for a human; for an agent its own and those that a policy opens to it. Without `limit` up to 5000.")
        .query(
            "limit",
            json!({"type": "integer", "minimum": 1, "format": "int64"}),
            "Vaults of a page; more than 1000 are 1000.",
        )
        .query("cursor", json!({"type": "string"}), "Where to go on: the `next_cursor` of the page before.")
        .reply::<VaultList>(200, "The vaults.", json!({"vaults": [example()]}))
}

/// Look at a vault.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Vaults, "getVault", "Look at a vault").reply::<Vault>(200, "The vault.", example())
}

/// Delete a vault with everything in it.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Vaults, "deleteVault", "Delete a vault with everything in it")
        .says("It cannot be taken back. For who made it, and for owners and admins.")
        .empty(204, "It is gone.")
}
