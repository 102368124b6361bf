//! Invariant 16: more keys than the caches hold.

use intentd::hsm::{Custody, HsmConfig};

use super::raw;
use crate::harness::hsm::{context, with_token};

/// Resident memory in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn twenty_thousand_keys_through_small_caches() {
    const KEYS: usize = 20_000;
    const CACHE: usize = 50;
    with_token(async |token| {
        let config = HsmConfig { cache_keys: CACHE, ..token.config.clone() };
        let hsm = token.start_with(&config).await.unwrap();
        let mut keys = Vec::with_capacity(KEYS);
        let mut early = 0;
        while keys.len() < KEYS {
            let contexts: Vec<_> = (0..100).map(|_| context()).collect();
            let made = contexts.iter().map(|ctx| hsm.generate(ctx, Custody::Wrapped));
            let made = futures::future::try_join_all(made).await.unwrap();
            keys.extend(contexts.into_iter().zip(made));
            if keys.len() == 2_000 {
                early = resident();
            }
        }
        let session = raw::session(&config);
        let live = raw::unwrapped_keys(&session).len();
        assert!(live <= CACHE * 2, "{live} live keys in two caches of {CACHE}");
        assert_eq!(live as u64, hsm.health().await.cache_size, "what is evicted is destroyed");

        // Long evicted, they still sign as themselves.
        for chunk in keys.chunks(1_000) {
            let signs = chunk.iter().step_by(20).map(|(ctx, (key, public))| hsm.sign(ctx, key, public, [1; 32]));
            futures::future::try_join_all(signs).await.unwrap();
        }
        assert!(raw::unwrapped_keys(&session).len() <= CACHE * 2);
        // SoftHSM 2.6 keeps 251 bytes of each destroyed session object, and a new key has three; the rows in `keys` are ours.
        let grown = resident().saturating_sub(early);
        assert!(grown < KEYS * 2_048, "{grown} bytes more for {KEYS} keys");
    });
}

/// One more key than fits: each signature evicts the other's handle.
#[test]
fn one_key_more_than_the_cache_holds() {
    with_token(async |token| {
        let config = HsmConfig { cache_keys: 1, workers: Some(1), ..token.config.clone() };
        let hsm = token.start_with(&config).await.unwrap();
        let (a, b) = (context(), context());
        let (key_a, public_a) = hsm.generate(&a, Custody::Wrapped).await.unwrap();
        let (key_b, public_b) = hsm.generate(&b, Custody::Token).await.unwrap();
        let before = hsm.health().await;
        for n in 0..100 {
            hsm.sign(&a, &key_a, &public_a, [n; 32]).await.unwrap();
            hsm.sign(&b, &key_b, &public_b, [n; 32]).await.unwrap();
        }
        let after = hsm.health().await;
        assert_eq!(after.cache_misses - before.cache_misses, 201, "and one for the canary");
        assert!(raw::unwrapped_keys(&raw::session(&config)).len() <= 1);
    });
}

/// The module is started afresh under load, and nobody notices.
#[test]
fn recycling_under_load_loses_no_call() {
    with_token(async |token| {
        let config = HsmConfig { cache_keys: 1, recycle_unwraps: 100, ..token.config.clone() };
        let hsm = token.start_with(&config).await.unwrap();
        let contexts: Vec<_> = (0..8).map(|_| context()).collect();
        let made = futures::future::try_join_all(contexts.iter().map(|ctx| hsm.generate(ctx, Custody::Wrapped)))
            .await
            .unwrap();
        for n in 0..100 {
            let signs = contexts.iter().zip(&made).map(|(ctx, (key, public))| hsm.sign(ctx, key, public, [n; 32]));
            futures::future::try_join_all(signs).await.unwrap();
        }
        let health = hsm.health().await;
        assert!(health.unwraps > 400, "{health:?}");
        assert!((health.unwraps / 200..=health.unwraps / 100).contains(&health.recoveries), "{health:?}");
    });
}
