//! What documents the device flow (RFC 8628).

use serde_json::json;
use utoipa::ToSchema;

use crate::access::api::AccessTokenReply;
use crate::http::api::schemas::{ProblemType, text, words};
use crate::http::api::{Doc, Tag};

text!(
    /// The code that the program shows to its human.
    UserCode = "BCDF-GHJK", max_length: 64
);
words!(
    /// Whether the human has answered.
    DeviceStatus: "pending" | "approved" | "denied"
);
words!(
    /// What the human has answered.
    DeviceAnswer: "approved" | "denied"
);
words!(
    /// The only grant of this route (RFC 8628 §3.4).
    GrantType: "urn:ietf:params:oauth:grant-type:device_code"
);
words!(
    /// Why there is no token (RFC 8628 §3.5).
    DeviceError: "authorization_pending" | "slow_down" | "access_denied" | "expired_token" | "invalid_request" | "unsupported_grant_type"
);

/// Which program wants to be let in.
#[derive(ToSchema)]
pub struct DeviceCodeRequest {
    /// What it calls itself.
    #[schema(min_length = 1, max_length = 255, examples("cli"))]
    pub client_id: String,
    /// By whom, if only they are to.
    pub email: Option<String>,
}

/// A pair of codes.
#[derive(ToSchema)]
pub struct DeviceCodes {
    /// For the program.
    pub device_code: String,
    /// For the human.
    pub user_code: UserCode,
    /// Where the human answers.
    #[schema(format = "uri", examples("https://intentd.example/device"))]
    pub verification_uri: String,
    /// The same with the code.
    #[schema(format = "uri", examples("https://intentd.example/device#BCDF-GHJK"))]
    pub verification_uri_complete: String,
    /// How long they last, in seconds.
    pub expires_in: i32,
    /// How often the program may ask, in seconds.
    pub interval: i32,
}

/// What a program's login is.
#[derive(ToSchema)]
pub struct DeviceLogin {
    /// Whether somebody has answered.
    pub status: DeviceStatus,
    /// What the program calls itself.
    pub client_id: String,
    /// How long it lasts, in seconds.
    pub expires_in: i32,
}

/// Which login is answered.
#[derive(ToSchema)]
pub struct DeviceAnswerRequest {
    /// The code.
    pub user_code: UserCode,
}

/// What was answered.
#[derive(ToSchema)]
pub struct DeviceAnswered {
    /// The answer.
    pub status: DeviceAnswer,
}

/// The program's question.
#[derive(ToSchema)]
pub struct DeviceTokenRequest {
    /// Its code.
    pub device_code: String,
    /// The grant; may be left out.
    pub grant_type: Option<GrantType>,
}

/// Why there is no token: a problem, with the members of RFC 6749.
#[derive(ToSchema)]
pub struct DeviceProblem {
    /// Always `about:blank`.
    pub r#type: ProblemType,
    /// The status' own phrase.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong, and what to do.
    pub detail: String,
    /// As RFC 8628 has it. A body that cannot be read at all has none.
    #[schema(required = false)]
    pub error: DeviceError,
    /// How often the program may ask from now on, in seconds.
    #[schema(required = false)]
    pub interval: i32,
}

const REFUSED: &str = "Something is missing, or the code is unknown, was answered already, or has ended.";

/// Begin a login from a program.
#[must_use]
pub fn code() -> Doc {
    Doc::new(Tag::Authentication, "beginDeviceLogin", "Begin a login from a program")
        .says("The device flow of RFC 8628: the program shows `user_code`, and asks with `device_code` until its human has answered.")
        .public()
        .body::<DeviceCodeRequest>(json!({"client_id": "cli"}))
        .reply::<DeviceCodes>(
            200,
            "The codes.",
            json!({
                "device_code": "dT5kQ2sV8wZ1xC4vB7nM0aS3dF6gH9jK2lP5oI8uY1t",
                "user_code": "BCDF-GHJK",
                "verification_uri": "https://intentd.example/device",
                "verification_uri_complete": "https://intentd.example/device#BCDF-GHJK",
                "expires_in": 600,
                "interval": 5,
            }),
        )
}

/// Look at a program's login before answering it.
#[must_use]
pub fn status() -> Doc {
    Doc::new(Tag::Authentication, "getDeviceLogin", "Look at a program's login before answering it")
        .reply::<DeviceLogin>(200, "The login.", json!({"status": "pending", "client_id": "cli", "expires_in": 540}))
}

/// Ask whether the human has answered.
#[must_use]
pub fn token() -> Doc {
    Doc::new(Tag::Authentication, "pollDeviceLogin", "Ask whether the human has answered")
        .public()
        .body::<DeviceTokenRequest>(json!({
            "device_code": "dT5kQ2sV8wZ1xC4vB7nM0aS3dF6gH9jK2lP5oI8uY1t",
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        }))
        .reply::<AccessTokenReply>(
            200,
            "The token.",
            json!({"access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln", "token_type": "Bearer", "expires_in": 86400}),
        )
        .problem_with::<DeviceProblem>(
            400,
            "There is no token (yet).",
            json!({
                "type": "about:blank",
                "title": "Bad Request",
                "status": 400,
                "detail": "nobody has answered yet: ask again later",
                "error": "authorization_pending",
            }),
        )
        .problem(403, "The organisation's IP rules do not let this address in.")
}

/// Let a program in.
#[must_use]
pub fn approve() -> Doc {
    Doc::new(Tag::Authentication, "approveDeviceLogin", "Let a program in")
        .body::<DeviceAnswerRequest>(json!({"user_code": "BCDF-GHJK"}))
        .reply::<DeviceAnswered>(200, "It is let in.", json!({"status": "approved"}))
        .problem(400, REFUSED)
        .problem(404, "The code is mistyped, was answered already, has ended, or is for somebody else.")
}

/// Do not let a program in.
#[must_use]
pub fn deny() -> Doc {
    Doc::new(Tag::Authentication, "denyDeviceLogin", "Do not let a program in")
        .body::<DeviceAnswerRequest>(json!({"user_code": "BCDF-GHJK"}))
        .reply::<DeviceAnswered>(200, "It is not let in.", json!({"status": "denied"}))
        .problem(400, REFUSED)
        .problem(404, "The code is mistyped, was answered already, has ended, or is for somebody else.")
}
