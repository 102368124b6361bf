//! A private SoftHSM2 token, for `dev` and the tests.
//!
//! SoftHSM reads SOFTHSM2_CONF when it is loaded, and setting a variable in a running process is not safe: a process that wants its
//! own token starts itself anew with the variable set ([`enter`]). The PINs go through PKCS#11 calls, not through the command line
//! of `softhsm2-util`, which every user of the machine can read.

use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use cryptoki::context::Pkcs11;
use cryptoki::session::UserType;
use secrecy::SecretString;

use super::error::HsmError;
use super::token;

/// The variable that SoftHSM reads.
pub const CONF_VARIABLE: &str = "SOFTHSM2_CONF";

/// Where distributions put the library.
const LIBRARIES: [&str; 6] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// The installed library.
#[must_use]
pub fn library() -> Option<PathBuf> {
    LIBRARIES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Makes `dir` (mode 0700) with `softhsm2.conf` and an empty `tokens/` in it, unless they are there. Returns the path of the file.
///
/// # Errors
/// Those of the file system.
pub fn prepare(dir: &Path) -> std::io::Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    let tokens = dir.join("tokens");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&tokens)?;
    let conf = dir.join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
        tokens.display()
    );
    std::fs::write(&conf, text)?;
    Ok(conf)
}

/// Makes sure that this process was started with SOFTHSM2_CONF naming `conf`: otherwise replaces it by itself (exec) with the same
/// arguments and the variable set. To be called first, before any thread, server or child is started.
///
/// # Errors
/// Only when the exec fails.
pub fn enter(conf: &Path) -> std::io::Result<()> {
    if std::env::var_os(CONF_VARIABLE).is_some_and(|current| current == conf) {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(command.args(arguments).env(CONF_VARIABLE, conf).exec())
}

/// Makes a token with this label, unless there is one. Initialises and finalises the library, so no [`super::Hsm`] may be running in
/// this process. Returns the token's serial number.
///
/// # Errors
/// [`HsmError::Fatal`].
pub fn ensure_token(
    library: &Path,
    label: &str,
    so_pin: &SecretString,
    pin: &SecretString,
) -> Result<String, HsmError> {
    let failed = |error| HsmError::fatal_by("SoftHSM does not make a token", &error);
    let module = token::load(library)?;
    token::initialize(&module).map_err(failed)?;
    let result = ensure(&module, label, so_pin, pin);
    module.finalize().map_err(failed)?;
    result
}

fn ensure(module: &Pkcs11, label: &str, so_pin: &SecretString, pin: &SecretString) -> Result<String, HsmError> {
    let failed = |error| HsmError::fatal_by("SoftHSM does not make a token", &error);
    let name = token::TokenName { label: label.to_owned(), serial: None };
    match token::find_slot(module, &name) {
        Ok((_, serial)) => return Ok(serial),
        Err(token::SlotError::Missing(_)) => {}
        Err(error) => return Err(error.at_start()),
    }
    // SoftHSM always shows one free slot, the last.
    let slots = module.get_slots_with_token().map_err(failed)?;
    let free = |slot: &&_| module.get_token_info(**slot).is_ok_and(|info| !info.token_initialized());
    let slot = *slots.iter().find(free).ok_or_else(|| HsmError::fatal("SoftHSM shows no free slot"))?;
    module.init_token(slot, so_pin, label).map_err(failed)?;
    let session = module.open_rw_session(slot).map_err(failed)?;
    session.login(UserType::So, Some(so_pin)).map_err(failed)?;
    session.init_pin(pin).map_err(failed)?;
    session.logout().map_err(failed)?;
    drop(session);
    token::find_slot(module, &name).map(|(_, serial)| serial).map_err(token::SlotError::at_start)
}
