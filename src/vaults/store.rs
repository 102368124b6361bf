//! Vaults in the database.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{AGENT_KEYS, Vault};
use crate::access::{Actor, Principal};
use crate::db::DbError;
use crate::ids::{AgentId, OrgId, UserId, VaultId};

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT v.id, v.org_id, v.name, v.description, v.created_by, v.created_by_type, v.created_at, v.cmek_fingerprint
             FROM vaults v ",
            $tail
        )
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
    cmek_fingerprint: Option<String>,
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
            cmek_fingerprint: self.cmek_fingerprint,
        })
    }
}

/// A vault's columns in a statement about something in it, beside that thing's own: [`joined_vault`](macro@joined_vault) selects them.
#[derive(FromRow)]
pub(crate) struct JoinedVault {
    vault_id: VaultId,
    vault_org_id: OrgId,
    vault_name: String,
    vault_description: Option<String>,
    vault_created_by: Uuid,
    vault_created_by_type: String,
    vault_created_at: OffsetDateTime,
    vault_cmek_fingerprint: Option<String>,
}

/// The columns of [`JoinedVault`], of a table that is called `v`.
macro_rules! joined_vault {
    () => {
        "v.id AS vault_id, v.org_id AS vault_org_id, v.name AS vault_name, v.description AS vault_description,
         v.created_by AS vault_created_by, v.created_by_type AS vault_created_by_type, v.created_at AS vault_created_at,
         v.cmek_fingerprint AS vault_cmek_fingerprint"
    };
}
pub(crate) use joined_vault;

impl JoinedVault {
    /// Its id.
    pub(super) fn id(&self) -> VaultId {
        self.vault_id
    }

    /// The vault.
    ///
    /// # Errors
    /// As [`get`].
    pub(super) fn vault(self) -> Result<Vault, DbError> {
        Ok(Vault {
            id: self.vault_id,
            org_id: self.vault_org_id,
            name: self.vault_name,
            description: self.vault_description,
            created_by: actor(&self.vault_created_by_type, self.vault_created_by)?,
            created_at: self.vault_created_at,
            cmek_fingerprint: self.vault_cmek_fingerprint,
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

/// As [`get`], with the row held `FOR UPDATE`: nothing is stored in the vault before the transaction ends.
///
/// # Errors
/// As any statement.
pub async fn get_for_update(conn: &mut PgConnection, org_id: OrgId, id: VaultId) -> Result<Option<Vault>, DbError> {
    let row: Option<Row> =
        sqlx::query_as(select!("WHERE v.id = $1 AND v.org_id = $2 AND v.deleted_at IS NULL FOR UPDATE"))
            .bind(id)
            .bind(org_id)
            .fetch_optional(conn)
            .await?;
    row.map(Row::vault).transpose()
}

/// Where a page of vaults ended: in the order of their making.
pub type After = (OffsetDateTime, VaultId);

/// The vaults that a principal may know: for humans all of the organisation, for an agent its own and those with a policy for it,
/// within those it is bound to. Oldest first, at most `limit` of those behind `after`.
///
/// # Errors
/// As any statement.
pub async fn list(
    conn: &mut PgConnection,
    principal: &Principal,
    after: Option<After>,
    limit: i64,
) -> Result<Vec<Vault>, DbError> {
    let sql = match principal.actor {
        Actor::User(_) => select!(
            "WHERE v.org_id = $1 AND v.deleted_at IS NULL AND $2::uuid IS NOT NULL
               AND ($3::timestamptz IS NULL OR (v.created_at, v.id) > ($3, $4))
             ORDER BY v.created_at, v.id LIMIT $5"
        ),
        Actor::Agent(_) => select!(
            "JOIN agents a ON a.id = $2 AND a.org_id = v.org_id
             WHERE v.org_id = $1 AND v.deleted_at IS NULL AND (cardinality(a.vault_ids) = 0 OR v.id = ANY(a.vault_ids))
               AND ((v.created_by_type = 'agent' AND v.created_by = a.id)
                    OR EXISTS (SELECT 1 FROM policies p WHERE p.vault_id = v.id AND p.principal_type = 'agent'
                               AND p.principal_id = a.id AND (p.expires_at IS NULL OR p.expires_at > now())))
               AND ($3::timestamptz IS NULL OR (v.created_at, v.id) > ($3, $4))
             ORDER BY v.created_at, v.id LIMIT $5"
        ),
    };
    let rows: Vec<Row> = sqlx::query_as(sql)
        .bind(principal.org_id)
        .bind(principal.actor.uuid())
        .bind(after.map(|(at, _)| at))
        .bind(after.map(|(_, id)| id))
        .bind(limit)
        .fetch_all(conn)
        .await?;
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

/// The organisation's vault of agents' keys, made now if there is none; and whether it was made. Nobody owns it: it is managed by who
/// manages the organisation. Of several at once, one makes it and the others wait for that.
///
/// # Errors
/// As any statement.
pub async fn ensure_agent_keys(conn: &mut PgConnection, org_id: OrgId) -> Result<(Vault, bool), DbError> {
    let made = sqlx::query(
        "INSERT INTO vaults (id, org_id, name, description, created_by, created_by_type, created_at)
         VALUES ($1, $2, $3, 'Keys of this organisation''s agents', $4, 'user', $5)
         ON CONFLICT (org_id, name) WHERE deleted_at IS NULL DO NOTHING",
    )
    .bind(VaultId::random())
    .bind(org_id)
    .bind(AGENT_KEYS)
    .bind(Uuid::nil())
    .bind(crate::clock::now())
    .execute(&mut *conn)
    .await?;
    let vault = agent_keys(conn, org_id).await?.ok_or(DbError::Internal(sqlx::Error::RowNotFound))?;
    Ok((vault, made.rows_affected() == 1))
}

/// The organisation's vault of agents' keys, if there is one.
///
/// # Errors
/// As any statement.
pub async fn agent_keys(conn: &mut PgConnection, org_id: OrgId) -> Result<Option<Vault>, DbError> {
    let row: Option<Row> = sqlx::query_as(select!("WHERE v.org_id = $1 AND v.name = $2 AND v.deleted_at IS NULL"))
        .bind(org_id)
        .bind(AGENT_KEYS)
        .fetch_optional(conn)
        .await?;
    row.map(Row::vault).transpose()
}

/// What a deletion takes along.
#[derive(Clone, Copy, Debug)]
pub struct Deleted {
    /// Secrets that nobody can read any more.
    pub secrets: i64,
    /// Signing keys that sign nothing new any more.
    pub signing_keys: u64,
}

/// Deletes a vault. Its signing keys sign nothing new, but stay until what they signed is settled.
///
/// Locks the vault, the secrets with an active key, and those keys.
///
/// # Errors
/// As any statement. `None`: there is none.
pub async fn delete(conn: &mut PgConnection, org_id: OrgId, id: VaultId) -> Result<Option<Deleted>, DbError> {
    let done = sqlx::query("UPDATE vaults SET deleted_at = now() WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL")
        .bind(id)
        .bind(org_id)
        .execute(&mut *conn)
        .await?;
    if done.rows_affected() == 0 {
        return Ok(None);
    }
    sqlx::query(
        "SELECT 1 FROM secrets s WHERE s.vault_id = $1
           AND EXISTS (SELECT 1 FROM signing_keys k WHERE k.secret_id = s.id AND k.state = 'active')
         ORDER BY s.id FOR UPDATE",
    )
    .bind(id)
    .execute(&mut *conn)
    .await?;
    let superseded = sqlx::query(
        "UPDATE signing_keys SET state = 'superseded', superseded_at = now() WHERE vault_id = $1 AND state = 'active'",
    )
    .bind(id)
    .execute(&mut *conn)
    .await?;
    let secrets = sqlx::query_scalar("SELECT count(*) FROM secrets WHERE vault_id = $1 AND deleted_at IS NULL")
        .bind(id)
        .fetch_one(conn)
        .await?;
    Ok(Some(Deleted { secrets, signing_keys: superseded.rows_affected() }))
}

/// Says which key the clients of a vault encrypt with; `None`: with none any more. Locks the vault.
///
/// # Errors
/// As any statement. `None`: there is no such vault.
pub async fn set_cmek(
    conn: &mut PgConnection,
    org_id: OrgId,
    id: VaultId,
    fingerprint: Option<&str>,
) -> Result<Option<Vault>, DbError> {
    sqlx::query("UPDATE vaults SET cmek_fingerprint = $3 WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL")
        .bind(id)
        .bind(org_id)
        .bind(fingerprint)
        .execute(&mut *conn)
        .await?;
    get(conn, org_id, id).await
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
