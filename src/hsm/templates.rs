//! The attributes of every object we make or accept (HSM.md 2.5). Each KEK can do its one job and nothing else: a key with both
//! UNWRAP and DECRYPT gives every wrapped key away through 16-byte ECB calls.

use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::error::{Fault, HsmError};
use super::keks::KekPurpose;

/// The OID of secp256k1, DER (SEC 2 §A.2: 1.3.132.0.10).
const SECP256K1: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
/// The OID of Ed25519, DER (RFC 8410: 1.3.101.112).
const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
/// CKA_UNWRAP_TEMPLATE (CKF_ARRAY_ATTRIBUTE | 0x212), for which the library has no name.
const CKA_UNWRAP_TEMPLATE: std::ffi::c_ulong = 0x4000_0212;

/// What a key may do: each is set explicitly, and read back at every start.
fn uses(purpose: KekPurpose) -> [(AttributeType, bool); 7] {
    use AttributeType as A;
    let (wraps, encrypts, signs) = match purpose {
        KekPurpose::Seal => (true, false, false),
        KekPurpose::Data => (false, true, false),
        KekPurpose::Mac | KekPurpose::Jwt | KekPurpose::Audit => (false, false, true),
    };
    [
        (A::Wrap, wraps),
        (A::Unwrap, wraps),
        (A::Encrypt, encrypts),
        (A::Decrypt, encrypts),
        (A::Sign, signs),
        (A::Verify, false),
        (A::Derive, false),
    ]
}

fn flag(kind: AttributeType, value: bool) -> Attribute {
    use Attribute as B;
    use AttributeType as A;
    match kind {
        A::Wrap => B::Wrap(value),
        A::Unwrap => B::Unwrap(value),
        A::Encrypt => B::Encrypt(value),
        A::Decrypt => B::Decrypt(value),
        A::Sign => B::Sign(value),
        A::Verify => B::Verify(value),
        A::Derive => B::Derive(value),
        A::Token => B::Token(value),
        A::Private => B::Private(value),
        A::Sensitive => B::Sensitive(value),
        A::Extractable => B::Extractable(value),
        A::Modifiable => B::Modifiable(value),
        _ => B::Copyable(value),
    }
}

/// On the token, behind the PIN, unreadable, unchangeable, uncopyable.
const LOCKED: [(AttributeType, bool); 6] = [
    (AttributeType::Token, true),
    (AttributeType::Private, true),
    (AttributeType::Sensitive, true),
    (AttributeType::Extractable, false),
    (AttributeType::Modifiable, false),
    (AttributeType::Copyable, false),
];

/// Attributes that only secret keys have; PKCS#11 gives private keys neither WRAP, ENCRYPT nor VERIFY.
const SECRET_ONLY: [AttributeType; 3] = [AttributeType::Wrap, AttributeType::Encrypt, AttributeType::Verify];

fn flags(purpose: KekPurpose) -> impl Iterator<Item = (AttributeType, bool)> {
    let private_key = purpose.is_pair();
    let apply = move |(kind, _): &(AttributeType, bool)| !(private_key && SECRET_ONLY.contains(kind));
    LOCKED.into_iter().chain(uses(purpose)).filter(apply)
}

/// The template of a KEK for C_GenerateKey (of the private half, for key pairs).
pub(super) fn kek(purpose: KekPurpose, cka_id: [u8; 16], mechanism: MechanismType) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Label(format!("intentd {purpose}").into_bytes()),
        Attribute::Id(cka_id.to_vec()),
        Attribute::AllowedMechanisms(vec![mechanism]),
    ];
    if !purpose.is_pair() {
        template.push(Attribute::ValueLen(32.into()));
    }
    template.extend(flags(purpose).map(|(kind, value)| flag(kind, value)));
    template
}

/// The public half of a key pair.
pub(super) fn public_half(purpose: KekPurpose, cka_id: [u8; 16]) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(ED25519.to_vec()),
        Attribute::Id(cka_id.to_vec()),
        Attribute::Label(format!("intentd {purpose}").into_bytes()),
    ]
}

/// CKA_UNWRAP_TEMPLATE for the `seal` key: what comes out is an EC private key and sensitive, or does not come out. EXTRACTABLE
/// is not in it, because re-wrapping under a new `seal` key needs it once; ordinary unwraps ask EXTRACTABLE=F and read it back.
///
/// A CK_ATTRIBUTE array holds pointers, which must live as long as the call: hence a value with the storage in it.
pub(super) struct UnwrapTemplate {
    class: Box<[u8]>,
    key_type: Box<[u8]>,
    sensitive: Box<[u8]>,
}

impl UnwrapTemplate {
    pub(super) fn new() -> Self {
        let number = |n: std::ffi::c_ulong| n.to_ne_bytes().into();
        Self { class: number(*ObjectClass::PRIVATE_KEY), key_type: number(*KeyType::EC), sensitive: [1].into() }
    }

    /// The attribute; valid while `self` lives.
    pub(super) fn attribute(&self) -> Attribute {
        use std::ffi::c_ulong;
        let entry = |kind: AttributeType, value: &[u8]| {
            let kind: c_ulong = kind.into();
            [
                kind.to_ne_bytes().as_slice(),
                &value.as_ptr().expose_provenance().to_ne_bytes(),
                &(value.len() as c_ulong).to_ne_bytes(),
            ]
            .concat()
        };
        let bytes = [
            entry(AttributeType::Class, &self.class),
            entry(AttributeType::KeyType, &self.key_type),
            entry(AttributeType::Sensitive, &self.sensitive),
        ]
        .concat();
        Attribute::VendorDefined((AttributeType::VendorDefined(CKA_UNWRAP_TEMPLATE), bytes))
    }
}

/// A new signing key that is to be wrapped: a session object, extractable only so that C_WrapKey takes it.
pub(super) fn wrappable_key() -> Vec<Attribute> {
    signing_key(false, true, None)
}

/// What the rotation asks for when it unwraps a key to wrap it again: as [`wrappable_key`], for a key that exists.
pub(super) fn rewrappable_key(only_trusted: bool) -> Vec<Attribute> {
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC)];
    template.extend(wrappable_key());
    if only_trusted {
        template.push(Attribute::WrapWithTrusted(true));
    }
    template
}

/// A new signing key that stays on the token.
pub(super) fn token_key(cka_id: [u8; 16]) -> Vec<Attribute> {
    let mut template = signing_key(true, false, Some(cka_id));
    template.extend([Attribute::Modifiable(false), Attribute::Copyable(false)]);
    template
}

fn signing_key(token: bool, extractable: bool, cka_id: Option<[u8; 16]>) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(token),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(extractable),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    template.extend(cka_id.map(|id| Attribute::Id(id.to_vec())));
    template
}

/// The public half of a signing key.
pub(super) fn public_key(token: bool, cka_id: Option<[u8; 16]>) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(token),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(SECP256K1.to_vec()),
    ];
    template.extend(cka_id.map(|id| Attribute::Id(id.to_vec())));
    template
}

/// What C_CreateObject needs in addition to import a private scalar. The caller wipes the value afterwards.
pub(super) fn import(scalar: &[u8; 32]) -> [Attribute; 4] {
    [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::EcParams(SECP256K1.to_vec()),
        Attribute::Value(scalar.to_vec()),
    ]
}

/// What C_CreateObject needs in addition to put a public point beside an imported token key.
pub(super) fn import_public(point: &[u8; 65]) -> [Attribute; 3] {
    let der = [&[0x04, 0x41][..], point].concat();
    [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::KeyType(KeyType::EC), Attribute::EcPoint(der)]
}

/// What an ordinary unwrap asks for.
pub(super) fn unwrapped_key() -> Vec<Attribute> {
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC)];
    template.extend(signing_key(false, false, None));
    template
}

/// Finds an object by CKA_ID. Labels are not looked at: anybody can set one.
pub(super) fn by_id(class: ObjectClass, cka_id: [u8; 16]) -> [Attribute; 2] {
    [Attribute::Class(class), Attribute::Id(cka_id.to_vec())]
}

/// Reads boolean attributes; an attribute that the module does not report is `None`.
fn read_flags(session: &Session, object: ObjectHandle, kinds: &[AttributeType]) -> Result<Vec<Option<bool>>, Fault> {
    let found = session.get_attributes(object, kinds)?;
    let value = |kind: &AttributeType| {
        found.iter().find(|attribute| attribute.attribute_type() == *kind).map(|a| *a == flag(*kind, true))
    };
    Ok(kinds.iter().map(value).collect())
}

/// Refuses a KEK that is looser than its template.
pub(super) fn check_kek(
    session: &Session,
    object: ObjectHandle,
    purpose: KekPurpose,
    mechanism: MechanismType,
) -> Result<(), Fault> {
    let (kinds, wanted): (Vec<_>, Vec<_>) = flags(purpose).unzip();
    let found = read_flags(session, object, &kinds)?;
    for ((kind, wanted), found) in kinds.iter().zip(wanted).zip(found) {
        if found != Some(wanted) {
            let found = found.map_or("not reported".to_owned(), |value| value.to_string());
            return Err(loose(purpose, &format!("{kind} is {found} and must be {wanted}")));
        }
    }
    let value = session.get_attribute_info(object, &[AttributeType::Value])?;
    if matches!(value.as_slice(), [AttributeInfo::Available(_)]) {
        return Err(loose(purpose, "its value can be read"));
    }
    // The library cannot name every mechanism: a list it cannot read is not one of ours unless ours is such a mechanism.
    match session.get_attributes(object, &[AttributeType::AllowedMechanisms]) {
        Ok(list) if list == [Attribute::AllowedMechanisms(vec![mechanism])] => {}
        Err(cryptoki::error::Error::NotSupported) if MechanismType::try_from(*mechanism).is_err() => {}
        Ok(_) | Err(cryptoki::error::Error::NotSupported) => {
            return Err(loose(purpose, &format!("CKA_ALLOWED_MECHANISMS is not exactly {:#x}", *mechanism)));
        }
        Err(error) => return Err(error.into()),
    }
    if purpose == KekPurpose::Seal {
        let kind = AttributeType::VendorDefined(CKA_UNWRAP_TEMPLATE);
        let info = session.get_attribute_info(object, &[kind])?;
        if !matches!(info.as_slice(), [AttributeInfo::Available(1..)]) {
            return Err(loose(purpose, "it has no CKA_UNWRAP_TEMPLATE"));
        }
    }
    Ok(())
}

fn loose(purpose: KekPurpose, why: &str) -> Fault {
    HsmError::fatal(format!("the `{purpose}` key on the token is not as hardened as it must be: {why}")).into()
}

/// Whether a private key can never be read: SENSITIVE, not EXTRACTABLE, and its value really refused. (The library's
/// `get_attributes` silently leaves a sensitive value out, so it cannot tell.)
pub(super) fn is_locked(session: &Session, object: ObjectHandle) -> Result<bool, Fault> {
    let flags = read_flags(session, object, &[AttributeType::Sensitive, AttributeType::Extractable])?;
    let value = session.get_attribute_info(object, &[AttributeType::Value])?;
    Ok(flags == [Some(true), Some(false)] && !matches!(value.as_slice(), [AttributeInfo::Available(_)]))
}
