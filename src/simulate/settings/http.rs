//! `/v1/org/simulation`: whom the organisation's intents are simulated by.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::tenderly::Slug;
use super::api;
use super::{Account, Choice, store};
use crate::access::http::require;
use crate::access::{self, Action, Actor, Lock, Permission, Principal, SecretPath};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::config::BackendKind;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get};
use crate::ids::VaultId;
use crate::vaults::{self, secrets};

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new().route("/v1/org/simulation", get(read, api::read()).put(put, api::put()).delete(remove, api::remove()))
}

fn resource() -> Resource {
    Resource::kind("simulation_settings")
}

fn show(app: &App, choice: Option<&Choice>) -> Value {
    match choice {
        Some(Choice::Tenderly(Account { account, project, vault_id, path, .. })) => json!({
            "backend": "tenderly",
            "source": "organisation",
            "account": account.as_str(),
            "project": project.as_str(),
            "vault_id": vault_id,
            "secret_path": path.as_str(),
        }),
        Some(Choice::Rpc) => json!({ "backend": "rpc", "source": "organisation" }),
        None => {
            let backend = match app.config.simulation.backend {
                BackendKind::Rpc => "rpc",
                BackendKind::Tenderly => "tenderly",
            };
            json!({ "backend": backend, "source": "daemon" })
        }
    }
}

async fn read(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::OrgRead, resource()).await?;
    let choice = store::get(&app.db, principal.org_id).await?;
    Ok(Json(show(&app, choice.as_ref())))
}

#[derive(Deserialize)]
struct PutRequest {
    backend: Option<String>,
    account: Option<String>,
    project: Option<String>,
    vault_id: Option<String>,
    secret_path: Option<String>,
    /// Where the service is, is not an organisation's to say.
    base_url: Option<String>,
    /// A key belongs into a vault.
    access_key: Option<Value>,
}

async fn put(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<PutRequest>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::OrgUpdate, resource()).await?;
    let Actor::User(user_id) = principal.actor else { return Err(Problem::forbidden("only humans may do this")) };
    if request.base_url.is_some() {
        return Err(Problem::bad_request("base_url: where the service is comes from the daemon's configuration alone"));
    }
    if request.access_key.is_some_and(|key| !key.is_null()) {
        return Err(Problem::bad_request("access_key: store it in a vault, and name it with vault_id and secret_path"));
    }
    let choice = match request.backend.as_deref() {
        Some("rpc") => Choice::Rpc,
        Some("tenderly") => {
            let slug = |name: &str, text: Option<&str>| {
                text.and_then(Slug::parse).ok_or_else(|| {
                    Problem::bad_request(format!("{name}: must be 1 to 64 letters, digits, '-', '_' and '.'"))
                })
            };
            let vault_id: Option<VaultId> = request.vault_id.as_deref().and_then(|id| id.parse().ok());
            let vault_id =
                vault_id.ok_or_else(|| Problem::bad_request("vault_id: must be the vault of the access key"))?;
            let path = request.secret_path.as_deref().unwrap_or_default();
            let path =
                SecretPath::parse(path).map_err(|error| Problem::bad_request(format!("secret_path: {error}")))?;
            Choice::Tenderly(Account {
                account: slug("account", request.account.as_deref())?,
                project: slug("project", request.project.as_deref())?,
                vault_id,
                path,
                set_by: user_id,
            })
        }
        _ => return Err(Problem::bad_request("backend: must be \"rpc\" or \"tenderly\"")),
    };
    let mut tx = app.db.begin().await?;
    if let Choice::Tenderly(account) = &choice {
        // Nobody may have the daemon use what they may not read themselves.
        let vault = vaults::store::get_for_share(&mut tx, principal.org_id, account.vault_id)
            .await?
            .ok_or_else(|| Problem::not_found("no such vault"))?;
        let granted =
            access::authorise(&mut tx, &principal, &vault, &account.path, Permission::Read, Lock::Share).await?;
        let usable = secrets::usable_by_daemon(&mut tx, &granted).await;
        usable.map_err(|error| {
            Problem::unprocessable(format!("secret_path: cannot be used as an access key: {error}"))
        })?;
    }
    store::put(&mut tx, principal.org_id, &choice, user_id).await?;
    let shown = show(&app, Some(&choice));
    audit::record(&mut tx, Event::by(&principal, "org.simulation_update", resource()).with("after", shown.clone()))
        .await?;
    tx.commit().await?;
    Ok(Json(shown))
}

/// Back to the daemon's own.
async fn remove(State(app): State<Arc<App>>, principal: Principal) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::OrgUpdate, resource()).await?;
    let mut tx = app.db.begin().await?;
    if store::delete(&mut tx, principal.org_id).await? {
        audit::record(&mut tx, Event::by(&principal, "org.simulation_update", resource()).with("after", json!(null)))
            .await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
