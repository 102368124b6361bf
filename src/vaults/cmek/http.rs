//! `/v1/vaults/{vault_id}/cmek…`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::CmekError;
use super::api;
use super::rules::{self, ClientKey, InputError};
use super::store::Rotation;
use crate::access::http::{Ids, require};
use crate::access::{Action, Principal};
use crate::app::App;
use crate::audit::Resource;
use crate::clock::rfc3339;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, post};
use crate::ids::{CmekRotationId, VaultId};
use crate::vaults::http::{render, vault};

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/vaults/{vault_id}/cmek", post(enable, api::enable()).delete(disable, api::disable()))
        .route("/v1/vaults/{vault_id}/cmek-rotate", post(rotate, api::rotate()))
        .route("/v1/vaults/{vault_id}/cmek-rotate/{rotation_id}", get(status, api::status()))
}

/// The vault is of the principal's organisation, and the principal manages that.
async fn admit(app: &App, principal: &Principal, id: VaultId) -> Result<(), Problem> {
    let vault = vault(app, principal, id).await?;
    require(app, principal, Action::CmekManage, Resource::new("vault", id)).await?;
    if vault.is_reserved() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "the keys in this vault are the daemon's own: no client encrypts them",
        ));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Enable {
    fingerprint: Option<String>,
}

async fn enable(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<VaultId>,
    Body(request): Body<Enable>,
) -> Result<Json<Value>, Problem> {
    admit(&app, &principal, id).await?;
    let fingerprint = rules::fingerprint("fingerprint", request.fingerprint.as_deref().unwrap_or_default())
        .map_err(CmekError::from)?;
    Ok(Json(render(&super::enable(&app, &principal, id, &fingerprint).await?)))
}

async fn disable(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<VaultId>,
) -> Result<Json<Value>, Problem> {
    admit(&app, &principal, id).await?;
    Ok(Json(render(&super::disable(&app, &principal, id).await?)))
}

#[derive(Deserialize)]
struct Rotate {
    new_fingerprint: Option<String>,
}

/// The keys are in headers, which no log line of ours has.
async fn rotate(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<VaultId>,
    headers: HeaderMap,
    Body(request): Body<Rotate>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    admit(&app, &principal, id).await?;
    let key = |name: &'static str| {
        let value = headers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
        ClientKey::parse(name, value).map_err(CmekError::from)
    };
    let (old, new) = (key("x-cmek-old-key")?, key("x-cmek-new-key")?);
    let said = rules::fingerprint("new_fingerprint", request.new_fingerprint.as_deref().unwrap_or_default())
        .map_err(CmekError::from)?;
    if !new.is(&said) {
        return Err(CmekError::from(InputError::NewKey).into());
    }
    let rotation = super::rotate(&app, &principal, id, old, new).await?;
    Ok((StatusCode::ACCEPTED, Json(render_rotation(&rotation))))
}

async fn status(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((vault_id, id)): Ids<(VaultId, CmekRotationId)>,
) -> Result<Json<Value>, Problem> {
    admit(&app, &principal, vault_id).await?;
    Ok(Json(render_rotation(&super::rotation(&app, &principal, vault_id, id).await?)))
}

fn render_rotation(rotation: &Rotation) -> Value {
    let mut body = json!({
        "id": rotation.id,
        "vault_id": rotation.vault_id,
        "old_fingerprint": rotation.old_fingerprint,
        "new_fingerprint": rotation.new_fingerprint,
        "status": rotation.state,
        "total_secrets": rotation.total.max(rotation.processed),
        "processed": rotation.processed,
        "created_at": rfc3339(rotation.created_at),
    });
    let optional = [
        ("error", rotation.error.clone()),
        ("started_at", rotation.started_at.map(rfc3339)),
        ("completed_at", rotation.completed_at.map(rfc3339)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    body
}

impl From<CmekError> for Problem {
    fn from(error: CmekError) -> Self {
        let text = error.to_string();
        match error {
            CmekError::NotFound(_) => Self::not_found(text),
            CmekError::Input(_) => Self::bad_request(text),
            CmekError::Off | CmekError::OtherKey => Self::new(StatusCode::CONFLICT, text),
            CmekError::Running => Self::new(StatusCode::CONFLICT, text).retry_after(1),
            CmekError::Db(error) => error.into(),
        }
    }
}
