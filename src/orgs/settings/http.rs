//! `/v1/org/settings`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::json;

use super::api;
use super::{Settings, store};
use crate::access::http::require;
use crate::access::{Action, Principal};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/v1/org/settings", get(read, api::read()).patch(change, api::change()))
}

async fn read(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Settings>, Problem> {
    require(&app, &principal, Action::OrgRead, Resource::new("organisation", principal.org_id)).await?;
    let mut conn = app.db.acquire().await?;
    Ok(Json(store::get(&mut conn, principal.org_id).await?))
}

/// A `null` is a setting not given.
#[derive(Deserialize)]
struct ChangeSettings {
    require_simulation: Option<bool>,
    guardrail_widening_requires_confirm: Option<bool>,
}

async fn change(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<ChangeSettings>,
) -> Result<Json<Settings>, Problem> {
    let organisation = Resource::new("organisation", principal.org_id);
    require(&app, &principal, Action::OrgUpdate, organisation.clone()).await?;
    let mut tx = app.db.begin().await?;
    let before = store::get_for_update(&mut tx, principal.org_id).await?;
    let mut after = before.clone();
    if let Some(on) = request.require_simulation {
        after.require_simulation = on;
    }
    if let Some(on) = request.guardrail_widening_requires_confirm {
        after.guardrail_widening_requires_confirm = on;
    }
    store::set(&mut tx, principal.org_id, &after).await?;
    let event =
        Event::by(&principal, "org.update", organisation).with("before", json!(before)).with("after", json!(after));
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(Json(after))
}
