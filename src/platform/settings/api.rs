//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Look at the installation's settings.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Platform, "getPlatformSettings", "Look at the installation's settings")
}

/// Change the installation's settings.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Platform, "setPlatformSettings", "Change the installation's settings")
}
