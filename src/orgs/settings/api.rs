//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Look at the organisation's settings.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Organisation, "getOrgSettings", "Look at the organisation's settings")
}

/// Change the organisation's settings.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Organisation, "updateOrgSettings", "Change the organisation's settings")
}
