//! The operators' own listener: `GET /metrics`, and nothing else.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use metrics_exporter_prometheus::PrometheusHandle;

use super::sampler;
use crate::app::App;

/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Scraped {
    app: Arc<App>,
    recorded: PrometheusHandle,
}

/// What the listener serves.
pub(super) fn router(app: Arc<App>, recorded: PrometheusHandle) -> Router {
    Router::new().fallback(serve).with_state(Scraped { app, recorded })
}

async fn serve(State(scraped): State<Scraped>, request: Request) -> Response {
    match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET) => {
            sampler::look(&scraped.app);
            ([(header::CONTENT_TYPE, TEXT_FORMAT)], scraped.recorded.render()).into_response()
        }
        ("/metrics", _) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
