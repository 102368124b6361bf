//! Configuration: one TOML file and the environment, which wins. Read whole, validated whole, printed redacted.

mod secret;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::db::DbConfig;
use crate::hsm::HsmConfig;
use crate::http::limits::LimitsConfig;
use crate::keks::KeksConfig;
use crate::vaults::VaultsConfig;

pub use secret::Secret;

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
    /// RPC URLs that platform admins set over the API may lead to link-local and metadata addresses.
    pub allow_link_local: bool,
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
            foreign_fill_blocks: 20,
            tracker_interval_ms: 0,
            rebroadcast_s: 15,
        }
    }
}

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `production` or `dev`. Environment: `INTENTD_ENVIRONMENT`.
    pub environment: Environment,
    /// Where to listen: loopback unless you say otherwise. Environment: `INTENTD_LISTEN`.
    pub listen: SocketAddr,
    /// What the daemon is reached at from outside, for links: `https://intents.example.com`. `None`: what it listens on. Environment:
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
    /// Chains and their RPC URLs.
    pub chains: ChainsConfig,
    /// The pipeline.
    pub intents: IntentsConfig,
    /// Vaults and secrets.
    pub vaults: VaultsConfig,
    /// Rate limits.
    pub limits: LimitsConfig,
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
            chains: ChainsConfig::default(),
            intents: IntentsConfig::default(),
            vaults: VaultsConfig::default(),
            limits: LimitsConfig::default(),
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

/// Environment variables and the keys they set. The order is the order of the README's table.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("INTENTD_ENVIRONMENT", "environment"),
    ("INTENTD_LISTEN", "listen"),
    ("INTENTD_READY_FILE", "ready_file"),
    ("INTENTD_LOG", "log"),
    ("INTENTD_LOG_FORMAT", "log_format"),
    ("INTENTD_DRAIN_S", "drain_s"),
    ("INTENTD_DATABASE_URL", "database.url"),
    ("INTENTD_DATABASE_MAX_CONNECTIONS", "database.max_connections"),
    ("INTENTD_HSM_MODULE", "hsm.module"),
    ("INTENTD_HSM_TOKEN_LABEL", "hsm.token_label"),
    ("INTENTD_HSM_TOKEN_SERIAL", "hsm.token_serial"),
    ("INTENTD_HSM_PIN_FILE", "hsm.pin.file"),
    ("INTENTD_HSM_WORKERS", "hsm.workers"),
    ("INTENTD_HSM_CUSTODY", "hsm.custody"),
    ("INTENTD_KEKS_POLL_MS", "keks.poll_ms"),
    ("INTENTD_KEKS_GRACE_S", "keks.grace_s"),
    ("INTENTD_CHAINS_FILE", "chains.file"),
    ("INTENTD_REQUIRE_SIMULATION", "intents.require_simulation"),
    ("INTENTD_CLAIM_LEASE_S", "intents.claim_lease_s"),
    ("INTENTD_TRACKER_INTERVAL_MS", "intents.tracker_interval_ms"),
    ("INTENTD_REBROADCAST_S", "intents.rebroadcast_s"),
    ("INTENTD_FOREIGN_FILL_BLOCKS", "intents.foreign_fill_blocks"),
    ("INTENTD_PUBLIC_URL", "public_url"),
    ("INTENTD_VAULTS_KEPT_VERSIONS", "vaults.kept_versions"),
    ("INTENTD_LIMITS_AUTH_BURST", "limits.auth_burst"),
    ("INTENTD_LIMITS_IP_BURST", "limits.ip_burst"),
];

/// Prefix of the variables that carry RPC URLs.
const RPC_URL_PREFIX: &str = "INTENTD_RPC_URL_";

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
        for (name, value) in vars {
            if let Some(chain) = name.strip_prefix(RPC_URL_PREFIX) {
                let chain = chain.to_ascii_lowercase().replace('_', "-");
                set(&mut table, &format!("chains.rpc_urls.{chain}"), Value::String(value));
            } else if let Some((_, key)) = ENVIRONMENT.iter().find(|(variable, _)| *variable == name) {
                set(&mut table, key, scalar(key, value));
            }
        }
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let key = error.path().to_string();
            let variable = ENVIRONMENT.iter().find(|(_, k)| *k == key).map(|(v, _)| format!(" (environment: {v})"));
            ConfigError::Key {
                key: key.clone() + &variable.unwrap_or_default(),
                message: secret_form(&key).unwrap_or(error.inner().message()).to_owned(),
            }
        })
    }

    /// A link to a path of the daemon, which begins with `/`.
    #[must_use]
    pub fn link(&self, path: &str) -> String {
        match &self.public_url {
            Some(url) => format!("{}{path}", url.as_str().trim_end_matches('/')),
            None => format!("http://{}{path}", self.listen),
        }
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
        if self.limits.body_deadline_s == 0 {
            missing.push("`limits.body_deadline_s` must be above 0".to_owned());
        }
        let zero_rate = [
            ("limits.ip_per_second", self.limits.ip_per_second),
            ("limits.ip_burst", self.limits.ip_burst),
            ("limits.principal_per_second", self.limits.principal_per_second),
            ("limits.principal_burst", self.limits.principal_burst),
            ("limits.principal_concurrency", self.limits.principal_concurrency),
            ("limits.auth_per_second", self.limits.auth_per_second),
            ("limits.auth_burst", self.limits.auth_burst),
        ];
        missing.extend(zero_rate.iter().filter(|(_, n)| *n == 0).map(|(k, _)| format!("`{k}` must be above 0")));
        if missing.is_empty() { Ok(()) } else { Err(ConfigError::Incomplete(missing)) }
    }

    /// Variables that look like ours and are not: most likely a typing error.
    #[must_use]
    pub fn unknown_variables() -> Vec<String> {
        const FOR_CLIENTS: &[&str] = &[
            "INTENTD_URL",
            "INTENTD_USER_KEY",
            "INTENTD_USER_EMAIL",
            "INTENTD_USER_PASSWORD",
            "INTENTD_ORG_ID",
            "INTENTD_VAULT_ID",
            "INTENTD_AGENT_ID",
            "INTENTD_AGENT_KEY",
            "INTENTD_SIGNER_ADDRESS",
            "INTENTD_PIDS",
            "INTENTD_HSM_PIN",
            "INTENTD_CONFIG",
            "INTENTD_ANVIL_BIN",
        ];
        std::env::vars()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("INTENTD_") && !name.starts_with(RPC_URL_PREFIX))
            .filter(|name| !ENVIRONMENT.iter().any(|(variable, _)| variable == name))
            .filter(|name| !FOR_CLIENTS.contains(&name.as_str()))
            .collect()
    }
}

/// What a key that holds or names a secret must be. An error of the parser would show what is there instead.
fn secret_form(key: &str) -> Option<&'static str> {
    match key {
        "database.url" => Some("must be a string, postgres://user:password@host/database"),
        _ if key == "hsm.pin" || key.starts_with("hsm.pin.") => Some("must be { file = \"…\" } or { env = \"NAME\" }"),
        _ if key.starts_with("chains.rpc_urls") => Some("must be a table of strings: a URL for each chain's name"),
        _ => None,
    }
}

/// Environment values are texts; keys that hold numbers or flags get them as such.
fn scalar(key: &str, value: String) -> Value {
    const TEXTS: &[&str] =
        &["database.url", "hsm.token_label", "hsm.token_serial", "hsm.pin.file", "hsm.wrap_mechanism", "log", "listen"];
    if TEXTS.contains(&key) {
        return Value::String(value);
    }
    match (value.parse::<i64>(), value.as_str()) {
        (Ok(number), _) => Value::Integer(number),
        (_, "true") => Value::Boolean(true),
        (_, "false") => Value::Boolean(false),
        _ => Value::String(value),
    }
}

/// Sets a dotted key, making tables on the way.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
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
        ];
        let printed = format!("{:?}", load("", &vars).unwrap());
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
