//! What organisations use, counted: requests and signatures, by month.
//!
//! Counting touches memory only; every few seconds, and when the daemon stops, what was counted is added to the table in one statement.
//! A daemon that is killed loses what it counted since. A statement whose outcome is unknown is sent again, and may count twice: these
//! numbers are for people, and decide nothing.

pub mod api;
pub mod http;
pub mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::PgPool;
use time::{Date, OffsetDateTime};

use crate::app::App;
use crate::db::DbError;
use crate::ids::OrgId;

/// How often counts are written.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Authenticated requests.
    Requests,
    /// Transactions that were signed for agents.
    Signatures,
}

impl Kind {
    /// As the table and the API write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Signatures => "signatures",
        }
    }
}

/// The first day of a time's month, in UTC.
#[must_use]
pub fn month_of(at: OffsetDateTime) -> Date {
    let date = at.to_offset(time::UtcOffset::UTC).date();
    date.replace_day(1).unwrap_or(date)
}

type Counts = HashMap<(OrgId, Date, Kind), u64>;

/// What this daemon has counted and not written yet.
#[derive(Debug, Default)]
pub struct Meter {
    counts: Mutex<Counts>,
}

impl Meter {
    /// Counts one.
    pub fn count(&self, org_id: OrgId, kind: Kind) {
        let month = month_of(crate::clock::now());
        let mut counts = self.counts.lock();
        *counts.entry((org_id, month, kind)).or_default() += 1;
    }

    /// Writes the counts every few seconds until the daemon stops, which writes the last ones.
    pub async fn keep_flushing(app: Arc<App>) {
        while !app.stopping.is_cancelled() {
            tokio::select! {
                () = app.stopping.cancelled() => {}
                () = tokio::time::sleep(FLUSH_EVERY) => {
                    if let Err(error) = app.meter.flush(&app.db).await {
                        tracing::warn!(%error, "the counts of usage were not written; they are kept");
                    }
                }
            }
        }
    }

    /// Writes the counts and begins anew. What cannot be written is counted on.
    ///
    /// # Errors
    /// As any statement.
    pub async fn flush(&self, pool: &PgPool) -> Result<(), DbError> {
        let counts = std::mem::take(&mut *self.counts.lock());
        if counts.is_empty() {
            return Ok(());
        }
        let mut rows: Vec<_> = counts.iter().map(|(key, count)| (*key, *count)).collect();
        // In one order everywhere, so that daemons that write at once do not wait for each other in a circle.
        rows.sort_unstable();
        let added = store::add(pool, &rows).await;
        if added.is_err() {
            let mut kept = self.counts.lock();
            for (key, count) in counts {
                *kept.entry(key).or_default() += count;
            }
        }
        added
    }
}
