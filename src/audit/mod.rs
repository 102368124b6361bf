//! What happened, by whom. Append-only; an event is written in the transaction of the effect it records, and refusals and reads
//! get one too. No secret value and no signed bytes are ever part of one.
//!
//! That nothing was changed afterwards can be proven: each event is stored with the hash of all its fields; `chainer` gives it a link in
//! its organisation's hash chain within a second, behind the requests and with no lock that they wait for; and `signer` has the chains' ends
//! signed in the HSM, after it has walked them, for the database and for a file outside of it (`checkpoints`). `rules` is the proof, walked over the database by `verify` and over an
//! exported file by `offline`.

pub mod api;
pub mod chainer;
pub mod checkpoints;
pub mod command;
pub mod config;
pub mod export;
pub mod failures;
pub mod http;
pub mod lines;
pub mod offline;
pub mod rules;
pub mod signer;
pub mod store;
pub mod verify;

mod hash;

use std::net::IpAddr;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::access::{self, Principal};
use crate::ids::{EventId, OrgId};

pub use config::AuditConfig;
pub use failures::Failures;
pub use rules::Trail;
pub use store::{record, record_alike};

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A human or an agent.
    Principal(access::Actor),
    /// The daemon itself.
    System,
    /// Somebody without valid credentials.
    Anonymous,
}

impl Actor {
    /// As the API and the table write it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Principal(actor) => actor.kind(),
            Self::System => "system",
            Self::Anonymous => "anonymous",
        }
    }

    /// The id of a human or an agent.
    #[must_use]
    pub fn id(&self) -> Option<Uuid> {
        match self {
            Self::Principal(actor) => Some(actor.uuid()),
            Self::System | Self::Anonymous => None,
        }
    }
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `secret`, `vault`, `agent`, `policy`, `transaction`, …
    pub kind: &'static str,
    /// Its id.
    pub id: Option<String>,
}

impl Resource {
    /// A resource with an id.
    #[must_use]
    pub fn new(kind: &'static str, id: impl ToString) -> Self {
        Self { kind, id: Some(id.to_string()) }
    }

    /// A kind of resource, none in particular.
    #[must_use]
    pub fn kind(kind: &'static str) -> Self {
        Self { kind, id: None }
    }
}

/// An event that is about to be written.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Whose audit trail it belongs to; `None` only for failures before an organisation is known.
    pub org_id: Option<OrgId>,
    /// Who.
    pub actor: Actor,
    /// What: `secret.read`, `transaction.submit`, …
    pub action: &'static str,
    /// On what.
    pub resource: Resource,
    /// The rest: strings, integers, flags, lists and objects of them.
    pub details: Map<String, Value>,
    /// From where.
    pub ip: Option<IpAddr>,
    /// When, to the microsecond.
    pub created_at: OffsetDateTime,
}

impl Event {
    /// Something that a principal does, now.
    #[must_use]
    pub fn by(principal: &Principal, action: &'static str, resource: Resource) -> Self {
        let actor = Actor::Principal(principal.actor);
        Self { org_id: Some(principal.org_id), ip: principal.ip, ..Self::new(actor, action, resource) }
    }

    /// Something that the daemon does for an organisation, now.
    #[must_use]
    pub fn by_system(org_id: OrgId, action: &'static str, resource: Resource) -> Self {
        Self { org_id: Some(org_id), ..Self::new(Actor::System, action, resource) }
    }

    /// An event of no organisation and no address, now.
    #[must_use]
    pub fn new(actor: Actor, action: &'static str, resource: Resource) -> Self {
        // To the microsecond: what is hashed must be what Postgres keeps.
        let created_at = crate::clock::now();
        Self { id: EventId::random(), org_id: None, actor, action, resource, details: Map::new(), ip: None, created_at }
    }

    /// Another one of the same kind, by the same, from the same place.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { id: EventId::random(), ..self.clone() }
    }

    /// What is hashed.
    fn fields(&self) -> hash::Fields<'_> {
        hash::Fields {
            id: self.id.0,
            org_id: self.org_id.map(|id| id.0),
            action: self.action,
            actor_type: self.actor.kind(),
            actor_id: self.actor.id(),
            resource_type: self.resource.kind,
            resource_id: self.resource.id.as_deref(),
            details: &self.details,
            ip: self.ip,
            created_at: self.created_at,
        }
    }

    /// With a detail, if there is one.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With a detail. Never a secret's value, a key, a token or signed bytes.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }
}
