//! Who is asking.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::glob::Glob;
use super::tokens::KeyHash;
use crate::http::limits::Place;
use crate::ids::{AgentId, ApiKeyId, OrgId, UserId};

/// A human or an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A human.
    User(UserId),
    /// An agent.
    Agent(AgentId),
}

impl Actor {
    /// As two columns, or two fields of a request, name it.
    #[must_use]
    pub fn of(kind: &str, id: Uuid) -> Option<Self> {
        match kind {
            "user" => Some(Self::User(UserId(id))),
            "agent" => Some(Self::Agent(AgentId(id))),
            _ => None,
        }
    }

    /// `user` or `agent`, as the API and the tables write it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Agent(_) => "agent",
        }
    }

    /// The bare id.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        match self {
            Self::User(id) => id.0,
            Self::Agent(id) => id.0,
        }
    }
}

/// A human's role in the organisation, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::Type, serde::Serialize, serde::Deserialize)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads and writes what policies allow.
    Member,
    /// Manages agents, vaults and guardrails.
    Admin,
    /// All of it, members included.
    Owner,
}

/// How the principal proved itself. Looked up again, in the database, in the transaction that signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A key, sent as it is.
    Key(KeyRoot),
    /// A token of ours, which lives no longer than what it was exchanged for.
    Token {
        /// Its id, which can be revoked.
        jti: Uuid,
        /// What it was exchanged for.
        root: KeyRoot,
    },
}

impl Credential {
    /// What it rests on.
    #[must_use]
    pub fn root(&self) -> KeyRoot {
        match self {
            Self::Key(root) | Self::Token { root, .. } => *root,
        }
    }
}

/// What a credential rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRoot {
    /// An agent's key, by its hash: after a rotation the agent has another.
    Agent(KeyHash),
    /// A human's key, by its id.
    User(ApiKeyId),
    /// No key: a human's password, an agent's certificate or its identity provider. What was proven holds until the epoch of the
    /// human's or agent's row is raised.
    Epoch(i32),
}

/// Only `access` has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof;

/// An authenticated human or agent. Only `access` makes one.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The organisation it belongs to.
    pub org_id: OrgId,
    /// Who.
    pub actor: Actor,
    /// A human's role; `None` for agents. Through a key that is limited to paths a human is a member, whatever else they are.
    pub role: Option<Role>,
    /// A human who runs the installation. Never through a key that is limited to paths.
    pub platform_admin: bool,
    /// How it proved itself.
    pub credential: Credential,
    /// Where the request came from.
    pub ip: Option<IpAddr>,
    /// The paths that a human's key is limited to, if it is.
    pub(super) ceiling: Option<Arc<[Glob]>>,
    /// Kept private so that no other module can build a principal.
    pub(super) _proof: Proof,
    /// One of the principal's requests that are being served, for as long as anybody has this value.
    pub(super) _place: Option<Arc<Place>>,
}

impl Principal {
    /// With the place that its request takes.
    #[must_use]
    pub(super) fn in_its(self, place: Place) -> Self {
        Self { _place: Some(Arc::new(place)), ..self }
    }

    /// Whether it is the same principal with the same role, paths and credential.
    #[must_use]
    pub(super) fn may_the_same_as(&self, other: &Self) -> bool {
        let of = |principal: &Self| {
            let Self { org_id, actor, role, platform_admin, credential, .. } = principal;
            (*org_id, *actor, *role, *platform_admin, *credential)
        };
        of(self) == of(other) && self.ceiling == other.ceiling
    }

    /// The agent, if it is one.
    #[must_use]
    pub fn agent_id(&self) -> Option<AgentId> {
        match self.actor {
            Actor::Agent(id) => Some(id),
            Actor::User(_) => None,
        }
    }

    /// The human, if it is one.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        match self.actor {
            Actor::User(id) => Some(id),
            Actor::Agent(_) => None,
        }
    }

    /// Whether it is a human's key (or a token of one) whose scopes limit it to some paths of secrets. Such a credential manages
    /// nothing: neither the organisation, nor a vault, nor the human's own account.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.ceiling.is_some()
    }

    /// Whether it is a human who manages the organisation: an owner or admin.
    #[must_use]
    pub fn manages(&self) -> bool {
        self.role.is_some_and(|role| role >= Role::Admin)
    }
}
