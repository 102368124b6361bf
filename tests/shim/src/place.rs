//! Where the shim finds the real module, its orders and its trace.
//!
//! | what | environment | else, beside the shim's own file |
//! |---|---|---|
//! | the real module | `FAULT_SHIM_MODULE` | SoftHSM2 as Debian installs it |
//! | orders, rewritten by rename | `FAULT_SHIM_CONTROL` | `control`, when it exists at load |
//! | what happened, appended | `FAULT_SHIM_TRACE` | `trace`, when `control` exists at load |
//! | SoftHSM's configuration | `SOFTHSM2_CONF` | `softhsm2.conf`, when it exists at load; then it wins over the environment |
//!
//! The second column lets a test copy the shim into a folder of its own and load it in-process, where setting an
//! environment variable would be `unsafe`.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const SOFTHSM2: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The files of this instance of the shim.
pub struct Place {
    pub module: PathBuf,
    pub control: Option<PathBuf>,
    pub trace: Option<PathBuf>,
}

/// Found once, at the first call; also hands SoftHSM the configuration that lies beside the shim.
pub fn here() -> &'static Place {
    static HERE: OnceLock<Place> = OnceLock::new();
    HERE.get_or_init(|| {
        let folder = own_folder();
        let beside = |name: &str| folder.as_ref().map(|f| f.join(name)).filter(|p| p.exists());
        if let Some(conf) = beside("softhsm2.conf") {
            // SAFETY: done before the real module is loaded, whose C_Initialize is the reader.
            unsafe { std::env::set_var("SOFTHSM2_CONF", conf) };
        }
        let control = beside("control");
        let trace = control.as_ref().map(|c| c.with_file_name("trace"));
        Place {
            module: from_env("FAULT_SHIM_MODULE").unwrap_or_else(|| SOFTHSM2.into()),
            control: from_env("FAULT_SHIM_CONTROL").or(control),
            trace: from_env("FAULT_SHIM_TRACE").or(trace),
        }
    })
}

fn from_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// The folder from which the dynamic linker loaded this very library.
fn own_folder() -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let address = own_folder as fn() -> Option<PathBuf>;
    // SAFETY: any address inside this library will do; `info` is read only when dladdr says that it filled it.
    let file = unsafe {
        if libc::dladdr(address as *const libc::c_void, info.as_mut_ptr()) == 0 {
            return None;
        }
        CStr::from_ptr(info.assume_init().dli_fname)
    };
    Path::new(OsStr::from_bytes(file.to_bytes())).parent().map(Path::to_owned)
}
