//! `/v1/admin/organisations/{org_id}/limits`, and the reply to what is beyond a limit.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::api;
use super::{Kind, LimitError, Limits, Reached, store};
use crate::access::http::{Ids, deny, require};
use crate::access::{Action, Principal};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get};
use crate::ids::OrgId;

/// The routes.
pub fn routes() -> Routes {
    Routes::new().route("/v1/admin/organisations/{org_id}/limits", get(read, api::read()).put(change, api::change()))
}

impl From<Reached> for Problem {
    fn from(reached: Reached) -> Self {
        Self::forbidden(reached.to_string()).of_type("resource_limit_exceeded")
    }
}

/// The reply to a creation that was not admitted. A refusal is written down; it takes a connection: end the transaction first.
pub async fn explain(
    app: &App,
    principal: &Principal,
    asked: &'static str,
    resource: Resource,
    error: LimitError,
) -> Problem {
    match error {
        LimitError::Db(error) => error.into(),
        LimitError::Reached(reached) => match deny(app, principal, asked, resource, reached).await {
            Ok(_) => reached.into(),
            Err(problem) => problem,
        },
    }
}

fn not_found() -> Problem {
    Problem::not_found("no such organisation")
}

fn shown(org_id: OrgId, limits: Limits) -> Json<Value> {
    Json(json!({ "org_id": org_id, "limits": limits.render() }))
}

async fn read(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(org_id): Ids<OrgId>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::PlatformManage, Resource::new("organisation", org_id)).await?;
    let mut conn = app.db.acquire().await?;
    if !store::organisation_exists(&mut conn, org_id).await? {
        return Err(not_found());
    }
    Ok(shown(org_id, store::get(&mut conn, org_id).await?))
}

/// Changes the limits that are given; `null` goes back to the default. Anything else in the body is refused: a limit that is misspelt
/// would be believed to hold.
async fn change(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(org_id): Ids<OrgId>,
    Body(request): Body<Map<String, Value>>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::PlatformManage, Resource::new("organisation", org_id)).await?;
    let changes = changes_of(&request)?;
    let mut tx = app.db.begin().await?;
    if !store::organisation_exists(&mut tx, org_id).await? {
        return Err(not_found());
    }
    let before = store::get_for_update(&mut tx, org_id).await?;
    let mut after = before;
    for (kind, limit) in changes {
        after.set(kind, limit);
    }
    store::set(&mut tx, org_id, &after).await?;
    let mut event = Event::by(&principal, "org.limits", Resource::new("organisation", org_id))
        .with("before", before.render())
        .with("after", after.render());
    // In the trail of the organisation that it is about, as everything that happens to it.
    event.org_id = Some(org_id);
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(shown(org_id, after))
}

fn changes_of(request: &Map<String, Value>) -> Result<Vec<(Kind, Option<i32>)>, Problem> {
    let names = || Kind::ALL.map(Kind::as_str).join(", ");
    // What a client read here it may send back: {"limits": {…}} as well as {…}.
    let members = match request.get("limits") {
        Some(Value::Object(members)) => members,
        Some(_) => return Err(Problem::bad_request("limits must be an object")),
        None => request,
    };
    let mut changes = Vec::new();
    for (name, value) in members {
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == name) else {
            let shown: String = name.chars().take(64).collect();
            return Err(Problem::bad_request(format!("there is no limit {shown:?}; there are {}", names())));
        };
        let limit =
            match value {
                Value::Null => None,
                value => {
                    Some(value.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0).ok_or_else(|| {
                        Problem::bad_request(format!("{name} must be a whole number from 0, or null"))
                    })?)
                }
            };
        changes.push((kind, limit));
    }
    Ok(changes)
}
