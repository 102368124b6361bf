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
    /// Checkpoints that were kept outside of the database.
    pub checkpoints: Vec<Checkpoint>,
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

/// Checkpoints of a file, one a line. Other lines of an export among them are left out.
///
/// # Errors
/// [`OfflineError`].
pub fn read_checkpoints(file: impl BufRead) -> Result<Vec<Checkpoint>, OfflineError> {
    let mut found = Vec::new();
    each_line(file, |line| {
        if let Line::Checkpoint(checkpoint) = line {
            found.push(checkpoint.into());
        }
        Ok(())
    })?;
    Ok(found)
}

/// Walks over every trail of an export.
///
/// # Errors
/// [`OfflineError`].
pub fn verify(file: impl BufRead, known: &Known) -> Result<Vec<Outcome>, OfflineError> {
    let (mut outcomes, mut current) = (Vec::new(), None::<OneTrail>);
    let mut keys: BTreeMap<KekId, [u8; 32]> = BTreeMap::new();
    each_line(file, |line| {
        match line {
            Line::Trail { version, trail, after, after_hash, head, .. } => {
                if version != super::lines::VERSION {
                    return Err(format!("format {version} is another version's"));
                }
                outcomes.extend(current.take().map(|trail| trail.ended(&keys, known)));
                let trail = Trail::of_uuid(trail);
                let mut begun = OneTrail::new(trail, after, after_hash.0, head);
                begun.checkpoints.extend(known.checkpoints.iter().filter(|c| c.trail == trail).cloned());
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
    })?;
    outcomes.extend(current.map(|trail| trail.ended(&keys, known)));
    Ok(outcomes)
}

fn each_line(mut file: impl BufRead, mut take: impl FnMut(Line) -> Result<(), String>) -> Result<(), OfflineError> {
    let (mut line, mut text) = (0, Vec::new());
    loop {
        line += 1;
        text.clear();
        let read = file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok(());
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        let wrong = |why: String| OfflineError::Line { line, why };
        // What was cut in the middle of a line ends there: the missing end tells of it.
        if text.last() != Some(&b'\n') && serde_json::from_slice::<Line>(&text).is_err_and(|error| error.is_eof()) {
            return Ok(());
        }
        let parsed = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        take(parsed).map_err(wrong)?;
    }
}

struct OneTrail {
    trail: Trail,
    walk: Walk,
    after: u64,
    head: u64,
    window: Vec<Entry>,
    /// Not yet held against the links.
    checkpoints: Vec<Checkpoint>,
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

    /// Over the window, with all checkpoints up to its end.
    fn walk_on(&mut self, keys: &BTreeMap<KekId, [u8; 32]>, known: &Known) {
        let window = std::mem::take(&mut self.window);
        let to = window.last().map_or(self.walk.seq(), |entry| entry.link.seq);
        let due = self.checkpoints.extract_if(.., |checkpoint| checkpoint.seq <= to).collect();
        let (good, forged) = self.judged(due, keys, known);
        if self.broken.is_some() {
            return;
        }
        // Those of the place where the walk stands: the beginning of the file.
        let outcome = good.iter().try_for_each(|checkpoint| self.walk.hold_against(checkpoint));
        let outcome = outcome.and_then(|()| self.walk.over(&window, &good));
        let reached = self.after..=self.walk.seq();
        self.proven.extend(good.iter().map(|checkpoint| checkpoint.seq).filter(|seq| reached.contains(seq)));
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
        let (good, forged) = self.judged(beyond, keys, known);
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

/// Trails that only checkpoints know.
#[must_use]
pub fn missing(outcomes: &[Outcome], known: &Known) -> Vec<Trail> {
    let there: BTreeSet<Uuid> = outcomes.iter().map(|outcome| outcome.trail.uuid()).collect();
    let named: BTreeSet<Uuid> = known.checkpoints.iter().map(|checkpoint| checkpoint.trail.uuid()).collect();
    named.difference(&there).map(|id| Trail::of_uuid(*id)).collect()
}
