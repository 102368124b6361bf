//! What documents the routes of the second factor.

use serde_json::json;
use utoipa::ToSchema;

use crate::access::api::AccessTokenReply;
use crate::http::api::schemas::text;
use crate::http::api::{Doc, Tag};

text!(
    /// A code of the app (six digits), or a recovery code.
    FactorCode = "492039"
);

/// Whether there is a second factor.
#[derive(ToSchema)]
pub struct MfaStatus {
    /// Whether there is.
    pub enabled: bool,
    /// The same, for clients that read this name.
    pub totp_enabled: bool,
    /// Recovery codes that were not used yet.
    #[schema(minimum = 0)]
    pub recovery_codes_left: i64,
}

/// What the app is to know. It is shown once.
#[derive(ToSchema)]
pub struct MfaSetup {
    /// The secret in base32 (RFC 6238).
    #[schema(examples("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"))]
    pub secret: String,
    /// The same as a URI, for a QR code.
    #[schema(
        format = "uri",
        examples("otpauth://totp/intentd:ada%40example.com?secret=JBSWY3DPEHPK3PXP&issuer=intentd")
    )]
    pub otpauth_uri: String,
    /// The same, for clients that read this name.
    #[schema(format = "uri")]
    pub otpauth_url: String,
}

/// A code of the app that is being set up.
#[derive(ToSchema)]
pub struct VerifyMfaSetup {
    /// The code.
    pub code: FactorCode,
}

/// That the second factor is on.
#[derive(ToSchema)]
pub struct MfaEnabled {
    /// Always `true`.
    pub enabled: bool,
    /// The same, for clients that read this name.
    pub totp_enabled: bool,
    /// What lets in without the app, each of them once. They are shown once.
    pub recovery_codes: Vec<String>,
}

/// The second half of a login.
#[derive(ToSchema)]
pub struct VerifyMfa {
    /// What the first half gave.
    pub mfa_token: String,
    /// The code.
    pub code: FactorCode,
}

/// What allows to turn the second factor off: a code or the password.
#[derive(ToSchema)]
pub struct TurnOffMfa {
    /// A code.
    pub code: Option<FactorCode>,
    /// The password.
    pub password: Option<String>,
}

/// Whether there is a second factor.
#[must_use]
pub fn status() -> Doc {
    Doc::new(Tag::Account, "getMfaStatus", "Whether there is a second factor").reply::<MfaStatus>(
        200,
        "Whether there is.",
        json!({"enabled": true, "totp_enabled": true, "recovery_codes_left": 10}),
    )
}

/// Begin with a second factor.
#[must_use]
pub fn set_up() -> Doc {
    let uri = "otpauth://totp/intentd:ada%40example.com?secret=JBSWY3DPEHPK3PXP&issuer=intentd";
    Doc::new(Tag::Account, "setUpMfa", "Begin with a second factor")
        .says("It is asked for only once `POST /v1/auth/mfa/verify-setup` has shown that the app has the secret.")
        .reply::<MfaSetup>(
            200,
            "For the app.",
            json!({"secret": "JBSWY3DPEHPK3PXP", "otpauth_uri": uri, "otpauth_url": uri}),
        )
        .problem(409, "There is one already.")
}

/// Turn the second factor on.
#[must_use]
pub fn verify_setup() -> Doc {
    Doc::new(Tag::Account, "verifyMfaSetup", "Turn the second factor on")
        .body::<VerifyMfaSetup>(json!({"code": "492039"}))
        .reply::<MfaEnabled>(
            200,
            "It is on.",
            json!({"enabled": true, "totp_enabled": true, "recovery_codes": ["k3v9-2m7q-x5tz"]}),
        )
        .problem(403, "The code is wrong.")
        .problem(409, "There is one already, or none was begun with.")
}

/// Complete a login with the second factor.
#[must_use]
pub fn verify() -> Doc {
    Doc::new(Tag::Authentication, "verifyMfa", "Complete a login with the second factor")
        .public()
        .body::<VerifyMfa>(json!({"mfa_token": "mT5kQ2sV8wZ1xC4vB7nM0aS3dF6gH9jK2lP5oI8uY1t", "code": "492039"}))
        .reply::<AccessTokenReply>(
            200,
            "A token.",
            json!({"access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln", "token_type": "Bearer", "expires_in": 900}),
        )
        .problem(401, "The code is wrong, or the login has ended.")
        .problem(403, "The organisation's IP rules do not let this address in.")
}

/// Turn the second factor off.
#[must_use]
pub fn turn_off() -> Doc {
    Doc::new(Tag::Account, "turnOffMfa", "Turn the second factor off")
        .body::<TurnOffMfa>(json!({"code": "492039"}))
        .empty(204, "It is off.")
        .problem(403, "The code or the password is wrong.")
        .problem(409, "There is none, or the account has no password.")
}
