//! The routes of organisations.

use super::{invitations, limits, members, settings};
use crate::http::routes::Routes;

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new()
        .merge(members::http::routes())
        .merge(invitations::http::routes())
        .merge(settings::http::routes())
        .merge(limits::http::routes())
}
