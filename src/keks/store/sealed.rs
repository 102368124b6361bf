//! DEKs that the `data` key seals outside of vaults: one statement for every table that has such columns.

use sqlx::{AssertSqlSafe, FromRow, PgConnection};

use crate::db::DbError;
use crate::hsm::{Envelope, SealedDek};
use crate::ids::KekId;

/// A table whose rows have a sealed DEK of their own.
#[derive(Clone, Copy, Debug)]
pub struct SealedTable {
    /// Its name.
    pub table: &'static str,
    /// Its primary key.
    pub key: &'static str,
    /// What the columns of the envelope's DEK begin with.
    pub prefix: &'static str,
    /// The columns that the associated data is made of.
    pub bound: &'static [&'static str],
    /// The associated data, from their texts in that order. `None`: they cannot be read.
    pub aad: fn(&[String]) -> Option<Vec<u8>>,
}

/// A sealed DEK and what it is bound to.
#[derive(Clone, Debug)]
pub struct SealedRow {
    /// The row's key, as text.
    pub key: String,
    /// What binds it.
    pub aad: Vec<u8>,
    /// The DEK.
    pub dek: SealedDek,
}

#[derive(FromRow)]
struct Row {
    key: String,
    bound: Vec<String>,
    kek_id: KekId,
    dek_iv: Vec<u8>,
    dek_sealed: Vec<u8>,
}

#[derive(FromRow)]
struct WholeRow {
    #[sqlx(flatten)]
    row: Row,
    nonce: Vec<u8>,
    ciphertext: Vec<u8>,
}

/// A row's key, what binds it, and all of it, unless it cannot be read.
pub type Sample = (String, Result<(Vec<u8>, Envelope), DbError>);

impl SealedTable {
    /// The rows whose DEK a `data` key of the token seals, whose key is after `after`, each with its key. One that cannot be read must not
    /// keep the others from being taken.
    ///
    /// # Errors
    /// As any statement.
    pub async fn sealed_by(
        &self,
        conn: &mut PgConnection,
        kek: KekId,
        after: &str,
        limit: i64,
    ) -> Result<Vec<(String, Result<SealedRow, DbError>)>, DbError> {
        let Self { table, key, prefix, .. } = self;
        let sql = format!(
            "SELECT {} FROM {table} WHERE {prefix}kek_id = $1 AND {key}::text COLLATE \"C\" > $2
             ORDER BY {key}::text COLLATE \"C\" LIMIT $3",
            self.columns()
        );
        // Of constants of this binary alone.
        let rows: Vec<Row> =
            sqlx::query_as(AssertSqlSafe(sql)).bind(kek).bind(after).bind(limit).fetch_all(conn).await?;
        Ok(rows.into_iter().map(|row| (row.key.clone(), self.read(row))).collect())
    }

    fn columns(&self) -> String {
        let Self { key, prefix, .. } = self;
        let bound: Vec<String> = self.bound.iter().map(|column| format!("{column}::text")).collect();
        format!(
            "{key}::text AS key, ARRAY[{}] AS bound, {prefix}kek_id AS kek_id, {prefix}dek_iv AS dek_iv, {prefix}dek_sealed AS dek_sealed",
            bound.join(", ")
        )
    }

    /// Some rows, whole, to be opened as a check; and how many there are.
    ///
    /// # Errors
    /// As any statement.
    pub async fn sample(&self, conn: &mut PgConnection, count: i64) -> Result<(Vec<Sample>, i64), DbError> {
        let Self { table, prefix, .. } = self;
        let sql = format!("SELECT count(*) FROM {table} WHERE {prefix}kek_id IS NOT NULL");
        let total = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *conn).await?;
        let sql = format!(
            "SELECT {}, {prefix}nonce AS nonce, {prefix}ciphertext AS ciphertext FROM {table} WHERE {prefix}kek_id IS NOT NULL
             ORDER BY random() LIMIT $1",
            self.columns()
        );
        let rows: Vec<WholeRow> = sqlx::query_as(AssertSqlSafe(sql)).bind(count).fetch_all(conn).await?;
        Ok((rows.into_iter().map(|row| self.read_whole(row)).collect(), total))
    }

    fn read_whole(&self, row: WholeRow) -> Sample {
        let key = row.row.key.clone();
        let read = self.read(row.row).and_then(|sealed| {
            let nonce = row.nonce.as_slice().try_into().map_err(|_| {
                DbError::Internal(sqlx::Error::Decode(format!("{key}: the nonce has not 12 bytes").into()))
            })?;
            Ok((sealed.aad, Envelope { dek: sealed.dek, nonce, ciphertext: row.ciphertext }))
        });
        (key, read)
    }

    fn read(&self, row: Row) -> Result<SealedRow, DbError> {
        let corrupt = |what: &str| {
            DbError::Internal(sqlx::Error::Decode(format!("{} of {}: {what}", row.key, self.table).into()))
        };
        let iv = row.dek_iv.as_slice().try_into().map_err(|_| corrupt("the nonce has not 12 bytes"))?;
        let aad = (self.aad)(&row.bound).ok_or_else(|| corrupt("what binds it cannot be read"))?;
        Ok(SealedRow { key: row.key, aad, dek: SealedDek { kek_id: row.kek_id, iv, ciphertext: row.dek_sealed } })
    }

    /// Puts a DEK sealed anew in the place of exactly the old one. `false`: somebody else has.
    ///
    /// # Errors
    /// As any statement.
    pub async fn replace(&self, conn: &mut PgConnection, old: &SealedRow, new: &SealedDek) -> Result<bool, DbError> {
        let Self { table, key, prefix, .. } = self;
        let sql = format!(
            "UPDATE {table} SET {prefix}kek_id = $4, {prefix}dek_iv = $5, {prefix}dek_sealed = $6
             WHERE {key}::text = $1 AND {prefix}kek_id = $2 AND {prefix}dek_sealed = $3"
        );
        let done = sqlx::query(AssertSqlSafe(sql))
            .bind(&old.key)
            .bind(old.dek.kek_id)
            .bind(&old.dek.ciphertext)
            .bind(new.kek_id)
            .bind(new.iv.as_slice())
            .bind(&new.ciphertext)
            .execute(conn)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}
