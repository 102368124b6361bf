//! `/v1/vaults…`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Vault, policies, secrets, store};
use crate::access::http::{Ids, deny};
use crate::access::{self, Lock, Principal, input};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::clock::rfc3339;
use crate::db::DbError;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, post};
use crate::ids::VaultId;

/// The routes of vaults, secrets and policies.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/vaults", post(create).get(list))
        .route("/v1/vaults/{vault_id}", get(read).delete(remove))
        .merge(secrets::http::routes())
        .merge(policies::http::routes())
}

/// The reply for a vault that is not there, or another organisation's.
pub(super) fn not_found() -> Problem {
    Problem::not_found("no such vault")
}

/// A vault of the principal's organisation.
///
/// # Errors
/// 404.
pub(super) async fn vault(app: &App, principal: &Principal, id: VaultId) -> Result<Vault, Problem> {
    let mut conn = app.db.acquire().await?;
    store::get(&mut conn, principal.org_id, id).await?.ok_or_else(not_found)
}

fn render(vault: &Vault) -> Value {
    let mut body = json!({
        "id": vault.id,
        "name": vault.name,
        "created_by": vault.created_by.uuid(),
        "created_by_type": vault.created_by.kind(),
        "created_at": rfc3339(vault.created_at),
    });
    if let Some(description) = &vault.description {
        body["description"] = json!(description);
    }
    body
}

#[derive(Deserialize)]
struct CreateVault {
    name: Option<String>,
    description: Option<String>,
}

async fn create(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<CreateVault>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let name = request.name.ok_or_else(|| Problem::bad_request("name is required"))?;
    let vault = Vault {
        id: VaultId::random(),
        org_id: principal.org_id,
        name: input::name("name", &name)?,
        description: input::description(request.description)?,
        created_by: principal.actor,
        created_at: crate::clock::now(),
    };
    let mut tx = app.db.begin().await?;
    store::insert(&mut tx, &vault).await.map_err(|error| match error {
        DbError::Duplicate(_) => Problem::new(StatusCode::CONFLICT, "there is a vault of this name already"),
        error => error.into(),
    })?;
    let event =
        Event::by(&principal, "vault.create", Resource::new("vault", vault.id)).with("name", vault.name.as_str());
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(render(&vault))))
}

async fn list(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    let mut conn = app.db.acquire().await?;
    let vaults = store::list(&mut conn, &principal).await?;
    Ok(Json(json!({ "vaults": vaults.iter().map(render).collect::<Vec<_>>() })))
}

async fn read(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<VaultId>,
) -> Result<Json<Value>, Problem> {
    let vault = vault(&app, &principal, id).await?;
    let mut conn = app.db.acquire().await?;
    let grants = access::store::grants(&mut conn, &principal, &vault, Lock::None).await?;
    drop(conn);
    if principal.user_id().is_some() || grants.sees_vault() {
        return Ok(Json(render(&vault)));
    }
    Err(deny(&app, &principal, "vault.read", Resource::new("vault", id), "Insufficient permissions on this vault")
        .await?)
}

async fn remove(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<VaultId>,
) -> Result<StatusCode, Problem> {
    let vault = vault(&app, &principal, id).await?;
    require_manager(&app, &principal, &vault, "vault.delete").await?;
    let mut tx = app.db.begin().await?;
    if !store::delete(&mut tx, principal.org_id, id).await? {
        return Err(not_found());
    }
    let event = Event::by(&principal, "vault.delete", Resource::new("vault", id)).with("name", vault.name.as_str());
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Vaults and their policies are managed by who made the vault, and by the organisation's owners and admins.
///
/// # Errors
/// 403, recorded.
pub(super) async fn require_manager(
    app: &App,
    principal: &Principal,
    vault: &Vault,
    asked: &'static str,
) -> Result<(), Problem> {
    let mut conn = app.db.acquire().await?;
    let grants = access::store::grants(&mut conn, principal, vault, Lock::None).await?;
    drop(conn);
    if grants.manages_vault() {
        return Ok(());
    }
    let reason =
        "Insufficient permissions: only who made the vault, or an owner or admin of the organisation, may do this";
    Err(deny(app, principal, asked, Resource::new("vault", vault.id), reason).await?)
}
