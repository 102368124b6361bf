//! What a principal has been granted.

use std::net::IpAddr;

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row as _};
use time::OffsetDateTime;

use super::AgentIdentity;
use crate::access::glob::Glob;
use crate::access::grants::{self, Grants};
use crate::access::policy::{Circumstances, Conditions, Permission, Rule};
use crate::access::{Actor, Lock, Principal};
use crate::db::DbError;
use crate::ids::{AgentId, OrgId, UserId, VaultId};
use crate::vaults::Vault;

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

/// A policy of somebody on a vault.
#[derive(FromRow)]
pub(crate) struct RuleRow {
    secret_path_pattern: String,
    permissions: Vec<String>,
    conditions: Option<Json<Value>>,
    #[sqlx(rename = "policy_expires_at")]
    expires_at: Option<OffsetDateTime>,
    opens_signing: bool,
}

impl RuleRow {
    /// The policy that [`rules`](macro@rules) has joined to a row, if there is one.
    ///
    /// # Errors
    /// For columns that are not there.
    pub(crate) fn beside(row: &PgRow) -> Result<Option<Self>, sqlx::Error> {
        let is_there = row.try_get::<Option<&str>, _>("secret_path_pattern")?.is_some();
        is_there.then(|| Self::from_row(row)).transpose()
    }

    /// A row that this binary does not understand grants nothing.
    fn rule(self) -> Option<Rule> {
        Some(Rule {
            pattern: Glob::parse(&self.secret_path_pattern).ok()?,
            permissions: self.permissions.iter().filter_map(|p| Permission::parse(p)).collect(),
            conditions: Conditions::parse(&self.conditions.map_or(Value::Null, |c| c.0)).ok()?,
            expires_at: self.expires_at,
            opens_signing: self.opens_signing,
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
    grants_of(conn, &Subject::of(principal), vault, lock).await
}

/// As [`grants`], of an agent whose limits and policies on the vault were read already, beside something in it.
pub(crate) fn grants_beside(principal: &Principal, vault: &Vault, limits: &AgentLimits, rules: Vec<RuleRow>) -> Grants {
    Subject::of(principal).grants(vault, Some(limits), rules)
}

/// As [`grants`], for a human or agent who is not asking: who made a share that somebody opens from `ip`. The conditions of their
/// policies are held against that request.
///
/// # Errors
/// As any statement. `Ok(None)`: not, or no longer, an active human or agent of the organisation.
pub async fn grants_of_absent(
    conn: &mut PgConnection,
    org_id: OrgId,
    actor: Actor,
    ip: Option<IpAddr>,
    vault: &Vault,
) -> Result<Option<Grants>, DbError> {
    let Some(manages) = active(conn, org_id, actor).await? else { return Ok(None) };
    let subject = Subject { org_id, actor, manages, ceiling: None, ip };
    grants_of(conn, &subject, vault, Lock::None).await.map(Some)
}

/// Whether a human or agent may come in now, and then whether it manages the organisation.
async fn active(conn: &mut PgConnection, org_id: OrgId, actor: Actor) -> Result<Option<bool>, DbError> {
    let sql = match actor {
        Actor::User(_) => "SELECT role IN ('admin', 'owner') FROM users WHERE id = $1 AND org_id = $2 AND is_active",
        Actor::Agent(_) => {
            "SELECT false FROM agents WHERE id = $1 AND org_id = $2 AND is_active AND deleted_at IS NULL
               AND (expires_at IS NULL OR expires_at > now())"
        }
    };
    Ok(sqlx::query_scalar(sql).bind(actor.uuid()).bind(org_id).fetch_optional(conn).await?)
}

/// Whom grants are looked up for.
struct Subject<'a> {
    org_id: OrgId,
    actor: Actor,
    manages: bool,
    /// Of a human's key that is limited to paths.
    ceiling: Option<&'a [Glob]>,
    ip: Option<IpAddr>,
}

impl<'a> Subject<'a> {
    fn of(principal: &'a Principal) -> Self {
        Self {
            org_id: principal.org_id,
            actor: principal.actor,
            manages: principal.manages(),
            ceiling: principal.ceiling.as_deref(),
            ip: principal.ip,
        }
    }

    /// What the rows say. `limits` are an agent's; one without any is not there.
    fn grants(&self, vault: &Vault, limits: Option<&AgentLimits>, rules: Vec<RuleRow>) -> Grants {
        let same_org = vault.org_id == self.org_id;
        let (bound, ceiling) = match (self.actor, limits) {
            (Actor::User(_), _) => (same_org, self.ceiling.map(<[Glob]>::to_vec)),
            (Actor::Agent(_), Some(limits)) => {
                let bound = same_org && (limits.vault_ids.is_empty() || limits.vault_ids.contains(&vault.id));
                (bound, grants::ceiling(&limits.scopes))
            }
            (Actor::Agent(_), None) => (false, None),
        };
        Grants {
            bound,
            reserved: vault.is_reserved(),
            ceiling,
            rules: rules.into_iter().filter_map(RuleRow::rule).collect(),
            owner: same_org && (vault.created_by == self.actor || self.manages),
            limited: self.ceiling.is_some(),
            at: Circumstances { now: crate::clock::now(), ip: self.ip },
        }
    }
}

async fn grants_of(
    conn: &mut PgConnection,
    principal: &Subject<'_>,
    vault: &Vault,
    lock: Lock,
) -> Result<Grants, DbError> {
    match principal.actor {
        Actor::User(id) => {
            let rules = rules_of_user(conn, principal.org_id, id, vault.id, lock).await?;
            Ok(principal.grants(vault, None, rules))
        }
        Actor::Agent(id) => match limits_and_rules_of_agent(conn, principal.org_id, id, vault.id, lock).await? {
            Some((limits, rules)) => Ok(principal.grants(vault, Some(&limits), rules)),
            None => Ok(principal.grants(vault, None, Vec::new())),
        },
    }
}

/// The policies of a principal on a vault: [`RuleRow`]s.
macro_rules! rules {
    ($kind:literal, $principal:literal, $org:literal, $vault:literal, $tail:literal) => {
        concat!(
            "SELECT secret_path_pattern, permissions, conditions, expires_at AS policy_expires_at, opens_signing FROM policies
             WHERE principal_type = '",
            $kind,
            "' AND principal_id = ",
            $principal,
            " AND org_id = ",
            $org,
            " AND vault_id = ",
            $vault,
            $tail
        )
    };
}
pub(crate) use rules;

async fn rules_of_user(
    conn: &mut PgConnection,
    org_id: OrgId,
    id: UserId,
    vault: VaultId,
    lock: Lock,
) -> Result<Vec<RuleRow>, DbError> {
    let sql = match lock {
        Lock::None => rules!("user", "$1", "$2", "$3", ""),
        Lock::Share => rules!("user", "$1", "$2", "$3", " ORDER BY id FOR SHARE"),
    };
    Ok(sqlx::query_as(sql).bind(id).bind(org_id).bind(vault).fetch_all(conn).await?)
}

/// What an agent is limited to, whatever its policies say.
#[derive(FromRow)]
pub(crate) struct AgentLimits {
    vault_ids: Vec<VaultId>,
    scopes: Vec<String>,
}

macro_rules! limits_and_rules {
    ($lock:literal, $rules:expr) => {
        concat!(
            "SELECT a.vault_ids, a.scopes, p.* FROM (SELECT vault_ids, scopes FROM agents WHERE id = $1 AND org_id = $2",
            $lock,
            ") AS a LEFT JOIN LATERAL (",
            $rules,
            ") AS p ON true"
        )
    };
}

/// What decides what an agent may do in a vault, for [`grants_beside`]. In one statement, which holds the agent's row before the policies' with
/// [`Lock::Share`].
pub(crate) async fn limits_and_rules_of_agent(
    conn: &mut PgConnection,
    org_id: OrgId,
    id: AgentId,
    vault: VaultId,
    lock: Lock,
) -> Result<Option<(AgentLimits, Vec<RuleRow>)>, DbError> {
    let sql = match lock {
        Lock::None => limits_and_rules!("", rules!("agent", "$1", "$2", "$3", "")),
        Lock::Share => {
            limits_and_rules!(" FOR SHARE", rules!("agent", "$1", "$2", "$3", " ORDER BY id FOR SHARE"))
        }
    };
    let rows = sqlx::query(sql).bind(id).bind(org_id).bind(vault).fetch_all(conn).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let limits = AgentLimits::from_row(first)?;
    // An agent without policies there is one row, whose policy is NULL.
    let rules = rows.iter().filter_map(|row| RuleRow::beside(row).transpose()).collect::<Result<_, _>>()?;
    Ok(Some((limits, rules)))
}
