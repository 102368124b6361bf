//! Why a secret was not stored, read, changed or deleted.

use super::rules::Refusal;
use crate::access::AccessError;
use crate::db::DbError;
use crate::hsm::HsmError;
use crate::orgs::limits::{LimitError, Reached};

/// Why a secret was not stored, read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Not allowed, or could not be checked.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A rule about keys says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no room for another path.
    #[error(transparent)]
    Limit(#[from] Reached),
    /// There never was one.
    #[error("no such secret")]
    NotFound,
    /// Deleted.
    #[error("the secret was deleted")]
    Deleted,
    /// Expired.
    #[error("the secret has expired")]
    Expired,
    /// Read as often as it may be.
    #[error("the secret was read as often as its max_access_count allows")]
    Exhausted,
    /// There never was that version.
    #[error("the secret has no such version")]
    NoVersion,
    /// That version was disabled.
    #[error("this version of the secret was disabled")]
    Disabled,
    /// That version's value is kept no more.
    #[error("the value of this version was destroyed: only the newest versions are kept")]
    Destroyed,
    /// Nothing to restore.
    #[error("the secret is not deleted: there is nothing to restore")]
    NotDeleted,
    /// Its key cannot sign again.
    #[error("the secret has no signing key that could sign again; nothing was restored")]
    NoKeyToReactivate,
    /// Random values are no keys.
    #[error("only a value can be made at random, not a key: store keys with PUT")]
    RandomKey,
    /// The vault's values are its clients' own to make.
    #[error("the clients of this vault encrypt its values (CMEK): make the value there, and store it with PUT")]
    ClientEncrypted,
    /// A version that would be expired at once.
    #[error("the secret has expired: say with expires_at when the new version ends, or store it with PUT")]
    RotatesExpired,
    /// The vault went away meanwhile.
    #[error("no such vault")]
    NoVault,
    /// Too many requests store this path at once.
    #[error("too many requests store this secret at once; nothing was stored")]
    Contended,
    /// The stored value is not what was sealed.
    #[error("the stored value is not text")]
    NotText,
    /// A key, which the daemon never hands to a service.
    #[error("the secret is a key, and keys are not used as access keys of services")]
    IsKey,
    /// The HSM did not do it.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<LimitError> for SecretError {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Reached(reached) => Self::Limit(reached),
            LimitError::Db(error) => error.into(),
        }
    }
}
