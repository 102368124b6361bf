//! Lanes, for humans: which there are, which of them wait, and letting one go on.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::access::Action;
use crate::access::Principal;
use crate::access::http::{Ids, require};
use crate::address::parse_address;
use crate::app::App;
use crate::audit::Resource;
use crate::chain::ChainId;
use crate::clock::rfc3339;
use crate::http::extract::Body;
use crate::http::pages;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, post};
use crate::intents::lanes::Lane;
use crate::intents::store::{self, LaneState};
use crate::intents::{api, frozen};

/// Most rows of one page.
const PAGE_MAX: i64 = 200;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/v1/lanes", get(list, api::lanes()))
        .route("/v1/lanes/{chain}/{address}/resume", post(resume, api::resume_lane()))
}

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

/// The lanes of the organisation's keys, by chain and address.
async fn list(
    State(app): State<Arc<App>>,
    principal: Principal,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    require(&app, &principal, Action::LaneRead, Resource::kind("lane")).await?;
    let limit = match query.limit.as_deref().map(str::parse::<i64>) {
        None => PAGE_MAX,
        Some(Ok(limit)) if (1..=PAGE_MAX).contains(&limit) => limit,
        Some(_) => return Err(Problem::bad_request(format!("limit: must be from 1 to {PAGE_MAX}"))),
    };
    let after = query.cursor.as_deref().map(cursor_from).transpose()?;
    let mut rows = store::lanes_of(&app.db, principal.org_id, after, limit + 1).await?;
    let more = pages::cut(&mut rows, limit);
    let lanes: Vec<Value> = rows.iter().map(|row| shown(&app, row)).collect();
    let mut body = json!({ "lanes": lanes });
    if let (true, Some(last)) = (more, rows.last()) {
        body["next_cursor"] = json!(format!("{}:{}", last.lane.chain_id, last.lane.address));
    }
    Ok(Json(body))
}

fn cursor_from(text: &str) -> Result<Lane, Problem> {
    let wrong = || Problem::bad_request("cursor: must be a next_cursor of this list");
    let (chain_id, address) = text.split_once(':').ok_or_else(wrong)?;
    let chain_id = ChainId(chain_id.parse().map_err(|_| wrong())?);
    Ok(Lane { chain_id, address: parse_address(address).map_err(|_| wrong())? })
}

fn shown(app: &App, row: &LaneState) -> Value {
    let LaneState { lane, next_nonce, depth, frozen, held } = row;
    let chain = app.chains.tracked(lane.chain_id);
    let mut lane = json!({
        "chain": chain.map_or_else(|| lane.chain_id.to_string(), |chain| chain.spec().name.clone()),
        "chain_id": lane.chain_id.0,
        "address": lane.address.to_string(),
        "next_nonce": next_nonce,
        "depth": depth,
        "is_frozen": frozen.is_some(),
    });
    if let Some((reason, at)) = frozen {
        lane["frozen_reason"] = json!(reason);
        lane["frozen_at"] = json!(rfc3339(*at));
    }
    if let Some(why) = held {
        lane["hold_reason"] = json!(why);
    }
    lane
}

#[derive(Deserialize)]
struct Resume {
    #[serde(default)]
    next_nonce: Option<u64>,
}

/// Lets a frozen lane go on, after somebody has found out what happened. 200 with the lane's chain, address and next nonce.
async fn resume(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((chain, address)): Ids<(String, String)>,
    Body(Resume { next_nonce }): Body<Resume>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::LaneResume, Resource::kind("lane")).await?;
    let missing = || Problem::not_found("no such lane: GET /v1/lanes lists them");
    let chain = app.chains.get(&chain).ok_or_else(missing)?;
    let address = parse_address(&address).map_err(|_| missing())?;
    let next = frozen::resume(&app, &principal, &chain, address, next_nonce).await?;
    let name = &chain.spec().name;
    Ok(Json(json!({ "chain": name, "address": address.to_string(), "next_nonce": next, "is_frozen": false })))
}
