//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// List the contract ABIs.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Simulation, "listContractAbis", "List the contract ABIs")
}

/// Add a contract ABI.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Simulation, "createContractAbi", "Add a contract ABI")
}

/// Delete a contract ABI.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Simulation, "deleteContractAbi", "Delete a contract ABI")
}
