//! `[vaults]` of the configuration.

use serde::Deserialize;

/// `[vaults]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VaultsConfig {
    /// Versions of a secret whose values are kept; those before are destroyed when a new one is stored. Environment:
    /// `INTENTD_VAULTS_KEPT_VERSIONS`.
    pub kept_versions: u32,
}

impl Default for VaultsConfig {
    fn default() -> Self {
        Self { kept_versions: 100 }
    }
}
