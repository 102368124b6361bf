//! RFC 7807 problem details: the one place where errors become replies.
//!
//! The public text is the error's `Display`; its sources go to the log only. Refused by a rule (4xx) and could not check (503)
//! are different errors all the way down.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// A problem reply.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    members: Map<String, Value>,
    retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem of type `about:blank`, whose title is the status' own phrase.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, kind: "about:blank", detail: detail.into(), members: Map::new(), retry_after_s: None }
    }

    /// 400: the request cannot be read; the detail names the field and the mend.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401.
    #[must_use]
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// 403: refused by a rule.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 422: understood, and refused before anything was reserved or signed.
    #[must_use]
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 503 with `Retry-After`: it could not be checked.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(retry_after_s)
    }

    /// 500, with the cause in the log.
    #[must_use]
    pub fn internal(cause: &dyn std::error::Error) -> Self {
        tracing::error!(error = %chain(cause), "internal error");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "an internal error; the daemon's log has the cause")
    }

    /// With one of the types that clients compare.
    #[must_use]
    pub fn of_type(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// With an extra member. One named `status` replaces the number (a refused simulation is also a transaction).
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// With every member of an object.
    #[must_use]
    pub fn with_members(mut self, members: Map<String, Value>) -> Self {
        self.members.extend(members);
        self
    }

    /// With `Retry-After` in whole seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

/// An error with all its sources, for the log.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": self.kind,
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(body) = &mut body {
            body.extend(self.members);
        }
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<crate::db::DbError> for Problem {
    fn from(error: crate::db::DbError) -> Self {
        use crate::db::DbError;
        match &error {
            DbError::Unavailable(_) | DbError::Busy(_) => {
                tracing::warn!(error = %chain(&error), "the database could not serve a request");
                Self::unavailable(error.to_string(), 1)
            }
            DbError::Duplicate(_) => Self::new(StatusCode::CONFLICT, error.to_string()),
            DbError::Internal(_) | DbError::Unfit(_) => Self::internal(&error),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        crate::db::DbError::from(error).into()
    }
}
