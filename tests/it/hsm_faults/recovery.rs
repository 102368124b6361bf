//! Sessions die, calls hang, the device goes away and comes back: nothing wrong leaves, and it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use intentd::hsm::{Hsm, HsmError};
use tokio::task::JoinSet;

use super::{Row, count_panics, digest, end, eventually, rows, started};
use crate::harness::shim::{ECDSA, Shim};

/// Signers that never stop asking, each with all keys in turn. An answer that is not right panics.
struct Load {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    signed: Arc<AtomicUsize>,
}

impl Load {
    fn start(hsm: &Hsm, rows: &[Row], signers: usize) -> Self {
        let (stop, signed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for first in 0..signers {
            let (hsm, rows, stop, signed) = (hsm.clone(), rows.to_vec(), Arc::clone(&stop), Arc::clone(&signed));
            tasks.spawn(async move {
                for turn in first.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    match rows[turn % rows.len()].sign_checked(&hsm, digest()).await {
                        Ok(()) => _ = signed.fetch_add(1, Ordering::Relaxed),
                        Err(HsmError::Unavailable { .. } | HsmError::Timeout | HsmError::Busy { .. }) => {
                            tokio::task::yield_now().await;
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
        Self { tasks, stop, signed }
    }

    fn signed(&self) -> usize {
        self.signed.load(Ordering::Relaxed)
    }

    /// Waits until `done`, stops the signers and passes on their panics.
    async fn until(mut self, what: &str, limit: Duration, mut done: impl AsyncFnMut(usize) -> bool) -> usize {
        let begin = Instant::now();
        while !done(self.signed()).await {
            assert!(begin.elapsed() < limit, "{what}: not within {limit:?}, {} signed", self.signed());
            if let Some(Err(error)) = self.tasks.try_join_next() {
                std::panic::resume_unwind(error.into_panic());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.signed()
    }
}

/// Invariant 11: a single error of one session is put right by a new session, unnoticed by the caller and by everybody else.
#[tokio::test(flavor = "multi_thread")]
async fn one_failed_call_costs_one_session() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let row = rows(&hsm, 1).await.remove(0);
    for fault in ["CKR_DEVICE_ERROR", "CKR_SESSION_HANDLE_INVALID", "CKR_OPERATION_ACTIVE", "CKR_KEY_HANDLE_INVALID"] {
        for function in ["C_SignInit", "C_Sign"] {
            shim.order(&format!("{function} rv={fault} count=1 mechanism={ECDSA:#x}"));
            let mark = shim.mark();
            row.sign_checked(&hsm, digest()).await.unwrap();
            let trace = shim.trace().since(mark);
            assert_eq!(trace.struck(), 1, "{fault} at {function}");
            assert_eq!(trace.count("C_OpenSession"), 1, "{fault} at {function}");
            assert_eq!(trace.count("C_CloseSession"), 1, "{fault} at {function}");
            assert_eq!(trace.count("C_Login") + trace.count("C_Finalize"), 0, "{fault} at {function}");
        }
    }
    end(&shim, hsm).await;
}

/// Invariant 12: real modules crash when C_Finalize meets a call in flight; the shim writes down that it did.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_recoveries_under_load_never_finalize_with_a_call_in_flight() {
    const RECOVERIES: usize = 300;
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let rows = rows(&hsm, 8).await;
    let panics = count_panics();
    shim.order("C_SignInit rv=CKR_DEVICE_REMOVED every=20");
    let load = Load::start(&hsm, &rows, 8);
    // Not every recovery finalises; the trace grows long and is read only when it may be enough.
    let enough =
        async |_| hsm.health().await.recoveries >= RECOVERIES as u64 && shim.trace().count("C_Finalize") >= RECOVERIES;
    let signed = load.until("the recoveries", Duration::from_secs(300), enough).await;
    assert!(signed > RECOVERIES, "{signed} signatures");
    shim.behave();
    for row in &rows {
        eventually("signing", async || row.sign_checked(&hsm, digest()).await).await;
    }
    end(&shim, hsm).await;
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

/// Invariant 12, with slow calls, so that there is always one in flight.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_waits_for_slow_calls() {
    let shim = Shim::new();
    let mut config = shim.config();
    config.workers = Some(4);
    let (hsm, _) = started(&config).await;
    let rows = rows(&hsm, 8).await;
    shim.order("C_Sign hang_ms=20\nC_SignInit rv=CKR_DEVICE_REMOVED every=16");
    let load = Load::start(&hsm, &rows, 8);
    let enough = async |_| shim.trace().count("C_Finalize") >= 10;
    load.until("the recoveries", Duration::from_secs(60), enough).await;
    end(&shim, hsm).await;
}

/// Invariant 13: a hung call costs its caller a deadline, other keys nothing, and its worker is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_hung_signature_is_abandoned_and_the_others_go_on() {
    let shim = Shim::new();
    let config = shim.config();
    let deadline = Duration::from_millis(config.call_deadline_ms);
    let (hsm, _) = started(&config).await;
    let rows = rows(&hsm, 16).await;
    for row in &rows {
        row.sign_checked(&hsm, digest()).await.unwrap();
    }

    shim.order(&format!("C_Sign hang_ms=600000 count=1 mechanism={ECDSA:#x}"));
    let begin = Instant::now();
    let error = rows[0].sign(&hsm, digest()).await.expect_err("a hung call was answered");
    assert!(matches!(error, HsmError::Timeout | HsmError::Unavailable { .. }), "{error:?}");
    assert!(begin.elapsed() < deadline + Duration::from_millis(500), "answered after {:?}", begin.elapsed());
    assert!(shim.trace().struck() > 0);

    // All keys, the one whose call hangs included; the hung call itself never comes back.
    for row in &rows {
        eventually("signing", async || row.sign_checked(&hsm, digest()).await).await;
    }
    assert!(begin.elapsed() < deadline * 5, "everything signs again only after {:?}", begin.elapsed());
    assert!(shim.trace().calls.iter().any(|c| c.struck && c.answer.is_none()), "nothing hung");
    end(&shim, hsm).await;
}

/// Invariant 13, while the hung call is still hanging: keys of the other worker do not wait for the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn other_workers_sign_while_one_hangs() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let rows = rows(&hsm, 16).await;
    for row in &rows {
        row.sign_checked(&hsm, digest()).await.unwrap();
    }
    shim.order(&format!("C_Sign hang_ms=600000 count=1 mechanism={ECDSA:#x}"));
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for row in rows {
        let hsm = hsm.clone();
        tasks.spawn(async move { row.sign_checked(&hsm, digest()).await.map(|()| begin.elapsed()) });
    }
    let answers = tasks.join_all().await;
    let soon = answers.iter().flatten().filter(|elapsed| **elapsed < Duration::from_millis(500)).count();
    assert!(soon >= 1, "{answers:?}");
    assert!(answers.iter().any(Result::is_err), "nothing hung: {answers:?}");
    end(&shim, hsm).await;
}

/// A device error in one worker while the other one's call takes `hang_ms`.
async fn recover_while_a_call_hangs(shim: &Shim, hsm: &Hsm, rows: &[Row], hang_ms: u64) {
    for row in rows {
        row.sign_checked(hsm, digest()).await.unwrap();
    }
    shim.order(&format!(
        "C_Sign hang_ms={hang_ms} count=1 mechanism={ECDSA:#x}\nC_SignInit rv=CKR_DEVICE_REMOVED after=4 count=1"
    ));
    let mark = shim.mark();
    let mut tasks = JoinSet::new();
    for row in rows {
        let (row, hsm) = (row.clone(), hsm.clone());
        tasks.spawn(async move { row.sign_checked(&hsm, digest()).await });
    }
    tasks.join_all().await;
    assert_eq!(shim.trace().since(mark).struck(), 2);
}

/// Invariants 12 and 13 together: the recovery waits for a slow call.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_waits_for_a_call_that_returns_late() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let rows = rows(&hsm, 8).await;
    recover_while_a_call_hangs(&shim, &hsm, &rows, 1_500).await;
    for row in &rows {
        eventually("signing", async || row.sign_checked(&hsm, digest()).await).await;
    }
    end(&shim, hsm).await;
}

/// Invariants 12 and 13 together: under a call that never returns nothing can be finalised. Either the recovery does without, or
/// only a new process helps, and that is said at once to everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_under_a_hung_call_does_without_finalize_or_gives_up() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let rows = rows(&hsm, 8).await;
    recover_while_a_call_hangs(&shim, &hsm, &rows, 600_000).await;
    eventually("an end", async || match rows[0].sign_checked(&hsm, digest()).await {
        Ok(()) | Err(HsmError::Fatal { .. }) => Ok(()),
        Err(error) => Err(error),
    })
    .await;
    assert!(shim.trace().calls.iter().any(|c| c.struck && c.answer.is_none()), "nothing hung");
    end(&shim, hsm).await;
}

/// Invariant 2: handles of an earlier login mean other keys (opencryptoki); the cached ones must not be used.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_handle_never_signs_for_another_key() {
    let shim = Shim::ordered("handles reuse");
    let (hsm, _) = started(&shim.config()).await;
    let rows = rows(&hsm, 6).await;
    for (round, fault) in ["CKR_DEVICE_REMOVED", "CKR_USER_NOT_LOGGED_IN", "CKR_SESSION_HANDLE_INVALID"]
        .iter()
        .cycle()
        .take(30)
        .enumerate()
    {
        // Another order each round: numbers are given out in the order of first use.
        for turn in 0..rows.len() {
            let row = &rows[(turn * (1 + round % 5) + round) % rows.len()];
            eventually("signing", async || row.sign_checked(&hsm, digest()).await).await;
        }
        shim.order(&format!("handles reuse\nC_SignInit rv={fault} count=1"));
        let mark = shim.mark();
        for row in rows.iter().rev() {
            let _ = row.sign_checked(&hsm, digest()).await;
        }
        assert_eq!(shim.trace().since(mark).struck(), 1);
        for row in &rows {
            eventually("signing", async || row.sign_checked(&hsm, digest()).await).await;
        }
    }
    end(&shim, hsm).await;
}

/// THREATS 34: one login and a fixed number of sessions, however much is signed; nothing is left behind in a session.
#[tokio::test(flavor = "multi_thread")]
async fn threat_34_signing_opens_no_session_and_logs_in_once() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let rows = rows(&hsm, 8).await;
    for row in &rows {
        row.sign_checked(&hsm, digest()).await.unwrap();
    }
    let mark = shim.mark();
    let load = Load::start(&hsm, &rows, 8);
    load.until("the signatures", Duration::from_secs(60), async |signed| signed >= 2_000).await;
    let trace = shim.trace();
    assert_eq!(trace.count("C_Login"), 1);
    let trace = trace.since(mark);
    for function in ["C_OpenSession", "C_CloseSession", "C_Login", "C_Logout", "C_UnwrapKey", "C_FindObjectsInit"] {
        assert_eq!(trace.count(function), 0, "{function}");
    }
    end(&shim, hsm).await;
}

/// THREATS 34: the device goes away under load and comes back; there is nothing else that could sign meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn threat_34_the_device_goes_away_under_load_and_comes_back() {
    const SIGNERS: usize = 8;
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let rows = rows(&hsm, 8).await;
    let load = Load::start(&hsm, &rows, SIGNERS);
    for fault in ["CKR_DEVICE_ERROR", "CKR_DEVICE_REMOVED", "CKR_TOKEN_NOT_PRESENT"] {
        shim.order(&format!("* rv={fault}"));
        let mark = shim.mark();
        let struck = async |times| match shim.trace().since(mark).struck() {
            n if n >= times => Ok(()),
            n => Err(n),
        };
        eventually("the outage", async || struck(2).await).await;
        let before = load.signed();
        eventually("the outage going on", async || struck(6).await).await;
        // Each signer may have had one good answer on its way.
        assert!(load.signed() <= before + SIGNERS, "{fault}: signed without a device");
        shim.behave();
        eventually(fault, async || if load.signed() > before + 50 { Ok(()) } else { Err(load.signed()) }).await;
    }
    load.until("the end", Duration::from_secs(1), async |_| true).await;
    end(&shim, hsm).await;
}
