//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// List what was done.
#[must_use]
pub fn events() -> Doc {
    Doc::new(Tag::Audit, "listAuditEvents", "List what was done")
}
