//! Shares in the database.

use std::sync::Arc;

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Share;
use crate::access::{Actor, Principal, SecretPath};
use crate::db::DbError;
use crate::ids::{OrgId, SecretId, ShareId, UserId};
use crate::vaults::{self, Vault};

/// A share as its maker or its recipient sees it in a list.
#[derive(Clone, Debug, FromRow)]
pub struct Listed {
    /// Its id.
    pub id: ShareId,
    /// Where the secret is.
    pub secret_path: String,
    /// As the API writes it.
    pub recipient_type: String,
    /// Where the link was sent.
    pub recipient_email: Option<String>,
    /// How often it was opened.
    pub access_count: i32,
    /// How often it may be.
    pub max_access_count: Option<i32>,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// Since when.
    pub created_at: OffsetDateTime,
    /// Whether that time is over.
    pub is_expired: bool,
    /// Whether the recipient said yes.
    pub is_accepted: bool,
}

#[derive(FromRow)]
struct Row {
    id: ShareId,
    org_id: OrgId,
    secret_id: SecretId,
    created_by: Uuid,
    created_by_type: String,
    recipient_type: String,
    recipient_id: Option<Uuid>,
    recipient_email: Option<String>,
    passphrase_hash: Option<String>,
    ip_allowlist: Vec<String>,
    max_access_count: Option<i32>,
    access_count: i32,
    expires_at: OffsetDateTime,
    accepted_at: Option<OffsetDateTime>,
    declined_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT id, org_id, secret_id, created_by, created_by_type, recipient_type, recipient_id, recipient_email,
                    passphrase_hash, ip_allowlist, max_access_count, access_count, expires_at, accepted_at, declined_at, created_at
             FROM shares ",
            $tail
        )
    };
}

impl Row {
    fn share(self) -> Result<Share, DbError> {
        let actor = |kind: &str, id: Uuid| {
            Actor::of(kind, id)
                .ok_or_else(|| DbError::Internal(sqlx::Error::Decode("unknown kind of principal".into())))
        };
        let recipient = match (self.recipient_type.as_str(), self.recipient_id) {
            ("agent", Some(id)) => Some(actor("agent", id)?),
            (_, Some(id)) => Some(actor("user", id)?),
            (_, None) => None,
        };
        Ok(Share {
            id: self.id,
            org_id: self.org_id,
            secret_id: self.secret_id,
            created_by: actor(&self.created_by_type, self.created_by)?,
            recipient_type: self.recipient_type,
            recipient,
            recipient_email: self.recipient_email,
            passphrase_hash: self.passphrase_hash.map(Arc::from),
            ip_allowlist: self.ip_allowlist,
            max_access_count: self.max_access_count,
            access_count: self.access_count,
            expires_at: self.expires_at,
            accepted: self.accepted_at.is_some(),
            declined: self.declined_at.is_some(),
            created_at: self.created_at,
        })
    }
}

/// A new share. Some that ended weeks ago go with it, so that the table does not grow for ever.
///
/// # Errors
/// As any statement.
pub async fn insert(conn: &mut PgConnection, share: &Share) -> Result<(), DbError> {
    sqlx::query(
        "DELETE FROM shares WHERE id IN (SELECT id FROM shares WHERE expires_at < now() - interval '30 days'
                                         ORDER BY expires_at LIMIT 16 FOR UPDATE SKIP LOCKED)",
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "INSERT INTO shares (id, org_id, secret_id, created_by, created_by_type, recipient_type, recipient_id, recipient_email,
                             passphrase_hash, ip_allowlist, max_access_count, expires_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(share.id)
    .bind(share.org_id)
    .bind(share.secret_id)
    .bind(share.created_by.uuid())
    .bind(share.created_by.kind())
    .bind(&share.recipient_type)
    .bind(share.recipient.map(|recipient| recipient.uuid()))
    .bind(share.recipient_email.as_deref())
    .bind(share.passphrase_hash.as_deref())
    .bind(&share.ip_allowlist)
    .bind(share.max_access_count)
    .bind(share.expires_at)
    .bind(share.created_at)
    .execute(conn)
    .await?;
    Ok(())
}

/// A share that is not revoked, of whatever organisation: its id may be all that its opener has. Whoever calls looks who may know of it.
///
/// # Errors
/// As any statement.
pub async fn find(conn: &mut PgConnection, id: ShareId) -> Result<Option<Share>, DbError> {
    let row: Option<Row> =
        sqlx::query_as(select!("WHERE id = $1 AND revoked_at IS NULL")).bind(id).fetch_optional(conn).await?;
    row.map(Row::share).transpose()
}

/// A share of the organisation that is not revoked, to change it.
///
/// # Errors
/// As any statement.
pub async fn find_for_update(conn: &mut PgConnection, org_id: OrgId, id: ShareId) -> Result<Option<Share>, DbError> {
    let row: Option<Row> = sqlx::query_as(select!("WHERE id = $1 AND org_id = $2 AND revoked_at IS NULL FOR UPDATE"))
        .bind(id)
        .bind(org_id)
        .fetch_optional(conn)
        .await?;
    row.map(Row::share).transpose()
}

/// Counts an opening, if there is one left: the count with it. `None`: the share has ended, or was revoked or declined, meanwhile. Of any
/// number at once, on any number of daemons, exactly as many pass as there are left. Holds the share's row.
///
/// # Errors
/// As any statement.
pub async fn count_opening(conn: &mut PgConnection, id: ShareId) -> Result<Option<i32>, DbError> {
    let count = sqlx::query_scalar(
        "UPDATE shares SET access_count = access_count + 1
         WHERE id = $1 AND revoked_at IS NULL AND declined_at IS NULL AND expires_at > clock_timestamp()
           AND (recipient_id IS NULL OR accepted_at IS NOT NULL)
           AND (max_access_count IS NULL OR access_count < max_access_count)
         RETURNING access_count",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(count)
}

/// Notes the recipient's answer. A decline takes an acceptance back.
///
/// # Errors
/// As any statement.
pub async fn answer(conn: &mut PgConnection, id: ShareId, accepted: bool) -> Result<(), DbError> {
    let sql = if accepted {
        "UPDATE shares SET accepted_at = coalesce(accepted_at, now()) WHERE id = $1"
    } else {
        "UPDATE shares SET declined_at = coalesce(declined_at, now()) WHERE id = $1"
    };
    sqlx::query(sql).bind(id).execute(conn).await?;
    Ok(())
}

/// Revokes a share for good.
///
/// # Errors
/// As any statement.
pub async fn revoke(conn: &mut PgConnection, id: ShareId) -> Result<(), DbError> {
    sqlx::query("UPDATE shares SET revoked_at = now() WHERE id = $1").bind(id).execute(conn).await?;
    Ok(())
}

/// Where a page ended.
pub type After = (OffsetDateTime, ShareId);

/// Shares that a principal has made and not revoked, newest first.
///
/// # Errors
/// As any statement.
pub async fn outbound(
    conn: &mut PgConnection,
    principal: &Principal,
    after: Option<After>,
    limit: i64,
) -> Result<Vec<Listed>, DbError> {
    let (at, id) = after.unzip();
    let shares = sqlx::query_as(
        "SELECT h.id, s.path AS secret_path, h.recipient_type, h.recipient_email, h.access_count, h.max_access_count, h.expires_at,
                h.created_at, h.expires_at <= now() AS is_expired,
                h.accepted_at IS NOT NULL AND h.declined_at IS NULL AS is_accepted
         FROM shares h JOIN secrets s ON s.id = h.secret_id
         WHERE h.org_id = $1 AND h.created_by_type = $2 AND h.created_by = $3 AND h.revoked_at IS NULL
           AND ($4::timestamptz IS NULL OR (h.created_at, h.id) < ($4, $5::uuid))
         ORDER BY h.created_at DESC, h.id DESC LIMIT $6",
    )
    .bind(principal.org_id)
    .bind(principal.actor.kind())
    .bind(principal.actor.uuid())
    .bind(at)
    .bind(id)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(shares)
}

/// Shares for a principal that are neither revoked nor declined, newest first.
///
/// # Errors
/// As any statement.
pub async fn inbound(
    conn: &mut PgConnection,
    principal: &Principal,
    after: Option<After>,
    limit: i64,
) -> Result<Vec<Listed>, DbError> {
    let (at, id) = after.unzip();
    let shares = sqlx::query_as(
        "SELECT h.id, s.path AS secret_path, h.recipient_type, h.recipient_email, h.access_count, h.max_access_count, h.expires_at,
                h.created_at, h.expires_at <= now() AS is_expired, h.accepted_at IS NOT NULL AS is_accepted
         FROM shares h JOIN secrets s ON s.id = h.secret_id
         WHERE h.org_id = $1 AND (h.recipient_type = 'agent') = ($2 = 'agent') AND h.recipient_id = $3
           AND h.revoked_at IS NULL AND h.declined_at IS NULL
           AND ($4::timestamptz IS NULL OR (h.created_at, h.id) < ($4, $5::uuid))
         ORDER BY h.created_at DESC, h.id DESC LIMIT $6",
    )
    .bind(principal.org_id)
    .bind(principal.actor.kind())
    .bind(principal.actor.uuid())
    .bind(at)
    .bind(id)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(shares)
}

/// Who may be a recipient: an active human or agent of the organisation.
///
/// # Errors
/// As any statement.
pub async fn is_active(conn: &mut PgConnection, org_id: OrgId, actor: Actor) -> Result<bool, DbError> {
    let sql = match actor {
        Actor::User(_) => "SELECT 1 FROM users WHERE id = $1 AND org_id = $2 AND is_active",
        Actor::Agent(_) => "SELECT 1 FROM agents WHERE id = $1 AND org_id = $2 AND is_active AND deleted_at IS NULL",
    };
    let row = sqlx::query(sql).bind(actor.uuid()).bind(org_id).fetch_optional(conn).await?;
    Ok(row.is_some())
}

/// The human who registered the agent that asks. Humans have none.
///
/// # Errors
/// As any statement.
pub async fn creator(conn: &mut PgConnection, principal: &Principal) -> Result<Option<UserId>, DbError> {
    let Some(id) = principal.agent_id() else { return Ok(None) };
    let creator = sqlx::query_scalar("SELECT created_by FROM agents WHERE id = $1 AND org_id = $2")
        .bind(id)
        .bind(principal.org_id)
        .fetch_optional(conn)
        .await?;
    Ok(creator)
}

/// Where a secret is, if its vault is still there.
///
/// # Errors
/// As any statement.
pub async fn located(
    conn: &mut PgConnection,
    org_id: OrgId,
    id: SecretId,
) -> Result<Option<(Vault, SecretPath)>, DbError> {
    let Some((vault_id, path)) = vaults::secrets::store::list::place(conn, org_id, id).await? else { return Ok(None) };
    let vault = vaults::store::get(conn, org_id, vault_id).await?;
    Ok(vault.map(|vault| (vault, path)))
}
