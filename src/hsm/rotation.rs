//! What the rotation of a key on the token asks of the HSM: a key more, what the old one made made again, a key less. Which row is when
//! decided elsewhere (`crate::keks`); here nothing is ever made because something was not found.

use std::time::Duration;

use super::error::HsmError;
use super::keks::{self, Kek, KekPurpose, KekState};
use super::seat::Open;
use super::types::{KeyContext, KeyRef, PublicKey, SealedDek};
use super::{Hsm, SLOW, canary, custody, envelope, vendor};
use crate::ids::KekId;

impl Hsm {
    /// Makes one more key of a purpose on the token, with its canary. Only `intentd admin hsm rotate` calls it, holding the installation
    /// lock; the row is [`KekState::Adding`] and is to be stored.
    ///
    /// # Errors
    /// Any [`HsmError`]; what was made before the error is removed again.
    pub async fn create_kek(&self, purpose: KekPurpose) -> Result<Kek, HsmError> {
        let wrap = self.inner.wrap.map(vendor::mechanism_type).transpose()?;
        let ring = self.ring()?;
        let _guard = self.inner.token_writes.lock().await;
        self.call("create_keks", 0, SLOW, move |open| keks::create_one(open, &ring, purpose, wrap)).await
    }

    /// Takes a key off the token, for ever. It must be in no keyring of any process any more. That it is gone already is fine.
    ///
    /// # Errors
    /// Any [`HsmError`]; then it may be there still, and can be tried again.
    pub async fn destroy_kek(&self, kek: &Kek) -> Result<(), HsmError> {
        let _guard = self.inner.token_writes.lock().await;
        let kek = kek.clone();
        self.call("destroy_kek", 0, SLOW, move |open| keks::destroy(open, &kek)).await
    }

    /// Binds a stored signing key to the active `seal` and `mac` keys; what is bound so already comes back as it is. The new reference has
    /// signed and recovered to `public` before it is handed out; the old one stays good.
    ///
    /// # Errors
    /// [`HsmError::Integrity`] when the row was tampered with; any other when nothing was done.
    pub async fn rewrap(&self, ctx: &KeyContext, key: &KeyRef, public: &PublicKey) -> Result<KeyRef, HsmError> {
        let (ring, ctx, key, public) = (self.ring()?, ctx.clone(), key.clone(), *public);
        let patience = self.patience().max(Duration::from_secs(1));
        let shard = self.shard(ctx.key_id);
        let run = move |open: &mut Open| custody::rewrap(open, &ring, &ctx, &key, &public);
        self.call("rewrap", shard, patience, run).await
    }

    /// Seals a secret's DEK by the active `data` key; the body under the DEK is not touched. What comes back has been opened once.
    ///
    /// # Errors
    /// [`HsmError::Integrity`] for another `aad` or changed bytes; else any [`HsmError`].
    pub async fn reseal(&self, aad: &[u8], sealed: &SealedDek) -> Result<SealedDek, HsmError> {
        let (ring, bound, sealed) = (self.ring()?, aad.to_vec(), sealed.clone());
        let run = move |open: &mut Open| envelope::reseal_dek(open, &ring, &bound, &sealed);
        self.call("reseal", self.any(), self.patience(), run).await
    }

    /// The canary of a `seal` key, bound by the active `mac` key.
    ///
    /// # Errors
    /// Any [`HsmError`].
    pub async fn rebind_canary(&self, seal: &Kek) -> Result<serde_json::Value, HsmError> {
        let (ring, seal) = (self.ring()?, seal.clone());
        self.call("rebind_canary", self.any(), self.patience(), move |open| canary::rebind(open, &ring, &seal)).await
    }

    /// The keys of the token that this process has found, and where each stands by the rows that it has read.
    #[must_use]
    pub fn adopted(&self) -> Vec<(KekId, KekState)> {
        let ring = self.inner.shared.keyring();
        ring.iter().flat_map(|ring| ring.iter()).map(|kek| (kek.id, kek.state)).collect()
    }

    /// The public keys that a token of ours may be signed by: also the one before, while its tokens last, and the next one, which another
    /// daemon may use already. Each with its `kid`, the active one first.
    #[must_use]
    pub fn jwt_public_keys(&self) -> Vec<(KekId, [u8; 32])> {
        self.public_keys(KekPurpose::Jwt, |state| state != KekState::Retired)
    }

    /// The public keys of the `audit` keys that are on the token and proved by their canaries, retired ones included: what they signed
    /// stays signed. The active one first.
    #[must_use]
    pub fn audit_public_keys(&self) -> Vec<(KekId, [u8; 32])> {
        self.public_keys(KekPurpose::Audit, |_| true)
    }

    /// The `audit` key that signs checkpoints now. `None`: the installation has none yet.
    #[must_use]
    pub fn audit_key(&self) -> Option<KekId> {
        Some(self.inner.shared.keyring()?.active(KekPurpose::Audit)?.id)
    }

    fn public_keys(&self, purpose: KekPurpose, fits: impl Fn(KekState) -> bool) -> Vec<(KekId, [u8; 32])> {
        let ring = self.inner.shared.keyring();
        let mut keys: Vec<&Kek> = ring.iter().flat_map(|ring| ring.iter()).collect();
        keys.retain(|kek| kek.purpose == purpose && fits(kek.state));
        keys.sort_by_key(|kek| kek.state != KekState::Active);
        keys.iter().filter_map(|kek| Some((kek.id, kek.public_key.as_deref()?.try_into().ok()?))).collect()
    }
}
