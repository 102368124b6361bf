//! From a library's path to a logged-in token: load, initialise, match label and serial, one login.

use std::path::Path;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as P11Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use secrecy::SecretString;

use super::error::{Cause, Class, HsmError};

/// Loads the library, for the rest of the process: it is finalised, but never unloaded. Unloading runs the destructors of the library and
/// of what it brought along while other threads, or the end of the process, may be in the same ones.
pub(super) fn load(path: &Path) -> Result<Pkcs11, HsmError> {
    let module = Pkcs11::new(path).map_err(|error| {
        HsmError::fatal_by(format!("the PKCS#11 library {} cannot be loaded", path.display()), &error)
    })?;
    std::mem::forget(module.clone());
    Ok(module)
}

/// C_Initialize, with the library's own locks.
pub(super) fn initialize(module: &Pkcs11) -> Result<(), P11Error> {
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
}

/// The token we mean.
#[derive(Clone, Debug)]
pub(super) struct TokenName {
    pub label: String,
    /// As configured, or as found at the first start: a re-initialised token has another one.
    pub serial: Option<String>,
}

/// Why there is no slot.
#[derive(Debug)]
pub(super) enum SlotError {
    /// No token with that label: it may come back.
    Missing(String),
    /// Not the token we mean, or not to be told apart: it will not come back by itself.
    Other(String),
    /// The module does not answer.
    Module(P11Error),
}

impl SlotError {
    /// At the first start a missing token is an error of the configuration.
    pub(super) fn at_start(self) -> HsmError {
        match self {
            Self::Missing(what) | Self::Other(what) => HsmError::fatal(what),
            Self::Module(error) => HsmError::fatal_by("the PKCS#11 library does not list its tokens", &error),
        }
    }

    /// Later it may have been unplugged.
    pub(super) fn in_recovery(self) -> HsmError {
        match self {
            Self::Missing(what) => HsmError::Unavailable { retry_after_s: 1, cause: Cause::new(what) },
            Self::Other(what) => HsmError::fatal(what),
            Self::Module(error) => unavailable(&error),
        }
    }
}

/// Finds the slot of the one token with this label and serial. Returns its serial, too.
pub(super) fn find_slot(module: &Pkcs11, name: &TokenName) -> Result<(Slot, String), SlotError> {
    let mut seen = Vec::new();
    for slot in module.get_slots_with_token().map_err(SlotError::Module)? {
        // A slot that cannot be asked is not ours to judge.
        let Ok(info) = module.get_token_info(slot) else { continue };
        if info.token_initialized() {
            seen.push((slot, info.label().to_owned(), info.serial_number().to_owned()));
        }
    }
    let labelled: Vec<_> = seen.iter().filter(|(_, label, _)| *label == name.label).collect();
    let wanted = |serial: &String| name.serial.as_ref().is_none_or(|wanted| wanted == serial);
    let matching: Vec<_> = labelled.iter().filter(|(_, _, serial)| wanted(serial)).collect();
    let label = &name.label;
    match (matching.as_slice(), &name.serial) {
        ([(slot, _, serial)], _) => Ok((*slot, serial.clone())),
        ([], Some(serial)) if !labelled.is_empty() => Err(SlotError::Other(format!(
            "the token labelled \"{label}\" has another serial number than \"{serial}\": it is another token, or it was initialised anew"
        ))),
        ([], _) => {
            let labels: Vec<_> = seen.iter().map(|(_, label, _)| label.as_str()).collect();
            let found = if labels.is_empty() { "no token at all".to_owned() } else { format!("only {labels:?}") };
            Err(SlotError::Missing(format!("there is no token labelled \"{label}\"; the library shows {found}")))
        }
        (several, _) => Err(SlotError::Other(format!(
            "{} tokens carry the label \"{label}\": set token_serial to one of their serial numbers",
            several.len()
        ))),
    }
}

/// One C_Login. A refused PIN is fatal and never tried again: modules lock it at the third. "Already logged in" is fine, but says
/// nothing about the PIN.
pub(super) fn login(session: &Session, pin: &SecretString) -> Result<(), HsmError> {
    match session.login(UserType::User, Some(pin)) {
        Ok(()) | Err(P11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(error) if Class::of(&error) == Class::Pin => Err(HsmError::fatal_by(
            "the PIN was refused; it is not tried again, because tokens lock it after a few tries",
            &error,
        )),
        Err(error) => Err(unavailable(&error)),
    }
}

/// A module's error during start or recovery.
pub(super) fn unavailable(error: &P11Error) -> HsmError {
    HsmError::Unavailable { retry_after_s: 1, cause: Cause::from(error) }
}
