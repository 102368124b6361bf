//! An organisation's settings in the database.

use sqlx::{FromRow, PgConnection};

use crate::db::DbError;
use crate::ids::OrgId;

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct Settings {
    /// Every intent is simulated before it is signed.
    pub require_simulation: bool,
    /// Lifting a restriction of an agent needs `"confirm_unrestricted": true`.
    pub guardrail_widening_requires_confirm: bool,
}

/// The settings.
///
/// # Errors
/// As any statement; there is a row for every organisation that a principal can name.
pub async fn get(conn: &mut PgConnection, org_id: OrgId) -> Result<Settings, DbError> {
    let settings = sqlx::query_as(
        "SELECT require_simulation, guardrail_widening_requires_confirm FROM organisations WHERE id = $1",
    )
    .bind(org_id)
    .fetch_one(conn)
    .await?;
    Ok(settings)
}

/// As [`get`], to change them, behind the organisation's closed gate: what is being signed has read the old ones and is done.
///
/// # Errors
/// As any statement.
pub async fn get_for_update(conn: &mut PgConnection, org_id: OrgId) -> Result<Settings, DbError> {
    let settings = sqlx::query_as(
        "SELECT require_simulation, guardrail_widening_requires_confirm FROM organisations WHERE id = $1 FOR NO KEY UPDATE",
    )
    .bind(org_id)
    .fetch_one(conn)
    .await?;
    Ok(settings)
}

/// Writes them.
///
/// # Errors
/// As any statement.
pub async fn set(conn: &mut PgConnection, org_id: OrgId, settings: &Settings) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE organisations SET require_simulation = $2, guardrail_widening_requires_confirm = $3 WHERE id = $1",
    )
    .bind(org_id)
    .bind(settings.require_simulation)
    .bind(settings.guardrail_widening_requires_confirm)
    .execute(conn)
    .await?;
    Ok(())
}
