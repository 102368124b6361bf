//! Pages of secrets.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Stored;
use crate::access::SecretPath;
use crate::db::DbError;
use crate::ids::{OrgId, SecretId, VaultId};

/// Which secrets of a vault.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Whose path begins like this.
    pub prefix: String,
    /// That end by then, and have not ended yet.
    pub expiring_by: Option<OffsetDateTime>,
}

/// The next secrets behind a path, without values, in the order of their paths' bytes.
///
/// # Errors
/// As any statement.
pub async fn page(
    conn: &mut PgConnection,
    org_id: OrgId,
    vault_id: VaultId,
    filter: &Filter,
    after: &str,
    limit: i64,
) -> Result<Vec<Stored>, DbError> {
    // Paths are of ASCII letters, digits and -_/: nothing that begins with the prefix is above the prefix with a DEL behind it.
    let secrets = sqlx::query_as(
        r#"SELECT id, path, type, version, metadata, expires_at, updated_at AS stored_at FROM secrets
           WHERE vault_id = $1 AND org_id = $2 AND deleted_at IS NULL AND starts_with(path, $3)
             AND path COLLATE "C" >= $3 AND path COLLATE "C" < $3 || chr(127) AND path COLLATE "C" > $4
             AND ($5::timestamptz IS NULL OR (expires_at > now() AND expires_at <= $5))
           ORDER BY path COLLATE "C" LIMIT $6"#,
    )
    .bind(vault_id)
    .bind(org_id)
    .bind(&filter.prefix)
    .bind(after)
    .bind(filter.expiring_by)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(secrets)
}

/// Where a secret of the organisation is, deleted ones too. `None` also for a path that this binary does not understand.
///
/// # Errors
/// As any statement.
pub async fn place(
    conn: &mut PgConnection,
    org_id: OrgId,
    id: SecretId,
) -> Result<Option<(VaultId, SecretPath)>, DbError> {
    let place: Option<(VaultId, String)> =
        sqlx::query_as("SELECT vault_id, path FROM secrets WHERE id = $1 AND org_id = $2")
            .bind(id)
            .bind(org_id)
            .fetch_optional(conn)
            .await?;
    Ok(place.and_then(|(vault_id, path)| Some((vault_id, SecretPath::parse(&path).ok()?))))
}
