//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Make an API key.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Account, "createApiKey", "Make an API key")
}

/// List the own API keys.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Account, "listApiKeys", "List the own API keys")
}

/// Revoke an API key.
#[must_use]
pub fn revoke() -> Doc {
    Doc::new(Tag::Account, "revokeApiKey", "Revoke an API key")
}
