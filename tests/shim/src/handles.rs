//! `handles reuse`: object handles numbered by the shim, lowest free number first.
//!
//! A handle kept beyond its session, its login or its object then means *another* object, as it does on opencryptoki,
//! where SoftHSM would call it invalid.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki_sys::{CK_ATTRIBUTE, CK_OBJECT_HANDLE, CKA_TOKEN, CKR_OK};

use crate::call::{self, real};
use crate::faults::Fault;

#[derive(Default)]
struct Table {
    /// The number that the caller sees → the real handle and, for a session object, its session.
    numbers: BTreeMap<CK_OBJECT_HANDLE, (CK_OBJECT_HANDLE, Option<u64>)>,
    sessions: usize,
}

/// `None`: handles pass as they are.
static TABLE: Mutex<Option<Table>> = Mutex::new(None);

fn table() -> MutexGuard<'static, Option<Table>> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At C_Initialize: the mode is read, and every number is free.
pub fn initialized() {
    *table() = call::ordered("handles", Fault::ReuseHandles).then(Table::default);
}

/// The real handle; 0 (CK_INVALID_HANDLE) for a number that is free.
pub fn inward(number: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
    match &*table() {
        None => number,
        Some(table) => table.numbers.get(&number).map_or(0, |(real, _)| *real),
    }
}

/// The number for a real handle, new where it has none.
pub fn outward(handle: CK_OBJECT_HANDLE, session: Option<u64>) -> CK_OBJECT_HANDLE {
    let mut table = table();
    let Some(table) = &mut *table else { return handle };
    if let Some((number, _)) = table.numbers.iter().find(|(_, (real, _))| *real == handle) {
        return *number;
    }
    let number = (1..).find(|n| !table.numbers.contains_key(n)).unwrap_or(0);
    table.numbers.insert(number, (handle, session.filter(|s| !is_token_object(*s, handle))));
    number
}

/// After C_DestroyObject.
pub fn destroyed(handle: CK_OBJECT_HANDLE) {
    forget(|table| table.numbers.retain(|_, (real, _)| *real != handle));
}

/// After C_OpenSession.
pub fn session_opened() {
    forget(|table| table.sessions += 1);
}

/// After C_CloseSession: its objects are gone; with the last session the login and every handle.
pub fn session_closed(session: u64) {
    forget(|table| {
        table.sessions = table.sessions.saturating_sub(1);
        let all = table.sessions == 0;
        table.numbers.retain(|_, (_, owner)| !all && *owner != Some(session));
    });
}

/// After C_Logout, C_CloseAllSessions: every number is free.
pub fn all_gone() {
    forget(|table| table.numbers.clear());
}

fn forget(change: impl FnOnce(&mut Table)) {
    if let Some(table) = &mut *table() {
        change(table);
    }
}

fn is_token_object(session: u64, handle: CK_OBJECT_HANDLE) -> bool {
    let mut value = 0u8;
    let mut attribute = CK_ATTRIBUTE { type_: CKA_TOKEN, pValue: (&raw mut value).cast(), ulValueLen: 1 };
    let get = real().C_GetAttributeValue;
    // SAFETY: one attribute with a buffer of its length.
    get.is_some_and(|get| unsafe { get(session, handle, &mut attribute, 1) } == CKR_OK) && value != 0
}
