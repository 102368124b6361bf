//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Look at an organisation's limits.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Platform, "getOrgLimits", "Look at an organisation's limits")
}

/// Change an organisation's limits.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Platform, "setOrgLimits", "Change an organisation's limits")
}
