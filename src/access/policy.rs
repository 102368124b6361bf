//! What a policy grants, and under which conditions. Nothing is granted that no policy names.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use time::OffsetDateTime;

use super::glob::Glob;
use super::path::SecretPath;
use super::window::{TimeWindow, WindowError};

/// Most entries of an `ip_allowlist`.
pub const NETWORKS_MAX: usize = 256;

/// What may be done with a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read the value, see it in lists, sign with it.
    Read,
    /// Store a new version.
    Write,
    /// Delete it. Implied by [`Permission::Write`].
    Delete,
}

impl Permission {
    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
        }
    }

    /// Reads one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Delete].into_iter().find(|p| p.as_str() == text)
    }

    fn is_granted_by(self, granted: Self) -> bool {
        self == granted || (self == Self::Delete && granted == Self::Write)
    }
}

/// What conditions look at.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The time.
    pub now: OffsetDateTime,
    /// Where the request came from, if that is known.
    pub ip: Option<IpAddr>,
}

/// One policy, for the principal it was loaded for.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The paths.
    pub pattern: Glob,
    /// What it grants.
    pub permissions: Vec<Permission>,
    /// All of them must hold.
    pub conditions: Conditions,
    /// When it stops.
    pub expires_at: Option<OffsetDateTime>,
    /// A manager made it. Agents and members grant on vaults of their own, but open no signing keys with it: an agent that may not read
    /// a key could otherwise let somebody read it who is bound by no guardrail, and a member put a second key before an agent.
    pub opens_signing: bool,
}

impl Rule {
    /// Whether it grants this permission on this path, now and from there.
    #[must_use]
    pub fn grants(&self, path: &SecretPath, permission: Permission, at: &Circumstances) -> bool {
        (self.opens_signing || !path.is_signing_path())
            && self.permissions.iter().any(|granted| permission.is_granted_by(*granted))
            && self.expires_at.is_none_or(|end| at.now < end)
            && self.pattern.matches(path)
            && self.conditions.hold(at)
    }
}

/// The conditions of a policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    ip_allowlist: Option<Vec<IpNet>>,
    time_window: Option<TimeWindow>,
}

/// Why conditions cannot be taken. The text is a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// Not an object.
    #[error("conditions must be an object")]
    NotAnObject,
    /// A condition that is not known here. Ignoring it would widen the access.
    #[error("condition \"{0}\" is not known; known are ip_allowlist and time_window")]
    Unknown(String),
    /// Not a list of networks.
    #[error(
        "conditions.ip_allowlist must be a list of 1 to {NETWORKS_MAX} networks such as \"10.0.0.0/8\" or single addresses"
    )]
    IpAllowlist,
    /// Not a window.
    #[error(transparent)]
    Window(#[from] WindowError),
}

impl Conditions {
    /// Reads the conditions of a request or a row. `null`, and members that are `null`, are no conditions.
    ///
    /// # Errors
    /// [`ConditionError`]: what is not understood is never taken for "no restriction".
    pub fn parse(value: &Value) -> Result<Self, ConditionError> {
        let members = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(members) => members,
            _ => return Err(ConditionError::NotAnObject),
        };
        let mut conditions = Self::default();
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "ip_allowlist" => conditions.ip_allowlist = Some(networks(value).ok_or(ConditionError::IpAllowlist)?),
                "time_window" => {
                    let members = value.as_object().ok_or(WindowError::Form)?;
                    conditions.time_window = Some(TimeWindow::parse(members)?);
                }
                _ => return Err(ConditionError::Unknown(name.chars().take(64).collect())),
            }
        }
        Ok(conditions)
    }

    /// Whether all of them hold. An unknown source address is on no list.
    #[must_use]
    pub fn hold(&self, at: &Circumstances) -> bool {
        let ip = self
            .ip_allowlist
            .as_ref()
            .is_none_or(|nets| at.ip.is_some_and(|ip| nets.iter().any(|net| net.contains(&ip))));
        ip && self.time_window.as_ref().is_none_or(|window| window.contains(at.now))
    }
}

/// Networks or single addresses.
fn networks(value: &Value) -> Option<Vec<IpNet>> {
    let list = value.as_array().filter(|list| (1..=NETWORKS_MAX).contains(&list.len()))?;
    list.iter().map(|entry| parse_network(entry.as_str()?)).collect()
}

/// A network, or a single address as the network of itself. IPv4-mapped addresses are written as IPv4, as peers are.
#[must_use]
pub fn parse_network(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(IpNet::V6(net)) if net.prefix_len() >= 96 && net.addr().to_ipv4_mapped().is_some() => {
            IpNet::new(net.addr().to_canonical(), net.prefix_len() - 96).ok()
        }
        Ok(net) => Some(net),
        Err(_) => text.parse::<IpAddr>().ok().map(|ip| IpNet::from(ip.to_canonical())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use time::macros::datetime;

    fn at(ip: Option<&str>, now: OffsetDateTime) -> Circumstances {
        Circumstances { now, ip: ip.map(|ip| ip.parse().unwrap()) }
    }

    fn rule(pattern: &str, permissions: &[Permission], conditions: Value) -> Rule {
        Rule {
            pattern: Glob::parse(pattern).unwrap(),
            permissions: permissions.to_vec(),
            conditions: Conditions::parse(&conditions).unwrap(),
            expires_at: Some(datetime!(2030-01-01 0:00 UTC)),
            opens_signing: true,
        }
    }

    #[test]
    fn write_implies_delete_and_nothing_else_is_implied() {
        use Permission::{Delete, Read, Write};
        let noon = at(None, datetime!(2026-11-21 12:00 UTC));
        let path = SecretPath::parse("a/b").unwrap();
        for granted in [Read, Write, Delete] {
            for asked in [Read, Write, Delete] {
                let expected = granted == asked || (granted, asked) == (Write, Delete);
                assert_eq!(
                    rule("a/*", &[granted], Value::Null).grants(&path, asked, &noon),
                    expected,
                    "{granted:?} {asked:?}"
                );
            }
        }
    }

    #[test]
    fn a_rule_needs_its_path_its_time_and_its_conditions() {
        let path = SecretPath::parse("a/b").unwrap();
        let r = rule("a/*", &[Permission::Read], json!({"ip_allowlist": ["10.0.0.0/8"]}));
        let day = datetime!(2026-11-21 12:00 UTC);
        assert!(r.grants(&path, Permission::Read, &at(Some("10.1.2.3"), day)));
        assert!(!r.grants(&path, Permission::Read, &at(Some("11.1.2.3"), day)));
        assert!(!r.grants(&path, Permission::Read, &at(None, day)), "an unknown address is on no list");
        assert!(!r.grants(&SecretPath::parse("a/b/c").unwrap(), Permission::Read, &at(Some("10.1.2.3"), day)));
        assert!(r.grants(&path, Permission::Read, &at(Some("10.1.2.3"), datetime!(2029-12-31 23:59:59 UTC))));
        assert!(
            !r.grants(&path, Permission::Read, &at(Some("10.1.2.3"), datetime!(2030-01-01 0:00 UTC))),
            "the end is exclusive"
        );
    }

    #[test]
    fn what_an_agent_grants_opens_no_signing_key() {
        let noon = at(None, datetime!(2026-11-21 12:00 UTC));
        let id = "7f9c24e8-3b12-4c5d-8e6f-0123456789ab";
        for (path, signing) in [
            ("keys/base-signer", true),
            ("wallets/a/b", true),
            (&format!("agents/{id}/keys/base"), true),
            ("keys", false),
            ("api/keys/x", false),
        ] {
            let path = SecretPath::parse(path).unwrap();
            for opens_signing in [false, true] {
                let rule = Rule { opens_signing, ..rule("**", &[Permission::Read, Permission::Write], Value::Null) };
                for permission in [Permission::Read, Permission::Write, Permission::Delete] {
                    assert_eq!(
                        rule.grants(&path, permission, &noon),
                        opens_signing || !signing,
                        "{path} {opens_signing}"
                    );
                }
            }
        }
    }

    #[test]
    fn threat_28_mapped_addresses_are_the_addresses_they_map() {
        let day = datetime!(2026-11-21 12:00 UTC);
        for list in
            [json!(["::ffff:10.0.0.0/104"]), json!(["10.0.0.0/8"]), json!(["::ffff:10.1.2.3"]), json!(["10.1.2.3"])]
        {
            let conditions = Conditions::parse(&json!({"ip_allowlist": list})).unwrap();
            assert!(conditions.hold(&at(Some("10.1.2.3"), day)), "{list}");
            assert!(!conditions.hold(&at(Some("11.1.2.3"), day)), "{list}");
        }
    }

    #[test]
    fn conditions_that_are_not_understood_are_refused() {
        let refused = [
            json!([]),
            json!("x"),
            json!({"days": ["mon"]}),
            json!({"environment_in": ["prod"]}),
            json!({"ip_allowlist": []}),
            json!({"ip_allowlist": "10.0.0.0/8"}),
            json!({"ip_allowlist": ["10.0.0.0/33"]}),
            json!({"ip_allowlist": [1]}),
            json!({"time_window": {"after": "08:00", "timezone": "Mars/Base"}}),
            json!({"cron_expr": "* * * * *"}),
            json!({"time_window": "08:00-20:00"}),
        ];
        for value in refused {
            assert!(Conditions::parse(&value).is_err(), "{value}");
        }
        for value in [json!(null), json!({}), json!({"ip_allowlist": null, "time_window": null})] {
            assert_eq!(Conditions::parse(&value), Ok(Conditions::default()), "{value}");
        }
    }
}
