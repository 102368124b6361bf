//! Usage in the database.

use sqlx::{FromRow, PgConnection, PgPool};
use time::Date;

use super::Kind;
use crate::db::DbError;
use crate::ids::OrgId;

/// Adds counts to their rows, in one statement and in the order given.
///
/// # Errors
/// As any statement.
pub async fn add(pool: &PgPool, rows: &[((OrgId, Date, Kind), u64)]) -> Result<(), DbError> {
    let org_ids: Vec<OrgId> = rows.iter().map(|((org_id, ..), _)| *org_id).collect();
    let months: Vec<Date> = rows.iter().map(|((_, month, _), _)| *month).collect();
    let kinds: Vec<&str> = rows.iter().map(|((.., kind), _)| kind.as_str()).collect();
    let counts: Vec<i64> = rows.iter().map(|(_, count)| i64::try_from(*count).unwrap_or(i64::MAX)).collect();
    sqlx::query(
        "INSERT INTO usage_counts AS u (org_id, month, kind, count)
         SELECT org_id, month, kind, count FROM unnest($1::uuid[], $2::date[], $3::text[], $4::bigint[]) WITH ORDINALITY
              AS added (org_id, month, kind, count, place) ORDER BY place
         ON CONFLICT (org_id, month, kind) DO UPDATE SET count = u.count + excluded.count",
    )
    .bind(org_ids)
    .bind(months)
    .bind(kinds)
    .bind(counts)
    .execute(pool)
    .await?;
    Ok(())
}

/// One month's count of one kind.
#[derive(Clone, Debug, FromRow)]
pub struct Count {
    /// Its first day.
    pub month: Date,
    /// `requests` or `signatures`.
    pub kind: String,
    /// How many.
    pub count: i64,
}

/// The counts of an organisation, newest month first.
///
/// # Errors
/// As any statement.
pub async fn list(conn: &mut PgConnection, org_id: OrgId, limit: i64) -> Result<Vec<Count>, DbError> {
    let counts = sqlx::query_as(
        "SELECT month, kind, count FROM usage_counts WHERE org_id = $1 ORDER BY month DESC, kind LIMIT $2",
    )
    .bind(org_id)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(counts)
}

/// What the organisation has said about going over a plan.
///
/// # Errors
/// As any statement.
pub async fn overage_method(conn: &mut PgConnection, org_id: OrgId) -> Result<Option<String>, DbError> {
    let method = sqlx::query_scalar("SELECT overage_method FROM organisations WHERE id = $1")
        .bind(org_id)
        .fetch_one(conn)
        .await?;
    Ok(method)
}

/// Keeps what the organisation says about going over a plan.
///
/// # Errors
/// As any statement.
pub async fn set_overage_method(conn: &mut PgConnection, org_id: OrgId, method: &str) -> Result<(), DbError> {
    sqlx::query("UPDATE organisations SET overage_method = $2 WHERE id = $1")
        .bind(org_id)
        .bind(method)
        .execute(conn)
        .await?;
    Ok(())
}
