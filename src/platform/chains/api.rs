//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// List the chains with what keeps their users safe.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Platform, "adminListChains", "List the chains with what keeps their users safe")
}

/// Add a chain.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Platform, "adminCreateChain", "Add a chain")
}

/// Change a chain.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Platform, "adminUpdateChain", "Change a chain")
}

/// Take a chain away.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Platform, "adminDeleteChain", "Take a chain away")
}
