//! The routes of organisations.

use std::sync::Arc;

use axum::Router;

use super::{invitations, limits, members, settings};
use crate::app::App;

/// The routes of this feature.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .merge(members::http::routes())
        .merge(invitations::http::routes())
        .merge(settings::http::routes())
        .merge(limits::http::routes())
}
