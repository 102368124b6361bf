//! How errors about signing keys are answered.

use axum::http::StatusCode;

use super::ResolveError;
use crate::http::problem::Problem;

impl From<ResolveError> for Problem {
    fn from(error: ResolveError) -> Self {
        let text = error.to_string();
        match error {
            ResolveError::Forbidden(_) | ResolveError::Denied(_) => Self::forbidden(text),
            ResolveError::NoKey(_)
            | ResolveError::NotASigningKey(_)
            | ResolveError::Cmek(_)
            | ResolveError::Ambiguous { .. } => Self::unprocessable(text),
            ResolveError::NotActive => Self::new(StatusCode::CONFLICT, text),
            ResolveError::Db(error) => error.into(),
        }
    }
}
