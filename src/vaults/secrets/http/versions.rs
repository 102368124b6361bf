//! `/v1/vaults/{vault_id}/secret-versions…`, `secret-version…`, `secret-version-disable…`, `secret-rotate…` and `secret-restore…`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{RestoreSecret, RotateSecret};
use super::{explain, path_of, raw_path, render, render_opened};
use crate::access::http::{Ids, deny, require};
use crate::access::{Action, Denial, Principal, SecretPath};
use crate::app::App;
use crate::audit::Resource;
use crate::clock::rfc3339;
use crate::http::extract::Body;
use crate::http::pages;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, post};
use crate::ids::VaultId;
use crate::vaults::http::vault;
use crate::vaults::secrets::api;
use crate::vaults::secrets::store::versions::VersionRow;
use crate::vaults::secrets::versions;

/// Versions of a page at most, and unless the request says otherwise.
const PAGE_MAX: i64 = 1_000;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/v1/vaults/{vault_id}/secret-versions/{*path}", get(list, api::versions_list()))
        .route("/v1/vaults/{vault_id}/secret-version/{*path}", get(read, api::versions_read()))
        .route("/v1/vaults/{vault_id}/secret-version-disable/{*path}", post(disable, api::versions_disable()))
        .route("/v1/vaults/{vault_id}/secret-rotate/{*path}", post(rotate, api::versions_rotate()))
        .route("/v1/vaults/{vault_id}/secret-restore/{*path}", post(restore, api::versions_restore()))
}

/// A secret's path and the version behind its last slash. That slash is never an encoded one: the version is a segment of its own.
fn path_and_version(uri: &Uri) -> Result<(SecretPath, i32), Problem> {
    let (path, version) = raw_path(uri)
        .rsplit_once('/')
        .ok_or_else(|| Problem::bad_request("the path must end with the version: …/{path}/{version}"))?;
    let path = SecretPath::from_wire(path).map_err(|error| Problem::bad_request(format!("the secret path {error}")))?;
    let digits = version.bytes().all(|b| b.is_ascii_digit()) && !version.starts_with('0');
    let version = version.parse().ok().filter(|version: &i32| digits && *version > 0);
    version
        .map(|version| (path, version))
        .ok_or_else(|| Problem::bad_request("the version must be a whole number from 1"))
}

fn render_version(row: &VersionRow) -> Value {
    let state = match (row.destroyed_at, row.disabled_at) {
        (Some(_), _) => "destroyed",
        (None, Some(_)) => "disabled",
        (None, None) => "enabled",
    };
    let mut body = json!({
        "id": row.id,
        "path": row.path,
        "type": row.kind,
        "version": row.version,
        "metadata": row.metadata,
        "state": state,
        "created_by": format!("{}:{}", row.created_by_type, row.created_by),
        "created_at": rfc3339(row.created_at),
    });
    for (name, at) in
        [("expires_at", row.expires_at), ("disabled_at", row.disabled_at), ("destroyed_at", row.destroyed_at)]
    {
        if let Some(at) = at {
            body[name] = json!(rfc3339(at));
        }
    }
    if let Some(fingerprint) = &row.cmek_fingerprint {
        body["cmek_encrypted"] = json!(true);
        body["cmek_fingerprint"] = json!(fingerprint);
    }
    body
}

#[derive(Deserialize)]
struct ListParams {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Newest first, without values.
async fn list(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((vault_id, _)): Ids<(VaultId, String)>,
    uri: Uri,
    params: Result<Query<ListParams>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let path = path_of(&uri)?;
    let Query(params) = params.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = match params.limit {
        Some(limit) if limit < 1 => return Err(Problem::bad_request("limit must be at least 1")),
        limit => limit.unwrap_or(PAGE_MAX).min(PAGE_MAX),
    };
    let before = match params.cursor.filter(|cursor| !cursor.is_empty()) {
        None => None,
        Some(cursor) => Some(cursor.parse::<i32>().map_err(|_| Problem::bad_request("cursor is not one of ours"))?),
    };
    let vault = vault(&app, &principal, vault_id).await?;
    let mut rows = match versions::list(&app, &principal, &vault, &path, before, limit + 1).await {
        Ok(rows) => rows,
        Err(error) => return Err(explain(&app, &principal, vault_id, &path, "secret.version_list", error).await),
    };
    let more = pages::cut(&mut rows, limit);
    let mut body = json!({ "versions": rows.iter().map(render_version).collect::<Vec<_>>() });
    if let Some(last) = rows.last().filter(|_| more) {
        body["next_cursor"] = json!(last.version.to_string());
    }
    Ok(Json(body))
}

async fn read(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((vault_id, _)): Ids<(VaultId, String)>,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let (path, version) = path_and_version(&uri)?;
    let vault = vault(&app, &principal, vault_id).await?;
    match versions::read(&app, &principal, &vault, &path, version).await {
        Ok(opened) => Ok(Json(render_opened(&opened))),
        Err(error) => Err(explain(&app, &principal, vault_id, &path, "secret.read", error).await),
    }
}

async fn disable(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((vault_id, _)): Ids<(VaultId, String)>,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let (path, version) = path_and_version(&uri)?;
    let vault = vault(&app, &principal, vault_id).await?;
    match versions::disable(&app, &principal, &vault, &path, version).await {
        Ok(row) => Ok(Json(render_version(&row))),
        Err(error) => Err(explain(&app, &principal, vault_id, &path, "secret.version_disable", error).await),
    }
}

/// The reply never has the value.
async fn rotate(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((vault_id, _)): Ids<(VaultId, String)>,
    uri: Uri,
    Body(request): Body<RotateSecret>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let path = path_of(&uri)?;
    let vault = vault(&app, &principal, vault_id).await?;
    let rotation = request.rotation()?;
    match versions::rotate(&app, &principal, &vault, &path, rotation).await {
        Ok(stored) => Ok((StatusCode::CREATED, Json(render(&stored)))),
        Err(error) => Err(explain(&app, &principal, vault_id, &path, "secret.rotate", error).await),
    }
}

async fn restore(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((vault_id, _)): Ids<(VaultId, String)>,
    uri: Uri,
    Body(request): Body<RestoreSecret>,
) -> Result<Json<Value>, Problem> {
    let path = path_of(&uri)?;
    let vault = vault(&app, &principal, vault_id).await?;
    let resource = Resource::new("secret", format!("{vault_id}/{path}"));
    require(&app, &principal, Action::SecretRestore, resource.clone()).await?;
    if vault.is_reserved() {
        return Err(deny(&app, &principal, "secret.restore", resource, Denial::Reserved).await?);
    }
    let reactivate = request.reactivate_signing_key == Some(true);
    match versions::restore(&app, &principal, &vault, &path, reactivate).await {
        Ok(stored) => Ok(Json(render(&stored))),
        Err(error) => Err(explain(&app, &principal, vault_id, &path, "secret.restore", error).await),
    }
}
