//! Where checkpoints are told outside of the database: a file, or else the log. What a file outside has is what shows that a chain was cut or
//! written anew, by whoever: in the database everything can be changed by whoever has its password.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};

use super::lines::Line;
use super::offline::read_checkpoints;
use super::rules::{Checkpoint, Trail};
use crate::app::App;

/// How long the file may take for one line. A file system that hangs must not keep the daemon from signing for ever without a word.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where checkpoints are told.
pub struct Sink {
    file: Option<PathBuf>,
    /// One line at a time: its holder may still be writing after its time was over.
    turn: Arc<Mutex<()>>,
    /// The last of each trail in the file, as it was at the start. Their signatures have not been looked at.
    newest: HashMap<Trail, Checkpoint>,
}

impl Sink {
    /// Looks whether the configured file can be read and written; what is in it stays.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn open(path: Option<&PathBuf>) -> io::Result<Self> {
        let Some(path) = path.cloned() else {
            return Ok(Self { file: None, turn: Arc::default(), newest: HashMap::new() });
        };
        let read = tokio::task::spawn_blocking(move || {
            append(&path, "")?;
            Ok::<_, io::Error>((newest(&path)?, path))
        });
        let (newest, path) = read.await.map_err(io::Error::other)??;
        Ok(Self { file: Some(path), turn: Arc::default(), newest })
    }

    /// The last checkpoint of a trail that this file had at the start.
    #[must_use]
    pub fn newest(&self, trail: Trail) -> Option<&Checkpoint> {
        self.newest.get(&trail)
    }

    /// Returns when the line is on the disk, or in the log.
    pub(super) async fn tell(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        let line = Line::Checkpoint(checkpoint.into()).text()?;
        let Some(path) = self.file.clone() else {
            tracing::info!(checkpoint = line.trim_end(), "an audit chain was signed");
            return Ok(());
        };
        let written = async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let (done, told) = oneshot::channel();
            // A thread of its own: one that hangs keeps neither the others' pool nor the daemon's end.
            std::thread::Builder::new().name("audit-checkpoint".to_owned()).spawn(move || {
                let _turn = turn;
                let _ = done.send(append(&path, &line));
            })?;
            told.await.map_err(io::Error::other)?
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the file did not take the line in time");
        tokio::time::timeout(PATIENCE, written).await.map_err(late)?
    }
}

/// One line more, on the disk. The file is opened for each: one that was moved away is begun anew. A line that somebody left unfinished is
/// ended first, so that it takes no other along. Lines of several daemons are whole: each is one write to the end.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o640).open(path)?;
    // Of pipes and devices only the writing can be asked for.
    let is_file = file.metadata()?.is_file();
    let text = if is_file && is_torn(&mut file)? { format!("\n{line}") } else { line.to_owned() };
    file.write_all(text.as_bytes())?;
    if is_file { file.sync_data() } else { Ok(()) }
}

fn is_torn(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn newest(path: &Path) -> io::Result<HashMap<Trail, Checkpoint>> {
    let mut found: HashMap<Trail, Checkpoint> = HashMap::new();
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(found);
    }
    let strange = read_checkpoints(BufReader::new(file), |checkpoint| {
        if found.get(&checkpoint.trail).is_none_or(|known| known.seq < checkpoint.seq) {
            found.insert(checkpoint.trail, checkpoint);
        }
    })?;
    if let Some(first) = strange.first() {
        let (lines, path) = (strange.len(), path.display());
        tracing::warn!(%path, lines, first, "the file of checkpoints has lines that are none: what was being written at a crash, or by others");
    }
    Ok(found)
}

/// Says once, at the start, what is missing.
pub fn warn_about(app: &App) {
    if app.hsm.audit_key().is_none() {
        tracing::warn!(
            "the audit trail is linked and not signed: this installation has no `audit` key yet; `intentd admin hsm init` makes it"
        );
    }
    if app.config.audit.checkpoint_file.is_none() {
        tracing::warn!(
            "checkpoints of the audit trail go to this log only: set `audit.checkpoint_file`, or nothing outside of the database can be held against it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{KekId, OrgId};
    use uuid::Uuid;

    fn checkpoint(org: u128, seq: u64) -> Checkpoint {
        Checkpoint {
            trail: Trail(Some(OrgId(Uuid::from_u128(org)))),
            seq,
            hash: [7; 32],
            created_at: time::macros::datetime!(2026-11-21 12:00 UTC),
            key_id: KekId(Uuid::max()),
            signature: [9; 64],
        }
    }

    #[tokio::test]
    async fn a_torn_line_a_moved_file_and_an_earlier_run_cost_no_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints.jsonl");
        let whole = Line::Checkpoint((&checkpoint(1, 5)).into()).text().unwrap();
        std::fs::write(&path, format!("{whole}{}", &whole[..40])).unwrap();
        let sink = Sink::open(Some(&path)).await.unwrap();
        assert_eq!(sink.newest(checkpoint(1, 0).trail), Some(&checkpoint(1, 5)));
        // Torn again while the daemon runs, as by a full disk.
        sink.tell(&checkpoint(1, 6)).await.unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"type\"").unwrap();
        sink.tell(&checkpoint(2, 1)).await.unwrap();
        let read = |path: &Path| {
            let mut found = Vec::new();
            let strange =
                read_checkpoints(BufReader::new(File::open(path).unwrap()), |checkpoint| found.push(checkpoint));
            (found, strange.unwrap())
        };
        assert_eq!(read(&path), (vec![checkpoint(1, 5), checkpoint(1, 6), checkpoint(2, 1)], vec![2, 4]));
        let moved = folder.path().join("checkpoints.1");
        std::fs::rename(&path, &moved).unwrap();
        sink.tell(&checkpoint(2, 2)).await.unwrap();
        assert_eq!(read(&path), (vec![checkpoint(2, 2)], vec![]));
        assert_eq!(Sink::open(Some(&moved)).await.unwrap().newest(checkpoint(1, 0).trail), Some(&checkpoint(1, 6)));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(sink.tell(&checkpoint(2, 3)).await.is_err() && Sink::open(Some(&path)).await.is_err());
    }
}
