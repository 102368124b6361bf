//! What somebody meets who has just cloned the project: `anvil/run` and `intentd dev`.

mod run_script;
mod stack;
mod start_errors;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{anvil, install::DAEMON};

/// A start with everything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);

/// A state folder that does not exist yet. Whatever `dev` keeps outside it is removed too.
struct State {
    outer: tempfile::TempDir,
}

impl State {
    fn new() -> Self {
        Self { outer: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.outer.path().join("state")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    /// The value of a variable in DIR/env, as a shell reads it.
    fn variable(&self, name: &str) -> String {
        let script = format!(". '{}' && printf %s \"${name}\"", self.path().join("env").display());
        let output = Command::new("sh").args(["-euc", &script]).env_remove(name).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The stack's processes: the supervisor, then its children.
    fn pids(&self) -> Vec<u32> {
        self.variable("INTENTD_PIDS").split(' ').map(|pid| pid.parse().unwrap()).collect()
    }

    /// The process of a part, by the comment in DIR/env.
    fn pid_of(&self, part: &str) -> u32 {
        let env = self.read("env");
        let line = env.lines().find(|line| line.starts_with("# process ") && line.ends_with(&format!(": {part}")));
        let words = line.unwrap_or_else(|| panic!("no process {part}: {env}")).split_whitespace().nth(2);
        words.unwrap().trim_end_matches(':').parse().unwrap()
    }

    /// `intentd dev` on this folder.
    fn dev(&self) -> Command {
        let mut command = clean(DAEMON);
        command.arg("dev").arg("--state").arg(self.path());
        command
    }

    /// `anvil/run` on this folder, with the binary under test.
    fn run_script(&self) -> Command {
        let mut command = clean(Path::new(env!("CARGO_MANIFEST_DIR")).join("anvil/run"));
        command.arg("--state").arg(self.path()).env("INTENTD_BIN", DAEMON);
        command
    }

    /// Starts `command` and waits until its stack is up.
    fn up(&self, mut command: Command) -> Running {
        let _ = std::fs::remove_file(self.path().join("env"));
        let log = self.outer.path().join("output.log");
        let out = std::fs::File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        let mut running = Running { child, log };
        let deadline = Instant::now() + PATIENCE;
        while !self.path().join("env").exists() {
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", running.output());
            }
            assert!(Instant::now() < deadline, "not up within {PATIENCE:?}: {}", running.output());
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // As root, Postgres' data is not in the state folder.
        let elsewhere = self.read("postgres.path");
        if elsewhere.contains("/intentd-dev-") {
            let _ = std::fs::remove_dir_all(elsewhere.trim());
        }
    }
}

/// A started stack, ended when dropped.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end within {PATIENCE:?}: {}", self.output());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            send(self.child.id(), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// A command without the caller's own settings, but with the anvil that the other tests use.
fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("INTENTD_")) {
        command.env_remove(name);
    }
    command.env("INTENTD_ANVIL_BIN", anvil::binary("anvil", "INTENTD_ANVIL_BIN"));
    command
}

fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// Standard output and error, for a look by eye and by `contains`.
fn all_text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn send(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal);
}

/// Waits until none of the processes lives.
fn all_gone(pids: &[u32]) {
    let deadline = Instant::now() + PATIENCE;
    let lives = |pid: &&u32| intentd::dev::process::birth(**pid).is_some();
    while let Some(pid) = pids.iter().find(lives) {
        assert!(Instant::now() < deadline, "process {pid} still lives");
        std::thread::sleep(Duration::from_millis(50));
    }
}
