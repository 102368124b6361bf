//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// List the members.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Organisation, "listMembers", "List the members")
}

/// Change a member's role.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Organisation, "changeMember", "Change a member's role")
}

/// Remove a member.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Organisation, "removeMember", "Remove a member")
}
