//! All routes, and what wraps them.

use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

use super::extract::{BODY_BYTES_MAX, Peer};
use super::observe::{self, RequestId, Template};
use super::problem::Problem;
use super::routes::Routes;
use crate::app::App;
use crate::telemetry::{story, traces};

/// Every route of the daemon.
#[must_use]
pub fn routes() -> Routes {
    Routes::new()
        .merge(super::health::routes())
        .merge(super::api::http::routes())
        .merge(crate::chain::http::routes())
        .merge(crate::access::http::routes())
        .merge(crate::users::http::routes())
        .merge(crate::agents::http::routes())
        .merge(crate::vaults::http::routes())
        .merge(crate::orgs::http::routes())
        .merge(crate::platform::http::routes())
        .merge(crate::metering::http::routes())
        .merge(crate::audit::http::routes())
        .merge(crate::intents::http::routes())
        .merge(crate::freezes::http::routes())
        .merge(crate::webhooks::http::routes())
        .merge(crate::sharing::http::routes())
        .merge(crate::simulate::settings::http::routes())
        .merge(crate::contracts::http::routes())
}

/// The daemon: its routes, and what all of them have in common.
pub fn router(app: Arc<App>) -> Router {
    let cors = option_layer(super::cors::layer(&app.config.cors));
    let routes = routes();
    let templates = observe::templates(routes.table());
    routes
        .into_router()
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(Arc::clone(&app), no_head))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| -> Response {
            tracing::error!("a handler panicked");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "an internal error; the daemon's log has the cause")
                .into_response()
        }))
        .layer(map_response(only_problems))
        .layer(cors)
        .layer(TraceLayer::new_for_http().make_span_with(|request: &Request| {
            // Nothing that a request says in its own words: not its path, which may be a secret's, and whoever asks writes into no log.
            let id = request.extensions().get().map_or("none", RequestId::as_str);
            let Template(route) = request.extensions().get().copied().unwrap_or(Template("none"));
            let method = observe::name_of(request.method());
            let span = tracing::info_span!(target: story::ROOTS, "http", id, method, route);
            traces::join(&span, request.headers());
            span
        }))
        .layer(from_fn(super::leftover::read))
        .layer(from_fn_with_state(templates, observe::observe))
        .with_state(app)
}

/// To read something here has effects: it is counted (of a share, up to its end), and written down. So `HEAD`, which axum gives to the
/// handlers of `GET`, is for the pages and for what tells of health, and 405 elsewhere.
async fn no_head(State(app): State<Arc<App>>, peer: Peer, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if request.method() == Method::HEAD && path.starts_with("/v1/") && !path.starts_with("/v1/health") {
        return no_method(State(app), peer, request).await.into_response();
    }
    next.run(request).await
}

/// What axum itself refuses, such as a path or a query that it cannot read, is text: a problem of it, as of everything else.
async fn only_problems(response: Response) -> Response {
    const TEXT_BYTES_MAX: usize = 4 * 1024;
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !response.status().is_client_error() || !kind.is_some_and(|kind| kind.starts_with(b"text/plain")) {
        return response;
    }
    let status = response.status();
    let text = to_bytes(response.into_body(), TEXT_BYTES_MAX).await.unwrap_or_default();
    Problem::new(status, String::from_utf8_lossy(&text)).into_response()
}

/// Limited as every request without credentials is.
async fn no_route(State(app): State<Arc<App>>, peer: Peer, request: Request) -> Problem {
    match app.limits.check_peer(peer.0) {
        Ok(()) => Problem::not_found(format!("no route {} {}", request.method(), request.uri().path())),
        Err(too_many) => too_many,
    }
}

/// As [`no_route`].
async fn no_method(State(app): State<Arc<App>>, peer: Peer, request: Request) -> Problem {
    let detail = format!("{} is not a method of {}", request.method(), request.uri().path());
    match app.limits.check_peer(peer.0) {
        Ok(()) => Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail),
        Err(too_many) => too_many,
    }
}
