//! Rules about addresses. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::access::Actor;

/// Most rules of an organisation.
pub const RULES_MAX: usize = 256;
/// Longest label, in characters.
pub const LABEL_CHARS_MAX: usize = 255;

/// What a rule does with the addresses of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleType {
    /// Only addresses that a rule of this type names may come in, once there is one.
    Allow,
    /// Never, whatever else is allowed.
    Deny,
}

impl RuleType {
    /// As the table and the API write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    /// Reads one; `block` is an older name of `deny`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "allow" => Some(Self::Allow),
            "deny" | "block" => Some(Self::Deny),
            _ => None,
        }
    }
}

/// Whom a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppliesTo {
    /// Everybody.
    All,
    /// Humans.
    Humans,
    /// Agents.
    Agents,
}

impl AppliesTo {
    /// As the table and the API write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Humans => "humans",
            Self::Agents => "agents",
        }
    }

    /// Reads one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::All, Self::Humans, Self::Agents].into_iter().find(|one| one.as_str() == text)
    }

    /// What somebody is: humans or agents.
    #[must_use]
    pub fn of(actor: Actor) -> Self {
        match actor {
            Actor::User(_) => Self::Humans,
            Actor::Agent(_) => Self::Agents,
        }
    }

    fn includes(self, who: Self) -> bool {
        self == Self::All || self == who
    }
}

/// One rule, as it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpRule {
    /// What it does.
    pub rule_type: RuleType,
    /// With which addresses.
    pub network: IpNet,
    /// Of whom.
    pub applies_to: AppliesTo,
}

/// The refusal. It names no rule: what is allowed is not for those who are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Access denied: the organisation's IP rules do not let requests from this address in")]
pub struct Refused;

/// All rules of an organisation. A deny rule wins over every allow rule; where any allow rule is for somebody, one of them must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet(pub Vec<IpRule>);

impl RuleSet {
    /// Whether one of `who` may come from there. An address that is not known is in no network.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check(&self, ip: Option<IpAddr>, who: AppliesTo) -> Result<(), Refused> {
        let (mut any_allow, mut allowed) = (false, false);
        for rule in self.0.iter().filter(|rule| rule.applies_to.includes(who)) {
            let matches = ip.is_some_and(|ip| rule.network.contains(&ip.to_canonical()));
            match rule.rule_type {
                RuleType::Deny if matches => return Err(Refused),
                RuleType::Deny => {}
                RuleType::Allow => {
                    any_allow = true;
                    allowed |= matches;
                }
            }
        }
        if any_allow && !allowed { Err(Refused) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::policy::parse_network;

    fn set(rules: &[(&str, &str, &str)]) -> RuleSet {
        let rule = |(rule_type, network, applies_to): &(&str, &str, &str)| IpRule {
            rule_type: RuleType::parse(rule_type).unwrap(),
            network: parse_network(network).unwrap(),
            applies_to: AppliesTo::parse(applies_to).unwrap(),
        };
        RuleSet(rules.iter().map(rule).collect())
    }

    #[test]
    fn threat_09_deny_wins_and_one_allow_closes_the_rest() {
        use AppliesTo::{Agents, Humans};
        let allow = ("allow", "10.0.0.0/8", "all");
        let deny = ("deny", "10.9.0.0/16", "all");
        let agents_only = ("allow", "192.0.2.0/24", "agents");
        /// Rules, address, whether a human and an agent come in.
        type Case<'a> = (&'a [(&'a str, &'a str, &'a str)], Option<&'a str>, bool, bool);
        let table: [Case; 14] = [
            (&[], Some("203.0.113.9"), true, true),
            (&[], None, true, true),
            (&[allow], Some("10.1.1.1"), true, true),
            (&[allow], Some("203.0.113.9"), false, false),
            (&[allow], None, false, false),
            (&[deny], Some("10.9.1.1"), false, false),
            (&[deny], Some("203.0.113.9"), true, true),
            (&[deny], None, true, true),
            (&[allow, deny], Some("10.9.1.1"), false, false),
            (&[deny, allow], Some("10.1.1.1"), true, true),
            (&[agents_only], Some("203.0.113.9"), true, false),
            (&[agents_only, allow], Some("192.0.2.7"), false, true),
            (&[("block", "2001:db8::/32", "humans")], Some("2001:db8::1"), false, true),
            (&[("deny", "::ffff:10.0.0.0/104", "all")], Some("::ffff:10.1.1.1"), false, false),
        ];
        for (rules, ip, human, agent) in table {
            let ip = ip.map(|ip| ip.parse().unwrap());
            let set = set(rules);
            assert_eq!(set.check(ip, Humans).is_ok(), human, "human {rules:?} {ip:?}");
            assert_eq!(set.check(ip, Agents).is_ok(), agent, "agent {rules:?} {ip:?}");
        }
        assert_eq!(AppliesTo::parse("users"), None);
    }
}
