//! All that decides what one principal may do in one vault. Pure.

use super::glob::Glob;
use super::policy::{Circumstances, Permission, Rule};
use super::{Denial, SecretPath};

/// What one principal may do in one vault, as read from the database.
#[derive(Clone, Debug)]
pub struct Grants {
    /// The vault is the principal's organisation's, and an agent that is bound to vaults is bound to this one too.
    pub(super) bound: bool,
    /// Only the daemon writes to the vault.
    pub(super) reserved: bool,
    /// An agent, or a human's key, whose scopes are all path globs never gets beyond them.
    pub(super) ceiling: Option<Vec<Glob>>,
    /// The principal's policies on the vault.
    pub(super) rules: Vec<Rule>,
    /// It made the vault, or manages the organisation.
    pub(super) owner: bool,
    /// The credential is a human's key that is limited to paths.
    pub(super) limited: bool,
    /// For conditions.
    pub(super) at: Circumstances,
}

impl Grants {
    /// What no grant gets an agent beyond: the vaults it is bound to, and its scopes.
    ///
    /// # Errors
    /// [`Denial`] by the first rule that refuses.
    pub fn check_limits(&self, path: &SecretPath) -> Result<(), Denial> {
        if !self.bound {
            return Err(Denial::NotBound);
        }
        if self.ceiling.as_ref().is_some_and(|globs| !globs.iter().any(|glob| glob.matches(path))) {
            return Err(Denial::OutsideScopes(path.clone()));
        }
        Ok(())
    }

    /// The decision.
    ///
    /// # Errors
    /// [`Denial`] by the first rule that refuses.
    pub fn check(&self, path: &SecretPath, permission: Permission) -> Result<(), Denial> {
        if self.reserved && permission != Permission::Read {
            return Err(Denial::Reserved);
        }
        self.check_limits(path)?;
        if self.owner || self.rules.iter().any(|rule| rule.grants(path, permission, &self.at)) {
            return Ok(());
        }
        Err(Denial::NoPolicy { permission, path: path.clone() })
    }

    /// Whether it may know the vault at all: its own, or one with a policy for it that has not ended.
    #[must_use]
    pub fn sees_vault(&self) -> bool {
        self.bound && (self.owner || self.rules.iter().any(|rule| rule.expires_at.is_none_or(|end| self.at.now < end)))
    }

    /// Whether a pattern lies within the scopes, so that granting it gives nothing that the scopes keep from the grantor.
    #[must_use]
    pub fn reaches_all_of(&self, pattern: &Glob) -> bool {
        self.bound && self.ceiling.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.covers(pattern)))
    }

    /// Whether it may manage the vault: its policies, and its end.
    #[must_use]
    pub fn manages_vault(&self) -> bool {
        self.bound && self.owner && !self.limited
    }
}

/// The ceiling that scopes put on an agent or on a human's key. Clients also send scopes of another kind (`vault:read`, `tx:sign`); one of those
/// among them, and the scopes are no ceiling. `*` alone has always meant everything.
#[must_use]
pub(super) fn ceiling(scopes: &[String]) -> Option<Vec<Glob>> {
    if scopes.is_empty() || scopes.iter().any(|scope| scope == "*") {
        return None;
    }
    scopes.iter().map(|scope| Glob::parse(scope).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::policy::Conditions;
    use time::macros::datetime;

    fn grants(bound: bool, scopes: &[&str], policy: Option<&str>, owner: bool) -> Grants {
        let rule = |pattern: &str| Rule {
            pattern: Glob::parse(pattern).unwrap(),
            permissions: vec![Permission::Read],
            conditions: Conditions::default(),
            expires_at: None,
            opens_signing: true,
        };
        Grants {
            bound,
            reserved: false,
            ceiling: ceiling(&scopes.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()),
            rules: policy.map(rule).into_iter().collect(),
            owner,
            limited: false,
            at: Circumstances { now: datetime!(2026-11-21 12:00 UTC), ip: None },
        }
    }

    #[test]
    fn nobody_writes_where_only_the_daemon_does() {
        let path = SecretPath::parse("a/b").unwrap();
        let reserved = Grants { reserved: true, ..grants(true, &[], None, true) };
        assert_eq!(reserved.check(&path, Permission::Read), Ok(()));
        for permission in [Permission::Write, Permission::Delete] {
            assert_eq!(reserved.check(&path, permission), Err(Denial::Reserved));
        }
    }

    #[test]
    fn every_restriction_intersects_and_nothing_is_granted_by_default() {
        /// Bound, scopes, policy, owner; allowed.
        type Case = (bool, &'static [&'static str], Option<&'static str>, bool, bool);
        let cases: [Case; 12] = [
            (true, &[], None, false, false),
            (true, &[], Some("a/*"), false, true),
            (true, &[], Some("b/*"), false, false),
            (true, &[], None, true, true),
            (false, &[], Some("a/*"), false, false),
            (false, &[], None, true, false),
            (true, &["b/*"], Some("a/*"), false, false),
            (true, &["b/*"], None, true, false),
            (true, &["b/*", "a/**"], Some("a/*"), false, true),
            (true, &["vault:read", "b/*"], Some("a/*"), false, true),
            (true, &["*"], Some("a/*"), false, true),
            (true, &["*"], None, false, false),
        ];
        let path = SecretPath::parse("a/b").unwrap();
        for (bound, scopes, policy, owner, allowed) in cases {
            let decision = grants(bound, scopes, policy, owner).check(&path, Permission::Read);
            assert_eq!(
                decision.is_ok(),
                allowed,
                "bound {bound}, scopes {scopes:?}, policy {policy:?}, owner {owner}: {decision:?}"
            );
        }
    }
}
