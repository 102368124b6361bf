//! Who is asking, and what that may do.
//!
//! Nothing is allowed that is not granted: by a policy on the vault, or by ownership. Every decision is made from the database
//! at the time of the request; what a token claims grants nothing. Store functions below HTTP take an [`Authorised`], which only
//! this module makes.

pub mod agent_token;
pub mod api;
pub mod glob;
pub mod http;
pub mod input;
pub mod ip_rules;
pub mod jwt;
pub mod last_used;
pub mod path;
pub mod policy;
pub mod principal;
pub mod roles;
pub mod store;
pub mod throttle;
pub mod tokens;
pub mod window;

mod grants;

pub use grants::Grants;
pub use path::SecretPath;
pub use policy::Permission;
pub use principal::{Actor, Credential, KeyRoot, Principal, Role};
pub use roles::Action;

use std::net::IpAddr;

use sqlx::PgConnection;

use crate::db::DbError;
use crate::ids::{OrgId, VaultId};
use crate::vaults::Vault;

/// Whether the rows that a decision rests on are held until the transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Read as they are.
    None,
    /// `FOR SHARE`: a change of them waits, so that a revocation that has been answered holds.
    Share,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Refused by a rule (403).
    #[error(transparent)]
    Denied(#[from] Denial),
    /// Could not be checked.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The rule that refused. The text is for the caller: it says what is missing, and nothing about what exists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The agent is bound to other vaults.
    #[error("Insufficient permissions: this agent is bound to other vaults")]
    NotBound,
    /// The vault is the daemon's own.
    #[error("Insufficient permissions: only the daemon writes to the vault of agents' keys")]
    Reserved,
    /// The path lies outside the scopes of the agent or key.
    #[error("Insufficient permissions: {0} is outside the scopes of this agent or key")]
    OutsideScopes(SecretPath),
    /// Deactivated, deleted or expired since.
    #[error("Insufficient permissions: that user or agent is no longer active")]
    Inactive,
    /// No policy grants it, or its conditions do not hold.
    #[error("Insufficient permissions: no policy grants {} on {path}", permission.as_str())]
    NoPolicy {
        /// What was asked for.
        permission: Permission,
        /// On what.
        path: SecretPath,
    },
}

/// A permission on a path of a vault that has been granted to somebody. Only [`authorise`] and [`authorise_absent`] make one.
#[derive(Clone, Debug)]
pub struct Authorised {
    org_id: OrgId,
    vault_id: VaultId,
    path: SecretPath,
    permission: Permission,
    actor: Actor,
}

impl Authorised {
    /// Reading a secret that the organisation's settings name, for the daemon's own use. Whoever named it was allowed to read it then.
    #[must_use]
    pub(crate) fn named_in_settings(vault: &Vault, path: &SecretPath, named_by: Actor) -> Self {
        let permission = Permission::Read;
        Self { org_id: vault.org_id, vault_id: vault.id, path: path.clone(), permission, actor: named_by }
    }

    /// The organisation.
    #[must_use]
    pub fn org_id(&self) -> OrgId {
        self.org_id
    }

    /// The vault.
    #[must_use]
    pub fn vault_id(&self) -> VaultId {
        self.vault_id
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &SecretPath {
        &self.path
    }

    /// What was granted.
    #[must_use]
    pub fn permission(&self) -> Permission {
        self.permission
    }

    /// To whom.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.actor
    }
}

/// Decides: organisation → vault binding → scope ceiling → policy with conditions → ownership.
///
/// With [`Lock::Share`] the agent's row and the principal's policies on the vault are held until the transaction ends.
///
/// # Errors
/// [`AccessError::Denied`] by the first rule that refuses; [`AccessError::Db`] when it could not be checked.
pub async fn authorise(
    conn: &mut PgConnection,
    principal: &Principal,
    vault: &Vault,
    path: &SecretPath,
    permission: Permission,
    lock: Lock,
) -> Result<Authorised, AccessError> {
    let grants = store::grants(conn, principal, vault, lock).await?;
    grants.check(path, permission)?;
    Ok(Authorised { org_id: vault.org_id, vault_id: vault.id, path: path.clone(), permission, actor: principal.actor })
}

/// As [`authorise`], for a human or agent of the organisation who is not asking: who made a share that somebody opens from `ip`.
///
/// # Errors
/// As [`authorise`]; [`Denial::Inactive`] for who may not come in any more.
pub async fn authorise_absent(
    conn: &mut PgConnection,
    actor: Actor,
    ip: Option<IpAddr>,
    vault: &Vault,
    path: &SecretPath,
    permission: Permission,
) -> Result<Authorised, AccessError> {
    let grants = store::grants_of_absent(conn, vault.org_id, actor, ip, vault).await?;
    grants.ok_or(Denial::Inactive)?.check(path, permission)?;
    Ok(Authorised { org_id: vault.org_id, vault_id: vault.id, path: path.clone(), permission, actor })
}

/// The daemon's own right to change an agent's key, in the vault that is reserved for them and at no other path. `actor` is on whose
/// behalf.
///
/// # Errors
/// [`Denial::Reserved`] for any other place.
pub fn authorise_agents_key(
    vault: &Vault,
    path: &SecretPath,
    actor: Actor,
    permission: Permission,
) -> Result<Authorised, Denial> {
    let segments: Vec<&str> = path.segments().collect();
    let agent = match segments.as_slice() {
        ["agents", id, "ssh" | "ecdh", "private_key"] | ["agents", id, "chains", _, "private_key"] => Some(*id),
        _ => None,
    };
    if !vault.is_reserved() || agent.is_none_or(|id| uuid::Uuid::parse_str(id).is_err()) {
        return Err(Denial::Reserved);
    }
    Ok(Authorised { org_id: vault.org_id, vault_id: vault.id, path: path.clone(), permission, actor })
}
