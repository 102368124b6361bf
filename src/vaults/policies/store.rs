//! Policies in the database.

use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::access::{Actor, Principal};
use crate::db::DbError;
use crate::ids::{OrgId, PolicyId, VaultId};

/// A policy, as the API shows it.
#[derive(Clone, Debug, FromRow)]
pub struct Policy {
    /// Its id.
    pub id: PolicyId,
    /// The vault.
    pub vault_id: VaultId,
    /// The paths.
    pub secret_path_pattern: String,
    /// `user` or `agent`.
    pub principal_type: String,
    /// Whom it grants to.
    pub principal_id: Uuid,
    /// What it grants.
    pub permissions: Vec<String>,
    /// All of them must hold.
    #[sqlx(json(nullable))]
    pub conditions: Option<Value>,
    /// When it ends.
    pub expires_at: Option<OffsetDateTime>,
    /// Who made it.
    pub created_by: Uuid,
    /// `user` or `agent`.
    pub created_by_type: String,
    /// Whether it opens signing keys: only those of managers do.
    pub opens_signing: bool,
    /// Since when.
    pub created_at: OffsetDateTime,
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT id, vault_id, secret_path_pattern, principal_type, principal_id, permissions, conditions, expires_at,
                    created_by, created_by_type, opens_signing, created_at FROM policies ",
            $tail
        )
    };
}

/// Whether the organisation has this principal.
///
/// # Errors
/// As any statement.
pub async fn principal_exists(conn: &mut PgConnection, org_id: OrgId, actor: Actor) -> Result<bool, DbError> {
    let sql = match actor {
        Actor::User(_) => "SELECT 1 FROM users WHERE id = $1 AND org_id = $2 AND is_active",
        Actor::Agent(_) => "SELECT 1 FROM agents WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL",
    };
    let row = sqlx::query(sql).bind(actor.uuid()).bind(org_id).fetch_optional(conn).await?;
    Ok(row.is_some())
}

/// A new policy.
///
/// # Errors
/// As any statement.
pub async fn insert(conn: &mut PgConnection, org_id: OrgId, policy: &Policy) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO policies (id, org_id, vault_id, secret_path_pattern, principal_type, principal_id, permissions, conditions,
                               expires_at, created_by, created_by_type, created_at, opens_signing)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(policy.id)
    .bind(org_id)
    .bind(policy.vault_id)
    .bind(&policy.secret_path_pattern)
    .bind(&policy.principal_type)
    .bind(policy.principal_id)
    .bind(&policy.permissions)
    .bind(policy.conditions.as_ref().map(Json))
    .bind(policy.expires_at)
    .bind(policy.created_by)
    .bind(&policy.created_by_type)
    .bind(policy.created_at)
    .bind(policy.opens_signing)
    .execute(conn)
    .await?;
    Ok(())
}

/// The policies of a vault, oldest first.
///
/// # Errors
/// As any statement.
pub async fn list(conn: &mut PgConnection, org_id: OrgId, vault_id: VaultId) -> Result<Vec<Policy>, DbError> {
    let policies = sqlx::query_as(select!("WHERE vault_id = $1 AND org_id = $2 ORDER BY created_at, id"))
        .bind(vault_id)
        .bind(org_id)
        .fetch_all(conn)
        .await?;
    Ok(policies)
}

/// The policies of a vault that grant something to one principal.
///
/// # Errors
/// As any statement.
pub async fn list_for(
    conn: &mut PgConnection,
    principal: &Principal,
    vault_id: VaultId,
) -> Result<Vec<Policy>, DbError> {
    let policies = sqlx::query_as(select!(
        "WHERE vault_id = $1 AND org_id = $2 AND principal_type = $3 AND principal_id = $4 ORDER BY created_at, id"
    ))
    .bind(vault_id)
    .bind(principal.org_id)
    .bind(principal.actor.kind())
    .bind(principal.actor.uuid())
    .fetch_all(conn)
    .await?;
    Ok(policies)
}

/// A policy, to change it.
///
/// # Errors
/// As any statement.
pub async fn get_for_update(
    conn: &mut PgConnection,
    org_id: OrgId,
    vault_id: VaultId,
    id: PolicyId,
) -> Result<Option<Policy>, DbError> {
    let policy = sqlx::query_as(select!("WHERE id = $1 AND vault_id = $2 AND org_id = $3 FOR UPDATE"))
        .bind(id)
        .bind(vault_id)
        .bind(org_id)
        .fetch_optional(conn)
        .await?;
    Ok(policy)
}

/// Writes what can be changed of a policy.
///
/// # Errors
/// As any statement.
pub async fn update(conn: &mut PgConnection, org_id: OrgId, policy: &Policy) -> Result<(), DbError> {
    sqlx::query("UPDATE policies SET permissions = $3, conditions = $4, expires_at = $5 WHERE id = $1 AND org_id = $2")
        .bind(policy.id)
        .bind(org_id)
        .bind(&policy.permissions)
        .bind(policy.conditions.as_ref().map(Json))
        .bind(policy.expires_at)
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends a policy.
///
/// # Errors
/// As any statement.
pub async fn delete(conn: &mut PgConnection, org_id: OrgId, id: PolicyId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM policies WHERE id = $1 AND org_id = $2").bind(id).bind(org_id).execute(conn).await?;
    Ok(())
}
