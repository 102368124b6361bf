//! Vaults, the secrets in them, the signing keys among those, and the policies that open them.

pub mod http;
pub mod keys;
pub mod policies;
pub mod secrets;
pub mod store;

use time::OffsetDateTime;

use crate::access::Actor;
use crate::ids::{OrgId, VaultId};

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
