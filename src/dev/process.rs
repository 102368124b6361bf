//! Child processes: started with a log file, stopped by their PID, and not outliving the supervisor.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use super::DevError;

/// How much of a log an error shows.
const LOG_TAIL_BYTES: u64 = 4_000;

/// One child. Dropping it kills it; [`Process::stop`] is the polite way.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    log: PathBuf,
}

/// A command for `program` that gets `signal` when the thread that spawns it ends, where the system can do that (Linux with
/// util-linux' setpriv, which then becomes the program: the PID is the program's).
#[must_use]
pub fn bound_command(program: impl AsRef<OsStr>, signal: &str) -> Command {
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().find(|path| Path::new(path).exists());
    match setpriv {
        Some(setpriv) if cfg!(target_os = "linux") => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", signal, "--"]).arg(program);
            command
        }
        _ => Command::new(program),
    }
}

impl Process {
    /// Starts `command` with its output appended to `log` (mode 0600), without standard input, and in a process group of its
    /// own: a Ctrl-C on the terminal reaches the supervisor alone, which then stops its children in order.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn spawn(name: impl Into<String>, mut command: Command, log: &Path) -> Result<Self, DevError> {
        let name = name.into();
        let out =
            OpenOptions::new().create(true).append(true).mode(0o600).open(log).map_err(DevError::file("open", log))?;
        let err = out.try_clone().map_err(DevError::file("open", log))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| DevError::start(&*name, error))?;
        let pid = child.id().unwrap_or_default();
        Ok(Self { name, child, pid, log: log.to_owned() })
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits for its end. Cancel safe.
    pub async fn wait(&mut self) -> String {
        self.child.wait().await.map_or_else(|error| error.to_string(), describe)
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<String> {
        self.child.try_wait().map_or_else(|error| Some(error.to_string()), |status| status.map(describe))
    }

    /// Sends a signal. A process that has gone is not an error.
    pub fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// Sends `signal`, waits up to `grace`, then kills.
    pub async fn stop(mut self, signal: Signal, grace: Duration) -> String {
        if self.ended().is_none() {
            self.signal(signal);
        }
        if let Ok(status) = tokio::time::timeout(grace, self.wait()).await {
            return status;
        }
        self.signal(Signal::KILL);
        self.wait().await
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Waits until `ready` says yes, for at most `deadline`; fails as soon as the process ends.
    ///
    /// # Errors
    /// [`DevError::Start`] with the end of the log.
    pub async fn until_ready(
        &mut self,
        deadline: Duration,
        mut ready: impl AsyncFnMut() -> bool,
    ) -> Result<(), DevError> {
        let started = tokio::time::Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Err(self.start_error(format!("it ended at once ({status})")));
            }
            if ready().await {
                return Ok(());
            }
            if started.elapsed() > deadline {
                return Err(self.start_error(format!("it was not ready after {} s", deadline.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn start_error(&self, why: String) -> DevError {
        DevError::Start { part: self.name.clone(), why, log_tail: self.log_tail() }
    }
}

fn describe(status: ExitStatus) -> String {
    status.to_string()
}

/// Runs a command to its end and returns what it wrote to standard output.
///
/// # Errors
/// [`DevError::Start`] with what it wrote to standard error.
pub async fn output(part: &str, mut command: Command) -> Result<String, DevError> {
    let done =
        command.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(|error| DevError::start(part, error))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let log_tail = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(DevError::Start { part: part.to_owned(), why: describe(done.status), log_tail })
}

/// Sends a signal to a process by its id.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = to_pid(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// 0 would mean the whole process group, so it is nobody here.
fn to_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// When a live process was born, in a form that only serves to tell it from a later one with the same id. `None` for one that has
/// ended, even if nobody has waited for it yet.
#[must_use]
pub fn birth(pid: u32) -> Option<String> {
    if Path::new("/proc/self/stat").exists() {
        let (state, start) = state_and_start(pid)?;
        return (!matches!(&*state, "Z" | "X")).then_some(start);
    }
    let ps = std::process::Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&ps.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Whether a process has ended and nobody has waited for it. Only Linux tells.
#[must_use]
pub fn is_zombie(pid: u32) -> bool {
    state_and_start(pid).is_some_and(|(state, _)| state == "Z")
}

/// proc(5), `/proc/PID/stat`: after the name in parentheses (which may hold spaces) come field 3, the state, and field 22, the start.
fn state_and_start(pid: u32) -> Option<(String, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.nth(18)?.to_owned()))
}

/// Whether a process has this folder as its working directory. Only Linux tells.
#[must_use]
pub fn any_works_in(folder: &Path) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
}

/// The last lines of a file; empty when there is none.
#[must_use]
pub fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// The signals that end the stack.
pub struct StopSignals([SignalStream; 3]);

/// SIGINT, SIGTERM and SIGHUP, from now on.
///
/// # Errors
/// When the handlers cannot be set.
pub fn stop_signals() -> Result<StopSignals, DevError> {
    let stream = |kind| signal(kind).map_err(|error| DevError::start("the signal handler", error));
    Ok(StopSignals([stream(SignalKind::interrupt())?, stream(SignalKind::terminate())?, stream(SignalKind::hangup())?]))
}

impl StopSignals {
    /// Waits for the next of them.
    pub async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
