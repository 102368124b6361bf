//! `/v1/vaults/{vault_id}/secrets…`

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::rules::{Refusal, SecretType};
use super::store::Stored;
use super::{NewSecret, Opened, SecretError};
use crate::access::http::{Ids, deny};
use crate::access::{self, AccessError, Lock, Permission, Principal, SecretPath, input};
use crate::agents::request::time_of;
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
        .route("/v1/vaults/{vault_id}/secrets", get(list))
        .route("/v1/vaults/{vault_id}/secrets/{*path}", put(write).get(read).delete(remove))
}

/// The secret's path as it stands in the URL, still encoded: it is decoded exactly once, by [`SecretPath::from_wire`].
fn path_of(uri: &Uri) -> Result<SecretPath, Problem> {
    // "", "v1", "vaults", "{vault_id}", "secrets", the rest
    let raw = uri.path().splitn(6, '/').nth(5).unwrap_or_default();
    SecretPath::from_wire(raw).map_err(|error| Problem::bad_request(format!("the secret path {error}")))
}

/// `value` is a [`Value`], so that an error about its type does not repeat it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PutSecret {
    value: Option<Value>,
    r#type: Option<String>,
    metadata: Option<Value>,
    rotation_policy: Option<Value>,
    expires_at: Option<String>,
    max_access_count: Option<i64>,
}

impl PutSecret {
    fn secret(self) -> Result<NewSecret, Problem> {
        let Some(Value::String(value)) = self.value else {
            return Err(Problem::bad_request("value is required and must be a string"));
        };
        let value = Zeroizing::new(value);
        let kind = SecretType::parse(self.r#type.as_deref().unwrap_or("generic")).ok_or_else(|| {
            Problem::bad_request(
                "type must be generic, api_key, password, private_key, certificate, file, note, ssh_key, env_bundle or env",
            )
        })?;
        let max_access_count = match self.max_access_count {
            None | Some(0) => None,
            Some(count) => Some(
                i32::try_from(count)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or_else(|| Problem::bad_request("max_access_count must be a whole number, 0 for no limit"))?,
            ),
        };
        Ok(NewSecret {
            kind,
            value,
            metadata: input::object("metadata", self.metadata)?.unwrap_or_else(|| json!({})),
            rotation_policy: input::object("rotation_policy", self.rotation_policy)?,
            expires_at: self.expires_at.map(|at| time_of("expires_at", &at)).transpose()?,
            max_access_count,
        })
    }
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
    if let Some(at) = current.expires_at {
        body["expires_at"] = json!(rfc3339(at));
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

#[derive(Deserialize)]
struct ListParams {
    prefix: Option<String>,
}

/// Only what the caller may read; never values.
async fn list(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(vault_id): Ids<VaultId>,
    params: Result<Query<ListParams>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(ListParams { prefix }) = params.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let prefix = prefix.unwrap_or_default();
    if prefix.contains('\0') {
        return Err(Problem::bad_request("prefix: no path has a NUL character"));
    }
    let vault = vault(&app, &principal, vault_id).await?;
    let mut conn = app.db.acquire().await?;
    let grants = access::store::grants(&mut conn, &principal, &vault, Lock::None).await?;
    let secrets = super::store::list(&mut conn, principal.org_id, vault_id, &prefix).await?;
    let readable = |secret: &&Stored| {
        SecretPath::parse(&secret.path).is_ok_and(|path| grants.check(&path, Permission::Read).is_ok())
    };
    let secrets: Vec<Value> = secrets.iter().filter(readable).map(render).collect();
    Ok(Json(json!({ "secrets": secrets })))
}

impl From<SecretError> for Problem {
    fn from(error: SecretError) -> Self {
        let text = error.to_string();
        match error {
            SecretError::Access(error) => error.into(),
            SecretError::Refused(refusal) => refusal.into(),
            SecretError::NotFound | SecretError::NoVault => Self::not_found(text),
            SecretError::Deleted | SecretError::Expired | SecretError::Exhausted => Self::new(StatusCode::GONE, text),
            SecretError::Contended => Self::unavailable(text, 1),
            SecretError::NotText => Self::internal(&error),
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
