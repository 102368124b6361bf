//! Starting: the PIN is tried once, the token is ours or we stop, and nothing found never means "make one".

use intentd::hsm::{Custody, Hsm, HsmError};

use super::{Row, digest, end, eventually, rows, started};
use crate::harness::shim::{Shim, WRONG_PIN};

/// Invariant 9: modules lock the PIN at the third wrong try.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_is_tried_once_and_is_fatal() {
    let shim = Shim::ordered("C_Login lock");
    let mut config = shim.config();
    config.pin = shim.wrong_pin();
    let error = Hsm::start(&config).await.expect_err("a wrong PIN was accepted");
    assert!(matches!(error, HsmError::Fatal { .. }), "{error:?}");
    assert_eq!(shim.trace().answers("C_Login"), [0xA0]);
    for text in [format!("{error}"), format!("{error:?}")] {
        assert!(!text.contains(WRONG_PIN), "the PIN is in the error: {text}");
    }
    // The right PIN still works: nothing was locked.
    let (hsm, _) = started(&shim.config()).await;
    end(&shim, hsm).await;
}

/// Invariant 9: a locked PIN is not tried again either.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_pin_is_fatal_after_one_try() {
    let shim = Shim::ordered("C_Login rv=CKR_PIN_LOCKED");
    let error = Hsm::start(&shim.config()).await.expect_err("started with a locked PIN");
    assert!(matches!(error, HsmError::Fatal { .. }), "{error:?}");
    assert_eq!(shim.trace().count("C_Login"), 1);
}

/// Invariant 9, later: an operator changed the PIN while we ran; the next recovery tries once, and never again.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_changed_under_a_running_daemon_is_tried_once() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let row = rows(&hsm, 1).await.remove(0);
    row.sign_checked(&hsm, digest()).await.unwrap();

    shim.order("C_SignInit rv=CKR_USER_NOT_LOGGED_IN count=1\nC_Login rv=CKR_PIN_INCORRECT");
    let mark = shim.mark();
    eventually("the refusal", async || match row.sign(&hsm, digest()).await {
        Err(HsmError::Fatal { .. }) => Ok(()),
        other => Err(other),
    })
    .await;
    for _ in 0..20 {
        let error = row.sign(&hsm, digest()).await.expect_err("signed without a login");
        assert!(matches!(error, HsmError::Fatal { .. }), "{error:?}");
    }
    assert_ne!(status(&hsm).await, "ok");
    assert_eq!(shim.trace().since(mark).count("C_Login"), 1);
    end(&shim, hsm).await;
}

/// The word that `/health` shows.
async fn status(hsm: &Hsm) -> String {
    let health = serde_json::to_value(hsm.health().await).unwrap();
    health["status"].as_str().unwrap().to_owned()
}

/// Invariant 10: KEKs that are not found, or found twice, are refused, and none is made.
#[tokio::test(flavor = "multi_thread")]
async fn keks_that_are_not_found_exactly_once_are_refused_and_never_made() {
    let shim = Shim::new();
    let (mut hsm, keks) = started(&shim.config()).await;
    for orders in ["C_FindObjects empty", "C_FindObjects twice"] {
        shim.behave();
        hsm.shutdown().await.unwrap();
        hsm = Hsm::start(&shim.config()).await.unwrap();
        shim.order(orders);
        let mark = shim.mark();
        hsm.adopt(keks.clone()).await.expect_err(orders);
        let trace = shim.trace().since(mark);
        assert!(trace.struck() > 0, "{orders}");
        assert_eq!(trace.count("C_GenerateKey") + trace.count("C_GenerateKeyPair"), 0, "{orders}");
    }
    end(&shim, hsm).await;
}

/// Invariant 10: after a recovery the token shows nothing (SoftHSM does that when its folder is gone).
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_token_after_a_recovery_makes_health_red_and_makes_no_key() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let row = rows(&hsm, 1).await.remove(0);
    let token_row = Row::generate(&hsm, Custody::Token).await.unwrap();
    assert_eq!(status(&hsm).await, "ok");

    shim.order("C_SignInit rv=CKR_DEVICE_ERROR count=1\nC_FindObjects empty");
    let mark = shim.mark();
    for _ in 0..10 {
        for row in [&row, &token_row] {
            let _ = row.sign_checked(&hsm, digest()).await;
        }
    }
    row.sign(&hsm, digest()).await.expect_err("signed without KEKs");
    token_row.sign(&hsm, digest()).await.expect_err("signed by a key that was not found");
    assert_ne!(status(&hsm).await, "ok");
    let trace = shim.trace().since(mark);
    assert!(trace.struck() > 1);
    assert_eq!(trace.count("C_GenerateKey") + trace.count("C_GenerateKeyPair"), 0);
    end(&shim, hsm).await;
}

/// Invariant 10: a token key that is not found is an error of that key; it is not made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_key_that_is_not_found_is_not_made_again() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let row = Row::generate(&hsm, Custody::Token).await.unwrap();
    hsm.destroy(&row.ctx, &row.key).await.unwrap();
    let mark = shim.mark();
    let error = row.sign(&hsm, digest()).await.expect_err("signed by a key that is gone");
    assert!(matches!(error, HsmError::NotFound), "{error:?}");
    assert_eq!(shim.trace().since(mark).count("C_GenerateKeyPair"), 0);
    end(&shim, hsm).await;
}

/// A missing mechanism is named at start, in words an operator can act on.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_mechanism_is_named_at_start() {
    let shim = Shim::ordered("C_GetMechanismList hide=0x2109\nC_GetMechanismInfo hide=0x2109");
    let error = Hsm::start(&shim.config()).await.expect_err("started without the wrap mechanism");
    assert!(matches!(error, HsmError::Fatal { .. }), "{error:?}");
    assert!(error.to_string().contains("CKM_AES_KEY_WRAP"), "does not name it: {error}");
    assert!(shim.trace().struck() > 0);
}
