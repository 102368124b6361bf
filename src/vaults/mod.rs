//! Vaults, the secrets in them, the signing keys among those, and the policies that open them.

pub mod http;
pub mod keys;
pub mod policies;
pub mod secrets;
pub mod store;

use time::OffsetDateTime;

use crate::access::Actor;
use crate::ids::{OrgId, VaultId};

/// Name of the vault that holds the private identity keys of an organisation's agents. The daemon makes it and writes to it; nobody
/// else does, whatever policies say.
pub const AGENT_KEYS: &str = "__agent-keys";

/// Whether a name is the daemon's, or looks like it.
#[must_use]
pub fn is_reserved_name(name: &str) -> bool {
    name.trim().eq_ignore_ascii_case(AGENT_KEYS)
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
}
