//! `intentd admin hsm check`: what the module offers, what is missing, and whether the database's keys are on the token.

use std::fmt;

use cryptoki::context::Pkcs11;

use super::canary;
use super::config::HsmConfig;
use super::error::HsmError;
use super::health::Stats;
use super::keks::{Kek, KekState, Keyring};
use super::seat::Open;
use super::types::Custody;
use super::{probe, token, vendor};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckLine {
    /// What, in plain words.
    pub what: String,
    /// What was found, or what is wrong.
    pub outcome: Result<String, String>,
}

/// Everything that was looked at. Display prints a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// In the order of looking; it stops where nothing further can be known.
    pub lines: Vec<CheckLine>,
}

impl CheckReport {
    /// Whether the daemon would start.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lines.iter().all(|line| line.outcome.is_ok())
    }

    fn add<T>(
        &mut self,
        what: impl Into<String>,
        result: Result<T, HsmError>,
        found: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let outcome = match &result {
            Ok(value) => Ok(found(value)),
            Err(error) => Err(in_words(error)),
        };
        self.lines.push(CheckLine { what: what.into(), outcome });
        result.ok()
    }
}

/// An operator at the terminal may see the module's own words.
fn in_words(error: &HsmError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.what.len()).max().unwrap_or_default();
        for CheckLine { what, outcome } in &self.lines {
            match outcome {
                Ok(found) => writeln!(f, "ok    {what:width$}  {found}")?,
                Err(wrong) => writeln!(f, "WRONG {what:width$}  {wrong}")?,
            }
        }
        write!(f, "{}", if self.is_good() { "The HSM can be used." } else { "The HSM cannot be used as it is." })
    }
}

/// Looks at the module, the token and the database's KEKs. Logs in once, changes nothing on the token. No [`super::Hsm`] may be
/// running in this process.
pub async fn check(config: &HsmConfig, keks: Vec<Kek>) -> CheckReport {
    let config = config.clone();
    let look = tokio::task::spawn_blocking(move || {
        let mut report = CheckReport::default();
        look_at_module(&mut report, &config, keks);
        report
    });
    look.await.unwrap_or_else(|_| {
        let outcome = Err("the check itself broke off".to_owned());
        CheckReport { lines: vec![CheckLine { what: "check".into(), outcome }] }
    })
}

fn look_at_module(report: &mut CheckReport, config: &HsmConfig, keks: Vec<Kek>) -> Option<()> {
    let wrap = probe::wrap_mechanism(&config.wrap_mechanism);
    let wrap = report.add("wrap mechanism", wrap, |id| format!("{} ({id:#x})", config.wrap_mechanism))?;
    let path = config.module.display().to_string();
    let module = report.add("PKCS#11 library", token::load(&config.module), |_| path)?;
    let initialized =
        token::initialize(&module).map_err(|error| HsmError::fatal_by("it cannot be initialised", &error));
    report.add("initialise", initialized, |()| {
        let info = module.get_library_info();
        info.map_or_else(
            |_| "done".into(),
            |info| format!("{} {}", info.library_description().trim(), info.library_version()),
        )
    })?;
    look_at_token(report, config, keks, &module, wrap);
    let _ = module.finalize();
    Some(())
}

fn look_at_token(
    report: &mut CheckReport,
    config: &HsmConfig,
    keks: Vec<Kek>,
    module: &Pkcs11,
    wrap: u64,
) -> Option<()> {
    let name = token::TokenName { label: config.token_label.clone(), serial: config.token_serial.clone() };
    let found = token::find_slot(module, &name).map_err(token::SlotError::at_start);
    let (slot, _) = report.add("token", found, |(_, serial)| format!("\"{}\", serial {serial}", name.label))?;
    let asked = probe::capabilities(module, slot, wrap);
    let asked = asked.map_err(|error| HsmError::fatal_by("the token does not say what it can do", &error));
    let capabilities = report.add("mechanisms", asked, |list| format!("{} asked for", list.len()))?;
    let wrapped = config.custody == Custody::Wrapped;
    for capability in &capabilities {
        let needed = wrapped || !capability.is_wrapping;
        let outcome = match (capability.present, needed) {
            (true, _) => Ok(capability.mechanism.clone()),
            (false, false) => Ok(format!("{} is missing; not needed for custody \"token\"", capability.mechanism)),
            (false, true) => Err(format!("{} is missing", capability.mechanism)),
        };
        report.lines.push(CheckLine { what: format!("  {}", capability.purpose), outcome });
    }
    let pin = report.add("PIN", config.pin.read(), |_| "read".into())?;
    let anchor = module.open_rw_session(slot).map_err(|error| HsmError::fatal_by("no session", &error));
    let anchor = report.add("session", anchor, |_| "read-write".into())?;
    report.add("login", token::login(&anchor, &pin), |()| "accepted".into())?;
    let wraps = capabilities.iter().all(|capability| capability.present).then_some(wrap);
    let tried = wraps.map(vendor::mechanism_type).transpose().and_then(|wrap| probe::self_test(&anchor, wrap));
    let way = if wraps.is_some() { "generate, wrap, unwrap, sign, recover" } else { "generate, sign, recover" };
    report.add("self-test", tried, |()| way.into())?;
    look_at_keks(report, keks, module, slot, wraps.is_some() && wrapped);
    Some(())
}

fn look_at_keks(
    report: &mut CheckReport,
    keks: Vec<Kek>,
    module: &Pkcs11,
    slot: cryptoki::slot::Slot,
    needs_seal: bool,
) -> Option<()> {
    let all = keks.clone();
    let ring =
        report.add("keys of this database", Keyring::new(keks, needs_seal, None), |_| format!("{} rows", all.len()))?;
    let opened =
        Open::new(module, slot, 1, 1, std::sync::Arc::<Stats>::default()).map_err(super::error::Fault::into_error);
    let mut open = report.add("second session", opened, |_| "logged in".into())?;
    for kek in all.iter().filter(|kek| kek.state == KekState::Adding || kek.state.is_needed()) {
        let checked = canary::check(&mut open, &ring, kek).map_err(|fault| super::missing(kek, fault).into_error());
        let what = format!("  {} ({})", kek.purpose, kek.state.as_str());
        report.add(what, checked, |()| "found, hardened, canary good".into());
    }
    Some(())
}
