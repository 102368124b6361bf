//! `/v1/auth/device…`. Refusals to the program are those of RFC 8628 §3.5, with the members of a problem beside `error`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api;
use super::{INTERVAL_S, LIFETIME_S, Told};
use crate::access::http::{AuthPeer, Ids, issue_to_human, require};
use crate::access::{Action, Principal, jwt};
use crate::app::App;
use crate::audit::Resource;
use crate::config::Secret;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, post};
use crate::users::http::required;

/// The only grant of this route (RFC 8628 §3.4).
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/auth/device/code", post(code, api::code()))
        .route("/v1/auth/device/code/{user_code}", get(status, api::status()))
        .route("/v1/auth/device/token", post(token, api::token()))
        .route("/v1/auth/device/approve", post(approve, api::approve()))
        .route("/v1/auth/device/deny", post(deny, api::deny()))
}

#[derive(Deserialize)]
struct CodeRequest {
    client_id: Option<String>,
    email: Option<String>,
}

async fn code(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Body(request): Body<CodeRequest>,
) -> Result<Json<Value>, Problem> {
    let client_id = required("client_id", request.client_id)?;
    let email = request.email.filter(|email| !email.trim().is_empty());
    let codes = super::begin(&app, &client_id, email.as_deref(), peer).await?;
    let page = format!("{}/device", app.public_url());
    Ok(Json(json!({
        "device_code": codes.device.reveal(),
        "user_code": codes.user.shown(),
        "verification_uri": page,
        "verification_uri_complete": format!("{page}#{}", codes.user.shown()),
        "expires_in": LIFETIME_S,
        "interval": INTERVAL_S,
    })))
}

async fn status(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(code): Ids<String>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::DeviceApprove, Resource::kind("device")).await?;
    let grant = super::look(&app, &principal, &code).await?;
    Ok(Json(json!({ "status": grant.state, "client_id": grant.client_id, "expires_in": grant.expires_in_s })))
}

#[derive(Deserialize)]
struct AnswerRequest {
    user_code: Option<Secret>,
}

async fn approve(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<AnswerRequest>,
) -> Result<Json<Value>, Problem> {
    answer(&app, &principal, request, true).await
}

async fn deny(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<AnswerRequest>,
) -> Result<Json<Value>, Problem> {
    answer(&app, &principal, request, false).await
}

async fn answer(app: &App, principal: &Principal, request: AnswerRequest, yes: bool) -> Result<Json<Value>, Problem> {
    require(app, principal, Action::DeviceApprove, Resource::kind("device")).await?;
    let code = required("user_code", request.user_code)?;
    super::answer(app, principal, code.expose(), yes).await?;
    Ok(Json(json!({ "status": if yes { "approved" } else { "denied" } })))
}

#[derive(Deserialize)]
struct TokenRequest {
    device_code: Option<Secret>,
    grant_type: Option<String>,
}

async fn token(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Body(request): Body<TokenRequest>,
) -> Result<Json<Value>, Problem> {
    if request.grant_type.is_some_and(|grant| grant != GRANT_TYPE) {
        return Err(refusal("unsupported_grant_type", format!("grant_type must be {GRANT_TYPE}")));
    }
    let Some(code) = request.device_code else {
        return Err(refusal("invalid_request", "device_code is required".to_owned()));
    };
    let ended = "what the device was let in with has ended: begin anew";
    match super::poll(&app, code.expose()).await? {
        Told::Token(org_id, user_id, root) => {
            let token = issue_to_human(&app, (org_id, user_id), root, jwt::DEVICE_TTL_S, peer).await?;
            let token = token.ok_or_else(|| refusal("access_denied", ended.to_owned()))?;
            Ok(Json(json!({ "access_token": token, "token_type": "Bearer", "expires_in": jwt::DEVICE_TTL_S })))
        }
        Told::Pending => Err(refusal("authorization_pending", "nobody has answered yet: ask again later".to_owned())),
        Told::SlowDown(seconds) => {
            let detail = format!("too often: wait {seconds} s between two questions");
            Err(refusal("slow_down", detail)
                .with("interval", json!(seconds))
                .retry_after(u64::from(seconds.unsigned_abs())))
        }
        Told::Denied => Err(refusal("access_denied", "the human said no".to_owned())),
        Told::Expired => Err(refusal(
            "expired_token",
            "the device code is unknown, was used already, or has ended: begin anew".to_owned(),
        )),
    }
}

fn refusal(error: &str, detail: String) -> Problem {
    Problem::bad_request(detail).with("error", json!(error))
}
