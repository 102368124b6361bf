//! `GET /v1/audit/verify`, `/export`, `/keys`: the proof, and what it takes to make it elsewhere.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State, rejection::QueryRejection};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::access::http::require;
use crate::access::{Action, Principal};
use crate::app::App;
use crate::audit::api;
use crate::audit::export::{Export, ExportError};
use crate::audit::rules::{Break, Trail};
use crate::audit::verify::{self, Cursor, Verdict};
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get};

/// What the proof is made of.
const SCHEME: &str = "intentd audit 1: SHA-256 over every field and over links, Ed25519 over checkpoints";

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/audit/verify", get(verify, api::verify()))
        .route("/v1/audit/export", get(export, api::export()))
        .route("/v1/audit/keys", get(keys, api::keys()))
}

#[derive(Deserialize)]
struct VerifyParams {
    cursor: Option<String>,
    from_checkpoint: Option<u64>,
}

async fn verify(
    State(app): State<Arc<App>>,
    principal: Principal,
    params: Result<Query<VerifyParams>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::AuditVerify, Resource::kind("audit")).await?;
    let Query(params) = params.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let trail = Trail(Some(principal.org_id));
    // Those that are on the token and proved by it: a row that somebody added to the database is no key.
    let keys = app.hsm.audit_public_keys();
    let cursor = match (params.cursor.filter(|text| !text.is_empty()), params.from_checkpoint) {
        (Some(_), Some(_)) => return Err(Problem::bad_request("send cursor or from_checkpoint, not both")),
        (Some(text), None) => Cursor::read(&text).ok_or_else(|| Problem::bad_request("cursor is not one of ours"))?,
        (None, Some(seq)) => match verify::begin_at(&app.db, trail, seq, &keys).await? {
            Some(Ok(cursor)) => cursor,
            Some(Err(broken)) => return Ok(Json(render_break(&broken, json!({ "scheme": SCHEME })))),
            None => {
                return Err(Problem::not_found(format!(
                    "there is no checkpoint at or below {seq} that a key of the token has signed: leave from_checkpoint out to begin at the beginning"
                )));
            }
        },
        (None, None) => Cursor::START,
    };
    Ok(Json(render(&verify::verify(&app.db, trail, cursor, &keys).await?)))
}

fn render(verdict: &Verdict) -> Value {
    // Events and links agree, and whoever wrote to the database may have seen to that: checkpoints are there, and not one is believed.
    let nothing_believed = verdict.checkpoints == 0 && verdict.unknown_checkpoints > 0;
    let words = match (verdict.next.is_some(), nothing_believed) {
        (true, false) => "whole so far: go on with next_cursor",
        (true, true) => {
            "whole so far, and not proven: its checkpoints are of keys that are not on the token; go on with next_cursor"
        }
        (false, false) => "whole",
        (false, true) => "whole, and not proven: its checkpoints are of keys that are not on the token",
    };
    let mut body = json!({
        "scheme": SCHEME,
        "chain_valid": true,
        "verdict": words,
        "events_checked": verdict.checked,
        "events_verified": verdict.verified,
        "links": { "after": verdict.from, "to": verdict.to, "head": verdict.head },
        "checkpoints_verified": verdict.checkpoints,
        "checkpoints_of_other_keys": verdict.unknown_checkpoints,
        "proven_to": verdict.proven_to,
        "waiting_for_link": verdict.waiting,
    });
    if let Some(next) = verdict.next {
        body["next_cursor"] = json!(next.text());
    }
    match &verdict.broken {
        Some(broken) => render_break(broken, body),
        None => body,
    }
}

fn render_break(broken: &Break, mut body: Value) -> Value {
    body["chain_valid"] = json!(false);
    body["verdict"] = json!(format!("broken: {}", broken.detail));
    body["broken_at_event_id"] = json!(broken.event_id);
    body["broken"] = json!({
        "kind": broken.kind.as_str(),
        "seq": broken.seq,
        "event_id": broken.event_id,
        "detail": broken.detail,
    });
    body
}

#[derive(Deserialize)]
struct ExportParams {
    after: Option<u64>,
}

/// The trail as JSON Lines, page by page as the client takes it: no connection to the database is held in between. What ends before its
/// `end` line is not complete. The principal goes along: an export is one of the requests that it may make at once.
async fn export(
    State(app): State<Arc<App>>,
    principal: Principal,
    params: Result<Query<ExportParams>, QueryRejection>,
) -> Result<Response, Problem> {
    require(&app, &principal, Action::AuditExport, Resource::kind("audit")).await?;
    let Query(params) = params.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let after = params.after.unwrap_or(0);
    if i64::try_from(after).is_err() {
        return Err(Problem::bad_request("after must be the place of a link"));
    }
    let mut conn = app.db.acquire().await?;
    let event = Event::by(&principal, Action::AuditExport.as_str(), Resource::kind("audit")).with("after", after);
    audit::record(&mut conn, event).await?;
    drop(conn);
    let mut begun = Export::new(Trail(Some(principal.org_id)), after);
    let first = match begun.next(&app.db).await {
        Ok(text) => text.unwrap_or_default(),
        Err(ExportError::NoLink(seq)) => return Err(Problem::not_found(format!("the chain has no link {seq}"))),
        Err(ExportError::Db(error)) => return Err(error.into()),
        Err(error @ ExportError::Line(_)) => return Err(Problem::internal(&error)),
    };
    let rest = futures::stream::try_unfold((app, principal, begun), |(app, principal, mut export)| async move {
        match export.next(&app.db).await {
            Ok(text) => Ok(text.map(|text| (text, (app, principal, export)))),
            Err(error) => {
                tracing::warn!(%error, "an export of the audit trail ended before its end");
                Err(std::io::Error::other(error))
            }
        }
    });
    let first = futures::stream::once(async { Ok::<_, std::io::Error>(first) });
    let body = Body::from_stream(futures::StreamExt::chain(first, rest));
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"audit.jsonl\""),
    ];
    Ok((headers, body).into_response())
}

/// The public halves of the keys that sign checkpoints: all that there ever were, those that are on the token said so.
async fn keys(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::AuditRead, Resource::kind("audit")).await?;
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let stored = audit::store::trail::keys(&mut conn).await?;
    let (on_token, active) = (app.hsm.audit_public_keys(), app.hsm.audit_key());
    let key = |(id, public): &(crate::ids::KekId, [u8; 32])| {
        json!({
            "key_id": id,
            "algorithm": "Ed25519",
            "public_key": hex::encode(public),
            "on_token": on_token.contains(&(*id, *public)),
            "active": active == Some(*id),
        })
    };
    Ok(Json(json!({ "keys": stored.iter().map(key).collect::<Vec<_>>() })))
}
