//! Platform admins in the database.

use sqlx::PgConnection;

use crate::db::DbError;
use crate::ids::{OrgId, UserId};

/// Sets the flag of an active account; gives whose it is.
///
/// # Errors
/// As any statement.
pub async fn set_platform_admin(
    conn: &mut PgConnection,
    email: &str,
    on: bool,
) -> Result<Option<(OrgId, UserId)>, DbError> {
    let whose =
        sqlx::query_as("UPDATE users SET platform_admin = $2 WHERE email = $1 AND is_active RETURNING org_id, id")
            .bind(email)
            .bind(on)
            .fetch_optional(conn)
            .await?;
    Ok(whose)
}
