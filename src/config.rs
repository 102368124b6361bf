//! Configuration: one TOML file and the environment, which wins. Read whole, validated whole, printed redacted.

mod environment;
mod secret;
mod simulation;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::access::agent_token::OidcConfig;
use crate::audit::AuditConfig;
use crate::db::DbConfig;
use crate::hsm::HsmConfig;
use crate::http::cors::CorsConfig;
use crate::http::limits::LimitsConfig;
use crate::http::tls::TlsConfig;
use crate::keks::KeksConfig;
use crate::mail::MailConfig;
use crate::outbound::OutboundConfig;
use crate::telemetry::{MetricsConfig, TelemetryConfig};
use crate::vaults::VaultsConfig;

pub use secret::Secret;
pub use simulation::{BackendKind, SimulationConfig, SimulatorConfig};

/// Where the daemon runs. Only `dev` relaxes anything, and it says what at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Real money.
    #[default]
    Production,
    /// The embedded stack of `intentd dev`.
    Dev,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[chains]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChainsConfig {
    /// A chains.toml to use instead of the built-in one. Environment: `INTENTD_CHAINS_FILE`.
    pub file: Option<PathBuf>,
    /// RPC URL by chain name. Environment: `INTENTD_RPC_URL_<NAME>`, upper-case with `_` for `-`.
    pub rpc_urls: std::collections::BTreeMap<String, Secret>,
}

/// `[intents]`: the pipeline's own bounds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntentsConfig {
    /// Simulate every intent, whatever the request or the organisation says.
    pub require_simulation: bool,
    /// Everything that is read from the chain before the commit must have answered by then, in milliseconds.
    pub read_deadline_ms: u64,
    /// A claim of an idempotency key may be taken over after this long, in seconds.
    pub claim_lease_s: u64,
    /// Unmined transactions that one lane may hold before new ones are answered 503.
    pub lane_depth_max: u64,
    /// How far the chain's nonce may be ahead of ours before the lane is frozen, in nonces.
    pub nonce_gap_max: u64,
    /// Nobody else has any of the keys: when mined blocks show a nonce that is not ours, the lane waits for a human. Keys that were born in
    /// the HSM are taken so whatever this says. Environment: `INTENTD_EXCLUSIVE_KEYS`.
    pub exclusive_keys: bool,
    /// A nonce that others used, or left out, is closed with a no-op after this many blocks without it.
    pub foreign_fill_blocks: u64,
    /// How often the tracker looks at a chain that has open slots, in milliseconds; 0: the chain's block time.
    pub tracker_interval_ms: u64,
    /// Bytes that were sent and not mined are sent again after this long, in seconds.
    pub rebroadcast_s: u64,
}

impl Default for IntentsConfig {
    fn default() -> Self {
        Self {
            require_simulation: false,
            read_deadline_ms: 10_000,
            claim_lease_s: 30,
            lane_depth_max: 1024,
            nonce_gap_max: 16,
            exclusive_keys: false,
            foreign_fill_blocks: 20,
            tracker_interval_ms: 0,
            rebroadcast_s: 15,
        }
    }
}

/// `[signup]`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignupConfig {
    /// Whether whoever has an email address may make an organisation. Environment: `INTENTD_SIGNUP_ENABLED`.
    pub enabled: bool,
}

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `production` or `dev`. Environment: `INTENTD_ENVIRONMENT`.
    pub environment: Environment,
    /// Where to listen: loopback unless you say otherwise. Environment: `INTENTD_LISTEN`.
    pub listen: SocketAddr,
    /// Where people reach this installation; links begin with it: `https://intents.example.com`. `None`: what it listens on. Environment:
    /// `INTENTD_PUBLIC_URL`.
    pub public_url: Option<url::Url>,
    /// Gets the daemon's URL once it serves. Environment: `INTENTD_READY_FILE`.
    pub ready_file: Option<PathBuf>,
    /// tracing filter, e.g. `info` or `intentd=debug`. Environment: `INTENTD_LOG`.
    pub log: String,
    /// Environment: `INTENTD_LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `iss` and `aud` of the tokens.
    pub issuer: String,
    /// How long a stop waits for work in flight, in seconds.
    pub drain_s: u64,
    /// Postgres.
    pub database: DbConfig,
    /// The HSM.
    pub hsm: Option<HsmConfig>,
    /// The rotation of its keys.
    pub keks: KeksConfig,
    /// The audit trail's links and checkpoints.
    pub audit: AuditConfig,
    /// Chains and their RPC URLs.
    pub chains: ChainsConfig,
    /// The pipeline.
    pub intents: IntentsConfig,
    /// Whom simulations are asked of.
    pub simulation: SimulationConfig,
    /// `intentd simulator`.
    pub simulator: SimulatorConfig,
    /// Vaults and secrets.
    pub vaults: VaultsConfig,
    /// Rate limits, and where requests come from.
    pub limits: LimitsConfig,
    /// Web pages that may call us from a browser.
    pub cors: CorsConfig,
    /// Whether anybody may sign up.
    pub signup: SignupConfig,
    /// Letters to humans.
    pub mail: MailConfig,
    /// TLS of our own, and the client certificates that proxies tell of.
    pub tls: TlsConfig,
    /// Agents that an OpenID provider vouches for.
    pub oidc: OidcConfig,
    /// Requests to addresses that people give us.
    pub outbound: OutboundConfig,
    /// The operators' own listener.
    pub metrics: MetricsConfig,
    /// Traces.
    pub telemetry: TelemetryConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            environment: Environment::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8787)),
            public_url: None,
            ready_file: None,
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            issuer: "intentd".to_owned(),
            drain_s: 30,
            database: DbConfig::default(),
            hsm: None,
            keks: KeksConfig::default(),
            audit: AuditConfig::default(),
            chains: ChainsConfig::default(),
            intents: IntentsConfig::default(),
            simulation: SimulationConfig::default(),
            simulator: SimulatorConfig::default(),
            vaults: VaultsConfig::default(),
            limits: LimitsConfig::default(),
            cors: CorsConfig::default(),
            signup: SignupConfig::default(),
            mail: MailConfig::default(),
            tls: TlsConfig::default(),
            oidc: OidcConfig::default(),
            outbound: OutboundConfig::default(),
            metrics: MetricsConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// Why there is no configuration. The text names the key and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML. The line is named, not shown: it may hold a password.
    #[error("the configuration file {path} is not valid TOML: line {line}: {message}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// Why.
        message: String,
    },
    /// A key is unknown or its value does not fit.
    #[error("configuration key `{key}`: {message}")]
    Key {
        /// The key, with its table; for environment settings, the variable too.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// All that is missing, at once.
    #[error("the configuration is not complete:\n{}", .0.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n"))]
    Incomplete(Vec<String>),
}

impl Config {
    /// Reads `file` (or nothing) and the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let table = match file {
            None => Table::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
                    path: path.to_owned(),
                    line: error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1),
                    message: error.message().to_owned(),
                })?
            }
        };
        Self::from_parts(table, std::env::vars())
    }

    /// The pure half of [`Config::load`].
    fn from_parts(mut table: Table, vars: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        for (variable, value) in vars {
            environment::apply(&mut table, &variable, value);
        }
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let key = error.path().to_string();
            let variable = environment::variable_of(&key).map(|variable| format!(" (environment: {variable})"));
            ConfigError::Key {
                key: key.clone() + &variable.unwrap_or_default(),
                message: secret_form(&key).unwrap_or(error.inner().message()).to_owned(),
            }
        })
    }

    /// Everything that `serve` needs and that is not there, in one list.
    ///
    /// # Errors
    /// [`ConfigError::Incomplete`].
    pub fn check_complete(&self) -> Result<(), ConfigError> {
        let mut missing = Vec::new();
        if self.database.url.is_none() {
            missing.push(
                "`database.url` (environment: INTENTD_DATABASE_URL): the Postgres to use, postgres://user:password@host/database"
                    .to_owned(),
            );
        }
        if self.hsm.is_none() {
            missing.push(
                "`hsm.module`, `hsm.token_label` and `hsm.pin` (environment: INTENTD_HSM_MODULE, INTENTD_HSM_TOKEN_LABEL, INTENTD_HSM_PIN_FILE): the PKCS#11 module that holds the keys"
                    .to_owned(),
            );
        }
        missing.extend(self.simulation.faults());
        if self.intents.read_deadline_ms == 0 {
            missing.push("`intents.read_deadline_ms` must be above 0".to_owned());
        }
        if self.public_url.as_ref().is_some_and(|url| {
            !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some()
        }) {
            missing.push("`public_url` must be an http or https URL without query and fragment".to_owned());
        }
        if self.vaults.kept_versions == 0 {
            missing.push("`vaults.kept_versions` must be above 0".to_owned());
        }
        if self.database.max_connections < 4 {
            missing.push("`database.max_connections` must be at least 4".to_owned());
        }
        if self.limits.body_deadline_s == 0 || self.limits.idle_s == 0 {
            missing.push("`limits.body_deadline_s` and `limits.idle_s` must be above 0".to_owned());
        }
        if self.limits.body_memory_mib < 8 {
            missing.push("`limits.body_memory_mib` must be at least 8".to_owned());
        }
        missing.extend(self.mail.faults());
        missing.extend(self.audit.faults());
        missing.extend(self.limits.zero_rates().map(|key| format!("`{key}` must be above 0")));
        missing.extend(self.tls.problem());
        missing.extend(self.metrics.fault());
        missing.extend(self.telemetry.fault());
        if missing.is_empty() { Ok(()) } else { Err(ConfigError::Incomplete(missing)) }
    }

    /// Variables that look like ours and are not: most likely typing errors.
    #[must_use]
    pub fn unknown_variables() -> Vec<String> {
        std::env::vars().map(|(variable, _)| variable).filter(|variable| environment::is_unknown(variable)).collect()
    }
}

/// What a key that holds or names a secret must be. An error of the parser would show what is there instead.
fn secret_form(key: &str) -> Option<&'static str> {
    match key {
        "telemetry.otlp_endpoint" => Some("must be an http or https URL without credentials and query"),
        "mail.smtp_url" => Some("must be a string, smtps://user:password@host"),
        "database.url" => Some("must be a string, postgres://user:password@host/database"),
        _ if key == "hsm.pin" || key.starts_with("hsm.pin.") => Some("must be { file = \"…\" } or { env = \"NAME\" }"),
        "simulation.access_key" | "simulator.access_key" => Some("must be a string"),
        _ if key.starts_with("chains.rpc_urls") => Some("must be a table of strings: a URL for each chain's name"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let vars = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::from_parts(text.parse().expect("TOML"), vars)
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let config = load("listen = \"127.0.0.1:1\"", &[("INTENTD_LISTEN", "127.0.0.1:2")]).unwrap();
        assert_eq!(config.listen.port(), 2);
    }

    #[test]
    fn errors_name_the_key_and_its_variable() {
        let cases = [
            ("listne = 1", "listne"),
            ("listen = \"nowhere\"", "`listen (environment: INTENTD_LISTEN)`"),
            ("[database]\nmax_connections = \"many\"", "database.max_connections"),
            ("[intents]\nread_deadline = 1", "intents"),
        ];
        for (text, expected) in cases {
            let error = load(text, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn all_that_is_missing_is_said_at_once() {
        let error = load("", &[]).unwrap().check_complete().unwrap_err().to_string();
        assert!(error.contains("database.url") && error.contains("hsm.module"), "{error}");
    }

    #[test]
    fn threat_23_secrets_are_redacted_in_the_printed_configuration() {
        let vars = [
            ("INTENTD_DATABASE_URL", "postgres://u:hunter2@localhost/d"),
            ("INTENTD_RPC_URL_BASE", "https://rpc.example/hunter2"),
            ("INTENTD_SIMULATION_ACCESS_KEY", "hunter2"),
            ("INTENTD_SIMULATOR_ACCESS_KEY", "hunter2"),
            ("INTENTD_OTLP_ENDPOINT", "https://u:hunter2@collector.example"),
        ];
        let printed = format!("{:?}", load("", &vars).unwrap());
        assert!(!printed.contains("hunter2"), "{printed}");
        let error = load("", &[("INTENTD_OTLP_ENDPOINT", "u:hunter2@collector")]).map(|config| format!("{config:?}"));
        let said = error.unwrap_or_else(|error| error.to_string());
        assert!(!said.contains("hunter2"), "{said}");
        let error = load("", &[("INTENTD_OTLP_ENDPOINT", "//hunter2")]).unwrap_err().to_string();
        assert!(error.contains("telemetry.otlp_endpoint") && !error.contains("hunter2"), "{error}");
    }
}
