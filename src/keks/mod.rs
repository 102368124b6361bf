//! The life of the keys on the token: how a new one takes an old one's place while everything goes on.
//!
//! `intentd admin hsm rotate` makes a key beside the old one (`adding`). Every daemon looks at the rows once a second, finds the key on the
//! token and says so; when all have it, it becomes `active` and the old one `retiring`. One daemon at a time then makes again what the old
//! key made: signing keys' blobs (`seal`), MACs (`mac`), secrets' DEKs (`data`); for `jwt` the old tokens are let run out. When no row
//! names the old key it is `retired`. Taking it off the token is another command.
//!
//! Every step is a compare-and-set on rows, and what is left to do is what the rows still say: a daemon that dies loses nothing, and two
//! that work at once are only wasteful. A row always names keys that are on the token: the old form stays until the new one has been
//! proven and stored.

pub mod check;
pub mod command;
mod job;
pub mod rules;
pub mod sealed;
pub mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::PgPool;

use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::{self, DbError};
use crate::hsm::{self, Hsm, HsmError, Kek, KekPurpose, KekState};
use crate::ids::{DaemonId, KekId};

/// `[keks]` of the configuration.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeksConfig {
    /// How often a daemon looks at the rows of the keys, and goes on with a rotation, in milliseconds.
    pub poll_ms: u64,
    /// A replaced key is kept in use for at least so long, in seconds: longer than any request takes.
    pub grace_s: u32,
}

impl Default for KeksConfig {
    fn default() -> Self {
        Self { poll_ms: 1_000, grace_s: 60 }
    }
}

/// Why a key was not rotated, or not destroyed.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// There are no keys yet.
    #[error("this database has no keys on an HSM yet: run `intentd admin hsm init` once")]
    None,
    /// One after the other.
    #[error("the `{0}` key is being rotated already: `intentd admin hsm rotate --status` shows how far it is")]
    Underway(KekPurpose),
    /// No such key.
    #[error("there is no key {0}: `intentd admin hsm keks` lists them")]
    Unknown(KekId),
    /// It is still needed.
    #[error("key {0} is {1}: only a retired key can be destroyed")]
    NotRetired(KekId, &'static str),
    /// A daemon has it in its memory.
    #[error("a running daemon still has the key: is it reachable? Run the command again")]
    StillHeld,
    /// The HSM did not do it.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The keys' rows.
    #[error(transparent)]
    Rows(#[from] hsm::store::KekStoreError),
}

impl From<sqlx::Error> for KekError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// A daemon's first look: it registers before it reads, so that no key becomes active that it has not found.
///
/// # Errors
/// [`KekError`]; the HSM's names the key that is missing.
pub async fn join(pool: &PgPool, hsm: &Hsm, id: DaemonId) -> Result<(), KekError> {
    store::register(pool, id).await?;
    let rows = load(pool).await?;
    if rows.is_empty() {
        return Err(KekError::None);
    }
    hsm.adopt(rows).await?;
    store::report(pool, &myself(hsm, id, None)).await?;
    Ok(())
}

async fn load(pool: &PgPool) -> Result<Vec<Kek>, KekError> {
    Ok(hsm::store::load(&mut *pool.acquire().await?).await?)
}

fn myself(hsm: &Hsm, id: DaemonId, note: Option<String>) -> rules::Daemon {
    let adopted = hsm.adopted();
    let active = adopted.iter().filter(|(_, state)| *state == KekState::Active).map(|(id, _)| *id).collect();
    rules::Daemon { id, keks: adopted.iter().map(|(id, _)| *id).collect(), active_keks: active, note }
}

/// When this daemon last read the rows of the keys and found those keys.
#[derive(Debug)]
pub struct LastLook(Mutex<Instant>);

impl LastLook {
    /// A look that began at `at` has succeeded.
    #[must_use]
    pub fn new(at: Instant) -> Self {
        Self(Mutex::new(at))
    }

    fn set(&self, at: Instant) {
        *self.0.lock() = at;
    }

    /// Whether keys may have changed places without this daemon: the others wait for it for [`store::LIVE_S`] after it was last heard of,
    /// which was after its last look. Until it has looked again, what it does not know may be good.
    #[must_use]
    pub fn is_too_old(&self) -> bool {
        self.0.lock().elapsed().as_secs_f64() > store::LIVE_S
    }
}

/// Starts a daemon's part in rotations: one task that keeps its keys as the rows say, one that does the work when it is this daemon's.
pub fn start(app: &Arc<App>) {
    let pause = Duration::from_millis(app.config.keks.poll_ms.max(10));
    let watcher = Arc::clone(app);
    app.tasks.spawn(async move {
        let mut seen = None;
        while rest(&watcher, pause).await {
            if let Err(error) = watch(&watcher, &mut seen).await {
                tracing::warn!("the keys' rows could not be followed: {error}");
            }
        }
    });
    let worker = Arc::clone(app);
    app.tasks.spawn(async move {
        while rest(&worker, pause).await {
            if let Err(error) = job::round(&worker).await {
                tracing::warn!("the rotation of keys could not go on, it is tried again: {error}");
            }
        }
    });
}

/// False when the daemon stops.
async fn rest(app: &App, pause: Duration) -> bool {
    tokio::select! {
        () = app.stopping.cancelled() => false,
        () = tokio::time::sleep(pause) => true,
    }
}

/// One look at the rows: adopts what has changed, and says what this daemon has.
async fn watch(app: &App, seen: &mut Option<Vec<Kek>>) -> Result<(), KekError> {
    let began = Instant::now();
    let rows = load(&app.db).await?;
    let mut note = None;
    // A key that was not found is looked for again at every look.
    if lacking(app, &rows).is_some() || seen.as_ref() != Some(&rows) {
        match app.hsm.adopt(rows.clone()).await {
            Ok(()) => {
                note = lacking(app, &rows)
                    .map(|id| format!("it does not find key {id} on the token, or not as it must be"));
                *seen = Some(rows);
            }
            Err(error) => note = Some(error.to_string()),
        }
    }
    match &note {
        Some(note) => tracing::debug!("{note}"),
        None => app.kek_look.set(began),
    }
    let reporting = Instant::now();
    let seen_at = store::report(&app.db, &myself(&app.hsm, app.daemon_id, note)).await?;
    app.primary.wrote(reporting, app.daemon_id, seen_at);
    Ok(())
}

/// A new key that this daemon has not found yet.
fn lacking(app: &App, rows: &[Kek]) -> Option<KekId> {
    let adopted = app.hsm.adopted();
    let lacks = |kek: &&Kek| kek.state == KekState::Adding && !adopted.iter().any(|(id, _)| *id == kek.id);
    rows.iter().find(lacks).map(|kek| kek.id)
}

fn event(action: &'static str, id: KekId, purpose: KekPurpose) -> Event {
    Event::new(audit::Actor::System, action, Resource::new("kek", id)).with("purpose", purpose.as_str())
}

/// Makes a new key of a purpose beside the active one, under the installation lock. The daemons do the rest.
///
/// # Errors
/// [`KekError`]; then no key is left behind, unless the outcome of the commit is unknown.
pub async fn begin(pool: &PgPool, hsm: &Hsm, purpose: KekPurpose) -> Result<Kek, KekError> {
    let mut tx = pool.begin().await?;
    db::lock_install(&mut tx).await?;
    let rows = hsm::store::load(&mut tx).await?;
    if rows.is_empty() {
        return Err(KekError::None);
    }
    let underway = |kek: &Kek| matches!(kek.state, KekState::Adding | KekState::Retiring);
    if rows.iter().any(|kek| kek.purpose == purpose && underway(kek)) {
        return Err(KekError::Underway(purpose));
    }
    hsm.adopt(rows).await?;
    let kek = hsm.create_kek(purpose).await?;
    let stored: Result<(), KekError> = async {
        hsm::store::insert(&mut tx, std::slice::from_ref(&kek)).await?;
        Ok(audit::record(&mut tx, event("kek.add", kek.id, purpose)).await?)
    }
    .await;
    if let Err(error) = stored {
        // Nothing was committed: the key would stay on the token without a row.
        if let Err(error) = hsm.destroy_kek(&kek).await {
            tracing::error!(%error, "a new key that was not stored is still on the token");
        }
        return Err(error);
    }
    tx.commit().await?;
    Ok(kek)
}

/// Takes a retired key off the token, for ever: first every daemon forgets it, then it goes. May be run again after any failure.
///
/// # Errors
/// [`KekError`].
pub async fn destroy(pool: &PgPool, hsm: &Hsm, id: KekId, patience: Duration) -> Result<(), KekError> {
    let mut tx = pool.begin().await?;
    db::lock_install(&mut tx).await?;
    let rows = hsm::store::load(&mut tx).await?;
    let kek = rows.iter().find(|kek| kek.id == id).cloned().ok_or(KekError::Unknown(id))?;
    if !store::end(&mut tx, id, store::End::BeginDestroy).await? {
        return Err(KekError::NotRetired(id, kek.state.as_str()));
    }
    audit::record(&mut tx, event("kek.destroy", id, kek.purpose)).await?;
    tx.commit().await?;
    let until = tokio::time::Instant::now() + patience;
    while store::live(&mut *pool.acquire().await?).await?.iter().any(|daemon| daemon.keks.contains(&id)) {
        if tokio::time::Instant::now() >= until {
            return Err(KekError::StillHeld);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    hsm.adopt(load(pool).await?).await?;
    hsm.destroy_kek(&kek).await?;
    let mut tx = pool.begin().await?;
    db::lock_install(&mut tx).await?;
    store::end(&mut tx, id, store::End::Destroyed).await?;
    audit::record(&mut tx, event("kek.destroyed", id, kek.purpose)).await?;
    tx.commit().await?;
    Ok(())
}
