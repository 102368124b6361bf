//! `intentd audit verify`: the proof over an exported file, with neither database nor HSM.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Read as _};

use uuid::Uuid;

use super::lines::Line;
use super::rules::{Break, Checkpoint, Entry, Found, Kind, Link, Trail, Walk};
use super::store::Row;
use super::verify::{forged_at, never_linked};
use crate::ids::{EventId, KekId};

/// Links that are walked together.
const WINDOW: usize = 512;
/// Longest line of a file.
const LINE_BYTES_MAX: u64 = 8 << 20;

/// What is known from elsewhere.
#[derive(Debug, Default)]
pub struct Known {
    /// Public keys that are trusted. None: those that the file itself has, which prove nothing against whoever could change the file.
    pub keys: Vec<[u8; 32]>,
    /// Checkpoints that were kept outside of the database. Only what one of `keys` has signed counts.
    pub checkpoints: Vec<Checkpoint>,
    /// The trails that are judged, and must be there. None: all of the file, and all that a checkpoint in `checkpoints` is of.
    pub trails: Vec<Trail>,
    /// Links up to this one may be left out of the file.
    pub after: u64,
}

impl Known {
    /// The checkpoints that one of the trusted keys has signed, and how many others there are.
    fn believed(&self) -> (Vec<Checkpoint>, usize) {
        let is_good = |checkpoint: &&Checkpoint| self.keys.iter().any(|key| checkpoint.is_signed_by(key));
        let good: Vec<Checkpoint> = self.checkpoints.iter().filter(is_good).cloned().collect();
        let others = self.checkpoints.len() - good.len();
        (good, others)
    }

    fn asks_for(&self, trail: Trail) -> bool {
        self.trails.is_empty() || self.trails.contains(&trail)
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Of every trail that was judged, those that are missing included.
    pub outcomes: Vec<Outcome>,
    /// Checkpoints from elsewhere that no trusted key has signed.
    pub unusable: usize,
}

/// What was found of a trail.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub trail: Trail,
    /// The first place that is not whole.
    pub broken: Option<Break>,
    /// The links that were walked: behind the first, up to the second.
    pub links: (u64, u64),
    /// The last link that a trusted checkpoint proves.
    pub proven_to: Option<u64>,
    /// Checkpoints that fit.
    pub checkpoints: usize,
    /// Checkpoints by other keys than the trusted ones, which were not counted.
    pub unknown_checkpoints: usize,
    /// Events that waited for their link.
    pub waiting: u64,
}

/// Why a file cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// It cannot be read.
    #[error("the file cannot be read")]
    Read(#[from] std::io::Error),
    /// It is something else.
    #[error("line {line} is not one of an export: {why}")]
    Line {
        /// From 1.
        line: u64,
        /// Why.
        why: String,
    },
}

/// Gives every checkpoint of a file to `take`, a line at a time. Other lines of an export among them are left out; the numbers of those
/// that are nothing of ours are returned: what a daemon was writing when it died, at best.
///
/// # Errors
/// When the file cannot be read.
pub fn read_checkpoints(file: impl BufRead, mut take: impl FnMut(Checkpoint)) -> std::io::Result<Vec<u64>> {
    let mut strange = Vec::new();
    each_line::<std::io::Error>(file, |line, text| {
        match serde_json::from_slice(text) {
            Ok(Line::Checkpoint(checkpoint)) => take(checkpoint.into()),
            Ok(_) => {}
            Err(_) if text.trim_ascii().is_empty() => {}
            Err(_) => strange.push(line),
        }
        Ok(true)
    })?;
    Ok(strange)
}

/// Walks over every trail of an export.
///
/// # Errors
/// [`OfflineError`].
pub fn verify(file: impl BufRead, known: &Known) -> Result<Judgement, OfflineError> {
    let (noted, unusable) = known.believed();
    let (mut outcomes, mut current) = (Vec::new(), None::<OneTrail>);
    let mut keys: BTreeMap<KekId, [u8; 32]> = BTreeMap::new();
    let mut take = |line: Line| {
        match line {
            Line::Trail { version, trail, after, after_hash, head, .. } => {
                if version != super::lines::VERSION {
                    return Err(format!("format {version} is another version's"));
                }
                outcomes.extend(current.take().map(|trail| trail.ended(&keys, known)));
                let trail = Trail::of_uuid(trail);
                let mut begun = OneTrail::new(trail, after, after_hash.0, head);
                begun.noted.extend(noted.iter().filter(|c| c.trail == trail && c.seq >= after).cloned());
                if after > known.after {
                    begun.break_at(Break {
                        kind: Kind::Removed,
                        seq: Some(known.after + 1),
                        event_id: None,
                        detail: format!("the file begins behind link {after}: --after {after} says that it may"),
                    });
                }
                current = Some(begun);
                return Ok(());
            }
            Line::Key { key_id, public_key } => {
                keys.insert(key_id, public_key.0);
                return Ok(());
            }
            _ => {}
        }
        let trail = current.as_mut().ok_or_else(|| "it is outside of any trail".to_owned())?;
        trail.take(line, &keys, known);
        Ok(())
    };
    each_line(file, |line, text| {
        let wrong = |why: String| OfflineError::Line { line, why };
        match serde_json::from_slice::<Line>(text) {
            Ok(parsed) => take(parsed).map_err(wrong).map(|()| true),
            // What was cut in the middle of a line ends there: the missing end tells of it.
            Err(error) if error.is_eof() && !text.trim_ascii().is_empty() && text.last() != Some(&b'\n') => Ok(false),
            Err(error) => Err(wrong(error.to_string())),
        }
    })?;
    outcomes.extend(current.map(|trail| trail.ended(&keys, known)));
    outcomes.retain(|outcome: &Outcome| known.asks_for(outcome.trail));
    let there: BTreeSet<Uuid> = outcomes.iter().map(|outcome| outcome.trail.uuid()).collect();
    let mut expected: BTreeMap<Uuid, u64> = known.trails.iter().map(|trail| (trail.uuid(), 0)).collect();
    for checkpoint in noted.iter().filter(|checkpoint| known.asks_for(checkpoint.trail)) {
        let longest = expected.entry(checkpoint.trail.uuid()).or_default();
        *longest = checkpoint.seq.max(*longest);
    }
    expected.retain(|trail, _| !there.contains(trail));
    outcomes.extend(expected.into_iter().map(|(trail, longest)| missing(Trail::of_uuid(trail), longest)));
    Ok(Judgement { outcomes, unusable })
}

/// A trail that is not in the file at all.
fn missing(trail: Trail, longest: u64) -> Outcome {
    let mut absent = OneTrail::new(trail, 0, [0; 32], 0);
    let detail = match longest {
        0 => "it is not in this file".to_owned(),
        links => format!("it is not in this file, and a signed checkpoint says that it has {links} links"),
    };
    absent.break_at(Break { kind: Kind::Truncated, seq: Some(1), event_id: None, detail });
    absent.ended(&BTreeMap::new(), &Known::default())
}

/// Lines with their numbers and ends, until `take` says that it is enough.
fn each_line<E: From<std::io::Error>>(
    mut file: impl BufRead,
    mut take: impl FnMut(u64, &[u8]) -> Result<bool, E>,
) -> Result<(), E> {
    let (mut line, mut text) = (0, Vec::new());
    loop {
        line += 1;
        text.clear();
        let read = file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
        if read == 0 || !take(line, &text)? {
            return Ok(());
        }
    }
}

struct OneTrail {
    trail: Trail,
    walk: Walk,
    after: u64,
    head: u64,
    window: Vec<Entry>,
    /// Of the file, not yet judged, nor held against the links.
    checkpoints: Vec<Checkpoint>,
    /// From elsewhere, signed by a trusted key, not yet held against the links.
    noted: Vec<Checkpoint>,
    proven: BTreeSet<u64>,
    unknown: BTreeSet<u64>,
    waiting: u64,
    broken: Option<Break>,
    has_end: bool,
}

impl OneTrail {
    fn new(trail: Trail, after: u64, after_hash: [u8; 32], head: u64) -> Self {
        Self {
            trail,
            walk: Walk::from(trail, after, after_hash),
            after,
            head,
            window: Vec::with_capacity(WINDOW),
            checkpoints: Vec::new(),
            noted: Vec::new(),
            proven: BTreeSet::new(),
            unknown: BTreeSet::new(),
            waiting: 0,
            broken: None,
            has_end: false,
        }
    }

    fn take(&mut self, line: Line, keys: &BTreeMap<KekId, [u8; 32]>, known: &Known) {
        match line {
            Line::Event { seq, prev, hash, event_id, events } => {
                if self.window.len() >= WINDOW {
                    self.walk_on(keys, known);
                }
                let link = Link { seq, event_id, prev: prev.0, hash: hash.0 };
                self.window.push(Entry { link, event: found(self.trail, event_id, &events) });
            }
            Line::Checkpoint(checkpoint) => self.checkpoints.push(checkpoint.into()),
            Line::Unlinked { queued: true, .. } => self.waiting += 1,
            Line::Unlinked { queued: false, event_id, .. } => {
                self.walk_on(keys, known);
                self.break_at(never_linked(event_id));
            }
            Line::End { trail, .. } => self.has_end = trail == self.trail.uuid(),
            Line::Trail { .. } | Line::Key { .. } => {}
        }
    }

    fn break_at(&mut self, broken: Break) {
        self.broken.get_or_insert(broken);
    }

    /// Over the window, with all checkpoints up to its end. Each is held against its link on the way, and only those that were are proof:
    /// one whose link was passed before could not be, and no export is written so.
    fn walk_on(&mut self, keys: &BTreeMap<KekId, [u8; 32]>, known: &Known) {
        let window = std::mem::take(&mut self.window);
        let begin = self.walk.seq();
        let to = window.last().map_or(begin, |entry| entry.link.seq);
        let due: Vec<Checkpoint> = self.checkpoints.extract_if(.., |checkpoint| checkpoint.seq <= to).collect();
        let late = due.iter().find(|checkpoint| checkpoint.seq < begin).map(|checkpoint| checkpoint.seq);
        let (mut good, forged) = self.judged(due, keys, known);
        good.extend(self.noted.extract_if(.., |checkpoint| checkpoint.seq <= to));
        if let Some(seq) = late {
            let detail =
                format!("a checkpoint of link {seq} stands behind links that come after it: somebody put it there");
            self.break_at(Break { kind: Kind::Reordered, seq: Some(seq), event_id: None, detail });
        }
        if self.broken.is_some() {
            return;
        }
        // Those of the place where the walk stands: the beginning of the file.
        let outcome = good.iter().try_for_each(|checkpoint| self.walk.hold_against(checkpoint));
        let outcome = outcome.and_then(|()| self.walk.over(&window, &good));
        let held = begin..=self.walk.seq();
        self.proven.extend(good.iter().map(|checkpoint| checkpoint.seq).filter(|seq| held.contains(seq)));
        if let Err(broken) = outcome {
            self.break_at(broken);
        } else if let Some(broken) = forged {
            self.break_at(broken);
        }
    }

    /// Those that a trusted key has signed, and the first that names a known key and is not signed by it.
    fn judged(
        &mut self,
        checkpoints: Vec<Checkpoint>,
        keys: &BTreeMap<KekId, [u8; 32]>,
        known: &Known,
    ) -> (Vec<Checkpoint>, Option<Break>) {
        let (mut good, mut forged) = (Vec::new(), None);
        for checkpoint in checkpoints {
            let named = keys.get(&checkpoint.key_id);
            let trusted = |key: &[u8; 32]| known.keys.is_empty() || known.keys.contains(key);
            let is_good = match named {
                _ if known.keys.iter().any(|key| checkpoint.is_signed_by(key)) => true,
                Some(key) if known.keys.is_empty() => checkpoint.is_signed_by(key),
                _ => false,
            };
            if is_good {
                good.push(checkpoint);
            } else if named.is_some_and(trusted) {
                forged.get_or_insert_with(|| forged_at(&checkpoint));
            } else {
                self.unknown.insert(checkpoint.seq);
            }
        }
        (good, forged)
    }

    fn ended(mut self, keys: &BTreeMap<KekId, [u8; 32]>, known: &Known) -> Outcome {
        self.walk_on(keys, known);
        let beyond = std::mem::take(&mut self.checkpoints);
        let (mut good, forged) = self.judged(beyond, keys, known);
        good.append(&mut self.noted);
        let mut ends = self.walk.ends_at(self.head, "its head");
        if let Some(checkpoint) = good.iter().max_by_key(|checkpoint| checkpoint.seq) {
            ends = self.walk.ends_at(checkpoint.seq, "a signed checkpoint").and(ends);
        }
        if !self.has_end {
            let detail = "the file ends before the trail does".to_owned();
            let seq = Some(self.walk.seq() + 1);
            ends = ends.and(Err(Break { kind: Kind::Truncated, seq, event_id: None, detail }));
        }
        if let Some(broken) = ends.err().or(forged) {
            self.break_at(broken);
        }
        Outcome {
            trail: self.trail,
            broken: self.broken,
            links: (self.after, self.walk.seq()),
            proven_to: self.proven.last().copied(),
            checkpoints: self.proven.len(),
            unknown_checkpoints: self.unknown.len(),
            waiting: self.waiting,
        }
    }
}

fn found(trail: Trail, id: EventId, events: &[Row]) -> Found {
    match events {
        [] => Found::Gone,
        [event] if event.id == id => event.hash_in(trail).map_or(Found::Edited, Found::Intact),
        [_] => Found::Edited,
        _ => Found::Twice,
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::{self, Hash};
    use super::super::lines::{Bytes, VERSION};
    use super::super::{Actor, Event, Resource};
    use super::*;
    use crate::ids::OrgId;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use serde_json::json;
    use time::macros::datetime;

    const TRAIL: Trail = Trail(Some(OrgId(Uuid::from_u128(7))));
    const OTHER: Trail = Trail(Some(OrgId(Uuid::from_u128(8))));
    const LENGTH: u64 = 1_200;

    /// A chain as its lines, and what its links are.
    struct Chain {
        lines: Vec<String>,
        hashes: Vec<Hash>,
    }

    fn chain(action: &'static str) -> Chain {
        let mut chain = Chain { lines: Vec::new(), hashes: Vec::new() };
        let mut prev = [0; 32];
        for seq in 1..=LENGTH {
            let event =
                Event { org_id: TRAIL.0, ..Event::new(Actor::System, action, Resource::kind("test")) }.with("n", seq);
            let hash = hash::of(&event.fields());
            let row = json!({
                "id": event.id, "action": action, "actor_type": "system", "actor_id": null, "resource_type": "test",
                "resource_id": null, "details": event.details, "ip_address": null,
                "created_at": crate::clock::rfc3339(event.created_at), "org_id": event.org_id, "hash": hex::encode(hash),
            });
            let link = Link::new(TRAIL, seq, event.id, &hash, prev);
            let events = vec![serde_json::from_value(row).unwrap()];
            let line = Line::Event { seq, prev: Bytes(prev), hash: Bytes(link.hash), event_id: event.id, events };
            chain.lines.push(line.text().unwrap());
            chain.hashes.push(link.hash);
            prev = link.hash;
        }
        chain
    }

    impl Chain {
        /// An export from behind `after`, with lines put in front of links.
        fn export(&self, after: usize, put: &[(usize, &Checkpoint)]) -> String {
            let last = |seq: usize| Bytes(seq.checked_sub(1).map_or([0; 32], |at| self.hashes[at]));
            let trail = Line::Trail {
                version: VERSION,
                trail: TRAIL.uuid(),
                after: after as u64,
                after_hash: last(after),
                head: LENGTH,
                head_hash: last(self.hashes.len()),
                at: datetime!(2026-11-21 12:00 UTC),
            };
            let mut text = trail.text().unwrap();
            for seq in after + 1..=self.lines.len() + 1 {
                for (_, checkpoint) in put.iter().filter(|(before, _)| *before == seq) {
                    text += &Line::Checkpoint((*checkpoint).into()).text().unwrap();
                }
                text += self.lines.get(seq - 1).map_or("", |line| line);
            }
            text + &Line::End { trail: TRAIL.uuid(), seq: LENGTH }.text().unwrap()
        }
    }

    struct Signer(Ed25519KeyPair);

    impl Signer {
        fn key(&self) -> [u8; 32] {
            self.0.public_key().as_ref().try_into().unwrap()
        }

        fn sign(&self, trail: Trail, chain: &Chain, seq: usize) -> Checkpoint {
            let (hash, key_id) = (chain.hashes[seq - 1], KekId(Uuid::max()));
            let created_at = datetime!(2026-11-21 12:00 UTC);
            let mut made = Checkpoint { trail, seq: seq as u64, hash, created_at, key_id, signature: [0; 64] };
            made.signature = self.0.sign(&made.message()).as_ref().try_into().unwrap();
            made
        }

        fn known(&self, checkpoints: &[&Checkpoint]) -> Known {
            let checkpoints = checkpoints.iter().copied().cloned().collect();
            Known { keys: vec![self.key()], checkpoints, ..Known::default() }
        }
    }

    fn judged(file: &str, known: &Known) -> Judgement {
        verify(file.as_bytes(), known).unwrap()
    }

    fn kind(outcome: &Outcome) -> Option<Kind> {
        outcome.broken.as_ref().map(|broken| broken.kind)
    }

    #[test]
    fn a_checkpoint_counts_only_when_it_was_held_against_its_link() {
        let (genuine, forged) = (chain("secret.read"), chain("secret.list"));
        let signer = Signer(Ed25519KeyPair::generate().unwrap());
        let at: Vec<Checkpoint> = [100, 505, 1_000, 1_150].map(|seq| signer.sign(TRAIL, &genuine, seq)).into();
        // As the daemon writes them: in front of the page of links that they are of.
        let honest = genuine.export(0, &[(1, &at[0]), (501, &at[1]), (501, &at[2]), (1_001, &at[3])]);
        let judgement = judged(&honest, &signer.known(&[&at[1]]));
        let outcome = &judgement.outcomes[0];
        assert_eq!((kind(outcome), outcome.proven_to, outcome.checkpoints), (None, Some(1_150), 4));
        // Genuine lines in a chain that they are not of: wherever they are put, they prove nothing.
        for put in [1, 100, 101, 513, 1_025, 1_201] {
            let file = forged.export(0, &[(put, &at[0])]);
            let outcome = judged(&file, &signer.known(&[])).outcomes.remove(0);
            assert!(matches!(kind(&outcome), Some(Kind::Rewritten | Kind::Reordered)), "{put}: {outcome:?}");
        }
        // Nor does one pass over what was noted elsewhere.
        for noted in &at {
            let outcome = judged(&forged.export(0, &[]), &signer.known(&[noted])).outcomes.remove(0);
            assert_eq!(kind(&outcome), Some(Kind::Rewritten));
            assert_eq!(outcome.broken.unwrap().seq, Some(noted.seq));
        }
    }

    #[test]
    fn what_an_auditor_brings_along_is_used_or_said_not_to_be() {
        let genuine = chain("secret.read");
        let signer = Signer(Ed25519KeyPair::generate().unwrap());
        let (ours, theirs) = (signer.sign(TRAIL, &genuine, 1_000), signer.sign(OTHER, &genuine, 50));
        let file = genuine.export(0, &[]);
        // A trail that is missing altogether, unless only the other one is asked for.
        let known = signer.known(&[&ours, &theirs]);
        let all = judged(&file, &known).outcomes;
        assert_eq!(all.iter().map(kind).collect::<Vec<_>>(), [None, Some(Kind::Truncated)]);
        assert_eq!((all[1].trail, all[0].proven_to), (OTHER, Some(1_000)));
        let one = judged(&file, &Known { trails: vec![TRAIL], ..known }).outcomes;
        assert_eq!(one.iter().map(kind).collect::<Vec<_>>(), [None]);
        let absent = Known { trails: vec![OTHER], ..signer.known(&[]) };
        assert_eq!(judged(&file, &absent).outcomes.iter().map(kind).collect::<Vec<_>>(), [Some(Kind::Truncated)]);
        // Another key's, or nobody's.
        let stranger = Signer(Ed25519KeyPair::generate().unwrap());
        let judgement = judged(&file, &stranger.known(&[&ours]));
        assert_eq!((judgement.unusable, judgement.outcomes[0].proven_to), (1, None));
        let keyless = judged(&file, &Known { checkpoints: vec![ours.clone()], ..Known::default() });
        assert_eq!((keyless.unusable, keyless.outcomes[0].proven_to), (1, None));
        // No links at all, and a beginning that is left out.
        let empty = Line::Trail {
            version: VERSION,
            trail: TRAIL.uuid(),
            after: 0,
            after_hash: Bytes([0; 32]),
            head: 0,
            head_hash: Bytes([0; 32]),
            at: datetime!(2026-11-21 12:00 UTC),
        };
        let empty = empty.text().unwrap() + &Line::End { trail: TRAIL.uuid(), seq: 0 }.text().unwrap();
        assert_eq!(kind(&judged(&empty, &signer.known(&[&ours])).outcomes[0]), Some(Kind::Truncated));
        let tail = genuine.export(900, &[]);
        assert_eq!(kind(&judged(&tail, &signer.known(&[&ours])).outcomes[0]), Some(Kind::Removed));
        let outcome = judged(&tail, &Known { after: 900, ..signer.known(&[&ours]) }).outcomes.remove(0);
        assert_eq!((kind(&outcome), outcome.proven_to), (None, Some(1_000)));
        // Nothing in an export is passed over.
        assert!(verify(file.replacen("\n", "\n\n", 1).as_bytes(), &signer.known(&[])).is_err());
    }
}
