//! The background task that has the ends of chains signed. Nothing is signed that this daemon has not walked itself: from the last place
//! that it knows to be good, event by event, to the end. So whoever can write to the database, and puts there a chain that they have
//! computed anew, gets no signature for it from a daemon that has seen or signed the one before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::checkpoints::Sink;
use super::hash::Hash;
use super::rules::{Break, Checkpoint, Trail};
use super::store::{links, trail as store};
use super::verify::{self, Cursor};
use crate::app::App;
use crate::clock;
use crate::db::DbError;
use crate::hsm::HsmError;
use crate::ids::KekId;
use crate::telemetry::record;

/// How often chains are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Chains that are looked at in one go.
const AT_ONCE: i64 = 64;
/// What does not change is said again after this.
const AGAIN: Duration = Duration::from_secs(600);

/// What a daemon keeps in mind. A place of some hundred bytes for each trail that has grown since it started.
struct Signer {
    sink: Sink,
    /// How far each chain was walked, and what its link there was.
    places: HashMap<Trail, (u64, Hash)>,
    /// Whom nothing is signed for, and when that was said.
    refused: HashMap<Trail, Instant>,
    /// Whose turn was last. It begins anywhere, so that several daemons do not do the same.
    last: Uuid,
    said_no_key: Option<Instant>,
}

/// Why a chain was not signed.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error("{}", .0.detail)]
    Broken(Break),
    #[error("the checkpoint could not be written to its file, and is made anew")]
    Told(#[source] std::io::Error),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Hsm(#[from] HsmError),
}

/// Signs until the daemon stops.
pub async fn keep_signing(app: Arc<App>, sink: Sink) {
    let mut signer =
        Signer { sink, places: HashMap::new(), refused: HashMap::new(), last: Uuid::new_v4(), said_no_key: None };
    let mut pause = TICK;
    loop {
        tokio::select! {
            biased;
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = match signer.round(&app).await {
            Ok(true) => Duration::ZERO,
            Ok(false) => TICK,
            // Whose turn it was has had it: the others are next.
            Err(error) => {
                tracing::warn!(
                    error = crate::http::problem::chain(&error),
                    "an audit chain could not be signed; it is signed later"
                );
                TICK
            }
        };
    }
}

impl Signer {
    /// Signs chains that are due, those behind the last one first. Whether there is more to do at once.
    async fn round(&mut self, app: &App) -> Result<bool, SignError> {
        let Some(key_id) = app.hsm.audit_key() else {
            self.no_key(app).await?;
            return Ok(false);
        };
        let config = &app.config.audit;
        let mut conn = app.db.acquire().await.map_err(DbError::from)?;
        let after = (config.checkpoint_links, config.checkpoint_s);
        let due = links::due(&mut conn, after, key_id, self.last, AT_ONCE).await?;
        drop(conn);
        let mut more = false;
        for trail in due {
            if app.stopping.is_cancelled() {
                return Ok(false);
            }
            self.last = trail.uuid();
            match self.sign(app, trail, key_id).await {
                Ok(unfinished) => {
                    self.refused.remove(&trail);
                    more |= unfinished;
                }
                Err(SignError::Broken(broken)) => self.refuse(trail, &broken),
                Err(error) => return Err(error),
            }
        }
        Ok(more)
    }

    /// Walks a piece of a chain, and at its end has it signed. Whether the end is still ahead.
    async fn sign(&mut self, app: &App, trail: Trail, key_id: KekId) -> Result<bool, SignError> {
        let keys = app.hsm.audit_public_keys();
        let place = match self.places.get(&trail) {
            Some(place) => *place,
            None => self.first_place(app, trail, &keys).await?,
        };
        let mut conn = app.db.acquire().await.map_err(DbError::from)?;
        let walked = verify::verify_links(&mut conn, trail, place, &keys).await?;
        drop(conn);
        if let Some(broken) = walked.broken {
            return Err(SignError::Broken(broken));
        }
        let (seq, hash) = (walked.to, walked.last);
        self.places.insert(trail, (seq, hash));
        if !matches!(walked.next, Some(Cursor::Events(_))) {
            return Ok(true);
        }
        let mut checkpoint = Checkpoint { trail, seq, hash, created_at: clock::now(), key_id, signature: [0; 64] };
        checkpoint.signature = app.hsm.sign_checkpoint(key_id, &checkpoint.message()).await?;
        // Outside first: what the database knows of is then outside too, whenever this daemon dies. What cannot be told stays due.
        self.sink.tell(&checkpoint).await.map_err(SignError::Told)?;
        let mut conn = app.db.acquire().await.map_err(DbError::from)?;
        links::store_checkpoint(&mut conn, &checkpoint).await?;
        Ok(false)
    }

    /// Where to begin with a chain that was not walked since the start: at what the file outside says of it, else at the newest checkpoint
    /// in the database, else at its beginning.
    async fn first_place(&self, app: &App, trail: Trail, keys: &[(KekId, [u8; 32])]) -> Result<(u64, Hash), SignError> {
        let noted = self.sink.newest(trail);
        let is_good = |c: &&Checkpoint| keys.iter().any(|(id, key)| *id == c.key_id && c.is_signed_by(key));
        if let Some(checkpoint) = noted.filter(is_good) {
            return Ok((checkpoint.seq, checkpoint.hash));
        }
        match verify::begin_at(&app.db, trail, u64::MAX, keys).await? {
            Some(Err(broken)) => Err(SignError::Broken(broken)),
            Some(Ok(Cursor::Links(seq, hash))) => Ok((seq, hash)),
            Some(Ok(Cursor::Events(_))) | None => Ok((0, [0; 32])),
        }
    }

    /// Loud, and not every second.
    fn refuse(&mut self, trail: Trail, broken: &Break) {
        if self.refused.get(&trail).is_some_and(|said| said.elapsed() < AGAIN) {
            return;
        }
        self.refused.insert(trail, Instant::now());
        record::audit_not_signed();
        let (kind, detail) = (broken.kind.as_str(), &broken.detail);
        tracing::error!(
            %trail, kind, detail, event = ?broken.event_id,
            "AUDIT CHAIN NOT SIGNED: it is not whole, or does not go on from what this daemon has seen or signed. Somebody may have changed \
             the database: compare it with an export of before. If it was restored from a backup, move audit.checkpoint_file away and start \
             the daemon anew"
        );
    }

    /// There was a key and none is active: not how an installation should stay.
    async fn no_key(&mut self, app: &App) -> Result<(), SignError> {
        if self.said_no_key.is_some_and(|said| said.elapsed() < AGAIN) {
            return Ok(());
        }
        let mut conn = app.db.acquire().await.map_err(DbError::from)?;
        if !store::keys(&mut conn).await?.is_empty() {
            record::audit_not_signed();
            tracing::error!(
                "the audit trail is not signed any more: there was an `audit` key, and none is active; see `intentd admin hsm keks`"
            );
        }
        self.said_no_key = Some(Instant::now());
        Ok(())
    }
}
