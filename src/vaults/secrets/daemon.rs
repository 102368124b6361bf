//! Secrets that the daemon itself uses, because the organisation has named them in its settings.

use secrecy::SecretString;

use super::store::{self, Body, Current};
use super::{SecretError, associated_data, check_live};
use crate::access::{Actor, Authorised, SecretPath};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::ids::{OrgId, VaultId};
use crate::vaults;

/// Opens a secret that a human who may read it has named for this use. Does not count as an access. The audit row is committed before
/// the value is given out.
///
/// # Errors
/// [`SecretError`]: it is gone, ended, no text, or a key, which the daemon never hands to anybody.
pub async fn open_for_daemon(
    app: &App,
    org_id: OrgId,
    vault_id: VaultId,
    path: &SecretPath,
    named_by: Actor,
    used_for: &'static str,
) -> Result<SecretString, SecretError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let vault = vaults::store::get(&mut conn, org_id, vault_id).await?.ok_or(SecretError::NoVault)?;
    let granted = Authorised::named_in_settings(&vault, path, named_by);
    let (current, Body(envelope)) = usable(store::current(&mut conn, &granted).await?)?;
    drop(conn);
    let aad = associated_data(org_id, vault_id, path, current.version, &current.kind);
    let mut bytes = app.hsm.open(&aad, &envelope).await?;
    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|_| SecretError::NotText)?;
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let event = Event::by_system(org_id, "secret.read", Resource::new("secret", current.id))
        .with("vault_id", vault_id.to_string())
        .with("path", path.as_str())
        .with("version", current.version)
        .with("used_for", used_for);
    audit::record(&mut conn, event).await?;
    Ok(SecretString::from(text))
}

/// Whether the daemon could use the secret now.
///
/// # Errors
/// [`SecretError`], which says why not.
pub async fn usable_by_daemon(conn: &mut sqlx::PgConnection, granted: &Authorised) -> Result<(), SecretError> {
    usable(store::current(conn, granted).await?).map(|_| ())
}

fn usable(current: Option<Current>) -> Result<(Current, Body), SecretError> {
    let current = current.ok_or(SecretError::NotFound)?;
    check_live(&current)?;
    if current.was_key_type {
        return Err(SecretError::IsKey);
    }
    let body = current.body.clone().ok_or(SecretError::IsKey)?;
    Ok((current, body))
}
