//! Credentials, revocations and grants in the database.

mod credentials;
mod grants;
mod revocations;

pub use credentials::{
    AgentIdentity, UserKeyIdentity, agent_by_prefix, is_token_revoked, principal_by_agent_key, principal_by_token,
    principal_by_user_key, stamp_user_keys, still_proven, user_key_by_prefix,
};
pub(crate) use grants::{AgentLimits, RuleRow, grants_beside, limits_and_rules_of_agent, rules};
pub use grants::{effective_scopes, grants, grants_of_absent, reachable_vaults};
pub use revocations::{is_revoked, lock_root, revoke};
