//! What is done to stored versions without anybody reading them: their DEKs sealed by a new key of the token, samples opened.

use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::super::associated_data;
use crate::access::SecretPath;
use crate::db::DbError;
use crate::hsm::{Envelope, SealedDek};
use crate::ids::{KekId, OrgId, SecretId, VaultId};

/// A version's place in the order in which they are taken.
pub type Place = (SecretId, i32);

/// A sealed DEK and what it is bound to.
#[derive(Clone, Debug)]
pub struct SealedVersion {
    /// The secret and the version.
    pub place: Place,
    /// What binds it.
    pub aad: Vec<u8>,
    /// The DEK.
    pub dek: SealedDek,
}

#[derive(FromRow)]
struct Row {
    secret_id: SecretId,
    version: i32,
    org_id: OrgId,
    vault_id: VaultId,
    path: String,
    #[sqlx(rename = "type")]
    kind: String,
    kek_id: KekId,
    dek_iv: Vec<u8>,
    dek_sealed: Vec<u8>,
}

impl Row {
    fn read(self) -> Result<SealedVersion, DbError> {
        let corrupt = |what: &str| {
            DbError::Internal(sqlx::Error::Decode(
                format!("version {} of secret {}: {what}", self.version, self.secret_id).into(),
            ))
        };
        let path = SecretPath::parse(&self.path).map_err(|_| corrupt("the path cannot be read"))?;
        let iv = self.dek_iv.as_slice().try_into().map_err(|_| corrupt("the nonce has not 12 bytes"))?;
        Ok(SealedVersion {
            place: (self.secret_id, self.version),
            aad: associated_data(self.org_id, self.vault_id, &path, self.version, &self.kind),
            dek: SealedDek { kek_id: self.kek_id, iv, ciphertext: self.dek_sealed },
        })
    }
}

/// A version's place, and what was read of it unless its row cannot be read: one such row must not keep the others from being taken.
pub type Found<T> = (Place, Result<T, DbError>);

/// The versions whose DEK a `data` key of the token seals, after `after`: old versions and deleted secrets too.
///
/// # Errors
/// As any statement.
pub async fn sealed_by(
    conn: &mut PgConnection,
    kek: KekId,
    after: Place,
    limit: i64,
) -> Result<Vec<Found<SealedVersion>>, DbError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT v.secret_id, v.version, s.org_id, s.vault_id, s.path, v.type, v.kek_id, v.dek_iv, v.dek_sealed
         FROM secret_versions v JOIN secrets s ON s.id = v.secret_id
         WHERE v.kek_id = $1 AND (v.secret_id, v.version) > ($2, $3) ORDER BY v.secret_id, v.version LIMIT $4",
    )
    .bind(kek)
    .bind(after.0)
    .bind(after.1)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.secret_id, row.version), row.read())).collect())
}

/// Puts a DEK sealed anew in the place of exactly `old`. `false`: somebody else has.
///
/// # Errors
/// As any statement.
pub async fn replace_dek(
    conn: &mut PgConnection,
    place: Place,
    old: &SealedDek,
    new: &SealedDek,
) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE secret_versions SET kek_id = $5, dek_iv = $6, dek_sealed = $7
         WHERE secret_id = $1 AND version = $2 AND kek_id = $3 AND dek_sealed = $4",
    )
    .bind(place.0)
    .bind(place.1)
    .bind(old.kek_id)
    .bind(&old.ciphertext)
    .bind(new.kek_id)
    .bind(new.iv.as_slice())
    .bind(&new.ciphertext)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A whole sealed version, to be opened as a check.
pub struct Sample {
    /// What binds it.
    pub aad: Vec<u8>,
    /// All of it.
    pub envelope: Envelope,
}

/// Some sealed versions, from a random place on. Their bodies are in memory: a few hundred at most.
///
/// # Errors
/// As any statement.
pub async fn sample(conn: &mut PgConnection, count: i64) -> Result<Vec<Found<Sample>>, DbError> {
    let (start, mut places) = (Uuid::new_v4(), Vec::<Row>::new());
    let select = "SELECT v.secret_id, v.version, s.org_id, s.vault_id, s.path, v.type, v.kek_id, v.dek_iv, v.dek_sealed
                  FROM secret_versions v JOIN secrets s ON s.id = v.secret_id WHERE v.ciphertext IS NOT NULL AND v.secret_id ";
    for side in [">= $1", "< $1"] {
        let sql = format!("{select}{side} ORDER BY v.secret_id, v.version DESC LIMIT $2");
        let missing = count - i64::try_from(places.len()).unwrap_or(i64::MAX);
        let rows = sqlx::query_as::<_, Row>(sqlx::AssertSqlSafe(sql)).bind(start).bind(missing.max(0));
        places.extend(rows.fetch_all(&mut *conn).await?);
    }
    let mut samples = Vec::with_capacity(places.len());
    for row in places {
        let place = (row.secret_id, row.version);
        let SealedVersion { aad, dek, .. } = match row.read() {
            Ok(version) => version,
            Err(error) => {
                samples.push((place, Err(error)));
                continue;
            }
        };
        let (nonce, ciphertext): (Vec<u8>, Vec<u8>) =
            sqlx::query_as("SELECT nonce, ciphertext FROM secret_versions WHERE secret_id = $1 AND version = $2")
                .bind(place.0)
                .bind(place.1)
                .fetch_one(&mut *conn)
                .await?;
        let nonce = nonce.try_into().map_err(|_| {
            DbError::Internal(sqlx::Error::Decode(format!("secret {}: the nonce has not 12 bytes", place.0).into()))
        });
        samples.push((place, nonce.map(|nonce| Sample { aad, envelope: Envelope { dek, nonce, ciphertext } })));
    }
    Ok(samples)
}
