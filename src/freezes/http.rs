//! `/v1/freezes`

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api;
use super::{Freeze, REASON_CHARS_MAX, Scope, denials_of, store, told};
use crate::access::http::{Ids, require};
use crate::access::throttle::{self, Throttle};
use crate::access::{Action, Principal};
use crate::address::parse_address;
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::clock::rfc3339;
use crate::db::DbError;
use crate::http::extract::Body;
use crate::http::pages;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, delete, post};
use crate::ids::{AgentId, FreezeId, OrgId};

/// Freezes of one page.
const PAGE: i64 = 100;

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/freezes", post(create, api::create()).get(list, api::list()))
        .route("/v1/freezes/{freeze_id}", delete(lift, api::lift()))
}

fn render(app: &App, freeze: &Freeze) -> Value {
    // A chain is told by its name, as it is given.
    let subject = match freeze.scope.as_str() {
        "chain" => app.chains.get(&freeze.subject).map_or_else(|| freeze.subject.clone(), |c| c.spec().name.clone()),
        _ => freeze.subject.clone(),
    };
    json!({
        "id": freeze.id,
        "scope": freeze.scope,
        "subject": subject,
        "reason": freeze.reason,
        "created_by": freeze.actor_id,
        "created_by_type": freeze.actor_type,
        "created_at": rfc3339(freeze.created_at),
    })
}

#[derive(Deserialize)]
struct NewFreeze {
    scope: Option<String>,
    subject: Option<String>,
    reason: Option<String>,
}

impl NewFreeze {
    fn scope(&self, app: &App, principal: &Principal) -> Result<Scope, Problem> {
        let missing = |what: &str| Problem::bad_request(format!("subject is required: {what}"));
        match (self.scope.as_deref(), self.subject.as_deref()) {
            (Some("organisation"), None) => Ok(Scope::Organisation(principal.org_id)),
            (Some("organisation"), Some(subject)) => match subject.parse() {
                Ok(id) if id == principal.org_id => Ok(Scope::Organisation(id)),
                _ => Err(Problem::not_found("no such organisation; leave subject out to mean your own")),
            },
            (Some("agent"), Some(subject)) => {
                let id: AgentId = subject.parse().map_err(|_| Problem::bad_request("subject must be an agent's id"))?;
                Ok(Scope::Agent(id))
            }
            (Some("key"), Some(subject)) => match parse_address(subject) {
                Ok(address) => Ok(Scope::Key(address)),
                Err(error) => Err(Problem::bad_request(format!("subject {error}"))),
            },
            (Some("chain"), Some(subject)) => match app.chains.get(subject) {
                Some(chain) => Ok(Scope::Chain(chain.spec().chain_id)),
                None => Err(Problem::bad_request("subject is no chain of this daemon; GET /v1/chains lists them")),
            },
            (Some("agent"), None) => Err(missing("the agent's id")),
            (Some("key"), None) => Err(missing("the key's address")),
            (Some("chain"), None) => Err(missing("the chain's name or id")),
            _ => Err(Problem::bad_request("scope must be organisation, agent, key or chain")),
        }
    }
}

/// Every human of the organisation may pull the switch. In force for whatever begins once its row is committed; answered once nothing that
/// began before is being signed any more.
async fn create(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<NewFreeze>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    require(&app, &principal, Action::FreezeCreate, Resource::kind("freeze")).await?;
    let scope = request.scope(&app, &principal)?;
    let reason = request.reason.unwrap_or_default();
    if reason.chars().count() > REASON_CHARS_MAX {
        return Err(Problem::bad_request(format!("reason must be at most {REASON_CHARS_MAX} characters")));
    }
    let mut tx = app.db.begin().await?;
    if !store::is_there(&mut tx, principal.org_id, scope).await? {
        return Err(Problem::not_found(format!("no such {}", scope.kind())));
    }
    let event = Event::by(&principal, "freeze.create", Resource::kind("freeze"));
    let (freeze, is_new) = store::put(&mut tx, principal.org_id, scope, &reason, event.actor).await?;
    if is_new {
        let event = Event { resource: Resource::new("freeze", freeze.id), ..event };
        audit::record(&mut tx, told(event, &freeze)).await?;
        tracing::warn!(freeze = %freeze.id, scope = %freeze.scope, subject = %freeze.subject, "frozen by a human: nothing new is signed");
    }
    tx.commit().await?;
    wait_for_what_is_being_signed(&app, principal.org_id).await.map_err(|error| {
        tracing::warn!(freeze = %freeze.id, %error, "a freeze is in force, and what was being signed before could not be waited for");
        Problem::unavailable(
            "the freeze is in force for everything new, but what was being signed when it came could not be waited for: ask again",
            1,
        )
    })?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(render(&app, &freeze))))
}

async fn wait_for_what_is_being_signed(app: &App, org_id: OrgId) -> Result<(), DbError> {
    let mut tx = app.db.begin().await?;
    store::close_gate(&mut tx, org_id).await?;
    tx.commit().await?;
    Ok(())
}

#[derive(Deserialize)]
struct Page {
    cursor: Option<String>,
}

async fn list(
    State(app): State<Arc<App>>,
    principal: Principal,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::FreezeList, Resource::kind("freeze")).await?;
    let Query(page) = page.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let before = match page.cursor.as_deref() {
        None => None,
        Some(text) => Some(pages::read_cursor(text).ok_or_else(|| Problem::bad_request("cursor is none of ours"))?),
    };
    let mut conn = app.db.acquire().await?;
    let mut freezes = store::list(&mut conn, principal.org_id, before, PAGE + 1).await?;
    let more = pages::cut(&mut freezes, PAGE);
    let mut body = json!({ "freezes": freezes.iter().map(|freeze| render(&app, freeze)).collect::<Vec<_>>() });
    if let Some(last) = freezes.last().filter(|_| more) {
        body["next_cursor"] = json!(pages::cursor(last.created_at, last.id));
    }
    Ok(Json(body))
}

/// Only those who manage the organisation lift one.
async fn lift(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<FreezeId>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::FreezeLift, Resource::new("freeze", id)).await?;
    let mut tx = app.db.begin().await?;
    let gone = || Problem::not_found("no such freeze: it may have been lifted already");
    let freeze = store::get(&mut tx, principal.org_id, id).await?.ok_or_else(gone)?;
    // In the order in which a denial takes the two.
    if let Some(agent) = freeze.subject.parse().ok().filter(|_| freeze.scope == "agent") {
        throttle::store::forget(&mut tx, Throttle::Denials(0), denials_of(agent)).await?;
    }
    store::lift(&mut tx, principal.org_id, id).await?.ok_or_else(gone)?;
    let event = Event::by(&principal, "freeze.lift", Resource::new("freeze", id));
    audit::record(&mut tx, told(event, &freeze)).await?;
    tx.commit().await?;
    tracing::warn!(freeze = %id, scope = %freeze.scope, subject = %freeze.subject, "freeze lifted by a human");
    Ok(StatusCode::NO_CONTENT)
}
