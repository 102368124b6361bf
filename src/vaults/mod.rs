//! Vaults, the secrets in them, the signing keys among those, and the policies that open them.
//!
//! Deleting a vault is final: nothing in it can be read or restored any more, its name is free, and its signing keys sign nothing new
//! from the moment the deletion is answered. They are superseded, not destroyed: what they signed is still followed to its end, and the
//! HSM forgets a key only by an operator's command.

pub mod api;
pub mod cmek;
mod config;
pub mod http;
pub mod keys;
pub mod policies;
pub mod secrets;
pub mod store;

use time::OffsetDateTime;

use crate::access::Actor;
use crate::ids::{OrgId, VaultId};

pub use config::VaultsConfig;

/// Names that begin like this are the daemon's own: clients find those vaults by name, so nobody else may take one.
const RESERVED_PREFIX: &str = "__";
/// Name of the vault that holds the keys of an organisation's agents. The daemon makes it and writes to it; nobody else does, whatever
/// policies say.
pub const AGENT_KEYS: &str = "__agent-keys";

/// Whether a name is the daemon's, or could become so.
#[must_use]
pub fn is_reserved_name(name: &str) -> bool {
    name.trim_start().starts_with(RESERVED_PREFIX)
}

impl Vault {
    /// Whether only the daemon writes to it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.name == AGENT_KEYS
    }
}

/// A vault that is not deleted.
#[derive(Clone, Debug)]
pub struct Vault {
    /// Its id.
    pub id: VaultId,
    /// Its organisation.
    pub org_id: OrgId,
    /// Its name, unique in the organisation.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Who made it, and so owns it.
    pub created_by: Actor,
    /// Since when.
    pub created_at: OffsetDateTime,
    /// SHA-256, in hex, of the key that its clients encrypt values with before they send them (CMEK), if they do.
    pub cmek_fingerprint: Option<String>,
}
