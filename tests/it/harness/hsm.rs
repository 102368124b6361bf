//! A real SoftHSM token for one test.
//!
//! SoftHSM reads SOFTHSM2_CONF when it is loaded, so a test runs in a child: it starts its own binary again for its own name alone,
//! with the variable set, and there does its work. Nothing has to be cleaned up by hand, a crash of the library is a failed test,
//! and no test sees another's token.
//!
//! ```ignore
//! #[test]
//! fn a_key_signs() {
//!     with_token(async |token| {
//!         let hsm = token.start().await;
//!         …
//!     });
//! }
//! ```

use std::path::PathBuf;
use std::sync::Mutex;

use futures::FutureExt as _;
use intentd::hsm::{Custody, Hsm, HsmConfig, HsmError, Kek, KeyContext, PinSource, softhsm};
use intentd::ids::{KeyId, OrgId};
use secrecy::SecretString;

/// Tells the child its token's folder.
const DIR_VARIABLE: &str = "INTENTD_TEST_TOKEN_DIR";
/// Holds the PIN in the child.
const PIN_VARIABLE: &str = "INTENTD_TEST_PIN";

pub const LABEL: &str = "intentd test";
pub const PIN: &str = "test-pin-4711";
pub const SO_PIN: &str = "test-so-pin-4711";

/// A fresh token.
pub struct Token {
    /// Its folder: `softhsm2.conf` and `tokens/`.
    pub dir: PathBuf,
    /// A configuration for it: two workers, a patient deadline, everything else at its default.
    pub config: HsmConfig,
    keks: Mutex<Option<Vec<Kek>>>,
    started: Mutex<Vec<Hsm>>,
}

impl Token {
    /// Starts an HSM on the token. The first start makes the KEKs, later ones adopt them.
    pub async fn start(&self) -> Hsm {
        self.start_with(&self.config).await.expect("the HSM starts")
    }

    /// As [`Token::start`], by another configuration.
    pub async fn start_with(&self, config: &HsmConfig) -> Result<Hsm, HsmError> {
        let hsm = Hsm::start(config).await?;
        self.started.lock().unwrap().push(hsm.clone());
        let known = self.keks.lock().unwrap().clone();
        let keks = match known {
            Some(keks) => keks,
            None => hsm.create_keks().await?,
        };
        *self.keks.lock().unwrap() = Some(keks.clone());
        hsm.adopt(keks).await?;
        Ok(hsm)
    }

    /// Everything started so far, and no longer stopped by the harness.
    pub fn started(&self) -> Vec<Hsm> {
        std::mem::take(&mut *self.started.lock().unwrap())
    }

    /// The rows of the `keks` table after the first start.
    pub fn keks(&self) -> Vec<Kek> {
        self.keks.lock().unwrap().clone().expect("started")
    }
}

/// Both custodies pass the same tests.
pub const CUSTODIES: [Custody; 2] = [Custody::Wrapped, Custody::Token];

/// The context of a new key.
pub fn context() -> KeyContext {
    KeyContext { org_id: OrgId::random(), key_id: KeyId::random(), path: "keys/test-signer".into(), version: 1 }
}

/// Runs `test` with a fresh token, in a child process. See the module's documentation.
pub fn with_token<F>(test: F)
where
    F: AsyncFnOnce(&Token),
{
    with_token_env(&[], test);
}

/// As [`with_token`], with more variables in the child's environment.
pub fn with_token_env<F>(variables: &[(&str, &str)], test: F)
where
    F: AsyncFnOnce(&Token),
{
    match std::env::var_os(DIR_VARIABLE) {
        Some(dir) => in_child(PathBuf::from(dir), test),
        None => in_parent(&test_name::<F>(), variables),
    }
}

/// `it::hsm::keys::name::{{closure}}` is the closure's type, and between the crate and the closure stands the test's name.
fn test_name<F>() -> String {
    let path = std::any::type_name::<F>();
    let (_, path) = path.split_once("::").expect("a path");
    path.split("::{{closure}}").next().expect("a name").to_owned()
}

fn in_parent(name: &str, variables: &[(&str, &str)]) {
    let dir = tempfile::tempdir().unwrap();
    let conf = softhsm::prepare(dir.path()).unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(softhsm::CONF_VARIABLE, conf)
        .env(DIR_VARIABLE, dir.path())
        .env(PIN_VARIABLE, PIN)
        .envs(variables.iter().copied())
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed in its child: {status}");
    assert!(dir.path().join("ran").exists(), "{name} is not what the test is called: nothing ran");
}

fn in_child<F>(dir: PathBuf, test: F)
where
    F: AsyncFnOnce(&Token),
{
    std::fs::write(dir.join("ran"), "").unwrap();
    let library = softhsm::library().expect("SoftHSM2 is installed");
    let secret = |text: &str| SecretString::from(text);
    softhsm::ensure_token(&library, LABEL, &secret(SO_PIN), &secret(PIN)).unwrap();
    let mut config = HsmConfig::new(library, LABEL, PinSource::Env(PIN_VARIABLE.into()));
    config.workers = Some(2);
    // Tests share the machine: a second can pass while another test has the processors.
    config.call_deadline_ms = 20_000;
    let token = Token { dir, config, keks: Mutex::default(), started: Mutex::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let outcome = std::panic::AssertUnwindSafe(test(&token)).catch_unwind().await;
        for hsm in token.started() {
            // The library is finalised before the process ends: an exit during a call is what crashes.
            let _ = hsm.shutdown().await;
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}
