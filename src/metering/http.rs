//! `/v1/billing/…`: what was used, in the shapes that clients of a hosted service read. Nobody is billed: the plan is `self_hosted`, it
//! has no price and no end, and there is nothing to pay with.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api;
use super::{Kind, month_of, store};
use crate::access::http::require;
use crate::access::{Action, Principal};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, patch};
use crate::ids::OrgId;
use crate::orgs::limits;

/// The one plan there is.
const TIER: &str = "self_hosted";
/// Rows of the history: two kinds for ten years.
const HISTORY_MAX: i64 = 240;
/// Counting things ends here: the reply is for people.
const COUNTED_MAX: i32 = 1_000_000;

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/billing/usage", get(usage, api::usage()))
        .route("/v1/billing/history", get(history, api::history()))
        .route("/v1/billing/subscription", get(subscription, api::subscription()))
        .route("/v1/billing/credits/balance", get(balance, api::balance()))
        .route("/v1/billing/credits/transactions", get(transactions, api::transactions()))
        .route("/v1/billing/overage-method", patch(set_overage_method, api::set_overage_method()))
        .route("/v1/billing/credits/overage-method", patch(set_overage_method, api::set_credits_overage_method()))
}

async fn require_reader(app: &App, principal: &Principal) -> Result<(), Problem> {
    require(app, principal, Action::OrgRead, Resource::new("organisation", principal.org_id)).await
}

/// This month's counts, and how much there is of each thing.
async fn figures(app: &App, org_id: OrgId) -> Result<(i64, i64, Map<String, Value>), Problem> {
    let month = month_of(crate::clock::now());
    let mut conn = app.db.acquire().await?;
    let counts = store::list(&mut conn, org_id, 2).await?;
    let count = |kind: Kind| {
        let found = counts.iter().find(|count| count.month == month && count.kind == kind.as_str());
        found.map_or(0, |count| count.count)
    };
    let mut things = Map::new();
    for kind in limits::Kind::ALL {
        let held = limits::store::count(&mut conn, org_id, kind, COUNTED_MAX).await?;
        things.insert(kind.as_str().to_owned(), json!(held));
    }
    Ok((count(Kind::Requests), count(Kind::Signatures), things))
}

async fn usage(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require_reader(&app, &principal).await?;
    let (requests, signatures, things) = figures(&app, principal.org_id).await?;
    Ok(Json(json!({
        "billing_tier": TIER,
        "free_tier_limit": null,
        "current_month": {
            "total_requests": requests,
            "paid_requests": 0,
            "free_requests": requests,
            "total_cost_usd": "0.00",
            "signatures": signatures,
        },
        "resources": things,
    })))
}

async fn history(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require_reader(&app, &principal).await?;
    let mut conn = app.db.acquire().await?;
    let counts = store::list(&mut conn, principal.org_id, HISTORY_MAX).await?;
    let event = |count: &store::Count| {
        let at = count.month.midnight().assume_utc();
        json!({
            "id": format!("{}:{}", count.month, count.kind),
            "month": count.month.to_string(),
            "event_type": count.kind,
            "count": count.count,
            "cost_usd": "0.00",
            "created_at": crate::clock::rfc3339(at),
        })
    };
    Ok(Json(json!({ "events": counts.iter().map(event).collect::<Vec<_>>() })))
}

async fn subscription(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require_reader(&app, &principal).await?;
    let (requests, signatures, things) = figures(&app, principal.org_id).await?;
    let mut conn = app.db.acquire().await?;
    let held = limits::store::get(&mut conn, principal.org_id).await?;
    let method = store::overage_method(&mut conn, principal.org_id).await?;
    Ok(Json(json!({
        "tier": TIER,
        "interval": null,
        "period_end": null,
        "status": "active",
        "credit_balance_cents": 0,
        "overage_method": method,
        "usage": { "requests": requests, "signatures": signatures, "resources": things },
        "limits": held.render(),
    })))
}

async fn balance(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require_reader(&app, &principal).await?;
    Ok(Json(json!({ "balance_cents": 0, "credit_balance_cents": 0, "currency": "usd", "expiring": [] })))
}

async fn transactions(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require_reader(&app, &principal).await?;
    Ok(Json(json!({ "transactions": [] })))
}

#[derive(Deserialize)]
struct OverageMethod {
    method: Option<String>,
    overage_method: Option<String>,
}

async fn set_overage_method(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<OverageMethod>,
) -> Result<Json<Value>, Problem> {
    let organisation = Resource::new("organisation", principal.org_id);
    require(&app, &principal, Action::OrgUpdate, organisation.clone()).await?;
    let refuse = || Problem::bad_request("method must be credits or x402");
    let method = match (request.method, request.overage_method) {
        (Some(method), Some(other)) if method != other => return Err(refuse()),
        (method, other) => method.or(other).filter(|text| text == "credits" || text == "x402").ok_or_else(refuse)?,
    };
    let mut tx = app.db.begin().await?;
    store::set_overage_method(&mut tx, principal.org_id, &method).await?;
    let event = Event::by(&principal, "billing.overage_method", organisation).with("method", method.as_str());
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(Json(json!({ "method": method, "overage_method": method })))
}
