//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// List the IP rules.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Organisation, "listIpRules", "List the IP rules")
}

/// Make an IP rule.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Organisation, "createIpRule", "Make an IP rule")
}

/// Delete an IP rule.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Organisation, "deleteIpRule", "Delete an IP rule")
}
