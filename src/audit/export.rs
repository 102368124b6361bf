//! A trail as lines, a page at a time: checkpoints, and behind them the links that they are of with their events, in order; then events
//! without a link. Nothing but the place is kept between pages, and no connection.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::lines::{Bytes, Line, VERSION};
use super::rules::{Link, Trail};
use super::store::{Row, trail as store};
use crate::clock;
use crate::db::{Connection, DbError, Pool};
use crate::ids::EventId;

/// Links and events of a page.
const PAGE: i64 = 500;

/// An export that is under way.
pub struct Export {
    trail: Trail,
    stage: Stage,
}

enum Stage {
    /// Nothing was written yet; links up to this one are left out.
    Begin(u64),
    /// Links behind the first were written; the end as it was at the beginning.
    Links(u64, store::End),
    /// Events were looked at up to here.
    Events(Option<(OffsetDateTime, EventId)>, store::End),
    Done,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It was to begin behind a link that is not there.
    #[error("the chain has no link {0}")]
    NoLink(u64),
    /// What is stored cannot be written down.
    #[error("a row of the trail has no form as a line")]
    Line(#[from] serde_json::Error),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Export {
    /// Of a trail, from behind a link.
    #[must_use]
    pub fn new(trail: Trail, after: u64) -> Self {
        Self { trail, stage: Stage::Begin(after) }
    }

    /// The next lines; `None` at the end.
    ///
    /// # Errors
    /// [`ExportError`]; the export is then not complete, and can be told to be by its missing end.
    pub async fn next(&mut self, pool: &Pool) -> Result<Option<String>, ExportError> {
        let mut conn = pool.acquire().await.map_err(DbError::from)?;
        let mut text = String::new();
        self.stage = match self.stage {
            Stage::Begin(after) => self.begin(&mut conn, after, &mut text).await?,
            Stage::Links(after, end) => self.links(&mut conn, after, end, &mut text).await?,
            Stage::Events(after, end) => self.events(&mut conn, after, end, &mut text).await?,
            Stage::Done => return Ok(None),
        };
        Ok(Some(text))
    }

    async fn begin(&self, conn: &mut Connection, after: u64, text: &mut String) -> Result<Stage, ExportError> {
        let end = store::end(conn, self.trail).await?;
        let after_hash = match after.checked_sub(1) {
            None => [0; 32],
            Some(before) => {
                let link = store::links(conn, self.trail, before, after, 1).await?;
                link.first().ok_or(ExportError::NoLink(after))?.hash
            }
        };
        let line = Line::Trail {
            version: VERSION,
            trail: self.trail.uuid(),
            after,
            after_hash: Bytes(after_hash),
            head: end.head.0,
            head_hash: Bytes(end.head.1),
            at: clock::now(),
        };
        text.push_str(&line.text()?);
        for (key_id, public_key) in store::keys(conn).await? {
            text.push_str(&Line::Key { key_id, public_key: Bytes(public_key) }.text()?);
        }
        // What is signed of the place where it begins is worth having.
        if let Some(before) = after.checked_sub(1) {
            self.checkpoints(conn, before, after, text).await?;
        }
        Ok(Stage::Links(after, end))
    }

    async fn checkpoints(
        &self,
        conn: &mut Connection,
        after: u64,
        to: u64,
        text: &mut String,
    ) -> Result<(), ExportError> {
        for checkpoint in store::checkpoints(conn, self.trail, after, to).await? {
            text.push_str(&Line::Checkpoint((&checkpoint).into()).text()?);
        }
        Ok(())
    }

    async fn links(
        &self,
        conn: &mut Connection,
        after: u64,
        end: store::End,
        text: &mut String,
    ) -> Result<Stage, ExportError> {
        let page = store::links(conn, self.trail, after, end.last, PAGE).await?;
        let Some(last) = page.last() else {
            self.checkpoints(conn, end.last.max(after), end.checkpoint, text).await?;
            return Ok(Stage::Events(None, end));
        };
        // In front of the links: who reads the file once holds each link against all that was signed of it.
        self.checkpoints(conn, after, last.seq, text).await?;
        let ids: Vec<EventId> = page.iter().map(|link| link.event_id).collect();
        let mut events = by_id(store::events(conn, &ids).await?);
        for Link { seq, event_id, prev, hash } in &page {
            let events = events.remove(event_id).unwrap_or_default();
            let (prev, hash) = (Bytes(*prev), Bytes(*hash));
            text.push_str(&Line::Event { seq: *seq, prev, hash, event_id: *event_id, events }.text()?);
        }
        Ok(Stage::Links(last.seq, end))
    }

    async fn events(
        &self,
        conn: &mut Connection,
        after: Option<(OffsetDateTime, EventId)>,
        end: store::End,
        text: &mut String,
    ) -> Result<Stage, ExportError> {
        let seen = store::seen(conn, self.trail, after, PAGE).await?;
        let Some(last) = seen.last() else {
            text.push_str(&Line::End { trail: self.trail.uuid(), seq: end.last }.text()?);
            return Ok(Stage::Done);
        };
        let unlinked: Vec<_> = seen.iter().filter(|event| !event.linked).collect();
        let ids: Vec<EventId> = unlinked.iter().map(|event| event.id).collect();
        let mut events = if ids.is_empty() { HashMap::new() } else { by_id(store::events(conn, &ids).await?) };
        for event in unlinked {
            let events = events.remove(&event.id).unwrap_or_default();
            text.push_str(&Line::Unlinked { queued: event.queued, event_id: event.id, events }.text()?);
        }
        Ok(Stage::Events(Some((last.created_at, last.id)), end))
    }
}

fn by_id(rows: Vec<Row>) -> HashMap<EventId, Vec<Row>> {
    let mut found: HashMap<EventId, Vec<Row>> = HashMap::with_capacity(rows.len());
    for row in rows {
        found.entry(row.id).or_default().push(row);
    }
    found
}
