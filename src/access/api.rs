//! What documents the routes of tokens.

use serde_json::json;
use utoipa::ToSchema;

use crate::http::api::schemas::{AccessToken, TokenType, text, words};
use crate::http::api::{Doc, Tag};

text!(
    /// A human's API key.
    UserKey = "1ck_q1Zc0m8b3vJp5nR7tX9wY2uI4oP6aS8dF0gH1jK3lM5"
);
words!(
    /// The signature algorithm of tokens (RFC 8037).
    TokenAlgorithm: "EdDSA"
);
text!(
    /// A public Ed25519 key: base64 of 32 bytes.
    Ed25519Key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", pattern: "^[A-Za-z0-9+/]{43}=$"
);

/// A human's API key.
#[derive(ToSchema)]
pub struct ApiKeyTokenRequest {
    /// The key.
    pub api_key: UserKey,
}

/// A token.
#[derive(ToSchema)]
pub struct AccessTokenReply {
    /// The token.
    pub access_token: AccessToken,
    /// How it is sent.
    pub token_type: TokenType,
    /// How long it lasts, in seconds.
    #[schema(minimum = 1, examples(900))]
    pub expires_in: u32,
}

/// A refresh token, of which there are none.
#[derive(ToSchema)]
pub struct RefreshRequest {
    /// Not looked at.
    pub refresh_token: Option<String>,
}

/// One of several keys.
#[derive(ToSchema)]
pub struct JwtKey {
    /// Its id, as tokens' headers name it.
    pub kid: String,
    /// The key.
    pub public_key_base64: Ed25519Key,
}

/// The key that verifies tokens.
#[derive(ToSchema)]
pub struct JwtPublicKey {
    /// How tokens are signed.
    pub alg: TokenAlgorithm,
    /// The key that new tokens are signed with.
    pub public_key_base64: Ed25519Key,
    /// All keys that tokens are accepted by, while there are several.
    #[schema(required = false)]
    pub keys: Vec<JwtKey>,
}

/// A human's token for an API key.
#[must_use]
pub fn api_key_token() -> Doc {
    Doc::new(Tag::Authentication, "exchangeApiKey", "A human's token for an API key")
        .public()
        .body::<ApiKeyTokenRequest>(json!({"api_key": "1ck_q1Zc0m8b3vJp5nR7tX9wY2uI4oP6aS8dF0gH1jK3lM5"}))
        .reply::<AccessTokenReply>(
            200,
            "The token.",
            json!({"access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln", "token_type": "Bearer", "expires_in": 900}),
        )
        .problem(401, "The key is not valid.")
        .problem(403, "The organisation's IP rules do not let this address in.")
}

/// Revoke the token that the request carries.
#[must_use]
pub fn revoke_token() -> Doc {
    Doc::new(Tag::Authentication, "revokeToken", "Revoke the token that the request carries")
        .empty(204, "It is not accepted any more.")
        .problem(400, "The request carries an API key, not a token.")
}

/// Always refused: there are no refresh tokens.
#[must_use]
pub fn refresh() -> Doc {
    Doc::new(Tag::Authentication, "refreshToken", "Always refused: there are no refresh tokens")
        .says("Exchange the API key again.")
        .public()
        .optional_body::<RefreshRequest>(json!({}))
        .problem(400, "There are no refresh tokens.")
}

/// The key that verifies tokens.
#[must_use]
pub fn jwt_public_key() -> Doc {
    Doc::new(Tag::Authentication, "getJwtPublicKey", "The key that verifies tokens").public().reply::<JwtPublicKey>(
        200,
        "The key.",
        json!({"alg": "EdDSA", "public_key_base64": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}),
    )
}
