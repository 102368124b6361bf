//! The simulator as a child: `intentd simulator` on the local chains, which the daemon uses as it would use Tenderly.

use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use super::DevError;
use super::chains;
use super::process::{Process, Signal};
use super::serve::Settings;
use super::state::StateDir;

const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_GRACE: Duration = Duration::from_secs(5);
const KEY_FILE: &str = "simulator-key";
/// It needs neither.
const NOT_ITS_OWN: &[&str] =
    &["INTENTD_DATABASE_URL", "INTENTD_HSM_MODULE", "INTENTD_HSM_TOKEN_LABEL", "INTENTD_HSM_PIN_FILE"];

/// The simulator's process.
#[derive(Debug)]
pub struct Simulator {
    /// The child.
    pub process: Process,
    /// Where it serves.
    pub url: String,
    key_file: PathBuf,
}

impl Simulator {
    /// Starts it, on the port that it had the last time if that is free: links to simulations hold until they are forgotten.
    ///
    /// # Errors
    /// When it does not start; with the end of its log.
    pub async fn start(state: &StateDir, settings: &Settings) -> Result<Self, DevError> {
        let key_file = state.path(KEY_FILE);
        if state.read(KEY_FILE).is_none_or(|key| key.trim().is_empty()) {
            state.write(KEY_FILE, &format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))?;
        }
        let port = chains::pick_port(state, "simulator")?;
        let ready_file = state.path("simulator-ready");
        state.remove("simulator-ready");
        let mut command = settings.command(&["simulator"]);
        for name in NOT_ITS_OWN {
            command.env_remove(name);
        }
        command
            .env("INTENTD_SIMULATOR_LISTEN", format!("127.0.0.1:{port}"))
            .env("INTENTD_SIMULATOR_ACCESS_KEY_FILE", &key_file)
            .env("INTENTD_READY_FILE", &ready_file);
        let process = Process::spawn("simulator", command, &state.log("simulator"))?;
        let mut simulator = Self { process, url: String::new(), key_file };
        let mut url = String::new();
        simulator
            .process
            .until_ready(START_DEADLINE, async || {
                url = std::fs::read_to_string(&ready_file).unwrap_or_default().trim().to_owned();
                !url.is_empty()
            })
            .await?;
        simulator.url = url;
        state.write("chains/simulator.port", &port.to_string())?;
        Ok(simulator)
    }

    /// What tells the daemon to use it.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let variables = [
            ("INTENTD_SIMULATION_BACKEND", "tenderly".to_owned()),
            ("INTENTD_SIMULATION_URL", self.url.clone()),
            ("INTENTD_SIMULATION_ACCOUNT", "local".to_owned()),
            ("INTENTD_SIMULATION_PROJECT", "local".to_owned()),
            ("INTENTD_SIMULATION_ACCESS_KEY_FILE", self.key_file.display().to_string()),
            ("INTENTD_SIMULATION_SAVE", "true".to_owned()),
        ];
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Stops it.
    pub async fn stop(self) {
        self.process.stop(Signal::TERM, STOP_GRACE).await;
    }
}
