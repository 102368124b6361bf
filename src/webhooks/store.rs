//! Webhooks in the database, and in `queue` what is to be delivered to them.

mod queue;

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use crate::db::DbError;
use crate::hsm::Envelope;
use crate::ids::{OrgId, UserId, WebhookId};

pub use queue::{Delivery, clear, deliveries, enqueue, redeliver};
pub(super) use queue::{
    Due, Failure, Leased, disable, due, failed, forget, lease, overfull, release, still_wanted, taken,
};

/// A webhook as the API shows it. Its secret stays sealed.
#[derive(Clone, Debug, FromRow)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Where to.
    pub url: String,
    /// In a human's words.
    pub description: String,
    /// Which events.
    pub events: Vec<String>,
    /// Whether anything is sent.
    pub is_active: bool,
    /// Why the daemon turned it off.
    pub disabled_reason: Option<String>,
    /// Who made it.
    pub created_by: UserId,
    /// When.
    pub created_at: OffsetDateTime,
    /// How many were taken.
    pub delivered: i64,
    /// When the last was.
    pub delivered_at: Option<OffsetDateTime>,
}

macro_rules! columns {
    () => {
        "id, url, description, events, is_active, disabled_reason, created_by, created_at, delivered, delivered_at"
    };
}

/// What a new one is made of.
#[derive(Debug)]
pub struct NewWebhook<'a> {
    /// Its id.
    pub id: WebhookId,
    /// Whose.
    pub org_id: OrgId,
    /// Where to.
    pub url: &'a str,
    /// In a human's words.
    pub description: &'a str,
    /// Which events.
    pub events: &'a [String],
    /// The secret, sealed.
    pub secret: &'a Envelope,
    /// Who makes it.
    pub created_by: UserId,
}

/// How many the organisation has. With its row of limits held.
///
/// # Errors
/// As any statement.
pub async fn count(conn: &mut PgConnection, org_id: OrgId) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM webhooks WHERE org_id = $1 AND deleted_at IS NULL")
        .bind(org_id)
        .fetch_one(conn)
        .await?)
}

/// A new one.
///
/// # Errors
/// As any statement.
pub async fn insert(conn: &mut PgConnection, new: &NewWebhook<'_>) -> Result<Webhook, DbError> {
    let webhook = sqlx::query_as(concat!(
        "INSERT INTO webhooks (id, org_id, url, description, events, kek_id, dek_iv, dek_sealed, nonce, ciphertext, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING ",
        columns!()
    ))
    .bind(new.id)
    .bind(new.org_id)
    .bind(new.url)
    .bind(new.description)
    .bind(new.events)
    .bind(new.secret.dek.kek_id)
    .bind(new.secret.dek.iv.as_slice())
    .bind(&new.secret.dek.ciphertext)
    .bind(new.secret.nonce.as_slice())
    .bind(&new.secret.ciphertext)
    .bind(new.created_by)
    .fetch_one(conn)
    .await?;
    Ok(webhook)
}

/// The organisation's, oldest first.
///
/// # Errors
/// As any statement.
pub async fn list(conn: &mut PgConnection, org_id: OrgId) -> Result<Vec<Webhook>, DbError> {
    let all = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM webhooks WHERE org_id = $1 AND deleted_at IS NULL ORDER BY created_at, id"
    ))
    .bind(org_id)
    .fetch_all(conn)
    .await?;
    Ok(all)
}

/// One of the organisation's.
///
/// # Errors
/// As any statement.
pub async fn get(conn: &mut PgConnection, org_id: OrgId, id: WebhookId) -> Result<Option<Webhook>, DbError> {
    let one = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM webhooks WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL"
    ))
    .bind(org_id)
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(one)
}

/// As [`get`], to change it.
///
/// # Errors
/// As any statement.
pub async fn get_for_update(conn: &mut PgConnection, org_id: OrgId, id: WebhookId) -> Result<Option<Webhook>, DbError> {
    let one = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM webhooks WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL FOR UPDATE"
    ))
    .bind(org_id)
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(one)
}

/// Writes what may be changed. One that is on has no reason to be off, and is tried at once.
///
/// # Errors
/// As any statement.
pub async fn update(conn: &mut PgConnection, webhook: &Webhook) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE webhooks SET url = $2, description = $3, events = $4, is_active = $5, failures = 0, rests_until = '-infinity',
                disabled_reason = CASE WHEN $5 THEN NULL ELSE disabled_reason END WHERE id = $1",
    )
    .bind(webhook.id)
    .bind(&webhook.url)
    .bind(&webhook.description)
    .bind(&webhook.events)
    .bind(webhook.is_active)
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends one. Its row goes when what it has not been told is gone, see `forget`.
///
/// # Errors
/// As any statement.
pub async fn delete(conn: &mut PgConnection, org_id: OrgId, id: WebhookId) -> Result<Option<Webhook>, DbError> {
    let gone = sqlx::query_as(concat!(
        "UPDATE webhooks SET is_active = false, deleted_at = now() WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL RETURNING ",
        columns!()
    ))
    .bind(org_id)
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(gone)
}
