//! Keys that humans provision for an agent: in the organisation's reserved vault, at a path that names the agent.

use std::collections::HashMap;

use alloy::primitives::Address;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use super::super::SigningKey;
use super::super::provision::{self, Version};
use super::Row;
use crate::access::SecretPath;
use crate::agents::Agent;
use crate::db::DbError;
use crate::hsm::{Custody, PublicKey};
use crate::ids::{AgentId, KeyId, OrgId, VaultId};
use crate::vaults::AGENT_KEYS;

/// Most versions that a list shows, newest first.
const VERSIONS_MAX: i64 = 100;

/// The agent's own active key.
///
/// # Errors
/// As any statement.
pub async fn provisioned(
    conn: &mut PgConnection,
    org_id: OrgId,
    agent: AgentId,
) -> Result<Option<SigningKey>, DbError> {
    let row: Option<Row> = sqlx::query_as(select!(
        "FROM signing_keys k
         JOIN secrets s ON s.id = k.secret_id AND s.deleted_at IS NULL AND (s.expires_at IS NULL OR s.expires_at > now())
         JOIN vaults v ON v.id = k.vault_id AND v.deleted_at IS NULL AND v.name = $3 AND v.created_by_type = 'user'
         WHERE k.org_id = $1 AND k.path = $2 AND k.state = 'active'"
    ))
    .bind(org_id)
    .bind(provision::path_text(agent))
    .bind(AGENT_KEYS)
    .fetch_optional(conn)
    .await?;
    row.map(Row::key).transpose()
}

/// The same, with the secret's row held, so that it stays so until the transaction ends. The caller holds the vault.
///
/// # Errors
/// As any statement.
pub async fn hold_provisioned(
    conn: &mut PgConnection,
    org_id: OrgId,
    vault: VaultId,
    agent: AgentId,
) -> Result<Option<SigningKey>, DbError> {
    sqlx::query("SELECT 1 FROM secrets WHERE vault_id = $1 AND path = $2 AND org_id = $3 FOR UPDATE")
        .bind(vault)
        .bind(provision::path_text(agent))
        .bind(org_id)
        .execute(&mut *conn)
        .await?;
    // In a later statement: one that waits goes on with the keys of before.
    provisioned(conn, org_id, agent).await
}

#[derive(FromRow)]
struct VersionRow {
    id: KeyId,
    version: i32,
    public_key: Vec<u8>,
    custody: String,
    active: bool,
    created_at: OffsetDateTime,
    superseded_at: Option<OffsetDateTime>,
}

impl VersionRow {
    fn version(self) -> Result<Version, DbError> {
        let id = self.id;
        let corrupt = || {
            DbError::Internal(sqlx::Error::Decode(format!("the public key of signing key {id} cannot be read").into()))
        };
        let bytes = self.public_key.try_into().map_err(|_| corrupt())?;
        Ok(Version {
            id,
            version: self.version,
            public_key: PublicKey::from_bytes(bytes).map_err(|_| corrupt())?,
            custody: if self.custody == "token" { Custody::Token } else { Custody::Wrapped },
            active: self.active,
            created_at: self.created_at,
            superseded_at: self.superseded_at,
        })
    }
}

/// Every version of the agent's key, newest first. At most one is active.
///
/// # Errors
/// As any statement.
pub async fn versions(conn: &mut PgConnection, org_id: OrgId, agent: AgentId) -> Result<Vec<Version>, DbError> {
    let rows: Vec<VersionRow> = sqlx::query_as(
        "SELECT k.id, k.version, k.public_key, k.custody, k.state = 'active' AND s.deleted_at IS NULL AS active, k.created_at,
                k.superseded_at
         FROM vaults v
         JOIN secrets s ON s.vault_id = v.id AND s.path = $2
         JOIN signing_keys k ON k.secret_id = s.id
         WHERE v.org_id = $1 AND v.name = $3 AND v.created_by_type = 'user' AND v.deleted_at IS NULL
         ORDER BY k.version DESC LIMIT $4",
    )
    .bind(org_id)
    .bind(provision::path_text(agent))
    .bind(AGENT_KEYS)
    .bind(VERSIONS_MAX)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(VersionRow::version).collect()
}

/// Adds the address of each agent's own active key.
///
/// # Errors
/// As any statement.
pub async fn add_addresses(conn: &mut PgConnection, org_id: OrgId, agents: &mut [Agent]) -> Result<(), DbError> {
    let paths: Vec<String> = agents.iter().map(|agent| provision::path_text(agent.id)).collect();
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
        "SELECT k.path, k.address FROM signing_keys k
         JOIN secrets s ON s.id = k.secret_id AND s.deleted_at IS NULL
         JOIN vaults v ON v.id = k.vault_id AND v.deleted_at IS NULL AND v.name = $3 AND v.created_by_type = 'user'
         WHERE k.org_id = $1 AND k.path = ANY($2) AND k.state = 'active'",
    )
    .bind(org_id)
    .bind(&paths)
    .bind(AGENT_KEYS)
    .fetch_all(conn)
    .await?;
    let found: HashMap<String, Vec<u8>> = rows.into_iter().collect();
    for (agent, path) in agents.iter_mut().zip(&paths) {
        agent.evm_address = found.get(path).and_then(|bytes| Address::try_from(bytes.as_slice()).ok());
    }
    Ok(())
}

/// Whether a key that T1 reads again is the agent's own by its place: then no policy is asked for.
pub(super) fn is_own(vault_name: &str, human_owned: bool, path: &SecretPath, agent: Option<AgentId>) -> bool {
    human_owned && vault_name == AGENT_KEYS && agent.is_some_and(|id| path.as_str() == provision::path_text(id))
}
