//! Credentials, revocations and grants in the database.

mod credentials;
mod grants;

pub use credentials::{
    AgentIdentity, CredentialError, UserKeyIdentity, agent_by_prefix, credential_still_valid, is_revoked, lock_root,
    principal_by_agent_key, principal_by_token, principal_by_user_key, revoke, stamp_user_key, user_key_by_prefix,
};
pub use grants::{effective_scopes, grants, grants_of_absent, reachable_vaults};
