//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// List the chains.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Chains, "listChains", "List the chains").public()
}

/// Look at a chain.
#[must_use]
pub fn get_one() -> Doc {
    Doc::new(Tag::Chains, "getChain", "Look at a chain").public()
}
