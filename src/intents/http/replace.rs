//! Cancelling a transaction that is not mined yet, and speeding it up.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tracing::Instrument as _;

use super::{IDEMPOTENCY_KEY, reply};
use crate::access::http::{Ids, require};
use crate::access::{Action, Actor, Principal};
use crate::agents;
use crate::app::App;
use crate::audit::Resource;
use crate::http::extract::{Body, Members};
use crate::http::problem::Problem;
use crate::http::routes::{Routes, post};
use crate::ids::{AgentId, IntentId};
use crate::intents::replace::Reason;
use crate::intents::{api, replace, view};
use crate::telemetry::story;

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/v1/agents/{agent_id}/transactions/{transaction_id}/cancel", post(cancel, api::cancel()))
        .route("/v1/agents/{agent_id}/transactions/{transaction_id}/speed-up", post(speed_up, api::speed_up()))
}

/// The agent whose transaction it is, or a human who manages agents; also for agents that are deactivated or deleted, whose transactions
/// still have to end.
async fn may_replace(app: &App, principal: &Principal, agent_id: AgentId) -> Result<(), Problem> {
    match principal.actor {
        Actor::Agent(own) if own == agent_id => Ok(()),
        Actor::Agent(_) => Err(Problem::forbidden("an agent replaces its own transactions only")),
        Actor::User(_) => {
            require(app, principal, Action::TransactionReplace, Resource::new("agent", agent_id)).await?;
            let mut conn = app.db.acquire().await?;
            let existed = agents::store::existed(&mut conn, principal.org_id, agent_id).await?;
            existed.then_some(()).ok_or_else(|| Problem::not_found("no such agent"))
        }
    }
}

/// 200 with the transaction; 409 once it is mined. A client that goes away cancels nothing.
async fn cancel(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((agent_id, id)): Ids<(AgentId, IntentId)>,
    Body(Members(_)): Body<Members>,
) -> Result<Response, Problem> {
    may_replace(&app, &principal, agent_id).await?;
    let tasks = app.tasks.clone();
    let pipeline =
        story::telling(Reason::Cancel.as_str(), async move { replace::cancel(&app, &principal, agent_id, id).await });
    let work = tasks.spawn(pipeline.in_current_span());
    let row = work.await.map_err(|panicked| Problem::internal(&panicked))??;
    Ok(Json(view::transaction(&row, false)).into_response())
}

/// 200 with the transaction and its new hash and fees.
async fn speed_up(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((agent_id, id)): Ids<(AgentId, IntentId)>,
    headers: HeaderMap,
    Body(Members(body)): Body<Members>,
) -> Result<Response, Problem> {
    may_replace(&app, &principal, agent_id).await?;
    let tasks = app.tasks.clone();
    let pipeline = story::telling(Reason::SpeedUp.as_str(), async move {
        let key = headers.get(IDEMPOTENCY_KEY).map(HeaderValue::as_bytes);
        replace::speed_up(&app, &principal, agent_id, id, &body, key).await
    });
    let work = tasks.spawn(pipeline.in_current_span());
    let submitted = work.await.map_err(|panicked| Problem::internal(&panicked))??;
    Ok(reply(StatusCode::OK, &submitted, view::transaction(&submitted.row, false)))
}
