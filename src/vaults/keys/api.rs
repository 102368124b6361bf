//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Make an agent's signing key in the HSM.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::SigningKeys, "createSigningKey", "Make an agent's signing key in the HSM")
}

/// List an agent's signing keys.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::SigningKeys, "listSigningKeys", "List an agent's signing keys")
}

/// Stop an agent's signing key.
#[must_use]
pub fn deactivate() -> Doc {
    Doc::new(Tag::SigningKeys, "deactivateSigningKey", "Stop an agent's signing key")
}

/// Replace an agent's signing key.
#[must_use]
pub fn rotate() -> Doc {
    Doc::new(Tag::SigningKeys, "rotateSigningKey", "Replace an agent's signing key")
}

/// What the signing key's address has on a chain.
#[must_use]
pub fn balance() -> Doc {
    Doc::new(Tag::SigningKeys, "getSigningKeyBalance", "What the signing key's address has on a chain")
}
