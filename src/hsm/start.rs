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

/// Everything until the first worker, on the supervisor's thread.
pub(super) fn prepare(config: &HsmConfig) -> Result<(Supervisor, Option<u64>), HsmError> {
    let wrap_id = probe::wrap_mechanism(&config.wrap_mechanism)?;
    let pin = config.pin.read()?;
    let module = token::load(config)?;
    token::initialize(&module)
        .map_err(|error| HsmError::fatal_by("the PKCS#11 library cannot be initialised", &error))?;
    let prepared = attach(config, &module, wrap_id, &pin);
    let (slot, serial, anchor, wrap) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            // No worker exists: this is safe, and lets the process try again with another configuration.
            let _ = module.finalize();
            return Err(error);
        }
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

fn attach(config: &HsmConfig, module: &Pkcs11, wrap_id: u64, pin: &SecretString) -> Result<Attached, HsmError> {
    let name = token::TokenName { label: config.token_label.clone(), serial: config.token_serial.clone() };
    let (slot, serial) = token::find_slot(module, &name).map_err(token::SlotError::at_start)?;
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
        Err(_) if !wrapped && wrap.is_some() => test(None).map(|()| (slot, serial, anchor, None)),
        Err(error) => Err(error),
    }
}
