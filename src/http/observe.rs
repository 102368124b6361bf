//! Every request gets an id of ours, which its log lines, its spans and its reply have, and is counted when it is answered.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use super::routes::Route;
use crate::telemetry::record;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// 16 random hexadecimal digits. Never taken from a request: who asks must not write into our log.
#[derive(Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    fn random() -> Self {
        let mut digits = [0; 32];
        let id = Uuid::new_v4().simple();
        let id = id.encode_lower(&mut digits);
        // Hexadecimal digits are a header value.
        Self(HeaderValue::from_str(&id[16..]).unwrap_or(HeaderValue::from_static("none")))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// The templates of the routes that there are: the only ones that become labels.
pub type Templates = Arc<HashSet<&'static str>>;

/// The templates of a table.
#[must_use]
pub fn templates(table: &[Route]) -> Templates {
    Arc::new(table.iter().map(|route| route.path).collect())
}

/// The template of the route that a request is for, as it may be in a log line or a span. Its path may name what is secret, or be all that
/// opens a share; a request for nothing that there is has `none`.
#[derive(Clone, Copy)]
pub struct Template(pub &'static str);

/// A request on its way, counted however it ends: also when its client goes away, and with it everything that was done for the client.
struct Underway {
    route: &'static str,
    method: &'static str,
    began: Instant,
    status: Option<StatusCode>,
}

impl Drop for Underway {
    fn drop(&mut self) {
        let status = self.status.as_ref().map_or("client_gone", StatusCode::as_str);
        record::request(self.route, self.method, status, self.began.elapsed());
    }
}

/// The outermost layer.
pub async fn observe(State(templates): State<Templates>, mut request: Request, next: Next) -> Response {
    let id = RequestId::random();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.and_then(|path| templates.get(path.as_str())).copied().unwrap_or("none");
    let method = name_of(request.method());
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(Template(route));
    let mut underway = Underway { route, method, began: Instant::now(), status: None };
    let mut response = next.run(request).await;
    underway.status = Some(response.status());
    response.headers_mut().insert(X_REQUEST_ID, id.0);
    response
}

/// A method as a word of a known set: what a request calls itself is of any length.
pub fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
