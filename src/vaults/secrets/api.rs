//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// List the secrets that the caller may read.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Secrets, "listSecrets", "List the secrets that the caller may read")
}

/// Store a secret.
#[must_use]
pub fn write() -> Doc {
    Doc::new(Tag::Secrets, "putSecret", "Store a secret")
}

/// Read a secret.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Secrets, "getSecret", "Read a secret")
}

/// Delete a secret.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Secrets, "deleteSecret", "Delete a secret")
}

/// List a secret's versions.
#[must_use]
pub fn versions_list() -> Doc {
    Doc::new(Tag::Secrets, "listSecretVersions", "List a secret's versions")
}

/// Read one version of a secret.
#[must_use]
pub fn versions_read() -> Doc {
    Doc::new(Tag::Secrets, "getSecretVersion", "Read one version of a secret")
}

/// Disable one version of a secret.
#[must_use]
pub fn versions_disable() -> Doc {
    Doc::new(Tag::Secrets, "disableSecretVersion", "Disable one version of a secret")
}

/// Replace a secret's value by a random one.
#[must_use]
pub fn versions_rotate() -> Doc {
    Doc::new(Tag::Secrets, "rotateSecret", "Replace a secret's value by a random one")
}

/// Undo the deletion of a secret.
#[must_use]
pub fn versions_restore() -> Doc {
    Doc::new(Tag::Secrets, "restoreSecret", "Undo the deletion of a secret")
}
