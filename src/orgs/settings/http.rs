//! `/v1/org/settings`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Settings, api, rules, store};
use crate::access::http::require;
use crate::access::{Action, Principal};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::freezes;
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

/// Settings as fields, or one by its name in `key`. A `null` is a setting not given.
#[derive(Deserialize)]
struct ChangeSettings {
    require_simulation: Option<bool>,
    guardrail_widening_requires_confirm: Option<bool>,
    key: Option<String>,
    value: Option<Value>,
}

async fn change(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<ChangeSettings>,
) -> Result<Json<Settings>, Problem> {
    let organisation = Resource::new("organisation", principal.org_id);
    require(&app, &principal, Action::OrgUpdate, organisation.clone()).await?;
    let mut tx = app.db.begin().await?;
    freezes::store::close_gate(&mut tx, principal.org_id).await?;
    let before = store::get_for_update(&mut tx, principal.org_id).await?;
    let mut after = before.clone();
    if let Some(on) = request.require_simulation {
        after.require_simulation = on;
    }
    if let Some(on) = request.guardrail_widening_requires_confirm {
        after.guardrail_widening_requires_confirm = on;
    }
    if let Some(key) = request.key {
        after = rules::with(after, &key, request.value.as_ref()).map_err(Problem::bad_request)?;
    }
    store::set(&mut tx, principal.org_id, &after).await?;
    let event =
        Event::by(&principal, "org.update", organisation).with("before", json!(before)).with("after", json!(after));
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(Json(after))
}
