//! From the configuration to a supervisor that can run: everything before the first worker.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use cryptoki::context::Pkcs11;
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use secrecy::SecretString;

use super::config::HsmConfig;
use super::error::HsmError;
use super::shared::{Limits, Shared};
use super::supervisor::Supervisor;
use super::types::Custody;
use super::{probe, token, vendor};

/// How often a token that is not there is looked for at the start, and the pause before the second time, which doubles.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// Everything until the first worker, on the supervisor's thread.
pub(super) fn prepare(config: &HsmConfig) -> Result<(Supervisor, Option<u64>), HsmError> {
    let wrap_id = probe::wrap_mechanism(&config.wrap_mechanism)?;
    let pin = config.pin.read()?;
    let module = token::load(&config.module)?;
    let mut tries = 1;
    let (slot, serial, anchor, wrap) = loop {
        token::initialize(&module)
            .map_err(|error| HsmError::fatal_by("the PKCS#11 library cannot be initialised", &error))?;
        match attach(config, &module, wrap_id, &pin) {
            Ok(prepared) => break prepared,
            Err(error) => {
                // No worker exists: this is safe, and lets the process try again.
                let _ = module.clone().finalize();
                match error {
                    // SoftHSM writes the token's file at every login, in place: who looks at that moment sees no token, or is told
                    // CKR_GENERAL_ERROR. A refused PIN is another error, and is never tried again.
                    NotAttached::Perhaps(_) if tries < TRIES => std::thread::sleep(PAUSE * (1 << (tries - 1))),
                    NotAttached::Perhaps(error) | NotAttached::Refused(error) => return Err(error),
                }
            }
        }
        tries += 1;
    };
    let limits = Limits {
        workers: config.worker_count(),
        queue_depth: config.queue_depth,
        cache_keys: config.cache_keys,
        call_deadline: Duration::from_millis(config.call_deadline_ms.max(1)),
        recycle_unwraps: config.recycle_unwraps,
    };
    let (sender, commands) = mpsc::channel();
    let shared = Arc::new(Shared::new(&limits, module.clone(), slot, sender));
    shared.stats.logins.store(1, Relaxed);
    let name = token::TokenName { label: config.token_label.clone(), serial: Some(serial) };
    let workers = (0..limits.workers).map(|_| None).collect();
    let supervisor = Supervisor {
        shared,
        commands,
        module,
        name,
        pin,
        anchor: Some(anchor),
        workers,
        abandoned: Vec::new(),
        failures: 0,
        successes_at_recovery: None,
    };
    Ok((supervisor, wrap))
}

type Attached = (Slot, String, Session, Option<u64>);

/// Why there is no session on the token.
enum NotAttached {
    /// It may be otherwise in a moment.
    Perhaps(HsmError),
    /// It will not.
    Refused(HsmError),
}

impl From<HsmError> for NotAttached {
    fn from(error: HsmError) -> Self {
        match error {
            HsmError::Unavailable { .. } => Self::Perhaps(error),
            error => Self::Refused(error),
        }
    }
}

fn attach(config: &HsmConfig, module: &Pkcs11, wrap_id: u64, pin: &SecretString) -> Result<Attached, NotAttached> {
    let name = token::TokenName { label: config.token_label.clone(), serial: config.token_serial.clone() };
    let (slot, serial) = token::find_slot(module, &name).map_err(|error| match error {
        error @ token::SlotError::Missing(_) => NotAttached::Perhaps(error.at_start()),
        error => error.at_start().into(),
    })?;
    let wrapped = config.custody == Custody::Wrapped;
    let capabilities = probe::capabilities(module, slot, wrap_id)
        .map_err(|error| HsmError::fatal_by("the token does not say what it can do", &error))?;
    probe::require(&capabilities, wrapped)?;
    let anchor = module
        .open_rw_session(slot)
        .map_err(|error| HsmError::fatal_by("the token does not open a session", &error))?;
    token::login(&anchor, pin)?;
    // With token custody as the default, wrapping is used where it works.
    let wrap = capabilities.iter().all(|capability| capability.present).then_some(wrap_id);
    let test = |wrap: Option<u64>| probe::self_test(&anchor, wrap.map(vendor::mechanism_type).transpose()?);
    match test(wrap) {
        Ok(()) => Ok((slot, serial, anchor, wrap)),
        Err(_) if !wrapped && wrap.is_some() => {
            test(None)?;
            Ok((slot, serial, anchor, None))
        }
        Err(error) => Err(error.into()),
    }
}
