//! Customer-managed encryption (CMEK): the clients of a vault encrypt values under a key of their own before they send them.
//!
//! We keep what they send like any other value, sealed by our own envelope, and mark it with the fingerprint of the key that the vault
//! said its clients use. We cannot read it, nor sign with it. A value that does not have the clients' format is kept as it is: whether
//! a client has encrypted something can only be told by its form.
//!
//! A rotation is the one time that we see the keys: they come in headers, live in the memory of the task that runs it, and are wiped
//! at its end. Every value is moved by itself, in batches, and carries the fingerprint of the key that it is under, so that a rotation
//! that was cut off goes on where it was when it is asked for again with the same keys.

pub mod api;
pub mod http;
mod rotate;
pub mod rules;
pub mod store;

use std::sync::Arc;

use self::rules::{ClientKey, InputError};
use self::store::Rotation;
use super::Vault;
use crate::access::Principal;
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::ids::{CmekRotationId, OrgId, VaultId};

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum CmekError {
    /// There is none, or no such rotation.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// What was sent cannot be used.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Not turned on.
    #[error("this vault has no customer-managed key: turn CMEK on first")]
    Off,
    /// On already, with another key.
    #[error("this vault's customer-managed key is another one: change it with cmek-rotate, or turn CMEK off first")]
    OtherKey,
    /// A rotation runs.
    #[error("a rotation of this vault's key is running: wait for its end")]
    Running,
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Says which key the clients of a vault encrypt with. Saying it again changes nothing.
///
/// # Errors
/// [`CmekError`].
pub async fn enable(app: &App, principal: &Principal, id: VaultId, fingerprint: &str) -> Result<Vault, CmekError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let vault = held(&mut tx, principal.org_id, id).await?;
    match &vault.cmek_fingerprint {
        Some(present) if present == fingerprint => return Ok(vault),
        Some(_) => return Err(CmekError::OtherKey),
        None => {}
    }
    let vault = super::store::set_cmek(&mut tx, principal.org_id, id, Some(fingerprint)).await?;
    let event = Event::by(principal, "cmek.enable", Resource::new("vault", id)).with("fingerprint", fingerprint);
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    vault.ok_or(CmekError::NotFound("vault"))
}

/// Says that the clients encrypt no more. What they have encrypted stays so, and marked.
///
/// # Errors
/// [`CmekError`].
pub async fn disable(app: &App, principal: &Principal, id: VaultId) -> Result<Vault, CmekError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let vault = held(&mut tx, principal.org_id, id).await?;
    let Some(fingerprint) = vault.cmek_fingerprint.clone() else { return Ok(vault) };
    let vault = super::store::set_cmek(&mut tx, principal.org_id, id, None).await?;
    let event = Event::by(principal, "cmek.disable", Resource::new("vault", id)).with("fingerprint", fingerprint);
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    vault.ok_or(CmekError::NotFound("vault"))
}

/// The vault, held, with no rotation in it that could still be running.
async fn held(conn: &mut sqlx::PgConnection, org_id: OrgId, id: VaultId) -> Result<Vault, CmekError> {
    let vault = super::store::get_for_update(conn, org_id, id).await?.ok_or(CmekError::NotFound("vault"))?;
    end_abandoned(conn, Some(id)).await?;
    if store::live(conn, id).await? { Err(CmekError::Running) } else { Ok(vault) }
}

/// Writes down as failed what a daemon that is gone has left behind.
async fn end_abandoned(conn: &mut sqlx::PgConnection, vault_id: Option<VaultId>) -> Result<(), DbError> {
    for rotation in store::fail_abandoned(conn, vault_id).await? {
        audit::record(conn, rotate::ended(&rotation)).await?;
    }
    Ok(())
}

/// At the start of a daemon: nobody may ask for those rotations again.
///
/// # Errors
/// As any statement.
pub async fn end_all_abandoned(app: &App) -> Result<(), DbError> {
    let mut tx = app.db.begin().await?;
    end_abandoned(&mut tx, None).await?;
    Ok(tx.commit().await?)
}

/// Begins to move a vault's values from the old key to the new one. The work goes on in a task of its own.
///
/// # Errors
/// [`CmekError`]; then nothing was begun.
pub async fn rotate(
    app: &Arc<App>,
    principal: &Principal,
    id: VaultId,
    old: ClientKey,
    new: ClientKey,
) -> Result<Rotation, CmekError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let vault = held(&mut tx, principal.org_id, id).await?;
    let present = vault.cmek_fingerprint.ok_or(CmekError::Off)?;
    if old.fingerprint() != present {
        return Err(InputError::OldKey.into());
    }
    if new.fingerprint() == present {
        return Err(InputError::SameKey.into());
    }
    let rotation = store::begin(&mut tx, principal.org_id, id, &present, &new.fingerprint()).await?;
    let event = Event::by(principal, "cmek.rotate", Resource::new("vault", id))
        .with("rotation_id", rotation.id.to_string())
        .with("old_fingerprint", present)
        .with("new_fingerprint", new.fingerprint())
        .with("values", rotation.total);
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    rotate::spawn(app, rotation.clone(), old, new);
    Ok(rotation)
}

/// A rotation as it stands. One whose daemon is gone is failed.
///
/// # Errors
/// [`CmekError`].
pub async fn rotation(
    app: &App,
    principal: &Principal,
    vault_id: VaultId,
    id: CmekRotationId,
) -> Result<Rotation, CmekError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    end_abandoned(&mut tx, Some(vault_id)).await?;
    let rotation = store::get(&mut tx, principal.org_id, vault_id, id).await?;
    tx.commit().await.map_err(DbError::from)?;
    rotation.ok_or(CmekError::NotFound("rotation"))
}
