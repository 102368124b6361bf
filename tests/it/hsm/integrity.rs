//! Invariant 3: whatever is changed in a row, the MAC is checked first and the module sees no C_UnwrapKey.

use intentd::hsm::{Custody, HsmError, KeyContext, KeyRef};
use intentd::ids::{KekId, KeyId, OrgId};

use crate::harness::hsm::{CUSTODIES, context, with_token};

/// The same array or vector with one bit of one byte changed, for every byte.
fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len()).map(|at| {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1 << (at % 8);
        changed
    })
}

fn changed_keys(key: &KeyRef) -> Vec<KeyRef> {
    let mut out = Vec::new();
    match key.clone() {
        KeyRef::Wrapped { blob, mechanism, kek_id, mac_kek_id, mac } => {
            let with =
                |blob, mechanism, kek_id, mac_kek_id, mac| KeyRef::Wrapped { blob, mechanism, kek_id, mac_kek_id, mac };
            out.extend(flips(&blob).map(|blob| with(blob, mechanism, kek_id, mac_kek_id, mac)));
            out.extend(
                flips(&mac).map(|mac| with(blob.clone(), mechanism, kek_id, mac_kek_id, mac.try_into().unwrap())),
            );
            for length in [0, 8, 64, 71] {
                out.push(with(blob[..length].to_vec(), mechanism, kek_id, mac_kek_id, mac));
            }
            out.push(with([&blob[..], &[0; 8]].concat(), mechanism, kek_id, mac_kek_id, mac));
            out.push(with(blob.clone(), 0x210A, kek_id, mac_kek_id, mac));
            out.push(with(blob.clone(), mechanism, KekId::random(), mac_kek_id, mac));
            out.push(with(blob.clone(), mechanism, mac_kek_id, mac_kek_id, mac));
            out.push(with(blob.clone(), mechanism, kek_id, KekId::random(), mac));
            out.push(with(blob, mechanism, kek_id, kek_id, mac));
        }
        KeyRef::Token { cka_id, mac_kek_id, mac } => {
            let with = |cka_id, mac_kek_id, mac| KeyRef::Token { cka_id, mac_kek_id, mac };
            out.extend(flips(&cka_id).map(|id| with(id.try_into().unwrap(), mac_kek_id, mac)));
            out.extend(flips(&mac).map(|mac| with(cka_id, mac_kek_id, mac.try_into().unwrap())));
            out.push(with(cka_id, KekId::random(), mac));
        }
    }
    out
}

fn changed_contexts(ctx: &KeyContext) -> Vec<KeyContext> {
    let paths = ["keys/test-signes", "keys/test-signer/", "keys/test-signe", "", "Keys/test-signer"];
    let mut out: Vec<_> = paths.iter().map(|path| KeyContext { path: (*path).into(), ..ctx.clone() }).collect();
    out.extend([0, 2, -1].map(|version| KeyContext { version, ..ctx.clone() }));
    out.push(KeyContext { org_id: OrgId::random(), ..ctx.clone() });
    out.push(KeyContext { key_id: KeyId::random(), ..ctx.clone() });
    out
}

#[test]
fn every_change_of_a_row_is_refused_before_anything_is_unwrapped() {
    with_token(async |token| {
        let hsm = token.start().await;
        for custody in CUSTODIES {
            let ctx = context();
            let (key, public) = hsm.generate(&ctx, custody).await.unwrap();
            let (_, other) = hsm.generate(&context(), Custody::Wrapped).await.unwrap();
            let unwraps = hsm.health().await.unwraps;
            for changed in changed_keys(&key) {
                let result = hsm.sign(&ctx, &changed, &public, [1; 32]).await;
                // A key that is not known here may be one that another daemon has just made: that is "could not check".
                let refused = matches!(result, Err(HsmError::Integrity { .. } | HsmError::UnknownKek { .. }));
                assert!(refused, "{changed:?}: {result:?}");
            }
            for changed in changed_contexts(&ctx) {
                let result = hsm.sign(&changed, &key, &public, [1; 32]).await;
                assert!(matches!(result, Err(HsmError::Integrity { .. })), "{changed:?}: {result:?}");
                if custody == Custody::Token {
                    let result = hsm.destroy(&changed, &key).await;
                    assert!(matches!(result, Err(HsmError::Integrity { .. })), "destroyed for {changed:?}: {result:?}");
                }
            }
            let result = hsm.sign(&ctx, &key, &other, [1; 32]).await;
            assert!(matches!(result, Err(HsmError::Integrity { .. })), "{result:?}");
            // Health itself unwraps its canary, once.
            assert_eq!(hsm.health().await.unwraps - unwraps, 1);
            hsm.sign(&ctx, &key, &public, [1; 32]).await.unwrap();
            assert_eq!(hsm.health().await.recoveries, 0, "a tampered row must not shake the HSM");
        }
    });
}
