//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Whether there is a second factor.
#[must_use]
pub fn status() -> Doc {
    Doc::new(Tag::Account, "getMfaStatus", "Whether there is a second factor")
}

/// Begin with a second factor.
#[must_use]
pub fn set_up() -> Doc {
    Doc::new(Tag::Account, "setUpMfa", "Begin with a second factor")
}

/// Turn the second factor on.
#[must_use]
pub fn verify_setup() -> Doc {
    Doc::new(Tag::Account, "verifyMfaSetup", "Turn the second factor on")
}

/// Complete a login with the second factor.
#[must_use]
pub fn verify() -> Doc {
    Doc::new(Tag::Account, "verifyMfa", "Complete a login with the second factor").public()
}

/// Turn the second factor off.
#[must_use]
pub fn turn_off() -> Doc {
    Doc::new(Tag::Account, "turnOffMfa", "Turn the second factor off")
}
