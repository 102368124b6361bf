//! Identifiers. Every id is a newtype, so that an agent's id cannot be passed where a vault's is meant.
//!
//! All of them are version 4 UUIDs: existing clients check the version nibble and refuse version 7.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random (version 4) id.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(s).map(Self)
            }
        }
    };
}

id!(/// An organisation: the boundary that nothing crosses.
    OrgId);
id!(/// A human.
    UserId);
id!(/// An agent.
    AgentId);
id!(/// A vault.
    VaultId);
id!(/// A webhook.
    WebhookId);
id!(/// A message to a webhook, under whose id it may come twice.
    DeliveryId);
id!(/// A freeze in force.
    FreezeId);
id!(/// A letter that is to be sent.
    MailId);
id!(/// A secret: stable over its versions.
    SecretId);
id!(/// An access policy.
    PolicyId);
id!(/// A share of a secret. Of those that anybody with the link may open, the id is the link's secret: 122 random bits.
    ShareId);
id!(/// An API key of a human.
    ApiKeyId);
id!(/// A signing key, that is one version of it.
    KeyId);
id!(/// A key-encryption (or MAC, or token-signing) key on the HSM's token.
    KekId);
id!(/// A rotation of the key that a vault's clients encrypt with.
    CmekRotationId);
id!(/// An intent: what the contract calls a transaction.
    IntentId);
id!(/// One holder's claim of an idempotency key.
    ClaimToken);
id!(/// One signed transaction for a slot.
    AttemptId);
id!(/// An audit event.
    EventId);
id!(/// A simulation.
    SimulationId);
id!(/// A registered contract ABI.
    AbiId);
id!(/// One running daemon.
    DaemonId);
id!(/// An invitation to join an organisation.
    InvitationId);
id!(/// A rule about addresses that requests may come from.
    IpRuleId);
