//! `/v1/admin/settings`

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::api;
use super::{Setting, store};
use crate::access::http::require;
use crate::access::{Action, Principal};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get};

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/v1/admin/settings", get(read, api::read()).put(change, api::change()))
}

async fn read(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::PlatformManage, Resource::kind("platform_settings")).await?;
    let mut conn = app.db.acquire().await?;
    Ok(shown(&store::all(&mut conn).await?))
}

fn shown(settings: &BTreeMap<&'static str, String>) -> Json<Value> {
    Json(json!({ "settings": settings }))
}

/// `{"settings": {name: value}}`, `{name: value}` or `{"key": name, "value": value}`; a flag may also be given as one. A setting that there
/// is not is refused.
async fn change(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<Map<String, Value>>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::PlatformManage, Resource::kind("platform_settings")).await?;
    let changes = changes_of(&request)?;
    let mut tx = app.db.begin().await?;
    let before = store::all_for_update(&mut tx).await?;
    for (setting, value) in changes {
        store::set(&mut tx, setting, value, principal.user_id()).await?;
    }
    let after = store::all(&mut tx).await?;
    let event = Event::by(&principal, "platform.settings", Resource::kind("platform_settings"))
        .with("before", json!(before))
        .with("after", json!(after));
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(shown(&after))
}

fn changes_of(request: &Map<String, Value>) -> Result<Vec<(Setting, &'static str)>, Problem> {
    let pairs: Vec<(&str, &Value)> = match (request.get("settings"), request.get("key"), request.get("value")) {
        (Some(Value::Object(members)), ..) => members.iter().map(|(name, value)| (name.as_str(), value)).collect(),
        (None, Some(Value::String(key)), Some(value)) => vec![(key.as_str(), value)],
        (None, None, None) => request.iter().map(|(name, value)| (name.as_str(), value)).collect(),
        _ => return Err(Problem::bad_request("the body must be {\"settings\": {name: value}}")),
    };
    let mut changes = Vec::new();
    for (name, value) in pairs {
        let Some(setting) = Setting::ALL.into_iter().find(|setting| setting.key() == name) else {
            let shown: String = name.chars().take(64).collect();
            let names = Setting::ALL.map(Setting::key).join(", ");
            return Err(Problem::bad_request(format!("there is no setting {shown:?}; there are {names}")));
        };
        let text = match value {
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            Value::String(text) => text,
            _ => "",
        };
        let value =
            setting.parse(text).ok_or_else(|| Problem::bad_request(format!("{name} must be \"true\" or \"false\"")))?;
        changes.push((setting, value));
    }
    Ok(changes)
}
