//! Letters in the database.

use std::time::Duration;

use sqlx::{FromRow, PgConnection, PgPool};
use time::OffsetDateTime;

use super::Sealed;
use crate::db::{DbError, SealedColumns};
use crate::ids::MailId;

/// Posts a letter: it is sent if and when the transaction commits.
///
/// # Errors
/// As any statement.
pub async fn post(conn: &mut PgConnection, letter: &Sealed) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO mail_outbox (id, kind, recipient, kek_id, dek_iv, dek_sealed, nonce, ciphertext, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(letter.id)
    .bind(letter.kind)
    .bind(&letter.recipient)
    .bind(letter.content.dek.kek_id)
    .bind(letter.content.dek.iv.as_slice())
    .bind(&letter.content.dek.ciphertext)
    .bind(letter.content.nonce.as_slice())
    .bind(&letter.content.ciphertext)
    .bind(letter.expires_at)
    .execute(conn)
    .await?;
    Ok(())
}

/// A letter that this daemon has claimed.
#[derive(Debug, FromRow)]
pub(super) struct Claimed {
    pub id: MailId,
    pub kind: String,
    pub recipient: String,
    #[sqlx(flatten)]
    pub sealed: SealedColumns,
    /// This one included.
    pub attempts: i32,
    pub created_at: OffsetDateTime,
    /// It no longer means anything.
    pub expired: bool,
}

/// Claims the letter that is due longest for `lease`; another daemon takes it up after that.
///
/// # Errors
/// As any statement.
pub(super) async fn claim(pool: &PgPool, lease: Duration) -> Result<Option<Claimed>, DbError> {
    let claimed = sqlx::query_as(
        "UPDATE mail_outbox SET attempts = attempts + 1, due_at = now() + $1 * interval '1 second'
         WHERE id = (SELECT id FROM mail_outbox WHERE due_at <= now() ORDER BY due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
         RETURNING id, kind, recipient, kek_id, dek_iv, dek_sealed, nonce, ciphertext, attempts, created_at,
                   expires_at <= now() AS expired",
    )
    .bind(lease.as_secs_f64())
    .fetch_optional(pool)
    .await?;
    Ok(claimed)
}

/// It is done with: sent, or given up.
///
/// # Errors
/// As any statement.
pub(super) async fn remove(pool: &PgPool, id: MailId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM mail_outbox WHERE id = $1").bind(id).execute(pool).await?;
    Ok(())
}

/// It could not be sent: again after `wait`, by whomever.
///
/// # Errors
/// As any statement.
pub(super) async fn put_off(pool: &PgPool, letter: &Claimed, wait: Duration) -> Result<(), DbError> {
    sqlx::query("UPDATE mail_outbox SET due_at = now() + $3 * interval '1 second' WHERE id = $1 AND attempts = $2")
        .bind(letter.id)
        .bind(letter.attempts)
        .bind(wait.as_secs_f64())
        .execute(pool)
        .await?;
    Ok(())
}
