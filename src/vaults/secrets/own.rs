//! Secrets that the daemon stores of its own accord: the identity keys of agents.

use sqlx::PgConnection;

use super::rules::Content;
use super::store::{self, Head, NewVersion};
use super::{NewSecret, Prepared, SecretError, prepare};
use crate::access::{self, AccessError, Actor, Permission, SecretPath};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::vaults::Vault;

/// One of them, sealed for its next version.
pub struct Own {
    path: SecretPath,
    head: Option<Head>,
    new: NewSecret,
    prepared: Prepared,
}

impl Own {
    /// Seals it. No lock is held.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn seal(app: &App, vault: &Vault, path: SecretPath, new: NewSecret) -> Result<Self, SecretError> {
        let mut conn = app.db.acquire().await.map_err(DbError::from)?;
        let head = store::head(&mut conn, vault.org_id, vault.id, &path).await?;
        drop(conn);
        let prepared = prepare(app, vault, &path, head.as_ref(), &new, &Content::Body).await?;
        Ok(Self { path, head, new, prepared })
    }

    /// Stores it in the caller's transaction, with the vault's row held. `event` says who; the rest is added. `false`: another version
    /// was stored first, and the transaction is to be given up.
    ///
    /// # Errors
    /// [`SecretError`]: also for any place but that of an agent's key.
    pub async fn store(
        &self,
        conn: &mut PgConnection,
        vault: &Vault,
        actor: Actor,
        event: Event,
    ) -> Result<bool, SecretError> {
        let granted =
            access::authorise_agents_key(vault, &self.path, actor, Permission::Write).map_err(AccessError::from)?;
        let version = NewVersion {
            head: self.head.as_ref(),
            version: self.prepared.version,
            new: &self.new,
            body: self.prepared.body.as_ref(),
            key: None,
            cmek_fingerprint: None,
        };
        let Some(stored) = store::write(conn, &granted, &version).await? else { return Ok(false) };
        let event = Event { resource: Resource::new("secret", stored.id), ..event }
            .with("vault_id", vault.id.to_string())
            .with("path", self.path.as_str())
            .with("type", self.new.kind.as_str())
            .with("version", stored.version);
        audit::record(conn, event).await?;
        Ok(true)
    }
}
