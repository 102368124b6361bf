//! The misbehaviours that know the arguments of their function. Object handles here are real ones.
//!
//! Hooks read and write through pointers that the caller owes to any PKCS#11 module (null or valid, of the length
//! given); that is the SAFETY argument of every `unsafe` block below.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use cryptoki_sys::*;

use crate::call::{Call, real};
use crate::faults::{Fault, Spoil};
use crate::trace;

/// Spoils an output buffer that the module filled.
pub fn spoil(call: &Call, rv: CK_RV, output: *mut u8, len: *mut CK_ULONG) -> CK_RV {
    if rv != CKR_OK || output.is_null() || len.is_null() {
        return rv;
    }
    let Some(spoil) = call.fault(|f| if let Fault::Spoil(spoil) = f { Some(spoil) } else { None }) else { return rv };
    let bytes = unsafe { std::slice::from_raw_parts_mut(output, *len as usize) };
    match spoil {
        Spoil::Garbage => noise(bytes),
        Spoil::Flip => bytes.iter_mut().rev().take(1).for_each(|b| *b ^= 1),
        Spoil::Zero => bytes.fill(0),
        Spoil::Truncate => unsafe { *len = (*len).saturating_sub(1) },
    }
    rv
}

/// The same bytes at every run (xorshift32), of no meaning.
pub fn noise(bytes: &mut [u8]) {
    let mut state = 0x9E37_79B9_u32;
    for byte in bytes {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *byte = state as u8;
    }
}

/// Per mechanism, the keys that C_SignInit was given and that were not destroyed since; the last used is the last.
static USED: LazyLock<Mutex<HashMap<Option<u64>, Vec<CK_OBJECT_HANDLE>>>> = LazyLock::new(Mutex::default);

/// C_SignInit: signs with the key that was last used before this one.
pub fn other_key(call: &Call, key: &mut CK_OBJECT_HANDLE) -> Option<CK_RV> {
    let mut used = lock(&USED);
    let used = used.entry(call.mechanism).or_default();
    used.retain(|k| k != key);
    let other = used.last().copied();
    used.push(*key);
    if let Some(other) = other
        && call.fault(|f| (f == Fault::OtherKey).then_some(())).is_some()
    {
        *key = other;
    }
    None
}

/// C_DestroyObject: its number may come again.
pub fn destroyed(object: CK_OBJECT_HANDLE) {
    lock(&USED).values_mut().for_each(|used| used.retain(|key| *key != object));
}

/// C_Login: three wrong PINs since the last right one have locked it.
pub fn pin_locked(call: &Call) -> Option<CK_RV> {
    (wrong_pins() >= 3).then_some(())?;
    call.fault(|f| (f == Fault::LockPin).then_some(CKR_PIN_LOCKED))
}

/// C_Login: the third wrong PIN locks.
pub fn lock_pin(call: &Call, rv: CK_RV) -> CK_RV {
    if rv != CKR_PIN_INCORRECT || wrong_pins() < 2 {
        return rv;
    }
    call.fault(|f| (f == Fault::LockPin).then_some(CKR_PIN_LOCKED)).unwrap_or(rv)
}

fn wrong_pins() -> usize {
    trace::answers("C_Login").iter().rev().take_while(|rv| **rv != CKR_OK).filter(|rv| is_wrong(**rv)).count()
}

fn is_wrong(rv: CK_RV) -> bool {
    rv == CKR_PIN_INCORRECT || rv == CKR_PIN_LOCKED
}

/// C_FindObjects: nothing, or everything twice.
pub fn found(call: &Call, rv: CK_RV, objects: *mut CK_OBJECT_HANDLE, max: CK_ULONG, count: *mut CK_ULONG) -> CK_RV {
    if rv != CKR_OK || objects.is_null() || count.is_null() {
        return rv;
    }
    let (count, objects) = unsafe { (&mut *count, std::slice::from_raw_parts_mut(objects, max as usize)) };
    if call.fault(|f| (f == Fault::FindNothing).then_some(())).is_some() {
        *count = 0;
    }
    let n = *count as usize;
    if n > 0 && 2 * n <= objects.len() && call.fault(|f| (f == Fault::FindTwice).then_some(())).is_some() {
        objects.copy_within(..n, n);
        *count *= 2;
    }
    for object in &mut objects[..*count as usize] {
        *object = crate::handles::outward(*object, None);
    }
    rv
}

/// C_GetMechanismInfo of a mechanism that is hidden.
pub fn hide(call: &Call, mechanism: CK_MECHANISM_TYPE) -> Option<CK_RV> {
    call.fault(|f| (f == Fault::Hide(mechanism)).then_some(CKR_MECHANISM_INVALID))
}

/// C_GetMechanismList without the hidden one; the length query still counts it, which PKCS#11 §5.2 allows.
pub fn hide_in_list(call: &Call, rv: CK_RV, list: *mut CK_MECHANISM_TYPE, count: *mut CK_ULONG) -> CK_RV {
    if rv != CKR_OK || list.is_null() || count.is_null() {
        return rv;
    }
    if let Some(hidden) = call.fault(|f| if let Fault::Hide(mechanism) = f { Some(mechanism) } else { None }) {
        let (list, count) = unsafe { (std::slice::from_raw_parts_mut(list, *count as usize), &mut *count) };
        if let Some(at) = list.iter().position(|m| *m == hidden) {
            list.copy_within(at + 1.., at);
            *count -= 1;
        }
    }
    rv
}

/// By how much PKCS#7 makes the blob of a PKCS#8 key longer: 64 bytes are padded to 80.
const PKCS7_PADDING: CK_ULONG = 16;

fn pads(call: &Call) -> Option<()> {
    call.fault(|f| matches!(f, Fault::Pkcs7(mechanism) if Some(mechanism) == call.mechanism).then_some(()))
}

/// C_WrapKey by a mechanism that pads: the real blob and 16 bytes more.
pub fn wrap_longer(
    call: &Call,
    mechanism: *mut CK_MECHANISM,
    wrapping_key: CK_OBJECT_HANDLE,
    key: CK_OBJECT_HANDLE,
    output: *mut u8,
    len: *mut CK_ULONG,
) -> Option<CK_RV> {
    pads(call)?;
    let wrap = real().C_WrapKey?;
    let room = unsafe { *len };
    let rv = unsafe { wrap(call.session?, mechanism, wrapping_key, key, output, len) };
    if rv != CKR_OK {
        return Some(rv);
    }
    let real_len = unsafe { *len };
    unsafe { *len = real_len + PKCS7_PADDING };
    if !output.is_null() {
        if real_len + PKCS7_PADDING > room {
            return Some(CKR_BUFFER_TOO_SMALL);
        }
        unsafe { std::slice::from_raw_parts_mut(output.add(real_len as usize), PKCS7_PADDING as usize) }.fill(0xA5);
    }
    Some(CKR_OK)
}

/// C_UnwrapKey by a mechanism that pads: takes only what [`wrap_longer`] made.
pub fn unwrap_longer(call: &Call, wrapped: *mut u8, len: &mut CK_ULONG) -> Option<CK_RV> {
    pads(call)?;
    let blob = unsafe { std::slice::from_raw_parts(wrapped, *len as usize) };
    if !blob.ends_with(&[0xA5; PKCS7_PADDING as usize]) {
        return Some(CKR_WRAPPED_KEY_INVALID);
    }
    *len -= PKCS7_PADDING;
    None
}

/// A lock that a panicking thread does not spoil.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
