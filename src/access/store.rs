//! Credentials, revocations and grants in the database.

use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::glob::Glob;
use super::grants::{self, Grants};
use super::policy::{Circumstances, Conditions, Permission, Rule};
use super::principal::Proof;
use super::tokens::{KeyHash, PlainKey};
use super::{Actor, Credential, KeyRoot, Lock, Principal, Role};
use crate::db::DbError;
use crate::ids::{AgentId, ApiKeyId, OrgId, UserId, VaultId};
use crate::vaults::Vault;

/// What authentication needs to know of an agent.
#[derive(Clone, Debug, FromRow)]
pub struct AgentIdentity {
    /// Its id.
    pub id: AgentId,
    /// Its organisation.
    pub org_id: OrgId,
    #[sqlx(try_from = "Vec<u8>")]
    key_hash: StoredHash,
    /// Whether it may come in now: active, not deleted, not expired.
    pub admitted: bool,
    /// Its scopes, as given.
    pub scopes: Vec<String>,
    /// The vaults it is bound to.
    pub vault_ids: Vec<VaultId>,
    /// Whether it may send intents.
    pub intents_api_enabled: bool,
    /// Lifetime of its tokens.
    pub token_ttl_seconds: Option<i32>,
}

impl AgentIdentity {
    /// The hash of its key.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        self.key_hash.0
    }
}

/// What authentication needs to know of a human's key.
#[derive(Clone, Debug, FromRow)]
pub struct UserKeyIdentity {
    /// The key.
    pub key_id: ApiKeyId,
    /// The human.
    pub user_id: UserId,
    /// The organisation.
    pub org_id: OrgId,
    /// The role.
    pub role: Role,
    #[sqlx(try_from = "Vec<u8>")]
    key_hash: StoredHash,
    /// Whether it may come in now: key and human active, key not expired.
    pub admitted: bool,
}

impl UserKeyIdentity {
    /// The hash of the key.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        self.key_hash.0
    }
}

/// A hash column, whose length a CHECK keeps at 32.
#[derive(Clone, Copy, Debug)]
struct StoredHash(KeyHash);

impl TryFrom<Vec<u8>> for StoredHash {
    type Error = String;
    fn try_from(bytes: Vec<u8>) -> Result<Self, String> {
        bytes.try_into().map(|hash| Self(KeyHash(hash))).map_err(|_| "a stored hash has not 32 bytes".to_owned())
    }
}

/// The agent whose key begins like this one. Unverified: compare the hash. With a token's id, a revoked one is not admitted.
///
/// # Errors
/// As any statement.
pub async fn agent_by_prefix(
    conn: &mut PgConnection,
    prefix: &str,
    jti: Option<Uuid>,
) -> Result<Option<AgentIdentity>, DbError> {
    let agent = sqlx::query_as(
        "SELECT id, org_id, key_hash, scopes, vault_ids, intents_api_enabled, token_ttl_seconds,
                is_active AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
                AND NOT EXISTS (SELECT 1 FROM revoked_tokens WHERE jti = $2) AS admitted
         FROM agents WHERE key_prefix = $1 AND key_hash IS NOT NULL",
    )
    .bind(prefix)
    .bind(jti)
    .fetch_optional(conn)
    .await?;
    Ok(agent)
}

/// The human's key that begins like this one. Unverified: compare the hash. With a token's id, a revoked one is not admitted.
///
/// # Errors
/// As any statement.
pub async fn user_key_by_prefix(
    conn: &mut PgConnection,
    prefix: &str,
    jti: Option<Uuid>,
) -> Result<Option<UserKeyIdentity>, DbError> {
    let key = sqlx::query_as(
        "SELECT k.id AS key_id, u.id AS user_id, u.org_id, u.role, k.key_hash,
                k.is_active AND u.is_active AND (k.expires_at IS NULL OR k.expires_at > now())
                AND NOT EXISTS (SELECT 1 FROM revoked_tokens WHERE jti = $2) AS admitted
         FROM user_api_keys k JOIN users u ON u.id = k.user_id AND u.org_id = k.org_id WHERE k.key_prefix = $1",
    )
    .bind(prefix)
    .bind(jti)
    .fetch_optional(conn)
    .await?;
    Ok(key)
}

/// Whether a token was revoked.
///
/// # Errors
/// As any statement.
pub async fn is_revoked(conn: &mut PgConnection, jti: Uuid) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM revoked_tokens WHERE jti = $1").bind(jti).fetch_optional(conn).await?;
    Ok(row.is_some())
}

/// Holds the row that a principal's credential rests on, against transactions that sign with it: what they began ends first, and what
/// they begin later sees what is written now.
///
/// # Errors
/// As any statement.
pub async fn lock_root(conn: &mut PgConnection, principal: &Principal) -> Result<(), DbError> {
    let (sql, id) = match principal.credential.root() {
        KeyRoot::Agent(_) => ("SELECT 1 FROM agents WHERE id = $1 FOR UPDATE", principal.actor.uuid()),
        KeyRoot::User(key_id) => ("SELECT 1 FROM user_api_keys WHERE id = $1 FOR UPDATE", key_id.0),
    };
    sqlx::query(sql).bind(id).execute(conn).await?;
    Ok(())
}

/// Revokes a token for good. Also forgets revocations of tokens that have ended by themselves.
///
/// # Errors
/// As any statement.
pub async fn revoke(conn: &mut PgConnection, jti: Uuid, expires_at: OffsetDateTime) -> Result<(), DbError> {
    sqlx::query("DELETE FROM revoked_tokens WHERE expires_at < now() - interval '1 day'").execute(&mut *conn).await?;
    sqlx::query("INSERT INTO revoked_tokens (jti, expires_at) VALUES ($1, $2) ON CONFLICT (jti) DO NOTHING")
        .bind(jti)
        .bind(expires_at)
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes that a human's key was used, at most once a minute.
///
/// # Errors
/// As any statement.
pub async fn stamp_user_key(conn: &mut PgConnection, key_id: ApiKeyId) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE user_api_keys SET last_used_at = now()
         WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
    )
    .bind(key_id)
    .execute(conn)
    .await?;
    Ok(())
}

/// Why a credential cannot be vouched for any more.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Nothing new is signed for this organisation.
    #[error("this organisation is frozen: nothing new is signed until an owner unfreezes it")]
    OrganisationFrozen,
    /// Could not be checked.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Whether what a principal proved itself with still holds: for the transaction that signs, on its own connection. Holds the rows
/// of the organisation and of the agent (or the human and the key) `FOR SHARE`, so that a deactivation, a rotation or a freeze
/// that has been answered holds. A revocation of the token holds once its row is committed.
///
/// # Errors
/// [`CredentialError`]. `Ok(false)`: rotated, revoked, deactivated, deleted or expired.
pub async fn credential_still_valid(conn: &mut PgConnection, principal: &Principal) -> Result<bool, CredentialError> {
    let frozen: Option<Option<OffsetDateTime>> =
        sqlx::query_scalar("SELECT frozen_at FROM organisations WHERE id = $1 FOR SHARE")
            .bind(principal.org_id)
            .fetch_optional(&mut *conn)
            .await
            .map_err(DbError::from)?;
    if frozen.flatten().is_some() {
        return Err(CredentialError::OrganisationFrozen);
    }
    if !root_still_valid(conn, principal).await? {
        return Ok(false);
    }
    // With the row held, in a statement of its own: a revocation holds the same row while it is written.
    match principal.credential {
        Credential::Token { jti, .. } => Ok(!is_revoked(conn, jti).await?),
        Credential::Key(_) => Ok(true),
    }
}

/// The key behind the credential, with its row held.
async fn root_still_valid(conn: &mut PgConnection, principal: &Principal) -> Result<bool, DbError> {
    let row = match principal.credential.root() {
        KeyRoot::Agent(hash) => sqlx::query(
            "SELECT 1 FROM agents WHERE id = $1 AND org_id = $2 AND key_hash = $3 AND is_active AND deleted_at IS NULL
                   AND (expires_at IS NULL OR expires_at > clock_timestamp()) FOR SHARE",
        )
        .bind(principal.actor.uuid())
        .bind(principal.org_id)
        .bind(hash.0.as_slice())
        .fetch_optional(conn)
        .await?,
        KeyRoot::User(key_id) => {
            sqlx::query(
                "SELECT 1 FROM user_api_keys k JOIN users u ON u.id = k.user_id
                 WHERE k.id = $1 AND u.id = $2 AND u.org_id = $3 AND k.is_active AND u.is_active
                   AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()) FOR SHARE OF k, u",
            )
            .bind(key_id)
            .bind(principal.actor.uuid())
            .bind(principal.org_id)
            .fetch_optional(conn)
            .await?
        }
    };
    Ok(row.is_some())
}

/// The vaults that an agent's tokens name: those it is bound to, or else those that its policies cover and its own.
///
/// # Errors
/// As any statement.
pub async fn reachable_vaults(conn: &mut PgConnection, agent: &AgentIdentity) -> Result<Vec<VaultId>, DbError> {
    if !agent.vault_ids.is_empty() {
        return Ok(agent.vault_ids.clone());
    }
    let vaults = sqlx::query_scalar(
        "SELECT v.id FROM vaults v WHERE v.org_id = $1 AND v.deleted_at IS NULL
           AND ((v.created_by_type = 'agent' AND v.created_by = $2)
                OR EXISTS (SELECT 1 FROM policies p WHERE p.vault_id = v.id AND p.principal_type = 'agent' AND p.principal_id = $2
                           AND (p.expires_at IS NULL OR p.expires_at > now())))
         ORDER BY v.created_at, v.id LIMIT 1000",
    )
    .bind(agent.org_id)
    .bind(agent.id)
    .fetch_all(conn)
    .await?;
    Ok(vaults)
}

/// The scopes that an agent's tokens name: its own, or else the patterns of its policies.
///
/// # Errors
/// As any statement.
pub async fn effective_scopes(conn: &mut PgConnection, agent: &AgentIdentity) -> Result<Vec<String>, DbError> {
    if !agent.scopes.is_empty() {
        return Ok(agent.scopes.clone());
    }
    let patterns = sqlx::query_scalar(
        "SELECT DISTINCT secret_path_pattern FROM policies
         WHERE org_id = $1 AND principal_type = 'agent' AND principal_id = $2 AND (expires_at IS NULL OR expires_at > now())
         ORDER BY 1 LIMIT 100",
    )
    .bind(agent.org_id)
    .bind(agent.id)
    .fetch_all(conn)
    .await?;
    Ok(patterns)
}

#[derive(FromRow)]
struct RuleRow {
    secret_path_pattern: String,
    permissions: Vec<String>,
    conditions: Option<Json<Value>>,
    expires_at: Option<OffsetDateTime>,
}

impl RuleRow {
    /// A row that this binary does not understand grants nothing.
    fn rule(self) -> Option<Rule> {
        Some(Rule {
            pattern: Glob::parse(&self.secret_path_pattern).ok()?,
            permissions: self.permissions.iter().filter_map(|p| Permission::parse(p)).collect(),
            conditions: Conditions::parse(&self.conditions.map_or(Value::Null, |c| c.0)).ok()?,
            expires_at: self.expires_at,
        })
    }
}

/// Everything that decides what `principal` may do in `vault`. With [`Lock::Share`], the agent's row and the policies are held
/// until the transaction ends.
///
/// # Errors
/// As any statement.
pub async fn grants(
    conn: &mut PgConnection,
    principal: &Principal,
    vault: &Vault,
    lock: Lock,
) -> Result<Grants, DbError> {
    let at = Circumstances { now: crate::clock::now(), ip: principal.ip };
    let same_org = vault.org_id == principal.org_id;
    let (bound, ceiling) = match principal.actor {
        Actor::User(_) => (same_org, None),
        Actor::Agent(id) => match agent_limits(conn, principal.org_id, id, lock).await? {
            Some((vault_ids, scopes)) => {
                (same_org && (vault_ids.is_empty() || vault_ids.contains(&vault.id)), grants::ceiling(&scopes))
            }
            None => (false, None),
        },
    };
    let sql = match lock {
        Lock::None => {
            "SELECT secret_path_pattern, permissions, conditions, expires_at FROM policies
             WHERE principal_type = $1 AND principal_id = $2 AND vault_id = $3 AND org_id = $4"
        }
        Lock::Share => {
            "SELECT secret_path_pattern, permissions, conditions, expires_at FROM policies
             WHERE principal_type = $1 AND principal_id = $2 AND vault_id = $3 AND org_id = $4 ORDER BY id FOR SHARE"
        }
    };
    let rows: Vec<RuleRow> = sqlx::query_as(sql)
        .bind(principal.actor.kind())
        .bind(principal.actor.uuid())
        .bind(vault.id)
        .bind(principal.org_id)
        .fetch_all(conn)
        .await?;
    let rules = rows.into_iter().filter_map(RuleRow::rule).collect();
    let owner = same_org && (vault.created_by == principal.actor || principal.manages());
    Ok(Grants { bound, ceiling, rules, owner, at })
}

async fn agent_limits(
    conn: &mut PgConnection,
    org_id: OrgId,
    id: AgentId,
    lock: Lock,
) -> Result<Option<(Vec<VaultId>, Vec<String>)>, DbError> {
    let sql = match lock {
        Lock::None => "SELECT vault_ids, scopes FROM agents WHERE id = $1 AND org_id = $2",
        Lock::Share => "SELECT vault_ids, scopes FROM agents WHERE id = $1 AND org_id = $2 FOR SHARE",
    };
    Ok(sqlx::query_as(sql).bind(id).bind(org_id).fetch_optional(conn).await?)
}

/// The principal that a key proves, if it does: the hash is compared in constant time, with a dummy when the prefix is unknown.
///
/// # Errors
/// As any statement. `Ok(Err(who))`: not proven, or proven and not admitted (then with who it is).
pub async fn principal_by_agent_key(
    conn: &mut PgConnection,
    key: &PlainKey,
    ip: Option<std::net::IpAddr>,
) -> Result<Result<(Principal, AgentIdentity), Option<(OrgId, Actor)>>, DbError> {
    let agent = agent_by_prefix(conn, key.prefix(), None).await?;
    let proven = agent.as_ref().map_or(KeyHash::DUMMY, AgentIdentity::key_hash).matches(key);
    Ok(match agent {
        Some(agent) if proven && agent.admitted => {
            let credential = Credential::Key(KeyRoot::Agent(agent.key_hash()));
            Ok((principal(agent.org_id, Actor::Agent(agent.id), None, credential, ip), agent))
        }
        Some(agent) if proven => Err(Some((agent.org_id, Actor::Agent(agent.id)))),
        _ => Err(None),
    })
}

/// As [`principal_by_agent_key`], for a human's key.
///
/// # Errors
/// As any statement.
pub async fn principal_by_user_key(
    conn: &mut PgConnection,
    key: &PlainKey,
    ip: Option<std::net::IpAddr>,
) -> Result<Result<Principal, Option<(OrgId, Actor)>>, DbError> {
    let user = user_key_by_prefix(conn, key.prefix(), None).await?;
    let proven = user.as_ref().map_or(KeyHash::DUMMY, UserKeyIdentity::key_hash).matches(key);
    Ok(match user {
        Some(user) if proven && user.admitted => {
            let credential = Credential::Key(KeyRoot::User(user.key_id));
            Ok(principal(user.org_id, Actor::User(user.user_id), Some(user.role), credential, ip))
        }
        Some(user) if proven => Err(Some((user.org_id, Actor::User(user.user_id)))),
        _ => Err(None),
    })
}

/// The principal that a verified token names, if it may still come in.
///
/// # Errors
/// As any statement.
pub async fn principal_by_token(
    conn: &mut PgConnection,
    claims: &super::jwt::Claims,
    ip: Option<std::net::IpAddr>,
) -> Result<Result<Principal, Option<(OrgId, Actor)>>, DbError> {
    let Some(actor) = claims.actor() else { return Ok(Err(None)) };
    let refused = Ok(Err(Some((claims.org, actor))));
    let found = match actor {
        Actor::Agent(id) => agent_by_prefix(conn, &claims.key_prefix, Some(claims.jti))
            .await?
            .filter(|agent| agent.admitted && agent.id == id)
            .map(|agent| (agent.org_id, None, KeyRoot::Agent(agent.key_hash()))),
        Actor::User(id) => user_key_by_prefix(conn, &claims.key_prefix, Some(claims.jti))
            .await?
            .filter(|key| key.admitted && key.user_id == id)
            .map(|key| (key.org_id, Some(key.role), KeyRoot::User(key.key_id))),
    };
    match found {
        Some((org_id, role, root)) if org_id == claims.org => {
            let credential = Credential::Token { jti: claims.jti, root };
            Ok(Ok(principal(org_id, actor, role, credential, ip)))
        }
        _ => refused,
    }
}

fn principal(
    org_id: OrgId,
    actor: Actor,
    role: Option<Role>,
    credential: Credential,
    ip: Option<std::net::IpAddr>,
) -> Principal {
    Principal { org_id, actor, role, credential, ip, _proof: Proof }
}
