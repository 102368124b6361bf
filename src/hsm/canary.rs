//! Each key on the token has a canary in the database, made by its own operation, which must check out before anything else is done
//! with the key: so a token that was exchanged or initialised anew is noticed, and so is a key that is looser than it was made.

use serde::{Deserialize, Serialize};

use super::error::{Class, Fault, HsmError};
use super::keks::{Kek, KekPurpose, Keyring, ed25519};
use super::seat::Open;
use super::types::{KeyContext, KeyRef, PublicKey, SealedDek};
use super::{custody, envelope, signature, templates, vendor};
use crate::ids::{KeyId, OrgId};

const CANARY: &[u8] = b"intentd canary v1";
const CANARY_DIGEST: [u8; 32] = *b"intentd canary digest, 32 bytes.";

/// The canary of each purpose, as stored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Canary {
    /// A wrapped signing key and its public half.
    Seal { key: KeyRef, public_key: String },
    /// A sealed constant.
    Data(SealedDek),
    /// The MAC of a constant.
    Mac(String),
    /// The signature of a constant.
    Jwt(String),
    /// Likewise.
    Audit(String),
}

/// The context under which a `seal` key's canary is bound.
fn canary_context(kek: &Kek) -> KeyContext {
    KeyContext { org_id: OrgId(uuid::Uuid::nil()), key_id: KeyId(kek.id.0), path: "canary".into(), version: 0 }
}

/// The canary of a `seal` key as an ordinary signing key: health signs with it.
pub(super) fn canary_key(seal: &Kek) -> Result<(KeyContext, KeyRef, PublicKey), HsmError> {
    let bad = || HsmError::fatal("the canary of the `seal` key cannot be read");
    let Ok(Canary::Seal { key, public_key }) = Canary::deserialize(&seal.canary) else { return Err(bad()) };
    let bytes = hex::decode(public_key).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(bad)?;
    Ok((canary_context(seal), key, PublicKey::from_bytes(bytes).map_err(|_| bad())?))
}

/// The canary of a new key, to be stored with it.
pub(super) fn make(open: &mut Open, ring: &Keyring, kek: &Kek) -> Result<serde_json::Value, Fault> {
    let canary = match kek.purpose {
        KekPurpose::Mac => Canary::Mac(hex::encode(open.hmac(kek, CANARY)?)),
        KekPurpose::Jwt => Canary::Jwt(hex::encode(ed25519(open, kek, CANARY)?)),
        KekPurpose::Audit => Canary::Audit(hex::encode(ed25519(open, kek, CANARY)?)),
        KekPurpose::Data => Canary::Data(envelope::seal_dek(open, kek, CANARY, &CANARY_DIGEST)?),
        KekPurpose::Seal => {
            let (key, public) = custody::generate_wrapped(open, ring, &canary_context(kek))?;
            Canary::Seal { key, public_key: hex::encode(public.to_bytes()) }
        }
    };
    serde_json::to_value(canary).map_err(|_| Fault::Strange(Class::Refusal, "a canary cannot be written as JSON"))
}

/// The canary of a `seal` key, bound by the active `mac` key instead of the one that it names.
pub(super) fn rebind(open: &mut Open, ring: &Keyring, seal: &Kek) -> Result<serde_json::Value, Fault> {
    let (ctx, key, public) = canary_key(seal)?;
    let key = custody::rebind(open, ring, &ctx, &key, &public)?;
    let canary = Canary::Seal { key, public_key: hex::encode(public.to_bytes()) };
    serde_json::to_value(canary).map_err(|_| Fault::Strange(Class::Refusal, "a canary cannot be written as JSON"))
}

/// Proves that the object on the token is the hardened key that the row describes: found once, attributes, its own operation.
pub(super) fn check(open: &mut Open, ring: &Keyring, kek: &Kek) -> Result<(), Fault> {
    let handle = open.locate_again(kek)?;
    templates::check_kek(&open.session, handle, kek.purpose, vendor::mechanism_type(kek.mechanism)?)?;
    check_canary(open, ring, kek)
}

/// The canary alone: what the key's operation makes of a constant, or makes again of what it made.
pub(super) fn check_canary(open: &mut Open, ring: &Keyring, kek: &Kek) -> Result<(), Fault> {
    let wrong = || {
        HsmError::fatal(format!("the `{}` key on the token is not the one this database was made with", kek.purpose))
    };
    let canary = Canary::deserialize(&kek.canary).map_err(|_| wrong())?;
    let good = match canary {
        Canary::Mac(expect) if kek.purpose == KekPurpose::Mac => hex::encode(open.hmac(kek, CANARY)?) == expect,
        Canary::Jwt(expect) if kek.purpose == KekPurpose::Jwt => check_pair(open, kek, &expect)?,
        Canary::Audit(expect) if kek.purpose == KekPurpose::Audit => check_pair(open, kek, &expect)?,
        Canary::Data(sealed) if kek.purpose == KekPurpose::Data => check_data(open, kek, &sealed)?,
        Canary::Seal { .. } if kek.purpose == KekPurpose::Seal => check_seal(open, ring, kek)?,
        _ => false,
    };
    if good { Ok(()) } else { Err(wrong().into()) }
}

/// Ed25519 is deterministic (RFC 8032), so the same key gives the same signature; and it must verify by the stored public key.
fn check_pair(open: &mut Open, kek: &Kek, expect: &str) -> Result<bool, Fault> {
    use base64::Engine as _;
    let signature = ed25519(open, kek, CANARY)?;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature);
    let key = jsonwebtoken::DecodingKey::from_ed_der(kek.public_key.as_deref().unwrap_or_default());
    let verifies = jsonwebtoken::crypto::verify(&text, CANARY, &key, jsonwebtoken::Algorithm::EdDSA);
    Ok(hex::encode(signature) == expect && verifies.is_ok_and(|good| good))
}

/// The `data` canary opens. What the module says to a wrong tag cannot be told from a device fault (CKR_GENERAL_ERROR).
pub(super) fn check_data(open: &mut Open, kek: &Kek, sealed: &SealedDek) -> Result<bool, Fault> {
    match envelope::decrypt_dek(open, kek, CANARY, sealed) {
        Ok(dek) => Ok(*dek == CANARY_DIGEST),
        Err(Fault::Module(error)) if matches!(Class::of(&error), Class::Device | Class::Refusal) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Whether the `data` key works on its own canary.
pub(super) fn data_canary_opens(open: &mut Open, kek: &Kek) -> bool {
    let sealed = match Canary::deserialize(&kek.canary) {
        Ok(Canary::Data(sealed)) => sealed,
        _ => return false,
    };
    check_data(open, kek, &sealed).unwrap_or(false)
}

/// A wrapped known key unwraps, unreadable, and signs; and the key refuses to give it up in a readable form.
fn check_seal(open: &mut Open, ring: &Keyring, kek: &Kek) -> Result<bool, Fault> {
    let (ctx, key, public) = canary_key(kek)?;
    open.forget(ctx.key_id)?;
    let handle = match custody::handle(open, ring, &ctx, &key, &public) {
        Ok(handle) => handle,
        Err(Fault::Module(error)) if matches!(Class::of(&error), Class::Device | Class::Refusal) => return Ok(false),
        Err(Fault::Refused(HsmError::Integrity { .. })) => return Ok(false),
        Err(fault) => return Err(fault),
    };
    let raw = open.ecdsa(handle, &CANARY_DIGEST)?;
    Ok(signature::finish(&raw, &CANARY_DIGEST, &public).is_ok())
}
