//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Begin a login from a program.
#[must_use]
pub fn code() -> Doc {
    Doc::new(Tag::Authentication, "beginDeviceLogin", "Begin a login from a program").public()
}

/// Look at a program's login before answering it.
#[must_use]
pub fn status() -> Doc {
    Doc::new(Tag::Authentication, "getDeviceLogin", "Look at a program's login before answering it")
}

/// Ask whether the human has answered.
#[must_use]
pub fn token() -> Doc {
    Doc::new(Tag::Authentication, "pollDeviceLogin", "Ask whether the human has answered").public()
}

/// Let a program in.
#[must_use]
pub fn approve() -> Doc {
    Doc::new(Tag::Authentication, "approveDeviceLogin", "Let a program in")
}

/// Do not let a program in.
#[must_use]
pub fn deny() -> Doc {
    Doc::new(Tag::Authentication, "denyDeviceLogin", "Do not let a program in")
}
