//! The state folder: mode 0700, one stack at a time, everything in it made by us.
//!
//! ```text
//! DIR/lock            held while a stack runs; its presence says that the folder is ours
//! DIR/env             what scripts and people source
//! DIR/demo.json       the demo organisation and its credentials
//! DIR/postgres        the cluster (or DIR/postgres.path, which names the folder that holds it)
//! DIR/token/          the SoftHSM2 token, its configuration and its PIN
//! DIR/chains/         chains.toml, and one state file per local chain
//! DIR/children        PIDs of the running children, for whoever has to clear up after a SIGKILL
//! DIR/mail/           letters that the daemon would send, such as to whoever signs up
//! DIR/logs/           one log per child
//! ```

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{DevError, postgres, user};

const LOCK: &str = "lock";
/// Where the cluster's folder is when it is not in the state folder.
const POSTGRES_ELSEWHERE: &str = "postgres.path";
/// The audit trail's checkpoints, outside of the database as they would be elsewhere.
pub const CHECKPOINTS: &str = "checkpoints.jsonl";
/// Everything that a reset removes.
const CONTENTS: &[&str] = &[
    "env",
    "demo.json",
    "postgres",
    POSTGRES_ELSEWHERE,
    "token",
    "chains",
    "children",
    "logs",
    "ready",
    "password",
    "mail",
    CHECKPOINTS,
];

/// An opened state folder. Nobody else can open it until this is dropped.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Opens or makes the folder and takes its lock; with `reset`, removes what an earlier stack left in it.
    ///
    /// # Errors
    /// When another stack runs on it, or when it holds things that are not ours.
    pub fn open(path: &Path, reset: bool) -> Result<Self, DevError> {
        let lock_path = path.join(LOCK);
        let foreign = path.exists() && !lock_path.exists() && !is_empty(path)?;
        if foreign {
            let why = "holds files that are not a dev stack's; choose another with --state".to_owned();
            return Err(DevError::State { path: path.to_owned(), why });
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(DevError::file("create", path))?;
        std::fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(DevError::file("set the mode of", path))?;
        let root = std::path::absolute(path).map_err(DevError::file("find", path))?;
        let lock = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(DevError::file("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = std::fs::read_to_string(&lock_path).unwrap_or_default();
                let why = format!(
                    "is in use by a running `intentd dev` (process {}): stop that one, or choose another folder with --state",
                    pid.trim()
                );
                return Err(DevError::State { path: root, why });
            }
            Err(TryLockError::Error(error)) => return Err(DevError::file("lock", lock_path)(error)),
        }
        let state = Self { root, _lock: lock };
        // Whoever finds the folder locked reads from here who has it.
        state.write_in_place(LOCK, &std::process::id().to_string())?;
        if reset {
            state.clear()?;
        }
        for folder in ["logs", "token", "chains"] {
            let folder = state.path(folder);
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(DevError::file("create", &folder))?;
        }
        Ok(state)
    }

    /// The folder itself, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path inside.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// The log of a child.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// Writes a file of mode 0600, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: impl AsRef<Path>, text: &str) -> Result<PathBuf, DevError> {
        let path = self.path(name);
        let new = path.with_extension("new");
        write_private(&new, text)?;
        std::fs::rename(&new, &path).map_err(DevError::file("write", &path))?;
        Ok(path)
    }

    fn write_in_place(&self, name: &str, text: &str) -> Result<(), DevError> {
        write_private(&self.path(name), text)
    }

    /// The text of a file, if there is one.
    pub fn read(&self, name: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.path(name)).ok()
    }

    /// Removes a file, if there is one.
    pub fn remove(&self, name: impl AsRef<Path>) {
        let _ = std::fs::remove_file(self.path(name));
    }

    /// Where the cluster's folder is, made where `owner` can reach it. A folder that `owner` cannot pass through (this one,
    /// when we are root: it is 0700) gets its cluster in a named folder elsewhere, which is said and written down.
    ///
    /// # Errors
    /// When no place can be found.
    pub fn cluster_folder(&self, owner: Option<&user::User>) -> Result<PathBuf, DevError> {
        let Some(owner) = owner else {
            let folder = self.path("postgres");
            if !folder.exists() {
                user::make_private_folder(&folder, None)?;
            }
            return Ok(folder);
        };
        let known = self.read(POSTGRES_ELSEWHERE).map(|text| PathBuf::from(text.trim()));
        if let Some(folder) = known.filter(|folder| folder.is_dir()) {
            return Ok(folder);
        }
        let digest = hex::encode(Sha256::digest(self.root.as_os_str().as_encoded_bytes()));
        let name = format!("intentd-dev-{}", &digest[..12]);
        let bases = ["/var/lib", "/var/tmp", "/tmp"].map(Path::new);
        let usable = |base: &&Path| base.is_dir() && user::first_obstacle(base, owner).is_none();
        for base in bases.into_iter().filter(usable) {
            let folder = base.join(&name);
            // Left by a state folder of the same path that was removed by hand: nobody can reach it any more.
            remove_folder(&folder)?;
            if user::make_private_folder(&folder, Some(owner)).is_ok() {
                self.write(POSTGRES_ELSEWHERE, &folder.display().to_string())?;
                eprintln!(
                    "Postgres runs as `{}`, who cannot enter {}: its data is in {} (--reset removes it)",
                    owner.name,
                    self.root.display(),
                    folder.display()
                );
                return Ok(folder);
            }
        }
        let why = format!(
            "cannot be entered by `{}`, who runs Postgres, and neither /var/lib, /var/tmp nor /tmp took its data",
            owner.name
        );
        Err(DevError::State { path: self.root.clone(), why })
    }

    fn clear(&self) -> Result<(), DevError> {
        super::journal::stop_leftovers(self);
        if let Some(elsewhere) = self.read(POSTGRES_ELSEWHERE).map(|text| PathBuf::from(text.trim())) {
            // Only a folder that is named as ours and holds a cluster.
            let ours = elsewhere.file_name().is_some_and(|name| name.to_string_lossy().starts_with("intentd-dev-"));
            if ours && (postgres::is_cluster(&elsewhere.join("data")) || is_empty(&elsewhere).unwrap_or(false)) {
                remove_folder(&elsewhere)?;
            }
        }
        for name in CONTENTS {
            let path = self.path(name);
            if path.is_dir() {
                remove_folder(&path)?;
            } else {
                self.remove(name);
            }
        }
        Ok(())
    }
}

fn is_empty(path: &Path) -> Result<bool, DevError> {
    Ok(std::fs::read_dir(path).map_err(DevError::file("read", path))?.next().is_none())
}

fn remove_folder(path: &Path) -> Result<(), DevError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DevError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Writes a file that only we can read.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<(), DevError> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    };
    write().map_err(DevError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_serves_one_stack_at_a_time_and_only_its_owner() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("state");
        let state = StateDir::open(&path, false).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700);
        let refused = StateDir::open(&path, false).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(state);
        StateDir::open(&path, false).unwrap();
    }

    #[test]
    fn a_folder_with_other_peoples_files_is_left_alone() {
        let outer = tempfile::tempdir().unwrap();
        let thesis = outer.path().join("thesis.txt");
        std::fs::write(&thesis, "words").unwrap();
        assert!(StateDir::open(outer.path(), true).is_err());
        assert!(thesis.exists());
    }

    #[test]
    fn a_reset_removes_what_the_stack_made_and_nothing_else() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("state");
        let state = StateDir::open(&path, false).unwrap();
        state.write("env", "secret").unwrap();
        std::fs::write(path.join("notes.txt"), "mine").unwrap();
        drop(state);
        let state = StateDir::open(&path, true).unwrap();
        assert_eq!(state.read("env"), None);
        assert!(path.join("notes.txt").exists());
    }

    #[test]
    fn threat_23_files_are_private_even_when_they_were_not() {
        let outer = tempfile::tempdir().unwrap();
        let state = StateDir::open(&outer.path().join("state"), false).unwrap();
        let path = state.path("env");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        state.write("env", "new").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
