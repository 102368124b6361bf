//! Secrets: values under paths, in versions. Bodies are sealed under keys of the HSM; signing keys go into it.
//!
//! Storing makes the next version; the newest `vaults.kept_versions` of them keep their values. Each version keeps the limits it was
//! stored with. Deleting a secret closes all of its versions and ends the signing of its key; a manager can restore it.

pub mod api;
mod daemon;
mod error;
pub mod generate;
pub mod http;
pub mod list;
mod own;
pub mod rules;
pub mod store;
pub mod versions;

pub use daemon::{open_for_daemon, usable_by_daemon};

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::sync::{Mutex, MutexGuard};
use zeroize::Zeroizing;

use self::rules::{Content, Refusal, SecretType};
use self::store::{Body, Current, Head, NewKey, NewVersion, Stored};
use super::{Vault, cmek, keys};
use crate::access::{self, Authorised, Lock, Permission, Principal, SecretPath};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::hsm::{Custody, KeyContext};
use crate::ids::{KeyId, OrgId, VaultId};
use crate::orgs::limits;

pub use error::SecretError;
pub use own::Own;

/// How often a version is prepared again because another request stored one first.
const ATTEMPTS: usize = 16;

/// A secret as it is to be stored.
pub struct NewSecret {
    /// The type.
    pub kind: SecretType,
    /// The value.
    pub value: Zeroizing<String>,
    /// The client's own object.
    pub metadata: Value,
    /// Kept for the client.
    pub rotation_policy: Option<Value>,
    /// When it ends.
    pub expires_at: Option<OffsetDateTime>,
    /// How often it may be read.
    pub max_access_count: Option<i32>,
}

/// A secret with its value, as read.
pub struct Opened {
    /// Everything but the value.
    pub current: Current,
    /// The value.
    pub value: Zeroizing<String>,
}

/// What binds a sealed body to its row. Every part has its length in front.
#[must_use]
pub fn associated_data(org_id: OrgId, vault_id: VaultId, path: &SecretPath, version: i32, kind: &str) -> Vec<u8> {
    let version = version.to_be_bytes();
    let parts: [&[u8]; 6] = [
        b"intentd secret 1",
        org_id.0.as_bytes(),
        vault_id.0.as_bytes(),
        path.as_str().as_bytes(),
        &version,
        kind.as_bytes(),
    ];
    let mut data = Vec::new();
    for part in parts {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

/// Stores the next version of a secret. A signing key goes into the HSM, and unless a human asked to keep it exportable its
/// plaintext is kept nowhere.
///
/// The version's number is part of what is sealed, so sealing and import happen first, without any lock, and are done again if another
/// request stored a version meanwhile. Key row, blob, version and audit row are one transaction; in it the permission is looked up again
/// with its rows held.
///
/// # Errors
/// [`SecretError`]; then nothing was stored.
pub async fn put(
    app: &App,
    principal: &Principal,
    vault: &Vault,
    path: &SecretPath,
    new: &NewSecret,
) -> Result<Stored, SecretError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    access::authorise(&mut conn, principal, vault, path, Permission::Write, Lock::None).await?;
    drop(conn);
    let mut waited = None;
    for attempt in 0..ATTEMPTS {
        turn(&mut waited, attempt, vault, path).await;
        let mut conn = app.db.acquire().await.map_err(DbError::from)?;
        let head = store::head(&mut conn, principal.org_id, vault.id, path).await?;
        drop(conn);
        let to = Next { principal, vault, path, head: head.as_ref(), action: "secret.write" };
        if let Some(stored) = store_next(app, &to, new).await? {
            return Ok(stored);
        }
    }
    Err(SecretError::Contended)
}

/// Where requests wait that were too late for a path once.
static QUEUES: [Mutex<()>; 64] = [const { Mutex::const_new(()) }; 64];

/// A turn, from the second attempt on. Those that were too late come one by one then, or the same one could be too late every time. It
/// decides nothing: of two daemons' two the database still takes one.
async fn turn(turn: &mut Option<MutexGuard<'static, ()>>, attempt: usize, vault: &Vault, path: &SecretPath) {
    if attempt == 1 {
        let mut hasher = DefaultHasher::new();
        (vault.id.0, path.as_str()).hash(&mut hasher);
        let queue = usize::try_from(hasher.finish() % QUEUES.len() as u64).unwrap_or(0);
        *turn = Some(QUEUES[queue].lock().await);
    }
}

/// Where the next version goes.
struct Next<'a> {
    principal: &'a Principal,
    vault: &'a Vault,
    path: &'a SecretPath,
    /// Where the path stands.
    head: Option<&'a Head>,
    /// For the audit row.
    action: &'static str,
}

/// Stores the version behind `head`. `None`: the path stands elsewhere by now.
async fn store_next(app: &App, to: &Next<'_>, new: &NewSecret) -> Result<Option<Stored>, SecretError> {
    let content = rules::content(to.path, new.kind, &new.value, &new.metadata, to.principal.user_id().is_some())?;
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let intents = store::intents_enabled(&mut conn, to.principal.org_id, to.principal.actor).await?;
    drop(conn);
    rules::may_replace(intents, to.path, to.head.map(|head| head.was_key_type))?;
    let prepared = prepare(app, to.vault, to.path, to.head, new, &content).await?;
    match write(app, to, new, &prepared).await {
        Ok(None) => {
            prepared.discard(app).await;
            Ok(None)
        }
        // A COMMIT whose outcome is unknown may have happened: its key must stay.
        Ok(stored) => Ok(stored),
        Err(error @ SecretError::Db(_)) => Err(error),
        Err(error) => {
            prepared.discard(app).await;
            Err(error)
        }
    }
}

/// What the HSM made for a version that is not stored yet.
struct Prepared {
    version: i32,
    body: Option<Body>,
    key: Option<NewKey>,
    /// Whether the client has encrypted the value.
    encrypted: bool,
}

impl Prepared {
    /// Removes a token key that no row will name. A wrapped key is nowhere but here.
    async fn discard(self, app: &App) {
        let Some(key) = self.key.filter(|key| key.key_ref.custody() == Custody::Token) else { return };
        if let Err(error) = app.hsm.destroy(&key.context, &key.key_ref).await {
            tracing::warn!(key = %key.context.key_id, %error, "a key that was not stored could not be removed from the token");
        }
    }
}

/// The work in the HSM. No lock is held.
async fn prepare(
    app: &App,
    vault: &Vault,
    path: &SecretPath,
    head: Option<&Head>,
    new: &NewSecret,
    content: &Content,
) -> Result<Prepared, SecretError> {
    let version = head.map_or(0, |head| head.version) + 1;
    let org_id = vault.org_id;
    let body = if content.keeps_body() {
        let aad = associated_data(org_id, vault.id, path, version, new.kind.as_str());
        Some(Body(app.hsm.seal(&aad, new.value.as_bytes()).await?))
    } else {
        None
    };
    let key = match content.scalar() {
        None => None,
        Some(scalar) => {
            let context = KeyContext { org_id, key_id: KeyId::random(), path: path.as_str().to_owned(), version };
            let custody = app.config.hsm.as_ref().map_or_else(Custody::default, |hsm| hsm.custody);
            let (key_ref, public_key) = app.hsm.import(&context, custody, scalar).await?;
            Some(NewKey { context, key_ref, public_key })
        }
    };
    let encrypted = cmek::rules::is_encrypted(&new.value, &new.metadata) && key.is_none();
    Ok(Prepared { version, body, key, encrypted })
}

/// The transaction. `None`: another version was stored first.
async fn write(app: &App, to: &Next<'_>, new: &NewSecret, prepared: &Prepared) -> Result<Option<Stored>, SecretError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let Some(vault) = super::store::get_for_share(&mut tx, to.principal.org_id, to.vault.id).await? else {
        return Err(SecretError::NoVault);
    };
    let granted = access::authorise(&mut tx, to.principal, &vault, to.path, Permission::Write, Lock::Share).await?;
    limits::admit_secret(&mut tx, to.principal.org_id, vault.id, to.path).await?;
    let version = NewVersion {
        head: to.head,
        version: prepared.version,
        new,
        body: prepared.body.as_ref(),
        key: prepared.key.as_ref(),
        // Of the vault as it is held: a rotation of its key ends only when nothing can be stored under the old one any more.
        cmek_fingerprint: vault.cmek_fingerprint.as_deref().filter(|_| prepared.encrypted),
    };
    let Some(stored) = store::write(&mut tx, &granted, &version).await? else { return Ok(None) };
    let mut event = secret_event(to.principal, to.action, &granted, &stored.id.to_string())
        .with("type", new.kind.as_str())
        .with("version", stored.version);
    if let Some(key) = &prepared.key {
        event =
            event.with("key_id", key.context.key_id.to_string()).with("address", key.public_key.address().to_string());
    }
    audit::record(&mut tx, event).await?;
    let kept = i32::try_from(app.config.vaults.kept_versions).unwrap_or(i32::MAX);
    let up_to = stored.version.saturating_sub(kept);
    let destroyed = store::versions::destroy_older(&mut tx, stored.id, up_to).await?;
    if destroyed > 0 {
        let event = secret_event(to.principal, "secret.destroy", &granted, &stored.id.to_string())
            .with("versions", destroyed)
            .with("up_to_version", up_to);
        audit::record(&mut tx, event).await?;
    }
    tx.commit().await.map_err(DbError::from)?;
    Ok(Some(stored))
}

/// Reads a secret's value. The count of accesses and the audit row are committed after it was opened and before it is given out.
///
/// # Errors
/// [`SecretError`]: not allowed comes before not there.
pub async fn read(app: &App, principal: &Principal, vault: &Vault, path: &SecretPath) -> Result<Opened, SecretError> {
    open(app, principal, vault, path, None).await
}

async fn open(
    app: &App,
    principal: &Principal,
    vault: &Vault,
    path: &SecretPath,
    version: Option<i32>,
) -> Result<Opened, SecretError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let granted = access::authorise(&mut conn, principal, vault, path, Permission::Read, Lock::None).await?;
    let intents = store::intents_enabled(&mut conn, principal.org_id, principal.actor).await?;
    let current = readable_version(&mut conn, &granted, intents, version).await?;
    drop(conn);
    let value = unseal(app, &granted, &current).await?;

    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    if !store::count_access(&mut tx, &granted, &current).await? {
        return Err(SecretError::Exhausted);
    }
    let event =
        secret_event(principal, "secret.read", &granted, &current.id.to_string()).with("version", current.version);
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(Opened { current, value })
}

/// The current version behind a grant, if its value may be given out at all: it is there, and no key that is behind the gate or held in
/// the HSM alone. `intents`: an agent with the Intents API is to have it, or has granted it.
///
/// # Errors
/// [`SecretError`].
pub async fn readable(conn: &mut PgConnection, granted: &Authorised, intents: bool) -> Result<Current, SecretError> {
    readable_version(conn, granted, intents, None).await
}

async fn readable_version(
    conn: &mut PgConnection,
    granted: &Authorised,
    intents: bool,
    version: Option<i32>,
) -> Result<Current, SecretError> {
    rules::may_read(intents, granted.path(), false)?;
    let current = match store::version(conn, granted, version).await? {
        Some(current) => current,
        None if version.is_some() && store::current(conn, granted).await?.is_some() => {
            return Err(SecretError::NoVersion);
        }
        None => return Err(SecretError::NotFound),
    };
    rules::may_read(intents, granted.path(), current.was_key_type)?;
    check_live(&current)?;
    match (&current.body, current.key_address) {
        (Some(_), _) => Ok(current),
        (None, Some(address)) => Err(Refusal::KeyHeldInHsm(address).into()),
        (None, None) => Err(SecretError::NotFound),
    }
}

/// Opens a version. Nothing is counted or written down yet: that is to be committed before the value is given out.
///
/// # Errors
/// [`SecretError`].
pub async fn unseal(app: &App, granted: &Authorised, current: &Current) -> Result<Zeroizing<String>, SecretError> {
    let Body(envelope) = current.body.as_ref().ok_or(SecretError::NotFound)?;
    let aad = associated_data(granted.org_id(), granted.vault_id(), granted.path(), current.version, &current.kind);
    let mut bytes = app.hsm.open(&aad, envelope).await?;
    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|_| SecretError::NotText)?;
    Ok(Zeroizing::new(text))
}

/// In this order: what is gone for good says so even when it would also have expired.
fn check_live(current: &Current) -> Result<(), SecretError> {
    if current.deleted {
        return Err(SecretError::Deleted);
    }
    if current.destroyed {
        return Err(SecretError::Destroyed);
    }
    if current.disabled {
        return Err(SecretError::Disabled);
    }
    if current.expires_at.is_some_and(|end| crate::clock::now() >= end) {
        return Err(SecretError::Expired);
    }
    if current.max_access_count.is_some_and(|max| current.access_count >= max) {
        return Err(SecretError::Exhausted);
    }
    Ok(())
}

fn secret_event(principal: &Principal, action: &'static str, granted: &Authorised, id: &str) -> Event {
    Event::by(principal, action, Resource::new("secret", id))
        .with("vault_id", granted.vault_id().to_string())
        .with("path", granted.path().as_str())
}

/// Deletes a secret. Its signing key signs nothing new, but stays until what it signed is settled.
///
/// # Errors
/// [`SecretError`].
pub async fn delete(app: &App, principal: &Principal, vault: &Vault, path: &SecretPath) -> Result<(), SecretError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let Some(vault) = super::store::get_for_share(&mut tx, principal.org_id, vault.id).await? else {
        return Err(SecretError::NoVault);
    };
    let granted = access::authorise(&mut tx, principal, &vault, path, Permission::Delete, Lock::Share).await?;
    let intents = store::intents_enabled(&mut tx, principal.org_id, principal.actor).await?;
    let head = store::head(&mut tx, principal.org_id, vault.id, path).await?;
    rules::may_replace(intents, path, head.as_ref().map(|head| head.was_key_type))?;
    let head = head.ok_or(SecretError::NotFound)?;
    if !store::delete(&mut tx, &granted, head.id).await? {
        return Err(SecretError::Deleted);
    }
    keys::store::supersede(&mut tx, head.id).await?;
    audit::record(&mut tx, secret_event(principal, "secret.delete", &granted, &head.id.to_string())).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(())
}
