//! The real daemon as a child, to be watched, stopped, killed and started again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long it may take to become ready or to end.
const PATIENCE: Duration = Duration::from_secs(40);

pub struct Daemon {
    child: Child,
    pub url: String,
    pub log: PathBuf,
}

impl Daemon {
    /// Starts `command` (the binary and its environment) and waits until it serves. Panics with the end of its log otherwise.
    pub async fn start(command: Command, folder: &Path, name: &str) -> Self {
        Self::start_as("serve", command, folder, name).await
    }

    /// As [`Daemon::start`], by another subcommand that serves.
    pub async fn start_as(subcommand: &str, command: Command, folder: &Path, name: &str) -> Self {
        match Self::try_start_as(subcommand, command, folder, name).await {
            Ok(daemon) => daemon,
            Err((status, log)) => panic!("{name} ended with {status} before it served:\n{log}"),
        }
    }

    /// As [`Daemon::start`]; a daemon that ends is its status and log.
    pub async fn try_start(command: Command, folder: &Path, name: &str) -> Result<Self, (ExitStatus, String)> {
        Self::try_start_as("serve", command, folder, name).await
    }

    pub async fn try_start_as(
        subcommand: &str,
        mut command: Command,
        folder: &Path,
        name: &str,
    ) -> Result<Self, (ExitStatus, String)> {
        let log = folder.join(format!("{name}.log"));
        let ready = folder.join(format!("{name}.ready"));
        let _ = std::fs::remove_file(&ready);
        let out = File::options().create(true).append(true).open(&log).unwrap();
        command
            .arg(subcommand)
            .env("INTENTD_LISTEN", "127.0.0.1:0")
            .env("INTENTD_SIMULATOR_LISTEN", "127.0.0.1:0")
            .env("INTENTD_READY_FILE", &ready)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(url) = std::fs::read_to_string(&ready) {
                return Ok(Self { child, url, log });
            }
            if let Some(status) = child.try_wait().unwrap() {
                return Err((status, std::fs::read_to_string(&log).unwrap_or_default()));
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!(
                    "{name} did not serve within {PATIENCE:?}:\n{}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let _ = kill_process(pid, signal);
    }

    /// kill -9, and its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its end after a signal.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon did not end within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.kill();
    }
}
