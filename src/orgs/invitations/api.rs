//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Invite somebody.
#[must_use]
pub fn invite() -> Doc {
    Doc::new(Tag::Organisation, "inviteMember", "Invite somebody")
}

/// List the open invitations.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Organisation, "listInvitations", "List the open invitations")
}

/// Withdraw an invitation.
#[must_use]
pub fn withdraw() -> Doc {
    Doc::new(Tag::Organisation, "withdrawInvitation", "Withdraw an invitation")
}

/// Join by an invitation.
#[must_use]
pub fn accept() -> Doc {
    Doc::new(Tag::Organisation, "acceptInvitation", "Join by an invitation").public()
}
