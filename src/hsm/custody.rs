//! The two ways to keep a signing key, behind one face. Nothing leaves here that was not proven: a new key's address is handed out
//! only after a signature made through the stored form recovered to it, and a stored key is used only after its MAC was checked.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::binding;
use super::error::{Class, Fault, HsmError};
use super::keks::{KekPurpose, Keyring};
use super::seat::Open;
use super::signature::{self, SignatureError};
use super::templates;
use super::types::{Custody, KeyContext, KeyRef, PublicKey, Signature};

/// Makes a key.
pub(super) fn generate(
    open: &mut Open,
    ring: &Keyring,
    ctx: &KeyContext,
    custody: Custody,
) -> Result<(KeyRef, PublicKey), Fault> {
    match custody {
        Custody::Wrapped => generate_wrapped(open, ring, ctx),
        Custody::Token => generate_token(open, ring, ctx),
    }
}

/// A session object, wrapped, destroyed.
pub(super) fn generate_wrapped(
    open: &mut Open,
    ring: &Keyring,
    ctx: &KeyContext,
) -> Result<(KeyRef, PublicKey), Fault> {
    ring.require(KekPurpose::Seal)?;
    let (public_object, private_object) = open.session.generate_key_pair(
        &Mechanism::EccKeyPairGen,
        &templates::public_key(false, None),
        &templates::wrappable_key(),
    )?;
    let public = read_point(open, public_object);
    open.session.destroy_object(public_object)?;
    match public {
        Ok(public) => wrap_and_prove(open, ring, ctx, private_object, public),
        Err(fault) => {
            open.session.destroy_object(private_object)?;
            Err(fault)
        }
    }
}

/// Wraps an extractable session object and destroys it; then proves the blob by using it.
fn wrap_and_prove(
    open: &mut Open,
    ring: &Keyring,
    ctx: &KeyContext,
    private_object: ObjectHandle,
    public: PublicKey,
) -> Result<(KeyRef, PublicKey), Fault> {
    let seal = ring.require(KekPurpose::Seal)?;
    let blob = open.wrap(seal, private_object)?;
    open.session.destroy_object(private_object)?;
    let mac_kek_id = ring.require(KekPurpose::Mac)?.id;
    let key = KeyRef::Wrapped { blob, mechanism: seal.mechanism, kek_id: seal.id, mac_kek_id, mac: [0; 32] };
    let key = bind(open, ring, ctx, key, &public)?;
    prove(open, ring, ctx, &key, &public)?;
    Ok((key, public))
}

/// A pair of token objects under a random CKA_ID.
fn generate_token(open: &mut Open, ring: &Keyring, ctx: &KeyContext) -> Result<(KeyRef, PublicKey), Fault> {
    let cka_id = fresh_id(open)?;
    let (public_object, _) = open.session.generate_key_pair(
        &Mechanism::EccKeyPairGen,
        &templates::public_key(true, Some(cka_id)),
        &templates::token_key(cka_id),
    )?;
    let public = read_point(open, public_object);
    bind_token(open, ring, ctx, cka_id, public)
}

/// Binds a new token key to its row and proves it; a key that cannot be proven is removed again.
fn bind_token(
    open: &mut Open,
    ring: &Keyring,
    ctx: &KeyContext,
    cka_id: [u8; 16],
    public: Result<PublicKey, Fault>,
) -> Result<(KeyRef, PublicKey), Fault> {
    let proven = public.and_then(|public| {
        let mac_kek_id = ring.require(KekPurpose::Mac)?.id;
        let key = bind(open, ring, ctx, KeyRef::Token { cka_id, mac_kek_id, mac: [0; 32] }, &public)?;
        prove(open, ring, ctx, &key, &public)?;
        Ok((key, public))
    });
    if proven.is_err() {
        // Best effort: the caller gets the first error, and an unproven key has no row that could use it.
        let _ = remove(open, cka_id);
    }
    proven
}

/// Brings a private scalar into the HSM. The template's copy of it is wiped whatever happens.
pub(super) fn import(
    open: &mut Open,
    ring: &Keyring,
    ctx: &KeyContext,
    custody: Custody,
    scalar: &Zeroizing<[u8; 32]>,
    public: &PublicKey,
) -> Result<(KeyRef, PublicKey), Fault> {
    match custody {
        Custody::Wrapped => {
            ring.require(KekPurpose::Seal)?;
            let object = create_private(open, templates::wrappable_key(), scalar)?;
            wrap_and_prove(open, ring, ctx, object, *public)
        }
        Custody::Token => {
            let cka_id = fresh_id(open)?;
            create_private(open, templates::token_key(cka_id), scalar)?;
            let mut template = templates::public_key(true, Some(cka_id));
            template.extend(templates::import_public(&public.to_bytes()));
            let public = open.session.create_object(&template).map(|_| *public).map_err(Fault::from);
            bind_token(open, ring, ctx, cka_id, public)
        }
    }
}

fn create_private(open: &mut Open, mut template: Vec<Attribute>, scalar: &[u8; 32]) -> Result<ObjectHandle, Fault> {
    template.extend(templates::import(scalar));
    let object = open.session.create_object(&template);
    for attribute in &mut template {
        if let Attribute::Value(value) = attribute {
            value.zeroize();
        }
    }
    Ok(object?)
}

/// A signature by the key, or an error: never one by another key.
pub(super) fn sign(
    open: &mut Open,
    ring: &Keyring,
    ctx: &KeyContext,
    key: &KeyRef,
    expect: &PublicKey,
    digest: &[u8; 32],
) -> Result<Signature, Fault> {
    let handle = handle(open, ring, ctx, key, expect)?;
    let raw = open.ecdsa(handle, digest)?;
    signature::finish(&raw, digest, expect).map_err(|error| {
        // The handle means another key now, or the module returns garbage: neither is to be met again.
        let _ = open.forget(ctx.key_id);
        unproven(error)
    })
}

/// The handle of a stored key: from the cache if exactly this tuple was verified in this session, otherwise the MAC is checked
/// first, then the blob is unwrapped or the token object found.
pub(super) fn handle(
    open: &mut Open,
    ring: &Keyring,
    ctx: &KeyContext,
    key: &KeyRef,
    public: &PublicKey,
) -> Result<ObjectHandle, Fault> {
    let message = binding::message(ctx, key, public);
    let fingerprint = binding::fingerprint(&message, binding::mac(key));
    if let Some(handle) = open.cached(ctx.key_id, &fingerprint) {
        return Ok(handle);
    }
    check_mac(open, ring, key, &message)?;
    open.forget(ctx.key_id)?;
    let (handle, owned) = match key {
        KeyRef::Wrapped { blob, mechanism, kek_id, .. } => {
            let seal = ring.named(*kek_id, KekPurpose::Seal)?;
            if seal.mechanism != *mechanism {
                return Err(HsmError::integrity("the row was wrapped by another mechanism than its key allows").into());
            }
            (open.unwrap(seal, blob)?, true)
        }
        KeyRef::Token { cka_id, .. } => (find_private(open, ring, *cka_id)?, false),
    };
    // An unwrapped key was looked at when it was unwrapped.
    if !owned && !templates::is_locked(&open.session, handle)? {
        return Err(HsmError::integrity("a signing key on the token could be read").into());
    }
    open.remember(ctx.key_id, fingerprint, handle, owned)?;
    Ok(handle)
}

/// Binds a stored key to the ring's active keys: its blob is wrapped by the active `seal` key and its MAC made by the active `mac`
/// key. What is bound so already is answered as it is. The old reference stays good for as long as its keys are in the ring.
///
/// The unwrapped key is extractable between C_UnwrapKey and C_WrapKey, inside the token and this session only.
pub(super) fn rewrap(
    open: &mut Open,
    ring: &Keyring,
    ctx: &KeyContext,
    key: &KeyRef,
    public: &PublicKey,
) -> Result<KeyRef, Fault> {
    check_mac(open, ring, key, &binding::message(ctx, key, public))?;
    let mac_id = ring.require(KekPurpose::Mac)?.id;
    let fresh = match key {
        KeyRef::Token { mac_kek_id, .. } if *mac_kek_id == mac_id => return Ok(key.clone()),
        KeyRef::Token { cka_id, .. } => KeyRef::Token { cka_id: *cka_id, mac_kek_id: mac_id, mac: [0; 32] },
        KeyRef::Wrapped { blob, mechanism, kek_id, mac_kek_id, .. } => {
            let seal = ring.require(KekPurpose::Seal)?;
            if (*kek_id, *mac_kek_id) == (seal.id, mac_id) {
                return Ok(key.clone());
            }
            let blob = if *kek_id == seal.id {
                blob.clone()
            } else {
                let old = ring.named(*kek_id, KekPurpose::Seal)?;
                if old.mechanism != *mechanism {
                    return Err(
                        HsmError::integrity("the row was wrapped by another mechanism than its key allows").into()
                    );
                }
                let only_trusted = open.is_trusted(seal)?;
                let object = open.unwrap_to_rewrap(old, blob, only_trusted)?;
                let wrapped = open.wrap(seal, object);
                // Whatever became of it: an extractable object does not outlive this call.
                open.session.destroy_object(object)?;
                wrapped?
            };
            KeyRef::Wrapped { blob, mechanism: seal.mechanism, kek_id: seal.id, mac_kek_id: mac_id, mac: [0; 32] }
        }
    };
    let was_live = open.has_cached(ctx.key_id);
    let fresh = bind(open, ring, ctx, fresh, public)?;
    prove(open, ring, ctx, &fresh, public)?;
    // A rotation passes every key there is: those that nobody uses must not push out those in use.
    if !was_live {
        open.forget(ctx.key_id)?;
    }
    Ok(fresh)
}

/// Makes the MAC of a stored key anew, by the ring's active `mac` key, and leaves everything else: for canaries.
pub(super) fn rebind(
    open: &mut Open,
    ring: &Keyring,
    ctx: &KeyContext,
    key: &KeyRef,
    public: &PublicKey,
) -> Result<KeyRef, Fault> {
    check_mac(open, ring, key, &binding::message(ctx, key, public))?;
    let mut fresh = key.clone();
    let active = ring.require(KekPurpose::Mac)?.id;
    match &mut fresh {
        KeyRef::Wrapped { mac_kek_id, .. } | KeyRef::Token { mac_kek_id, .. } => *mac_kek_id = active,
    }
    bind(open, ring, ctx, fresh, public)
}

/// The token object of a key whose row is sound. Not found means deleted only if the token is otherwise whole.
fn find_private(open: &mut Open, ring: &Keyring, cka_id: [u8; 16]) -> Result<ObjectHandle, Fault> {
    if let Some(handle) = open.find(ObjectClass::PRIVATE_KEY, cka_id)? {
        return Ok(handle);
    }
    super::seat::locate_kek(&open.session, ring.require(KekPurpose::Mac)?)?;
    Err(HsmError::NotFound.into())
}

/// Removes a key: the cached session object, and for `token` custody the objects on the token.
pub(super) fn destroy(open: &mut Open, ring: &Keyring, ctx: &KeyContext, key: &KeyRef) -> Result<(), Fault> {
    open.forget(ctx.key_id)?;
    let KeyRef::Token { cka_id, .. } = key else { return Ok(()) };
    // The public object gives the point that the MAC covers: a row that was tampered with destroys nothing. It goes last, so
    // that an interrupted removal can be taken up again.
    let Some(public_object) = open.find(ObjectClass::PUBLIC_KEY, *cka_id)? else {
        return match open.find(ObjectClass::PRIVATE_KEY, *cka_id)? {
            Some(_) => Err(HsmError::integrity("a private key on the token has no public key beside it").into()),
            None => find_private(open, ring, *cka_id).map(|_| ()),
        };
    };
    let public = read_point(open, public_object)?;
    check_mac(open, ring, key, &binding::message(ctx, key, &public))?;
    remove(open, *cka_id)
}

fn remove(open: &mut Open, cka_id: [u8; 16]) -> Result<(), Fault> {
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        if let Some(object) = open.find(class, cka_id)? {
            open.session.destroy_object(object)?;
        }
    }
    Ok(())
}

/// Puts the MAC into a new key's reference.
fn bind(
    open: &mut Open,
    ring: &Keyring,
    ctx: &KeyContext,
    mut key: KeyRef,
    public: &PublicKey,
) -> Result<KeyRef, Fault> {
    let tag = open.hmac(ring.require(KekPurpose::Mac)?, &binding::message(ctx, &key, public))?;
    match &mut key {
        KeyRef::Wrapped { mac, .. } | KeyRef::Token { mac, .. } => *mac = tag,
    }
    Ok(key)
}

/// The MAC of a row, by the MAC key that it names. Compared in constant time.
fn check_mac(open: &mut Open, ring: &Keyring, key: &KeyRef, message: &[u8]) -> Result<(), Fault> {
    let (KeyRef::Wrapped { mac_kek_id, mac, .. } | KeyRef::Token { mac_kek_id, mac, .. }) = key;
    let expect = open.hmac(ring.named(*mac_kek_id, KekPurpose::Mac)?, message)?;
    if bool::from(expect.ct_eq(mac)) {
        Ok(())
    } else {
        Err(HsmError::integrity("the stored key does not belong to this row").into())
    }
}

/// Signs through the stored form and recovers the public key: only then is an address worth showing.
fn prove(open: &mut Open, ring: &Keyring, ctx: &KeyContext, key: &KeyRef, public: &PublicKey) -> Result<(), Fault> {
    let mut digest = [0; 32];
    open.random(&mut digest)?;
    sign(open, ring, ctx, key, public, &digest).map(|_| ())
}

fn read_point(open: &mut Open, public_object: ObjectHandle) -> Result<PublicKey, Fault> {
    signature::ec_point(&open.ec_point(public_object)?).map_err(unproven)
}

fn fresh_id(open: &mut Open) -> Result<[u8; 16], Fault> {
    let mut id = [0; 16];
    open.random(&mut id)?;
    match open.find(ObjectClass::PRIVATE_KEY, id)? {
        None => Ok(id),
        Some(_) => Err(Fault::Strange(Class::Device, "the HSM repeats its random numbers")),
    }
}

fn unproven(error: SignatureError) -> Fault {
    let what = match error {
        SignatureError::Malformed => "the HSM returned no valid signature",
        SignatureError::WrongKey => "a signature is not by the expected key",
        SignatureError::Point => "the HSM returned no valid public key",
    };
    HsmError::integrity(what).into()
}
