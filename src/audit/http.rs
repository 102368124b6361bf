//! `GET /v1/audit/events`; the proof is in `trail`.

mod trail;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State, rejection::QueryRejection};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::Resource;
use super::api;
use super::store::{self, Filter, Row};
use crate::access::http::require;
use crate::access::{Action, Principal};
use crate::app::App;
use crate::clock::rfc3339;
use crate::http::pages;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get};

/// Events of a page unless the request says otherwise, and at most.
const LIMIT_DEFAULT: i64 = 100;
const LIMIT_MAX: i64 = 1_000;
/// Events that an offset may leave out: each is read all the same. A cursor costs nothing.
const OFFSET_MAX: i64 = 10_000;

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new().route("/v1/audit/events", get(events, api::events())).merge(trail::routes())
}

#[derive(Deserialize)]
struct Params {
    resource_id: Option<String>,
    actor_id: Option<String>,
    action: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<i64>,
    offset: Option<i64>,
    cursor: Option<String>,
}

async fn events(
    State(app): State<Arc<App>>,
    principal: Principal,
    params: Result<Query<Params>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::AuditRead, Resource::kind("audit")).await?;
    let Query(params) = params.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let Some(filter) = filter(params)? else {
        return Ok(Json(json!({ "events": [], "count": 0 })));
    };
    let mut conn = app.db.acquire().await?;
    let asked = Filter { limit: filter.limit + 1, ..filter.clone() };
    let mut rows = store::list(&mut conn, principal.org_id, &asked).await?;
    let more = pages::cut(&mut rows, filter.limit);
    let mut body =
        json!({ "events": rows.iter().map(|row| render(&principal, row)).collect::<Vec<_>>(), "count": rows.len() });
    if let Some(last) = rows.last().filter(|_| more) {
        body["next_cursor"] = json!(pages::cursor(last.created_at, last.id));
    }
    Ok(Json(body))
}

/// `None` when nothing can match (an actor id that is no id).
fn filter(params: Params) -> Result<Option<Filter>, Problem> {
    let text = |name: &str, value: Option<String>| match value.filter(|v| !v.is_empty()) {
        Some(value) if value.len() > 1_024 || value.contains('\0') => {
            Err(Problem::bad_request(format!("{name} is not a filter")))
        }
        value => Ok(value),
    };
    let time = |name: &str, value: Option<String>| match value.filter(|v| !v.is_empty()) {
        None => Ok(None),
        Some(value) => OffsetDateTime::parse(&value, &Rfc3339).map(Some).map_err(|_| {
            Problem::bad_request(format!("{name} must be a time such as 2026-11-21T12:00:00Z (RFC 3339)"))
        }),
    };
    let actor_id = match text("actor_id", params.actor_id)?.map(|id| id.parse::<Uuid>()) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => return Ok(None),
    };
    let before = match text("cursor", params.cursor)? {
        None => None,
        Some(cursor) => {
            Some(pages::read_cursor(&cursor).ok_or_else(|| Problem::bad_request("cursor is not one of ours"))?)
        }
    };
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    let offset = params.offset.unwrap_or(0);
    if limit < 1 || offset < 0 {
        return Err(Problem::bad_request("limit must be at least 1 and offset at least 0"));
    }
    if offset > OFFSET_MAX {
        return Err(Problem::bad_request(format!(
            "offset may be {OFFSET_MAX} at most: go on with cursor, which is next_cursor of the page before"
        )));
    }
    Ok(Some(Filter {
        resource_id: text("resource_id", params.resource_id)?,
        actor_id,
        action: text("action", params.action)?,
        from: time("from", params.from)?,
        to: time("to", params.to)?,
        before,
        limit: limit.min(LIMIT_MAX),
        offset,
    }))
}

fn render(principal: &Principal, row: &Row) -> Value {
    json!({
        "id": row.id,
        "action": row.action,
        "actor_id": row.actor_id,
        "actor_type": row.actor_type,
        "resource_type": row.resource_type,
        "resource_id": row.resource_id,
        "org_id": principal.org_id,
        "details": row.details.0,
        "ip_address": row.ip_address,
        "created_at": rfc3339(row.created_at),
    })
}
