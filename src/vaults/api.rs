//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Create a vault.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Vaults, "createVault", "Create a vault")
}

/// List the vaults.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Vaults, "listVaults", "List the vaults")
}

/// Look at a vault.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Vaults, "getVault", "Look at a vault")
}

/// Delete a vault with everything in it.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Vaults, "deleteVault", "Delete a vault with everything in it")
}
