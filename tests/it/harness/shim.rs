//! A SoftHSM token of this test alone behind the fault-injecting module (`tests/shim`), its orders and its trace.
//!
//! The shim is copied into a temporary folder; it finds its control file, its trace and SoftHSM's configuration beside
//! itself, so nothing goes through the environment of this process. One [`Shim`] a process: SoftHSM is process-wide.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use intentd::hsm::{HsmConfig, PinSource};
use tempfile::TempDir;

const LABEL: &str = "intentd-faults";
const PIN: &str = "62709-by-heart";

/// CKM_ECDSA: tells a C_Sign by a signing key from one by the MAC key.
pub const ECDSA: u64 = 0x1041;

/// A token, the misbehaving module before it, and the files that drive it.
pub struct Shim {
    folder: TempDir,
}

impl Shim {
    /// A fresh token behind a module that behaves.
    pub fn new() -> Self {
        Self::ordered("")
    }

    /// A fresh token behind a module that misbehaves from the first call on.
    pub fn ordered(orders: &str) -> Self {
        let shim = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let tokens = shim.path("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let conf =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        std::fs::write(shim.path("softhsm2.conf"), conf).unwrap();
        std::fs::write(shim.path("pin"), PIN).unwrap();
        std::fs::copy(built_shim(), shim.path("shim.so")).unwrap();
        shim.order(orders);

        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", PIN])
            .env("SOFTHSM2_CONF", shim.path("softhsm2.conf"))
            .output()
            .expect("softhsm2-util is installed");
        assert!(made.status.success(), "softhsm2-util: {}", String::from_utf8_lossy(&made.stderr));
        shim
    }

    /// The smallest configuration that reaches this token, with two workers.
    pub fn config(&self) -> HsmConfig {
        let mut config = HsmConfig::new(self.path("shim.so"), LABEL, PinSource::File(self.path("pin")));
        config.workers = Some(2);
        config
    }

    /// A PIN source with a PIN that is not the token's.
    pub fn wrong_pin(&self) -> PinSource {
        let path = self.path("wrong-pin");
        std::fs::write(&path, WRONG_PIN).unwrap();
        PinSource::File(path)
    }

    /// Replaces all orders (the language: `tests/shim/src/faults.rs`); counters start again.
    pub fn order(&self, orders: &str) {
        let new = self.path("control.new");
        std::fs::write(&new, orders).unwrap();
        std::fs::rename(new, self.path("control")).unwrap();
    }

    /// No more orders; whatever hangs goes on.
    pub fn behave(&self) {
        self.order("");
    }

    /// Everything since the module was loaded.
    pub fn trace(&self) -> Trace {
        Trace::read(&self.path("trace"))
    }

    /// Where the trace stands now, for [`Trace::since`].
    pub fn mark(&self) -> usize {
        self.trace().calls.len()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The PIN of [`Shim::wrong_pin`].
pub const WRONG_PIN: &str = "not-the-pin-at-all";

/// The shim as cargo built it: in the folder above that of this test binary.
fn built_shim() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let path = exe.parent().and_then(Path::parent).unwrap().join("libpkcs11_fault_shim.so");
    assert!(path.exists(), "{} is not there: run `cargo build -p pkcs11-fault-shim` first", path.display());
    path
}

/// One call that reached the module.
#[derive(Clone, Debug)]
pub struct Call {
    pub function: String,
    /// Of the call, else of the session's last …Init.
    pub mechanism: Option<u64>,
    /// A fault struck it.
    pub struck: bool,
    /// What the caller heard; `None` while it is in flight.
    pub answer: Option<u64>,
}

/// What the shim saw, in the order of entry.
#[derive(Debug)]
pub struct Trace {
    pub calls: Vec<Call>,
    /// Breaches of PKCS#11 by the caller, over the whole trace.
    pub violations: Vec<String>,
}

impl Trace {
    fn read(path: &Path) -> Self {
        let mut trace = Self { calls: Vec::new(), violations: Vec::new() };
        // A name is used again when the library is loaded again: the last call of that name is meant.
        let mut named = HashMap::new();
        // Nothing was called yet: no file.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [">", name, function, ref mechanism @ ..] => {
                    named.insert(name, trace.calls.len());
                    let mechanism = mechanism.first().map(|m| hex(m));
                    trace.calls.push(Call { function: function.into(), mechanism, struck: false, answer: None });
                }
                ["*", name, ..] => trace.calls[named[name]].struck = true,
                ["<", name, _, rv] => trace.calls[named[name]].answer = Some(hex(rv)),
                _ => trace.violations.push(line.into()),
            }
        }
        trace
    }

    /// Only the calls after [`Shim::mark`].
    pub fn since(mut self, mark: usize) -> Self {
        self.calls.drain(..mark);
        self
    }

    /// How often `function` was called.
    pub fn count(&self, function: &str) -> usize {
        self.calls.iter().filter(|c| c.function == function).count()
    }

    /// How often `function` was called for `mechanism`.
    pub fn count_by(&self, function: &str, mechanism: u64) -> usize {
        self.calls.iter().filter(|c| c.function == function && c.mechanism == Some(mechanism)).count()
    }

    /// How many calls a fault struck: a test whose fault was never delivered proves nothing.
    pub fn struck(&self) -> usize {
        self.calls.iter().filter(|c| c.struck).count()
    }

    /// The answers of `function`, without the calls in flight.
    pub fn answers(&self, function: &str) -> Vec<u64> {
        self.calls.iter().filter(|c| c.function == function).filter_map(|c| c.answer).collect()
    }
}

fn hex(word: &str) -> u64 {
    u64::from_str_radix(word.strip_prefix("0x").unwrap(), 16).unwrap()
}
