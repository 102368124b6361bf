//! The daemon as a child: `intentd serve`, configured through the environment alone, as in production.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::DevError;
use super::chains::LocalChain;
use super::process::{self, Process, Signal};
use super::state::{CHECKPOINTS, StateDir};
use super::token::{self, Token};
use crate::hsm::softhsm;

const START_DEADLINE: Duration = Duration::from_secs(60);
/// Above the daemon's own drain.
const STOP_GRACE: Duration = Duration::from_secs(40);
/// Of the caller's own settings only these reach the daemon; everything else it is told by us. RPC URLs pass too.
const PASSED_ON: &[&str] = &[
    "INTENTD_LOG",
    "INTENTD_LOG_FORMAT",
    "INTENTD_OTLP_ENDPOINT",
    "INTENTD_REQUIRE_SIMULATION",
    "INTENTD_LIMITS_IP_BURST",
    "INTENTD_LIMITS_AUTH_BURST",
    "INTENTD_CORS_ALLOWED_ORIGINS",
];
const RPC_URL_PREFIX: &str = "INTENTD_RPC_URL_";

/// How every intentd process of the stack is configured.
#[derive(Clone, Debug)]
pub struct Settings {
    executable: PathBuf,
    variables: Vec<(String, String)>,
}

impl Settings {
    /// Settings for this database, token and chains.
    ///
    /// # Errors
    /// When our own binary cannot be found.
    pub fn new(
        database_url: String,
        token: &Token,
        chains_file: &Path,
        outbox: &Path,
        chains: &[LocalChain],
    ) -> Result<Self, DevError> {
        let executable = std::env::current_exe().map_err(|error| DevError::start("the daemon", error))?;
        let path = |path: &Path| path.display().to_string();
        let fixed = [
            ("INTENTD_ENVIRONMENT", "dev".to_owned()),
            ("INTENTD_DATABASE_URL", database_url),
            ("INTENTD_HSM_MODULE", path(&token.library)),
            ("INTENTD_HSM_TOKEN_LABEL", token::LABEL.to_owned()),
            ("INTENTD_HSM_PIN_FILE", path(&token.pin_file)),
            ("INTENTD_CHAINS_FILE", path(chains_file)),
            ("INTENTD_OUTBOUND_ALLOW_PRIVATE", "127.0.0.0/8,::1".to_owned()),
            ("INTENTD_SIGNUP_ENABLED", "true".to_owned()),
            ("INTENTD_MAIL_OUTBOX", path(outbox)),
            (softhsm::CONF_VARIABLE, path(&token.conf)),
        ];
        let mut variables: Vec<_> = fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        variables.extend(chains.iter().map(|chain| (rpc_url_variable(&chain.name), chain.rpc_url.clone())));
        Ok(Self { executable, variables })
    }

    /// Further settings.
    pub fn add(&mut self, variables: Vec<(String, String)>) {
        self.variables.extend(variables);
    }

    /// `intentd` with these settings and no others, given `arguments`. It ends when we do.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = process::bound_command(&self.executable, "TERM");
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let ours = name.starts_with("INTENTD_") || name == "DATABASE_URL";
            if ours && !PASSED_ON.contains(&&*name) && !name.starts_with(RPC_URL_PREFIX) {
                command.env_remove(&*name);
            }
        }
        command.args(arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs an admin command to its end and returns what it printed.
    ///
    /// # Errors
    /// With what it wrote to standard error.
    pub async fn admin(&self, arguments: &[&str]) -> Result<String, DevError> {
        let part = format!("intentd {}", arguments.iter().take(3).copied().collect::<Vec<_>>().join(" "));
        process::output(&part, self.command(arguments)).await
    }

    /// Starts the daemon, with its metrics at `metrics`. Call [`Daemon::until_ready`] next.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn serve(&self, state: &StateDir, listen: SocketAddr, metrics: SocketAddr) -> Result<Daemon, DevError> {
        let ready_file = state.path("ready");
        state.remove("ready");
        let mut command = self.command(&["serve"]);
        command
            .env("INTENTD_LISTEN", listen.to_string())
            .env("INTENTD_METRICS_LISTEN", metrics.to_string())
            .env("INTENTD_AUDIT_CHECKPOINT_FILE", state.path(CHECKPOINTS))
            .env("INTENTD_READY_FILE", &ready_file);
        let process = Process::spawn("serve", command, &state.log("serve"))?;
        Ok(Daemon { process, ready_file })
    }
}

fn rpc_url_variable(chain: &str) -> String {
    format!("{RPC_URL_PREFIX}{}", chain.to_ascii_uppercase().replace('-', "_"))
}

/// The daemon's process.
#[derive(Debug)]
pub struct Daemon {
    /// The child.
    pub process: Process,
    ready_file: PathBuf,
}

impl Daemon {
    /// Waits until it listens and says that it is healthy. Returns its URL.
    ///
    /// # Errors
    /// With the end of its log.
    pub async fn until_ready(&mut self) -> Result<String, DevError> {
        let ready_file = self.ready_file.clone();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2))
            .build()
            .map_err(|error| DevError::start("the daemon", error))?;
        let mut url = String::new();
        self.process
            .until_ready(START_DEADLINE, async || {
                url = std::fs::read_to_string(&ready_file).unwrap_or_default().trim().to_owned();
                !url.is_empty()
                    && client
                        .get(format!("{url}/v1/health"))
                        .send()
                        .await
                        .is_ok_and(|reply| reply.status().is_success())
            })
            .await?;
        Ok(url)
    }

    /// Stops it: it takes no more requests and finishes those it has.
    pub async fn stop(self) {
        self.process.stop(Signal::TERM, STOP_GRACE).await;
    }
}
