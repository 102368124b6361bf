//! The background task that gives events their links. Every daemon runs one; they share the work by the trails' heads, which whoever
//! links holds and the others skip. A daemon that dies in the middle leaves what it has not committed to the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoints::{self, Sink};
use super::store::links;
use crate::app::App;
use crate::db::DbError;

/// Trails that are looked at together.
const SWEEP: i64 = 256;
/// Trails whose heads are held in one transaction.
const TRAILS: usize = 16;
/// Links of one trail in one transaction.
const LINKS: i64 = 500;
/// How often chains are looked at that may be due to be signed.
const SIGN: Duration = Duration::from_secs(1);

/// Links and signs until the daemon stops, and links once more at its end.
pub async fn keep_linking(app: Arc<App>, sink: Sink) {
    let interval = Duration::from_millis(app.config.audit.interval_ms);
    let mut signed: Option<Instant> = None;
    let mut pause = interval;
    loop {
        let stopping = tokio::select! {
            biased;
            () = app.stopping.cancelled() => true,
            () = tokio::time::sleep(pause) => false,
        };
        pause = match sweep(&app).await {
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
        if signed.is_none_or(|at| at.elapsed() >= SIGN) {
            signed = Some(Instant::now());
            checkpoints::sign_due(&app, &sink).await;
        }
    }
}

/// Links what waits in every trail, at most a batch of each: none is made to wait by another that is filled faster. Whether there is more.
async fn sweep(app: &App) -> Result<bool, DbError> {
    let (mut after, mut more) = (None, false);
    loop {
        let mut conn = app.db.acquire().await?;
        let waiting = links::waiting(&mut conn, after, SWEEP).await?;
        drop(conn);
        let Some(last) = waiting.last() else { return Ok(more) };
        after = Some(*last);
        for trails in waiting.chunks(TRAILS) {
            more |= links::link(&app.db, trails, LINKS).await?;
        }
    }
}
