//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Share a secret.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Sharing, "shareSecret", "Share a secret")
}

/// Open a share.
#[must_use]
pub fn open() -> Doc {
    Doc::new(Tag::Sharing, "openShare", "Open a share").public_or_bearer()
}

/// Revoke a share.
#[must_use]
pub fn revoke() -> Doc {
    Doc::new(Tag::Sharing, "revokeShare", "Revoke a share")
}

/// List the shares that the caller has made.
#[must_use]
pub fn outbound() -> Doc {
    Doc::new(Tag::Sharing, "listOutboundShares", "List the shares that the caller has made")
}

/// List the shares that are for the caller.
#[must_use]
pub fn inbound() -> Doc {
    Doc::new(Tag::Sharing, "listInboundShares", "List the shares that are for the caller")
}

/// Accept a share.
#[must_use]
pub fn accept() -> Doc {
    Doc::new(Tag::Sharing, "acceptShare", "Accept a share")
}

/// Decline a share.
#[must_use]
pub fn decline() -> Doc {
    Doc::new(Tag::Sharing, "declineShare", "Decline a share")
}
