//! An address is shown only when its key can sign, from the row, later.

use intentd::hsm::{Custody, Hsm, HsmError};
use zeroize::Zeroizing;

use super::{Row, digest, end, eventually, started, started_without_cache};
use crate::harness::hsm::{CUSTODIES, context};
use crate::harness::shim::Shim;

/// THREATS 13, 45: bare or in an OCTET STRING, the point is read right.
#[tokio::test(flavor = "multi_thread")]
async fn threat_13_every_valid_encoding_of_the_point_gives_the_right_address() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    for form in ["bare", "der"] {
        for custody in CUSTODIES {
            shim.order(&format!("C_GetAttributeValue ec_point={form}"));
            let mark = shim.mark();
            let row = Row::generate(&hsm, custody).await.unwrap_or_else(|e| panic!("{form} {custody:?}: {e:?}"));
            assert!(shim.trace().since(mark).struck() > 0, "{form} {custody:?}: never read");
            shim.behave();
            row.sign_checked(&hsm, digest()).await.unwrap();
        }
    }
    end(&shim, hsm).await;
}

/// THREATS 45: no address of a point that the key does not have; the valid point of another key is the worst of them.
#[tokio::test(flavor = "multi_thread")]
async fn threat_45_a_misread_point_never_becomes_an_address() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    for form in ["negated", "truncated", "garbage", "compressed"] {
        for custody in CUSTODIES {
            shim.order(&format!("C_GetAttributeValue ec_point={form}"));
            let mark = shim.mark();
            let made = Row::generate(&hsm, custody).await;
            assert!(shim.trace().since(mark).struck() > 0, "{form} {custody:?}: never read");
            shim.behave();
            match made {
                Err(error) => assert!(!matches!(error, HsmError::Fatal { .. }), "{form}: {error:?}"),
                // A compressed point says everything: reading it right is as good as refusing it.
                Ok(row) if form == "compressed" => row.sign_checked(&hsm, digest()).await.unwrap(),
                Ok(_) => panic!("{form} {custody:?}: an address of no key was given out"),
            }
            eventually(form, async || Row::generate(&hsm, custody).await).await;
        }
    }
    end(&shim, hsm).await;
}

/// THREATS 45: what is kept must be what unwraps, else the funds of the address are lost at the first restart.
#[tokio::test(flavor = "multi_thread")]
async fn threat_45_a_blob_that_does_not_unwrap_is_never_published() {
    let shim = Shim::new();
    let (hsm, rows) = started_without_cache(&shim).await;
    for spoil in ["flip", "garbage", "zero", "truncate"] {
        shim.order(&format!("C_WrapKey {spoil}"));
        let mark = shim.mark();
        let generated = Row::generate(&hsm, Custody::Wrapped).await;
        let imported = import(&hsm, Custody::Wrapped).await;
        assert!(shim.trace().since(mark).struck() >= 2, "{spoil}");
        shim.behave();
        // The library reads the length before the bytes and keeps that: a shorter answer does no harm. Then the blob must work.
        for row in [generated, imported].into_iter().flatten() {
            assert_eq!(spoil, "truncate", "a blob that is not what the module wrapped was given out");
            rows[0].sign_checked(&hsm, digest()).await.unwrap();
            row.sign_checked(&hsm, digest()).await.unwrap();
        }
        let row = eventually(spoil, async || Row::generate(&hsm, Custody::Wrapped).await).await;
        row.sign_checked(&hsm, digest()).await.unwrap();
    }
    end(&shim, hsm).await;
}

/// THREATS 12, 45: a new key whose proof by signature fails is not given out.
#[tokio::test(flavor = "multi_thread")]
async fn threat_45_a_key_that_cannot_sign_is_never_published() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    for custody in CUSTODIES {
        shim.order("C_Sign garbage mechanism=0x1041");
        let mark = shim.mark();
        Row::generate(&hsm, custody).await.expect_err("generated");
        import(&hsm, custody).await.expect_err("imported");
        assert!(shim.trace().since(mark).struck() >= 2);
        shim.behave();
        let row = eventually("generation", async || Row::generate(&hsm, custody).await).await;
        row.sign_checked(&hsm, digest()).await.unwrap();
    }
    end(&shim, hsm).await;
}

async fn import(hsm: &Hsm, custody: Custody) -> Result<Row, HsmError> {
    let ctx = context();
    let (key, public) = hsm.import(&ctx, custody, Zeroizing::new([0x5A; 32])).await?;
    Ok(Row { ctx, key, public })
}

/// Invariant 19: 0x210A is RFC 5649 on one module and PKCS#7 on another; blobs would not travel between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrap_mechanism_of_the_wrong_kind_is_found_at_start() {
    let shim = Shim::ordered("C_WrapKey pkcs7=0x210A\nC_UnwrapKey pkcs7=0x210A");
    let mut config = shim.config();
    config.wrap_mechanism = "aes-key-wrap-pad".into();
    let refused = match Hsm::start(&config).await {
        Err(error) => error,
        Ok(hsm) => hsm.create_keks().await.expect_err("keys are wrapped as PKCS#7"),
    };
    assert!(matches!(refused, HsmError::Fatal { .. }), "{refused:?}");
    assert!(refused.to_string().contains("wrap"), "says nothing of wrapping: {refused}");
    assert!(shim.trace().struck() > 0);
}

/// The counterpart: the same mechanism as SoftHSM has it is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrap_mechanism_of_the_right_kind_is_accepted() {
    let shim = Shim::new();
    let mut config = shim.config();
    config.wrap_mechanism = "aes-key-wrap-pad".into();
    let (hsm, _) = started(&config).await;
    let row = Row::generate(&hsm, Custody::Wrapped).await.unwrap();
    row.sign_checked(&hsm, digest()).await.unwrap();
    end(&shim, hsm).await;
}

/// A sealed secret is acknowledged only when it can be opened again: the caller keeps no copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_does_not_open_again_is_not_acknowledged() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    for spoil in ["flip", "garbage", "zero"] {
        shim.order(&format!("C_Encrypt {spoil}"));
        let mark = shim.mark();
        let sealed = hsm.seal(b"a place", b"a secret").await;
        assert!(shim.trace().since(mark).struck() > 0, "{spoil}");
        assert!(sealed.is_err(), "{spoil}: an envelope was given out that does not open");
        shim.behave();
        eventually(spoil, async || hsm.seal(b"a place", b"a secret").await).await;
    }
    end(&shim, hsm).await;
}

/// Zeros are no random numbers: a key, a nonce or an id made of them is no secret, or not unique.
#[tokio::test(flavor = "multi_thread")]
async fn random_numbers_that_are_zeros_are_never_used() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    for nth in 0..3 {
        shim.order(&format!("C_GenerateRandom zero after={nth} count=1"));
        let mark = shim.mark();
        // The DEK, the nonce of the body, the nonce of the DEK; a second try may succeed, but not with these.
        let envelope = hsm.seal(b"a place", b"a secret").await;
        assert_eq!(shim.trace().since(mark).struck(), 1, "number {nth} was not drawn");
        shim.behave();
        if let Ok(envelope) = envelope {
            assert_ne!(envelope.nonce, [0; 12], "the nonce of the body");
            assert_ne!(envelope.dek.iv, [0; 12], "the nonce of the DEK");
            assert!(shim.trace().since(mark).count("C_GenerateRandom") > 3, "number {nth} was used");
        }
    }
    shim.order("C_GenerateRandom zero count=1");
    if let Ok(bytes) = hsm.random::<32>().await {
        assert_ne!(*bytes, [0; 32]);
    }
    end(&shim, hsm).await;
}
