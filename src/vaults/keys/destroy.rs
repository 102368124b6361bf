//! `intentd admin keys destroy`: the end of superseded keys. What an operator asks for, one key at a time.

use sqlx::PgPool;

use super::store::{self, Superseded};
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::hsm::{Hsm, HsmError};
use crate::ids::VaultId;

/// Keys that are looked at together.
const PAGE: i64 = 500;

/// Which keys are meant.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// Superseded for at least so long, in seconds.
    pub grace_s: i64,
    /// Of this vault only.
    pub vault: Option<VaultId>,
}

/// Why a key was not destroyed.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// The HSM did not do it.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What keeps a superseded key, if anything.
#[must_use]
pub fn kept_by(key: &Superseded) -> Option<String> {
    match (key.due, key.open_slots) {
        (_, 1..) => Some(format!("{} of its transactions are not final yet", key.open_slots)),
        (false, _) => Some("it was superseded too recently".to_owned()),
        (true, _) => None,
    }
}

/// Every superseded key of the selection, longest superseded first, to `show`.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool, selection: Selection, mut show: impl FnMut(&Superseded)) -> Result<(), DbError> {
    let mut after = None;
    loop {
        let mut conn = pool.acquire().await?;
        let page = store::superseded(&mut conn, selection.vault, selection.grace_s, after, PAGE).await?;
        drop(conn);
        page.iter().for_each(&mut show);
        match page.last() {
            Some(last) => after = Some((last.superseded_at, last.id)),
            None => return Ok(()),
        }
    }
}

/// Destroys one key: the object on the token, then, in the same transaction as the audit row, what the row holds. `false`: it may not be
/// destroyed (any more).
///
/// The row is held while the token is asked. A crash after the token and before the commit leaves a row whose object is gone: the next run
/// finds it so and finishes.
///
/// # Errors
/// [`DestroyError`].
pub async fn destroy(pool: &PgPool, hsm: &Hsm, key: &Superseded, selection: Selection) -> Result<bool, DestroyError> {
    let mut tx = pool.begin().await.map_err(DbError::from)?;
    let Some(held) = store::hold_destroyable(&mut tx, key.id, selection.grace_s).await? else { return Ok(false) };
    match hsm.destroy(&held.context(), &held.key_ref).await {
        Ok(()) | Err(HsmError::NotFound) => {}
        Err(error) => return Err(error.into()),
    }
    store::erase(&mut tx, held.id).await?;
    let event = Event::by_system(held.org_id, "signing_key.destroy", Resource::new("signing_key", held.id))
        .with("address", held.address.to_string())
        .with("path", held.path.as_str())
        .with("vault_id", held.vault_id.to_string())
        .with("version", held.version)
        .with("custody", key.custody.as_str());
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(true)
}
