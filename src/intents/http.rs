//! The Intents API's routes.

mod lanes;
mod replace;
mod simulate;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tracing::Instrument as _;

use super::api;
use super::parse::Kind;
use super::{IntentError, Submitted, shown, view};
use crate::access::http::{Ids, require};
use crate::access::{Action, Actor, Principal};
use crate::agents;
use crate::app::App;
use crate::audit::Resource;
use crate::http::extract::{Body, Members};
use crate::http::pages;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, post};
use crate::ids::{AgentId, IntentId};
use crate::telemetry::story;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Most rows of one page.
const PAGE_MAX: i64 = 200;

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/agents/{agent_id}/transactions", post(submit, api::submit()).get(list, api::list()))
        .route("/v1/agents/{agent_id}/transactions/sign", post(sign, api::sign()))
        .route("/v1/agents/{agent_id}/transactions/simulate", post(simulate::one, api::simulate()))
        .route("/v1/agents/{agent_id}/transactions/simulate-bundle", post(simulate::bundle, api::simulate_bundle()))
        .route("/v1/agents/{agent_id}/transactions/{transaction_id}", get(get_one, api::get_one()))
        .merge(replace::routes())
        .merge(lanes::routes())
}

/// 201 with the transaction; 200 when it is a replay.
async fn submit(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(agent_id): Ids<String>,
    headers: HeaderMap,
    Body(Members(body)): Body<Members>,
) -> Result<Response, Problem> {
    let submitted = run(app, principal, agent_id, Kind::Submit, headers, body).await?;
    let status = if submitted.replayed { StatusCode::OK } else { StatusCode::CREATED };
    Ok(reply(status, &submitted, view::transaction(&submitted.row, true)))
}

/// 200 with signed bytes that the daemon never broadcasts.
async fn sign(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(agent_id): Ids<String>,
    headers: HeaderMap,
    Body(Members(body)): Body<Members>,
) -> Result<Response, Problem> {
    let submitted = run(app, principal, agent_id, Kind::SignOnly, headers, body).await?;
    Ok(reply(StatusCode::OK, &submitted, view::signed(&submitted.row)))
}

/// The pipeline in a task of its own: a client that goes away cancels nothing.
async fn run(
    app: Arc<App>,
    principal: Principal,
    agent_id: String,
    kind: Kind,
    headers: HeaderMap,
    body: Map<String, Value>,
) -> Result<Submitted, Problem> {
    let agent_id = agent_id_of(&agent_id)?;
    let tasks = app.tasks.clone();
    let pipeline = story::telling(kind.as_str(), async move {
        let key = headers.get(IDEMPOTENCY_KEY).map(HeaderValue::as_bytes);
        super::submit(&app, &principal, agent_id, kind, &body, key).await
    });
    let pipeline = tasks.spawn(pipeline.in_current_span());
    match pipeline.await {
        Ok(result) => result.map_err(Problem::from),
        Err(panicked) => Err(Problem::internal(&panicked)),
    }
}

fn reply(status: StatusCode, submitted: &Submitted, body: Map<String, Value>) -> Response {
    let mut response = (status, Json(body)).into_response();
    if submitted.replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn agent_id_of(text: &str) -> Result<AgentId, Problem> {
    text.parse().map_err(|_| Problem::not_found("no such agent: an agent's id is a UUID"))
}

/// An agent reads its own transactions; a human those of the organisation's agents, also of deleted ones: what they signed goes on.
async fn readable_agent(app: &App, principal: &Principal, text: &str) -> Result<AgentId, Problem> {
    let agent_id = agent_id_of(text)?;
    require(app, principal, Action::TransactionRead, Resource::new("agent", agent_id)).await?;
    match principal.actor {
        Actor::Agent(own) if own == agent_id => Ok(agent_id),
        Actor::Agent(_) => Err(Problem::forbidden("an agent reads its own transactions only")),
        Actor::User(_) => {
            let mut conn = app.db.acquire().await?;
            let existed = agents::store::existed(&mut conn, principal.org_id, agent_id).await?;
            existed.then_some(agent_id).ok_or_else(|| Problem::not_found("no such agent"))
        }
    }
}

#[derive(Deserialize)]
struct GetQuery {
    include_signed_tx: Option<String>,
}

impl GetQuery {
    /// Only the literal `true` and `1`.
    fn with_signed_tx(&self) -> bool {
        matches!(self.include_signed_tx.as_deref(), Some("true" | "1"))
    }
}

async fn get_one(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((agent_id, transaction_id)): Ids<(String, String)>,
    query: Result<Query<GetQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let agent_id = readable_agent(&app, &principal, &agent_id).await?;
    let missing = || Problem::not_found("no such transaction");
    let id: IntentId = transaction_id.parse().map_err(|_| missing())?;
    let row = shown::intent(&mut *app.db.acquire().await?, agent_id, id).await?.ok_or_else(missing)?;
    Ok(Json(view::transaction(&row, query.with_signed_tx())).into_response())
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(flatten)]
    get: GetQuery,
    limit: Option<String>,
    cursor: Option<String>,
}

/// Newest first. `limit` (default 50, at most 200) and `cursor` (from `next_cursor`) page through all of them.
async fn list(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(agent_id): Ids<String>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let agent_id = readable_agent(&app, &principal, &agent_id).await?;
    let limit = match query.limit.as_deref().map(str::parse::<i64>) {
        None => 50,
        Some(Ok(limit)) if (1..=PAGE_MAX).contains(&limit) => limit,
        Some(_) => return Err(Problem::bad_request(format!("limit: must be from 1 to {PAGE_MAX}"))),
    };
    let after = query.cursor.as_deref().map(cursor_from).transpose()?;
    let mut rows = shown::intents(&mut *app.db.acquire().await?, agent_id, after, limit + 1).await?;
    let more = pages::cut(&mut rows, limit);
    let with_signed_tx = query.get.with_signed_tx();
    let transactions: Vec<_> = rows.iter().map(|row| view::transaction(row, with_signed_tx)).collect();
    let mut body = json!({ "transactions": transactions });
    if let (true, Some(last), Value::Object(body)) = (more, rows.last(), &mut body) {
        body.insert("next_cursor".to_owned(), Value::String(pages::cursor(last.created_at, last.id)));
    }
    Ok(Json(body).into_response())
}

fn cursor_from(text: &str) -> Result<(OffsetDateTime, IntentId), Problem> {
    pages::read_cursor(text).ok_or_else(|| Problem::bad_request("cursor: must be a next_cursor of this list"))
}

impl From<IntentError> for Problem {
    fn from(error: IntentError) -> Self {
        let text = error.to_string();
        match error {
            IntentError::Parse(_) | IntentError::BadIdempotencyKey => Self::bad_request(text),
            IntentError::NotAllowed(_) | IntentError::Guardrail(_) | IntentError::ChainDisabled(_) => {
                Self::forbidden(text)
            }
            IntentError::NotFound(_) => Self::not_found(text),
            IntentError::Key(error) => error.into(),
            IntentError::InFlight | IntentError::ClaimLost => Self::new(StatusCode::CONFLICT, text).retry_after(1),
            IntentError::IdempotencyMismatch => Self::unprocessable(text).of_type("idempotency_mismatch"),
            IntentError::Nonce { occupied: true, .. } | IntentError::Conflict(_) => {
                Self::new(StatusCode::CONFLICT, text)
            }
            IntentError::Nonce { occupied: false, .. } | IntentError::Doomed(_) => Self::unprocessable(text),
            IntentError::Fees(error) => fee_problem(&error),
            IntentError::SimulationReverted { transaction, .. } => Self::unprocessable(text).with_members(transaction),
            IntentError::CouldNotCheck { retry_after_s, .. } => Self::unavailable(text, retry_after_s),
            IntentError::LaneJump { .. } => Self::unavailable(text, 60),
            IntentError::Hsm(error) => error.into(),
            IntentError::Db(error) => error.into(),
            IntentError::OutcomeUnknown(_) | IntentError::Stopping => Self::unavailable(text, 2),
        }
    }
}

/// Contradictions are 400, rules of humans 403, and what the market makes impossible 422.
fn fee_problem(error: &crate::chain::fees::FeeError) -> Problem {
    use crate::chain::fees::FeeError;
    match error {
        FeeError::BothKinds | FeeError::OtherType | FeeError::TipAboveMax { .. } => {
            Problem::bad_request(error.to_string())
        }
        FeeError::BelowBaseFee { .. } | FeeError::TooLowToReplace { .. } | FeeError::NoBaseFee => {
            Problem::unprocessable(error.to_string())
        }
        FeeError::AboveCeiling { .. } => Problem::forbidden(format!("Transaction denied by guardrail: {error}")),
        FeeError::QuoteAboveCeiling { .. } => Problem::unavailable(error.to_string(), 30),
    }
}
