//! The routes that only look. `Idempotency-Key` means nothing here: nothing is done that could be done twice.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::agent_id_of;
use crate::access::Principal;
use crate::access::http::Ids;
use crate::app::App;
use crate::http::extract::{Body, Members};
use crate::http::problem::Problem;
use crate::intents::simulation;

/// 200 with what it would do, also when it would fail.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(agent_id): Ids<String>,
    Body(Members(body)): Body<Members>,
) -> Result<Json<Value>, Problem> {
    let agent_id = agent_id_of(&agent_id)?;
    let tasks = app.tasks.clone();
    let work = tasks.spawn(async move { simulation::one(&app, &principal, agent_id, &body).await });
    finished(work.await)
}

/// 200 with what they would do one after the other, up to the first that would fail.
pub(super) async fn bundle(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(agent_id): Ids<String>,
    Body(Members(body)): Body<Members>,
) -> Result<Json<Value>, Problem> {
    let agent_id = agent_id_of(&agent_id)?;
    let tasks = app.tasks.clone();
    let work = tasks.spawn(async move { simulation::bundle(&app, &principal, agent_id, &body).await });
    finished(work.await)
}

fn finished(
    result: Result<Result<Value, crate::intents::IntentError>, tokio::task::JoinError>,
) -> Result<Json<Value>, Problem> {
    match result {
        Ok(result) => Ok(Json(result?)),
        Err(panicked) => Err(Problem::internal(&panicked)),
    }
}
