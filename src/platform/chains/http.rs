//! `/v1/admin/chains…`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::api;
use super::rules::{Fault, Request};
use super::{ChainError, store};
use crate::access::http::{Ids, require};
use crate::access::{Action, Principal};
use crate::app::App;
use crate::audit::Resource;
use crate::chain::{Chain, http as public};
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, put};

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/admin/chains", get(list, api::list()).post(create, api::create()))
        .route("/v1/admin/chains/{chain_id}", put(change, api::change()).delete(remove, api::remove()))
}

/// As everybody sees it, with what keeps its users safe. Never the URL: it usually holds a key.
fn render(app: &App, chain: &Chain) -> Value {
    let mut shown = public::shown(chain, app);
    if let Value::Object(shown) = &mut shown {
        shown.extend(store::safety(chain.spec()));
        let more: Map<String, Value> = [
            ("is_enabled".to_owned(), json!(chain.is_enabled())),
            ("has_rpc_url".to_owned(), json!(chain.spec().has_node())),
            ("rpc_url_count".to_owned(), json!(chain.node_count())),
            ("source".to_owned(), json!(if chain.effective().in_file { "file" } else { "database" })),
        ]
        .into_iter()
        .collect();
        shown.extend(more);
    }
    shown
}

/// By chain id, by the id that the API shows, or by name.
fn find(app: &App, text: &str) -> Result<Arc<Chain>, Problem> {
    let by_uuid = || app.chains.iter().find(|chain| public::uuid_of(chain.spec().chain_id) == text);
    app.chains.get(text).or_else(by_uuid).ok_or_else(|| ChainError::NotFound.into())
}

async fn require_admin(app: &App, principal: &Principal, resource: Resource) -> Result<(), Problem> {
    require(app, principal, Action::ChainManage, resource).await
}

async fn list(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require_admin(&app, &principal, Resource::kind("chain")).await?;
    let chains: Vec<Value> = app.chains.iter().map(|chain| render(&app, &chain)).collect();
    Ok(Json(json!({ "chains": chains })))
}

async fn create(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<Request>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    require_admin(&app, &principal, Resource::kind("chain")).await?;
    let chain = super::create(&app, &principal, &request).await?;
    Ok((StatusCode::CREATED, Json(render(&app, &chain))))
}

async fn change(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(chain_id): Ids<String>,
    Body(request): Body<Request>,
) -> Result<Json<Value>, Problem> {
    require_admin(&app, &principal, Resource::kind("chain")).await?;
    let chain = find(&app, &chain_id)?;
    let chain = super::change(&app, &principal, &chain, &request).await?;
    Ok(Json(render(&app, &chain)))
}

async fn remove(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(chain_id): Ids<String>,
) -> Result<StatusCode, Problem> {
    require_admin(&app, &principal, Resource::kind("chain")).await?;
    let chain = find(&app, &chain_id)?;
    super::remove(&app, &principal, &chain).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<ChainError> for Problem {
    fn from(error: ChainError) -> Self {
        let text = error.to_string();
        match error {
            ChainError::Fault(Fault::Invalid(_) | Fault::RpcUrl | Fault::NoUrls) => Self::bad_request(text),
            ChainError::Fault(Fault::Fixed { .. } | Fault::TooMany) | ChainError::Node(_) => Self::unprocessable(text),
            ChainError::Exists(_) | ChainError::InFile(_) => Self::new(StatusCode::CONFLICT, text),
            ChainError::NotFound => Self::not_found(text),
            ChainError::Hsm(error) => error.into(),
            ChainError::Db(error) => error.into(),
        }
    }
}
