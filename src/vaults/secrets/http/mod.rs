//! `/v1/vaults/{vault_id}/secrets…`, and what there is for single versions.

mod body;
mod versions;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use self::body::PutSecret;
use super::api;
use super::rules::{self, Refusal};
use super::store::Stored;
use super::store::list::Filter;
use super::{Opened, SecretError};
use crate::access::http::{Ids, deny};
use crate::access::{AccessError, Principal, SecretPath};
use crate::app::App;
use crate::audit::Resource;
use crate::clock::rfc3339;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, put};
use crate::ids::VaultId;
use crate::vaults::http::vault;

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/vaults/{vault_id}/secrets", get(list, api::list()))
        .route(
            "/v1/vaults/{vault_id}/secrets/{*path}",
            put(write, api::write()).get(read, api::read()).delete(remove, api::remove()),
        )
        .merge(versions::routes())
}

/// What stands behind `/v1/vaults/{vault_id}/secrets/` and its like, undecoded.
fn raw_path(uri: &Uri) -> &str {
    // "", "v1", "vaults", "{vault_id}", "secrets", the rest
    uri.path().splitn(6, '/').nth(5).unwrap_or_default()
}

/// The secret's path as it stands in the URL, still encoded: it is decoded exactly once, by [`SecretPath::from_wire`].
fn path_of(uri: &Uri) -> Result<SecretPath, Problem> {
    SecretPath::from_wire(raw_path(uri)).map_err(|error| Problem::bad_request(format!("the secret path {error}")))
}

fn render(secret: &Stored) -> Value {
    let mut body = json!({
        "id": secret.id,
        "path": secret.path,
        "type": secret.kind,
        "version": secret.version,
        "metadata": secret.metadata,
        "created_at": rfc3339(secret.stored_at),
    });
    if let Some(at) = secret.expires_at {
        body["expires_at"] = json!(rfc3339(at));
    }
    body
}

fn render_opened(Opened { current, value }: &Opened) -> Value {
    let mut body = json!({
        "id": current.id,
        "path": current.path,
        "type": current.kind,
        "value": value.as_str(),
        "version": current.version,
        "metadata": current.metadata,
        "created_by": format!("{}:{}", current.stored_by.kind(), current.stored_by.uuid()),
        "created_at": rfc3339(current.stored_at),
    });
    let optional = [
        ("expires_at", current.expires_at.map(|at| rfc3339(at).into())),
        ("cmek_encrypted", current.cmek.then_some(Value::Bool(true))),
        ("rotation_policy", current.rotation_policy.clone()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    body
}

/// A refusal by a rule is written down before it is answered.
async fn explain(
    app: &App,
    principal: &Principal,
    vault_id: VaultId,
    path: &SecretPath,
    asked: &'static str,
    error: SecretError,
) -> Problem {
    let resource = Resource::new("secret", format!("{vault_id}/{path}"));
    match &error {
        SecretError::Access(AccessError::Denied(denial)) => {
            deny(app, principal, asked, resource, denial).await.unwrap_or_else(|problem| problem)
        }
        SecretError::Refused(refusal) => match deny(app, principal, asked, resource, refusal).await {
            Ok(_) => error.into(),
            Err(problem) => problem,
        },
        SecretError::Limit(reached) => match deny(app, principal, asked, resource, reached).await {
            Ok(_) => error.into(),
            Err(problem) => problem,
        },
        _ => error.into(),
    }
}

async fn write(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((vault_id, _)): Ids<(VaultId, String)>,
    uri: Uri,
    Body(request): Body<PutSecret>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let path = path_of(&uri)?;
    let vault = vault(&app, &principal, vault_id).await?;
    let new = request.secret()?;
    match super::put(&app, &principal, &vault, &path, &new).await {
        Ok(stored) => Ok((StatusCode::CREATED, Json(render(&stored)))),
        Err(error) => Err(explain(&app, &principal, vault_id, &path, "secret.write", error).await),
    }
}

async fn read(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((vault_id, _)): Ids<(VaultId, String)>,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let path = path_of(&uri)?;
    let vault = vault(&app, &principal, vault_id).await?;
    match super::read(&app, &principal, &vault, &path).await {
        Ok(opened) => Ok(Json(render_opened(&opened))),
        Err(error) => Err(explain(&app, &principal, vault_id, &path, "secret.read", error).await),
    }
}

async fn remove(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((vault_id, _)): Ids<(VaultId, String)>,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    let path = path_of(&uri)?;
    let vault = vault(&app, &principal, vault_id).await?;
    match super::delete(&app, &principal, &vault, &path).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(explain(&app, &principal, vault_id, &path, "secret.delete", error).await),
    }
}

/// Secrets of a page at most, and of a reply to a request that asks for no page.
const PAGE_MAX: usize = 1_000;
const WHOLE_MAX: usize = 5_000;

#[derive(Deserialize)]
struct ListParams {
    prefix: Option<String>,
    expiring_within: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

impl ListParams {
    fn filter(&self) -> Result<Filter, Problem> {
        let prefix = self.prefix.clone().unwrap_or_default();
        if prefix.contains('\0') {
            return Err(Problem::bad_request("prefix: no path has a NUL character"));
        }
        let expiring_by = match self.expiring_within.as_deref().filter(|within| !within.is_empty()) {
            None => None,
            Some(within) => Some(
                crate::clock::now()
                    + rules::within(within).ok_or_else(|| {
                        Problem::bad_request(
                            "expiring_within must be seconds, or a whole number with s, m, h, d or w, such as 7d",
                        )
                    })?,
            ),
        };
        Ok(Filter { prefix, expiring_by })
    }

    fn after(&self) -> Result<Option<SecretPath>, Problem> {
        let Some(cursor) = self.cursor.as_deref().filter(|cursor| !cursor.is_empty()) else { return Ok(None) };
        let path = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let path = path.and_then(|path| SecretPath::parse(&path).ok());
        path.map(Some).ok_or_else(|| Problem::bad_request("cursor is not one of ours"))
    }

    fn limit(&self) -> Result<usize, Problem> {
        match self.limit {
            None => Ok(WHOLE_MAX),
            Some(0) => Err(Problem::bad_request("limit must be at least 1")),
            Some(limit) => Ok(usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX)),
        }
    }
}

/// Only what the caller may read; never values. `next_cursor` only when there is more: clients that know no pages get all of it, up to
/// a bound.
async fn list(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(vault_id): Ids<VaultId>,
    params: Result<Query<ListParams>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(params) = params.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let (filter, after, limit) = (params.filter()?, params.after()?, params.limit()?);
    let vault = vault(&app, &principal, vault_id).await?;
    let page = super::list::list(&app, &principal, &vault, &filter, after, limit).await?;
    let mut body = json!({ "secrets": page.secrets.iter().map(render).collect::<Vec<_>>() });
    if let Some(next) = page.next {
        body["next_cursor"] = json!(URL_SAFE_NO_PAD.encode(next.as_str()));
    }
    Ok(Json(body))
}

impl From<SecretError> for Problem {
    fn from(error: SecretError) -> Self {
        let text = error.to_string();
        match error {
            SecretError::Access(error) => error.into(),
            SecretError::Refused(refusal) => refusal.into(),
            SecretError::Limit(reached) => reached.into(),
            SecretError::NotFound | SecretError::NoVault | SecretError::NoVersion => Self::not_found(text),
            SecretError::Deleted
            | SecretError::Expired
            | SecretError::Exhausted
            | SecretError::Disabled
            | SecretError::Destroyed => Self::new(StatusCode::GONE, text),
            SecretError::NotDeleted | SecretError::NoKeyToReactivate => Self::new(StatusCode::CONFLICT, text),
            SecretError::RandomKey | SecretError::RotatesExpired => Self::bad_request(text),
            SecretError::ClientEncrypted => Self::unprocessable(text),
            SecretError::Contended => Self::unavailable(text, 1),
            SecretError::NotText => Self::internal(&error),
            SecretError::IsKey => Self::unprocessable(text),
            SecretError::Hsm(error) => error.into(),
            SecretError::Db(error) => error.into(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::KeyRead | Refusal::KeyReplace | Refusal::Exportable => Self::forbidden(text),
            Refusal::KeyHeldInHsm(_) => Self::forbidden(text).of_type("key_held_in_hsm"),
            Refusal::KeyLength => Self::bad_request(text),
            Refusal::KeyRange => Self::unprocessable(text),
        }
    }
}
