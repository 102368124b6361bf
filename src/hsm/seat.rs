//! What one worker has: an open session, the handles of the KEKs in it, and its shard of the key cache. It is thrown away whole
//! after any error of the module; session objects die with their session.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState};
use cryptoki::slot::Slot;
use lru::LruCache;

use super::error::{Class, Fault, HsmError};
use super::health::Stats;
use super::keks::Kek;
use super::{templates, vendor};
use crate::ids::KeyId;

/// An open session and what belongs to it.
pub(super) struct Open {
    pub session: Session,
    /// The login epoch in which it was opened; a handle of another epoch may mean another key.
    pub epoch: u64,
    pub stats: Arc<Stats>,
    /// By CKA_ID: what a row calls the key is not what finds it.
    keks: HashMap<[u8; 16], ObjectHandle>,
    cache: LruCache<KeyId, Cached>,
}

struct Cached {
    /// Names the verified (context, key, public key, MAC).
    fingerprint: [u8; 32],
    epoch: u64,
    handle: ObjectHandle,
    /// A session object of ours, to be destroyed when it falls out.
    owned: bool,
}

impl Open {
    /// Opens a read-write session (some modules have no others) and makes sure that it is logged in.
    pub(super) fn new(
        module: &Pkcs11,
        slot: Slot,
        epoch: u64,
        cache_keys: usize,
        stats: Arc<Stats>,
    ) -> Result<Self, Fault> {
        let session = module.open_rw_session(slot)?;
        if session.get_session_info()?.session_state() != SessionState::RwUser {
            return Err(Fault::Strange(Class::Login, "a new session is not logged in"));
        }
        let cache = LruCache::new(NonZeroUsize::new(cache_keys).unwrap_or(NonZeroUsize::MIN));
        Ok(Self { session, epoch, stats, keks: HashMap::new(), cache })
    }

    /// The handle of a KEK: exactly one object by CKA_ID and class. None found is a fault of the token, never "make one".
    pub(super) fn kek(&mut self, kek: &Kek) -> Result<ObjectHandle, Fault> {
        match self.keks.get(&kek.cka_id) {
            Some(handle) => Ok(*handle),
            None => self.locate_again(kek),
        }
    }

    /// As [`Open::kek`], looking on the token whatever is known.
    pub(super) fn locate_again(&mut self, kek: &Kek) -> Result<ObjectHandle, Fault> {
        self.keks.remove(&kek.cka_id);
        let handle = locate_kek(&self.session, kek)?;
        self.keks.insert(kek.cka_id, handle);
        Ok(handle)
    }

    /// Forgets where a KEK is.
    pub(super) fn forget_kek(&mut self, kek: &Kek) {
        self.keks.remove(&kek.cka_id);
    }

    /// Whether the key has a live handle, of whichever row.
    pub(super) fn has_cached(&self, key_id: KeyId) -> bool {
        self.cache.contains(&key_id)
    }

    /// The cached handle for exactly this verified tuple.
    pub(super) fn cached(&mut self, key_id: KeyId, fingerprint: &[u8; 32]) -> Option<ObjectHandle> {
        let epoch = self.epoch;
        let hit = self.cache.get(&key_id).filter(|entry| entry.fingerprint == *fingerprint && entry.epoch == epoch);
        let counter = if hit.is_some() { &self.stats.cache_hits } else { &self.stats.cache_misses };
        counter.fetch_add(1, Relaxed);
        hit.map(|entry| entry.handle)
    }

    /// Remembers a handle. What falls out is destroyed, if it is ours.
    pub(super) fn remember(
        &mut self,
        key_id: KeyId,
        fingerprint: [u8; 32],
        handle: ObjectHandle,
        owned: bool,
    ) -> Result<(), Fault> {
        let entry = Cached { fingerprint, epoch: self.epoch, handle, owned };
        let before = self.cache.len();
        let out = self.cache.push(key_id, entry);
        self.stats.cached.fetch_add((self.cache.len() - before) as u64, Relaxed);
        match out {
            Some((_, out)) if out.owned => Ok(self.session.destroy_object(out.handle)?),
            _ => Ok(()),
        }
    }

    /// Forgets a key, destroying its session object.
    pub(super) fn forget(&mut self, key_id: KeyId) -> Result<(), Fault> {
        let Some(out) = self.cache.pop(&key_id) else { return Ok(()) };
        self.stats.cached.fetch_sub(1, Relaxed);
        if out.owned {
            self.session.destroy_object(out.handle)?;
        }
        Ok(())
    }

    /// HMAC-SHA256 by a `mac` key.
    pub(super) fn hmac(&mut self, kek: &Kek, message: &[u8]) -> Result<[u8; 32], Fault> {
        let handle = self.kek(kek)?;
        let tag = self.session.sign(&Mechanism::Sha256Hmac, handle, message)?;
        tag.try_into().map_err(|_| Fault::Strange(Class::Device, "an HMAC is not 32 bytes"))
    }

    /// r ‖ s as the module gives it. Only `signature::finish` makes a signature of it.
    pub(super) fn ecdsa(&mut self, key: ObjectHandle, digest: &[u8; 32]) -> Result<Vec<u8>, Fault> {
        Ok(self.session.sign(&Mechanism::Ecdsa, key, digest)?)
    }

    /// Wraps a key under `seal`.
    pub(super) fn wrap(&mut self, seal: &Kek, key: ObjectHandle) -> Result<Vec<u8>, Fault> {
        let kek = self.kek(seal)?;
        let mechanism = vendor::mechanism_type(seal.mechanism)?;
        Ok(self.session.wrap_key(&vendor::plain(mechanism), kek, key)?)
    }

    /// Unwraps a blob **whose MAC has been checked** to a session object that cannot be read. A module that ignores the template
    /// is put right by C_SetAttributeValue; if that does not help, the object is destroyed and nothing is signed.
    pub(super) fn unwrap(&mut self, seal: &Kek, blob: &[u8]) -> Result<ObjectHandle, Fault> {
        let kek = self.kek(seal)?;
        let mechanism = vendor::mechanism_type(seal.mechanism)?;
        self.stats.unwraps.fetch_add(1, Relaxed);
        let key = self.session.unwrap_key(&vendor::plain(mechanism), kek, blob, &templates::unwrapped_key())?;
        if templates::is_locked(&self.session, key)? {
            return Ok(key);
        }
        for tighter in [cryptoki::object::Attribute::Sensitive(true), cryptoki::object::Attribute::Extractable(false)] {
            // An error shows in the second look.
            let _ = self.session.update_attributes(key, &[tighter]);
        }
        if templates::is_locked(&self.session, key)? {
            return Ok(key);
        }
        self.session.destroy_object(key)?;
        Err(HsmError::integrity("the HSM hands out an unwrapped key that could be read").into())
    }

    /// Unwraps a blob **whose MAC has been checked** so that it can be wrapped once more, under a new `seal` key: an extractable,
    /// sensitive session object, which the caller destroys at once. Where the new key is CKA_TRUSTED nothing else wraps it.
    pub(super) fn unwrap_to_rewrap(
        &mut self,
        seal: &Kek,
        blob: &[u8],
        only_trusted: bool,
    ) -> Result<ObjectHandle, Fault> {
        let kek = self.kek(seal)?;
        let mechanism = vendor::mechanism_type(seal.mechanism)?;
        self.stats.unwraps.fetch_add(1, Relaxed);
        let template = templates::rewrappable_key(only_trusted);
        Ok(self.session.unwrap_key(&vendor::plain(mechanism), kek, blob, &template)?)
    }

    /// Whether the security officer has marked a `seal` key CKA_TRUSTED. Modules without the attribute say no.
    pub(super) fn is_trusted(&mut self, seal: &Kek) -> Result<bool, Fault> {
        let kek = self.kek(seal)?;
        let found = self.session.get_attributes(kek, &[AttributeType::Trusted]);
        Ok(matches!(found.as_deref(), Ok([cryptoki::object::Attribute::Trusted(true)])))
    }

    /// The one object of a class with a CKA_ID: `None` if there is none, refused if there are several.
    pub(super) fn find(&self, class: ObjectClass, cka_id: [u8; 16]) -> Result<Option<ObjectHandle>, Fault> {
        find_one(&self.session, class, cka_id)
    }

    /// CKA_EC_POINT of a public key object.
    pub(super) fn ec_point(&self, public: ObjectHandle) -> Result<Vec<u8>, Fault> {
        match self.session.get_attributes(public, &[AttributeType::EcPoint])?.pop() {
            Some(cryptoki::object::Attribute::EcPoint(point)) => Ok(point),
            _ => Err(Fault::Strange(Class::Device, "a public key has no CKA_EC_POINT")),
        }
    }

    /// Random bytes of the HSM. Zeros throughout are a broken generator (by chance: 2^-96 for a nonce), and would be a key or a nonce
    /// that everybody knows.
    pub(super) fn random(&self, out: &mut [u8]) -> Result<(), Fault> {
        self.session.generate_random_slice(out)?;
        if out.len() >= 12 && out.iter().all(|byte| *byte == 0) {
            return Err(Fault::Strange(Class::Device, "the HSM's random numbers are zeros"));
        }
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.cached.fetch_sub(self.cache.len() as u64, Relaxed);
    }
}

/// Exactly one, or none; several is refused: CKA_ID is not unique by itself.
fn find_one(session: &Session, class: ObjectClass, cka_id: [u8; 16]) -> Result<Option<ObjectHandle>, Fault> {
    match session.find_objects(&templates::by_id(class, cka_id))?.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(HsmError::integrity("several objects on the token carry one id").into()),
    }
}

/// The object of a KEK.
pub(super) fn locate_kek(session: &Session, kek: &Kek) -> Result<ObjectHandle, Fault> {
    find_one(session, kek.purpose.class(), kek.cka_id)?
        .ok_or(Fault::Strange(Class::Device, "a KEK that must exist is not found on the token"))
}
