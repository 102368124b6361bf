//! What documents the routes of humans' accounts.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::access::api::AccessTokenReply;
use crate::http::api::schemas::{AccessToken, Email, GivenEmail, Id, Time, TokenType, text, words};
use crate::http::api::{Doc, Tag};
use crate::orgs::members::api::Role;

text!(
    /// A password that was chosen before.
    Password = "correct-Horse7battery"
);
text!(
    /// A new password: 12 to 256 characters, with an upper-case and a lower-case letter, a digit and a special character, without three
    /// equal characters in a row, or three that follow each other (abc, 321).
    NewPassword = "correct-Horse7battery", min_length: 12, max_length: 256
);
text!(
    /// The code of a letter.
    LetterCode = "hT5kQ2sV8wZ1xC4vB7nM0aS3dF6gH9jK2lP5oI8uY1t"
);
words!(
    /// How somebody logs in.
    AuthMethod: "password" | "api_key"
);
words!(
    /// What is written to have an account erased.
    Confirmation: "DELETE MY ACCOUNT"
);

/// An account to be made.
#[derive(ToSchema)]
pub struct SignUp {
    /// Its address.
    pub email: GivenEmail,
    /// Its password.
    pub password: NewPassword,
    /// The name to show.
    #[schema(max_length = 255)]
    pub display_name: Option<String>,
}

/// That a letter was sent.
#[derive(ToSchema)]
pub struct SignedUp {
    /// What to do next.
    pub message: String,
    /// Where the letter went.
    pub email: Email,
}

/// The code of a letter.
#[derive(ToSchema)]
pub struct VerifyEmail {
    /// The code.
    pub token: LetterCode,
}

/// Who logs in.
#[derive(ToSchema)]
pub struct LogIn {
    /// Their address.
    #[schema(examples("ada@example.com"))]
    pub email: String,
    /// Their password.
    pub password: Password,
}

/// A token; or, with a second factor, what is shown together with its code.
#[derive(ToSchema)]
pub struct LoggedIn {
    /// The token.
    #[schema(required = false)]
    pub access_token: AccessToken,
    /// How it is sent.
    #[schema(required = false)]
    pub token_type: TokenType,
    /// How long that which is there lasts, in seconds.
    #[schema(minimum = 1)]
    pub expires_in: u32,
    /// `true` when a code is needed; not there otherwise.
    #[schema(required = false)]
    pub mfa_required: bool,
    /// For `POST /v1/auth/mfa/verify`.
    #[schema(required = false)]
    pub mfa_token: String,
}

/// A sign-in with Google, which there is not.
#[derive(ToSchema)]
pub struct GoogleLogin {
    /// Not looked at.
    pub id_token: Option<String>,
}

/// Whose password is forgotten.
#[derive(ToSchema)]
pub struct ForgotPassword {
    /// Their address.
    #[schema(examples("ada@example.com"))]
    pub email: String,
}

/// A new password by a letter.
#[derive(ToSchema)]
pub struct ResetPassword {
    /// The letter's code.
    pub token: LetterCode,
    /// The new password.
    pub new_password: NewPassword,
}

/// A new password by the old one.
#[derive(ToSchema)]
pub struct ChangePassword {
    /// The old one.
    pub current_password: Password,
    /// The new one.
    pub new_password: NewPassword,
}

/// What happened.
#[derive(ToSchema)]
pub struct Message {
    /// For people.
    pub message: String,
}

/// An account.
#[derive(ToSchema)]
pub struct Profile {
    /// Its id.
    pub id: Id,
    /// Its address.
    pub email: Email,
    /// The name to show.
    #[schema(required = false)]
    pub display_name: String,
    /// How its human logs in.
    pub auth_method: AuthMethod,
    /// What they are in the organisation.
    pub role: Role,
    /// Whether the address is proven.
    pub email_verified: bool,
    /// Kept for the client.
    pub marketing_emails: bool,
    /// Whether there is a second factor.
    pub totp_enabled: bool,
    /// Since when it is there.
    pub created_at: Time,
}

/// What is to be changed of an account.
#[derive(ToSchema)]
pub struct ChangeProfile {
    /// The name to show; an empty one takes it away.
    #[schema(max_length = 255)]
    pub display_name: Option<String>,
    /// Kept for the client.
    pub marketing_emails: Option<bool>,
}

/// That an account is to be erased. Either member says so.
#[derive(ToSchema)]
pub struct DeleteAccount {
    /// The words.
    pub confirmation: Option<Confirmation>,
    /// The same, for clients that name it so.
    pub confirm: Option<Confirmation>,
}

fn token() -> Value {
    json!({"access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln", "token_type": "Bearer", "expires_in": 900})
}

fn profile() -> Value {
    json!({
        "id": "8f14e45f-ceea-467f-a83c-3b1a5f9e6d01",
        "email": "ada@example.com",
        "display_name": "Ada",
        "auth_method": "password",
        "role": "owner",
        "email_verified": true,
        "marketing_emails": false,
        "totp_enabled": true,
        "created_at": "2026-11-21T12:00:00Z",
    })
}

const SPENT: &str = "Something is missing or does not fit, or the letter's code is unknown, was used, or has ended.";
const ADDRESS_RULES: &str = "The organisation's IP rules do not let this address in.";

/// Ask for an account.
#[must_use]
pub fn sign_up() -> Doc {
    Doc::new(Tag::Account, "signUp", "Ask for an account")
        .says("The account begins when the address is proven. The reply is the same whether or not it has an account.")
        .public()
        .body::<SignUp>(json!({"email": "ada@example.com", "password": "correct-Horse7battery", "display_name": "Ada"}))
        .reply::<SignedUp>(
            200,
            "A letter was sent.",
            json!({"message": "Look into your mail.", "email": "ada@example.com"}),
        )
        .problem(403, "Nobody signs up by themself in this installation.")
}

/// Prove an email address.
#[must_use]
pub fn verify_email() -> Doc {
    Doc::new(Tag::Account, "verifyEmail", "Prove an email address")
        .says("The account and an organisation of its own are made, and its human is logged in.")
        .public()
        .body::<VerifyEmail>(json!({"token": "hT5kQ2sV8wZ1xC4vB7nM0aS3dF6gH9jK2lP5oI8uY1t"}))
        .reply::<AccessTokenReply>(200, "A token.", token())
        .problem(400, SPENT)
        .problem(401, "The account has ended meanwhile.")
        .problem(403, ADDRESS_RULES)
        .problem(409, "The address has an account already.")
}

/// Log in with a password.
#[must_use]
pub fn log_in() -> Doc {
    Doc::new(Tag::Authentication, "logIn", "Log in with a password")
        .public()
        .body::<LogIn>(json!({"email": "ada@example.com", "password": "correct-Horse7battery"}))
        .reply::<LoggedIn>(200, "A token, or what is needed with a second factor.", token())
        .problem(401, "Address or password are wrong.")
        .problem(403, ADDRESS_RULES)
}

/// Always refused: there is no sign-in with Google.
#[must_use]
pub fn google() -> Doc {
    Doc::new(Tag::Authentication, "logInWithGoogle", "Always refused: there is no sign-in with Google")
        .public()
        .optional_body::<GoogleLogin>(json!({}))
        .problem(501, "There is no sign-in with Google.")
}

/// Ask for a letter to choose a new password.
#[must_use]
pub fn forgot_password() -> Doc {
    Doc::new(Tag::Account, "forgotPassword", "Ask for a letter to choose a new password")
        .says("The reply is the same whether or not the address has an account.")
        .public()
        .body::<ForgotPassword>(json!({"email": "ada@example.com"}))
        .reply::<Message>(200, "If there is an account, a letter was sent.", json!({"message": "Look into your mail."}))
}

/// Choose a new password.
#[must_use]
pub fn reset_password() -> Doc {
    Doc::new(Tag::Account, "resetPassword", "Choose a new password")
        .says("Everybody who was logged in with the old one is logged out. API keys still hold.")
        .public()
        .body::<ResetPassword>(json!({
            "token": "hT5kQ2sV8wZ1xC4vB7nM0aS3dF6gH9jK2lP5oI8uY1t",
            "new_password": "correct-Horse7battery",
        }))
        .reply::<Message>(200, "It was changed.", json!({"message": "The password was changed."}))
        .problem(400, SPENT)
}

/// Change the password.
#[must_use]
pub fn change_password() -> Doc {
    Doc::new(Tag::Account, "changePassword", "Change the password")
        .says("Everybody who was logged in with the old one is logged out, who asks among them. API keys still hold.")
        .body::<ChangePassword>(json!({
            "current_password": "correct-Horse7battery",
            "new_password": "better-Horse8battery",
        }))
        .empty(204, "It was changed.")
        .problem(403, "The current password is not right.")
        .problem(409, "The account has no password yet.")
}

/// Look at the own account.
#[must_use]
pub fn me() -> Doc {
    Doc::new(Tag::Account, "getMe", "Look at the own account").reply::<Profile>(200, "The account.", profile())
}

/// Change the own account.
#[must_use]
pub fn change_me() -> Doc {
    Doc::new(Tag::Account, "changeMe", "Change the own account")
        .optional_body::<ChangeProfile>(json!({"display_name": "Ada"}))
        .reply::<Profile>(200, "The account.", profile())
}

/// Erase the own account.
#[must_use]
pub fn delete_me() -> Doc {
    Doc::new(Tag::Account, "deleteMe", "Erase the own account")
        .body::<DeleteAccount>(json!({"confirmation": "DELETE MY ACCOUNT"}))
        .empty(204, "It is erased.")
        .problem(409, "An organisation's last owner stays.")
}
