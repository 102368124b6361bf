//! The routes of those who run the installation.

use super::{chains, settings};
use crate::http::routes::Routes;

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new().merge(chains::http::routes()).merge(settings::http::routes())
}
