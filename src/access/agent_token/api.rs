//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// An agent's token for its key, certificate or assertion.
#[must_use]
pub fn agent_token() -> Doc {
    Doc::new(Tag::Authentication, "exchangeAgentKey", "An agent's token for its key, certificate or assertion").public()
}
