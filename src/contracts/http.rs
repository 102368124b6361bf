//! `/v1/org/contract-abis`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ABIS_MAX;
use super::api;
use super::store::{self, Abi};
use crate::access::http::{Ids, require};
use crate::access::{Action, Actor, Principal, input};
use crate::address::parse_address;
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::clock::rfc3339;
use crate::db::DbError;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, delete, get};
use crate::ids::AbiId;
use crate::simulate::names::read_abi;

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/org/contract-abis", get(list, api::list()).post(create, api::create()))
        .route("/v1/org/contract-abis/{abi_id}", delete(remove, api::remove()))
}

fn show(abi: &Abi) -> Value {
    json!({
        "id": abi.id,
        "name": abi.name,
        "address": abi.address.map(|address| address.to_string()),
        "functions": abi.functions,
        "errors": abi.errors,
        "created_at": rfc3339(abi.created_at),
    })
}

async fn list(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::ContractAbiList, Resource::kind("contract_abi")).await?;
    let abis = store::list(&app.db, principal.org_id).await?;
    Ok(Json(json!({ "contract_abis": abis.iter().map(show).collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
struct CreateRequest {
    name: Option<String>,
    address: Option<String>,
    abi: Option<Value>,
}

async fn create(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<CreateRequest>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    require(&app, &principal, Action::ContractAbiManage, Resource::kind("contract_abi")).await?;
    let Actor::User(user_id) = principal.actor else { return Err(Problem::forbidden("only humans may do this")) };
    let name = request.name.ok_or_else(|| Problem::bad_request("name: is missing"))?;
    let name = input::name("name", &name)?;
    let address = request.address.as_deref().map(parse_address).transpose();
    let address = address.map_err(|error| Problem::bad_request(format!("address: {error}")))?;
    let abi = request.abi.ok_or_else(|| Problem::bad_request("abi: is missing: it must be a contract's JSON ABI"))?;
    let items = read_abi(&abi).map_err(|error| Problem::bad_request(format!("abi: {error}")))?;
    let mut tx = app.db.begin().await?;
    if store::count_locked(&mut tx, principal.org_id).await? >= ABIS_MAX {
        return Err(Problem::unprocessable(format!("the organisation has {ABIS_MAX} contract ABIs: delete one first")));
    }
    let abi = match store::insert(&mut tx, principal.org_id, &name, address, user_id, &items).await {
        Err(DbError::Duplicate(_)) => {
            return Err(Problem::new(StatusCode::CONFLICT, "there is a contract ABI with this name already"));
        }
        abi => abi?,
    };
    let shown = show(&abi);
    let event = Event::by(&principal, "contract_abi.create", Resource::new("contract_abi", abi.id))
        .with("contract_abi", shown.clone());
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(shown)))
}

async fn remove(State(app): State<Arc<App>>, principal: Principal, Ids(id): Ids<AbiId>) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::ContractAbiManage, Resource::new("contract_abi", id)).await?;
    let mut tx = app.db.begin().await?;
    if !store::delete(&mut tx, principal.org_id, id).await? {
        return Err(Problem::not_found("no such contract ABI"));
    }
    audit::record(&mut tx, Event::by(&principal, "contract_abi.delete", Resource::new("contract_abi", id))).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
