//! The keys that stay on the token: three KEKs with one purpose each, and the key that signs JWTs.

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
    /// Signs JWTs and audit checkpoints (Ed25519).
    Jwt,
}

impl KekPurpose {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 4] = [Self::Mac, Self::Data, Self::Jwt, Self::Seal];

    /// As in the `keks` table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Data => "data",
            Self::Mac => "mac",
            Self::Jwt => "jwt",
        }
    }

    pub(super) fn class(self) -> ObjectClass {
        if self == Self::Jwt { ObjectClass::PRIVATE_KEY } else { ObjectClass::SECRET_KEY }
    }
}

impl std::fmt::Display for KekPurpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key's life: adding → active → retiring → retired.
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
}

impl KekState {
    /// As in the `keks` table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Adding => "adding",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
        }
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
    /// The public key, for `jwt`: 32 bytes (RFC 8032).
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
    /// The usable rows; retired ones are left out.
    ///
    /// # Errors
    /// [`HsmError::Fatal`] unless there is exactly one active key for each purpose that is needed.
    pub(super) fn new(keks: Vec<Kek>, needs_seal: bool) -> Result<Self, HsmError> {
        let ring = Self::unchecked(keks);
        for purpose in KekPurpose::ALL {
            let count = ring.keks.iter().filter(|kek| kek.purpose == purpose && kek.state == KekState::Active).count();
            if count > 1 || (count == 0 && (needs_seal || purpose != KekPurpose::Seal)) {
                let hint = if count == 0 { "; `intentd admin hsm init` makes it" } else { "" };
                return Err(HsmError::fatal(format!("there are {count} active `{purpose}` keys instead of one{hint}")));
            }
        }
        Ok(ring)
    }

    fn unchecked(mut keks: Vec<Kek>) -> Self {
        keks.retain(|kek| kek.state != KekState::Retired);
        keks.sort_by_key(|kek| KekPurpose::ALL.iter().position(|purpose| *purpose == kek.purpose));
        Self { keks }
    }

    /// The key that makes new things.
    pub(super) fn active(&self, purpose: KekPurpose) -> Option<&Kek> {
        self.keks.iter().find(|kek| kek.purpose == purpose && kek.state == KekState::Active)
    }

    /// The key that makes new things, which must be there.
    pub(super) fn require(&self, purpose: KekPurpose) -> Result<&Kek, HsmError> {
        self.active(purpose).ok_or(HsmError::Invalid { what: "this HSM keeps no wrapped keys: use custody \"token\"" })
    }

    /// The key that a row names.
    pub(super) fn named(&self, id: KekId, purpose: KekPurpose) -> Result<&Kek, HsmError> {
        let kek = self.keks.iter().find(|kek| kek.id == id && kek.purpose == purpose);
        kek.ok_or(HsmError::integrity("the row names a key-encryption key that is not in use"))
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
        let mechanism = match purpose {
            KekPurpose::Seal => match wrap_mechanism {
                Some(mechanism) => mechanism,
                None => return Ok(()),
            },
            KekPurpose::Data => MechanismType::AES_GCM,
            KekPurpose::Mac => MechanismType::SHA256_HMAC,
            KekPurpose::Jwt => MechanismType::EDDSA,
        };
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
        KekPurpose::Jwt => {
            let (public, _) = open.session.generate_key_pair(
                &Mechanism::EccEdwardsKeyPairGen,
                &templates::jwt_public(cka_id),
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

/// An Ed25519 signature by a `jwt` key.
pub(super) fn ed25519(open: &mut Open, kek: &Kek, message: &[u8]) -> Result<[u8; 64], Fault> {
    let handle = open.kek(kek)?;
    let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
    let signature = open.session.sign(&mechanism, handle, message)?;
    signature.try_into().map_err(|_| Fault::Strange(Class::Device, "an Ed25519 signature is not 64 bytes"))
}
