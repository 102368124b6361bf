//! Lists of secrets, page by page.

use serde_json::Value;

use super::SecretError;
use super::store::Stored;
use super::store::list::{Filter, page};
use crate::access::{self, Lock, Permission, Principal, SecretPath};
use crate::app::App;
use crate::db::DbError;
use crate::vaults::Vault;

/// Rows that are read at a time.
const BATCH: i64 = 250;
/// Rows that one request looks at: an agent may be allowed few of many.
const SCANNED_MAX: usize = 50_000;
/// A page ends when its metadata comes to so many bytes, about.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A page.
#[derive(Debug, Default)]
pub struct Page {
    /// Secrets that the principal may read, by path.
    pub secrets: Vec<Stored>,
    /// Where the next one begins, if there is more to look at.
    pub next: Option<SecretPath>,
}

/// The secrets that a principal may read, without values: at most `limit` of those behind `after`.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    app: &App,
    principal: &Principal,
    vault: &Vault,
    filter: &Filter,
    after: Option<SecretPath>,
    limit: usize,
) -> Result<Page, SecretError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let grants = access::store::grants(&mut conn, principal, vault, Lock::None).await?;
    let (mut found, mut scanned, mut bytes) = (Page::default(), 0, 0);
    let mut last = after.map_or_else(String::new, |path| path.as_str().to_owned());
    loop {
        let rows = page(&mut conn, principal.org_id, vault.id, filter, &last, BATCH).await?;
        let ended = rows.len() as u64 != BATCH.unsigned_abs();
        for row in rows {
            scanned += 1;
            let readable = SecretPath::parse(&row.path).is_ok_and(|path| grants.check(&path, Permission::Read).is_ok());
            // A full page ends before the next that may be read: there is more only if there is one.
            let full = readable && (found.secrets.len() >= limit || bytes >= BYTES_MAX);
            if full || scanned > SCANNED_MAX {
                found.next = SecretPath::parse(&last).ok();
                return Ok(found);
            }
            last.clone_from(&row.path);
            if readable {
                bytes += row.path.len() + weight(&row.metadata);
                found.secrets.push(row);
            }
        }
        if ended {
            return Ok(found);
        }
    }
}

/// About how much memory an object of the client's takes.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 32 + text.len(),
        Value::Array(list) => 32 + list.iter().map(weight).sum::<usize>(),
        Value::Object(members) => {
            32 + members.iter().map(|(name, value)| 32 + name.len() + weight(value)).sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 32,
    }
}
