//! Signing keys that are born in the HSM for one agent, by a human's order. One key serves every EVM chain.
//!
//! They are secrets like others, at `agents/{id}/chains/ethereum/private_key` in the organisation's reserved vault, without a value:
//! there is nothing to read, for anybody.

use sqlx::PgConnection;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{SigningKey, store};
use crate::access::{self, AccessError, Permission, Principal, SecretPath};
use crate::agents;
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::hsm::{Custody, HsmError, KeyContext, PublicKey};
use crate::ids::{AgentId, KeyId};
use crate::vaults::secrets::NewSecret;
use crate::vaults::secrets::rules::SecretType;
use crate::vaults::secrets::store::{Head, NewKey, NewVersion};
use crate::vaults::{self, Vault, secrets};

/// The one chain that has keys: it stands for all of its family.
pub const CHAIN: &str = "ethereum";
/// How often a key is made again because another request stored one first.
const ATTEMPTS: usize = 4;
/// How often a token object that no row will name is taken back.
const DISCARD_ATTEMPTS: usize = 3;

/// One version of an agent's key.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its id.
    pub id: KeyId,
    /// Its number, from 1.
    pub version: i32,
    /// Its public half.
    pub public_key: PublicKey,
    /// Where it lives.
    pub custody: Custody,
    /// Whether it signs.
    pub active: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When another took its place, or it was deactivated.
    pub superseded_at: Option<OffsetDateTime>,
}

/// Why a key was not made, replaced or deactivated. Then nothing was.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The agent is not there.
    #[error("no such agent")]
    NoAgent,
    /// It has one.
    #[error("this agent has a signing key for ethereum already: rotate it, or deactivate it first")]
    Exists,
    /// It has none.
    #[error("this agent has no active signing key for ethereum")]
    NoKey,
    /// Too many at once.
    #[error("too many requests change this agent's signing key at once; nothing was changed")]
    Contended,
    /// Not allowed, or could not be checked.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The HSM did not do it.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Where an agent's own key is.
#[must_use]
pub fn path_text(agent: AgentId) -> String {
    format!("agents/{agent}/chains/{CHAIN}/private_key")
}

fn path(agent: AgentId) -> Result<SecretPath, ProvisionError> {
    // An id in its canonical form is within the grammar of paths.
    SecretPath::parse(&path_text(agent)).map_err(|_| ProvisionError::NoAgent)
}

/// What is to become of the key that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// There must be none.
    Create,
    /// There must be one, which the new one supersedes.
    Rotate,
}

/// Makes an agent's key. The caller has checked that `principal` may.
///
/// # Errors
/// [`ProvisionError`]; then nothing was made.
pub async fn create(
    app: &App,
    principal: &Principal,
    agent: AgentId,
    custody: Option<Custody>,
) -> Result<Version, ProvisionError> {
    make(app, principal, agent, custody, Order::Create).await
}

/// Replaces an agent's key by a new one, in the custody of the old one unless told otherwise. What the old one has signed is followed to its
/// end; intents that are on their way with it are refused.
///
/// # Errors
/// [`ProvisionError`]; then nothing was changed.
pub async fn rotate(
    app: &App,
    principal: &Principal,
    agent: AgentId,
    custody: Option<Custody>,
) -> Result<Version, ProvisionError> {
    make(app, principal, agent, custody, Order::Rotate).await
}

/// The version's number is under the key's MAC, so the key is made first, without any lock, and made again if another request was
/// faster. Key row, version and audit row are one transaction.
async fn make(
    app: &App,
    principal: &Principal,
    agent: AgentId,
    custody: Option<Custody>,
    order: Order,
) -> Result<Version, ProvisionError> {
    let path = path(agent)?;
    for _ in 0..ATTEMPTS {
        let mut conn = app.db.acquire().await.map_err(DbError::from)?;
        agents::store::get(&mut conn, principal.org_id, agent).await?.ok_or(ProvisionError::NoAgent)?;
        let current = store::provisioned(&mut conn, principal.org_id, agent).await?;
        match (order, &current) {
            (Order::Create, Some(_)) => return Err(ProvisionError::Exists),
            (Order::Rotate, None) => return Err(ProvisionError::NoKey),
            _ => {}
        }
        let vault = agents::identity::vault(app, principal.org_id).await?;
        let head = secrets::store::head(&mut conn, principal.org_id, vault.id, &path).await?;
        drop(conn);
        let version = head.as_ref().map_or(0, |head| head.version) + 1;
        let custody = custody
            .or_else(|| current.as_ref().map(|key| key.key_ref.custody()))
            .unwrap_or_else(|| default_custody(app));
        let context =
            KeyContext { org_id: principal.org_id, key_id: KeyId::random(), path: path.as_str().to_owned(), version };
        let (key_ref, public_key) = app.hsm.generate(&context, custody).await?;
        let key = NewKey { context, key_ref, public_key };
        match write(app, principal, agent, &vault, &path, head.as_ref(), &key, current.as_ref()).await {
            Ok(Some(created_at)) => {
                let id = key.context.key_id;
                return Ok(Version { id, version, public_key, custody, active: true, created_at, superseded_at: None });
            }
            Ok(None) => discard(app, &key).await,
            // A COMMIT whose outcome is unknown may have happened: its key must stay.
            Err(error @ ProvisionError::Db(_)) => return Err(error),
            Err(error) => {
                discard(app, &key).await;
                return Err(error);
            }
        }
    }
    Err(ProvisionError::Contended)
}

fn default_custody(app: &App) -> Custody {
    app.config.hsm.as_ref().map_or_else(Custody::default, |hsm| hsm.custody)
}

/// Takes a key back that no row will name. A wrapped one is nowhere but in memory.
async fn discard(app: &App, key: &NewKey) {
    if key.key_ref.custody() == Custody::Wrapped {
        return;
    }
    for attempt in 1..=DISCARD_ATTEMPTS {
        match app.hsm.destroy(&key.context, &key.key_ref).await {
            Ok(()) | Err(HsmError::NotFound) => return,
            Err(error) => {
                tracing::warn!(key = %key.context.key_id, attempt, %error, "a key that was not stored is still on the token");
            }
        }
    }
}

/// The transaction. `None`: another request was faster.
///
/// Locks: the agent, the vault (shared), the secret, its keys.
#[allow(clippy::too_many_arguments, reason = "the parts of one transaction, which nothing else has together")]
async fn write(
    app: &App,
    principal: &Principal,
    agent: AgentId,
    vault: &Vault,
    path: &SecretPath,
    head: Option<&Head>,
    key: &NewKey,
    replaced: Option<&SigningKey>,
) -> Result<Option<OffsetDateTime>, ProvisionError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let held = agents::store::get_for_share(&mut tx, agent).await?;
    if held.is_none_or(|agent| agent.org_id != principal.org_id || agent.deleted_at.is_some()) {
        return Err(ProvisionError::NoAgent);
    }
    let Some(vault) = vaults::store::get_for_share(&mut tx, principal.org_id, vault.id).await? else {
        return Ok(None);
    };
    let granted =
        access::authorise_agents_key(&vault, path, principal.actor, Permission::Write).map_err(AccessError::from)?;
    // What was decided on may have been replaced, ended or made meanwhile.
    let current = store::hold_provisioned(&mut tx, principal.org_id, vault.id, agent).await?;
    if current.map(|key| key.id) != replaced.map(|key| key.id) {
        return Ok(None);
    }
    let new = NewSecret {
        kind: SecretType::PrivateKey,
        value: Zeroizing::new(String::new()),
        metadata: serde_json::json!({ "chain": CHAIN, "address": key.public_key.address() }),
        rotation_policy: None,
        expires_at: None,
        max_access_count: None,
    };
    let version = NewVersion {
        head,
        version: key.context.version,
        new: &new,
        body: None,
        key: Some(key),
        cmek_fingerprint: None,
    };
    let Some(stored) = secrets::store::write(&mut tx, &granted, &version).await? else { return Ok(None) };
    let action = if replaced.is_some() { "signing_key.rotate" } else { "signing_key.create" };
    let event = Event::by(principal, action, Resource::new("signing_key", key.context.key_id))
        .with("agent_id", agent.to_string())
        .with("chain", CHAIN)
        .with("address", key.public_key.address().to_string())
        .with("version", stored.version)
        .with("custody", serde_json::json!(key.key_ref.custody()))
        .with("replaces", replaced.map(|old| old.address.to_string()));
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(Some(stored.stored_at))
}

/// Ends an agent's key: it signs nothing new, and is kept until what it signed is settled.
///
/// # Errors
/// [`ProvisionError`].
pub async fn deactivate(app: &App, principal: &Principal, agent: AgentId) -> Result<(), ProvisionError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    agents::store::get(&mut tx, principal.org_id, agent).await?.ok_or(ProvisionError::NoAgent)?;
    if !end(&mut tx, principal, agent).await? {
        return Err(ProvisionError::NoKey);
    }
    tx.commit().await.map_err(DbError::from)?;
    Ok(())
}

/// As [`deactivate`], in the caller's transaction: an agent that is deleted takes its key along. `false`: it has none.
///
/// Locks the vault (shared), the secret, its keys.
///
/// # Errors
/// [`ProvisionError`].
pub async fn end(conn: &mut PgConnection, principal: &Principal, agent: AgentId) -> Result<bool, ProvisionError> {
    let path = path(agent)?;
    let Some(key) = store::provisioned(conn, principal.org_id, agent).await? else { return Ok(false) };
    let Some(vault) = vaults::store::get_for_share(conn, principal.org_id, key.vault_id).await? else {
        return Ok(false);
    };
    // A rotation may have come first: then it is the new key that ends.
    let Some(key) = store::hold_provisioned(conn, principal.org_id, vault.id, agent).await? else { return Ok(false) };
    let granted =
        access::authorise_agents_key(&vault, &path, principal.actor, Permission::Delete).map_err(AccessError::from)?;
    if !secrets::store::delete(conn, &granted, key.secret_id).await? {
        return Ok(false);
    }
    store::supersede(conn, key.secret_id).await?;
    let event = Event::by(principal, "signing_key.deactivate", Resource::new("signing_key", key.id))
        .with("agent_id", agent.to_string())
        .with("chain", CHAIN)
        .with("address", key.address.to_string());
    audit::record(conn, event).await?;
    Ok(true)
}
