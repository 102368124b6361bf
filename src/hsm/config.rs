//! The `[hsm]` table of the configuration.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::error::HsmError;
use super::types::Custody;

/// Where the PIN comes from. Never the command line: every user of the machine can read that.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PinSource {
    /// A file that holds the PIN, optionally followed by one line break.
    File(PathBuf),
    /// The name of an environment variable.
    Env(String),
}

impl PinSource {
    /// Reads the PIN.
    ///
    /// # Errors
    /// [`HsmError::Fatal`] naming the file or variable (never its content) when there is none.
    pub fn read(&self) -> Result<SecretString, HsmError> {
        let (text, place) = match self {
            Self::File(path) => (std::fs::read_to_string(path).ok(), format!("the file {}", path.display())),
            Self::Env(name) => (std::env::var(name).ok(), format!("the environment variable {name}")),
        };
        let Some(text) = text.map(zeroize::Zeroizing::new) else {
            return Err(HsmError::fatal(format!("no PIN: {place} cannot be read")));
        };
        let pin = text.strip_suffix('\n').unwrap_or(&text);
        let pin = pin.strip_suffix('\r').unwrap_or(pin);
        if pin.is_empty() {
            return Err(HsmError::fatal(format!("no PIN: {place} is empty")));
        }
        Ok(SecretString::from(pin))
    }
}

/// How to reach the HSM and how hard to drive it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct HsmConfig {
    /// The PKCS#11 library, for instance `/usr/lib/softhsm/libsofthsm2.so`.
    pub module: PathBuf,
    /// The token's label (CKA: at most 32 bytes).
    pub token_label: String,
    /// The token's serial number. Needed when several tokens carry the label; otherwise the one found at start is remembered.
    #[serde(default)]
    pub token_serial: Option<String>,
    /// The user PIN: `{ file = "…" }` or `{ env = "…" }`.
    pub pin: PinSource,
    /// Worker threads, one session each. Default: the processors, right for SoftHSM; a network HSM wants 8 to 64.
    #[serde(default)]
    pub workers: Option<usize>,
    /// Calls that may wait for each worker; beyond that a call is refused with "busy".
    #[serde(default = "defaults::queue_depth")]
    pub queue_depth: usize,
    /// Unwrapped keys that each worker keeps, about 7 KB each in SoftHSM.
    #[serde(default = "defaults::cache_keys")]
    pub cache_keys: usize,
    /// The deadline of one call in milliseconds, waiting included. Below the database's lock_timeout.
    #[serde(default = "defaults::call_deadline_ms")]
    pub call_deadline_ms: u64,
    /// `aes-key-wrap` (0x2109, RFC 3394), `aes-key-wrap-pad` (0x210A), `aes-key-wrap-kwp` (0x210B, RFC 5649), or a number such as `0x80000001`.
    #[serde(default = "defaults::wrap_mechanism")]
    pub wrap_mechanism: String,
    /// Where new keys live unless asked otherwise.
    #[serde(default)]
    pub custody: Custody,
    /// Unwraps after which the module is finalised and initialised again, because SoftHSM leaks 251 bytes with each; 0 for never.
    #[serde(default = "defaults::recycle_unwraps")]
    pub recycle_unwraps: u64,
}

mod defaults {
    pub fn queue_depth() -> usize {
        512
    }
    pub fn cache_keys() -> usize {
        10_000
    }
    pub fn call_deadline_ms() -> u64 {
        1_000
    }
    pub fn wrap_mechanism() -> String {
        "aes-key-wrap".into()
    }
    pub fn recycle_unwraps() -> u64 {
        1_000_000
    }
}

impl HsmConfig {
    /// A configuration with everything at its default.
    #[must_use]
    pub fn new(module: impl Into<PathBuf>, token_label: impl Into<String>, pin: PinSource) -> Self {
        Self {
            module: module.into(),
            token_label: token_label.into(),
            token_serial: None,
            pin,
            workers: None,
            queue_depth: defaults::queue_depth(),
            cache_keys: defaults::cache_keys(),
            call_deadline_ms: defaults::call_deadline_ms(),
            wrap_mechanism: defaults::wrap_mechanism(),
            custody: Custody::default(),
            recycle_unwraps: defaults::recycle_unwraps(),
        }
    }

    /// The number of workers: 1 to 256.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.unwrap_or_else(processors).clamp(1, 256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_table_is_enough_and_unknown_fields_are_refused() {
        let small = "module = \"/m.so\"\ntoken_label = \"t\"\npin = { env = \"P\" }\n";
        let config: HsmConfig = toml::from_str(small).unwrap();
        assert_eq!(config, HsmConfig::new("/m.so", "t", PinSource::Env("P".into())));
        assert!(toml::from_str::<HsmConfig>(&format!("{small}pins = 1")).is_err());
        assert!(toml::from_str::<HsmConfig>(&small.replace("env", "value")).is_err());
    }

    #[test]
    fn a_pin_file_loses_one_line_break_and_may_not_be_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        let read = |text: &str| {
            use secrecy::ExposeSecret as _;
            std::fs::write(&path, text).unwrap();
            PinSource::File(path.clone()).read().map(|pin| pin.expose_secret().to_owned())
        };
        assert_eq!(read("1234\n").as_deref(), Ok("1234"));
        assert_eq!(read("1234\r\n").as_deref(), Ok("1234"));
        assert_eq!(read(" 12 ").as_deref(), Ok(" 12 "));
        assert!(read("\n").is_err() && read("").is_err());
    }
}
