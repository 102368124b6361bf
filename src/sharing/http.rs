//! `/v1/secrets/{secret_id}/share`, `/v1/shares…` and, public, `GET /v1/share/{share_id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest as _, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::api;
use super::rules::{Closed, ShareRequest};
use super::store::{self, After, Listed};
use super::{Refusal, ShareError, Visitor};
use crate::access::http::{Ids, authenticate, deny, require};
use crate::access::{AccessError, Action, Principal};
use crate::app::App;
use crate::audit::Resource;
use crate::clock::rfc3339;
use crate::http::extract::{Body, Peer};
use crate::http::limits::too_many;
use crate::http::pages;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, post};
use crate::ids::{SecretId, ShareId};
use crate::vaults::secrets::SecretError;

/// Shares of a page unless the request says otherwise, and at most.
const PAGE: i64 = 100;
const PAGE_MAX: i64 = 200;

/// Largest body of the public route: a passphrase.
const OPEN_BYTES_MAX: usize = 8 * 1024;

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/secrets/{secret_id}/share", post(create, api::create()))
        .route("/v1/share/{share_id}", get(open, api::open()).delete(revoke, api::revoke()))
        .route("/v1/shares/outbound", get(outbound, api::outbound()))
        .route("/v1/shares/inbound", get(inbound, api::inbound()))
        .route("/v1/shares/{share_id}/accept", post(accept, api::accept()))
        .route("/v1/shares/{share_id}/decline", post(decline, api::decline()))
}

/// 0 is the contract's word for "no limit".
fn count_of(max_access_count: Option<i32>) -> i32 {
    max_access_count.unwrap_or(0)
}

async fn create(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(secret_id): Ids<SecretId>,
    Body(request): Body<ShareRequest>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let new = request.share(crate::clock::now())?;
    let share = match super::create(&app, &principal, secret_id, new).await {
        Ok(share) => share,
        Err(error) => return Err(explain(&app, &principal, "share.create", secret_id, error).await),
    };
    let mut body = json!({
        "id": share.id,
        "share_url": format!("{}/v1/share/{}", app.public_url(), share.id),
        "recipient_type": share.recipient_type,
        "expires_at": rfc3339(share.expires_at),
        "max_access_count": count_of(share.max_access_count),
    });
    if let Some(email) = &share.recipient_email {
        body["recipient_email"] = json!(email);
    }
    Ok((StatusCode::CREATED, Json(body)))
}

/// A refusal by a rule is written down before it is answered.
async fn explain(app: &App, principal: &Principal, asked: &'static str, id: SecretId, error: ShareError) -> Problem {
    let rule = match &error {
        ShareError::Refused(refusal) => refusal.to_string(),
        ShareError::Secret(SecretError::Access(AccessError::Denied(denial))) => denial.to_string(),
        ShareError::Secret(SecretError::Refused(refusal)) => refusal.to_string(),
        _ => return error.into(),
    };
    match deny(app, principal, asked, Resource::new("secret", id), rule).await {
        Ok(_) => error.into(),
        Err(problem) => problem,
    }
}

/// `passphrase` is a [`Value`], so that an error about its type does not repeat it.
#[derive(Deserialize)]
struct OpenRequest {
    passphrase: Option<Value>,
}

/// Public. A credential is looked at where the share names its recipient, or there is no such share: so neither a credential that does
/// not hold nor none at all tells the two apart. The passphrase comes in the body; a query would end up in the logs of proxies.
async fn open(
    State(app): State<Arc<App>>,
    Peer(ip): Peer,
    id: Result<Ids<ShareId>, Problem>,
    request: Request,
) -> Result<Response, Problem> {
    app.limits.check_peer(ip)?;
    let Ids(id) = id?;
    let (mut parts, body) = request.into_parts();
    let share = super::find(&app, id).await?;
    let anybodys = share.as_ref().is_some_and(|share| share.recipient.is_none());
    let principal = if !anybodys && parts.headers.contains_key(header::AUTHORIZATION) {
        Some(authenticate(&app, &mut parts).await?)
    } else {
        None
    };
    let share = share.ok_or(ShareError::NotFound)?;
    if let Some(principal) = &principal {
        parts.extensions.insert(principal.clone());
    }
    let request = Request::from_parts(parts, body);
    let Body(request) = Body::<OpenRequest, OPEN_BYTES_MAX>::from_request(request, &app).await?;
    let passphrase = match request.passphrase {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(Zeroizing::new(text)),
        Some(_) => return Err(Problem::bad_request("passphrase must be a string")),
    };
    let opened = super::open(&app, share, Visitor { principal: principal.as_ref(), ip }, passphrase).await?;
    let body = json!({
        "id": opened.share.id,
        "path": opened.path.as_str(),
        "type": opened.kind,
        "value": opened.value.as_str(),
        "access_count": opened.access_count,
        "max_access_count": count_of(opened.share.max_access_count),
    });
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn revoke(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<ShareId>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::ShareManage, Resource::kind("share")).await?;
    match super::revoke(&app, &principal, id).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(ShareError::Refused(refusal)) => {
            Err(deny(&app, &principal, "share.revoke", Resource::kind("share"), refusal).await?)
        }
        Err(error) => Err(error.into()),
    }
}

async fn accept(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<ShareId>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::ShareManage, Resource::kind("share")).await?;
    super::answer(&app, &principal, id, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn decline(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<ShareId>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::ShareManage, Resource::kind("share")).await?;
    super::answer(&app, &principal, id, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct PageParams {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Which page is asked for.
fn page(params: Result<Query<PageParams>, QueryRejection>) -> Result<(Option<After>, i64), Problem> {
    let Query(params) = params.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = params.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!("limit must be from 1 to {PAGE_MAX}")));
    }
    let after = params.cursor.as_deref().map(|cursor| {
        pages::read_cursor(cursor).ok_or_else(|| Problem::bad_request("cursor must be a next_cursor of this list"))
    });
    Ok((after.transpose()?, limit))
}

fn render(mut shares: Vec<Listed>, limit: i64) -> Json<Value> {
    let more = pages::cut(&mut shares, limit);
    let render_one = |share: &Listed| {
        let mut body = json!({
            "id": share.id,
            "secret_path": share.secret_path,
            "recipient_type": share.recipient_type,
            "access_count": share.access_count,
            "max_access_count": count_of(share.max_access_count),
            "expires_at": rfc3339(share.expires_at),
            "created_at": rfc3339(share.created_at),
            "is_expired": share.is_expired,
            "is_accepted": share.is_accepted,
        });
        if let Some(email) = &share.recipient_email {
            body["recipient_email"] = json!(email);
        }
        body
    };
    let mut body = json!({ "shares": shares.iter().map(render_one).collect::<Vec<_>>() });
    if let Some(last) = shares.last().filter(|_| more) {
        body["next_cursor"] = json!(pages::cursor(last.created_at, last.id));
    }
    Json(body)
}

/// Newest first. `limit` (default 100, at most 200) and `cursor` (from `next_cursor`) page through all of them.
async fn outbound(
    State(app): State<Arc<App>>,
    principal: Principal,
    params: Result<Query<PageParams>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::ShareManage, Resource::kind("share")).await?;
    let (after, limit) = page(params)?;
    let mut conn = app.db.acquire().await?;
    Ok(render(store::outbound(&mut conn, &principal, after, limit + 1).await?, limit))
}

/// As [`outbound`].
async fn inbound(
    State(app): State<Arc<App>>,
    principal: Principal,
    params: Result<Query<PageParams>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::ShareManage, Resource::kind("share")).await?;
    let (after, limit) = page(params)?;
    let mut conn = app.db.acquire().await?;
    Ok(render(store::inbound(&mut conn, &principal, after, limit + 1).await?, limit))
}

impl From<ShareError> for Problem {
    fn from(error: ShareError) -> Self {
        let text = error.to_string();
        match error {
            ShareError::NotFound => Self::not_found(text),
            ShareError::Closed(Closed::Expired | Closed::Exhausted) | ShareError::Gone | ShareError::Declined => {
                Self::new(StatusCode::GONE, text)
            }
            ShareError::Refused(
                Refusal::AgentMail
                | Refusal::AgentsKey
                | Refusal::NotYours
                | Refusal::Network
                | Refusal::Passphrase
                | Refusal::Lender
                | Refusal::Recipient
                | Refusal::Key,
            ) => Self::forbidden(text),
            ShareError::NoRecipient(_) => Self::bad_request(text),
            ShareError::TooMany { what, wait } => too_many(what, wait),
            ShareError::Busy => Self::unavailable(text, 1),
            ShareError::Secret(error) => error.into(),
            ShareError::Hsm(error) => error.into(),
            ShareError::Db(error) => error.into(),
        }
    }
}
