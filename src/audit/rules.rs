//! Whether a chain of links is whole, and what was done to it where it is not. Pure: the same walk goes over the database and over an
//! exported file.
//!
//! What each kind of evidence shows: an event's own hash, that the event was edited by somebody who did not recompute it; the links, what
//! was done by somebody who did not recompute all links behind it; a signed checkpoint, everything that was done to what is before it.

use time::OffsetDateTime;
use uuid::Uuid;

use super::hash::{self, Hash};
use crate::ids::{EventId, KekId, OrgId};

/// Whose events: an organisation's, or those that belong to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trail(pub Option<OrgId>);

impl Trail {
    /// As the tables name it: nil for what belongs to no organisation.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0.map_or(Uuid::nil(), |id| id.0)
    }

    /// What [`Trail::uuid`] gave.
    #[must_use]
    pub fn of_uuid(id: Uuid) -> Self {
        Self((!id.is_nil()).then_some(OrgId(id)))
    }
}

impl std::fmt::Display for Trail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(id) => write!(f, "organisation {id}"),
            None => f.write_str("the installation itself"),
        }
    }
}

/// An event's place in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// From 1, without gaps.
    pub seq: u64,
    /// The event.
    pub event_id: EventId,
    /// The hash of the link before; zeros for the first.
    pub prev: Hash,
    /// SHA-256 over trail, seq, event, the event's hash, prev.
    pub hash: Hash,
}

impl Link {
    /// The next link of a chain.
    #[must_use]
    pub fn new(trail: Trail, seq: u64, event_id: EventId, event_hash: &Hash, prev: Hash) -> Self {
        Self { seq, event_id, prev, hash: hash::link(trail.uuid(), seq, event_id.0, event_hash, &prev) }
    }
}

/// What there is of a link's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Gone,
    /// An event whose fields do not have its hash, or one of another trail.
    Edited,
    /// More than one with its id.
    Twice,
    /// An event with this hash, computed from its fields.
    Intact(Hash),
}

/// A link with what there is of its event.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The link.
    pub link: Link,
    /// Its event.
    pub event: Found,
}

/// An end of a chain, signed in the HSM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose chain.
    pub trail: Trail,
    /// How long it was.
    pub seq: u64,
    /// The hash of its last link.
    pub hash: Hash,
    /// When.
    pub created_at: OffsetDateTime,
    /// The `audit` key that signed it.
    pub key_id: KekId,
    /// Ed25519 (RFC 8032) over [`Checkpoint::message`].
    pub signature: [u8; 64],
}

impl Checkpoint {
    /// What is signed. It begins with its own name behind a length of eight bytes: neither a JWT nor anything else that a key of the
    /// installation signs begins so.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        hash::checkpoint(self.trail.uuid(), self.seq, &self.hash, self.created_at, self.key_id.0)
    }

    /// Whether `public_key` (32 bytes, RFC 8032) made the signature.
    #[must_use]
    pub fn is_signed_by(&self, public_key: &[u8; 32]) -> bool {
        let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, public_key);
        key.verify(&self.message(), &self.signature).is_ok()
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event's fields are not what they were.
    Edited,
    /// Something is missing in the middle.
    Removed,
    /// Events stand in another order.
    Reordered,
    /// Something is there that was not linked.
    Inserted,
    /// The end is missing.
    Truncated,
    /// Events and links agree with each other and not with a signed checkpoint: somebody has computed all of them anew.
    Rewritten,
    /// A checkpoint's signature is not by the key that it names.
    Forged,
}

impl Kind {
    /// As replies name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Removed => "removed",
            Self::Reordered => "reordered",
            Self::Inserted => "inserted",
            Self::Truncated => "truncated",
            Self::Rewritten => "rewritten",
            Self::Forged => "forged",
        }
    }
}

/// The first place where a trail is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// What was done.
    pub kind: Kind,
    /// Where in the chain.
    pub seq: Option<u64>,
    /// To which event.
    pub event_id: Option<EventId>,
    /// In words.
    pub detail: String,
}

/// How far a chain was walked and is whole.
#[derive(Clone, Debug)]
pub struct Walk {
    trail: Trail,
    seq: u64,
    last: Hash,
    before_last: Option<Hash>,
    last_event: Option<EventId>,
}

impl Walk {
    /// From the beginning.
    #[must_use]
    pub fn new(trail: Trail) -> Self {
        Self::from(trail, 0, [0; 32])
    }

    /// From behind a link that is known to be good.
    #[must_use]
    pub fn from(trail: Trail, seq: u64, last: Hash) -> Self {
        Self { trail, seq, last, before_last: None, last_event: None }
    }

    /// The last link that was walked.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.last
    }

    /// Goes over links that come next, holding them against those of `checkpoints` that are among them. Checkpoints' signatures have been
    /// checked. The more links come together, the better is told what was done; that something was is found in any case.
    ///
    /// # Errors
    /// The first place that is not whole.
    pub fn over(&mut self, entries: &[Entry], checkpoints: &[Checkpoint]) -> Result<(), Break> {
        for at in 0..entries.len() {
            self.step(entries, at)?;
            checkpoints.iter().try_for_each(|checkpoint| self.hold_against(checkpoint))?;
        }
        Ok(())
    }

    /// Whether the chain's place where the walk stands is what was signed. Checkpoints of other places say nothing about it.
    ///
    /// # Errors
    /// It is not.
    pub fn hold_against(&self, checkpoint: &Checkpoint) -> Result<(), Break> {
        if checkpoint.trail == self.trail && checkpoint.seq == self.seq && checkpoint.hash != self.last {
            let detail = format!(
                "the checkpoint at {} does not fit: what is before it, and all links since, were computed anew",
                self.seq
            );
            return Err(self.broken(Kind::Rewritten, self.last_event, self.seq, detail));
        }
        Ok(())
    }

    /// At the end of the links: whether a checkpoint, or the chain's own head, knows of more.
    ///
    /// # Errors
    /// It does.
    pub fn ends_at(&self, known: u64, what: &str) -> Result<(), Break> {
        if known <= self.seq {
            return Ok(());
        }
        let detail = format!("the chain ends at {} and {what} says {known}: its end was taken away", self.seq);
        Err(self.broken(Kind::Truncated, None, self.seq + 1, detail))
    }

    fn broken(&self, kind: Kind, event_id: Option<EventId>, seq: u64, detail: String) -> Break {
        Break { kind, seq: Some(seq), event_id, detail }
    }

    fn step(&mut self, entries: &[Entry], at: usize) -> Result<(), Break> {
        let Entry { link, event } = &entries[at];
        let next = self.seq + 1;
        let id = Some(link.event_id);
        if link.seq > next {
            let detail = format!("links {next} to {} are not there", link.seq - 1);
            return Err(self.broken(Kind::Removed, None, next, detail));
        }
        if link.seq < next {
            let detail = format!("link {} is there more than once", link.seq);
            return Err(self.broken(Kind::Inserted, id, link.seq, detail));
        }
        let own = match event {
            Found::Intact(hash) => hash,
            Found::Gone => {
                let detail = format!("the event of link {next} is not there");
                return Err(self.broken(Kind::Removed, id, next, detail));
            }
            Found::Edited => {
                let detail = format!("the event of link {next} does not have the hash that it was written with");
                return Err(self.broken(Kind::Edited, id, next, detail));
            }
            Found::Twice => {
                let detail = format!("the event of link {next} is there more than once");
                return Err(self.broken(Kind::Inserted, id, next, detail));
            }
        };
        if link.prev != self.last || *link != Link::new(self.trail, next, link.event_id, own, self.last) {
            return Err(self.why(entries, at));
        }
        self.before_last = Some(self.last);
        self.last = link.hash;
        self.last_event = Some(link.event_id);
        self.seq = next;
        Ok(())
    }

    /// What was done at a link that does not follow, as far as those around it tell.
    fn why(&self, entries: &[Entry], at: usize) -> Break {
        let link = &entries[at].link;
        let next = self.seq + 1;
        let rest = &entries[at + 1..];
        if rest.iter().any(|other| other.link.hash == link.prev) {
            let detail = format!("link {next} belongs behind one that stands after it");
            return self.broken(Kind::Reordered, Some(link.event_id), next, detail);
        }
        if rest.first().is_some_and(|other| other.link.prev == self.last) {
            let detail = format!("link {next} was put between its neighbours");
            return self.broken(Kind::Inserted, Some(link.event_id), next, detail);
        }
        if self.before_last == Some(link.prev) {
            let detail = format!("link {} was put between its neighbours", self.seq);
            return self.broken(Kind::Inserted, self.last_event, self.seq, detail);
        }
        // Whose place this is, by what the link was made over.
        let belongs = rest.iter().find(|other| match other.event {
            Found::Intact(hash) => Link::new(self.trail, next, other.link.event_id, &hash, self.last).hash == link.hash,
            _ => false,
        });
        if let Some(other) = belongs {
            let detail = format!("event {} belongs at {next} and stands at {}", other.link.event_id, other.link.seq);
            return self.broken(Kind::Reordered, Some(link.event_id), next, detail);
        }
        if link.prev != self.last {
            let detail = format!("what link {next} follows is not there");
            return self.broken(Kind::Removed, Some(link.event_id), next, detail);
        }
        let detail = format!(
            "the event of link {next} is not the one that was linked: it was edited and its hash computed anew"
        );
        self.broken(Kind::Edited, Some(link.event_id), next, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const TRAIL: Trail = Trail(Some(OrgId(Uuid::from_u128(7))));

    fn event(n: u64) -> (EventId, Hash) {
        (EventId(Uuid::from_u128(u128::from(n) + 1_000)), [u8::try_from(n).unwrap(); 32])
    }

    fn chain_of(events: impl Iterator<Item = u64>) -> Vec<Entry> {
        let mut prev = [0; 32];
        let link = |(seq, n): (usize, u64)| {
            let (id, hash) = event(n);
            let link = Link::new(TRAIL, seq as u64 + 1, id, &hash, prev);
            prev = link.hash;
            Entry { link, event: Found::Intact(hash) }
        };
        events.enumerate().map(link).collect()
    }

    fn renumber(entries: &mut [Entry]) {
        for (n, entry) in entries.iter_mut().enumerate() {
            entry.link.seq = n as u64 + 1;
        }
    }

    /// What was done, what is left of the chain, and what is to be found.
    type Case = (&'static str, Vec<Entry>, Option<(Kind, u64)>);

    /// What a walk over pages of `size` finds: the kind, and where.
    fn found(entries: &[Entry], checkpoints: &[Checkpoint], size: usize) -> Option<(Kind, u64)> {
        let mut walk = Walk::new(TRAIL);
        let walked = entries.chunks(size).try_for_each(|page| walk.over(page, checkpoints));
        let ended = walked.and_then(|()| checkpoints.iter().try_for_each(|c| walk.ends_at(c.seq, "a checkpoint")));
        ended.err().map(|broken| (broken.kind, broken.seq.unwrap()))
    }

    #[test]
    fn each_way_to_change_a_chain_is_found_where_it_was_done() {
        let whole = chain_of(1..=9);
        let change = |change: &dyn Fn(&mut Vec<Entry>)| {
            let mut entries = whole.clone();
            change(&mut entries);
            entries
        };
        let foreign = chain_of(20..=20)[0];
        let cases: Vec<Case> = vec![
            ("whole", whole.clone(), None),
            ("edited", change(&|e| e[3].event = Found::Edited), Some((Kind::Edited, 4))),
            ("edited, with a new hash", change(&|e| e[3].event = Found::Intact([9; 32])), Some((Kind::Edited, 4))),
            ("its event removed", change(&|e| e[3].event = Found::Gone), Some((Kind::Removed, 4))),
            (
                "removed with its link",
                change(&|e| {
                    e.remove(3);
                }),
                Some((Kind::Removed, 4)),
            ),
            (
                "removed, and the rest numbered anew",
                change(&|e| {
                    e.remove(3);
                    renumber(e);
                }),
                Some((Kind::Removed, 4)),
            ),
            (
                "two links swapped",
                change(&|e| {
                    e.swap(3, 5);
                    renumber(e);
                }),
                Some((Kind::Reordered, 4)),
            ),
            (
                "two neighbours swapped",
                change(&|e| {
                    e.swap(3, 4);
                    renumber(e);
                }),
                Some((Kind::Reordered, 4)),
            ),
            (
                "the events of two links swapped",
                change(&|e| {
                    let (a, b) = (e[3], e[4]);
                    (e[3].link.event_id, e[3].event) = (b.link.event_id, b.event);
                    (e[4].link.event_id, e[4].event) = (a.link.event_id, a.event);
                }),
                Some((Kind::Reordered, 4)),
            ),
            (
                "inserted with a link that does not fit",
                change(&|e| {
                    e.insert(3, foreign);
                    renumber(e);
                }),
                Some((Kind::Inserted, 4)),
            ),
            (
                "inserted with a link that fits on one side",
                change(&|e| {
                    let (id, hash) = event(20);
                    let link = Link::new(TRAIL, 4, id, &hash, e[2].link.hash);
                    e.insert(3, Entry { link, event: Found::Intact(hash) });
                    renumber(e);
                }),
                Some((Kind::Inserted, 4)),
            ),
            ("twice", change(&|e| e.insert(3, e[2])), Some((Kind::Inserted, 3))),
            ("an event twice", change(&|e| e[2].event = Found::Twice), Some((Kind::Inserted, 3))),
        ];
        for (what, entries, expected) in cases {
            assert_eq!(found(&entries, &[], 100), expected, "{what}");
            // However it is cut into pages, something is found there or just behind.
            for size in 1..=4 {
                let near = found(&entries, &[], size).map(|(_, seq)| seq);
                assert_eq!(near.is_some(), expected.is_some(), "{what} in pages of {size}");
                assert!(near.zip(expected).is_none_or(|(near, (_, seq))| near.abs_diff(seq) <= 1), "{what}: {near:?}");
            }
        }
        assert_eq!(
            found(&chain_of([1, 2, 4, 3].into_iter()), &[], 9),
            None,
            "links alone do not tell of a chain made anew"
        );
        let other = Walk::new(Trail(None)).over(&whole, &[]).unwrap_err();
        assert_eq!(other.seq, Some(1), "a chain of another trail");
    }

    #[test]
    fn only_a_checkpoint_tells_of_a_chain_that_was_computed_anew_or_cut() {
        let whole = chain_of(1..=9);
        let at = |seq: u64| Checkpoint {
            trail: TRAIL,
            seq,
            hash: whole[usize::try_from(seq).unwrap() - 1].link.hash,
            created_at: datetime!(2026-11-21 12:00 UTC),
            key_id: KekId(Uuid::nil()),
            signature: [0; 64],
        };
        let anew = chain_of([1, 2, 30, 4, 5, 6, 7, 8, 9].into_iter());
        assert_eq!(found(&whole, &[at(2), at(9)], 4), None);
        assert_eq!(found(&anew, &[], 100), None);
        assert_eq!(found(&anew, &[at(2)], 100), None, "it is before what was changed");
        assert_eq!(found(&anew, &[at(2), at(6), at(9)], 100), Some((Kind::Rewritten, 6)));
        assert_eq!(found(&whole[..7], &[], 100), None);
        assert_eq!(found(&whole[..7], &[at(7)], 100), None);
        assert_eq!(found(&whole[..7], &[at(7), at(9)], 100), Some((Kind::Truncated, 8)));
        assert_eq!(found(&[], &[at(9)], 100), Some((Kind::Truncated, 1)));
    }
}
