//! Versions by their number, random values, and the way back from a deletion.

use zeroize::Zeroizing;

use super::generate::{self, Charset};
use super::rules::{self, SecretType};
use super::store::versions::VersionRow;
use super::store::{self, Current, Head, Stored};
use super::{ATTEMPTS, NewSecret, Next, Opened, SecretError, open, secret_event, store_next, turn};
use crate::access::{self, Lock, Permission, Principal, SecretPath};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::orgs::limits;
use crate::vaults::{self, Vault, keys};

/// Reads one version's value, as [`super::read`] the current one's: it is counted against that version's own limit.
///
/// # Errors
/// [`SecretError`].
pub async fn read(
    app: &App,
    principal: &Principal,
    vault: &Vault,
    path: &SecretPath,
    version: i32,
) -> Result<Opened, SecretError> {
    open(app, principal, vault, path, Some(version)).await
}

/// The versions of a secret, newest first, without values: at most `limit` of those older than `before`.
///
/// # Errors
/// [`SecretError`].
pub async fn list(
    app: &App,
    principal: &Principal,
    vault: &Vault,
    path: &SecretPath,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<VersionRow>, SecretError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let granted = access::authorise(&mut conn, principal, vault, path, Permission::Read, Lock::None).await?;
    let current = store::current(&mut conn, &granted).await?.ok_or(SecretError::NotFound)?;
    if current.deleted {
        return Err(SecretError::Deleted);
    }
    Ok(store::versions::page(&mut conn, &granted, current.id, before, limit).await?)
}

/// Ends the reading of one version for good; a signing key that is that version signs nothing new. Needs what deleting needs.
///
/// # Errors
/// [`SecretError`].
pub async fn disable(
    app: &App,
    principal: &Principal,
    vault: &Vault,
    path: &SecretPath,
    version: i32,
) -> Result<VersionRow, SecretError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let vault = vaults::store::get_for_share(&mut tx, principal.org_id, vault.id).await?.ok_or(SecretError::NoVault)?;
    let granted = access::authorise(&mut tx, principal, &vault, path, Permission::Delete, Lock::Share).await?;
    let intents = store::intents_enabled(&mut tx, principal.org_id, principal.actor).await?;
    let current = store::current(&mut tx, &granted).await?;
    rules::may_replace(intents, path, current.as_ref().map(|current| current.was_key_type))?;
    let current = current.ok_or(SecretError::NotFound)?;
    if current.deleted {
        return Err(SecretError::Deleted);
    }
    let ended = store::versions::disable(&mut tx, &granted, current.id, version).await?;
    let row = store::versions::get(&mut tx, &granted, current.id, version).await?.ok_or(SecretError::NoVersion)?;
    if ended {
        let event = secret_event(principal, "secret.version_disable", &granted, &current.id.to_string());
        audit::record(&mut tx, event.with("version", version)).await?;
    }
    tx.commit().await.map_err(DbError::from)?;
    Ok(row)
}

/// How a random value is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Of which characters.
    pub charset: Charset,
    /// Of how many.
    pub length: usize,
    /// As what; as what it was, if not said.
    pub kind: Option<SecretType>,
    /// Until when; as it was, if not said.
    pub expires_at: Option<time::OffsetDateTime>,
}

/// Stores a random value as the next version of a secret that there is. Everything else of it stays as it was. The value is given to
/// nobody; whoever may read the secret reads it.
///
/// # Errors
/// [`SecretError`].
pub async fn rotate(
    app: &App,
    principal: &Principal,
    vault: &Vault,
    path: &SecretPath,
    rotation: Rotation,
) -> Result<Stored, SecretError> {
    let mut waited = None;
    for attempt in 0..ATTEMPTS {
        turn(&mut waited, attempt, vault, path).await;
        let mut conn = app.db.acquire().await.map_err(DbError::from)?;
        let granted = access::authorise(&mut conn, principal, vault, path, Permission::Write, Lock::None).await?;
        let intents = store::intents_enabled(&mut conn, principal.org_id, principal.actor).await?;
        let current = store::current(&mut conn, &granted).await?;
        drop(conn);
        rules::may_replace(intents, path, current.as_ref().map(|current| current.was_key_type))?;
        let current = current.ok_or(SecretError::NotFound)?;
        let new = successor(app, vault, &current, rotation).await?;
        let head = Head {
            id: current.id,
            version: current.version,
            was_key_type: current.was_key_type,
            deleted: current.deleted,
        };
        let to = Next { principal, vault, path, head: Some(&head), action: "secret.rotate" };
        if let Some(stored) = store_next(app, &to, &new).await? {
            return Ok(stored);
        }
    }
    Err(SecretError::Contended)
}

async fn successor(app: &App, vault: &Vault, current: &Current, rotation: Rotation) -> Result<NewSecret, SecretError> {
    if current.deleted {
        return Err(SecretError::Deleted);
    }
    if vault.cmek_fingerprint.is_some() {
        return Err(SecretError::ClientEncrypted);
    }
    let kind = rotation.kind.or_else(|| SecretType::parse(&current.kind)).unwrap_or(SecretType::Generic);
    if kind.is_key() {
        return Err(SecretError::RandomKey);
    }
    let expires_at = rotation.expires_at.or(current.expires_at);
    if rotation.expires_at.is_none() && expires_at.is_some_and(|end| crate::clock::now() >= end) {
        return Err(SecretError::RotatesExpired);
    }
    let value: Zeroizing<String> = generate::value(&app.hsm, rotation.charset, rotation.length).await?;
    Ok(NewSecret {
        kind,
        value,
        metadata: current.metadata.clone(),
        rotation_policy: current.rotation_policy.clone(),
        expires_at,
        max_access_count: current.max_access_count,
    })
}

/// Undoes the deletion of a secret: its current version is what it was, with the limits it had. Who may is decided by the caller.
///
/// The deletion ended the signing of its key. `reactivate_key` lets the current version's key sign again, which fails when it cannot;
/// without it the key stays superseded, because a deletion may well have been meant to stop it.
///
/// # Errors
/// [`SecretError`].
pub async fn restore(
    app: &App,
    principal: &Principal,
    vault: &Vault,
    path: &SecretPath,
    reactivate_key: bool,
) -> Result<Stored, SecretError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let vault = vaults::store::get_for_share(&mut tx, principal.org_id, vault.id).await?.ok_or(SecretError::NoVault)?;
    limits::admit_secret(&mut tx, principal.org_id, vault.id, path).await?;
    let Some(restored) = store::versions::restore(&mut tx, principal.org_id, vault.id, path.as_str()).await? else {
        let head = store::head(&mut tx, principal.org_id, vault.id, path).await?;
        return Err(if head.is_some() { SecretError::NotDeleted } else { SecretError::NotFound });
    };
    let stored = restored.stored;
    let mut event = Event::by(principal, "secret.restore", Resource::new("secret", stored.id))
        .with("vault_id", vault.id.to_string())
        .with("path", path.as_str())
        .with("version", stored.version);
    if reactivate_key {
        let key_id = restored.key_id.ok_or(SecretError::NoKeyToReactivate)?;
        if !keys::store::reactivate(&mut tx, stored.id, key_id).await? {
            return Err(SecretError::NoKeyToReactivate);
        }
        event = event.with("reactivated_key_id", key_id.to_string());
    }
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(stored)
}
