//! Organisations and humans in the database.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use crate::access::Role;
use crate::access::tokens::PlainKey;
use crate::db::DbError;
use crate::ids::{ApiKeyId, OrgId, UserId};

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
    /// Since when.
    pub created_at: OffsetDateTime,
}

/// What an organisation has set.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct Settings {
    /// Every intent is simulated before it is signed.
    pub require_simulation: bool,
    /// Lifting a restriction of an agent needs `"confirm_unrestricted": true`.
    pub guardrail_widening_requires_confirm: bool,
}

/// A new organisation.
///
/// # Errors
/// As any statement.
pub async fn insert_organisation(conn: &mut PgConnection, id: OrgId, name: &str) -> Result<(), DbError> {
    sqlx::query("INSERT INTO organisations (id, name) VALUES ($1, $2)").bind(id).bind(name).execute(conn).await?;
    Ok(())
}

/// Its owner.
///
/// # Errors
/// [`DbError::Duplicate`] when the address has an account.
pub async fn insert_owner(
    conn: &mut PgConnection,
    org_id: OrgId,
    id: UserId,
    email: &str,
    password_hash: Option<String>,
) -> Result<(), DbError> {
    sqlx::query("INSERT INTO users (id, org_id, email, role, password_hash) VALUES ($1, $2, $3, $4, $5)")
        .bind(id)
        .bind(org_id)
        .bind(email)
        .bind(Role::Owner)
        .bind(password_hash)
        .execute(conn)
        .await?;
    Ok(())
}

/// A human's key, by its hash.
///
/// # Errors
/// As any statement.
pub async fn insert_user_key(
    conn: &mut PgConnection,
    org_id: OrgId,
    user_id: UserId,
    name: &str,
    key: &PlainKey,
) -> Result<ApiKeyId, DbError> {
    let id = ApiKeyId::random();
    sqlx::query(
        "INSERT INTO user_api_keys (id, org_id, user_id, name, key_prefix, key_hash) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(id)
    .bind(org_id)
    .bind(user_id)
    .bind(name)
    .bind(key.prefix())
    .bind(key.hash().0.as_slice())
    .execute(conn)
    .await?;
    Ok(id)
}

/// The humans of an organisation, oldest first.
///
/// # Errors
/// As any statement.
pub async fn members(conn: &mut PgConnection, org_id: OrgId) -> Result<Vec<Member>, DbError> {
    let members = sqlx::query_as(
        "SELECT id, email, display_name, role, created_at FROM users WHERE org_id = $1 AND is_active ORDER BY created_at, id",
    )
    .bind(org_id)
    .fetch_all(conn)
    .await?;
    Ok(members)
}

/// The human with this address who may come in, and the organisation. With `hold`, its row is held until the transaction ends.
///
/// # Errors
/// As any statement.
pub async fn human_by_email(
    conn: &mut PgConnection,
    email: &str,
    hold: bool,
) -> Result<Option<(UserId, OrgId)>, DbError> {
    let sql = if hold {
        "SELECT id, org_id FROM users WHERE email = $1 AND is_active FOR NO KEY UPDATE"
    } else {
        "SELECT id, org_id FROM users WHERE email = $1 AND is_active"
    };
    Ok(sqlx::query_as(sql).bind(email).fetch_optional(conn).await?)
}

/// An organisation's settings.
///
/// # Errors
/// As any statement; there is a row for every organisation that a principal can name.
pub async fn settings(conn: &mut PgConnection, org_id: OrgId) -> Result<Settings, DbError> {
    let settings = sqlx::query_as(
        "SELECT require_simulation, guardrail_widening_requires_confirm FROM organisations WHERE id = $1",
    )
    .bind(org_id)
    .fetch_one(conn)
    .await?;
    Ok(settings)
}
