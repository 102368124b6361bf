//! `/v1/vaults…`

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api;
use super::store::After;
use super::{Vault, cmek, is_reserved_name, policies, secrets, store};
use crate::access::http::{Ids, deny, require};
use crate::access::{self, Action, Lock, Principal, input};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::clock::rfc3339;
use crate::db::DbError;
use crate::http::extract::Body;
use crate::http::pages;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, post};
use crate::ids::VaultId;
use crate::orgs::limits;

/// Vaults of a page at most, and of a reply to a request that asks for no page.
const PAGE_MAX: i64 = 1_000;
const WHOLE_MAX: i64 = 5_000;

/// The routes of vaults, secrets and policies.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/vaults", post(create, api::create()).get(list, api::list()))
        .route("/v1/vaults/{vault_id}", get(read, api::read()).delete(remove, api::remove()))
        .merge(secrets::http::routes())
        .merge(policies::http::routes())
        .merge(cmek::http::routes())
        .merge(super::keys::http::routes())
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

/// Strict decoders read it: what is not set is not there.
pub(super) fn render(vault: &Vault) -> Value {
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
    if let Some(fingerprint) = &vault.cmek_fingerprint {
        body["cmek_enabled"] = json!(true);
        body["cmek_fingerprint"] = json!(fingerprint);
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
    require(&app, &principal, Action::VaultCreate, Resource::kind("vault")).await?;
    let name = request.name.ok_or_else(|| Problem::bad_request("name is required"))?;
    let vault = Vault {
        id: VaultId::random(),
        org_id: principal.org_id,
        name: vault_name(&name)?,
        description: input::description(request.description)?,
        created_by: principal.actor,
        created_at: crate::clock::now(),
        cmek_fingerprint: None,
    };
    let mut tx = app.db.begin().await?;
    if let Err(error) = limits::admit(&mut tx, principal.org_id, limits::Kind::Vaults).await {
        drop(tx);
        return Err(limits::http::explain(&app, &principal, "vault.create", Resource::kind("vault"), error).await);
    }
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

/// A name that is not the daemon's own.
fn vault_name(name: &str) -> Result<String, Problem> {
    if is_reserved_name(name) {
        return Err(Problem::bad_request("name: names that begin with __ are reserved: choose another"));
    }
    Ok(input::name("name", name)?)
}

#[derive(Deserialize)]
struct Page {
    limit: Option<i64>,
    cursor: Option<String>,
}

impl Page {
    fn read(self) -> Result<(Option<After>, i64), Problem> {
        let after = match self.cursor.filter(|cursor| !cursor.is_empty()) {
            None => None,
            Some(cursor) => {
                Some(pages::read_cursor(&cursor).ok_or_else(|| Problem::bad_request("cursor is not one of ours"))?)
            }
        };
        match self.limit {
            Some(limit) if limit < 1 => Err(Problem::bad_request("limit must be at least 1")),
            limit => Ok((after, limit.map_or(WHOLE_MAX, |limit| limit.min(PAGE_MAX)))),
        }
    }
}

/// `next_cursor` only when there is more: clients that know no pages get all of them, up to a bound.
async fn list(
    State(app): State<Arc<App>>,
    principal: Principal,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(page) = page.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let (after, limit) = page.read()?;
    let mut conn = app.db.acquire().await?;
    let mut vaults = store::list(&mut conn, &principal, after, limit + 1).await?;
    drop(conn);
    let more = pages::cut(&mut vaults, limit);
    let mut body = json!({ "vaults": vaults.iter().map(render).collect::<Vec<_>>() });
    if let Some(last) = vaults.last().filter(|_| more) {
        body["next_cursor"] = json!(pages::cursor(last.created_at, last.id));
    }
    Ok(Json(body))
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

/// What the deletion takes along is in its audit row. It cannot be taken back.
async fn remove(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<VaultId>,
) -> Result<StatusCode, Problem> {
    let vault = vault(&app, &principal, id).await?;
    require_manager(&app, &principal, &vault, "vault.delete").await?;
    if vault.is_reserved() {
        let reason = "this vault holds the keys of agents and cannot be deleted";
        return Err(deny(&app, &principal, "vault.delete", Resource::new("vault", id), reason).await?);
    }
    let mut tx = app.db.begin().await?;
    let deleted = store::delete(&mut tx, principal.org_id, id).await?.ok_or_else(not_found)?;
    let event = Event::by(&principal, "vault.delete", Resource::new("vault", id))
        .with("name", vault.name.as_str())
        .with("unreadable_secrets", deleted.secrets)
        .with("superseded_signing_keys", deleted.signing_keys);
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
