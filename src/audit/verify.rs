//! The proof over the database: a piece of a trail at a time, with a cursor to go on from.
//!
//! First the links in order, each with its event and the checkpoints; then the events themselves, for such as were never linked.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use uuid::Uuid;

use super::hash::Hash;
use super::rules::{Break, Checkpoint, Entry, Found, Kind, Link, Trail, Walk};
use super::store::Row;
use super::store::trail as store;
use crate::db::{Connection, DbError, Pool};
use crate::ids::{EventId, KekId};

/// Links and events that one call looks at.
pub const ROWS_MAX: usize = 10_000;
/// Links that are read together.
const PAGE: usize = 500;

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// In the links, behind one that was good.
    Links(u64, Hash),
    /// In the events, behind one.
    Events(Option<(OffsetDateTime, EventId)>),
}

impl Cursor {
    /// From the beginning.
    pub const START: Self = Self::Links(0, [0; 32]);

    /// For the client, to bring back.
    #[must_use]
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(match self {
            Self::Links(seq, hash) => format!("l/{seq}/{}", hex::encode(hash)),
            Self::Events(None) => "e".to_owned(),
            Self::Events(Some((at, id))) => format!("e/{}/{id}", at.unix_timestamp_nanos()),
        })
    }

    /// What [`Cursor::text`] wrote. `None`: it did not write this.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = text.split('/');
        let cursor = match (parts.next()?, parts.next(), parts.next()) {
            ("l", Some(seq), Some(hash)) => {
                let seq = seq.parse().ok().filter(|seq: &u64| *seq < u64::MAX >> 1)?;
                Self::Links(seq, hex::decode(hash).ok()?.try_into().ok()?)
            }
            ("e", None, None) => Self::Events(None),
            ("e", Some(at), Some(id)) => {
                let at = OffsetDateTime::from_unix_timestamp_nanos(at.parse().ok()?).ok()?;
                Self::Events(Some((at, EventId(id.parse::<Uuid>().ok()?))))
            }
            _ => return None,
        };
        parts.next().is_none().then_some(cursor)
    }
}

/// What a call has found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Links and events that were looked at.
    pub checked: usize,
    /// Events among them that are as they were written and stand where they were linked.
    pub verified: usize,
    /// The first place that is not whole.
    pub broken: Option<Break>,
    /// Where to go on. `None`: this was the end, or it is broken.
    pub next: Option<Cursor>,
    /// The chain is whole from `from` …
    pub from: u64,
    /// … to here.
    pub to: u64,
    /// The hash of that link.
    pub last: Hash,
    /// Its length by its own head.
    pub head: u64,
    /// Checkpoints that fit.
    pub checkpoints: usize,
    /// Checkpoints by keys that the token does not vouch for any more; they were not counted.
    pub unknown_checkpoints: usize,
    /// The last link that a checkpoint proves, in what was looked at.
    pub proven_to: Option<u64>,
    /// Events that wait for their link.
    pub waiting: i64,
}

/// Walks on from `cursor`. `keys`: the public halves that are trusted.
///
/// # Errors
/// As any statement: nothing is said about the trail then.
pub async fn verify(pool: &Pool, trail: Trail, cursor: Cursor, keys: &[(KekId, [u8; 32])]) -> Result<Verdict, DbError> {
    let mut conn = pool.acquire().await?;
    let mut verdict = match cursor {
        Cursor::Links(seq, hash) => verify_links(&mut conn, trail, (seq, hash), keys).await?,
        Cursor::Events(_) => {
            let end = store::end(&mut conn, trail).await?;
            Verdict { next: Some(cursor), ..Verdict::at(end.last, [0; 32], end) }
        }
    };
    verdict.waiting = store::waiting(&mut conn, trail).await?;
    let mut events_from = match verdict.next {
        Some(Cursor::Events(at)) => Some(at),
        _ => None,
    };
    if events_from.is_some() {
        verdict.next = None;
    }
    while let Some(after) = events_from {
        let room = ROWS_MAX.saturating_sub(verdict.checked).min(PAGE);
        if room == 0 {
            verdict.next = Some(Cursor::Events(after));
            break;
        }
        let seen = store::seen(&mut conn, trail, after, i64::try_from(room).unwrap_or(0)).await?;
        verdict.checked += seen.len();
        if let Some(stray) = seen.iter().find(|event| !event.linked && !event.queued) {
            verdict.broken = Some(never_linked(stray.id));
            break;
        }
        events_from = seen.last().filter(|_| seen.len() == room).map(|last| Some((last.created_at, last.id)));
    }
    Ok(verdict)
}

/// An event that was put there past the trail.
#[must_use]
pub fn never_linked(id: EventId) -> Break {
    let detail = format!("event {id} was never linked: it was put there past the trail");
    Break { kind: Kind::Inserted, seq: None, event_id: Some(id), detail }
}

/// The part of [`verify`] that goes over links, from behind one that is known to be good: `next` says where to go on in the links, or, at
/// their end, that the events are next. What is whole to its end fits the chain's head.
///
/// # Errors
/// As any statement.
pub async fn verify_links(
    conn: &mut Connection,
    trail: Trail,
    (seq, hash): (u64, Hash),
    keys: &[(KekId, [u8; 32])],
) -> Result<Verdict, DbError> {
    let end = store::end(conn, trail).await?;
    let (mut walk, mut verdict) = (Walk::from(trail, seq, hash), Verdict::at(seq, hash, end));
    let outcome = links(conn, trail, &mut walk, end, keys, &mut verdict).await?;
    (verdict.to, verdict.last) = (walk.seq(), walk.hash());
    match outcome {
        Err(broken) => verdict.broken = Some(broken),
        Ok(true) => verdict.next = Some(Cursor::Events(None)),
        Ok(false) => verdict.next = Some(Cursor::Links(walk.seq(), walk.hash())),
    }
    Ok(verdict)
}

impl Verdict {
    /// Nothing was looked at yet.
    fn at(from: u64, last: Hash, end: store::End) -> Self {
        Self {
            checked: 0,
            verified: 0,
            broken: None,
            next: None,
            from,
            to: from,
            last,
            head: end.head.0,
            checkpoints: 0,
            unknown_checkpoints: 0,
            proven_to: None,
            waiting: 0,
        }
    }
}

/// `Ok(true)`: to the end of the links; `Ok(false)`: as far as one call goes.
async fn links(
    conn: &mut Connection,
    trail: Trail,
    walk: &mut Walk,
    end: store::End,
    keys: &[(KekId, [u8; 32])],
    verdict: &mut Verdict,
) -> Result<Result<bool, Break>, DbError> {
    while walk.seq() < end.last {
        let room = ROWS_MAX.saturating_sub(verdict.checked).min(PAGE);
        if room == 0 {
            return Ok(Ok(false));
        }
        let page = store::links(conn, trail, walk.seq(), end.last, i64::try_from(room).unwrap_or(0)).await?;
        let Some(last) = page.last() else { break };
        let checkpoints = store::checkpoints(conn, trail, walk.seq(), last.seq).await?;
        let ids: Vec<EventId> = page.iter().map(|link| link.event_id).collect();
        let entries = entries(trail, &page, store::events(conn, &ids).await?);
        let (good, forged) = judged(checkpoints, keys, verdict);
        let before = walk.seq();
        let walked = walk.over(&entries, &good);
        let done = usize::try_from(walk.seq() - before).unwrap_or(0);
        verdict.checked += entries.len();
        verdict.verified += done;
        let passed: Vec<u64> = good.iter().map(|c| c.seq).filter(|seq| *seq <= walk.seq()).collect();
        if let Err(broken) = walked {
            return Ok(Err(broken));
        }
        verdict.checkpoints += passed.len();
        verdict.proven_to = passed.last().copied().or(verdict.proven_to);
        if let Some(broken) = forged {
            return Ok(Err(broken));
        }
    }
    let beyond = store::checkpoints(conn, trail, walk.seq(), end.checkpoint).await?;
    let (good, forged) = judged(beyond, keys, verdict);
    Ok(at_the_end(walk, end, &good).and(forged.map_or(Ok(true), Err)))
}

/// What checkpoints and head say of the end.
fn at_the_end(walk: &Walk, end: store::End, beyond: &[Checkpoint]) -> Result<(), Break> {
    if let Some(checkpoint) = beyond.iter().find(|checkpoint| checkpoint.seq > walk.seq()) {
        walk.ends_at(checkpoint.seq, "a checkpoint")?;
    }
    walk.ends_at(end.head.0, "its head")?;
    if walk.seq() > end.head.0 || (walk.seq() == end.head.0 && walk.hash() != end.head.1) {
        let detail = format!("the head of the chain (at {}) does not fit its last link ({})", end.head.0, walk.seq());
        return Err(Break { kind: Kind::Rewritten, seq: Some(walk.seq()), event_id: None, detail });
    }
    Ok(())
}

/// Those that a trusted key has signed, and the first that names such a key and is not signed by it.
fn judged(
    checkpoints: Vec<Checkpoint>,
    keys: &[(KekId, [u8; 32])],
    verdict: &mut Verdict,
) -> (Vec<Checkpoint>, Option<Break>) {
    let (mut good, mut forged) = (Vec::new(), None);
    // Behind the last of so many there may be others, which were not read.
    if let Some(last) = checkpoints.get(store::CHECKPOINTS_MAX - 1) {
        let detail = format!("there are more checkpoints up to {} than anybody has signed", last.seq);
        forged = Some(Break { kind: Kind::Forged, seq: Some(last.seq), event_id: None, detail });
    }
    for checkpoint in checkpoints {
        match keys.iter().find(|(id, _)| *id == checkpoint.key_id) {
            None => verdict.unknown_checkpoints += 1,
            Some((_, key)) if checkpoint.is_signed_by(key) => good.push(checkpoint),
            Some(_) => {
                forged.get_or_insert_with(|| forged_at(&checkpoint));
            }
        }
    }
    (good, forged)
}

/// A checkpoint whose signature is not by the key that it names.
#[must_use]
pub fn forged_at(checkpoint: &Checkpoint) -> Break {
    let detail = format!("the checkpoint at {} is not signed by the key that it names", checkpoint.seq);
    Break { kind: Kind::Forged, seq: Some(checkpoint.seq), event_id: None, detail }
}

/// Links with what there is of their events.
fn entries(trail: Trail, links: &[Link], events: Vec<Row>) -> Vec<Entry> {
    let mut found: HashMap<EventId, Found> = HashMap::with_capacity(events.len());
    for event in &events {
        let one = event.hash_in(trail).map_or(Found::Edited, Found::Intact);
        found.entry(event.id).and_modify(|found| *found = Found::Twice).or_insert(one);
    }
    let entry = |link: &Link| Entry { link: *link, event: found.get(&link.event_id).copied().unwrap_or(Found::Gone) };
    links.iter().map(entry).collect()
}

/// The newest good checkpoint at or below `seq`, as a place to begin; and whether the chain still has what it was signed for.
///
/// # Errors
/// As any statement.
pub async fn begin_at(
    pool: &Pool,
    trail: Trail,
    seq: u64,
    keys: &[(KekId, [u8; 32])],
) -> Result<Option<Result<Cursor, Break>>, DbError> {
    let mut conn = pool.acquire().await?;
    let newest = store::newest_checkpoints(&mut conn, trail, seq, 100).await?;
    let is_good = |c: &Checkpoint| keys.iter().any(|(id, key)| *id == c.key_id && c.is_signed_by(key));
    let Some(checkpoint) = newest.into_iter().find(is_good) else { return Ok(None) };
    let link = store::links(&mut conn, trail, checkpoint.seq - 1, checkpoint.seq, 1).await?;
    let Some(link) = link.first() else {
        let walk = Walk::from(trail, store::end(&mut conn, trail).await?.last, [0; 32]);
        let gone = walk.ends_at(checkpoint.seq, "a checkpoint").err();
        let middle = || Break {
            kind: Kind::Removed,
            seq: Some(checkpoint.seq),
            event_id: None,
            detail: format!("link {} is not there", checkpoint.seq),
        };
        return Ok(Some(Err(gone.unwrap_or_else(middle))));
    };
    let walk = Walk::from(trail, link.seq, link.hash);
    Ok(Some(walk.hold_against(&checkpoint).map(|()| Cursor::Links(checkpoint.seq, checkpoint.hash))))
}
