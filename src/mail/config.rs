//! `[mail]` of the configuration.

use std::net::IpAddr;
use std::path::PathBuf;

use lettre::message::Mailbox;
use serde::Deserialize;
use url::Url;

use crate::config::Secret;

/// `[mail]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailConfig {
    /// The server that sends: `smtps://user:password@host`, or `smtp://user:password@host?tls=required` for STARTTLS. Without it letters
    /// are files in `outbox`. Environment: `INTENTD_MAIL_SMTP_URL`.
    pub smtp_url: Option<Secret>,
    /// Whom letters are from. Environment: `INTENTD_MAIL_FROM`.
    pub from: String,
    /// Where letters are written while there is no server. Environment: `INTENTD_MAIL_OUTBOX`.
    pub outbox: Option<PathBuf>,
}

impl Default for MailConfig {
    fn default() -> Self {
        Self { smtp_url: None, from: "intentd <intentd@localhost>".to_owned(), outbox: None }
    }
}

impl MailConfig {
    /// What is wrong with it, without showing the URL.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.from.parse::<Mailbox>().is_err() {
            faults.push("`mail.from` (environment: INTENTD_MAIL_FROM) must be an address such as `intentd <intentd@example.com>`".to_owned());
        }
        if self.smtp_url.as_ref().is_some_and(|url| !is_safe(url.expose())) {
            faults.push(
                "`mail.smtp_url` (environment: INTENTD_MAIL_SMTP_URL) must be smtps://user:password@host or \
                 smtp://user:password@host?tls=required; without TLS only on this machine (smtp://localhost:25)"
                    .to_owned(),
            );
        }
        faults
    }

    /// Where letters are written: as configured, or in this user's or the service's own folder for state.
    #[must_use]
    pub fn outbox_folder(&self) -> PathBuf {
        if let Some(folder) = &self.outbox {
            return folder.clone();
        }
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // systemd's StateDirectory=, then the XDG base directories.
        let state = variable("STATE_DIRECTORY")
            .or_else(|| variable("XDG_STATE_HOME").map(|folder| folder.join("intentd")))
            .or_else(|| variable("HOME").map(|folder| folder.join(".local/state/intentd")));
        state.unwrap_or_else(|| PathBuf::from("/var/lib/intentd")).join("mail")
    }
}

/// Passwords and links that let somebody in are not sent in the clear over a network.
fn is_safe(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
    // For a scheme that is not the web's, the parser takes an address for a name.
    let Some(host) = url.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']')) else {
        return false;
    };
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match (url.scheme(), tls.as_deref()) {
        ("smtps", None) | ("smtp", Some("required")) => true,
        ("smtp", None) => here,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_23_letters_leave_this_machine_under_tls_only() {
        let table = [
            ("smtps://u:p@mail.example", true),
            ("smtp://u:p@mail.example?tls=required", true),
            ("smtp://u:p@mail.example", false),
            ("smtp://mail.example:25", false),
            ("smtp://u:p@mail.example?tls=opportunistic", false),
            ("smtp://127.0.0.1:2525", true),
            ("smtp://[::1]:2525", true),
            ("smtp://localhost", true),
            ("smtp://127.0.0.1.example", false),
            ("smtp:", false),
            ("http://mail.example", false),
            ("mail.example", false),
        ];
        for (url, good) in table {
            let config = MailConfig { smtp_url: Some(url.to_owned().into()), ..MailConfig::default() };
            assert_eq!(config.faults().is_empty(), good, "{url}");
            assert!(!format!("{config:?} {:?}", config.faults()).contains("mail.example"), "{url}");
        }
        assert_eq!(MailConfig { from: "nobody".to_owned(), ..MailConfig::default() }.faults().len(), 1);
    }
}
