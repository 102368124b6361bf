//! ABIs in the database.

use alloy::primitives::Address;
use sqlx::{PgConnection, PgPool, Row as _};
use time::OffsetDateTime;

use crate::db::DbError;
use crate::ids::{AbiId, OrgId, UserId};
use crate::simulate::names::{Item, Kind, Names};

/// Most items that one look-up reads.
const FOUND_MAX: i64 = 64;

/// A registered ABI.
#[derive(Clone, Debug)]
pub struct Abi {
    /// Its id.
    pub id: AbiId,
    /// Its name, unique in the organisation.
    pub name: String,
    /// The contract that it belongs to; `None`: any.
    pub address: Option<Address>,
    /// How many functions it names.
    pub functions: i64,
    /// How many errors it names.
    pub errors: i64,
    /// Since when.
    pub created_at: OffsetDateTime,
}

/// How many an organisation has. Holds the organisation's row, so that two that count at once do not both find room.
///
/// # Errors
/// As any statement.
pub async fn count_locked(conn: &mut PgConnection, org_id: OrgId) -> Result<i64, DbError> {
    sqlx::query("SELECT 1 FROM organisations WHERE id = $1 FOR NO KEY UPDATE").bind(org_id).execute(&mut *conn).await?;
    let count = sqlx::query_scalar("SELECT count(*) FROM contract_abis WHERE org_id = $1").bind(org_id);
    Ok(count.fetch_one(conn).await?)
}

/// Registers an ABI.
///
/// # Errors
/// [`DbError::Duplicate`] when the name is taken.
pub async fn insert(
    conn: &mut PgConnection,
    org_id: OrgId,
    name: &str,
    address: Option<Address>,
    created_by: UserId,
    items: &[Item],
) -> Result<Abi, DbError> {
    let id = AbiId::random();
    let row = sqlx::query(
        "INSERT INTO contract_abis (id, org_id, name, address, created_by) VALUES ($1, $2, $3, $4, $5) RETURNING created_at",
    )
    .bind(id)
    .bind(org_id)
    .bind(name)
    .bind(address.as_ref().map(|address| address.as_slice()))
    .bind(created_by)
    .fetch_one(&mut *conn)
    .await?;
    // Names as one text each, for there are no arrays of arrays of different lengths: a line break stands in no name.
    let names: Vec<String> = items.iter().map(|item| item.names.join("\n")).collect();
    sqlx::query(
        "INSERT INTO contract_abi_items (abi_id, org_id, kind, selector, signature, names)
         SELECT $1, $2, kind, selector, signature, string_to_array(names, E'\\n')
         FROM unnest($3::text[], $4::bytea[], $5::text[], $6::text[]) AS item (kind, selector, signature, names)",
    )
    .bind(id)
    .bind(org_id)
    .bind(items.iter().map(|item| item.kind.as_str()).collect::<Vec<_>>())
    .bind(items.iter().map(|item| item.selector.to_vec()).collect::<Vec<_>>())
    .bind(items.iter().map(|item| item.signature.as_str()).collect::<Vec<_>>())
    .bind(&names)
    .execute(conn)
    .await?;
    let count = |kind: Kind| i64::try_from(items.iter().filter(|item| item.kind == kind).count()).unwrap_or(i64::MAX);
    Ok(Abi {
        id,
        name: name.to_owned(),
        address,
        functions: count(Kind::Function),
        errors: count(Kind::Error),
        created_at: row.try_get("created_at")?,
    })
}

/// An organisation's ABIs, by name; their number is bounded.
///
/// # Errors
/// As any statement.
pub async fn list(pool: &PgPool, org_id: OrgId) -> Result<Vec<Abi>, DbError> {
    let rows = sqlx::query(
        "SELECT a.id, a.name, a.address, a.created_at,
                count(*) FILTER (WHERE i.kind = 'function') AS functions, count(*) FILTER (WHERE i.kind = 'error') AS errors
         FROM contract_abis a LEFT JOIN contract_abi_items i ON i.abi_id = a.id
         WHERE a.org_id = $1 GROUP BY a.id ORDER BY a.name",
    )
    .bind(org_id)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let address: Option<&[u8]> = row.try_get("address")?;
            Ok(Abi {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                address: address.and_then(|bytes| Address::try_from(bytes).ok()),
                functions: row.try_get("functions")?,
                errors: row.try_get("errors")?,
                created_at: row.try_get("created_at")?,
            })
        })
        .collect()
}

/// Removes an ABI. `false`: there is none.
///
/// # Errors
/// As any statement.
pub async fn delete(conn: &mut PgConnection, org_id: OrgId, id: AbiId) -> Result<bool, DbError> {
    let done = sqlx::query("DELETE FROM contract_abis WHERE id = $1 AND org_id = $2")
        .bind(id)
        .bind(org_id)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// What an organisation's ABIs call a selector.
///
/// # Errors
/// As any statement.
pub async fn names(pool: &PgPool, org_id: OrgId, kind: Kind, selector: [u8; 4]) -> Result<Names, DbError> {
    let rows = sqlx::query(
        "SELECT a.address, i.signature, i.names FROM contract_abi_items i JOIN contract_abis a ON a.id = i.abi_id
         WHERE i.org_id = $1 AND i.kind = $2 AND i.selector = $3 ORDER BY a.created_at, a.id LIMIT $4",
    )
    .bind(org_id)
    .bind(kind.as_str())
    .bind(selector.as_slice())
    .bind(FOUND_MAX)
    .fetch_all(pool)
    .await?;
    let mut names = Names::default();
    for row in rows {
        let address: Option<&[u8]> = row.try_get("address")?;
        let signature: String = row.try_get("signature")?;
        if let Some(item) = Item::parse(kind, &signature, row.try_get("names")?) {
            names.add(address.and_then(|bytes| Address::try_from(bytes).ok()), item);
        }
    }
    Ok(names)
}
