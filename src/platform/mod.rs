//! The installation, as those who run it see it: platform admins, chains, settings.

pub mod chains;
pub mod http;
pub mod settings;
pub mod store;

use sqlx::PgPool;

use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::ids::UserId;

/// Makes a human a platform admin, or unmakes one. For the operator's own command line only: no route does it. Holds from the human's
/// next request on. `None`: there is no active account with this address.
///
/// # Errors
/// As any statement.
pub async fn set_platform_admin(pool: &PgPool, email: &str, on: bool) -> Result<Option<UserId>, DbError> {
    let mut tx = pool.begin().await?;
    let Some((org_id, user_id)) = store::set_platform_admin(&mut tx, &email.trim().to_lowercase(), on).await? else {
        return Ok(None);
    };
    let action = if on { "platform.admin_grant" } else { "platform.admin_revoke" };
    audit::record(&mut tx, Event::by_system(org_id, action, Resource::new("member", user_id))).await?;
    tx.commit().await?;
    Ok(Some(user_id))
}
