//! `GET /v1/chains`: public. An RPC URL is never in it: it usually contains a key.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::api;
use super::{Chain, ChainId};
use crate::access::http::Ids;
use crate::app::App;
use crate::http::extract::Peer;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get};

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/chains", get(list, api::list()))
        .route("/v1/chains/{name_or_id}", get(get_one, api::get_one()))
}

async fn list(State(app): State<Arc<App>>, peer: Peer) -> Result<Json<Value>, Problem> {
    app.limits.check_peer(peer.0)?;
    let chains: Vec<Value> = app.chains.iter().map(|chain| shown(&chain, &app)).collect();
    Ok(Json(json!({ "chains": chains })))
}

async fn get_one(
    State(app): State<Arc<App>>,
    peer: Peer,
    Ids(name_or_id): Ids<String>,
) -> Result<Json<Value>, Problem> {
    app.limits.check_peer(peer.0)?;
    let chain =
        app.chains.get(&name_or_id).ok_or_else(|| Problem::not_found("no such chain; GET /v1/chains lists them"))?;
    Ok(Json(shown(&chain, &app)))
}

/// A chain's id in the API is a UUID by its shape; the registry has none, so it is made from the chain id.
pub(crate) fn uuid_of(chain_id: ChainId) -> String {
    format!("00000000-0000-4000-8000-{:012x}", chain_id.0 & 0xffff_ffff_ffff)
}

/// A chain as anybody may see it.
pub(crate) fn shown(chain: &Chain, app: &App) -> Value {
    let spec = chain.spec();
    let (created_at, updated_at) = chain.effective().times.unwrap_or((app.started_at, app.started_at));
    let mut shown = json!({
        "id": uuid_of(spec.chain_id),
        "name": spec.name,
        "display_name": spec.display_name,
        "chain_id": spec.chain_id.0,
        "native_currency": spec.native_currency,
        "is_testnet": spec.is_testnet,
        "is_enabled": chain.is_enabled() && spec.rpc_url.is_some(),
        "created_at": crate::clock::rfc3339(created_at),
        "updated_at": crate::clock::rfc3339(updated_at),
    });
    if let (Some(url), Value::Object(shown)) = (&spec.explorer_url, &mut shown) {
        shown.insert("explorer_url".to_owned(), json!(url));
    }
    shown
}
