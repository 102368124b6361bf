//! Vaults in the database.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Vault;
use crate::access::{Actor, Principal};
use crate::db::DbError;
use crate::ids::{AgentId, OrgId, UserId, VaultId};

/// The organisation's reserved vault: agents' own keys are in it. Nobody makes a vault of this name by hand.
pub const AGENT_KEYS_VAULT: &str = "__agent-keys";

macro_rules! select {
    ($tail:literal) => {
        concat!("SELECT v.id, v.org_id, v.name, v.description, v.created_by, v.created_by_type, v.created_at FROM vaults v ", $tail)
    };
}

#[derive(FromRow)]
struct Row {
    id: VaultId,
    org_id: OrgId,
    name: String,
    description: Option<String>,
    created_by: Uuid,
    created_by_type: String,
    created_at: OffsetDateTime,
}

impl Row {
    fn vault(self) -> Result<Vault, DbError> {
        Ok(Vault {
            id: self.id,
            org_id: self.org_id,
            name: self.name,
            description: self.description,
            created_by: actor(&self.created_by_type, self.created_by)?,
            created_at: self.created_at,
        })
    }
}

/// A human or agent as two columns say it.
///
/// # Errors
/// For a kind that a CHECK does not allow.
pub(super) fn actor(kind: &str, id: Uuid) -> Result<Actor, DbError> {
    match kind {
        "user" => Ok(Actor::User(UserId(id))),
        "agent" => Ok(Actor::Agent(AgentId(id))),
        _ => Err(DbError::Internal(sqlx::Error::Decode(format!("unknown kind of principal {kind:?}").into()))),
    }
}

/// A vault of the organisation.
///
/// # Errors
/// As any statement.
pub async fn get(conn: &mut PgConnection, org_id: OrgId, id: VaultId) -> Result<Option<Vault>, DbError> {
    let row: Option<Row> = sqlx::query_as(select!("WHERE v.id = $1 AND v.org_id = $2 AND v.deleted_at IS NULL"))
        .bind(id)
        .bind(org_id)
        .fetch_optional(conn)
        .await?;
    row.map(Row::vault).transpose()
}

/// As [`get`], with the row held `FOR SHARE`: it is not deleted before the transaction ends.
///
/// # Errors
/// As any statement.
pub async fn get_for_share(conn: &mut PgConnection, org_id: OrgId, id: VaultId) -> Result<Option<Vault>, DbError> {
    let row: Option<Row> =
        sqlx::query_as(select!("WHERE v.id = $1 AND v.org_id = $2 AND v.deleted_at IS NULL FOR SHARE"))
            .bind(id)
            .bind(org_id)
            .fetch_optional(conn)
            .await?;
    row.map(Row::vault).transpose()
}

/// The vaults that a principal may know: for humans all of the organisation, for an agent its own and those with a policy for it,
/// within those it is bound to. Oldest first.
///
/// # Errors
/// As any statement.
pub async fn list(conn: &mut PgConnection, principal: &Principal) -> Result<Vec<Vault>, DbError> {
    let rows: Vec<Row> = match principal.actor {
        Actor::User(_) => {
            sqlx::query_as(select!("WHERE v.org_id = $1 AND v.deleted_at IS NULL ORDER BY v.created_at, v.id"))
                .bind(principal.org_id)
                .fetch_all(conn)
                .await?
        }
        Actor::Agent(id) => {
            sqlx::query_as(select!(
                "JOIN agents a ON a.id = $2 AND a.org_id = v.org_id
                 WHERE v.org_id = $1 AND v.deleted_at IS NULL AND (cardinality(a.vault_ids) = 0 OR v.id = ANY(a.vault_ids))
                   AND ((v.created_by_type = 'agent' AND v.created_by = a.id)
                        OR EXISTS (SELECT 1 FROM policies p WHERE p.vault_id = v.id AND p.principal_type = 'agent'
                                   AND p.principal_id = a.id AND (p.expires_at IS NULL OR p.expires_at > now())))
                 ORDER BY v.created_at, v.id"
            ))
            .bind(principal.org_id)
            .bind(id)
            .fetch_all(conn)
            .await?
        }
    };
    rows.into_iter().map(Row::vault).collect()
}

/// A new vault.
///
/// # Errors
/// [`DbError::Duplicate`] when the organisation has one of this name.
pub async fn insert(conn: &mut PgConnection, vault: &Vault) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO vaults (id, org_id, name, description, created_by, created_by_type, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(vault.id)
    .bind(vault.org_id)
    .bind(&vault.name)
    .bind(vault.description.as_deref())
    .bind(vault.created_by.uuid())
    .bind(vault.created_by.kind())
    .bind(vault.created_at)
    .execute(conn)
    .await?;
    Ok(())
}

/// The organisation's reserved vault, made if it is not there. Two requests at once make one. It is a human's, so that no agent owns what
/// is in it.
///
/// # Errors
/// As any statement; [`DbError::Duplicate`] when an agent owns a vault of this name.
pub async fn agent_keys_vault(conn: &mut PgConnection, org_id: OrgId, created_by: UserId) -> Result<Vault, DbError> {
    sqlx::query(
        "INSERT INTO vaults (id, org_id, name, description, created_by, created_by_type) VALUES ($1, $2, $3, $4, $5, 'user')
         ON CONFLICT (org_id, name) WHERE deleted_at IS NULL DO NOTHING",
    )
    .bind(VaultId::random())
    .bind(org_id)
    .bind(AGENT_KEYS_VAULT)
    .bind("Keys of this organisation's agents")
    .bind(created_by)
    .execute(&mut *conn)
    .await?;
    // A statement of its own: it sees what another request has made meanwhile.
    let row: Option<Row> = sqlx::query_as(select!(
        "WHERE v.org_id = $1 AND v.name = $2 AND v.deleted_at IS NULL AND v.created_by_type = 'user'"
    ))
    .bind(org_id)
    .bind(AGENT_KEYS_VAULT)
    .fetch_optional(conn)
    .await?;
    row.ok_or_else(|| DbError::Duplicate(sqlx::Error::RowNotFound))?.vault()
}

/// Deletes a vault. Its signing keys sign nothing new, but stay until what they signed is settled.
///
/// # Errors
/// As any statement. `Ok(false)`: there is none.
pub async fn delete(conn: &mut PgConnection, org_id: OrgId, id: VaultId) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE vaults SET deleted_at = now() WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL")
        .bind(id)
        .bind(org_id)
        .execute(&mut *conn)
        .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query("SELECT 1 FROM secrets WHERE vault_id = $1 ORDER BY id FOR UPDATE")
        .bind(id)
        .execute(&mut *conn)
        .await?;
    sqlx::query(
        "UPDATE signing_keys SET state = 'superseded', superseded_at = now() WHERE vault_id = $1 AND state = 'active'",
    )
    .bind(id)
    .execute(conn)
    .await?;
    Ok(true)
}

/// The first of these that is no vault of the organisation.
///
/// # Errors
/// As any statement.
pub async fn first_unknown(
    conn: &mut PgConnection,
    org_id: OrgId,
    ids: &[VaultId],
) -> Result<Option<VaultId>, DbError> {
    let known: Vec<VaultId> =
        sqlx::query_scalar("SELECT id FROM vaults WHERE org_id = $1 AND id = ANY($2) AND deleted_at IS NULL")
            .bind(org_id)
            .bind(ids)
            .fetch_all(conn)
            .await?;
    Ok(ids.iter().copied().find(|id| !known.contains(id)))
}
