//! The hash of an event: SHA-256 over a canonical encoding of every field; of a link; and what is signed of a checkpoint. Pure.
//!
//! Every part is written with its length in front, so that no two different events have the same encoding. Details go through
//! JSONB, which orders keys as it likes, so objects are encoded with their keys sorted.

use std::net::IpAddr;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

/// A SHA-256.
pub type Hash = [u8; 32];

/// The encodings' names, with their versions: a new encoding gets a new one. Each is the first part of what is hashed or signed, so that
/// nothing made for one purpose can pass for another's.
const ENCODING: &[u8] = b"intentd audit event 1";
const LINK: &[u8] = b"intentd audit link 1";
const CHECKPOINT: &[u8] = b"intentd audit checkpoint 1";

/// Every field of an event, whether it is about to be written or was read.
pub(super) struct Fields<'a> {
    pub id: Uuid,
    pub org_id: Option<Uuid>,
    pub action: &'a str,
    pub actor_type: &'a str,
    pub actor_id: Option<Uuid>,
    pub resource_type: &'a str,
    pub resource_id: Option<&'a str>,
    pub details: &'a Map<String, Value>,
    pub ip: Option<IpAddr>,
    pub created_at: OffsetDateTime,
}

/// The hash of a link: of an event's place in its organisation's chain (`trail`: the organisation's id, or nil).
pub(super) fn link(trail: Uuid, seq: u64, event_id: Uuid, event: &Hash, prev: &Hash) -> Hash {
    let mut out = Encoder(Sha256::new());
    out.part(LINK);
    out.part(trail.as_bytes());
    out.part(&seq.to_be_bytes());
    out.part(event_id.as_bytes());
    out.part(event);
    out.part(prev);
    out.0.finalize().into()
}

/// What is signed of a checkpoint.
pub(super) fn checkpoint(trail: Uuid, seq: u64, hash: &Hash, created_at: OffsetDateTime, key_id: Uuid) -> Vec<u8> {
    let micros = (created_at.unix_timestamp_nanos() / 1_000).to_be_bytes();
    let parts: [&[u8]; 6] = [CHECKPOINT, trail.as_bytes(), &seq.to_be_bytes(), hash, &micros, key_id.as_bytes()];
    parts.iter().flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.iter().copied())).collect()
}

/// The hash of an event.
pub(super) fn of(event: &Fields<'_>) -> Hash {
    let mut out = Encoder(Sha256::new());
    out.part(ENCODING);
    out.part(event.id.as_bytes());
    out.optional(event.org_id.map(|id| id.as_bytes().to_vec()));
    out.part(event.action.as_bytes());
    out.part(event.actor_type.as_bytes());
    out.optional(event.actor_id.map(|id| id.as_bytes().to_vec()));
    out.part(event.resource_type.as_bytes());
    out.optional(event.resource_id.map(|id| id.as_bytes().to_vec()));
    out.object(event.details.iter());
    out.optional(event.ip.map(|ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }));
    let micros = event.created_at.unix_timestamp_nanos() / 1_000;
    out.part(&micros.to_be_bytes());
    out.0.finalize().into()
}

struct Encoder(Sha256);

impl Encoder {
    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn optional(&mut self, bytes: Option<Vec<u8>>) {
        self.0.update([u8::from(bytes.is_some())]);
        self.part(&bytes.unwrap_or_default());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.0.update(b"n"),
            Value::Bool(flag) => self.0.update(if *flag { b"t" } else { b"f" }),
            Value::Number(number) => {
                self.0.update(b"#");
                self.part(number.to_string().as_bytes());
            }
            Value::String(text) => {
                self.0.update(b"s");
                self.part(text.as_bytes());
            }
            Value::Array(list) => {
                self.0.update(b"[");
                self.0.update((list.len() as u64).to_be_bytes());
                for value in list {
                    self.value(value);
                }
            }
            Value::Object(members) => self.object(members.iter()),
        }
    }

    fn object<'a>(&mut self, members: impl Iterator<Item = (&'a String, &'a Value)>) {
        let mut members: Vec<_> = members.collect();
        members.sort_unstable_by_key(|(name, _)| *name);
        self.0.update(b"{");
        self.0.update((members.len() as u64).to_be_bytes());
        for (name, value) in members {
            self.part(name.as_bytes());
            self.value(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Actor, Event, Resource};
    use crate::ids::{EventId, OrgId};
    use serde_json::json;
    use std::collections::HashSet;
    use time::macros::datetime;
    use uuid::Uuid;

    fn of(event: &Event) -> [u8; 32] {
        super::of(&event.fields())
    }

    fn event() -> Event {
        let mut event = Event::new(Actor::System, "secret.read", Resource::new("secret", "x"));
        event.id = EventId(Uuid::nil());
        event.created_at = datetime!(2026-11-21 12:00:00.000001 UTC);
        event.with("a", 1)
    }

    #[test]
    fn every_field_changes_the_hash() {
        let base = event();
        let variants: Vec<Event> = vec![
            Event { id: EventId(Uuid::max()), ..base.clone() },
            Event { org_id: Some(OrgId(Uuid::nil())), ..base.clone() },
            Event { actor: Actor::Anonymous, ..base.clone() },
            Event {
                actor: Actor::Principal(crate::access::Actor::Agent(crate::ids::AgentId(Uuid::nil()))),
                ..base.clone()
            },
            Event {
                actor: Actor::Principal(crate::access::Actor::User(crate::ids::UserId(Uuid::nil()))),
                ..base.clone()
            },
            Event { action: "secret.write", ..base.clone() },
            Event { resource: Resource::kind("secret"), ..base.clone() },
            Event { resource: Resource::new("secret", ""), ..base.clone() },
            Event { resource: Resource::new("secre", "tx"), ..base.clone() },
            Event { ip: Some([127, 0, 0, 1].into()), ..base.clone() },
            Event { created_at: datetime!(2026-11-21 12:00:00.000002 UTC), ..base.clone() },
            base.clone().with("a", 2),
            base.clone().with("a", "1"),
            base.clone().with("a", json!([1])),
            base.clone().with("a", json!({"1": null})),
            base.clone().with("b", 1),
        ];
        let hashes: HashSet<[u8; 32]> = variants.iter().chain([&base]).map(of).collect();
        assert_eq!(hashes.len(), variants.len() + 1);
    }

    #[test]
    fn every_part_changes_a_link_and_a_checkpoint() {
        let (one, two, at) = (Uuid::from_u128(1), Uuid::from_u128(2), datetime!(2026-11-21 12:00 UTC));
        let base = super::link(one, 1, one, &[1; 32], &[2; 32]);
        let others = [
            super::link(two, 1, one, &[1; 32], &[2; 32]),
            super::link(one, 2, one, &[1; 32], &[2; 32]),
            super::link(one, 1, two, &[1; 32], &[2; 32]),
            super::link(one, 1, one, &[3; 32], &[2; 32]),
            super::link(one, 1, one, &[1; 32], &[3; 32]),
        ];
        assert!(!others.contains(&base));
        let base = super::checkpoint(one, 1, &[1; 32], at, one);
        let others = [
            super::checkpoint(two, 1, &[1; 32], at, one),
            super::checkpoint(one, 2, &[1; 32], at, one),
            super::checkpoint(one, 1, &[2; 32], at, one),
            super::checkpoint(one, 1, &[1; 32], at + time::Duration::microseconds(1), one),
            super::checkpoint(one, 1, &[1; 32], at, two),
        ];
        assert!(!others.contains(&base));
    }

    #[test]
    fn the_order_of_details_does_not_matter() {
        let (a, b) = (
            event().with("b", 1).with("c", json!({"x": 1, "y": 2})),
            event().with("c", json!({"y": 2, "x": 1})).with("b", 1),
        );
        assert_eq!(of(&a), of(&b));
    }
}
