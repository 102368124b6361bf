//! One call through the shim: what every function has in common.

use std::os::unix::fs::MetadataExt;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_FUNCTION_FAILED, CKR_GENERAL_ERROR, CKR_OK};

use crate::faults::{Fault, Plan, Target};
use crate::place;
use crate::trace::{self, Facts};

/// A call in flight and the faults that strike it.
pub struct Call {
    id: u64,
    function: &'static str,
    pub session: Option<u64>,
    pub mechanism: Option<u64>,
    faults: Vec<Fault>,
}

impl Call {
    /// Enters the call and does to it what needs no knowledge of its arguments: `Err` is the answer.
    pub fn enter(function: &'static str, facts: Facts) -> Result<Self, CK_RV> {
        let entered = trace::enter(function, facts);
        let mut call =
            Self { id: entered.id, function, session: facts.session, mechanism: entered.mechanism, faults: vec![] };
        if entered.deadly {
            return Err(call.leave(CKR_FUNCTION_FAILED));
        }
        let target = Target { function, mechanism: call.mechanism, query: facts.query };
        let Ok(faults) = Orders::strike(target) else { return Err(call.leave(CKR_GENERAL_ERROR)) };
        call.faults = faults;
        for fault in call.faults.clone() {
            match fault {
                Fault::HangMs(ms) => call.hang(Duration::from_millis(ms)),
                Fault::Abort => {
                    call.strike(fault);
                    std::process::abort()
                }
                Fault::Answer(rv) => {
                    call.strike(fault);
                    return Err(call.leave(rv));
                }
                _ => {}
            }
        }
        Ok(call)
    }

    /// The first of this call's faults that `wanted` recognises, written to the trace.
    pub fn fault<T>(&self, wanted: impl Fn(Fault) -> Option<T>) -> Option<T> {
        self.faults.iter().find_map(|fault| wanted(*fault).inspect(|_| self.strike(*fault)))
    }

    /// Ends the call: what the caller hears.
    pub fn leave(&self, rv: CK_RV) -> CK_RV {
        let lost = |fault| if let Fault::Lose(rv) = fault { Some(rv) } else { None };
        let rv = self.fault(lost).unwrap_or(rv);
        trace::leave(self.id, self.function, rv);
        rv
    }

    fn strike(&self, fault: Fault) {
        trace::strike(self.id, &fault);
    }

    fn hang(&self, time: Duration) {
        self.strike(Fault::HangMs(time.as_millis() as u64));
        let (begin, version) = (Instant::now(), Orders::version());
        while begin.elapsed() < time && Orders::version() == version {
            std::thread::sleep(Duration::from_millis(2).min(time));
        }
    }
}

/// Inode, modification time in ns and length of the control file: a rename changes at least one of them.
type Version = Option<(u64, i64, u64)>;

/// The control file as last read.
struct Orders {
    version: Version,
    plan: Result<Plan, String>,
}

static ORDERS: LazyLock<Mutex<Orders>> =
    LazyLock::new(|| Mutex::new(Orders { version: None, plan: Ok(Plan::default()) }));

impl Orders {
    fn version() -> Version {
        let meta = std::fs::metadata(place::here().control.as_ref()?).ok()?;
        Some((meta.ino(), meta.mtime() * 1_000_000_000 + meta.mtime_nsec(), meta.len()))
    }

    fn strike(target: Target) -> Result<Vec<Fault>, ()> {
        let mut orders = ORDERS.lock().unwrap_or_else(PoisonError::into_inner);
        let version = Self::version();
        if version != orders.version {
            let text = place::here().control.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
            orders.plan = Plan::parse(&text.unwrap_or_default());
            orders.version = version;
            if let Err(error) = &orders.plan {
                eprintln!("pkcs11-fault-shim: {error}");
            }
        }
        orders.plan.as_mut().map(|plan| plan.strike(target)).map_err(|_| ())
    }
}

/// Whether the control file orders `fault` of the pseudo-function `name` now.
pub fn ordered(name: &str, fault: Fault) -> bool {
    Orders::strike(Target { function: name, ..Target::default() }).is_ok_and(|faults| faults.contains(&fault))
}

/// The real module, loaded at the first call and never unloaded: a hung call may still be inside it.
pub fn real() -> &'static CK_FUNCTION_LIST {
    static REAL: OnceLock<CK_FUNCTION_LIST> = OnceLock::new();
    REAL.get_or_init(|| {
        let path = &place::here().module;
        load(path).unwrap_or_else(|e| panic!("pkcs11-fault-shim: {}: {e}", path.display()))
    })
}

fn load(path: &std::path::Path) -> Result<CK_FUNCTION_LIST, libloading::Error> {
    type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
    // SAFETY: a PKCS#11 module exports C_GetFunctionList with this signature (2.40 §5.4), and its list lives as long
    // as the library, which is leaked.
    unsafe {
        let library = Box::leak(Box::new(libloading::Library::new(path)?));
        let get: libloading::Symbol<GetFunctionList> = library.get(b"C_GetFunctionList")?;
        let mut list = std::ptr::null_mut();
        let rv = get(&mut list);
        assert!(rv == CKR_OK && !list.is_null(), "C_GetFunctionList of {} answered {rv:#x}", path.display());
        Ok(*list)
    }
}
