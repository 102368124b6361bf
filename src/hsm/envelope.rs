//! Sealed secret bodies: a fresh DEK for each, the body under it by AES-256-GCM in process (real HSMs cap GCM at 16 KB), the DEK
//! under the `data` key by CKM_AES_GCM in the HSM. Both carry the caller's AAD.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::canary;
use super::error::{Class, Fault, HsmError};
use super::keks::{Kek, KekPurpose, Keyring};
use super::seat::Open;
use super::types::{Envelope, SealedDek};

/// Bits of every tag.
const TAG_BITS: u64 = 128;
/// A sealed DEK: 32 bytes and the tag.
const SEALED_DEK_LEN: usize = 48;

/// What a body is sealed with.
pub(super) type Dek = Zeroizing<[u8; 32]>;

/// A fresh DEK and body nonce from the HSM, and the DEK sealed.
pub(super) fn new_dek(open: &mut Open, ring: &Keyring, aad: &[u8]) -> Result<(Dek, [u8; 12], SealedDek), Fault> {
    let mut dek = Dek::default();
    open.random(dek.as_mut_slice())?;
    let mut nonce = [0; 12];
    open.random(&mut nonce)?;
    let sealed = seal_dek(open, ring.require(KekPurpose::Data)?, aad, &dek)?;
    Ok((dek, nonce, sealed))
}

/// Seals 32 bytes, and opens them again. The nonce is drawn from the HSM, and what the buffer holds *after* the call is kept: some
/// modules write their own.
pub(super) fn seal_dek(open: &mut Open, kek: &Kek, aad: &[u8], dek: &[u8; 32]) -> Result<SealedDek, Fault> {
    let handle = open.kek(kek)?;
    let mut iv = [0; 12];
    open.random(&mut iv)?;
    let ciphertext = {
        let params = GcmParams::new(&mut iv, aad, (TAG_BITS as std::ffi::c_ulong).into())?;
        open.session.encrypt(&Mechanism::AesGcm(params), handle, dek)?
    };
    if ciphertext.len() != SEALED_DEK_LEN || iv == [0; 12] {
        return Err(Fault::Strange(Class::Device, "a sealed DEK has the wrong length or no nonce"));
    }
    let sealed = SealedDek { kek_id: kek.id, iv, ciphertext };
    // The caller keeps no copy of the secret: what is acknowledged must open again, by what is stored.
    if !bool::from(decrypt_dek(open, kek, aad, &sealed)?.ct_eq(dek)) {
        return Err(Fault::Strange(Class::Device, "a sealed DEK does not open to itself"));
    }
    Ok(sealed)
}

/// Opens a sealed DEK. To a wrong tag modules say CKR_GENERAL_ERROR, as to a broken device: the key's own canary tells which.
pub(super) fn open_dek(open: &mut Open, ring: &Keyring, aad: &[u8], sealed: &SealedDek) -> Result<Dek, Fault> {
    let kek = ring.named(sealed.kek_id, KekPurpose::Data)?;
    match decrypt_dek(open, kek, aad, sealed) {
        Err(Fault::Module(error)) if matches!(Class::of(&error), Class::Device | Class::Refusal) => {
            if canary::data_canary_opens(open, kek) {
                Err(foreign().into())
            } else {
                Err(error.into())
            }
        }
        other => other,
    }
}

/// Seals a DEK anew, by the ring's active `data` key.
pub(super) fn reseal_dek(open: &mut Open, ring: &Keyring, aad: &[u8], sealed: &SealedDek) -> Result<SealedDek, Fault> {
    let active = ring.require(KekPurpose::Data)?;
    if sealed.kek_id == active.id {
        return Ok(sealed.clone());
    }
    let dek = open_dek(open, ring, aad, sealed)?;
    seal_dek(open, active, aad, &dek)
}

/// C_Decrypt of a sealed DEK, with the module's errors as they are.
pub(super) fn decrypt_dek(open: &mut Open, kek: &Kek, aad: &[u8], sealed: &SealedDek) -> Result<Dek, Fault> {
    if sealed.ciphertext.len() != SEALED_DEK_LEN {
        return Err(foreign().into());
    }
    let handle = open.kek(kek)?;
    let mut iv = sealed.iv;
    let params = GcmParams::new(&mut iv, aad, (TAG_BITS as std::ffi::c_ulong).into())?;
    let plain = Zeroizing::new(open.session.decrypt(&Mechanism::AesGcm(params), handle, &sealed.ciphertext)?);
    let mut dek = Dek::default();
    if plain.len() != dek.len() {
        return Err(foreign().into());
    }
    dek.copy_from_slice(&plain);
    Ok(dek)
}

/// Seals a body under its DEK. In process.
pub(super) fn seal_body(
    dek: &Dek,
    nonce: [u8; 12],
    sealed: SealedDek,
    aad: &[u8],
    body: &[u8],
) -> Result<Envelope, HsmError> {
    let ciphertext = cipher(dek)?
        .encrypt(&Nonce::from(nonce), Payload { msg: body, aad })
        .map_err(|_| HsmError::Invalid { what: "the secret is too large" })?;
    Ok(Envelope { dek: sealed, nonce, ciphertext })
}

/// Opens a body. In process.
pub(super) fn open_body(dek: &Dek, envelope: &Envelope, aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    let body = cipher(dek)?.decrypt(&Nonce::from(envelope.nonce), Payload { msg: &envelope.ciphertext, aad });
    body.map(Zeroizing::new).map_err(|_| foreign())
}

fn cipher(dek: &Dek) -> Result<Aes256Gcm, HsmError> {
    Aes256Gcm::new_from_slice(dek.as_slice()).map_err(|_| HsmError::Invalid { what: "not an AES-256 key" })
}

fn foreign() -> HsmError {
    HsmError::integrity("the sealed data does not belong to this row")
}
