//! Agents in the database.

use alloy::primitives::Address;
use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use super::{Agent, Guardrails};
use crate::access::tokens::{KeyHash, PlainKey};
use crate::db::DbError;
use crate::ids::{AgentId, OrgId, UserId, VaultId};
use crate::money::Wei;

/// The columns of [`Row`], of the table by its own name.
macro_rules! columns {
    () => {
            "id, org_id, name, description, created_by, auth_method, key_hash, client_cert_fingerprint, oidc_issuer,
                    oidc_client_id, scopes, vault_ids, token_ttl_seconds, is_active, expires_at, deleted_at,
                    (SELECT f.created_at FROM freezes f
                     WHERE f.org_id = agents.org_id AND f.scope = 'agent' AND f.subject = agents.id::text) AS frozen_at,
                    created_at, intents_api_enabled, tx_to_allowlist, tx_allowed_chains, tx_max_value_wei, tx_daily_limit_wei,
                    tx_max_fee_wei, tx_daily_fee_limit_wei, tx_max_gas_limit, tx_rules, ssh_public_key, ecdh_public_key, unclaimed,
                    shroud_enabled, shroud_config"
    };
}
pub(crate) use columns;

macro_rules! select {
    ($tail:literal) => {
        concat!("SELECT ", columns!(), " FROM agents ", $tail)
    };
}

/// An agent as [`columns`](macro@columns) selects it.
#[derive(FromRow)]
pub(crate) struct Row {
    id: AgentId,
    org_id: OrgId,
    name: String,
    description: Option<String>,
    created_by: UserId,
    auth_method: String,
    key_hash: Option<Vec<u8>>,
    client_cert_fingerprint: Option<String>,
    oidc_issuer: Option<String>,
    oidc_client_id: Option<String>,
    scopes: Vec<String>,
    vault_ids: Vec<VaultId>,
    token_ttl_seconds: Option<i32>,
    is_active: bool,
    expires_at: Option<OffsetDateTime>,
    frozen_at: Option<OffsetDateTime>,
    deleted_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    intents_api_enabled: bool,
    tx_to_allowlist: Vec<Vec<u8>>,
    tx_allowed_chains: Vec<String>,
    tx_max_value_wei: Option<Wei>,
    tx_daily_limit_wei: Option<Wei>,
    tx_max_fee_wei: Option<Wei>,
    tx_daily_fee_limit_wei: Option<Wei>,
    tx_max_gas_limit: Option<i64>,
    ssh_public_key: Option<Vec<u8>>,
    ecdh_public_key: Option<Vec<u8>>,
    unclaimed: bool,
    tx_rules: Json<Map<String, Value>>,
    shroud_enabled: bool,
    shroud_config: Option<Json<Value>>,
}

impl Row {
    /// The agent. A row whose guardrails cannot be read is an error, never an agent without them.
    pub(crate) fn agent(self) -> Result<Agent, DbError> {
        let corrupt = |what: &str| DbError::Internal(sqlx::Error::Decode(format!("agent {}: {what}", self.id).into()));
        let to_allowlist = self
            .tx_to_allowlist
            .iter()
            .map(|bytes| {
                Address::try_from(bytes.as_slice()).map_err(|_| corrupt("an allowlist entry has not 20 bytes"))
            })
            .collect::<Result<_, _>>()?;
        let key_hash = match self.key_hash {
            None => None,
            Some(ref hash) => {
                Some(KeyHash(hash.as_slice().try_into().map_err(|_| corrupt("the key hash has not 32 bytes"))?))
            }
        };
        let max_gas_limit = match self.tx_max_gas_limit {
            None => None,
            Some(gas) => Some(u64::try_from(gas).map_err(|_| corrupt("the gas limit is negative"))?),
        };
        let mut guardrails = Guardrails {
            to_allowlist,
            allowed_chains: self.tx_allowed_chains,
            max_value: self.tx_max_value_wei,
            daily_limit: self.tx_daily_limit_wei,
            max_fee: self.tx_max_fee_wei,
            daily_fee_limit: self.tx_daily_fee_limit_wei,
            max_gas_limit,
            ..Guardrails::default()
        };
        guardrails.apply_stored(&self.tx_rules).map_err(|error| corrupt(&error.0))?;
        Ok(Agent {
            id: self.id,
            org_id: self.org_id,
            name: self.name,
            description: self.description,
            created_by: self.created_by,
            auth_method: self.auth_method,
            key_hash,
            client_cert_fingerprint: self.client_cert_fingerprint,
            oidc_issuer: self.oidc_issuer,
            oidc_client_id: self.oidc_client_id,
            scopes: self.scopes,
            vault_ids: self.vault_ids,
            token_ttl_seconds: self.token_ttl_seconds,
            is_active: self.is_active,
            expires_at: self.expires_at,
            frozen_at: self.frozen_at,
            deleted_at: self.deleted_at,
            created_at: self.created_at,
            intents_api_enabled: self.intents_api_enabled,
            guardrails,
            ssh_public_key: self.ssh_public_key.and_then(|key| key.try_into().ok()),
            ecdh_public_key: self.ecdh_public_key.and_then(|key| key.try_into().ok()),
            unclaimed: self.unclaimed,
            shroud_enabled: self.shroud_enabled,
            shroud_config: self.shroud_config.map(|config| config.0),
            evm_address: None,
        })
    }
}

/// An agent for the transaction that signs, also when it is deleted or inactive: the caller looks. Its row is held `FOR SHARE`,
/// so that a change of its guardrails waits and, once answered, holds.
///
/// # Errors
/// As any statement.
pub async fn get_for_share(conn: &mut PgConnection, id: AgentId) -> Result<Option<Agent>, DbError> {
    let row: Option<Row> = sqlx::query_as(select!("WHERE id = $1 FOR SHARE")).bind(id).fetch_optional(conn).await?;
    row.map(Row::agent).transpose()
}

/// An agent by its id alone, whatever became of it, for what the daemon does by itself. Locks nothing.
///
/// # Errors
/// As any statement.
pub async fn any(conn: &mut PgConnection, id: AgentId) -> Result<Option<Agent>, DbError> {
    let row: Option<Row> = sqlx::query_as(select!("WHERE id = $1")).bind(id).fetch_optional(conn).await?;
    row.map(Row::agent).transpose()
}

/// An agent of the organisation that is not deleted.
///
/// # Errors
/// As any statement.
pub async fn get(conn: &mut PgConnection, org_id: OrgId, id: AgentId) -> Result<Option<Agent>, DbError> {
    let row: Option<Row> = sqlx::query_as(select!("WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL"))
        .bind(id)
        .bind(org_id)
        .fetch_optional(conn)
        .await?;
    row.map(Row::agent).transpose()
}

/// Whether there is, or was, such an agent: the row of a deleted one stays.
///
/// # Errors
/// As any statement.
pub async fn existed(conn: &mut PgConnection, org_id: OrgId, id: AgentId) -> Result<bool, DbError> {
    let existed = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM agents WHERE id = $1 AND org_id = $2)")
        .bind(id)
        .bind(org_id)
        .fetch_one(conn)
        .await?;
    Ok(existed)
}

/// As [`get`], to change it: first the agent's spending windows are locked, as the transaction that signs does, then its row.
///
/// # Errors
/// As any statement.
pub async fn get_for_update(conn: &mut PgConnection, org_id: OrgId, id: AgentId) -> Result<Option<Agent>, DbError> {
    sqlx::query(
        "SELECT 1 FROM spending_windows w JOIN agents a ON a.id = w.agent_id
         WHERE w.agent_id = $1 AND a.org_id = $2 ORDER BY w.spend_group COLLATE \"C\" FOR UPDATE OF w",
    )
    .bind(id)
    .bind(org_id)
    .execute(&mut *conn)
    .await?;
    let row: Option<Row> = sqlx::query_as(select!("WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL FOR UPDATE"))
        .bind(id)
        .bind(org_id)
        .fetch_optional(conn)
        .await?;
    row.map(Row::agent).transpose()
}

/// What counts of the rolling 24 hours in a window of the agent: its unit, the amount and the fees. Locks nothing, changes nothing.
///
/// # Errors
/// As any statement.
pub async fn spent(conn: &mut PgConnection, id: AgentId) -> Result<Vec<(String, Wei, Wei)>, DbError> {
    let rows = sqlx::query_as(
        "SELECT w.spend_group, (w.value_sum_wei - coalesce(sum(s.value_wei), 0))::numeric(78, 0),
                (w.fee_sum_wei - coalesce(sum(s.fee_wei), 0))::numeric(78, 0)
         FROM spending_windows w LEFT JOIN spends s
           ON s.agent_id = w.agent_id AND s.spend_group = w.spend_group AND s.counted AND s.settled
              AND s.signed_at <= greatest(w.last_stamp, clock_timestamp()) - interval '24 hours'
         WHERE w.agent_id = $1 GROUP BY w.agent_id, w.spend_group ORDER BY w.spend_group COLLATE \"C\"",
    )
    .bind(id)
    .fetch_all(conn)
    .await?;
    Ok(rows)
}

/// The agents of the organisation that are not deleted, oldest first.
///
/// # Errors
/// As any statement.
pub async fn list(conn: &mut PgConnection, org_id: OrgId) -> Result<Vec<Agent>, DbError> {
    let rows: Vec<Row> = sqlx::query_as(select!("WHERE org_id = $1 AND deleted_at IS NULL ORDER BY created_at, id"))
        .bind(org_id)
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(Row::agent).collect()
}

/// A new agent, with its key if it has one. What else it has is written by [`update`].
///
/// # Errors
/// As any statement.
pub async fn insert(conn: &mut PgConnection, agent: &Agent, key: Option<&PlainKey>) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO agents (id, org_id, name, created_by, auth_method, key_prefix, key_hash, client_cert_fingerprint,
                             oidc_issuer, oidc_client_id, created_at, unclaimed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(agent.id)
    .bind(agent.org_id)
    .bind(&agent.name)
    .bind(agent.created_by)
    .bind(&agent.auth_method)
    .bind(key.map(PlainKey::prefix))
    .bind(key.map(|key| key.hash().0.to_vec()))
    .bind(agent.client_cert_fingerprint.as_deref())
    .bind(agent.oidc_issuer.as_deref())
    .bind(agent.oidc_client_id.as_deref())
    .bind(agent.created_at)
    .bind(agent.unclaimed)
    .execute(&mut *conn)
    .await?;
    update(conn, agent).await
}

/// Writes everything of an agent that can be changed.
///
/// # Errors
/// As any statement.
pub async fn update(conn: &mut PgConnection, agent: &Agent) -> Result<(), DbError> {
    let rails = &agent.guardrails;
    sqlx::query(
        "UPDATE agents SET name = $3, description = $4, scopes = $5, vault_ids = $6, token_ttl_seconds = $7, is_active = $8,
                expires_at = $9, intents_api_enabled = $10, tx_to_allowlist = $11, tx_allowed_chains = $12,
                tx_max_value_wei = $13, tx_daily_limit_wei = $14, tx_max_fee_wei = $15, tx_daily_fee_limit_wei = $16,
                tx_max_gas_limit = $17, shroud_enabled = $18, shroud_config = $19, tx_rules = $20, updated_at = now()
         WHERE id = $1 AND org_id = $2",
    )
    .bind(agent.id)
    .bind(agent.org_id)
    .bind(&agent.name)
    .bind(agent.description.as_deref())
    .bind(&agent.scopes)
    .bind(&agent.vault_ids)
    .bind(agent.token_ttl_seconds)
    .bind(agent.is_active)
    .bind(agent.expires_at)
    .bind(agent.intents_api_enabled)
    .bind(rails.to_allowlist.iter().map(|a| a.to_vec()).collect::<Vec<_>>())
    .bind(&rails.allowed_chains)
    .bind(rails.max_value)
    .bind(rails.daily_limit)
    .bind(rails.max_fee)
    .bind(rails.daily_fee_limit)
    .bind(rails.max_gas_limit.and_then(|gas| i64::try_from(gas).ok()))
    .bind(agent.shroud_enabled)
    .bind(agent.shroud_config.as_ref().map(Json))
    .bind(Json(rails.to_json()))
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes how an agent authenticates. Every token that rests on its epoch ends with the commit; so does its key, unless it still
/// authenticates by key.
///
/// # Errors
/// As any statement.
pub async fn replace_auth(conn: &mut PgConnection, agent: &Agent) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE agents SET auth_method = $3, client_cert_fingerprint = $4, oidc_issuer = $5, oidc_client_id = $6,
                auth_epoch = auth_epoch + 1, key_prefix = CASE WHEN $3 = 'api_key' THEN key_prefix END,
                key_hash = CASE WHEN $3 = 'api_key' THEN key_hash END, updated_at = now()
         WHERE id = $1 AND org_id = $2",
    )
    .bind(agent.id)
    .bind(agent.org_id)
    .bind(&agent.auth_method)
    .bind(agent.client_cert_fingerprint.as_deref())
    .bind(agent.oidc_issuer.as_deref())
    .bind(agent.oidc_client_id.as_deref())
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes an agent's public identity keys.
///
/// # Errors
/// As any statement.
pub async fn set_identity_keys(conn: &mut PgConnection, agent: &Agent) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE agents SET ssh_public_key = $3, ecdh_public_key = $4, updated_at = now() WHERE id = $1 AND org_id = $2",
    )
    .bind(agent.id)
    .bind(agent.org_id)
    .bind(agent.ssh_public_key.map(|key| key.to_vec()))
    .bind(agent.ecdh_public_key.map(|key| key.to_vec()))
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes what enrolled itself for a human more than `days` ago and was never used, and says which.
///
/// # Errors
/// As any statement.
pub async fn expire_unclaimed(conn: &mut PgConnection, human: UserId, days: i32) -> Result<Vec<AgentId>, DbError> {
    let expired = sqlx::query_scalar(
        "UPDATE agents SET is_active = false, deleted_at = now(), updated_at = now()
         WHERE created_by = $1 AND unclaimed AND deleted_at IS NULL AND created_at < now() - $2 * interval '1 day' RETURNING id",
    )
    .bind(human)
    .bind(days)
    .fetch_all(conn)
    .await?;
    Ok(expired)
}

/// How many agents enrolled themselves for a human and were not used yet.
///
/// # Errors
/// As any statement.
pub async fn count_unclaimed(conn: &mut PgConnection, human: UserId) -> Result<i64, DbError> {
    let count =
        sqlx::query_scalar("SELECT count(*) FROM agents WHERE created_by = $1 AND unclaimed AND deleted_at IS NULL")
            .bind(human)
            .fetch_one(conn)
            .await?;
    Ok(count)
}

/// Deletes an agent: it is inactive and out of every list, its row stays for what points at it.
///
/// # Errors
/// As any statement. `Ok(false)`: there is none.
pub async fn delete(conn: &mut PgConnection, org_id: OrgId, id: AgentId) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE agents SET is_active = false, deleted_at = now(), updated_at = now()
         WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL",
    )
    .bind(id)
    .bind(org_id)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Replaces an agent's key. The old one, and every token that was exchanged for it, end with the commit.
///
/// # Errors
/// As any statement. `Ok(false)`: there is no such agent with a key.
pub async fn replace_key(conn: &mut PgConnection, org_id: OrgId, id: AgentId, key: &PlainKey) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE agents SET key_prefix = $3, key_hash = $4, updated_at = now()
         WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL AND auth_method = 'api_key'",
    )
    .bind(id)
    .bind(org_id)
    .bind(key.prefix())
    .bind(key.hash().0.as_slice())
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
