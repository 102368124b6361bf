//! How much an organisation may have of each thing. Platform admins set it; creations ask [`admit`] in their own transaction.

pub mod api;
pub mod http;
pub mod store;

use sqlx::PgConnection;

use crate::access::SecretPath;
use crate::db::DbError;
use crate::ids::{OrgId, VaultId};

pub use store::Limits;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Vaults that are not deleted.
    Vaults,
    /// Secrets (paths, not versions) that are not deleted, in vaults that are not.
    Secrets,
    /// Agents that are not deleted.
    Agents,
    /// Policies.
    Policies,
    /// Humans.
    Members,
    /// API keys of humans that are active.
    ApiKeys,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Vaults, Self::Secrets, Self::Agents, Self::Policies, Self::Members, Self::ApiKeys];

    /// As the table and the API write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vaults => "vaults",
            Self::Secrets => "secrets",
            Self::Agents => "agents",
            Self::Policies => "policies",
            Self::Members => "members",
            Self::ApiKeys => "api_keys",
        }
    }

    /// For sentences; clients look for `Vault limit`.
    fn label(self) -> &'static str {
        match self {
            Self::Vaults => "Vault",
            Self::Secrets => "Secret",
            Self::Agents => "Agent",
            Self::Policies => "Policy",
            Self::Members => "Member",
            Self::ApiKeys => "API key",
        }
    }

    /// The limit where none is set: lists that are answered whole are bounded, the rest is not.
    #[must_use]
    pub fn default_limit(self) -> Option<i32> {
        match self {
            Self::Members => Some(1_000),
            Self::Vaults | Self::Secrets | Self::Agents | Self::Policies | Self::ApiKeys => None,
        }
    }
}

/// A limit that is reached (403, `resource_limit_exceeded`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} limit reached ({used}/{limit} in this organisation). Whoever runs this installation can raise it.",
    kind.label()
)]
pub struct Reached {
    /// Of what.
    pub kind: Kind,
    /// How many there are.
    pub used: i64,
    /// How many there may be.
    pub limit: i32,
}

/// Why something may not be created.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// Refused.
    #[error(transparent)]
    Reached(#[from] Reached),
    /// Could not be checked.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Whether one more may be created, in the transaction that creates it. Where there is a limit, the organisation's row of limits is held
/// until that transaction ends, so that of any number at once, on any number of daemons, exactly as many pass as there is room for. A
/// limit holds for what begins after it was set.
///
/// Lock order: after rows that are only held shared, before any that is changed.
///
/// # Errors
/// [`LimitError`].
pub async fn admit(conn: &mut PgConnection, org_id: OrgId, kind: Kind) -> Result<(), LimitError> {
    let Some(limit) = hold(conn, org_id, kind).await? else { return Ok(()) };
    let used = store::count(conn, org_id, kind, limit).await?;
    if used < i64::from(limit) { Ok(()) } else { Err(Reached { kind, used, limit }.into()) }
}

/// As [`admit`], for a secret: a new version of one that is there needs no room. Where there is a limit, the secret's row is held as
/// well, so that it is not deleted meanwhile.
///
/// # Errors
/// [`LimitError`].
pub async fn admit_secret(
    conn: &mut PgConnection,
    org_id: OrgId,
    vault_id: VaultId,
    path: &SecretPath,
) -> Result<(), LimitError> {
    let Some(limit) = hold(conn, org_id, Kind::Secrets).await? else { return Ok(()) };
    if store::hold_live_secret(conn, org_id, vault_id, path).await? {
        return Ok(());
    }
    let used = store::count(conn, org_id, Kind::Secrets, limit).await?;
    if used < i64::from(limit) { Ok(()) } else { Err(Reached { kind: Kind::Secrets, used, limit }.into()) }
}

/// The limit, with its row held; nothing is held where there is none.
async fn hold(conn: &mut PgConnection, org_id: OrgId, kind: Kind) -> Result<Option<i32>, DbError> {
    if store::get(conn, org_id).await?.of(kind).is_none() {
        return Ok(None);
    }
    Ok(store::get_for_update(conn, org_id).await?.of(kind))
}
