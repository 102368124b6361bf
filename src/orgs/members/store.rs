//! Members in the database.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use super::rules::Standing;
use crate::access::Role;
use crate::db::DbError;
use crate::ids::{OrgId, UserId};

/// A human of an organisation.
#[derive(Clone, Debug, FromRow)]
pub struct Member {
    /// The id.
    pub id: UserId,
    /// The address, in lower case.
    pub email: String,
    /// The name to show.
    pub display_name: Option<String>,
    /// The role.
    pub role: Role,
    /// `password`, or `api_key` where none is set.
    pub auth_method: String,
    /// Since when.
    pub created_at: OffsetDateTime,
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT id, email, display_name, role, created_at,
                    CASE WHEN password_hash IS NULL THEN 'api_key' ELSE 'password' END AS auth_method
             FROM users WHERE org_id = $1 AND is_active ",
            $tail
        )
    };
}

/// The humans of an organisation, oldest first. Their number is limited.
///
/// # Errors
/// As any statement.
pub async fn list(conn: &mut PgConnection, org_id: OrgId) -> Result<Vec<Member>, DbError> {
    Ok(sqlx::query_as(select!("ORDER BY created_at, id")).bind(org_id).fetch_all(conn).await?)
}

/// One of them.
///
/// # Errors
/// As any statement.
pub async fn get(conn: &mut PgConnection, org_id: OrgId, id: UserId) -> Result<Option<Member>, DbError> {
    Ok(sqlx::query_as(select!("AND id = $2")).bind(org_id).bind(id).fetch_optional(conn).await?)
}

/// The owners, the caller and the target, as they are once all of their rows are held, in the order of their ids. An owner that is made
/// meanwhile may be missing, one that is unmade is not counted.
///
/// # Errors
/// As any statement.
pub async fn hold(
    conn: &mut PgConnection,
    org_id: OrgId,
    caller: Option<UserId>,
    target: UserId,
) -> Result<Vec<Standing>, DbError> {
    let held: Vec<(UserId, Role)> = sqlx::query_as(
        "SELECT id, role FROM users WHERE org_id = $1 AND is_active AND (role = 'owner' OR id = $2 OR id = $3)
         ORDER BY id FOR NO KEY UPDATE",
    )
    .bind(org_id)
    .bind(caller)
    .bind(target)
    .fetch_all(conn)
    .await?;
    Ok(held.into_iter().map(|(id, role)| Standing { id, role }).collect())
}

/// Gives a role.
///
/// # Errors
/// As any statement.
pub async fn set_role(conn: &mut PgConnection, org_id: OrgId, id: UserId, role: Role) -> Result<(), DbError> {
    sqlx::query("UPDATE users SET role = $3 WHERE id = $2 AND org_id = $1")
        .bind(org_id)
        .bind(id)
        .bind(role)
        .execute(conn)
        .await?;
    Ok(())
}
