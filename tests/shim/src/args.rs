//! The kinds of argument in the table: most pass as they are, some the shim looks at or translates.

use cryptoki_sys::{CK_MECHANISM, CK_NOTIFY, CK_OBJECT_HANDLE, CK_SESSION_HANDLE};

use crate::handles;
use crate::trace::Facts;

/// How an argument of the C type `C` travels through the shim.
pub trait Arg {
    type C: Copy;
    /// Tells the trace what it is.
    fn note(_value: Self::C, _facts: &mut Facts) {}
    /// On the way to the real module.
    fn inward(value: Self::C) -> Self::C {
        value
    }
    /// On the way back from a successful call in `session`.
    ///
    /// # Safety
    /// The pointer that the caller gave must be null or valid.
    unsafe fn outward(_value: Self::C, _session: Option<u64>) {}
}

impl Arg for u8 {
    type C = u8;
}
impl Arg for u64 {
    type C = u64;
}
impl Arg for CK_NOTIFY {
    type C = CK_NOTIFY;
}
impl<T> Arg for *mut T {
    type C = *mut T;
}

/// The session of the call.
pub struct Session;
impl Arg for Session {
    type C = CK_SESSION_HANDLE;
    fn note(value: Self::C, facts: &mut Facts) {
        facts.session = Some(value);
    }
}

/// The mechanism of the call.
pub struct Mechanism;
impl Arg for Mechanism {
    type C = *mut CK_MECHANISM;
    fn note(value: Self::C, facts: &mut Facts) {
        // SAFETY: a mechanism pointer is null or valid, as the caller owes it to any module.
        facts.mechanism = unsafe { value.as_ref() }.map(|m| m.mechanism);
    }
}

/// The buffer for the output, null when only its length is asked.
pub struct Output;
impl Arg for Output {
    type C = *mut u8;
    fn note(value: Self::C, facts: &mut Facts) {
        facts.query = value.is_null();
    }
}

/// An object handle that the caller gives.
pub struct Object;
impl Arg for Object {
    type C = CK_OBJECT_HANDLE;
    fn inward(value: Self::C) -> Self::C {
        handles::inward(value)
    }
}

/// Where the module writes the handle of an object it made.
pub struct NewObject;
impl Arg for NewObject {
    type C = *mut CK_OBJECT_HANDLE;
    unsafe fn outward(value: Self::C, session: Option<u64>) {
        // SAFETY: as above; written by the module, which answered CKR_OK.
        if let Some(handle) = unsafe { value.as_mut() } {
            *handle = handles::outward(*handle, session);
        }
    }
}
