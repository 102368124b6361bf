//! `/v1/auth/mfa…`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Confirmation;
use super::api;
use crate::access::http::{AuthPeer, require};
use crate::access::{Action, Principal};
use crate::app::App;
use crate::audit::Resource;
use crate::config::Secret;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, delete, get, post};
use crate::users::http::{required, token_for};

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/auth/mfa", delete(turn_off, api::turn_off()))
        .route("/v1/auth/mfa/status", get(status, api::status()))
        .route("/v1/auth/mfa/setup", post(set_up, api::set_up()))
        .route("/v1/auth/mfa/verify-setup", post(verify_setup, api::verify_setup()))
        .route("/v1/auth/mfa/verify", post(verify, api::verify()))
}

#[derive(Deserialize)]
struct CodeRequest {
    code: Option<Secret>,
    mfa_token: Option<Secret>,
    password: Option<Secret>,
}

async fn status(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::AccountRead, Resource::kind("user")).await?;
    let (enabled, left) = super::status(&app, &principal).await?;
    Ok(Json(json!({ "enabled": enabled, "totp_enabled": enabled, "recovery_codes_left": left })))
}

async fn set_up(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::AccountManage, Resource::kind("user")).await?;
    let setup = super::set_up(&app, &principal).await?;
    Ok(Json(json!({
        "secret": setup.secret.as_str(),
        "otpauth_uri": setup.uri.as_str(),
        "otpauth_url": setup.uri.as_str(),
    })))
}

async fn verify_setup(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<CodeRequest>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::AccountManage, Resource::kind("user")).await?;
    let code = required("code", request.code)?;
    let codes = super::confirm(&app, &principal, code.expose()).await?;
    let codes: Vec<&str> = codes.iter().map(|code: &Zeroizing<String>| code.as_str()).collect();
    Ok(Json(json!({ "enabled": true, "totp_enabled": true, "recovery_codes": codes })))
}

async fn verify(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Body(request): Body<CodeRequest>,
) -> Result<Json<Value>, Problem> {
    let (token, code) = (required("mfa_token", request.mfa_token)?, required("code", request.code)?);
    let proven = super::complete_login(&app, token.expose(), code.expose(), peer).await?;
    token_for(&app, &proven, peer).await
}

async fn turn_off(
    State(app): State<Arc<App>>,
    AuthPeer(_): AuthPeer,
    principal: Principal,
    Body(request): Body<CodeRequest>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::AccountManage, Resource::kind("user")).await?;
    let confirmation = match (request.code, request.password) {
        (Some(code), _) => Confirmation::Code(code),
        (None, Some(password)) => Confirmation::Password(password),
        (None, None) => return Err(Problem::bad_request("code or password is required")),
    };
    super::turn_off(&app, &principal, &confirmation).await?;
    Ok(StatusCode::NO_CONTENT)
}
