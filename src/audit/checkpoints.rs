//! Checkpoints: the ends of chains, signed in the HSM by a key that signs nothing else, stored, and told to a place outside of the
//! database: a file, or else the log. What a file outside has is what shows that a chain was cut or written anew.

use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;

use super::lines::Line;
use super::rules::Checkpoint;
use super::store::links;
use crate::app::App;
use crate::clock;
use crate::db::DbError;
use crate::hsm::HsmError;

/// Chains that are signed in one go.
const AT_ONCE: i64 = 64;

/// Where checkpoints are told.
pub struct Sink {
    file: Option<(PathBuf, Mutex<File>)>,
}

impl Sink {
    /// Opens the configured file, at its end; what is in it stays.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn open(path: Option<&PathBuf>) -> std::io::Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None }) };
        let file = tokio::fs::OpenOptions::new().create(true).append(true).mode(0o640).open(path).await?;
        Ok(Self { file: Some((path.clone(), Mutex::new(file))) })
    }

    /// Whole lines, also when several daemons have the file open: each is one write to its end.
    async fn tell(&self, checkpoint: &Checkpoint) {
        let line = Line::Checkpoint(checkpoint.into()).text();
        let Some((path, file)) = &self.file else {
            tracing::info!(checkpoint = line.trim_end(), "an audit chain was signed");
            return;
        };
        let mut file = file.lock().await;
        let written = async {
            file.write_all(line.as_bytes()).await?;
            file.flush().await?;
            file.sync_data().await
        };
        if let Err(error) = written.await {
            let (checkpoint, path) = (line.trim_end(), path.display());
            tracing::error!(%error, checkpoint, %path, "a checkpoint of the audit trail could not be written to its file: keep this line");
        }
    }
}

/// Why a chain was not signed.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Hsm(#[from] HsmError),
}

/// Signs the chains that are due. Nothing is held meanwhile; what is not signed now is due again in a second.
pub(super) async fn sign_due(app: &App, sink: &Sink) {
    match sign(app, sink).await {
        Ok(()) => {}
        Err(error) => tracing::warn!(%error, "audit chains could not be signed; they are signed later"),
    }
}

async fn sign(app: &App, sink: &Sink) -> Result<(), SignError> {
    let Some(key_id) = app.hsm.audit_key() else {
        tracing::debug!("there is no `audit` key yet: `intentd admin hsm init` makes it");
        return Ok(());
    };
    let config = &app.config.audit;
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let due = links::due(&mut conn, config.checkpoint_links, config.checkpoint_s, AT_ONCE).await?;
    drop(conn);
    for (trail, seq, hash) in due {
        let mut checkpoint = Checkpoint { trail, seq, hash, created_at: clock::now(), key_id, signature: [0; 64] };
        checkpoint.signature = app.hsm.sign_checkpoint(key_id, &checkpoint.message()).await?;
        let mut conn = app.db.acquire().await.map_err(DbError::from)?;
        // Told only when it is committed: what a file outside knows of must be in the database.
        if links::store_checkpoint(&mut conn, &checkpoint).await? {
            sink.tell(&checkpoint).await;
        }
    }
    Ok(())
}

/// Says once, at the start, what is missing.
pub fn warn_about(app: &App) {
    if app.hsm.audit_key().is_none() {
        tracing::warn!(
            "the audit trail is linked and not signed: this installation has no `audit` key yet; `intentd admin hsm init` makes it"
        );
    }
    if app.config.audit.checkpoint_file.is_none() {
        tracing::info!(
            "checkpoints of the audit trail go to this log: set `audit.checkpoint_file` for a file of their own"
        );
    }
}
