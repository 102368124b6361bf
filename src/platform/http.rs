//! The routes of those who run the installation.

use std::sync::Arc;

use axum::Router;

use super::{chains, settings};
use crate::app::App;

/// The routes of this feature.
pub fn routes() -> Router<Arc<App>> {
    Router::new().merge(chains::http::routes()).merge(settings::http::routes())
}
