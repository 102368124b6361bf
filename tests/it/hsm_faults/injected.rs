//! Invariant 11: every error that a module is known for, at every call site, once: no wrong answer, no panic, and soon
//! everything works again.
//!
//! The call sites are not listed here: a clean run of the scenario tells how many calls it makes, and then each of them in
//! turn is the one that fails.

use std::sync::atomic::Ordering;

use intentd::hsm::{Custody, Hsm, HsmError};

use super::{Row, count_panics, digest, end, eventually, started};
use crate::harness::shim::Shim;

/// Keys that were made before anything went wrong. Two wrapped ones and a cache of one: each use unwraps.
struct Known {
    wrapped: [Row; 2],
    token: Row,
}

impl Known {
    async fn make(hsm: &Hsm) -> Self {
        let row = async |custody| Row::generate(hsm, custody).await.unwrap();
        Self { wrapped: [row(Custody::Wrapped).await, row(Custody::Wrapped).await], token: row(Custody::Token).await }
    }

    /// One of each operation. Whatever is answered is right; what is refused is returned.
    async fn use_everything(&self, hsm: &Hsm) -> Result<(), Vec<(&'static str, HsmError)>> {
        let mut refused = Vec::new();
        let mut note = |what, result: Result<(), HsmError>| refused.extend(result.err().map(|error| (what, error)));
        for row in &self.wrapped {
            note("sign", row.sign_checked(hsm, digest()).await);
        }
        note("sign by a token key", self.token.sign_checked(hsm, digest()).await);
        note("generate", generate_and_sign(hsm).await);
        note("seal and open", seal_and_open(hsm).await);
        note("random", hsm.random::<32>().await.map(|bytes| assert_ne!(*bytes, [0; 32])));
        note("sign_jwt", hsm.sign_jwt(b"header.claims").await.map(|signature| assert_ne!(signature, [0; 64])));
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }
}

/// A key that was given out signs, then and later.
async fn generate_and_sign(hsm: &Hsm) -> Result<(), HsmError> {
    let row = Row::generate(hsm, Custody::Wrapped).await?;
    eventually("signing by a new key", async || row.sign_checked(hsm, digest()).await).await;
    Ok(())
}

/// A sealed body opens to itself, then and later.
async fn seal_and_open(hsm: &Hsm) -> Result<(), HsmError> {
    let envelope = hsm.seal(b"a place", b"a secret").await?;
    let opened = eventually("opening", async || hsm.open(b"a place", &envelope).await).await;
    assert_eq!(opened.as_slice(), b"a secret");
    Ok(())
}

async fn each_call_fails_once(fault: &str) {
    let shim = Shim::new();
    let mut config = shim.config();
    (config.workers, config.cache_keys) = (Some(1), 1);
    let (hsm, _) = started(&config).await;
    let known = Known::make(&hsm).await;
    let panics = count_panics();

    known.use_everything(&hsm).await.unwrap();
    let mark = shim.mark();
    known.use_everything(&hsm).await.unwrap();
    let sites: Vec<_> = shim.trace().since(mark).calls;
    assert!(sites.len() > 20, "only {} calls", sites.len());

    for (after, site) in sites.iter().enumerate() {
        let here = format!("{fault} at call {after}, {}", site.function);
        shim.order(&format!("* {fault} after={after} count=1"));
        let mark = shim.mark();
        for (what, error) in known.use_everything(&hsm).await.err().into_iter().flatten() {
            assert!(!matches!(error, HsmError::Fatal { .. }), "{here}: {what}: {error:?}");
        }
        assert_eq!(shim.trace().since(mark).struck(), 1, "{here}");
        shim.behave();
        eventually(&here, async || known.use_everything(&hsm).await).await;
    }
    end(&shim, hsm).await;
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

/// The fault strikes at each step of the recovery from another one.
async fn each_step_of_a_recovery_fails_once(fault: &str) {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let known = Known::make(&hsm).await;
    let panics = count_panics();
    for step in [
        "C_CloseSession",
        "C_Finalize",
        "C_Initialize",
        "C_GetSlotList",
        "C_GetTokenInfo",
        "C_OpenSession",
        "C_Login",
        "C_FindObjectsInit",
        "C_FindObjects",
        "C_FindObjectsFinal",
        "C_GetAttributeValue",
    ] {
        let here = format!("{fault} at {step}");
        shim.order(&format!("C_SignInit rv=CKR_DEVICE_REMOVED count=1\n{step} {fault} count=1"));
        let mark = shim.mark();
        let _ = known.use_everything(&hsm).await;
        let struck = |function| shim.trace().since(mark).calls.iter().any(|c| c.struck && c.function == function);
        assert!(struck("C_SignInit") && struck(step), "{here}");
        shim.behave();
        eventually(&here, async || known.use_everything(&hsm).await).await;
    }
    end(&shim, hsm).await;
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

macro_rules! faults {
    ($($name:ident: $fault:literal;)*) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn at_each_call_site() {
                super::each_call_fails_once($fault).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn at_each_step_of_a_recovery() {
                super::each_step_of_a_recovery_fails_once($fault).await;
            }
        })*
    };
}

faults! {
    device_error: "rv=CKR_DEVICE_ERROR";
    general_error: "rv=CKR_GENERAL_ERROR";
    session_handle_invalid: "rv=CKR_SESSION_HANDLE_INVALID";
    user_not_logged_in: "rv=CKR_USER_NOT_LOGGED_IN";
    object_handle_invalid: "rv=CKR_OBJECT_HANDLE_INVALID";
    key_handle_invalid: "rv=CKR_KEY_HANDLE_INVALID";
    operation_active: "rv=CKR_OPERATION_ACTIVE";
    token_not_present: "rv=CKR_TOKEN_NOT_PRESENT";
    cryptoki_not_initialized: "rv=CKR_CRYPTOKI_NOT_INITIALIZED";
    answer_lost: "lost=CKR_DEVICE_ERROR";
}
