//! The task that moves a vault's values from one customer's key to another.

use std::sync::Arc;
use std::time::Duration;

use super::rules::ClientKey;
use super::store::{self, Loaded, Moved, Rotation, ToMove};
use crate::access::SecretPath;
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::hsm::HsmError;
use crate::ids::SecretId;
use crate::vaults;
use crate::vaults::secrets::associated_data;

/// Values of one transaction.
const BATCH: i64 = 100;
/// Bytes of sealed bodies that are in memory at once, unless one value alone is larger.
const BATCH_BYTES: i64 = 16 * 1024 * 1024;
/// How often the whole vault is gone through: values that are stored meanwhile still come under the old key.
const PASSES: usize = 100;
/// How often a batch is tried again when the database or the HSM does not answer, and after what time first.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Why a rotation fails. The text is for whoever asks after it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the daemon was stopped: ask for it again with the same keys, and it goes on")]
    Stopped,
    #[error("the vault was deleted")]
    Deleted,
    #[error(
        "{count} value(s) are not encrypted under the old key nor the new one, the first of them {path} version {version}: \
         disable those versions, then ask for it again with the same keys"
    )]
    Unopened { count: usize, path: String, version: i32 },
    #[error(
        "values are stored under the old key faster than they are moved: let the clients use the new one, then ask for it again"
    )]
    Outrun,
    #[error("a value is too large to be encrypted")]
    TooLarge,
    /// Somebody else has written it down as over.
    #[error("it was given up")]
    Over,
    #[error("the database could not do its part: ask for it again with the same keys, and it goes on")]
    Db(#[from] DbError),
    #[error("the HSM could not do its part: ask for it again with the same keys, and it goes on")]
    Hsm(#[from] HsmError),
}

impl Failure {
    /// Whether trying again may help.
    fn passes(&self) -> bool {
        match self {
            Self::Db(error) => !matches!(error, DbError::Internal(_)),
            Self::Hsm(error) => error.retry_after_s().is_some(),
            _ => false,
        }
    }
}

/// The audit row of a rotation's end.
pub(super) fn ended(rotation: &Rotation) -> Event {
    let action = if rotation.error.is_none() { "cmek.rotate_completed" } else { "cmek.rotate_failed" };
    let event = Event::by_system(rotation.org_id, action, Resource::new("vault", rotation.vault_id))
        .with("rotation_id", rotation.id.to_string())
        .with("values", rotation.processed);
    match &rotation.error {
        Some(error) => event.with("error", error.as_str()),
        None => event.with("new_fingerprint", rotation.new_fingerprint.as_str()),
    }
}

/// Runs a rotation to its end, whatever that is. The keys are dropped, and so wiped, with the task.
pub(super) fn spawn(app: &Arc<App>, rotation: Rotation, old: ClientKey, new: ClientKey) {
    let run = Run { app: Arc::clone(app), rotation, old, new };
    app.tasks.spawn(async move {
        let outcome = tokio::select! {
            () = run.app.stopping.cancelled() => Err(Failure::Stopped),
            outcome = run.all() => outcome,
        };
        let Err(failure) = outcome else { return };
        tracing::warn!(rotation = %run.rotation.id, error = %crate::http::problem::chain(&failure), "a CMEK rotation failed");
        if let Err(error) = run.fail(&failure).await {
            tracing::warn!(rotation = %run.rotation.id, %error, "its failure was not written down: its lease will tell");
        }
    });
}

struct Run {
    app: Arc<App>,
    rotation: Rotation,
    old: ClientKey,
    new: ClientKey,
}

/// How a look at what is left ends.
enum End {
    /// Nothing is under the old key, and nothing will be.
    Completed,
    /// Values came under the old key meanwhile.
    MoreCame,
    /// What is left is what neither key opens.
    Unopened,
}

/// Waits longer each time.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    /// # Errors
    /// The failure itself, when waiting does not help, or does not help any more.
    async fn wait(&mut self, failure: Failure) -> Result<(), Failure> {
        if !failure.passes() || self.0 == TRIES {
            return Err(failure);
        }
        tracing::debug!(error = %crate::http::problem::chain(&failure), "a part of a CMEK rotation is tried again");
        tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(self.0)).await;
        self.0 += 1;
        Ok(())
    }
}

impl Run {
    async fn all(&self) -> Result<(), Failure> {
        for _ in 0..PASSES {
            let (mut after, mut count, mut first) = (None, 0, None);
            loop {
                let batch = self.patient_batch(after).await?;
                count += batch.unopened.len();
                first = first.or_else(|| batch.unopened.into_iter().next());
                match batch.last {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
            match self.patient_end(count).await? {
                End::Completed => return Ok(()),
                End::MoreCame => {}
                End::Unopened => {
                    let (path, version) = first.unwrap_or_default();
                    return Err(Failure::Unopened { count, path, version });
                }
            }
        }
        Err(Failure::Outrun)
    }

    /// A batch, again and again while what it needs does not answer.
    async fn patient_batch(&self, after: Option<(SecretId, i32)>) -> Result<Batch, Failure> {
        let mut patience = Patience::default();
        loop {
            match self.next_batch(after).await {
                Err(failure) => patience.wait(failure).await?,
                done => return done,
            }
        }
    }

    async fn patient_end(&self, unopened: usize) -> Result<End, Failure> {
        let mut patience = Patience::default();
        loop {
            match self.complete(unopened).await {
                Err(failure) => patience.wait(failure).await?,
                done => return done,
            }
        }
    }

    /// Moves the next values: read, encrypted again and sealed without a lock, then exchanged in one transaction, each only if it is
    /// what was read.
    async fn next_batch(&self, after: Option<(SecretId, i32)>) -> Result<Batch, Failure> {
        let Rotation { vault_id, old_fingerprint, .. } = &self.rotation;
        let mut conn = self.app.db.acquire().await.map_err(DbError::from)?;
        let found = store::batch(&mut conn, *vault_id, old_fingerprint, after, BATCH).await?;
        drop(conn);
        let mut done = Batch::default();
        let mut moved = Vec::new();
        let mut bytes = 0;
        for one in found {
            bytes += one.bytes;
            if bytes > BATCH_BYTES && done.last.is_some() {
                break;
            }
            done.last = Some((one.secret_id, one.version));
            match self.prepare(one).await? {
                Some(Ok(ready)) => moved.push(ready),
                Some(Err(place)) => done.unopened.push(place),
                None => {}
            }
        }
        let mut tx = self.app.db.begin().await.map_err(DbError::from)?;
        let mut count: i64 = 0;
        for one in &moved {
            count += i64::from(store::apply(&mut tx, &self.rotation, one).await?);
        }
        // After the values: their rows are held for less time than this one, which whoever asks after the rotation reads.
        if !store::renew(&mut tx, self.rotation.id, count).await? {
            return Err(Failure::Over);
        }
        if count > 0 {
            let event = Event::by_system(self.rotation.org_id, "cmek.rotate_batch", Resource::new("vault", *vault_id))
                .with("rotation_id", self.rotation.id.to_string())
                .with("values", count);
            audit::record(&mut tx, event).await?;
        }
        tx.commit().await.map_err(DbError::from)?;
        Ok(done)
    }

    /// A value under the new key; or, if neither key opens it, where it is. `None`: there is nothing to do any more.
    async fn prepare(&self, one: ToMove) -> Result<Option<Result<Moved, (String, i32)>>, Failure> {
        let Rotation { org_id, vault_id, old_fingerprint, .. } = &self.rotation;
        let mut conn = self.app.db.acquire().await.map_err(DbError::from)?;
        let Some(was) = store::load(&mut conn, *vault_id, old_fingerprint, one).await? else { return Ok(None) };
        drop(conn);
        let place = |was: Loaded| Some(Err((was.path, was.version)));
        let Ok(path) = SecretPath::parse(&was.path) else { return Ok(place(was)) };
        let aad = associated_data(*org_id, *vault_id, &path, was.version, &was.kind);
        let sealed = match self.app.hsm.open(&aad, &was.envelope).await {
            Ok(bytes) => bytes,
            Err(HsmError::Integrity { .. }) => return Ok(place(was)),
            Err(error) => return Err(error.into()),
        };
        let Ok(value) = std::str::from_utf8(&sealed) else { return Ok(place(was)) };
        let Some(plaintext) = self.old.open(value) else {
            // A client that has the new key already uses it.
            let here = self.new.open(value).is_some();
            return Ok(if here { Some(Ok(Moved { was, envelope: None })) } else { place(was) });
        };
        let iv = self.app.hsm.random::<12>().await?;
        let value = self.new.seal(*iv, &plaintext).ok_or(Failure::TooLarge)?;
        let envelope = self.app.hsm.seal(&aad, value.as_bytes()).await?;
        Ok(Some(Ok(Moved { was, envelope: Some(envelope) })))
    }

    /// Ends the rotation, if nothing is under the old key any more: with the vault held, so that nothing comes under it meanwhile. The
    /// vault's key is the new one from then on.
    async fn complete(&self, unopened: usize) -> Result<End, Failure> {
        let Rotation { id, org_id, vault_id, old_fingerprint, new_fingerprint, .. } = &self.rotation;
        let mut tx = self.app.db.begin().await.map_err(DbError::from)?;
        if vaults::store::get_for_update(&mut tx, *org_id, *vault_id).await?.is_none() {
            return Err(Failure::Deleted);
        }
        if !store::renew(&mut tx, *id, 0).await? {
            return Err(Failure::Over);
        }
        let left = store::left(&mut tx, *vault_id, old_fingerprint).await?;
        if left > 0 {
            tx.commit().await.map_err(DbError::from)?;
            let all_tried = usize::try_from(left).is_ok_and(|left| left <= unopened);
            return Ok(if all_tried { End::Unopened } else { End::MoreCame });
        }
        vaults::store::set_cmek(&mut tx, *org_id, *vault_id, Some(new_fingerprint)).await?;
        if let Some(rotation) = store::end(&mut tx, *id, None).await? {
            audit::record(&mut tx, ended(&rotation)).await?;
        }
        tx.commit().await.map_err(DbError::from)?;
        Ok(End::Completed)
    }

    async fn fail(&self, failure: &Failure) -> Result<(), DbError> {
        let mut tx = self.app.db.begin().await?;
        if let Some(rotation) = store::end(&mut tx, self.rotation.id, Some(&failure.to_string())).await? {
            audit::record(&mut tx, ended(&rotation)).await?;
        }
        Ok(tx.commit().await?)
    }
}

/// What became of some values.
#[derive(Default)]
struct Batch {
    /// The last of them; `None`: there were none.
    last: Option<(SecretId, i32)>,
    /// Where those are that neither key opens.
    unopened: Vec<(String, i32)>,
}
