//! `[audit]` of the configuration. Where checkpoints go is said here alone: no route sets it.

use std::path::PathBuf;

use serde::Deserialize;

/// `[audit]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// How often events without a link are looked for, in milliseconds.
    pub interval_ms: u64,
    /// An organisation's chain is signed after so many links …
    pub checkpoint_links: u32,
    /// … or when it has grown and its last checkpoint is so old, in seconds.
    pub checkpoint_s: u32,
    /// A file that every checkpoint signed by this daemon is appended to. `None`: it is a line of the log. Environment:
    /// `INTENTD_AUDIT_CHECKPOINT_FILE`.
    pub checkpoint_file: Option<PathBuf>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { interval_ms: 250, checkpoint_links: 1_000, checkpoint_s: 600, checkpoint_file: None }
    }
}

impl AuditConfig {
    /// What cannot be used.
    pub fn faults(&self) -> impl Iterator<Item = String> {
        let zero = [
            ("interval_ms", self.interval_ms == 0),
            ("checkpoint_links", self.checkpoint_links == 0),
            ("checkpoint_s", self.checkpoint_s == 0),
        ];
        zero.into_iter().filter(|(_, zero)| *zero).map(|(key, _)| format!("`audit.{key}` must be above 0"))
    }
}
