//! `/v1/auth/…` for humans: sign-up, login, passwords, their own account. Its parts have files of their own.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api;
use super::login::{CHALLENGE_LIFETIME_S, Login};
use super::store::Profile;
use super::{Proven, UserError, account, device, human, keys, login, mfa, pages, passwords, signup};
use crate::access::http::{AuthPeer, issue_to_human, require};
use crate::access::{Action, Principal, jwt};
use crate::app::App;
use crate::audit::Resource;
use crate::clock::rfc3339;
use crate::config::Secret;
use crate::http::extract::Body;
use crate::http::limits::too_many;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, post};
use crate::ids::UserId;

/// What a human writes to have their account erased.
const CONFIRMATION: &str = "DELETE MY ACCOUNT";

/// The routes of this feature and its parts.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/auth/signup", post(sign_up, api::sign_up()))
        .route("/v1/auth/verify-email", post(verify_email, api::verify_email()))
        .route("/v1/auth/token", post(log_in, api::log_in()))
        .route("/v1/auth/google", post(google, api::google()))
        .route("/v1/auth/forgot-password", post(forgot_password, api::forgot_password()))
        .route("/v1/auth/reset-password", post(reset_password, api::reset_password()))
        .route("/v1/auth/change-password", post(change_password, api::change_password()))
        .route("/v1/auth/me", get(me, api::me()).patch(change_me, api::change_me()).delete(delete_me, api::delete_me()))
        .merge(keys::http::routes())
        .merge(mfa::http::routes())
        .merge(device::http::routes())
        .merge(pages::http::routes())
}

impl From<UserError> for Problem {
    fn from(error: UserError) -> Self {
        let text = error.to_string();
        match error {
            UserError::Input(_) | UserError::Spent(_) => Self::bad_request(text),
            UserError::SignupOff | UserError::Refused(_) => Self::forbidden(text),
            UserError::OrgLimit(reached) => reached.into(),
            UserError::Limit(_) => Self::forbidden(text).of_type("resource_limit_exceeded"),
            UserError::TooMany { what, wait } => too_many(what, wait),
            UserError::WrongLogin | UserError::WrongCode | UserError::Ended => Self::unauthorized(text),
            UserError::Conflict(_) => Self::new(StatusCode::CONFLICT, text),
            UserError::NotFound(_) => Self::not_found(text),
            UserError::Busy => Self::unavailable(text, 1),
            UserError::Hsm(error) => error.into(),
            UserError::Db(error) => error.into(),
        }
    }
}

/// A field that must be given, and not as `null`.
///
/// # Errors
/// 400.
pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, Problem> {
    value.ok_or_else(|| Problem::bad_request(format!("{field} is required")))
}

/// A token for whoever has just proven who they are. Exactly these three fields.
///
/// # Errors
/// 401 when it no longer holds; or it could not be made.
pub(super) async fn token_for(app: &App, proven: &Proven, peer: Option<IpAddr>) -> Result<Json<Value>, Problem> {
    let who = (proven.org_id, proven.user_id);
    let token = issue_to_human(app, who, jwt::Root::Epoch(proven.epoch), jwt::USER_TTL_S, peer).await?;
    let token = token.ok_or(UserError::Ended)?;
    Ok(Json(json!({ "access_token": token, "token_type": "Bearer", "expires_in": jwt::USER_TTL_S })))
}

#[derive(Deserialize)]
struct SignUp {
    email: Option<String>,
    password: Option<Secret>,
    display_name: Option<String>,
}

async fn sign_up(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Body(request): Body<SignUp>,
) -> Result<Json<Value>, Problem> {
    if !app.config.signup.enabled {
        return Err(UserError::SignupOff.into());
    }
    let wanted = signup::Wanted {
        email: required("email", request.email)?,
        password: required("password", request.password)?,
        display_name: request.display_name,
    };
    let email = signup::sign_up(&app, wanted, peer).await?;
    Ok(Json(json!({ "message": "Look into your mail: a letter to this address says how to go on.", "email": email })))
}

#[derive(Deserialize)]
struct TokenOnly {
    token: Option<Secret>,
}

async fn verify_email(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Body(request): Body<TokenOnly>,
) -> Result<Json<Value>, Problem> {
    let token = required("token", request.token)?;
    let proven = signup::verify_email(&app, token.expose(), peer).await?;
    token_for(&app, &proven, peer).await
}

#[derive(Deserialize)]
struct LogIn {
    email: Option<String>,
    password: Option<Secret>,
}

async fn log_in(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Body(request): Body<LogIn>,
) -> Result<Json<Value>, Problem> {
    let (email, password) = (required("email", request.email)?, required("password", request.password)?);
    match login::log_in(&app, &email, &password, peer).await? {
        Login::Proven(proven) => token_for(&app, &proven, peer).await,
        Login::SecondFactor(token) => Ok(Json(json!({
            "mfa_required": true,
            "mfa_token": token.reveal(),
            "expires_in": CHALLENGE_LIFETIME_S,
        }))),
    }
}

/// No identity provider is configurable here; the route exists so that clients are told, and not 404.
async fn google(_: AuthPeer) -> Problem {
    Problem::new(
        StatusCode::NOT_IMPLEMENTED,
        "signing in with Google is not configured in this installation: log in with email and password",
    )
}

#[derive(Deserialize)]
struct ForgotPassword {
    email: Option<String>,
}

async fn forgot_password(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Body(request): Body<ForgotPassword>,
) -> Result<Json<Value>, Problem> {
    let email = required("email", request.email)?;
    passwords::forgot(&app, &email, peer).await?;
    Ok(Json(json!({ "message": "If this address has an account, a letter to it says how to choose a new password." })))
}

#[derive(Deserialize)]
struct ResetPassword {
    token: Option<Secret>,
    new_password: Option<Secret>,
}

async fn reset_password(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Body(request): Body<ResetPassword>,
) -> Result<Json<Value>, Problem> {
    let (token, new) = (required("token", request.token)?, required("new_password", request.new_password)?);
    passwords::reset(&app, token.expose(), &new, peer).await?;
    Ok(Json(json!({
        "message": "The password was changed, and everybody who was logged in with the old one is logged out. API keys still hold.",
    })))
}

#[derive(Deserialize)]
struct ChangePassword {
    current_password: Option<Secret>,
    new_password: Option<Secret>,
}

async fn change_password(
    State(app): State<Arc<App>>,
    AuthPeer(_): AuthPeer,
    principal: Principal,
    Body(request): Body<ChangePassword>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::AccountManage, Resource::kind("user")).await?;
    let current = required("current_password", request.current_password)?;
    let new = required("new_password", request.new_password)?;
    passwords::change(&app, &principal, &current, &new).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn render(id: UserId, profile: &Profile) -> Value {
    let mut body = json!({
        "id": id,
        "email": profile.email,
        "auth_method": if profile.has_password { "password" } else { "api_key" },
        "role": profile.role,
        "email_verified": profile.email_verified,
        "marketing_emails": profile.marketing_emails,
        "totp_enabled": profile.totp_enabled,
        "created_at": rfc3339(profile.created_at),
    });
    if let Some(name) = &profile.display_name {
        body["display_name"] = json!(name);
    }
    body
}

async fn me(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::AccountRead, Resource::kind("user")).await?;
    let profile = account::profile(&app, &principal).await?;
    Ok(Json(render(human(&principal)?, &profile)))
}

#[derive(Deserialize)]
struct ChangeMe {
    display_name: Option<String>,
    marketing_emails: Option<bool>,
}

async fn change_me(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<ChangeMe>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::AccountManage, Resource::kind("user")).await?;
    let change = account::Change { display_name: request.display_name, marketing_emails: request.marketing_emails };
    let profile = account::change(&app, &principal, change).await?;
    Ok(Json(render(human(&principal)?, &profile)))
}

/// Existing clients name the field either way.
#[derive(Deserialize)]
struct DeleteMe {
    confirmation: Option<String>,
    confirm: Option<String>,
}

async fn delete_me(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<DeleteMe>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::AccountDelete, Resource::kind("user")).await?;
    let given = [request.confirmation, request.confirm];
    let mut given = given.iter().flatten().peekable();
    if given.peek().is_none() || given.any(|text| text != CONFIRMATION) {
        return Err(Problem::bad_request(format!("confirmation must be \"{CONFIRMATION}\"")));
    }
    account::delete(&app, &principal).await?;
    Ok(StatusCode::NO_CONTENT)
}
