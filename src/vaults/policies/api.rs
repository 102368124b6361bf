//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Grant access to secrets.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Policies, "createPolicy", "Grant access to secrets")
}

/// List a vault's policies.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Policies, "listPolicies", "List a vault's policies")
}

/// Change a policy.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Policies, "updatePolicy", "Change a policy")
}

/// Delete a policy.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Policies, "deletePolicy", "Delete a policy")
}
