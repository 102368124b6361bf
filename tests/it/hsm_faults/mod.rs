//! The HSM layer against a module that misbehaves (`tests/shim`): what HSM.md §6 and THREATS.md promise of `intentd::hsm`.

mod hangs;
mod injected;
mod integrity;
mod publication;
mod recovery;
mod start;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use intentd::hsm::{Custody, Hsm, HsmConfig, HsmError, Kek, KeyContext, KeyRef, PublicKey, Signature};
use k256::elliptic_curve::PrimeField;
use k256::elliptic_curve::ops::Reduce;
use k256::elliptic_curve::point::AffineCoordinates;
use k256::elliptic_curve::scalar::IsHigh;
use k256::elliptic_curve::sec1::FromEncodedPoint;
use k256::{AffinePoint, EncodedPoint, FieldBytes, ProjectivePoint, Scalar, U256};

use crate::harness::hsm::context;
use crate::harness::shim::Shim;

/// A running HSM layer with fresh KEKs.
async fn started(config: &HsmConfig) -> (Hsm, Vec<Kek>) {
    let hsm = Hsm::start(config).await.expect("the HSM starts");
    let keks = hsm.create_keks().await.expect("KEKs are made");
    hsm.adopt(keks.clone()).await.expect("our own KEKs are adopted");
    (hsm, keks)
}

/// A key with the row that a database would hold.
#[derive(Clone, Debug)]
struct Row {
    ctx: KeyContext,
    key: KeyRef,
    public: PublicKey,
}

impl Row {
    async fn generate(hsm: &Hsm, custody: Custody) -> Result<Self, HsmError> {
        let ctx = context();
        let (key, public) = hsm.generate(&ctx, custody).await?;
        Ok(Self { ctx, key, public })
    }

    async fn sign(&self, hsm: &Hsm, digest: [u8; 32]) -> Result<Signature, HsmError> {
        hsm.sign(&self.ctx, &self.key, &self.public, digest).await
    }

    /// Signs; an answer must be this key's, whatever the module did.
    async fn sign_checked(&self, hsm: &Hsm, digest: [u8; 32]) -> Result<(), HsmError> {
        let signature = self.sign(hsm, digest).await?;
        assert_signed_by(&signature, &self.public, digest);
        Ok(())
    }
}

/// A running HSM layer of one worker that keeps one key, and two rows: using them in turn unwraps each time.
async fn started_without_cache(shim: &Shim) -> (Hsm, [Row; 2]) {
    let mut config = shim.config();
    (config.workers, config.cache_keys) = (Some(1), 1);
    let (hsm, _) = started(&config).await;
    let rows = rows(&hsm, 2).await;
    (hsm, rows.try_into().unwrap())
}

async fn rows(hsm: &Hsm, count: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for _ in 0..count {
        rows.push(Row::generate(hsm, Custody::Wrapped).await.expect("a key is made"));
    }
    rows
}

/// A digest of its own for every call.
fn digest() -> [u8; 32] {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let mut digest = [0xD1; 32];
    digest[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    digest
}

/// Verifies by SEC 1 §4.1.4 with plain curve arithmetic, of which the code under test uses nothing, and checks low s and parity.
#[track_caller]
fn assert_signed_by(signature: &Signature, public: &PublicKey, digest: [u8; 32]) {
    let scalar = |bytes: [u8; 32]| Scalar::from_repr(bytes.into()).into_option().filter(|s| *s != Scalar::ZERO);
    let (r, s) = (scalar(signature.r).expect("r in 1..n"), scalar(signature.s).expect("s in 1..n"));
    assert!(!bool::from(s.is_high()), "s is above n/2");
    let q = AffinePoint::from_encoded_point(&EncodedPoint::from_bytes(public.to_bytes()).unwrap()).unwrap();
    let z = <Scalar as Reduce<U256>>::reduce_bytes(&FieldBytes::from(digest));
    let inverse = s.invert().unwrap();
    let point = (ProjectivePoint::GENERATOR * (z * inverse) + ProjectivePoint::from(q) * (r * inverse)).to_affine();
    assert_eq!(<Scalar as Reduce<U256>>::reduce_bytes(&point.x()), r, "a signature by another key");
    assert_eq!(bool::from(point.y_is_odd()), signature.y_parity, "the wrong parity");
}

/// Tries until it succeeds; at the deadline the last error is the failure.
async fn eventually<T, E: std::fmt::Debug>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    let begin = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if begin.elapsed() > RECOVERY => panic!("{what} still fails after {RECOVERY:?}: {error:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Within this time of the module behaving again, everything works again.
const RECOVERY: Duration = Duration::from_secs(10);

/// Counts panics of any thread from now on: a worker that dies of one would only show as a time-out.
fn count_panics() -> &'static AtomicUsize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        default(info);
    }));
    &PANICS
}

/// The module behaves again and is finalised before the process ends (leaving in the middle of a call is what crashes); the caller
/// never broke the rules of PKCS#11.
async fn end(shim: &Shim, hsm: Hsm) {
    shim.behave();
    // After a fatal error the supervisor may refuse; then there is nothing in the module to wait for.
    let _ = hsm.shutdown().await;
    assert_eq!(shim.trace().violations, [] as [&str; 0]);
}
