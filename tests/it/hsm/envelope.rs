//! Invariant 7: sealed secrets open only in their own place.

use std::collections::HashSet;

use intentd::hsm::{Envelope, HsmError, SealedDek};
use intentd::ids::KekId;

use crate::harness::hsm::with_token;

#[test]
fn a_secret_opens_with_its_own_aad_and_no_other() {
    with_token(async |token| {
        let hsm = token.start().await;
        for size in [0, 1, 1024, 5 * 1024 * 1024] {
            let body = vec![0x5a; size];
            let sealed = hsm.seal(b"org|vault|path|1|generic", &body).await.unwrap();
            assert_eq!(sealed.ciphertext.len(), size + 16);
            assert_eq!(*hsm.open(b"org|vault|path|1|generic", &sealed).await.unwrap(), body);
            for aad in [&b"org|vault|path|2|generic"[..], b"org|vault2|path|1|generic", b"org|vault|path|1|generi", b""]
            {
                let opened = hsm.open(aad, &sealed).await;
                assert!(matches!(opened, Err(HsmError::Integrity { .. })), "{aad:?}: {opened:?}");
            }
        }
        let health = hsm.health().await;
        assert_eq!(health.recoveries, 0, "a row in the wrong place must not shake the HSM");
    });
}

#[test]
fn every_change_of_an_envelope_is_refused() {
    with_token(async |token| {
        let hsm = token.start().await;
        let sealed = hsm.seal(b"aad", b"a secret").await.unwrap();
        let other = hsm.seal(b"aad", b"another!").await.unwrap();
        let mut changed = vec![
            Envelope { dek: other.dek.clone(), ..sealed.clone() },
            Envelope { nonce: other.nonce, ..sealed.clone() },
            Envelope { ciphertext: other.ciphertext.clone(), ..sealed.clone() },
            Envelope { dek: SealedDek { kek_id: KekId::random(), ..sealed.dek.clone() }, ..sealed.clone() },
            Envelope { ciphertext: Vec::new(), ..sealed.clone() },
        ];
        for length in [0, 16, 32, 47] {
            let dek = SealedDek { ciphertext: sealed.dek.ciphertext[..length].to_vec(), ..sealed.dek.clone() };
            changed.push(Envelope { dek, ..sealed.clone() });
        }
        for at in 0..48 {
            let mut envelope = sealed.clone();
            envelope.dek.ciphertext[at] ^= 0x10;
            changed.push(envelope);
        }
        for at in 0..12 {
            let (mut iv, mut nonce) = (sealed.clone(), sealed.clone());
            iv.dek.iv[at] ^= 1;
            nonce.nonce[at] ^= 1;
            changed.extend([iv, nonce]);
        }
        for at in 0..sealed.ciphertext.len() {
            let mut envelope = sealed.clone();
            envelope.ciphertext[at] ^= 0x80;
            changed.push(envelope);
        }
        for envelope in changed {
            let opened = hsm.open(b"aad", &envelope).await;
            // A key that is not known here may be one that another daemon has just made: that is "could not check".
            let unknown =
                envelope.dek.kek_id != sealed.dek.kek_id && matches!(opened, Err(HsmError::UnknownKek { .. }));
            assert!(unknown || matches!(opened, Err(HsmError::Integrity { .. })), "{envelope:?}: {opened:?}");
        }
        assert_eq!(**hsm.open(b"aad", &sealed).await.unwrap(), *b"a secret");
    });
}

/// Nonces come from the HSM; a repeated one would give both bodies away. (96 random bits: 20,000 draws collide once in 10^20.)
#[test]
fn no_nonce_and_no_key_is_used_twice() {
    with_token(async |token| {
        let hsm = token.start().await;
        let (mut ivs, mut nonces, mut deks) = (HashSet::new(), HashSet::new(), HashSet::new());
        for _ in 0..200 {
            for sealed in futures::future::try_join_all((0..100).map(|_| hsm.seal(b"aad", b""))).await.unwrap() {
                assert!(ivs.insert(sealed.dek.iv) && nonces.insert(sealed.nonce) && deks.insert(sealed.dek.ciphertext));
            }
        }
        assert!(!ivs.contains(&[0; 12]) && ivs.is_disjoint(&nonces));
    });
}
