//! A private Postgres cluster from the server binaries of this machine: its own data folder, no TCP, one socket in a folder that
//! nobody else can enter.
//!
//! There is no password: who can reach the socket may connect, and the folder's mode (0700) says who can. Also used by the tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::DevError;
use super::process::{self, Process, Signal};
use super::user::{self, User};

/// Name of the superuser and of the database.
pub const NAME: &str = "intentd";
const OLDEST_VERSION: u32 = 14;
const START_DEADLINE: Duration = Duration::from_secs(60);
/// A stop waits for the checkpoint.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// Backends notice the death of their server within moments.
const ORPHANS_GRACE: Duration = Duration::from_secs(10);

/// What a cluster is to be.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Its data folder; made if it is not there. Every folder above must be passable for `owner`.
    pub data: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// Who runs it: [`user::for_postgres`].
    pub owner: Option<User>,
    /// `name=value` over the defaults.
    pub settings: Vec<String>,
    /// Whether it is stopped when the starting thread ends (Linux).
    pub bound: bool,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: the server, then its socket's folder.
    process: Process,
    socket: SocketFolder,
}

/// A folder in /tmp, removed when dropped.
#[derive(Debug)]
struct SocketFolder(PathBuf);

impl Drop for SocketFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Cluster {
    /// Makes the cluster if it is not there, starts it, and waits until it takes connections.
    ///
    /// # Errors
    /// When Postgres is not installed, or its start fails.
    pub async fn start(options: ClusterOptions) -> Result<Self, DevError> {
        let owner = options.owner.as_ref();
        let bin = match data_version(&options.data) {
            Some(version) => binaries_of(version)?,
            None => {
                let bin = newest_binaries()?;
                init(&bin, &options.data, owner).await?;
                bin
            }
        };
        clear_up(&options.data).await;
        let socket = make_socket_folder(&options.data, owner)?;
        let server = bin.join("postgres");
        let mut command = if options.bound { process::bound_command(&server, "INT") } else { Command::new(&server) };
        run_as(&mut command, owner);
        command.arg("-D").arg(&options.data);
        let socket_setting = format!("unix_socket_directories={}", socket.0.display());
        let defaults =
            ["listen_addresses=", &*socket_setting, "synchronous_commit=on", "log_min_duration_statement=2000"];
        for setting in defaults.into_iter().map(str::to_owned).chain(options.settings) {
            command.args(["-c", &setting]);
        }
        let mut process = Process::spawn("postgres", command, &options.log)?;
        let status_file = options.data.join(LOCK_FILE);
        let pid = process.pid().to_string();
        process.until_ready(START_DEADLINE, async || is_ready(&status_file, &pid)).await?;
        let cluster = Self { process, socket };
        if options.data.join(FRESH).exists() {
            cluster.create_database(&bin).await?;
            let fresh = options.data.join(FRESH);
            std::fs::remove_file(&fresh).map_err(DevError::file("remove", fresh))?;
        }
        Ok(cluster)
    }

    /// The URL of a database on it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        url(&self.socket.0, database)
    }

    /// The server process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The server process, to look at.
    #[must_use]
    pub fn server(&self) -> &Process {
        &self.process
    }

    /// The folder of its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket.0
    }

    /// Stops it in order: connections are ended, the last checkpoint is written.
    pub async fn stop(self) {
        self.process.stop(Signal::INT, STOP_GRACE).await;
    }

    async fn create_database(&self, bin: &Path) -> Result<(), DevError> {
        let mut command = Command::new(bin.join("createdb"));
        command.arg("-h").arg(&self.socket.0).args(["-U", NAME, NAME]).current_dir("/");
        process::output("the creation of the database", command).await.map(|_| ())
    }
}

/// The URL of a database behind the socket in `socket`.
#[must_use]
pub fn url(socket: &Path, database: &str) -> String {
    let host = percent_encoding::utf8_percent_encode(&socket.to_string_lossy(), percent_encoding::NON_ALPHANUMERIC)
        .to_string();
    format!("postgres://{NAME}@{host}/{database}")
}

/// A file in the data folder of a cluster whose database is still to be created.
const FRESH: &str = "intentd.fresh";
/// A file in the data folder that names the socket's folder.
const SOCKET_NOTE: &str = "intentd.socket";
const SOCKET_FOLDER: &str = "intentd-pg-";
/// Postgres' own: the PID of the server, and its state.
const LOCK_FILE: &str = "postmaster.pid";

/// Whether a data folder holds a finished cluster.
#[must_use]
pub fn is_cluster(data: &Path) -> bool {
    data_version(data).is_some()
}

fn data_version(data: &Path) -> Option<u32> {
    std::fs::read_to_string(data.join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// initdb into a folder beside, then a rename: an interrupted one leaves no half a cluster behind.
async fn init(bin: &Path, data: &Path, owner: Option<&User>) -> Result<(), DevError> {
    let new = data.with_extension("new");
    match std::fs::remove_dir_all(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(DevError::file("remove", &new)(error));
        }
        _ => user::make_private_folder(&new, owner)?,
    }
    let mut command = Command::new(bin.join("initdb"));
    run_as(&mut command, owner);
    command.arg("-D").arg(&new).args([
        "-U",
        NAME,
        "--auth=trust",
        "--encoding=UTF8",
        "--no-locale",
        "--no-instructions",
    ]);
    process::output("initdb", command).await?;
    std::fs::write(new.join(FRESH), "").map_err(DevError::file("write", &new))?;
    std::fs::rename(&new, data).map_err(DevError::file("create", data))
}

fn run_as(command: &mut Command, owner: Option<&User>) {
    if let Some(user) = owner {
        // Root's supplementary groups are dropped with the uid. Our folder may be closed to that user, and so may our HOME be.
        command.uid(user.uid).gid(user.gid).env("HOME", "/");
    }
    command.current_dir("/");
    // Variables that would change which server or locale is meant.
    for name in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGOPTIONS", "PGPASSWORD", "PGSERVICE"] {
        command.env_remove(name);
    }
}

/// Line 1 of postmaster.pid is the PID and line 8 the state (PostgreSQL, `src/include/utils/pidfile.h`).
fn is_ready(status_file: &Path, pid: &str) -> bool {
    let text = std::fs::read_to_string(status_file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first() == Some(&pid) && lines.get(7) == Some(&"ready")
}

/// A socket folder in /tmp: short, because a socket's path has at most about 100 characters, and closed. Written down in the data
/// folder, for the start after a kill.
fn make_socket_folder(data: &Path, owner: Option<&User>) -> Result<SocketFolder, DevError> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let folder = SocketFolder(Path::new("/tmp").join(format!("{SOCKET_FOLDER}{}", &id[..10])));
    user::make_private_folder(&folder.0, owner)?;
    let note = data.join(SOCKET_NOTE);
    std::fs::write(&note, folder.0.display().to_string()).map_err(DevError::file("write", note))?;
    Ok(folder)
}

/// Clears up after a server that was killed: waits until its last backends have noticed, and removes its socket folder.
///
/// Where nobody waits for orphans (some containers have no init), the dead server stays a zombie; Postgres takes the lock file of a
/// zombie for that of a running server, so that it is removed here.
async fn clear_up(data: &Path) {
    let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap_or_default();
    let server = read(LOCK_FILE).lines().next().and_then(|line| line.trim().parse::<u32>().ok());
    if server.is_some_and(|pid| process::birth(pid).is_some()) {
        return;
    }
    let until = tokio::time::Instant::now() + ORPHANS_GRACE;
    while process::any_works_in(data) && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if server.is_some_and(process::is_zombie) && !process::any_works_in(data) {
        let _ = std::fs::remove_file(data.join(LOCK_FILE));
    }
    let folder = read(SOCKET_NOTE);
    if folder.strip_prefix("/tmp/").is_some_and(|name| name.starts_with(SOCKET_FOLDER) && !name.contains('/')) {
        let _ = std::fs::remove_dir_all(folder);
    }
}

fn newest_binaries() -> Result<PathBuf, DevError> {
    let found = installed();
    match found.iter().max_by_key(|(version, _)| *version) {
        Some((version, bin)) if *version >= OLDEST_VERSION => Ok(bin.clone()),
        Some((version, _)) => Err(missing(&format!("PostgreSQL {OLDEST_VERSION} or later (there is only {version})"))),
        None => Err(missing("the PostgreSQL server (initdb, postgres)")),
    }
}

fn binaries_of(version: u32) -> Result<PathBuf, DevError> {
    let found = installed();
    let exact = found.iter().find(|(installed, _)| *installed == version);
    exact.map(|(_, bin)| bin.clone()).ok_or_else(|| DevError::Missing {
        what: format!("PostgreSQL {version}, which made this database,"),
        mend: "install it, or start anew with --reset".to_owned(),
    })
}

fn missing(what: &str) -> DevError {
    DevError::Missing {
        what: what.to_owned(),
        mend: "`anvil/run` installs it on Debian and Ubuntu (package postgresql); with Homebrew: brew install postgresql@17"
            .to_owned(),
    }
}

/// Folders that hold `initdb` and `postgres`, with their major versions.
fn installed() -> Vec<(u32, PathBuf)> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let parents =
        [("/usr/lib/postgresql", "bin"), ("/opt/homebrew/opt", "bin"), ("/usr/local/opt", "bin"), ("/usr", "bin")];
    for (parent, bin) in parents {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        let named = entries.flatten().filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            parent.ends_with("postgresql") || name.starts_with("postgresql") || name.starts_with("pgsql-")
        });
        folders.extend(named.map(|entry| entry.path().join(bin)));
    }
    // A link in PATH stands for the folder that it leads to: initdb looks for `postgres` beside itself.
    let real =
        folders.iter().filter_map(|folder| Some(folder.join("initdb").canonicalize().ok()?.parent()?.to_owned()));
    real.filter(|bin| bin.join("postgres").exists()).filter_map(|bin| Some((version_of(&bin)?, bin))).collect()
}

fn version_of(bin: &Path) -> Option<u32> {
    let output = std::process::Command::new(bin.join("postgres")).arg("--version").output().ok()?;
    major(&String::from_utf8_lossy(&output.stdout))
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` → 15; also `17beta1`.
fn major(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL) ")?.1;
    let digits = version.bytes().take_while(u8::is_ascii_digit).count();
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgres_writes_them() {
        let cases = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("postgres (PostgreSQL) 18beta1", Some(18)),
            ("postgres (PostgreSQL) devel", None),
            ("", None),
        ];
        for (text, version) in cases {
            assert_eq!(major(text), version, "{text:?}");
        }
    }

    #[test]
    fn a_url_carries_the_socket_folder_as_its_host() {
        assert_eq!(url(Path::new("/tmp/a-b"), "x"), "postgres://intentd@%2Ftmp%2Fa%2Db/x");
    }
}
