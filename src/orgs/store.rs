//! Organisations and humans in the database.

use sqlx::PgConnection;

use crate::access::Role;
use crate::access::tokens::PlainKey;
use crate::db::DbError;
use crate::ids::{ApiKeyId, OrgId, UserId};

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
