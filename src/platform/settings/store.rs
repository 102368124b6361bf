//! The installation's settings in the database.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::Setting;
use crate::db::DbError;
use crate::ids::UserId;

/// Every setting with its value.
///
/// # Errors
/// As any statement.
pub async fn all(conn: &mut PgConnection) -> Result<BTreeMap<&'static str, String>, DbError> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT key, value FROM platform_settings").fetch_all(conn).await?;
    let value = |setting: Setting| {
        let set = rows.iter().find(|(key, _)| key == setting.key()).map(|(_, value)| value.clone());
        (setting.key(), set.unwrap_or_else(|| setting.default_value().to_owned()))
    };
    Ok(Setting::ALL.map(value).into())
}

/// As [`all`], with the table held against other changes until the transaction ends.
///
/// # Errors
/// As any statement.
pub async fn all_for_update(conn: &mut PgConnection) -> Result<BTreeMap<&'static str, String>, DbError> {
    sqlx::query("LOCK TABLE platform_settings IN SHARE ROW EXCLUSIVE MODE").execute(&mut *conn).await?;
    all(conn).await
}

/// Sets one.
///
/// # Errors
/// As any statement.
pub async fn set(conn: &mut PgConnection, setting: Setting, value: &str, by: Option<UserId>) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO platform_settings (key, value, updated_by) VALUES ($1, $2, $3)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_by = excluded.updated_by, updated_at = now()",
    )
    .bind(setting.key())
    .bind(value)
    .bind(by)
    .execute(conn)
    .await?;
    Ok(())
}
