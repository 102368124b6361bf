//! What happens at the boundary: calls in flight, the rules of PKCS#11 that the caller breaks, and the trace file.
//!
//! One line an event, appended at once, so that the file also tells of a process that died:
//! ```text
//! > 4711.17 C_Sign 0x1041        call 17 of process 4711 entered; the mechanism, where the session has one
//! * 4711.17 Answer(48)            a fault struck it
//! < 4711.17 C_Sign 0x30          it returned
//! ! VIOLATION C_Finalize entered while C_Sign was in flight
//! ```
//! Numbers start again at 1 when the process loads the shim anew.
//! Violations: C_Finalize with a call in flight, or a call entered during C_Finalize (PKCS#11 2.40 §5.4 calls it undefined, real
//! modules crash); and two calls at once that use one session, which the PKCS#11 Usage Guide forbids.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::place;

/// The arguments of a call that the shim itself looks at.
#[derive(Clone, Copy, Default)]
pub struct Facts {
    pub session: Option<u64>,
    pub mechanism: Option<u64>,
    /// The output buffer is null: only its length is asked.
    pub query: bool,
}

#[derive(Default)]
struct Trace {
    file: Option<File>,
    last_id: u64,
    in_flight: BTreeMap<u64, (&'static str, Option<u64>)>,
    /// The mechanism of the last …Init of a session.
    mechanisms: HashMap<u64, u64>,
}

static TRACE: LazyLock<Mutex<Trace>> = LazyLock::new(|| {
    let file = place::here().trace.as_ref().map(|path| {
        File::options().create(true).append(true).open(path).unwrap_or_else(|e| panic!("trace {}: {e}", path.display()))
    });
    Mutex::new(Trace { file, ..Trace::default() })
});

/// What [`enter`] knows of a call.
pub struct Entered {
    pub id: u64,
    /// Of the call, else of the session's last …Init.
    pub mechanism: Option<u64>,
    /// The call would have crashed a real module: it must not be forwarded.
    pub deadly: bool,
}

/// Records that a call entered the module.
pub fn enter(function: &'static str, facts: Facts) -> Entered {
    let mut trace = lock();
    trace.last_id += 1;
    let id = trace.last_id;
    if let (Some(session), Some(mechanism)) = (facts.session, facts.mechanism) {
        trace.mechanisms.insert(session, mechanism);
    }
    let mechanism = facts.mechanism.or_else(|| trace.mechanisms.get(&facts.session?).copied());
    trace.write(format_args!("> {} {function}{}", name(id), mechanism.map(|m| format!(" {m:#x}")).unwrap_or_default()));

    let mut deadly = false;
    let others: Vec<_> = trace.in_flight.values().copied().collect();
    for (other, session) in others {
        if function == "C_Finalize" || other == "C_Finalize" {
            deadly = true;
            trace.write(format_args!("! VIOLATION {function} entered while {other} was in flight"));
        } else if facts.session.is_some() && facts.session == session {
            trace.write(format_args!("! VIOLATION {function} entered a session in which {other} was in flight"));
        }
    }
    trace.in_flight.insert(id, (function, facts.session));
    Entered { id, mechanism, deadly }
}

/// Records that a fault struck call `id`.
pub fn strike(id: u64, fault: &dyn std::fmt::Debug) {
    lock().write(format_args!("* {} {fault:?}", name(id)));
}

/// Records that call `id` returned.
pub fn leave(id: u64, function: &'static str, rv: u64) {
    let mut trace = lock();
    trace.in_flight.remove(&id);
    trace.write(format_args!("< {} {function} {rv:#x}", name(id)));
}

/// The return values of all finished calls of `function`, also those of earlier processes on the same trace file.
pub fn answers(function: &str) -> Vec<u64> {
    let Some(path) = &place::here().trace else { return Vec::new() };
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let answer = |line: &str| {
        let mut words = line.strip_prefix("< ")?.split(' ').skip(1);
        (words.next()? == function).then_some(())?;
        u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()
    };
    text.lines().filter_map(answer).collect()
}

/// A call's name in the file, which several processes may share.
fn name(id: u64) -> String {
    format!("{}.{id}", std::process::id())
}

fn lock() -> MutexGuard<'static, Trace> {
    TRACE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trace {
    fn write(&mut self, line: std::fmt::Arguments) {
        if let Some(file) = &mut self.file {
            // One write a line: O_APPEND keeps lines of several processes whole. A full disk shows as a short trace.
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
    }
}
