//! Signing keys: which one an agent's intent is signed with, and whether it still may be.

pub mod api;
pub mod destroy;
pub mod http;
pub mod provision;
pub mod store;

use alloy::primitives::Address;

use crate::access::{Denial, SecretPath};
use crate::db::DbError;
use crate::hsm::{KeyContext, KeyRef, PublicKey};
use crate::ids::{KeyId, OrgId, SecretId, VaultId};

pub use store::{for_intent, get, recheck};

/// The life of a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Signs.
    Active,
    /// Replaced or deleted: signs nothing new, and is kept until what it signed is settled and an operator destroys it.
    Superseded,
}

/// A signing key: one version at a path.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// Its id.
    pub id: KeyId,
    /// Its organisation.
    pub org_id: OrgId,
    /// Its vault.
    pub vault_id: VaultId,
    /// The secret it is a version of.
    pub secret_id: SecretId,
    /// The path.
    pub path: String,
    /// The version of the path.
    pub version: i32,
    /// Its address.
    pub address: Address,
    /// Its public half, which every signature is checked against.
    pub public_key: PublicKey,
    /// How the HSM finds it.
    pub key_ref: KeyRef,
    /// Whether it signs.
    pub state: KeyState,
}

impl SigningKey {
    /// What its MAC binds it to.
    #[must_use]
    pub fn context(&self) -> KeyContext {
        KeyContext { org_id: self.org_id, key_id: self.id, path: self.path.clone(), version: self.version }
    }
}

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The agent may not read that path anywhere, whether or not there is a key.
    #[error("Insufficient permissions: this agent has no read access to a signing key at {0}")]
    Forbidden(SecretPath),
    /// A path below `agents/` that names somebody else.
    #[error("Insufficient permissions: {0} is not below this agent's own agents/{{id}}/")]
    Anothers(SecretPath),
    /// A chain whose name is no part of a path.
    #[error("chain {0:?} has no default key path: name one with signing_key_path")]
    NoPath(String),
    /// It may not, by this rule.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// Nothing there.
    #[error(
        "there is no signing key at {0}: a human stores one with PUT /v1/vaults/{{vault_id}}/secrets/{0} and type private_key"
    )]
    NoKey(SecretPath),
    /// Something there, but not a key that signs.
    #[error("the secret at {0} is not a signing key: store 32 bytes of hex there with type private_key")]
    NotASigningKey(SecretPath),
    /// Something there that only its client can decrypt.
    #[error(
        "the key at {0} is encrypted under the customer's own key (CMEK), which this daemon does not have: nothing can be signed with it; store the key itself there, and the HSM keeps it"
    )]
    Cmek(SecretPath),
    /// More than one, and they differ.
    #[error(
        "there are two different keys at {path} that this agent may use, {first} and {second}: bind the agent to one vault with vault_ids"
    )]
    Ambiguous {
        /// The path.
        path: SecretPath,
        /// An address.
        first: Address,
        /// Another.
        second: Address,
    },
    /// Replaced, deleted or expired while the intent was on its way.
    #[error("the signing key was replaced or deleted meanwhile; nothing was signed")]
    NotActive,
    /// Could not be checked.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// How near a key is to the agent. Only keys of the nearest tier that has any are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    /// In a human's vault that the agent is bound to.
    Bound,
    /// In another human's vault that it may read.
    Readable,
    /// In an agent's vault.
    AgentOwned,
}

/// The key of the nearest tier; the oldest of those with one address.
fn choose(path: &SecretPath, keys: Vec<(Tier, SigningKey)>) -> Result<Option<SigningKey>, ResolveError> {
    let Some(nearest) = keys.iter().map(|(tier, _)| *tier).min() else { return Ok(None) };
    let mut chosen: Option<SigningKey> = None;
    for (_, key) in keys.into_iter().filter(|(tier, _)| *tier == nearest) {
        match &chosen {
            None => chosen = Some(key),
            Some(first) if first.address == key.address => {}
            Some(first) => {
                return Err(ResolveError::Ambiguous { path: path.clone(), first: first.address, second: key.address });
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::KekId;
    use secp256k1::{PublicKey as Point, Secp256k1, SecretKey};

    fn key(seed: u8) -> SigningKey {
        let secret = SecretKey::from_byte_array([seed; 32]).unwrap();
        let point = Point::from_secret_key(&Secp256k1::new(), &secret).serialize_uncompressed();
        let public_key = PublicKey::from_bytes(point).unwrap();
        SigningKey {
            id: KeyId::random(),
            org_id: OrgId::random(),
            vault_id: VaultId::random(),
            secret_id: SecretId::random(),
            path: "keys/a".to_owned(),
            version: 1,
            address: public_key.address(),
            public_key,
            key_ref: KeyRef::Token { cka_id: [0; 16], mac_kek_id: KekId::random(), mac: [0; 32] },
            state: KeyState::Active,
        }
    }

    #[test]
    fn the_nearest_tier_decides_and_must_agree() {
        use Tier::{AgentOwned, Bound, Readable};
        let path = SecretPath::parse("keys/a").unwrap();
        let (a, b) = (key(1).address, key(2).address);
        /// Keys by tier and seed; the chosen address, or the two that differ.
        type Case = (&'static [(Tier, u8)], Result<Option<Address>, (Address, Address)>);
        let cases: [Case; 8] = [
            (&[], Ok(None)),
            (&[(AgentOwned, 1)], Ok(Some(a))),
            (&[(AgentOwned, 1), (Readable, 2)], Ok(Some(b))),
            (&[(AgentOwned, 1), (Readable, 1), (Bound, 2)], Ok(Some(b))),
            (&[(Readable, 1), (Readable, 1)], Ok(Some(a))),
            (&[(Readable, 1), (Readable, 2)], Err((a, b))),
            (&[(Readable, 1), (Readable, 2), (Bound, 1)], Ok(Some(a))),
            (&[(Bound, 2), (Bound, 1), (AgentOwned, 1)], Err((b, a))),
        ];
        for (keys, expected) in cases {
            let chosen = choose(&path, keys.iter().map(|(tier, seed)| (*tier, key(*seed))).collect());
            let got = match chosen {
                Ok(key) => Ok(key.map(|key| key.address)),
                Err(ResolveError::Ambiguous { first, second, .. }) => Err((first, second)),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(got, expected, "{keys:?}");
        }
    }
}
