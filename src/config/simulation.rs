//! `[simulation]`, which says whom the daemon asks, and `[simulator]`, which is `intentd simulator`'s own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::Url;

use super::Secret;
use crate::simulate::tenderly::{Credentials, Slug};

/// Who is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// The chain's own node.
    #[default]
    Rpc,
    /// A service that speaks Tenderly's API.
    Tenderly,
}

/// `[simulation]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimulationConfig {
    /// Environment: `INTENTD_SIMULATION_BACKEND`.
    pub backend: BackendKind,
    /// Where the service is. Environment: `INTENTD_SIMULATION_URL`.
    pub base_url: Url,
    /// Where a person looks at a saved simulation; without it Tenderly's dashboard for Tenderly, else `base_url`.
    pub dashboard_url: Option<Url>,
    /// The account there. Environment: `INTENTD_SIMULATION_ACCOUNT`.
    pub account: Option<Slug>,
    /// The project there. Environment: `INTENTD_SIMULATION_PROJECT`.
    pub project: Option<Slug>,
    /// The key. Environment: `INTENTD_SIMULATION_ACCESS_KEY`.
    pub access_key: Option<Secret>,
    /// A file that holds the key. Environment: `INTENTD_SIMULATION_ACCESS_KEY_FILE`.
    pub access_key_file: Option<PathBuf>,
    /// Whether the service keeps simulations, so that people can look at them. Environment: `INTENTD_SIMULATION_SAVE`.
    pub save: bool,
    /// Where organisations with an account of their own are simulated. Never what they say.
    pub organisations_base_url: Url,
}

impl Default for SimulationConfig {
    fn default() -> Self {
        Self {
            backend: BackendKind::Rpc,
            base_url: tenderly_api(),
            dashboard_url: None,
            account: None,
            project: None,
            access_key: None,
            access_key_file: None,
            save: false,
            organisations_base_url: tenderly_api(),
        }
    }
}

#[allow(clippy::expect_used, reason = "a constant")]
fn tenderly_api() -> Url {
    Url::parse("https://api.tenderly.co").expect("a URL")
}

impl SimulationConfig {
    /// What is missing or wrong, each as `key: why`.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, url) in [("base_url", &self.base_url), ("organisations_base_url", &self.organisations_base_url)] {
            if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
                faults.push(format!("`simulation.{key}` must be an http or https URL"));
            }
        }
        if self.backend == BackendKind::Tenderly {
            let missing = [
                ("account", self.account.is_none()),
                ("project", self.project.is_none()),
                (
                    "access_key` or `simulation.access_key_file",
                    self.access_key.is_none() && self.access_key_file.is_none(),
                ),
            ];
            let missing = missing.into_iter().filter(|(_, missing)| *missing);
            faults.extend(missing.map(|(key, _)| format!("`simulation.{key}` is needed by the tenderly backend")));
        }
        faults
    }

    /// The daemon's own account, if it has one.
    ///
    /// # Errors
    /// When the key's file cannot be read.
    pub fn credentials(&self) -> Result<Option<Credentials>, std::io::Error> {
        let (Some(account), Some(project)) = (&self.account, &self.project) else { return Ok(None) };
        let Some(access_key) = read_key(self.access_key.as_ref(), self.access_key_file.as_deref())? else {
            return Ok(None);
        };
        Ok(Some(Credentials { account: account.clone(), project: project.clone(), access_key }))
    }
}

/// `[simulator]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimulatorConfig {
    /// Where to serve: loopback unless you say otherwise. Environment: `INTENTD_SIMULATOR_LISTEN`.
    pub listen: SocketAddr,
    /// The account in its paths. Environment: `INTENTD_SIMULATOR_ACCOUNT`.
    pub account: Slug,
    /// The project in its paths. Environment: `INTENTD_SIMULATOR_PROJECT`.
    pub project: Slug,
    /// What clients send as `X-Access-Key`. Environment: `INTENTD_SIMULATOR_ACCESS_KEY`.
    pub access_key: Option<Secret>,
    /// A file that holds it. Environment: `INTENTD_SIMULATOR_ACCESS_KEY_FILE`.
    pub access_key_file: Option<PathBuf>,
    /// Requests that are worked on at once; more are answered 429.
    pub concurrency: usize,
    /// Most megabytes of saved results; the oldest go first, all go after 24 hours.
    pub saved_mb: usize,
    /// A folder of contract ABIs (`*.json`, arrays or compilers' artifacts) that name errors and calls on result pages.
    pub abi_folder: Option<PathBuf>,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8788)),
            account: Slug::local(),
            project: Slug::local(),
            access_key: None,
            access_key_file: None,
            concurrency: 32,
            saved_mb: 64,
            abi_folder: None,
        }
    }
}

impl SimulatorConfig {
    /// The key that clients must send.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn key(&self) -> Result<Option<Secret>, std::io::Error> {
        read_key(self.access_key.as_ref(), self.access_key_file.as_deref())
    }
}

/// The key itself, or the one in the file without its line break. An empty one is none.
fn read_key(key: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, std::io::Error> {
    let key = match (key, file) {
        (Some(key), _) => Some(key.clone()),
        (None, Some(file)) => Some(Secret::from(std::fs::read_to_string(file)?.trim_end().to_owned())),
        (None, None) => None,
    };
    Ok(key.filter(|key| !key.expose().is_empty()))
}
