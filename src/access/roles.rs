//! Who may do what in an organisation, as one table. Pure.
//!
//! What concerns one vault is decided by its policies and its owner (see [`Grants`](super::Grants)); this is about everything else.

use super::{Actor, Principal, Role};

/// Who may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Every human of the organisation, and its agents, whatever their credential is limited to: the rest is decided by grants.
    Everybody,
    /// Every human of the organisation, and its agents; no human's key that is limited to paths.
    Unlimited,
    /// Every human of the organisation; no key that is limited to paths.
    Humans,
    /// Owners and admins.
    Managers,
    /// Owners.
    Owners,
    /// Whoever runs the installation: humans that `intentd admin` made platform admins, whatever their role.
    Platform,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident: $who:ident, $text:literal;)*) => {
        /// Something that a principal may want to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $name,)* }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Who may.
            #[must_use]
            pub fn who(self) -> Who {
                match self { $(Self::$name => Who::$who,)* }
            }

            /// As the audit trail names it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

actions! {
    /// Looks at agents: an agent at itself.
    AgentRead: Unlimited, "agent.read";
    /// Looks at an agent's signing keys and what they hold.
    SigningKeyRead: Unlimited, "signing_key.read";
    /// Reads an agent's transactions, their signed bytes included.
    TransactionRead: Unlimited, "transaction.read";
    /// Cancels agents' transactions and speeds them up; an agent does so with its own.
    TransactionReplace: Managers, "transaction.replace";
    /// Asks for the vault of the agents' identity keys, which is made at the first time.
    AgentKeysVaultRead: Unlimited, "agent_keys_vault.read";
    /// Lists the policies of a vault.
    PolicyList: Unlimited, "policy.list";
    /// Lists, answers and revokes shares: the id of many a share is all that opens it.
    ShareManage: Unlimited, "share.manage";
    /// Makes a vault, and owns it.
    VaultCreate: Unlimited, "vault.create";
    /// Restores a deleted secret.
    SecretRestore: Managers, "secret.restore";
    /// Registers an agent.
    AgentRegister: Managers, "agent.register";
    /// Changes an agent, its guardrails included.
    AgentUpdate: Managers, "agent.update";
    /// Deletes an agent.
    AgentDeactivate: Managers, "agent.deactivate";
    /// Gives an agent a new key.
    AgentRotateKey: Managers, "agent.rotate_key";
    /// Gives an agent new identity keys.
    AgentRotateIdentityKeys: Managers, "agent.rotate_identity_keys";
    /// Makes, rotates and deactivates an agent's signing keys.
    SigningKeyManage: Managers, "signing_key.manage";
    /// Looks at their own account.
    AccountRead: Humans, "user.read";
    /// Changes their own account: name, password, second factor.
    AccountManage: Humans, "user.manage";
    /// Deletes their own account.
    AccountDelete: Humans, "user.delete";
    /// Makes, lists and revokes their own API keys.
    ApiKeyManage: Humans, "api_key.manage";
    /// Lets a device in as themselves, or turns it away.
    DeviceApprove: Humans, "device.approve";
    /// Lists the humans of the organisation.
    MemberList: Humans, "member.list";
    /// Invites a human.
    MemberInvite: Managers, "member.invite";
    /// Changes a human's role, or removes one.
    MemberManage: Managers, "member.manage";
    /// Looks at lanes: a key on a chain, its next nonce, and why it waits.
    LaneRead: Humans, "lane.read";
    /// Lets a frozen lane go on.
    LaneResume: Managers, "lane.resume";
    /// Reads the organisation's settings, limits and use.
    OrgRead: Humans, "org.read";
    /// Stops the organisation, an agent, a key or a chain from signing: whoever sees the fire pulls the switch.
    FreezeCreate: Humans, "freeze.create";
    /// Looks at what is frozen.
    FreezeList: Humans, "freeze.list";
    /// Lets it sign again.
    FreezeLift: Managers, "freeze.lift";
    /// Makes, changes and looks at webhooks and what they have not taken.
    WebhookManage: Managers, "webhook.manage";
    /// Changes the organisation's settings.
    OrgUpdate: Owners, "org.update";
    /// Lists the contract ABIs that name errors and functions.
    ContractAbiList: Humans, "contract_abi.list";
    /// Registers and removes them.
    ContractAbiManage: Managers, "contract_abi.manage";
    /// Reads the rules about addresses that requests may come from.
    IpRuleList: Humans, "ip_rule.list";
    /// Changes them.
    IpRuleManage: Managers, "ip_rule.manage";
    /// Reads the audit trail.
    AuditRead: Humans, "audit.read";
    /// Has it proven that nothing in it was changed.
    AuditVerify: Managers, "audit.verify";
    /// Takes all of it away as a file.
    AuditExport: Managers, "audit.export";
    /// Turns customer-managed encryption on or off, and rotates its keys.
    CmekManage: Managers, "cmek.manage";
    /// Changes the installation's chains.
    ChainManage: Platform, "chain.manage";
    /// Changes the installation's settings and the organisations' limits.
    PlatformManage: Platform, "platform.manage";
}

impl Who {
    /// Whether `principal` is one of them. A human's key that is limited to paths is for secrets: it is one of everybody, and of
    /// nobody else.
    #[must_use]
    pub fn includes(self, principal: &Principal) -> bool {
        if principal.is_limited() {
            return self == Self::Everybody;
        }
        let role = match principal.actor {
            Actor::User(_) => principal.role,
            Actor::Agent(_) => None,
        };
        match self {
            Self::Everybody | Self::Unlimited => true,
            Self::Humans => role.is_some(),
            Self::Managers => role >= Some(Role::Admin),
            Self::Owners => role >= Some(Role::Owner),
            Self::Platform => role.is_some() && principal.platform_admin,
        }
    }

    /// For the refusal of `principal`.
    #[must_use]
    pub fn refusal(self, principal: &Principal) -> &'static str {
        if principal.is_limited() {
            return "Insufficient permissions: the scopes of this API key limit it to secrets at some paths; use a key without such scopes";
        }
        match self {
            Self::Everybody | Self::Unlimited => "Insufficient permissions",
            Self::Humans => "Insufficient permissions: only humans may do this",
            Self::Managers => "Insufficient permissions: only an owner or admin of the organisation may do this",
            Self::Owners => "Insufficient permissions: only an owner of the organisation may do this",
            Self::Platform => {
                "Insufficient permissions: only a platform admin may do this; `intentd admin platform-admin` makes one"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::access::glob::Glob;
    use crate::access::principal::Proof;
    use crate::access::{Credential, KeyRoot};
    use crate::ids::{AgentId, ApiKeyId, OrgId, UserId};

    fn principal(actor: Actor, role: Option<Role>, platform_admin: bool, limited: bool) -> Principal {
        Principal {
            org_id: OrgId::random(),
            actor,
            role,
            platform_admin,
            credential: Credential::Key(KeyRoot::User(ApiKeyId::random())),
            ip: None,
            ceiling: limited.then(|| Arc::from([Glob::parse("**").unwrap()])),
            _proof: Proof,
            _place: None,
        }
    }

    /// Agent, member, admin, owner, and a member who is a platform admin: `x` may.
    const TABLE: &[(&str, &str)] = &[
        ("agent.read", "xxxxx"),
        ("signing_key.read", "xxxxx"),
        ("transaction.read", "xxxxx"),
        ("transaction.replace", "--xx-"),
        ("agent_keys_vault.read", "xxxxx"),
        ("policy.list", "xxxxx"),
        ("share.manage", "xxxxx"),
        ("vault.create", "xxxxx"),
        ("secret.restore", "--xx-"),
        ("agent.register", "--xx-"),
        ("agent.update", "--xx-"),
        ("agent.deactivate", "--xx-"),
        ("agent.rotate_key", "--xx-"),
        ("agent.rotate_identity_keys", "--xx-"),
        ("signing_key.manage", "--xx-"),
        ("user.read", "-xxxx"),
        ("user.manage", "-xxxx"),
        ("user.delete", "-xxxx"),
        ("api_key.manage", "-xxxx"),
        ("device.approve", "-xxxx"),
        ("member.list", "-xxxx"),
        ("member.invite", "--xx-"),
        ("member.manage", "--xx-"),
        ("lane.read", "-xxxx"),
        ("lane.resume", "--xx-"),
        ("org.read", "-xxxx"),
        ("freeze.create", "-xxxx"),
        ("freeze.list", "-xxxx"),
        ("freeze.lift", "--xx-"),
        ("webhook.manage", "--xx-"),
        ("org.update", "---x-"),
        ("contract_abi.list", "-xxxx"),
        ("contract_abi.manage", "--xx-"),
        ("ip_rule.list", "-xxxx"),
        ("ip_rule.manage", "--xx-"),
        ("audit.read", "-xxxx"),
        ("audit.verify", "--xx-"),
        ("audit.export", "--xx-"),
        ("cmek.manage", "--xx-"),
        ("chain.manage", "----x"),
        ("platform.manage", "----x"),
    ];

    #[test]
    fn everybody_may_what_the_table_says_and_nothing_else() {
        let human = || Actor::User(UserId::random());
        let agent = || Actor::Agent(AgentId::random());
        let everybody = [
            principal(agent(), None, false, false),
            principal(human(), Some(Role::Member), false, false),
            principal(human(), Some(Role::Admin), false, false),
            principal(human(), Some(Role::Owner), false, false),
            principal(human(), Some(Role::Member), true, false),
        ];
        for action in Action::ALL {
            let row = TABLE.iter().find(|(name, _)| *name == action.as_str());
            let (_, expected) = row.unwrap_or_else(|| panic!("{} is not in the table", action.as_str()));
            let may: String = everybody.iter().map(|who| if action.who().includes(who) { 'x' } else { '-' }).collect();
            assert_eq!(may, *expected, "{}", action.as_str());
        }
        assert_eq!(TABLE.len(), Action::ALL.len(), "a row of the table is no action any more");
        // Whatever else an agent's row may say of it, it is an agent.
        let strange = principal(agent(), Some(Role::Owner), true, false);
        for action in Action::ALL.iter().filter(|action| !matches!(action.who(), Who::Everybody | Who::Unlimited)) {
            assert!(!action.who().includes(&strange), "{}", action.as_str());
        }
        // Running the installation gives no right in an organisation, and owning one none over the installation.
        let both = principal(human(), Some(Role::Owner), true, false);
        assert!(Action::ALL.iter().all(|action| action.who().includes(&both)));
    }

    #[test]
    fn a_key_that_is_limited_to_paths_manages_nothing_whoever_holds_it() {
        let human = Actor::User(UserId::random());
        for role in [Role::Member, Role::Admin, Role::Owner] {
            let (limited, free) = (principal(human, Some(role), true, true), principal(human, Some(role), true, false));
            for action in Action::ALL {
                let allowed = action.who().includes(&limited);
                assert_eq!(allowed, action.who() == Who::Everybody, "{} by a limited key of {role:?}", action.as_str());
                assert!(!allowed || action.who().includes(&free), "{}", action.as_str());
            }
            for action in [
                Action::AccountRead,
                Action::AccountManage,
                Action::AccountDelete,
                Action::ApiKeyManage,
                Action::DeviceApprove,
                Action::VaultCreate,
            ] {
                assert!(action.who().includes(&free), "{} by {role:?}", action.as_str());
            }
        }
    }

    #[test]
    fn agents_have_no_account_and_manage_nothing() {
        let agent = principal(Actor::Agent(AgentId::random()), None, false, false);
        for action in Action::ALL {
            let open = matches!(action.who(), Who::Everybody | Who::Unlimited);
            assert_eq!(action.who().includes(&agent), open, "{}", action.as_str());
        }
    }
}
