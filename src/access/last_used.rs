//! When humans' keys were last used: kept in memory and written together every few seconds, so that a request costs one look-up and no
//! write. A crash loses at most those seconds; nothing depends on them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::PgPool;
use time::OffsetDateTime;

use super::{Credential, KeyRoot, Principal, store};
use crate::app::App;
use crate::db::DbError;
use crate::ids::ApiKeyId;

/// How often the times are written.
const EVERY: Duration = Duration::from_secs(5);
/// Keys that are remembered between two writings; the use of further ones is not noted.
const KEYS_MAX: usize = 100_000;

/// The uses that are not written yet.
#[derive(Debug, Default)]
pub struct LastUsed {
    times: Mutex<HashMap<ApiKeyId, OffsetDateTime>>,
}

impl LastUsed {
    /// Notes that a principal came in now, if it is a human by an API key.
    pub fn note(&self, principal: &Principal) {
        let Credential::Key(KeyRoot::User(id)) = principal.credential else { return };
        let mut times = self.times.lock();
        if times.len() < KEYS_MAX || times.contains_key(&id) {
            times.insert(id, crate::clock::now());
        }
    }

    /// Writes the times every few seconds until the daemon stops, which writes the last ones.
    pub async fn keep_flushing(app: Arc<App>) {
        while !app.stopping.is_cancelled() {
            tokio::select! {
                () = app.stopping.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {
                    if let Err(error) = app.last_used.flush(&app.db).await {
                        tracing::warn!(%error, "the last uses of API keys were not written; they are kept");
                    }
                }
            }
        }
    }

    /// Writes the times in one statement and forgets them. What cannot be written is kept.
    ///
    /// # Errors
    /// As any statement.
    pub async fn flush(&self, pool: &PgPool) -> Result<(), DbError> {
        let times = std::mem::take(&mut *self.times.lock());
        if times.is_empty() {
            return Ok(());
        }
        let (ids, at): (Vec<_>, Vec<_>) = times.iter().map(|(id, at)| (*id, *at)).unzip();
        let written = store::stamp_user_keys(pool, &ids, &at).await;
        if written.is_err() {
            let mut kept = self.times.lock();
            for (id, at) in times {
                kept.entry(id).or_insert(at);
            }
        }
        written
    }
}
