//! `GET /v1/health` and `/v1/health/hsm`: the union of what existing clients read.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::api::health as docs;
use super::extract::Peer;
use super::problem::Problem;
use super::routes::{Routes, get};
use crate::app::App;
use crate::hsm::HsmStatus;

/// The health routes: public.
pub fn routes() -> Routes {
    Routes::new().route("/v1/health", get(health, docs::health())).route("/v1/health/hsm", get(hsm, docs::hsm()))
}

/// 200 always while the process serves; `degraded` when the database or the HSM does not answer, or the database stores nothing.
async fn health(State(app): State<Arc<App>>, peer: Peer) -> Result<Response, Problem> {
    app.limits.check_peer(peer.0)?;
    let ping = tokio::time::timeout(Duration::from_secs(2), crate::db::ping(&app.db));
    let database = matches!(ping.await, Ok(Ok(())));
    // Every daemon reports itself at each of these looks.
    let reports = Duration::from_millis(app.config.keks.poll_ms) * 3 + Duration::from_secs(5);
    let database = database && app.primary.wrote_within(reports);
    let hsm = app.hsm.health().await;
    let healthy = database && hsm.status == HsmStatus::Ok;
    Ok(Json(json!({
        "status": if healthy { "healthy" } else { "degraded" },
        "service": "intentd",
        "version": env!("CARGO_PKG_VERSION"),
        "database": if database { "ok" } else { "unavailable" },
        "hsm": hsm.status,
    }))
    .into_response())
}

/// 200 with the HSM's state, which a canary signature made just now proves; 503 when it cannot sign.
async fn hsm(State(app): State<Arc<App>>, peer: Peer) -> Result<Response, Problem> {
    app.limits.check_peer(peer.0)?;
    let health = app.hsm.health().await;
    let status = match health.status {
        HsmStatus::Ok | HsmStatus::Degraded => StatusCode::OK,
        HsmStatus::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "status": health.status,
        "hsm_provider": health.provider,
        "connected": health.connected,
    });
    Ok((status, Json(body)).into_response())
}
