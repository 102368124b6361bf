//! Limits, and what is counted against them, in the database.

use serde_json::{Map, Value, json};
use sqlx::{FromRow, PgConnection};

use super::Kind;
use crate::access::SecretPath;
use crate::db::DbError;
use crate::ids::{OrgId, VaultId};
use crate::vaults::AGENT_KEYS;

/// The limits of one organisation; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Limits {
    vaults: Option<i32>,
    secrets: Option<i32>,
    agents: Option<i32>,
    policies: Option<i32>,
    members: Option<i32>,
    api_keys: Option<i32>,
}

impl Limits {
    fn slot(&mut self, kind: Kind) -> &mut Option<i32> {
        match kind {
            Kind::Vaults => &mut self.vaults,
            Kind::Secrets => &mut self.secrets,
            Kind::Agents => &mut self.agents,
            Kind::Policies => &mut self.policies,
            Kind::Members => &mut self.members,
            Kind::ApiKeys => &mut self.api_keys,
        }
    }

    /// The limit that holds: the one that is set, or the default.
    #[must_use]
    pub fn of(mut self, kind: Kind) -> Option<i32> {
        self.slot(kind).or(kind.default_limit())
    }

    /// Sets one, or goes back to the default.
    pub fn set(&mut self, kind: Kind, limit: Option<i32>) {
        *self.slot(kind) = limit;
    }

    /// As the API shows them: those that hold, `null` for none.
    #[must_use]
    pub fn render(self) -> Map<String, Value> {
        Kind::ALL.iter().map(|kind| (kind.as_str().to_owned(), json!(self.of(*kind)))).collect()
    }
}

/// The limits that are set.
///
/// # Errors
/// As any statement.
pub async fn get(conn: &mut PgConnection, org_id: OrgId) -> Result<Limits, DbError> {
    let limits = sqlx::query_as(
        "SELECT vaults, secrets, agents, policies, members, api_keys FROM organisation_limits WHERE org_id = $1",
    )
    .bind(org_id)
    .fetch_optional(conn)
    .await?;
    Ok(limits.unwrap_or_default())
}

/// The limits that are set, with their row held: creations that are limited wait for each other here. What is read after it, in later
/// statements, has seen all that were before.
///
/// # Errors
/// As any statement.
pub async fn get_for_update(conn: &mut PgConnection, org_id: OrgId) -> Result<Limits, DbError> {
    sqlx::query("INSERT INTO organisation_limits (org_id) VALUES ($1) ON CONFLICT (org_id) DO NOTHING")
        .bind(org_id)
        .execute(&mut *conn)
        .await?;
    let limits = sqlx::query_as(
        "SELECT vaults, secrets, agents, policies, members, api_keys FROM organisation_limits WHERE org_id = $1 FOR UPDATE",
    )
    .bind(org_id)
    .fetch_one(conn)
    .await?;
    Ok(limits)
}

/// Sets all of them. With the row held.
///
/// # Errors
/// As any statement.
pub async fn set(conn: &mut PgConnection, org_id: OrgId, limits: &Limits) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE organisation_limits SET vaults = $2, secrets = $3, agents = $4, policies = $5, members = $6, api_keys = $7
         WHERE org_id = $1",
    )
    .bind(org_id)
    .bind(limits.vaults)
    .bind(limits.secrets)
    .bind(limits.agents)
    .bind(limits.policies)
    .bind(limits.members)
    .bind(limits.api_keys)
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether there is an organisation of this id.
///
/// # Errors
/// As any statement.
pub async fn organisation_exists(conn: &mut PgConnection, org_id: OrgId) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM organisations WHERE id = $1").bind(org_id).fetch_optional(conn).await?;
    Ok(row.is_some())
}

/// How many there are; counting ends a little above `enough`.
///
/// # Errors
/// As any statement.
pub async fn count(conn: &mut PgConnection, org_id: OrgId, kind: Kind, enough: i32) -> Result<i64, DbError> {
    let sql = match kind {
        Kind::Vaults => {
            "SELECT count(*) FROM (SELECT 1 FROM vaults WHERE org_id = $1 AND deleted_at IS NULL AND name <> $3 LIMIT $2) AS counted"
        }
        Kind::Secrets => {
            "SELECT count(*) FROM (SELECT 1 FROM secrets s JOIN vaults v ON v.id = s.vault_id AND v.deleted_at IS NULL
                                   WHERE s.org_id = $1 AND s.deleted_at IS NULL AND v.name <> $3 LIMIT $2) AS counted"
        }
        Kind::Agents => {
            "SELECT count(*) FROM (SELECT 1 FROM agents WHERE org_id = $1 AND deleted_at IS NULL LIMIT $2) AS counted"
        }
        Kind::Policies => {
            "SELECT count(*) FROM (SELECT 1 FROM policies p JOIN vaults v ON v.id = p.vault_id AND v.deleted_at IS NULL
                                   WHERE p.org_id = $1 LIMIT $2) AS counted"
        }
        Kind::Members => {
            "SELECT count(*) FROM (SELECT 1 FROM users WHERE org_id = $1 AND is_active LIMIT $2) AS counted"
        }
        Kind::ApiKeys => {
            "SELECT count(*) FROM (SELECT 1 FROM user_api_keys WHERE org_id = $1 AND is_active LIMIT $2) AS counted"
        }
    };
    let mut query = sqlx::query_scalar(sql).bind(org_id).bind(i64::from(enough) + 100);
    if matches!(kind, Kind::Vaults | Kind::Secrets) {
        // What the daemon keeps for agents is bounded by their number.
        query = query.bind(AGENT_KEYS);
    }
    Ok(query.fetch_one(conn).await?)
}

/// Whether there is a secret at a path that is not deleted; then its row is held.
///
/// # Errors
/// As any statement.
pub async fn hold_live_secret(
    conn: &mut PgConnection,
    org_id: OrgId,
    vault_id: VaultId,
    path: &SecretPath,
) -> Result<bool, DbError> {
    let row = sqlx::query(
        "SELECT 1 FROM secrets WHERE vault_id = $1 AND path = $2 AND org_id = $3 AND deleted_at IS NULL FOR UPDATE",
    )
    .bind(vault_id)
    .bind(path.as_str())
    .bind(org_id)
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}
