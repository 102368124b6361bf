//! Sessions and logins lost under load (threat 34): every answer is a right signature or an honest error, and the HSM comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use intentd::hsm::{Custody, Hsm, HsmConfig, HsmError, HsmStatus, KeyContext, KeyRef, PublicKey};

use super::{oracle, raw};
use crate::harness::hsm::{CUSTODIES, context, with_token};

type Key = (KeyContext, KeyRef, PublicKey);

async fn keys(hsm: &Hsm, count: usize) -> Vec<Key> {
    let mut keys = Vec::new();
    for n in 0..count {
        let ctx = context();
        let (key, public) = hsm.generate(&ctx, CUSTODIES[n % 2]).await.unwrap();
        keys.push((ctx, key, public));
    }
    keys
}

/// What a load has seen.
#[derive(Default)]
struct Seen {
    signed: AtomicUsize,
    unavailable: AtomicUsize,
}

/// Signs with every key in a loop of its own until told to stop; checks every answer.
fn load(hsm: &Hsm, keys: Vec<Key>, stop: &Arc<AtomicBool>) -> (Arc<Seen>, Vec<tokio::task::JoinHandle<()>>) {
    let seen = Arc::new(Seen::default());
    let lane = |(ctx, key, public): Key| {
        let (hsm, seen, stop) = (hsm.clone(), seen.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Relaxed) {
                match hsm.sign(&ctx, &key, &public, [8; 32]).await {
                    Ok(signature) => {
                        assert!(oracle::recovers(&signature, [8; 32], public.address()));
                        seen.signed.fetch_add(1, Relaxed);
                    }
                    Err(HsmError::Unavailable { .. } | HsmError::Timeout | HsmError::Busy { .. }) => {
                        seen.unavailable.fetch_add(1, Relaxed);
                        tokio::task::yield_now().await;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
    };
    let lanes = keys.into_iter().map(lane).collect();
    (seen, lanes)
}

/// Until the condition holds; panics after 20 s.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        tokio::task::yield_now().await;
    }
}

/// Somebody logs the whole application out, again and again.
#[test]
fn threat_34_logout_in_the_middle_of_the_load() {
    with_token(async |token| {
        let hsm = token.start().await;
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, lanes) = load(&hsm, keys(&hsm, 8).await, &stop);
        for round in 0..30 {
            let (signed, recoveries) = (seen.signed.load(Relaxed), hsm.health().await.recoveries);
            until("signatures", async || seen.signed.load(Relaxed) > signed + 20).await;
            // It may be in the middle of a recovery, and nobody logged in.
            let _ = raw::session(&token.config).logout();
            until("recovery", async || hsm.health().await.recoveries > recoveries).await;
            assert!(round < 30);
        }
        stop.store(true, Relaxed);
        for lane in lanes {
            lane.await.unwrap();
        }
        let health = hsm.health().await;
        assert_eq!(health.status, HsmStatus::Ok, "{health:?}");
        assert!(health.recoveries >= 30 && health.workers_abandoned == 0, "{health:?}");
        assert_eq!(seen.unavailable.load(Relaxed), 0, "every call was repeated after the login");
    });
}

/// The token's folder goes away and comes back: SoftHSM then says "no objects, all is well" until it is initialised anew.
#[test]
fn threat_34_the_token_goes_away_and_comes_back() {
    with_token(async |token| {
        let hsm = token.start().await;
        let keys = keys(&hsm, 4).await;
        let (here, away) = (token.dir.join("tokens"), token.dir.join("away"));
        std::fs::rename(&here, &away).unwrap();
        until("red", async || hsm.health().await.status == HsmStatus::Unavailable).await;
        let made = hsm.generate(&context(), Custody::Wrapped).await;
        assert!(matches!(made, Err(HsmError::Unavailable { .. })), "{made:?}");
        assert!(
            !here.exists() || std::fs::read_dir(&here).unwrap().next().is_none(),
            "something was made in its place"
        );
        if here.exists() {
            std::fs::remove_dir(&here).unwrap();
        }
        std::fs::rename(&away, &here).unwrap();
        until("green", async || hsm.health().await.status == HsmStatus::Ok).await;
        for (ctx, key, public) in &keys {
            let signature = hsm.sign(ctx, key, public, [4; 32]).await.unwrap();
            assert!(oracle::recovers(&signature, [4; 32], public.address()));
        }
    });
}

#[test]
fn threat_34_forty_thousand_signatures_leak_nothing() {
    with_token(async |token| {
        let hsm = token.start().await;
        let keys = keys(&hsm, 8).await;
        let sign = async |rounds: usize| {
            for n in 0..rounds {
                let digest = *alloy::primitives::keccak256(n.to_be_bytes());
                let signs = (0..20).map(|lane| {
                    let (ctx, key, public) = &keys[lane % keys.len()];
                    hsm.sign(ctx, key, public, digest)
                });
                futures::future::try_join_all(signs).await.unwrap();
            }
        };
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
        };
        sign(100).await;
        let before = (resident(), hsm.health().await);
        sign(2_000).await;
        let after = (resident(), hsm.health().await);
        assert!(after.0 < before.0 + 2_048, "{} KiB before, {} after", before.0, after.0);
        assert_eq!(after.1.logins, 1, "one login for all of them");
        assert_eq!(after.1.cache_misses - before.1.cache_misses, 1, "only the canary's");
    });
}

/// A queue that is full says so at once; what was taken is done.
#[test]
fn a_full_queue_answers_busy_and_the_rest_is_signed() {
    with_token(async |token| {
        let config = HsmConfig { workers: Some(1), queue_depth: 10, ..token.config.clone() };
        let hsm = token.start_with(&config).await.unwrap();
        let (ctx, key, public) = keys(&hsm, 1).await.remove(0);
        let answers = futures::future::join_all((0..200).map(|_| hsm.sign(&ctx, &key, &public, [1; 32]))).await;
        let busy = answers.iter().filter(|answer| matches!(answer, Err(HsmError::Busy { retry_after_s: 1 }))).count();
        let signed = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(busy > 100 && signed >= 10 && busy + signed == 200, "{busy} busy, {signed} signed");
        assert_eq!(hsm.health().await.queue_depth, 0);
    });
}

#[test]
fn after_the_shutdown_every_call_is_refused() {
    with_token(async |token| {
        let hsm = token.start().await;
        let (ctx, key, public) = keys(&hsm, 1).await.remove(0);
        let other = hsm.clone();
        hsm.shutdown().await.unwrap();
        let signed = other.sign(&ctx, &key, &public, [1; 32]).await;
        assert!(matches!(signed, Err(HsmError::Unavailable { .. })), "{signed:?}");
        assert!(other.shutdown().await.is_ok(), "twice is no harm");
        // The module was finalised: it can be started again in the same process.
        let hsm = token.start().await;
        hsm.sign(&ctx, &key, &public, [1; 32]).await.unwrap();
    });
}

/// Every stop meets calls in flight; the module is loaded, initialised and finalised each time. A crash of the library is a failure of
/// the child.
#[test]
fn the_module_is_started_and_stopped_again_and_again_under_calls() {
    with_token(async |token| {
        let rounds = std::env::var("INTENTD_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
        for round in 0..rounds {
            let hsm = token.start().await;
            let ctx = context();
            let (key, public) = hsm.generate(&ctx, Custody::Wrapped).await.unwrap();
            let calls: Vec<_> = (0..16)
                .map(|lane| {
                    let (hsm, ctx, key) = (hsm.clone(), ctx.clone(), key.clone());
                    tokio::spawn(async move {
                        loop {
                            let done = match lane % 4 {
                                0 => hsm.sign(&ctx, &key, &public, [1; 32]).await.map(drop),
                                1 => hsm.seal(b"aad", b"body").await.map(drop),
                                2 => hsm.generate(&context(), Custody::Wrapped).await.map(drop),
                                _ => hsm.random::<32>().await.map(drop),
                            };
                            if done.is_err() {
                                return;
                            }
                        }
                    })
                })
                .collect();
            for _ in 0..round % 7 * 5 {
                hsm.random::<32>().await.unwrap();
            }
            drop(token.started());
            hsm.shutdown().await.unwrap();
            for call in calls {
                call.await.unwrap();
            }
        }
    });
}
