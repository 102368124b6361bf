//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Register an agent.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Agents, "createAgent", "Register an agent")
}

/// List the agents.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Agents, "listAgents", "List the agents")
}

/// An agent looks at itself.
#[must_use]
pub fn me() -> Doc {
    Doc::new(Tag::Agents, "getOwnAgent", "An agent looks at itself")
}

/// An agent asks a human to be registered.
#[must_use]
pub fn enroll() -> Doc {
    Doc::new(Tag::Agents, "enrollAgent", "An agent asks a human to be registered").public()
}

/// Look at an agent.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Agents, "getAgent", "Look at an agent")
}

/// Change an agent.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Agents, "updateAgent", "Change an agent")
}

/// Deactivate an agent.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Agents, "deleteAgent", "Deactivate an agent")
}

/// Give an agent a new key.
#[must_use]
pub fn rotate_key() -> Doc {
    Doc::new(Tag::Agents, "rotateAgentKey", "Give an agent a new key")
}

/// Make an agent's identity keys anew.
#[must_use]
pub fn rotate_identity_keys() -> Doc {
    Doc::new(Tag::Agents, "rotateIdentityKeys", "Make an agent's identity keys anew")
}

/// The vault of the agents' private identity keys.
#[must_use]
pub fn agent_keys_vault() -> Doc {
    Doc::new(Tag::Agents, "getAgentKeysVault", "The vault of the agents' private identity keys")
}
