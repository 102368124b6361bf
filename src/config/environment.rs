//! Which environment variable sets which key, and as what.

use toml::{Table, Value};

/// What a variable's text becomes. A text that is no number or flag stays one: the configuration then says what it should have been.
#[derive(Clone, Copy)]
enum Kind {
    /// Kept as it is, also when it looks like a number.
    Text,
    /// An integer.
    Number,
    /// `true` or `false`.
    Flag,
}

/// Variables, the keys they set, and as what. The order is the order of the README's table.
const ENVIRONMENT: &[(&str, &str, Kind)] = &[
    ("INTENTD_ENVIRONMENT", "environment", Kind::Text),
    ("INTENTD_LISTEN", "listen", Kind::Text),
    ("INTENTD_READY_FILE", "ready_file", Kind::Text),
    ("INTENTD_LOG", "log", Kind::Text),
    ("INTENTD_LOG_FORMAT", "log_format", Kind::Text),
    ("INTENTD_METRICS_LISTEN", "metrics.listen", Kind::Text),
    ("INTENTD_METRICS_SAMPLE_S", "metrics.sample_s", Kind::Number),
    ("INTENTD_OTLP_ENDPOINT", "telemetry.otlp_endpoint", Kind::Text),
    ("INTENTD_DRAIN_S", "drain_s", Kind::Number),
    ("INTENTD_DATABASE_URL", "database.url", Kind::Text),
    ("INTENTD_DATABASE_MAX_CONNECTIONS", "database.max_connections", Kind::Number),
    ("INTENTD_HSM_MODULE", "hsm.module", Kind::Text),
    ("INTENTD_HSM_TOKEN_LABEL", "hsm.token_label", Kind::Text),
    ("INTENTD_HSM_TOKEN_SERIAL", "hsm.token_serial", Kind::Text),
    ("INTENTD_HSM_PIN_FILE", "hsm.pin.file", Kind::Text),
    ("INTENTD_HSM_WORKERS", "hsm.workers", Kind::Number),
    ("INTENTD_HSM_CUSTODY", "hsm.custody", Kind::Text),
    ("INTENTD_KEKS_POLL_MS", "keks.poll_ms", Kind::Number),
    ("INTENTD_KEKS_GRACE_S", "keks.grace_s", Kind::Number),
    ("INTENTD_AUDIT_CHECKPOINT_FILE", "audit.checkpoint_file", Kind::Text),
    ("INTENTD_AUDIT_CHECKPOINT_LINKS", "audit.checkpoint_links", Kind::Number),
    ("INTENTD_AUDIT_CHECKPOINT_S", "audit.checkpoint_s", Kind::Number),
    ("INTENTD_AUDIT_INTERVAL_MS", "audit.interval_ms", Kind::Number),
    ("INTENTD_CHAINS_FILE", "chains.file", Kind::Text),
    ("INTENTD_REQUIRE_SIMULATION", "intents.require_simulation", Kind::Flag),
    ("INTENTD_SIMULATION_BACKEND", "simulation.backend", Kind::Text),
    ("INTENTD_SIMULATION_URL", "simulation.base_url", Kind::Text),
    ("INTENTD_SIMULATION_ACCOUNT", "simulation.account", Kind::Text),
    ("INTENTD_SIMULATION_PROJECT", "simulation.project", Kind::Text),
    ("INTENTD_SIMULATION_ACCESS_KEY", "simulation.access_key", Kind::Text),
    ("INTENTD_SIMULATION_ACCESS_KEY_FILE", "simulation.access_key_file", Kind::Text),
    ("INTENTD_SIMULATION_SAVE", "simulation.save", Kind::Flag),
    ("INTENTD_SIMULATOR_LISTEN", "simulator.listen", Kind::Text),
    ("INTENTD_SIMULATOR_ACCOUNT", "simulator.account", Kind::Text),
    ("INTENTD_SIMULATOR_PROJECT", "simulator.project", Kind::Text),
    ("INTENTD_SIMULATOR_ACCESS_KEY", "simulator.access_key", Kind::Text),
    ("INTENTD_SIMULATOR_ACCESS_KEY_FILE", "simulator.access_key_file", Kind::Text),
    ("INTENTD_CLAIM_LEASE_S", "intents.claim_lease_s", Kind::Number),
    ("INTENTD_TRACKER_INTERVAL_MS", "intents.tracker_interval_ms", Kind::Number),
    ("INTENTD_REBROADCAST_S", "intents.rebroadcast_s", Kind::Number),
    ("INTENTD_FOREIGN_FILL_BLOCKS", "intents.foreign_fill_blocks", Kind::Number),
    ("INTENTD_EXCLUSIVE_KEYS", "intents.exclusive_keys", Kind::Flag),
    ("INTENTD_LANE_DEPTH_MAX", "intents.lane_depth_max", Kind::Number),
    ("INTENTD_VAULTS_KEPT_VERSIONS", "vaults.kept_versions", Kind::Number),
    ("INTENTD_TRUSTED_PROXIES", "limits.trusted_proxies", Kind::Text),
    ("INTENTD_CORS_ALLOWED_ORIGINS", "cors.allowed_origins", Kind::Text),
    ("INTENTD_TLS_CERT_FILE", "tls.cert_file", Kind::Text),
    ("INTENTD_TLS_KEY_FILE", "tls.key_file", Kind::Text),
    ("INTENTD_TLS_CLIENT_AUTH", "tls.client_auth", Kind::Text),
    ("INTENTD_TLS_CLIENT_FINGERPRINT_HEADER", "tls.client_fingerprint_header", Kind::Text),
    ("INTENTD_TLS_CLIENT_CERT_HEADER", "tls.client_cert_header", Kind::Text),
    ("INTENTD_OIDC_AUDIENCE", "oidc.audience", Kind::Text),
    ("INTENTD_OUTBOUND_ALLOW_PRIVATE", "outbound.allow_private", Kind::Text),
    ("INTENTD_LIMITS_IP_BURST", "limits.ip_burst", Kind::Number),
    ("INTENTD_LIMITS_AUTH_BURST", "limits.auth_burst", Kind::Number),
    ("INTENTD_PUBLIC_URL", "public_url", Kind::Text),
    ("INTENTD_SIGNUP_ENABLED", "signup.enabled", Kind::Flag),
    ("INTENTD_MAIL_SMTP_URL", "mail.smtp_url", Kind::Text),
    ("INTENTD_MAIL_FROM", "mail.from", Kind::Text),
    ("INTENTD_MAIL_OUTBOX", "mail.outbox", Kind::Text),
];

/// Prefix of the variables that carry RPC URLs.
const RPC_URL_PREFIX: &str = "INTENTD_RPC_URL_";

/// Variables that tools and the command line read, not the configuration.
const FOR_OTHERS: &[&str] = &[
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
    "INTENTD_SIMULATOR_URL",
    "INTENTD_METRICS_URL",
];

/// Sets the key of `variable` in `table`, if it has one.
pub(super) fn apply(table: &mut Table, variable: &str, value: String) {
    if let Some(chain) = variable.strip_prefix(RPC_URL_PREFIX) {
        let chain = chain.to_ascii_lowercase().replace('_', "-");
        set(table, &format!("chains.rpc_urls.{chain}"), Value::String(value));
    } else if let Some((_, key, kind)) = ENVIRONMENT.iter().find(|(name, ..)| *name == variable) {
        set(table, key, kind.of(value));
    }
}

/// The variable that sets `key`.
pub(super) fn variable_of(key: &str) -> Option<&'static str> {
    ENVIRONMENT.iter().find(|(_, k, _)| *k == key).map(|(variable, ..)| *variable)
}

/// Whether a variable looks like ours and is not: most likely a typing error.
pub(super) fn is_unknown(variable: &str) -> bool {
    variable.starts_with("INTENTD_")
        && !variable.starts_with(RPC_URL_PREFIX)
        && !ENVIRONMENT.iter().any(|(name, ..)| *name == variable)
        && !FOR_OTHERS.contains(&variable)
}

impl Kind {
    fn of(self, text: String) -> Value {
        match (self, text.parse::<i64>(), text.parse::<bool>()) {
            (Self::Number, Ok(number), _) => Value::Integer(number),
            (Self::Flag, _, Ok(flag)) => Value::Boolean(flag),
            _ => Value::String(text),
        }
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

    #[test]
    fn a_texts_digits_stay_text_and_numbers_and_flags_become_such() {
        let mut table = Table::new();
        for (variable, value) in [
            ("INTENTD_HSM_TOKEN_LABEL", "007"),
            ("INTENTD_MAIL_OUTBOX", "true"),
            ("INTENTD_DRAIN_S", "7"),
            ("INTENTD_SIGNUP_ENABLED", "true"),
            ("INTENTD_HSM_WORKERS", "many"),
            ("INTENTD_RPC_URL_BASE_SEPOLIA", "1"),
            ("INTENTD_NO_SUCH", "1"),
        ] {
            apply(&mut table, variable, value.to_owned());
        }
        let expected: Table =
            "drain_s = 7\n[hsm]\ntoken_label = \"007\"\nworkers = \"many\"\n[mail]\noutbox = \"true\"\n\
            [signup]\nenabled = true\n[chains.rpc_urls]\nbase-sepolia = \"1\""
                .parse()
                .unwrap();
        assert_eq!(table, expected);
        assert!(is_unknown("INTENTD_NO_SUCH") && !is_unknown("INTENTD_URL") && !is_unknown("PATH"));
    }
}
