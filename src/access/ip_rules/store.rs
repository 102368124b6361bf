//! Rules about addresses in the database.

use ipnet::IpNet;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::rules::{AppliesTo, IpRule, RULES_MAX, RuleSet, RuleType};
use crate::db::DbError;
use crate::ids::{IpRuleId, OrgId, UserId};

/// A rule as the API shows it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its id.
    pub id: IpRuleId,
    /// What it does.
    pub rule: IpRule,
    /// What it is for.
    pub label: Option<String>,
    /// Who made it.
    pub created_by: UserId,
    /// Since when.
    pub created_at: OffsetDateTime,
}

#[derive(FromRow)]
struct Row {
    id: IpRuleId,
    rule_type: String,
    network: String,
    label: Option<String>,
    applies_to: String,
    created_by: Uuid,
    created_at: OffsetDateTime,
}

impl Row {
    /// A rule that cannot be read is an error, never a rule less.
    fn stored(self) -> Result<Stored, DbError> {
        let rule = || {
            Some(IpRule {
                rule_type: RuleType::parse(&self.rule_type)?,
                network: self.network.parse::<IpNet>().ok()?,
                applies_to: AppliesTo::parse(&self.applies_to)?,
            })
        };
        let rule = rule().ok_or_else(|| {
            DbError::Internal(sqlx::Error::Decode(format!("IP rule {} cannot be read", self.id).into()))
        })?;
        let Self { id, label, created_at, .. } = self;
        Ok(Stored { id, rule, label, created_by: UserId(self.created_by), created_at })
    }
}

/// The rules of an organisation, oldest first.
///
/// # Errors
/// As any statement, and when one cannot be read.
pub async fn list(conn: &mut PgConnection, org_id: OrgId) -> Result<Vec<Stored>, DbError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, rule_type, network::text AS network, label, applies_to, created_by, created_at FROM ip_rules
         WHERE org_id = $1 ORDER BY created_at, id",
    )
    .bind(org_id)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::stored).collect()
}

/// The rules of an organisation, to decide by.
///
/// # Errors
/// As [`list`].
pub async fn rule_set(conn: &mut PgConnection, org_id: OrgId) -> Result<RuleSet, DbError> {
    Ok(RuleSet(list(conn, org_id).await?.into_iter().map(|stored| stored.rule).collect()))
}

/// As [`list`], with changes of the organisation's rules waiting for each other until the transaction ends: what is decided from the
/// list holds when it is written. Holds the organisation's row of limits.
///
/// # Errors
/// As [`list`].
pub async fn list_for_update(conn: &mut PgConnection, org_id: OrgId) -> Result<Vec<Stored>, DbError> {
    crate::orgs::limits::store::get_for_update(conn, org_id).await?;
    list(conn, org_id).await
}

/// A new rule.
///
/// # Errors
/// As any statement.
pub async fn insert(conn: &mut PgConnection, org_id: OrgId, stored: &Stored) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO ip_rules (id, org_id, rule_type, network, label, applies_to, created_by, created_at)
         VALUES ($1, $2, $3, $4::cidr, $5, $6, $7, $8)",
    )
    .bind(stored.id)
    .bind(org_id)
    .bind(stored.rule.rule_type.as_str())
    .bind(stored.rule.network.trunc().to_string())
    .bind(stored.label.as_deref())
    .bind(stored.rule.applies_to.as_str())
    .bind(stored.created_by)
    .bind(stored.created_at)
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a rule.
///
/// # Errors
/// As any statement.
pub async fn delete(conn: &mut PgConnection, org_id: OrgId, id: IpRuleId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM ip_rules WHERE id = $1 AND org_id = $2").bind(id).bind(org_id).execute(conn).await?;
    Ok(())
}

/// Ends all rules of an organisation: for the operator, when nobody gets in any more.
///
/// # Errors
/// As any statement.
pub async fn delete_all(conn: &mut PgConnection, org_id: OrgId) -> Result<u64, DbError> {
    let done = sqlx::query("DELETE FROM ip_rules WHERE org_id = $1").bind(org_id).execute(conn).await?;
    Ok(done.rows_affected())
}

/// Whether another rule fits.
#[must_use]
pub fn has_room(rules: &[Stored]) -> bool {
    rules.len() < RULES_MAX
}
