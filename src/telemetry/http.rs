//! The operators' own listener: `GET /metrics`, and nothing else.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use metrics_exporter_prometheus::PrometheusHandle;

use super::sampler::{self, LastRead};
use crate::app::App;

/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Scraped {
    app: Arc<App>,
    recorded: PrometheusHandle,
    last: Arc<LastRead>,
}

/// What the listener serves.
pub(super) fn router(app: Arc<App>, recorded: PrometheusHandle, last: Arc<LastRead>) -> Router {
    Router::new().fallback(serve).with_state(Scraped { app, recorded, last })
}

async fn serve(State(scraped): State<Scraped>, request: Request) -> Response {
    match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET) => {
            sampler::look(&scraped.app, &scraped.last);
            ([(header::CONTENT_TYPE, TEXT_FORMAT)], without_withdrawn(&scraped.recorded.render())).into_response()
        }
        ("/metrics", _) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Without the series that were withdrawn ([`super::handles::WITHDRAWN`]): what is not there is what Prometheus takes for gone.
fn without_withdrawn(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| line.starts_with('#') || !line.trim_end().ends_with(" NaN")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_withdrawn_is_not_served() {
        let text = "# HELP a NaN\n# TYPE a gauge\na{b=\"c\"} NaN\na{b=\"d NaN\"} 1\n\n";
        assert_eq!(without_withdrawn(text), "# HELP a NaN\n# TYPE a gauge\na{b=\"d NaN\"} 1\n\n");
    }
}
