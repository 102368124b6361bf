//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Say that clients encrypt the vault's values.
#[must_use]
pub fn enable() -> Doc {
    Doc::new(Tag::Cmek, "enableCmek", "Say that clients encrypt the vault's values")
}

/// Say that clients no longer encrypt the vault's values.
#[must_use]
pub fn disable() -> Doc {
    Doc::new(Tag::Cmek, "disableCmek", "Say that clients no longer encrypt the vault's values")
}

/// Move the vault's values from one client's key to another.
#[must_use]
pub fn rotate() -> Doc {
    Doc::new(Tag::Cmek, "rotateCmek", "Move the vault's values from one client's key to another")
}

/// How far a rotation is.
#[must_use]
pub fn status() -> Doc {
    Doc::new(Tag::Cmek, "getCmekRotation", "How far a rotation is")
}
