//! Invariant 13 beyond C_Sign: whatever call hangs, for whomever, every caller is answered within its deadline.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use intentd::hsm::{Custody, Hsm, HsmError};

use super::{Row, digest, end, eventually, rows, started};
use crate::harness::shim::Shim;

/// What an answer may take beyond the deadline on a busy machine.
const SLACK: Duration = Duration::from_millis(700);

/// One of each operation by keys that have to be unwrapped, each within its deadline; whether all went well.
async fn each_in_time(hsm: &Hsm, rows: &[Row], deadline: Duration, here: &str) -> Result<(), HsmError> {
    let mut outcome = Ok(());
    let mut note = |what, begin: Instant, result: Result<(), HsmError>| {
        assert!(begin.elapsed() < deadline + SLACK, "{here}: {what} took {:?}", begin.elapsed());
        if let Err(error) = result {
            outcome = Err(error);
        }
    };
    for row in rows {
        note("sign", Instant::now(), row.sign_checked(hsm, digest()).await);
    }
    note("generate", Instant::now(), Row::generate(hsm, Custody::Wrapped).await.map(drop));
    note("seal", Instant::now(), hsm.seal(b"a place", b"a secret").await.map(drop));
    note("random", Instant::now(), hsm.random::<16>().await.map(drop));
    let begin = Instant::now();
    hsm.health().await;
    note("health", begin, Ok(()));
    outcome
}

/// Each function of a working day hangs once, for ever; the workers that it takes along are replaced.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_hangs_every_caller_is_answered_in_time_and_the_rest_goes_on() {
    let shim = Shim::new();
    let mut config = shim.config();
    (config.workers, config.cache_keys, config.call_deadline_ms) = (Some(2), 1, 600);
    let deadline = Duration::from_millis(config.call_deadline_ms);
    let (hsm, _) = started(&config).await;
    let rows = rows(&hsm, 4).await;
    let mark = shim.mark();
    each_in_time(&hsm, &rows, deadline, "nothing hangs").await.unwrap();
    let functions: HashSet<_> = shim.trace().since(mark).calls.into_iter().map(|c| c.function).collect();
    assert!(functions.len() >= 8, "{functions:?}");

    for function in functions {
        shim.order(&format!("{function} hang_ms=600000 count=1"));
        let mark = shim.mark();
        // On a busy machine a deadline may pass before the function is reached: then once more.
        for _ in 0..10 {
            let _ = each_in_time(&hsm, &rows, deadline, &function).await;
            if shim.trace().since(mark).struck() == 1 {
                break;
            }
        }
        assert_eq!(shim.trace().since(mark).struck(), 1, "{function}");
        // It still hangs, and everything works.
        eventually(&function, async || each_in_time(&hsm, &rows, deadline, &function).await).await;
        assert!(shim.trace().since(mark).calls.iter().any(|c| c.struck && c.answer.is_none()), "{function} came back");
        shim.behave();
    }
    end(&shim, hsm).await;
}

/// The supervisor itself hangs in the middle of a recovery: callers do not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_hangs_keeps_nobody_waiting() {
    let shim = Shim::new();
    let mut config = shim.config();
    config.call_deadline_ms = 400;
    let deadline = Duration::from_millis(config.call_deadline_ms);
    let (hsm, _) = started(&config).await;
    let rows = rows(&hsm, 1).await;
    for step in ["C_Finalize", "C_Initialize", "C_GetSlotList", "C_OpenSession", "C_Login", "C_FindObjects"] {
        shim.order(&format!("C_SignInit rv=CKR_DEVICE_REMOVED count=1\n{step} hang_ms=600000 count=1"));
        let mark = shim.mark();
        let _ = each_in_time(&hsm, &rows, deadline, step).await;
        assert_eq!(shim.trace().since(mark).struck(), 2, "{step}");
        assert!(!hsm.counts().is_up, "{step}: who watches is told that it is away");
        shim.behave();
        eventually(step, async || each_in_time(&hsm, &rows, deadline, step).await).await;
        assert!(hsm.counts().is_up, "{step}");
    }
    end(&shim, hsm).await;
}
