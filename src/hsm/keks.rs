//! The keys that stay on the token: three KEKs with one purpose each, the key that signs JWTs, and the one that signs audit checkpoints.

use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectClass;
use serde::{Deserialize, Serialize};

use super::canary;
use super::error::{Cause, Class, Fault, HsmError};
use super::seat::Open;
use super::templates;
use crate::ids::KekId;

/// What a key on the token is for. It can do nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KekPurpose {
    /// Wraps and unwraps signing keys (AES-256).
    Seal,
    /// Seals data-encryption keys (AES-256-GCM).
    Data,
    /// Authenticates wrapped keys together with their context (HMAC-SHA256).
    Mac,
    /// Signs JWTs (Ed25519).
    Jwt,
    /// Signs checkpoints of the audit trail (Ed25519).
    Audit,
}

impl KekPurpose {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 5] = [Self::Mac, Self::Data, Self::Jwt, Self::Audit, Self::Seal];

    /// As in the `keks` table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Data => "data",
            Self::Mac => "mac",
            Self::Jwt => "jwt",
            Self::Audit => "audit",
        }
    }

    pub(super) fn class(self) -> ObjectClass {
        if self.is_pair() { ObjectClass::PRIVATE_KEY } else { ObjectClass::SECRET_KEY }
    }

    /// Whether it is a key pair (Ed25519), whose public half others verify by.
    pub(super) fn is_pair(self) -> bool {
        matches!(self, Self::Jwt | Self::Audit)
    }

    /// Whether no daemon can be without it. `seal` is for HSMs that wrap; installations made before there was an `audit` key get theirs
    /// from `intentd admin hsm init`.
    fn is_required(self, needs_seal: bool) -> bool {
        match self {
            Self::Seal => needs_seal,
            Self::Audit => false,
            Self::Data | Self::Mac | Self::Jwt => true,
        }
    }
}

impl std::fmt::Display for KekPurpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key's life: adding → active → retiring → retired → destroying → destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KekState {
    /// Made, but not every daemon has found it yet.
    Adding,
    /// Used for everything new. One for each purpose.
    Active,
    /// Used only for what it made before.
    Retiring,
    /// Nothing needs it any more.
    Retired,
    /// To be taken off the token: every daemon forgets it.
    Destroying,
    /// Off the token.
    Destroyed,
}

impl KekState {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 6] =
        [Self::Adding, Self::Active, Self::Retiring, Self::Retired, Self::Destroying, Self::Destroyed];

    /// As in the `keks` table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Adding => "adding",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether rows may name it, so that a daemon cannot be without it.
    pub(super) fn is_needed(self) -> bool {
        matches!(self, Self::Active | Self::Retiring)
    }
}

/// A row of the `keks` table: what finds a token key again and proves that it is the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kek {
    /// Its id in every row that it made.
    pub id: KekId,
    /// What it is for.
    pub purpose: KekPurpose,
    /// Where it stands in its life.
    pub state: KekState,
    /// Its random CKA_ID: exactly one object on the token has it.
    pub cka_id: [u8; 16],
    /// The one mechanism (`CKM_…`) it allows.
    pub mechanism: u64,
    /// The public key, for `jwt` and `audit`: 32 bytes (RFC 8032).
    pub public_key: Option<Vec<u8>>,
    /// The result of its own operation on a constant.
    pub canary: serde_json::Value,
}

/// The adopted KEKs.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    /// A handful, `mac` first: checking the others' canaries needs it.
    keks: Vec<Kek>,
}

impl Keyring {
    /// The usable rows. Retired ones are left out, unless `known` has them: what was read before they were retired may still be on its
    /// way; or they are `audit` keys: what they have signed is believed for as long as the token vouches for them. Keys that are to be
    /// destroyed are left out in any case.
    ///
    /// # Errors
    /// [`HsmError::Fatal`] unless there is exactly one active key for each purpose that is needed.
    pub(super) fn new(mut keks: Vec<Kek>, needs_seal: bool, known: Option<&Self>) -> Result<Self, HsmError> {
        let is_known = |kek: &Kek| known.is_some_and(|ring| ring.keks.iter().any(|known| known.id == kek.id));
        keks.retain(|kek| kek.state != KekState::Retired || kek.purpose == KekPurpose::Audit || is_known(kek));
        let ring = Self::unchecked(keks);
        for purpose in KekPurpose::ALL {
            let count = ring.keks.iter().filter(|kek| kek.purpose == purpose && kek.state == KekState::Active).count();
            if count > 1 || (count == 0 && purpose.is_required(needs_seal)) {
                let hint = if count == 0 { "; `intentd admin hsm init` makes it" } else { "" };
                return Err(HsmError::fatal(format!("there are {count} active `{purpose}` keys instead of one{hint}")));
            }
        }
        Ok(ring)
    }

    fn unchecked(mut keks: Vec<Kek>) -> Self {
        keks.retain(|kek| !matches!(kek.state, KekState::Destroying | KekState::Destroyed));
        keks.sort_by_key(|kek| KekPurpose::ALL.iter().position(|purpose| *purpose == kek.purpose));
        Self { keks }
    }

    /// The key that makes new things.
    pub(super) fn active(&self, purpose: KekPurpose) -> Option<&Kek> {
        self.keks.iter().find(|kek| kek.purpose == purpose && kek.state == KekState::Active)
    }

    /// The key that makes new things, which must be there.
    pub(super) fn require(&self, purpose: KekPurpose) -> Result<&Kek, HsmError> {
        let what = match purpose {
            KekPurpose::Audit => "there is no active `audit` key yet: `intentd admin hsm init` makes it",
            _ => "this HSM keeps no wrapped keys: use custody \"token\"",
        };
        self.active(purpose).ok_or(HsmError::Invalid { what })
    }

    /// The key that a row names.
    ///
    /// # Errors
    /// [`HsmError::UnknownKek`]: a daemon that was away while keys were rotated looks at the rows again within a second.
    pub(super) fn named(&self, id: KekId, purpose: KekPurpose) -> Result<&Kek, HsmError> {
        match self.keks.iter().find(|kek| kek.id == id) {
            Some(kek) if kek.purpose == purpose => Ok(kek),
            Some(_) => Err(HsmError::integrity("the row names a key on the token that is for something else")),
            None => Err(HsmError::UnknownKek { id }),
        }
    }

    /// The same without some keys.
    pub(super) fn without(&self, ids: &[KekId]) -> Self {
        Self { keks: self.keks.iter().filter(|kek| !ids.contains(&kek.id)).cloned().collect() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Kek> {
        self.keks.iter()
    }
}

/// Makes one key of each purpose on the token, with its canary. The caller holds the database lock and has made sure that there
/// are none. What was made before a failure is destroyed.
pub(super) fn create(open: &mut Open, wrap_mechanism: Option<MechanismType>) -> Result<Vec<Kek>, Fault> {
    let mut made: Vec<Kek> = Vec::new();
    let result = KekPurpose::ALL.into_iter().try_for_each(|purpose| {
        let Some(mechanism) = mechanism_of(purpose, wrap_mechanism) else { return Ok(()) };
        made.push(generate(open, purpose, mechanism)?);
        let ring = Keyring::unchecked(made.clone());
        let Some(kek) = made.last_mut() else { return Ok(()) };
        kek.canary = canary::make(open, &ring, kek)?;
        canary::check(open, &Keyring::unchecked(made.clone()), made.last().unwrap_or(&made[0]))
    });
    if let Err(fault) = result {
        remove(open, &made);
        return Err(fault);
    }
    Ok(made)
}

/// The one mechanism of a new key; `None` for `seal` on an HSM that does not wrap.
fn mechanism_of(purpose: KekPurpose, wrap_mechanism: Option<MechanismType>) -> Option<MechanismType> {
    match purpose {
        KekPurpose::Seal => wrap_mechanism,
        KekPurpose::Data => Some(MechanismType::AES_GCM),
        KekPurpose::Mac => Some(MechanismType::SHA256_HMAC),
        KekPurpose::Jwt | KekPurpose::Audit => Some(MechanismType::EDDSA),
    }
}

/// Makes one more key of a purpose, [`KekState::Adding`], with its canary. What was made before a failure is destroyed.
pub(super) fn create_one(
    open: &mut Open,
    ring: &Keyring,
    purpose: KekPurpose,
    wrap_mechanism: Option<MechanismType>,
) -> Result<Kek, Fault> {
    let mechanism = mechanism_of(purpose, wrap_mechanism)
        .ok_or(HsmError::Invalid { what: "this HSM keeps no wrapped keys: it has no `seal` key to rotate" })?;
    let mut kek = generate(open, purpose, mechanism)?;
    // While its canary is made, it stands in for the active one.
    let mut others: Vec<Kek> = ring.iter().filter(|other| other.purpose != purpose).cloned().collect();
    others.push(kek.clone());
    let stand_in = Keyring::unchecked(others);
    let proven = canary::make(open, &stand_in, &kek).and_then(|canary| {
        kek.canary = canary;
        canary::check(open, &stand_in, &kek)
    });
    match proven {
        Ok(()) => Ok(Kek { state: KekState::Adding, ..kek }),
        Err(fault) => {
            remove(open, std::slice::from_ref(&kek));
            Err(fault)
        }
    }
}

/// Takes a key off the token for good; that it is not there is fine too. The private half goes first: an interrupted removal is
/// finished by the next.
pub(super) fn destroy(open: &mut Open, kek: &Kek) -> Result<(), Fault> {
    open.forget_kek(kek);
    for class in [kek.purpose.class(), ObjectClass::PUBLIC_KEY] {
        if let Some(object) = open.find(class, kek.cka_id)? {
            open.session.destroy_object(object)?;
        }
    }
    Ok(())
}

/// Destroys keys that nothing was made with: those of a failed creation, and the temporary ones of a measurement.
pub(super) fn remove(open: &mut Open, keks: &[Kek]) {
    for kek in keks {
        for class in [kek.purpose.class(), ObjectClass::PUBLIC_KEY] {
            if let Ok(Some(object)) = open.find(class, kek.cka_id)
                && let Err(error) = open.session.destroy_object(object)
            {
                tracing::error!(purpose = %kek.purpose, cause = %Cause::from(&error), "a key could not be removed");
            }
        }
    }
}

fn generate(open: &mut Open, purpose: KekPurpose, mechanism: MechanismType) -> Result<Kek, Fault> {
    let mut cka_id = [0; 16];
    open.random(&mut cka_id)?;
    let mut template = templates::kek(purpose, cka_id, mechanism);
    let mut public_key = None;
    match purpose {
        KekPurpose::Seal => {
            let unwrap = templates::UnwrapTemplate::new();
            template.push(unwrap.attribute());
            open.session.generate_key(&Mechanism::AesKeyGen, &template)?;
        }
        KekPurpose::Data => {
            open.session.generate_key(&Mechanism::AesKeyGen, &template)?;
        }
        KekPurpose::Mac => {
            open.session.generate_key(&Mechanism::GenericSecretKeyGen, &template)?;
        }
        KekPurpose::Jwt | KekPurpose::Audit => {
            let (public, _) = open.session.generate_key_pair(
                &Mechanism::EccEdwardsKeyPairGen,
                &templates::public_half(purpose, cka_id),
                &template,
            )?;
            public_key = Some(ed25519_point(&open.ec_point(public)?)?);
        }
    }
    Ok(Kek {
        id: KekId::random(),
        purpose,
        state: KekState::Active,
        cka_id,
        mechanism: *mechanism,
        public_key,
        canary: serde_json::Value::Null,
    })
}

/// CKA_EC_POINT of an Ed25519 key: 32 bytes, bare or in an OCTET STRING.
fn ed25519_point(value: &[u8]) -> Result<Vec<u8>, Fault> {
    match value {
        [0x04, 0x20, point @ ..] if point.len() == 32 => Ok(point.to_vec()),
        point if point.len() == 32 => Ok(point.to_vec()),
        _ => Err(Fault::Strange(Class::Device, "an Ed25519 public key is not 32 bytes")),
    }
}

/// An Ed25519 signature by a `jwt` or `audit` key.
pub(super) fn ed25519(open: &mut Open, kek: &Kek, message: &[u8]) -> Result<[u8; 64], Fault> {
    let handle = open.kek(kek)?;
    let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
    let signature = open.session.sign(&mechanism, handle, message)?;
    signature.try_into().map_err(|_| Fault::Strange(Class::Device, "an Ed25519 signature is not 64 bytes"))
}
