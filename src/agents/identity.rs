//! The keys by which agents know each other: Ed25519 (for SSH, RFC 8032) and P-256 (for ECDH, SEC 1). They sign no transactions.
//!
//! The private halves are ordinary secrets from the HSM's randomness, sealed like all others, in a vault that only the daemon writes
//! to. An agent reads its own through a policy, like anything else.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sqlx::PgConnection;
use zeroize::Zeroizing;

use super::{Agent, store};
use crate::access::{Actor, SecretPath};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::hsm::{Hsm, HsmError};
use crate::ids::{AgentId, OrgId};
use crate::vaults::secrets::rules::SecretType;
use crate::vaults::secrets::{NewSecret, Own, SecretError};
use crate::vaults::{self, Vault};

/// How often randomness is asked for that is no P-256 scalar. Once in 2^32 it is not.
const ATTEMPTS: usize = 4;

/// One agent's keys, on their way into the vault.
pub struct Identity {
    ssh_public: [u8; 32],
    ssh_private: Zeroizing<[u8; 32]>,
    ecdh_public: [u8; 65],
    ecdh_private: Zeroizing<[u8; 32]>,
}

/// … with the private halves sealed.
pub struct Sealed {
    vault: Vault,
    ssh_public: [u8; 32],
    ecdh_public: [u8; 65],
    private: [Own; 2],
}

/// The organisation's vault for these keys, made now if there is none.
///
/// # Errors
/// As any statement.
pub async fn vault(app: &App, org_id: OrgId) -> Result<Vault, DbError> {
    let mut conn = app.db.acquire().await?;
    if let Some(vault) = vaults::store::agent_keys(&mut conn, org_id).await? {
        return Ok(vault);
    }
    drop(conn);
    let mut tx = app.db.begin().await?;
    let (vault, made) = vaults::store::ensure_agent_keys(&mut tx, org_id).await?;
    if made {
        let event = Event::by_system(org_id, "vault.create", Resource::new("vault", vault.id));
        audit::record(&mut tx, event.with("name", vault.name.as_str())).await?;
    }
    tx.commit().await?;
    Ok(vault)
}

impl Identity {
    /// New keys from the HSM's randomness.
    ///
    /// # Errors
    /// Any [`HsmError`].
    pub async fn make(hsm: &Hsm) -> Result<Self, HsmError> {
        let ssh_private = hsm.random::<32>().await?;
        let ssh_public = ed25519_public(&ssh_private).ok_or(HsmError::Invalid { what: "not an Ed25519 seed" })?;
        for _ in 0..ATTEMPTS {
            let ecdh_private = hsm.random::<32>().await?;
            if let Some(ecdh_public) = p256_public(&ecdh_private) {
                return Ok(Self { ssh_public, ssh_private, ecdh_public, ecdh_private });
            }
        }
        Err(HsmError::Invalid { what: "the HSM's random bytes are no P-256 key" })
    }

    /// Seals the private halves for their places. No lock is held.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn seal(self, app: &App, org_id: OrgId, id: AgentId) -> Result<Sealed, SecretError> {
        let vault = vault(app, org_id).await?;
        let private = [
            own(app, &vault, id, "ssh", SecretType::SshKey, &self.ssh_private).await?,
            own(app, &vault, id, "ecdh", SecretType::PrivateKey, &self.ecdh_private).await?,
        ];
        Ok(Sealed { vault, ssh_public: self.ssh_public, ecdh_public: self.ecdh_public, private })
    }
}

async fn own(
    app: &App,
    vault: &Vault,
    id: AgentId,
    use_: &str,
    kind: SecretType,
    private: &[u8; 32],
) -> Result<Own, SecretError> {
    let path = SecretPath::parse(&format!("agents/{id}/{use_}/private_key")).map_err(|_| SecretError::NotFound)?;
    // At its full length from the start: a text that grows leaves copies behind.
    let mut value = Zeroizing::new(String::with_capacity(48));
    STANDARD.encode_string(private, &mut value);
    let new =
        NewSecret { kind, value, metadata: json!({}), rotation_policy: None, expires_at: None, max_access_count: None };
    Own::seal(app, vault, path, new).await
}

impl Sealed {
    /// Stores the keys in the caller's transaction, which has the agent's row. `written` says who. `false`: others were stored first, and
    /// the transaction is to be given up.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn store(
        &self,
        conn: &mut PgConnection,
        agent: &mut Agent,
        actor: Actor,
        written: &Event,
    ) -> Result<bool, SecretError> {
        let vault =
            vaults::store::get_for_share(conn, agent.org_id, self.vault.id).await?.ok_or(SecretError::NoVault)?;
        for private in &self.private {
            if !private.store(conn, &vault, actor, written.again()).await? {
                return Ok(false);
            }
        }
        agent.ssh_public_key = Some(self.ssh_public);
        agent.ecdh_public_key = Some(self.ecdh_public);
        store::set_identity_keys(conn, agent).await?;
        Ok(true)
    }
}

/// The public key of a seed.
fn ed25519_public(seed: &[u8; 32]) -> Option<[u8; 32]> {
    Ed25519KeyPair::from_seed_unchecked(seed).ok()?.public_key().as_ref().try_into().ok()
}

/// The public point of a scalar, uncompressed; `None` for zero and for the group order and above.
fn p256_public(scalar: &[u8; 32]) -> Option<[u8; 65]> {
    PrivateKey::from_private_key(&ECDH_P256, scalar).ok()?.compute_public_key().ok()?.as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    #[test]
    fn public_keys_are_those_of_the_standards_vectors() {
        // RFC 8032 §7.1, test 1.
        let seed = bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = bytes("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(ed25519_public(&seed), Some(public));
        // RFC 5903 §8.1, the initiator.
        let scalar = bytes("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433");
        let point = "04dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c37725811805271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3";
        assert_eq!(p256_public(&scalar), Some(bytes(point)));
        // Zero and the group order (SEC 2 §2.4.2) are no keys; one below is.
        let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
        assert_eq!(p256_public(&[0; 32]), None);
        assert_eq!(p256_public(&bytes(order)), None);
        assert!(p256_public(&bytes(&order.replace("2551", "2550"))).is_some());
    }
}
