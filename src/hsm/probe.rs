//! What the module can do, asked and then tried, before anything relies on it. Errors name what is missing.

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as P11Error, RvError};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::Session;
use cryptoki::slot::Slot;

use super::error::{Cause, Fault, HsmError};
use super::{signature, templates, vendor};

/// Wrap mechanisms that have a name in the configuration.
const WRAP_MECHANISMS: [(&str, u64); 3] =
    [("aes-key-wrap", 0x2109), ("aes-key-wrap-pad", 0x210A), ("aes-key-wrap-kwp", 0x210B)];

/// A PKCS#8 secp256k1 key without its public half is exactly 64 bytes; with it 138 (RFC 5915 inside RFC 5208).
const BLOB_BYTES: [usize; 2] = [72, 152];
/// A 32-byte key under RFC 3394 and RFC 5649. PKCS#7 padding gives 56.
const WRAPPED_AES_BYTES: usize = 40;

/// The number of a configured wrap mechanism: a name, or digits (`0x…` or decimal).
///
/// # Errors
/// [`HsmError::Fatal`] with the names that are known.
pub(super) fn wrap_mechanism(name: &str) -> Result<u64, HsmError> {
    let number = match name.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => name.parse().ok(),
    };
    let named = WRAP_MECHANISMS.iter().find(|(known, _)| *known == name).map(|(_, id)| *id);
    named.or(number).ok_or_else(|| {
        let names = WRAP_MECHANISMS.map(|(known, _)| known).join(", ");
        HsmError::fatal(format!("wrap_mechanism \"{name}\" is neither one of {names} nor a number"))
    })
}

/// A capability and whether the token has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// For what it is needed, in plain words.
    pub purpose: &'static str,
    /// Its PKCS#11 name.
    pub mechanism: String,
    /// Whether the token lists it.
    pub present: bool,
    /// Needed for wrapped keys only.
    pub is_wrapping: bool,
}

/// Every mechanism that is needed, in the order of a day's work.
pub(super) fn capabilities(module: &Pkcs11, slot: Slot, wrap: u64) -> Result<Vec<Capability>, P11Error> {
    use MechanismType as M;
    let wrap_type = vendor::mechanism_type(wrap).map_err(|_| P11Error::InvalidValue)?;
    let needed = [
        ("make signing keys", M::ECC_KEY_PAIR_GEN),
        ("sign transactions", M::ECDSA),
        ("make key-encryption keys", M::AES_KEY_GEN),
        ("seal secrets", M::AES_GCM),
        ("make the MAC key", M::GENERIC_SECRET_KEY_GEN),
        ("authenticate stored keys", M::SHA256_HMAC),
        ("make the token-signing key (Ed25519)", M::ECC_EDWARDS_KEY_PAIR_GEN),
        ("sign tokens (Ed25519)", M::EDDSA),
        ("wrap signing keys", wrap_type),
    ];
    needed
        .into_iter()
        .map(|(purpose, mechanism)| {
            let present = match module.get_mechanism_info(slot, mechanism) {
                Ok(_) => true,
                Err(P11Error::Pkcs11(RvError::MechanismInvalid, _)) => false,
                Err(error) => return Err(error),
            };
            let is_wrapping = *mechanism == *wrap_type;
            Ok(Capability { purpose, mechanism: format!("{mechanism} ({:#x})", *mechanism), present, is_wrapping })
        })
        .collect()
}

/// Refuses a token that lacks something; wrapping is only needed for wrapped keys.
pub(super) fn require(capabilities: &[Capability], wrapped: bool) -> Result<(), HsmError> {
    let needed = capabilities.iter().filter(|c| wrapped || !c.is_wrapping);
    let missing: Vec<_> = needed.filter(|c| !c.present).map(|c| format!("{} to {}", c.mechanism, c.purpose)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(HsmError::fatal(format!("the token lacks {}", missing.join(", "))))
}

/// Tries signing and, for wrapped keys, the whole way of one: generate, wrap, look at the blob, unwrap, sign, recover. Leaves
/// nothing behind: session objects only, destroyed at the end or with their session.
pub(super) fn self_test(session: &Session, wrap: Option<MechanismType>) -> Result<(), HsmError> {
    try_signing(session, wrap).map_err(|fault| match fault {
        Fault::Refused(error) => error,
        Fault::Module(error) => HsmError::fatal_by("the self-test failed", &error),
        Fault::Strange(_, what) => {
            HsmError::Fatal { what: "the self-test failed".into(), cause: Some(Cause::new(what)) }
        }
    })
}

fn try_signing(session: &Session, wrap: Option<MechanismType>) -> Result<(), Fault> {
    let mut digest = [0; 32];
    session.generate_random_slice(&mut digest)?;
    if digest == [0; 32] {
        return Err(HsmError::fatal("the HSM's random numbers are zeros").into());
    }
    let (public_object, private_object) = session.generate_key_pair(
        &Mechanism::EccKeyPairGen,
        &templates::public_key(false, None),
        &templates::wrappable_key(),
    )?;
    let point = session.get_attributes(public_object, &[cryptoki::object::AttributeType::EcPoint])?.pop();
    session.destroy_object(public_object)?;
    let public = match point {
        Some(Attribute::EcPoint(point)) => signature::ec_point(&point),
        _ => Err(signature::SignatureError::Point),
    };
    let public = public.map_err(|error| HsmError::fatal(error.to_string()))?;
    let key = match wrap {
        None => private_object,
        Some(mechanism) => {
            let key = try_wrapping(session, mechanism, private_object)?;
            session.destroy_object(private_object)?;
            key
        }
    };
    let raw = session.sign(&Mechanism::Ecdsa, key, &digest)?;
    session.destroy_object(key)?;
    signature::finish(&raw, &digest, &public).map_err(|error| HsmError::fatal(error.to_string()))?;
    Ok(())
}

/// A wrap and unwrap under a throw-away key. The lengths tell RFC 5649 from PKCS#7 padding, which 0x210A means on some modules.
fn try_wrapping(
    session: &Session,
    mechanism: MechanismType,
    key: cryptoki::object::ObjectHandle,
) -> Result<cryptoki::object::ObjectHandle, Fault> {
    let kek =
        aes_session_key(session, &[Attribute::Wrap(true), Attribute::Unwrap(true), Attribute::Extractable(false)])?;
    let sample = aes_session_key(session, &[Attribute::Encrypt(true), Attribute::Extractable(true)])?;
    let how = vendor::plain(mechanism);
    let wrapped_aes = session.wrap_key(&how, kek, sample)?;
    let blob = session.wrap_key(&how, kek, key)?;
    if wrapped_aes.len() != WRAPPED_AES_BYTES || !BLOB_BYTES.contains(&blob.len()) {
        return Err(HsmError::fatal(format!(
            "wrap mechanism {:#x} of this module is not AES key wrap by RFC 3394 or RFC 5649: it makes {} bytes of a 32-byte key \
             (must be {WRAPPED_AES_BYTES}) and {} of a signing key (must be {} or {})",
            *mechanism,
            wrapped_aes.len(),
            blob.len(),
            BLOB_BYTES[0],
            BLOB_BYTES[1],
        ))
        .into());
    }
    let unwrapped = session.unwrap_key(&how, kek, &blob, &templates::unwrapped_key())?;
    for object in [kek, sample] {
        session.destroy_object(object)?;
    }
    Ok(unwrapped)
}

fn aes_session_key(session: &Session, extra: &[Attribute]) -> Result<cryptoki::object::ObjectHandle, Fault> {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::ValueLen(32.into()),
    ];
    template.extend_from_slice(extra);
    Ok(session.generate_key(&Mechanism::AesKeyGen, &template)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrap_mechanism_has_a_name_or_a_number() {
        assert_eq!(wrap_mechanism("aes-key-wrap"), Ok(0x2109));
        assert_eq!(wrap_mechanism("aes-key-wrap-kwp"), Ok(0x210B));
        assert_eq!(wrap_mechanism("0x80000001"), Ok(0x8000_0001));
        assert_eq!(wrap_mechanism("8457"), Ok(0x2109));
        for bad in ["", "0x", "aes", "-1", "0xg"] {
            assert!(wrap_mechanism(bad).is_err(), "{bad:?}");
        }
    }
}
