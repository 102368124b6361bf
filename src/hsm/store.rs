//! The `keks` table. The only SQL of this folder.

use sqlx::{PgConnection, Row as _};

use super::keks::{Kek, KekPurpose, KekState};
use crate::ids::KekId;

/// Why the KEKs' rows were not read or written.
#[derive(Debug, thiserror::Error)]
pub enum KekStoreError {
    /// The database.
    #[error("the database did not answer as expected")]
    Database(#[from] sqlx::Error),
    /// A row that no version of this program has written.
    #[error("the row of key-encryption key {id} cannot be read: {what}")]
    Row {
        /// The row.
        id: KekId,
        /// The column.
        what: &'static str,
    },
}

/// Every row, oldest first, retired ones included.
///
/// # Errors
/// [`KekStoreError`].
pub async fn load(connection: &mut PgConnection) -> Result<Vec<Kek>, KekStoreError> {
    let query = "SELECT id, purpose, state, cka_id, mechanism, public_key, canary FROM keks ORDER BY created_at, id";
    let rows = sqlx::query(query).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// Writes new rows. The caller holds the transaction's advisory lock under which it saw that there are none; the partial unique
/// index on (purpose) WHERE state = 'active' refuses a second active key in any case.
///
/// # Errors
/// [`KekStoreError::Database`].
pub async fn insert(connection: &mut PgConnection, keks: &[Kek]) -> Result<(), KekStoreError> {
    for kek in keks {
        sqlx::query(
            "INSERT INTO keks (id, purpose, state, cka_id, mechanism, public_key, canary) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(kek.id)
        .bind(kek.purpose.as_str())
        .bind(kek.state.as_str())
        .bind(kek.cka_id.as_slice())
        .bind(i64::from_ne_bytes(kek.mechanism.to_ne_bytes()))
        .bind(kek.public_key.as_deref())
        .bind(&kek.canary)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

fn read(row: &sqlx::postgres::PgRow) -> Result<Kek, KekStoreError> {
    let id: KekId = row.try_get("id")?;
    let corrupt = |what| KekStoreError::Row { id, what };
    let purpose: &str = row.try_get("purpose")?;
    let state: &str = row.try_get("state")?;
    let cka_id: &[u8] = row.try_get("cka_id")?;
    let mechanism: i64 = row.try_get("mechanism")?;
    Ok(Kek {
        id,
        purpose: KekPurpose::ALL.into_iter().find(|known| known.as_str() == purpose).ok_or(corrupt("purpose"))?,
        state: KekState::ALL.into_iter().find(|known| known.as_str() == state).ok_or(corrupt("state"))?,
        cka_id: cka_id.try_into().map_err(|_| corrupt("cka_id"))?,
        mechanism: u64::from_ne_bytes(mechanism.to_ne_bytes()),
        public_key: row.try_get("public_key")?,
        canary: row.try_get("canary")?,
    })
}
