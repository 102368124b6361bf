//! The organisations' choices in the database.

use sqlx::{PgConnection, PgPool, Row as _};

use super::{Account, Choice};
use crate::access::SecretPath;
use crate::db::DbError;
use crate::ids::{OrgId, UserId, VaultId};
use crate::simulate::tenderly::Slug;

/// An organisation's choice; `None`: the daemon's.
///
/// # Errors
/// As any statement.
pub async fn get(pool: &PgPool, org_id: OrgId) -> Result<Option<Choice>, DbError> {
    let row = sqlx::query(
        "SELECT backend, account, project, vault_id, secret_path, set_by FROM simulation_settings WHERE org_id = $1",
    )
    .bind(org_id)
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let slug = |name: &str| -> Result<Option<Slug>, sqlx::Error> {
        Ok(row.try_get::<Option<String>, _>(name)?.as_deref().and_then(Slug::parse))
    };
    let backend: String = row.try_get("backend")?;
    let path = row.try_get::<Option<String>, _>("secret_path")?.and_then(|path| SecretPath::parse(&path).ok());
    let vault_id: Option<VaultId> = row.try_get("vault_id")?;
    let set_by: UserId = row.try_get("set_by")?;
    match (backend.as_str(), slug("account")?, slug("project")?, vault_id, path) {
        ("rpc", None, None, None, None) => Ok(Some(Choice::Rpc)),
        ("tenderly", Some(account), Some(project), Some(vault_id), Some(path)) => {
            Ok(Some(Choice::Tenderly(Account { account, project, vault_id, path, set_by })))
        }
        // Whoever chose a service is not answered by somebody else.
        _ => Err(sqlx::Error::Decode("an organisation's simulation settings cannot be read".into()).into()),
    }
}

/// Sets an organisation's choice.
///
/// # Errors
/// As any statement.
pub async fn put(conn: &mut PgConnection, org_id: OrgId, choice: &Choice, set_by: UserId) -> Result<(), DbError> {
    let (backend, account) = match choice {
        Choice::Rpc => ("rpc", None),
        Choice::Tenderly(account) => ("tenderly", Some(account)),
    };
    sqlx::query(
        "INSERT INTO simulation_settings (org_id, backend, account, project, vault_id, secret_path, set_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (org_id) DO UPDATE SET backend = $2, account = $3, project = $4, vault_id = $5, secret_path = $6, set_by = $7,
                updated_at = now()",
    )
    .bind(org_id)
    .bind(backend)
    .bind(account.map(|account| account.account.as_str()))
    .bind(account.map(|account| account.project.as_str()))
    .bind(account.map(|account| account.vault_id))
    .bind(account.map(|account| account.path.as_str()))
    .bind(set_by)
    .execute(conn)
    .await?;
    Ok(())
}

/// Back to the daemon's. `false`: it was there already.
///
/// # Errors
/// As any statement.
pub async fn delete(conn: &mut PgConnection, org_id: OrgId) -> Result<bool, DbError> {
    let done = sqlx::query("DELETE FROM simulation_settings WHERE org_id = $1").bind(org_id).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}
