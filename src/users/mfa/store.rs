//! Second factors in the database.

use sqlx::{FromRow, PgConnection};

use crate::db::DbError;
use crate::hsm::{Envelope, SealedDek};
use crate::ids::{KekId, OrgId, UserId};

/// A human's second factor.
pub struct Factor {
    /// The organisation, which the secret is bound to.
    pub org_id: OrgId,
    /// The app's secret.
    pub secret: Envelope,
    /// Whether the app has shown that it has the secret.
    pub confirmed: bool,
}

/// A code that fits, and is still to be taken.
pub enum Passed {
    /// A code of the app: its factor and step.
    Step(Factor, i64),
    /// A recovery code, by its hash.
    Recovery([u8; 32]),
}

#[derive(FromRow)]
struct Row {
    org_id: OrgId,
    kek_id: KekId,
    dek_iv: Vec<u8>,
    dek_sealed: Vec<u8>,
    nonce: Vec<u8>,
    ciphertext: Vec<u8>,
    confirmed: bool,
}

/// The second factor of a human, confirmed or not.
///
/// # Errors
/// As any statement.
pub async fn factor(conn: &mut PgConnection, id: UserId) -> Result<Option<Factor>, DbError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT org_id, kek_id, dek_iv, dek_sealed, nonce, ciphertext, confirmed_at IS NOT NULL AS confirmed
         FROM second_factors WHERE user_id = $1",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    let fits = |bytes: Vec<u8>| bytes.try_into().map_err(|_| sqlx::Error::Decode("a nonce has not 12 bytes".into()));
    row.map(|row| {
        let dek = SealedDek { kek_id: row.kek_id, iv: fits(row.dek_iv)?, ciphertext: row.dek_sealed };
        let secret = Envelope { dek, nonce: fits(row.nonce)?, ciphertext: row.ciphertext };
        Ok(Factor { org_id: row.org_id, secret, confirmed: row.confirmed })
    })
    .transpose()
}

/// A secret that is still to be confirmed, instead of an earlier one of that kind.
///
/// # Errors
/// As any statement. `Ok(false)`: there is a confirmed one.
pub async fn put(conn: &mut PgConnection, org_id: OrgId, id: UserId, secret: &Envelope) -> Result<bool, DbError> {
    let put = sqlx::query(
        "INSERT INTO second_factors (user_id, org_id, kek_id, dek_iv, dek_sealed, nonce, ciphertext) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (user_id) DO UPDATE SET kek_id = EXCLUDED.kek_id, dek_iv = EXCLUDED.dek_iv, dek_sealed = EXCLUDED.dek_sealed,
            nonce = EXCLUDED.nonce, ciphertext = EXCLUDED.ciphertext, last_step = 0, created_at = now()
         WHERE second_factors.confirmed_at IS NULL",
    )
    .bind(id)
    .bind(org_id)
    .bind(secret.dek.kek_id)
    .bind(secret.dek.iv.as_slice())
    .bind(&secret.dek.ciphertext)
    .bind(secret.nonce.as_slice())
    .bind(&secret.ciphertext)
    .execute(conn)
    .await?;
    Ok(put.rows_affected() == 1)
}

/// Confirms the secret that a code of this step was held against, and takes the step.
///
/// # Errors
/// As any statement. `Ok(false)`: it was confirmed or replaced meanwhile.
pub async fn confirm(conn: &mut PgConnection, id: UserId, factor: &Factor, step: i64) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE second_factors SET confirmed_at = now(), last_step = $3
         WHERE user_id = $1 AND ciphertext = $2 AND confirmed_at IS NULL AND last_step < $3",
    )
    .bind(id)
    .bind(&factor.secret.ciphertext)
    .bind(step)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes a code: of all that come with it at once, one.
///
/// # Errors
/// As any statement. `Ok(false)`: it was taken, or one after it; or the secret is another by now.
pub async fn take_code(conn: &mut PgConnection, id: UserId, passed: &Passed) -> Result<bool, DbError> {
    let taken = match passed {
        Passed::Step(factor, step) => {
            sqlx::query(
                "UPDATE second_factors SET last_step = $3
                 WHERE user_id = $1 AND ciphertext = $2 AND last_step < $3 AND confirmed_at IS NOT NULL",
            )
            .bind(id)
            .bind(&factor.secret.ciphertext)
            .bind(step)
            .execute(conn)
            .await?
        }
        Passed::Recovery(hash) => {
            sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1 AND code_hash = $2")
                .bind(id)
                .bind(hash.as_slice())
                .execute(conn)
                .await?
        }
    };
    Ok(taken.rows_affected() == 1)
}

/// Keeps recovery codes, by their hashes.
///
/// # Errors
/// As any statement.
pub async fn put_recovery_codes(conn: &mut PgConnection, id: UserId, hashes: &[[u8; 32]]) -> Result<(), DbError> {
    let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
    sqlx::query("INSERT INTO recovery_codes (user_id, code_hash) SELECT $1, unnest($2::bytea[])")
        .bind(id)
        .bind(hashes)
        .execute(conn)
        .await?;
    Ok(())
}

/// How many are left.
///
/// # Errors
/// As any statement.
pub async fn recovery_codes_left(conn: &mut PgConnection, id: UserId) -> Result<i64, DbError> {
    let left =
        sqlx::query_scalar("SELECT count(*) FROM recovery_codes WHERE user_id = $1").bind(id).fetch_one(conn).await?;
    Ok(left)
}

/// Removes the factor and its recovery codes.
///
/// # Errors
/// As any statement.
pub async fn remove(conn: &mut PgConnection, id: UserId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM second_factors WHERE user_id = $1").bind(id).execute(conn).await?;
    Ok(())
}
