//! `/v1/auth/api-keys…`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Wanted;
use super::api;
use super::store::Key;
use crate::access::http::{Ids, require};
use crate::access::{Action, Principal};
use crate::agents::request::time_of;
use crate::app::App;
use crate::audit::Resource;
use crate::clock::rfc3339;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, delete, post};
use crate::ids::ApiKeyId;
use crate::users::http::required;

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/auth/api-keys", post(create, api::create()).get(list, api::list()))
        .route("/v1/auth/api-keys/{key_id}", delete(revoke, api::revoke()))
}

fn render(key: &Key) -> Value {
    let mut body = json!({
        "id": key.id,
        "name": key.name,
        "key_prefix": key.key_prefix,
        "scopes": key.scopes,
        "is_active": key.is_active,
        "created_at": rfc3339(key.created_at),
    });
    for (name, at) in [("expires_at", key.expires_at), ("last_used_at", key.last_used_at)] {
        if let Some(at) = at {
            body[name] = json!(rfc3339(at));
        }
    }
    body
}

#[derive(Deserialize)]
struct CreateKey {
    name: Option<String>,
    scopes: Option<Vec<String>>,
    expires_at: Option<String>,
}

async fn create(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<CreateKey>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    require(&app, &principal, Action::ApiKeyManage, Resource::kind("api_key")).await?;
    let wanted = Wanted {
        name: required("name", request.name)?,
        scopes: request.scopes.unwrap_or_default(),
        expires_at: request.expires_at.map(|at| time_of("expires_at", &at)).transpose()?,
    };
    let (key, plain) = super::create(&app, &principal, wanted).await?;
    Ok((StatusCode::CREATED, Json(json!({ "key": render(&key), "api_key": plain.reveal() }))))
}

async fn list(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::ApiKeyManage, Resource::kind("api_key")).await?;
    let keys = super::list(&app, &principal).await?;
    Ok(Json(json!({ "keys": keys.iter().map(render).collect::<Vec<_>>() })))
}

async fn revoke(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<ApiKeyId>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::ApiKeyManage, Resource::new("api_key", id)).await?;
    super::revoke(&app, &principal, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
