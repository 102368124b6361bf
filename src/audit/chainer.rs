//! The background task that gives events their links. Every daemon runs one; they share the work by the trails' heads, which whoever
//! links holds and the others skip. A daemon that dies in the middle leaves what it has not committed to the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::store::links;
use crate::app::App;
use crate::db::DbError;

/// Trails that are looked at together.
const SWEEP: i64 = 256;
/// Trails whose heads are held in one transaction.
const TRAILS: usize = 16;
/// Links of one trail in one transaction.
const LINKS: i64 = 500;
/// How long a trail that could not be linked is left alone.
const REST: Duration = Duration::from_secs(30);

/// Links until the daemon stops, and once more at its end.
pub async fn keep_linking(app: Arc<App>) {
    let interval = Duration::from_millis(app.config.audit.interval_ms);
    let (mut pause, mut resting) = (interval, HashMap::new());
    loop {
        let stopping = tokio::select! {
            biased;
            () = app.stopping.cancelled() => true,
            () = tokio::time::sleep(pause) => false,
        };
        pause = match sweep(&app, &mut resting).await {
            Ok(true) => Duration::ZERO,
            Ok(false) => interval,
            Err(error) => {
                tracing::warn!(%error, "audit events have no links yet; they get them later");
                interval
            }
        };
        if stopping {
            return;
        }
    }
}

/// Links what waits in every trail, at most a batch of each: none is made to wait by another that is filled faster. Whether there is more.
/// `resting`: trails that could not be linked, and since when.
async fn sweep(app: &App, resting: &mut HashMap<Uuid, Instant>) -> Result<bool, DbError> {
    resting.retain(|_, since| since.elapsed() < REST);
    let (mut after, mut more) = (None, false);
    loop {
        let mut conn = app.db.acquire().await?;
        let mut waiting = links::waiting(&mut conn, after, SWEEP).await?;
        drop(conn);
        let Some(last) = waiting.last() else { return Ok(more) };
        after = Some(*last);
        waiting.retain(|trail| !resting.contains_key(trail));
        for trails in waiting.chunks(TRAILS) {
            more |= match links::link(&app.db, trails, LINKS).await {
                Err(DbError::Unavailable(error)) => return Err(DbError::Unavailable(error)),
                Err(_) => one_by_one(app, trails, resting).await?,
                Ok(more) => more,
            };
        }
    }
}

/// One of them cannot be linked: the others are.
async fn one_by_one(app: &App, trails: &[Uuid], resting: &mut HashMap<Uuid, Instant>) -> Result<bool, DbError> {
    let mut more = false;
    for trail in trails {
        match links::link(&app.db, &[*trail], LINKS).await {
            Ok(one) => more |= one,
            Err(DbError::Unavailable(error)) => return Err(DbError::Unavailable(error)),
            Err(error) => {
                let why = crate::http::problem::chain(&error);
                tracing::error!(%trail, why, "the events of an audit trail cannot be linked: has somebody changed its rows?");
                resting.insert(*trail, Instant::now());
            }
        }
    }
    Ok(more)
}
