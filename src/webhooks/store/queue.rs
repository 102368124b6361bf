//! What is to be delivered. Rows are written by `audit::store::record`, with the event that they tell of.

use std::time::Duration;

use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::audit::Event;
use crate::db::{DbError, SealedColumns};
use crate::ids::{DeliveryId, EventId, OrgId, WebhookId};

/// What is not delivered, as the API shows it.
#[derive(Clone, Debug, FromRow)]
pub struct Delivery {
    /// Its id, which is the message's `webhook-id`.
    pub id: DeliveryId,
    /// Of which event.
    pub event_id: EventId,
    /// What happened.
    pub action: String,
    /// Whether it is tried no more.
    pub is_dead: bool,
    /// How often it was tried.
    pub attempts: i32,
    /// Not before.
    pub due_at: OffsetDateTime,
    /// The HTTP status of the last attempt.
    pub last_status: Option<i32>,
    /// What else the last attempt met.
    pub last_error: Option<String>,
    /// Since when.
    pub created_at: OffsetDateTime,
}

/// What one webhook has not taken, oldest first; only what is dead, or only what is not, if asked.
///
/// # Errors
/// As any statement.
pub async fn deliveries(
    conn: &mut PgConnection,
    id: WebhookId,
    dead: Option<bool>,
    after: Option<(OffsetDateTime, DeliveryId)>,
    limit: i64,
) -> Result<Vec<Delivery>, DbError> {
    let rows = sqlx::query_as(
        "SELECT id, event_id, action, is_dead, attempts, due_at, last_status, last_error, created_at FROM webhook_deliveries
         WHERE webhook_id = $1 AND ($2::boolean IS NULL OR is_dead = $2)
           AND ($3::timestamptz IS NULL OR (created_at, id) > ($3, $4)) ORDER BY created_at, id LIMIT $5",
    )
    .bind(id)
    .bind(dead)
    .bind(after.map(|(at, _)| at))
    .bind(after.map(|(_, id)| id))
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(rows)
}

/// Tries one again, dead or not. False: there is none.
///
/// # Errors
/// As any statement.
pub async fn redeliver(conn: &mut PgConnection, id: WebhookId, delivery: DeliveryId) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE webhook_deliveries SET is_dead = false, attempts = 0, due_at = clock_timestamp() WHERE webhook_id = $1 AND id = $2",
    )
    .bind(id)
    .bind(delivery)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Queues an event for one webhook, whatever it listens to. In the transaction that records the event.
///
/// # Errors
/// As any statement.
pub async fn enqueue(conn: &mut PgConnection, id: WebhookId, event: &Event) -> Result<DeliveryId, DbError> {
    let delivery = DeliveryId::random();
    sqlx::query(
        "INSERT INTO webhook_deliveries (id, webhook_id, event_id, event_created_at, action) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(delivery)
    .bind(id)
    .bind(event.id)
    .bind(event.created_at)
    .bind(event.action)
    .execute(conn)
    .await?;
    Ok(delivery)
}

/// A webhook that this daemon has leased.
#[derive(Debug, FromRow)]
pub(in crate::webhooks) struct Leased {
    pub id: WebhookId,
    pub org_id: OrgId,
    pub url: String,
    pub failures: i32,
    #[sqlx(flatten)]
    pub sealed: SealedColumns,
}

/// Leases a webhook that has something due, for `lease`.
///
/// # Errors
/// As any statement.
pub(in crate::webhooks) async fn lease(pool: &PgPool, lease: Duration) -> Result<Option<Leased>, DbError> {
    let leased = sqlx::query_as(
        "UPDATE webhooks SET leased_until = clock_timestamp() + $1 * interval '1 second'
         WHERE id = (SELECT w.id FROM webhooks w
                     WHERE w.is_active AND w.leased_until <= clock_timestamp() AND w.rests_until <= clock_timestamp()
                       AND EXISTS (SELECT 1 FROM webhook_deliveries d
                                   WHERE d.webhook_id = w.id AND NOT d.is_dead AND d.due_at <= clock_timestamp())
                     ORDER BY w.leased_until LIMIT 1 FOR UPDATE OF w SKIP LOCKED)
         RETURNING id, org_id, url, failures, kek_id, dek_iv, dek_sealed, nonce, ciphertext",
    )
    .bind(lease.as_secs_f64())
    .fetch_optional(pool)
    .await?;
    Ok(leased)
}

/// Gives the lease back.
///
/// # Errors
/// As any statement.
pub(in crate::webhooks) async fn release(pool: &PgPool, id: WebhookId) -> Result<(), DbError> {
    sqlx::query("UPDATE webhooks SET leased_until = clock_timestamp() WHERE id = $1").bind(id).execute(pool).await?;
    Ok(())
}

/// One message that is due, with its event.
#[derive(Debug, FromRow)]
pub(in crate::webhooks) struct Due {
    pub id: DeliveryId,
    pub action: String,
    pub attempts: i32,
    pub event_id: EventId,
    pub actor_type: String,
    pub actor_id: Option<Uuid>,
    pub resource_type: String,
    pub resource_id: Option<String>,
    pub details: Json<Map<String, Value>>,
    pub event_created_at: OffsetDateTime,
    /// The event is not there any more.
    pub is_gone: bool,
}

/// What is due of one webhook, oldest first.
///
/// # Errors
/// As any statement.
pub(in crate::webhooks) async fn due(pool: &PgPool, id: WebhookId, limit: i64) -> Result<Vec<Due>, DbError> {
    let rows = sqlx::query_as(
        "SELECT d.id, d.action, d.attempts, d.event_id, coalesce(e.actor_type, '') AS actor_type, e.actor_id,
                coalesce(e.resource_type, '') AS resource_type, e.resource_id, coalesce(e.details, '{}') AS details,
                d.event_created_at, e.id IS NULL AS is_gone
         FROM webhook_deliveries d LEFT JOIN audit_events e ON e.id = d.event_id AND e.created_at = d.event_created_at
         WHERE d.webhook_id = $1 AND NOT d.is_dead AND d.due_at <= clock_timestamp()
         ORDER BY d.due_at, d.created_at, d.id LIMIT $2",
    )
    .bind(id)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

/// It was taken: the row goes, and the webhook is well.
///
/// # Errors
/// As any statement.
pub(in crate::webhooks) async fn taken(pool: &PgPool, webhook: WebhookId, delivery: DeliveryId) -> Result<(), DbError> {
    sqlx::query(
        "WITH gone AS (DELETE FROM webhook_deliveries WHERE id = $2 RETURNING id)
         UPDATE webhooks SET delivered = delivered + (SELECT count(*) FROM gone), delivered_at = clock_timestamp(), failures = 0
         WHERE id = $1",
    )
    .bind(webhook)
    .bind(delivery)
    .execute(pool)
    .await?;
    Ok(())
}

/// What an attempt met.
#[derive(Debug)]
pub(in crate::webhooks) struct Failure<'a> {
    pub status: Option<u16>,
    pub error: &'a str,
    /// The message is tried again after this; `None`: it is dead.
    pub again_after: Option<Duration>,
    /// Nothing else is sent to this webhook before that.
    pub rest: Option<Duration>,
}

/// It was not taken.
///
/// # Errors
/// As any statement.
pub(in crate::webhooks) async fn failed(
    pool: &PgPool,
    webhook: WebhookId,
    delivery: DeliveryId,
    failure: &Failure<'_>,
) -> Result<(), DbError> {
    let mut tx = pool.begin().await?;
    sqlx::query(
        "UPDATE webhook_deliveries SET attempts = attempts + 1, last_status = $2, last_error = $3, is_dead = $4::float8 IS NULL,
                due_at = clock_timestamp() + coalesce($4, 0) * interval '1 second' WHERE id = $1",
    )
    .bind(delivery)
    .bind(failure.status.map(i32::from))
    .bind(failure.error)
    .bind(failure.again_after.map(|wait| wait.as_secs_f64()))
    .execute(&mut *tx)
    .await?;
    if let Some(rest) = failure.rest {
        sqlx::query(
            "UPDATE webhooks SET failures = failures + 1, rests_until = clock_timestamp() + $2 * interval '1 second' WHERE id = $1",
        )
        .bind(webhook)
        .bind(rest.as_secs_f64())
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Whether the webhook still wants messages at this address.
///
/// # Errors
/// As any statement.
pub(in crate::webhooks) async fn still_wanted(pool: &PgPool, webhook: &Leased) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM webhooks WHERE id = $1 AND is_active AND url = $2")
        .bind(webhook.id)
        .bind(&webhook.url)
        .fetch_optional(pool)
        .await?;
    Ok(row.is_some())
}

/// Turns one off, which a human turns on again; if it still has this address, where one is given. False: it was off.
///
/// # Errors
/// As any statement.
pub(in crate::webhooks) async fn disable(
    conn: &mut PgConnection,
    id: WebhookId,
    url: Option<&str>,
    reason: &str,
) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE webhooks SET is_active = false, disabled_reason = $2 WHERE id = $1 AND is_active AND ($3::text IS NULL OR url = $3)",
    )
    .bind(id)
    .bind(reason)
    .bind(url)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Active webhooks that have not taken more than `most`, dead or waiting.
///
/// # Errors
/// As any statement.
pub(in crate::webhooks) async fn overfull(pool: &PgPool, most: i64) -> Result<Vec<(WebhookId, OrgId)>, DbError> {
    let rows = sqlx::query_as(
        "SELECT w.id, w.org_id FROM webhooks w WHERE w.is_active AND
             (SELECT count(*) FROM (SELECT 1 FROM webhook_deliveries d WHERE d.webhook_id = w.id LIMIT $1 + 1) x) > $1",
    )
    .bind(most)
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

/// Forgets everything that a webhook has not taken. How many there were.
///
/// # Errors
/// As any statement.
pub async fn clear(conn: &mut PgConnection, id: WebhookId) -> Result<u64, DbError> {
    let gone = sqlx::query("DELETE FROM webhook_deliveries WHERE webhook_id = $1").bind(id).execute(conn).await?;
    Ok(gone.rows_affected())
}

/// Forgets what is a month old, and deleted webhooks with what they have not been told, some thousand rows at a time.
///
/// # Errors
/// As any statement.
pub(in crate::webhooks) async fn forget(pool: &PgPool) -> Result<(), DbError> {
    sqlx::query(
        "DELETE FROM webhook_deliveries WHERE id IN (
             SELECT id FROM webhook_deliveries WHERE created_at < now() - interval '30 days' ORDER BY created_at LIMIT 5000)",
    )
    .execute(pool)
    .await?;
    sqlx::query(
        "DELETE FROM webhook_deliveries WHERE id IN (
             SELECT d.id FROM webhooks w JOIN webhook_deliveries d ON d.webhook_id = w.id WHERE w.deleted_at IS NOT NULL LIMIT 20000)",
    )
    .execute(pool)
    .await?;
    // Whoever was writing an event when it was deleted has ended long since.
    sqlx::query(
        "DELETE FROM webhooks w WHERE w.deleted_at < now() - interval '5 minutes'
             AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.webhook_id = w.id)",
    )
    .execute(pool)
    .await?;
    Ok(())
}
