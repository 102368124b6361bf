//! The work of a rotation, done by the daemon that holds the lease: one look at each purpose, and one round over the rows that the old key
//! still holds.

use std::sync::Arc;

use futures::StreamExt as _;

use super::rules::{self, Step};
use super::store::SealedTable;
use super::{KekError, event, load, sealed, store};
use crate::app::App;
use crate::audit;
use crate::db::{self, DbError};
use crate::hsm::{HsmError, Kek, KekPurpose, KekState};
use crate::ids::{KekId, KeyId, SecretId};
use crate::vaults::{keys, secrets};

/// Rows that are read together.
const BATCH: i64 = 64;
/// Rows that are in the HSM at the same time: requests share its workers.
const AT_ONCE: usize = 2;

/// What became of one row.
enum Outcome {
    /// It names the new key, or somebody else changed it: the next round looks again.
    Done,
    /// It does not open: it stays as it is, and keeps the old key.
    Stuck(String),
    /// The HSM or the database could not do it now.
    Later(KekError),
}

/// One round.
///
/// # Errors
/// [`KekError`]: to be tried again.
pub(super) async fn round(app: &Arc<App>) -> Result<(), KekError> {
    let rows = load(&app.db).await?;
    if !rows.iter().any(|kek| matches!(kek.state, KekState::Adding | KekState::Retiring)) {
        return Ok(());
    }
    if !store::take_lease(&app.db, app.daemon_id).await? {
        return Ok(());
    }
    let daemons = store::live(&mut *app.db.acquire().await?).await?;
    for purpose in KekPurpose::ALL {
        match rules::next(&rows, purpose, &daemons) {
            Step::None => {}
            Step::WaitForDaemons(new, without) => {
                tracing::debug!(%purpose, key = %new, ?without, "a new key waits until every running daemon has found it");
            }
            Step::Activate(new) => activate(app, purpose, new).await?,
            Step::Rewrap { old, new } => rewrap(app, &rows, purpose, old, new).await?,
        }
    }
    Ok(())
}

/// Once more under the installation lock: a daemon may have come meanwhile.
async fn activate(app: &App, purpose: KekPurpose, new: KekId) -> Result<(), KekError> {
    let mut tx = app.db.begin().await?;
    db::lock_install(&mut tx).await?;
    let rows = crate::hsm::store::load(&mut tx).await?;
    let daemons = store::live(&mut tx).await?;
    if rules::next(&rows, purpose, &daemons) != Step::Activate(new) || !store::activate(&mut tx, new).await? {
        return Ok(());
    }
    audit::record(&mut tx, event("kek.activate", new, purpose)).await?;
    tx.commit().await?;
    tracing::info!(%purpose, key = %new, "a new key makes everything new from now on");
    Ok(())
}

async fn rewrap(app: &Arc<App>, rows: &[Kek], purpose: KekPurpose, old: KekId, new: KekId) -> Result<(), KekError> {
    // This daemon may not have looked since the keys changed places.
    let adopted = app.hsm.adopted();
    if !(adopted.contains(&(new, KekState::Active)) && adopted.contains(&(old, KekState::Retiring))) {
        return Ok(());
    }
    let round = match purpose {
        KekPurpose::Seal | KekPurpose::Mac => signing_keys(app, purpose, old).await?,
        KekPurpose::Data => data(app, old).await?,
        // What they have signed stays as it is.
        KekPurpose::Jwt | KekPurpose::Audit => Some((0, None)),
    };
    // Not finished: somebody else goes on.
    let Some((stuck, note)) = round else { return Ok(()) };
    if purpose == KekPurpose::Mac {
        canaries(app, rows, old).await?;
    }
    let mut conn = app.db.acquire().await?;
    store::note_stuck(&mut conn, old, stuck, note.as_deref()).await?;
    let lives = store::lives(&mut conn).await?;
    drop(conn);
    let Some(life) = lives.iter().find(|life| life.id == old) else { return Ok(()) };
    let grace = time::Duration::seconds(i64::from(app.config.keks.grace_s));
    let mut tx = app.db.begin().await?;
    db::lock_install(&mut tx).await?;
    let daemons = store::live(&mut tx).await?;
    if rules::may_retire(purpose, new, &daemons, life.retiring_at, grace, life.now)
        && store::end(&mut tx, old, store::End::Retire).await?
    {
        audit::record(&mut tx, event("kek.retire", old, purpose)).await?;
        tx.commit().await?;
        tracing::info!(%purpose, key = %old, "nothing needs the old key any more");
    }
    Ok(())
}

/// The rows that did not open, and what to say of the first of them.
type Stuck = (i64, Option<String>);

fn count(outcomes: Vec<Outcome>, stuck: &mut Stuck) -> Result<(), KekError> {
    for outcome in outcomes {
        match outcome {
            Outcome::Done => {}
            Outcome::Stuck(note) => {
                tracing::error!("a row does not open under the key that it names: {note}");
                stuck.0 += 1;
                stuck.1.get_or_insert(note);
            }
            Outcome::Later(error) => return Err(error),
        }
    }
    Ok(())
}

/// Each row is proven in the HSM without any lock, and then put in the place of exactly what was read. `None`: the work went to another
/// daemon before the end.
async fn signing_keys(app: &Arc<App>, purpose: KekPurpose, old: KekId) -> Result<Option<Stuck>, KekError> {
    let (mut after, mut stuck) = (KeyId(uuid::Uuid::nil()), (0, None));
    while go_on(app).await? {
        let mut conn = app.db.acquire().await?;
        let batch = keys::store::held_by(&mut conn, purpose, old, after, BATCH).await?;
        drop(conn);
        let Some((last, _)) = batch.last() else { return Ok(Some(stuck)) };
        after = *last;
        let work = futures::stream::iter(batch).map(|(id, key)| async move {
            let Ok(key) = key else { return unreadable(format!("signing key {id}")) };
            let context = key.context();
            let fresh = match app.hsm.rewrap(&context, &key.key_ref, &key.public_key).await {
                Ok(fresh) => fresh,
                Err(error) => return failed(format!("signing key {}", key.id), error),
            };
            replaced(async {
                keys::store::replace_reference(&mut *app.db.acquire().await?, key.id, &key.key_ref, &fresh).await
            })
            .await
        });
        count(work.buffer_unordered(AT_ONCE).collect().await, &mut stuck)?;
    }
    Ok(None)
}

async fn data(app: &Arc<App>, old: KekId) -> Result<Option<Stuck>, KekError> {
    let mut stuck = (0, None);
    for table in sealed::TABLES {
        if !table_of(app, table, old, &mut stuck).await? {
            return Ok(None);
        }
    }
    Ok(if secret_versions(app, old, &mut stuck).await? { Some(stuck) } else { None })
}

/// Whether it came to its end.
async fn table_of(app: &Arc<App>, table: &SealedTable, old: KekId, stuck: &mut Stuck) -> Result<bool, KekError> {
    let mut after = String::new();
    while go_on(app).await? {
        let batch = table.sealed_by(&mut *app.db.acquire().await?, old, &after, BATCH).await?;
        let Some((last, _)) = batch.last() else { return Ok(true) };
        after.clone_from(last);
        let work = futures::stream::iter(batch).map(|(key, row)| async move {
            let Ok(row) = row else { return unreadable(format!("{key} of {}", table.table)) };
            let fresh = match app.hsm.reseal(&row.aad, &row.dek).await {
                Ok(fresh) => fresh,
                Err(error) => return failed(format!("{} of {}", row.key, table.table), error),
            };
            replaced(async { table.replace(&mut *app.db.acquire().await?, &row, &fresh).await }).await
        });
        count(work.buffer_unordered(AT_ONCE).collect().await, stuck)?;
    }
    Ok(false)
}

/// Whether it came to its end.
async fn secret_versions(app: &Arc<App>, old: KekId, stuck: &mut Stuck) -> Result<bool, KekError> {
    let mut after = (SecretId(uuid::Uuid::nil()), 0);
    while go_on(app).await? {
        let mut conn = app.db.acquire().await?;
        let batch = secrets::store::sealed_by(&mut conn, old, after, BATCH).await?;
        drop(conn);
        let Some((last, _)) = batch.last() else { return Ok(true) };
        after = *last;
        let work = futures::stream::iter(batch).map(|(place, version)| async move {
            let what = format!("version {} of secret {}", place.1, place.0);
            let Ok(version) = version else { return unreadable(what) };
            let fresh = match app.hsm.reseal(&version.aad, &version.dek).await {
                Ok(fresh) => fresh,
                Err(error) => return failed(what, error),
            };
            replaced(async {
                secrets::store::replace_dek(&mut *app.db.acquire().await?, place, &version.dek, &fresh).await
            })
            .await
        });
        count(work.buffer_unordered(AT_ONCE).collect().await, stuck)?;
    }
    Ok(false)
}

/// Whether this daemon still has the work, asked before each batch.
async fn go_on(app: &App) -> Result<bool, KekError> {
    Ok(!app.stopping.is_cancelled() && store::take_lease(&app.db, app.daemon_id).await?)
}

fn unreadable(what: String) -> Outcome {
    Outcome::Stuck(format!("{what}: its row cannot be read"))
}

fn failed(what: String, error: HsmError) -> Outcome {
    match error {
        HsmError::Integrity { .. } | HsmError::NotFound => Outcome::Stuck(format!("{what}: {error}")),
        error => Outcome::Later(error.into()),
    }
}

async fn replaced(update: impl Future<Output = Result<bool, DbError>>) -> Outcome {
    match update.await {
        Ok(_) => Outcome::Done,
        // A transaction that signs with the key holds its row: the next round takes it.
        Err(DbError::Busy(error)) => {
            tracing::debug!(%error, "a row is in use; it is taken in the next round");
            Outcome::Done
        }
        Err(error) => Outcome::Later(error.into()),
    }
}

/// The canaries of `seal` keys are bound by a `mac` key like any blob.
async fn canaries(app: &App, rows: &[Kek], old: KekId) -> Result<(), KekError> {
    let names_old = |kek: &&Kek| {
        kek.purpose == KekPurpose::Seal
            && kek.canary.pointer("/seal/key/mac_kek_id").and_then(|id| id.as_str()) == Some(old.to_string().as_str())
            && matches!(kek.state, KekState::Adding | KekState::Active | KekState::Retiring)
    };
    for seal in rows.iter().filter(names_old) {
        let canary = app.hsm.rebind_canary(seal).await?;
        store::replace_canary(&mut *app.db.acquire().await?, seal.id, &seal.canary, &canary).await?;
    }
    Ok(())
}
