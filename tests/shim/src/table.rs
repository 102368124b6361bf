//! The 68 functions of PKCS#11 2.40 (§5), one line each, and the list that C_GetFunctionList gives out.

use std::ffi::c_void;

use cryptoki_sys::*;

use crate::args::{Arg, Mechanism, NewObject, Object, Output, Session};
use crate::call::{Call, real};
use crate::trace::Facts;
use crate::{attributes, handles, twists};

/// Answers `Some` when the hook has dealt with the call itself, else it may have changed the arguments.
fn instead(call: &Call, hook: impl FnOnce(&Call) -> Option<CK_RV>) -> Option<CK_RV> {
    hook(call)
}

/// What the caller hears after the real module answered `rv`.
fn after(call: &Call, rv: CK_RV, hook: impl FnOnce(&Call, CK_RV) -> CK_RV) -> CK_RV {
    hook(call, rv)
}

/// Makes of each line the forwarding function, and of all the function list.
macro_rules! functions {
    ($($name:ident($($arg:ident: $kind:ty),*) $(, instead $instead:expr)? $(, after $after:expr)?;)*) => {
        $(
            #[allow(unused_mut)]
            unsafe extern "C" fn $name($(mut $arg: <$kind as Arg>::C),*) -> CK_RV {
                #[allow(unused_mut)]
                let mut facts = Facts::default();
                $(<$kind as Arg>::note($arg, &mut facts);)*
                let call = match Call::enter(stringify!($name), facts) {
                    Ok(call) => call,
                    Err(rv) => return rv,
                };
                $($arg = <$kind as Arg>::inward($arg);)*
                $(if let Some(rv) = instead(&call, $instead) { return call.leave(rv); })?
                let Some(function) = real().$name else { return call.leave(CKR_FUNCTION_NOT_SUPPORTED) };
                // SAFETY: the caller owes these arguments to the module; the shim passes them on.
                let rv = unsafe { function($($arg),*) };
                $(let rv = after(&call, rv, $after);)?
                if rv == CKR_OK {
                    // SAFETY: as above.
                    $(unsafe { <$kind as Arg>::outward($arg, call.session) };)*
                }
                call.leave(rv)
            }
        )*

        static LIST: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
            version: CK_VERSION { major: 2, minor: 40 },
            C_GetFunctionList: Some(C_GetFunctionList),
            $($name: Some($name),)*
        };
    };
}

/// The one exported function (PKCS#11 2.40 §5.4).
///
/// # Safety
/// `list` must be null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    real();
    // SAFETY: null or valid by contract. Callers only read through the pointer.
    match unsafe { list.as_mut() } {
        Some(list) => *list = (&raw const LIST).cast_mut(),
        None => return CKR_ARGUMENTS_BAD,
    }
    CKR_OK
}

type Bytes = *mut CK_BYTE;
type Len = *mut CK_ULONG;
type Template = *mut CK_ATTRIBUTE;

functions! {
    C_Initialize(args: *mut c_void), after |_, rv| { handles::initialized(); rv };
    C_Finalize(reserved: *mut c_void);
    C_GetInfo(info: *mut CK_INFO);
    C_GetSlotList(token_present: CK_BBOOL, slots: *mut CK_SLOT_ID, count: Len);
    C_GetSlotInfo(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO);
    C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO);
    C_GetMechanismList(slot: CK_SLOT_ID, list: *mut CK_MECHANISM_TYPE, count: Len),
        after |call, rv| twists::hide_in_list(call, rv, list, count);
    C_GetMechanismInfo(slot: CK_SLOT_ID, mechanism: CK_MECHANISM_TYPE, info: *mut CK_MECHANISM_INFO),
        instead |call| twists::hide(call, mechanism);
    C_InitToken(slot: CK_SLOT_ID, pin: Bytes, pin_len: CK_ULONG, label: Bytes);
    C_InitPIN(session: Session, pin: Bytes, pin_len: CK_ULONG);
    C_SetPIN(session: Session, old: Bytes, old_len: CK_ULONG, new: Bytes, new_len: CK_ULONG);
    C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, context: *mut c_void, notify: CK_NOTIFY, session: *mut CK_SESSION_HANDLE),
        after |_, rv| { if rv == CKR_OK { handles::session_opened() } rv };
    C_CloseSession(session: Session), after |_, rv| { if rv == CKR_OK { handles::session_closed(session) } rv };
    C_CloseAllSessions(slot: CK_SLOT_ID), after |_, rv| { if rv == CKR_OK { handles::all_gone() } rv };
    C_GetSessionInfo(session: Session, info: *mut CK_SESSION_INFO);
    C_GetOperationState(session: Session, state: Bytes, state_len: Len);
    C_SetOperationState(session: Session, state: Bytes, state_len: CK_ULONG, encryption: Object, authentication: Object);
    C_Login(session: Session, user: CK_USER_TYPE, pin: Bytes, pin_len: CK_ULONG),
        instead twists::pin_locked,
        after twists::lock_pin;
    C_Logout(session: Session), after |_, rv| { if rv == CKR_OK { handles::all_gone() } rv };
    C_CreateObject(session: Session, template: Template, count: CK_ULONG, object: NewObject);
    C_CopyObject(session: Session, object: Object, template: Template, count: CK_ULONG, copy: NewObject);
    C_DestroyObject(session: Session, object: Object),
        after |_, rv| { if rv == CKR_OK { twists::destroyed(object); attributes::destroyed(object); handles::destroyed(object) } rv };
    C_GetObjectSize(session: Session, object: Object, size: Len);
    C_GetAttributeValue(session: Session, object: Object, template: Template, count: CK_ULONG),
        instead |call| attributes::answer(call, object, template, count);
    C_SetAttributeValue(session: Session, object: Object, template: Template, count: CK_ULONG),
        instead |_| attributes::tighten(object, template, count);
    C_FindObjectsInit(session: Session, template: Template, count: CK_ULONG);
    C_FindObjects(session: Session, objects: *mut CK_OBJECT_HANDLE, max: CK_ULONG, count: Len),
        after |call, rv| twists::found(call, rv, objects, max, count);
    C_FindObjectsFinal(session: Session);
    C_EncryptInit(session: Session, mechanism: Mechanism, key: Object);
    C_Encrypt(session: Session, data: Bytes, data_len: CK_ULONG, output: Output, output_len: Len),
        after |call, rv| twists::spoil(call, rv, output, output_len);
    C_EncryptUpdate(session: Session, part: Bytes, part_len: CK_ULONG, output: Output, output_len: Len);
    C_EncryptFinal(session: Session, output: Output, output_len: Len);
    C_DecryptInit(session: Session, mechanism: Mechanism, key: Object);
    C_Decrypt(session: Session, data: Bytes, data_len: CK_ULONG, output: Output, output_len: Len),
        after |call, rv| twists::spoil(call, rv, output, output_len);
    C_DecryptUpdate(session: Session, part: Bytes, part_len: CK_ULONG, output: Output, output_len: Len);
    C_DecryptFinal(session: Session, output: Output, output_len: Len);
    C_DigestInit(session: Session, mechanism: Mechanism);
    C_Digest(session: Session, data: Bytes, data_len: CK_ULONG, output: Output, output_len: Len);
    C_DigestUpdate(session: Session, part: Bytes, part_len: CK_ULONG);
    C_DigestKey(session: Session, key: Object);
    C_DigestFinal(session: Session, output: Output, output_len: Len);
    C_SignInit(session: Session, mechanism: Mechanism, key: Object),
        instead |call| twists::other_key(call, &mut key);
    C_Sign(session: Session, data: Bytes, data_len: CK_ULONG, output: Output, output_len: Len),
        after |call, rv| twists::spoil(call, rv, output, output_len);
    C_SignUpdate(session: Session, part: Bytes, part_len: CK_ULONG);
    C_SignFinal(session: Session, output: Output, output_len: Len);
    C_SignRecoverInit(session: Session, mechanism: Mechanism, key: Object);
    C_SignRecover(session: Session, data: Bytes, data_len: CK_ULONG, output: Output, output_len: Len);
    C_VerifyInit(session: Session, mechanism: Mechanism, key: Object);
    C_Verify(session: Session, data: Bytes, data_len: CK_ULONG, signature: Bytes, signature_len: CK_ULONG);
    C_VerifyUpdate(session: Session, part: Bytes, part_len: CK_ULONG);
    C_VerifyFinal(session: Session, signature: Bytes, signature_len: CK_ULONG);
    C_VerifyRecoverInit(session: Session, mechanism: Mechanism, key: Object);
    C_VerifyRecover(session: Session, signature: Bytes, signature_len: CK_ULONG, output: Output, output_len: Len);
    C_DigestEncryptUpdate(session: Session, part: Bytes, part_len: CK_ULONG, output: Output, output_len: Len);
    C_DecryptDigestUpdate(session: Session, part: Bytes, part_len: CK_ULONG, output: Output, output_len: Len);
    C_SignEncryptUpdate(session: Session, part: Bytes, part_len: CK_ULONG, output: Output, output_len: Len);
    C_DecryptVerifyUpdate(session: Session, part: Bytes, part_len: CK_ULONG, output: Output, output_len: Len);
    C_GenerateKey(session: Session, mechanism: Mechanism, template: Template, count: CK_ULONG, key: NewObject);
    C_GenerateKeyPair(session: Session, mechanism: Mechanism, public_template: Template, public_count: CK_ULONG,
        private_template: Template, private_count: CK_ULONG, public: NewObject, private: NewObject);
    C_WrapKey(session: Session, mechanism: Mechanism, wrapping_key: Object, key: Object, output: Output, output_len: Len),
        instead |call| twists::wrap_longer(call, mechanism, wrapping_key, key, output, output_len),
        after |call, rv| twists::spoil(call, rv, output, output_len);
    C_UnwrapKey(session: Session, mechanism: Mechanism, unwrapping_key: Object, wrapped: Bytes, wrapped_len: CK_ULONG,
        template: Template, count: CK_ULONG, key: NewObject),
        instead |call| twists::unwrap_longer(call, wrapped, &mut wrapped_len),
        after |call, rv| attributes::weaken(call, rv, key);
    C_DeriveKey(session: Session, mechanism: Mechanism, base: Object, template: Template, count: CK_ULONG, key: NewObject);
    C_SeedRandom(session: Session, seed: Bytes, seed_len: CK_ULONG);
    C_GenerateRandom(session: Session, random: Bytes, random_len: CK_ULONG),
        after |call, rv| twists::spoil(call, rv, random, &mut random_len);
    C_GetFunctionStatus(session: Session);
    C_CancelFunction(session: Session);
    C_WaitForSlotEvent(flags: CK_FLAGS, slot: *mut CK_SLOT_ID, reserved: *mut c_void);
}
