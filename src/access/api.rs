//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// A human's token for an API key.
#[must_use]
pub fn api_key_token() -> Doc {
    Doc::new(Tag::Authentication, "exchangeApiKey", "A human's token for an API key").public()
}

/// Revoke the token that the request carries.
#[must_use]
pub fn revoke_token() -> Doc {
    Doc::new(Tag::Authentication, "revokeToken", "Revoke the token that the request carries")
}

/// Always refused: there are no refresh tokens.
#[must_use]
pub fn refresh() -> Doc {
    Doc::new(Tag::Authentication, "refreshToken", "Always refused: there are no refresh tokens").public()
}

/// The key that verifies tokens.
#[must_use]
pub fn jwt_public_key() -> Doc {
    Doc::new(Tag::Authentication, "getJwtPublicKey", "The key that verifies tokens").public()
}
