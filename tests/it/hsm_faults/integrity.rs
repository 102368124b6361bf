//! Never another key's signature, never a wrong one; nothing unverified reaches the module.

use intentd::hsm::{Custody, HsmError, KeyRef};
use intentd::ids::{KekId, KeyId, OrgId};
use uuid::Uuid;

use super::{Row, assert_signed_by, digest, end, eventually, rows, started, started_without_cache};
use crate::harness::shim::{ECDSA, Shim};

/// `row` with one bit changed, once for every byte of every field that the MAC covers, and the MAC.
fn mutants(row: &Row) -> Vec<(String, Row)> {
    let mut mutants = Vec::new();
    let mut mutate = |name: String, change: &dyn Fn(&mut Row)| {
        let mut mutant = row.clone();
        change(&mut mutant);
        mutants.push((name, mutant));
    };
    for i in 0..16 {
        mutate(format!("org_id {i}"), &|m| m.ctx.org_id = OrgId(flip(m.ctx.org_id.0, i)));
        mutate(format!("key_id {i}"), &|m| m.ctx.key_id = KeyId(flip(m.ctx.key_id.0, i)));
        mutate(format!("mac_kek_id {i}"), &|m| match &mut m.key {
            KeyRef::Wrapped { mac_kek_id, .. } | KeyRef::Token { mac_kek_id, .. } => {
                *mac_kek_id = KekId(flip(mac_kek_id.0, i));
            }
        });
    }
    for i in 0..row.ctx.path.len() {
        mutate(format!("path {i}"), &|m| m.ctx.path.replace_range(i..=i, "~"));
    }
    for bit in 0..31 {
        mutate(format!("version {bit}"), &|m| m.ctx.version ^= 1 << bit);
    }
    for i in 0..32 {
        mutate(format!("mac {i}"), &|m| match &mut m.key {
            KeyRef::Wrapped { mac, .. } | KeyRef::Token { mac, .. } => mac[i] ^= 1,
        });
    }
    match &row.key {
        KeyRef::Wrapped { blob, .. } => {
            for i in 0..blob.len() {
                mutate(format!("blob {i}"), &|m| {
                    let KeyRef::Wrapped { blob, .. } = &mut m.key else { unreachable!() };
                    blob[i] ^= 1;
                });
            }
            for i in 0..16 {
                mutate(format!("kek_id {i}"), &|m| {
                    let KeyRef::Wrapped { kek_id, .. } = &mut m.key else { unreachable!() };
                    *kek_id = KekId(flip(kek_id.0, i));
                });
            }
            for bit in 0..64 {
                mutate(format!("mechanism {bit}"), &|m| {
                    let KeyRef::Wrapped { mechanism, .. } = &mut m.key else { unreachable!() };
                    *mechanism ^= 1 << bit;
                });
            }
        }
        KeyRef::Token { .. } => {
            for i in 0..16 {
                mutate(format!("cka_id {i}"), &|m| {
                    let KeyRef::Token { cka_id, .. } = &mut m.key else { unreachable!() };
                    cka_id[i] ^= 1;
                });
            }
        }
    }
    mutants
}

fn flip(id: Uuid, byte: usize) -> Uuid {
    let mut bytes = id.into_bytes();
    bytes[byte] ^= 1;
    Uuid::from_bytes(bytes)
}

/// Invariant 3. The rows are tried before the true one was used, and again while its key is cached.
async fn a_changed_row_never_reaches_the_module(custody: Custody, last_step: &str, mechanism: Option<u64>) {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let row = Row::generate(&hsm, custody).await.unwrap();
    let other = Row::generate(&hsm, custody).await.unwrap();
    let mut mutants = mutants(&row);
    mutants.push(("public key".into(), Row { public: other.public, ..row.clone() }));
    mutants.push(("another row's key".into(), Row { key: other.key.clone(), ..row.clone() }));
    mutants.push(("another row's key and public key".into(), Row { ctx: row.ctx.clone(), ..other.clone() }));

    for cached in [false, true] {
        if cached {
            row.sign_checked(&hsm, digest()).await.unwrap();
            other.sign_checked(&hsm, digest()).await.unwrap();
        }
        let mark = shim.mark();
        for (name, mutant) in &mutants {
            let error = mutant.sign(&hsm, digest()).await.expect_err(name);
            // A KEK that nobody knows is not there; everything else does not fit its MAC.
            assert!(matches!(error, HsmError::Integrity { .. }) || name.contains("kek_id"), "{name}: {error:?}");
        }
        let trace = shim.trace().since(mark);
        assert_eq!(trace.count("C_UnwrapKey"), 0, "cached: {cached}");
        let reached = trace.calls.iter().filter(|c| c.function == last_step && c.mechanism == mechanism).count();
        assert_eq!(reached, 0, "cached: {cached}");
    }
    row.sign_checked(&hsm, digest()).await.unwrap();
    end(&shim, hsm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_wrapped_row_never_reaches_unwrap() {
    a_changed_row_never_reaches_the_module(Custody::Wrapped, "C_SignInit", Some(ECDSA)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_token_row_never_reaches_the_key() {
    a_changed_row_never_reaches_the_module(Custody::Token, "C_SignInit", Some(ECDSA)).await;
}

/// Invariant 4, against a module that ignores the unwrap template.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_out_weak_is_tightened() {
    let shim = Shim::new();
    let (hsm, rows) = started_without_cache(&shim).await;
    shim.order("C_UnwrapKey weaken");
    let mark = shim.mark();
    rows[0].sign_checked(&hsm, digest()).await.unwrap();
    let trace = shim.trace().since(mark);
    assert!(trace.struck() > 0);
    assert!(trace.count("C_SetAttributeValue") > 0, "used as it came");
    end(&shim, hsm).await;
}

/// Invariant 4: neither a module that refuses to tighten nor one that only says that it did gets to sign.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stays_weak_is_refused_and_destroyed() {
    let shim = Shim::new();
    let (hsm, rows) = started_without_cache(&shim).await;
    for answer in ["CKR_ATTRIBUTE_READ_ONLY", "CKR_OK"] {
        let row = &rows[0];
        shim.order(&format!("C_UnwrapKey weaken\nC_SetAttributeValue rv={answer}"));
        let mark = shim.mark();
        row.sign(&hsm, digest()).await.expect_err(answer);
        let trace = shim.trace().since(mark);
        assert!(trace.struck() > 0, "{answer}");
        assert_eq!(trace.count_by("C_SignInit", ECDSA), 0, "{answer}");
        assert!(trace.count("C_DestroyObject") >= trace.count("C_UnwrapKey"), "{answer}: the weak key lives on");
        shim.behave();
        for row in &rows {
            eventually(answer, async || row.sign_checked(&hsm, digest()).await).await;
        }
    }
    end(&shim, hsm).await;
}

/// Invariant 2: the module signs with another key that it also holds.
async fn another_keys_signature_stays_inside(custody: Custody) {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let (one, two) = (Row::generate(&hsm, custody).await.unwrap(), Row::generate(&hsm, custody).await.unwrap());
    for row in [&one, &two, &one] {
        shim.behave();
        for row in [&one, &two] {
            eventually("signing", async || row.sign_checked(&hsm, digest()).await).await;
        }
        shim.order(&format!("C_SignInit other_key mechanism={ECDSA:#x}"));
        let mark = shim.mark();
        let error = row.sign(&hsm, digest()).await.expect_err("the other key signed");
        assert!(matches!(error, HsmError::Integrity { .. }), "{error:?}");
        assert!(shim.trace().since(mark).struck() > 0);
    }
    shim.behave();
    eventually("signing", async || one.sign_checked(&hsm, digest()).await).await;
    end(&shim, hsm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_by_another_wrapped_key_is_never_returned() {
    another_keys_signature_stays_inside(Custody::Wrapped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_by_another_token_key_is_never_returned() {
    another_keys_signature_stays_inside(Custody::Token).await;
}

/// THREATS 12: whatever is wrong with the bytes of a signature, it stays inside.
#[tokio::test(flavor = "multi_thread")]
async fn threat_12_a_spoiled_signature_is_never_returned() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let row = rows(&hsm, 1).await.remove(0);
    for spoil in ["flip", "garbage", "zero", "truncate"] {
        shim.order(&format!("C_Sign {spoil} mechanism={ECDSA:#x}"));
        let mark = shim.mark();
        for _ in 0..5 {
            row.sign(&hsm, digest()).await.expect_err(spoil);
        }
        assert!(shim.trace().since(mark).struck() >= 5, "{spoil}");
        shim.behave();
        eventually(spoil, async || row.sign_checked(&hsm, digest()).await).await;
    }
    end(&shim, hsm).await;
}

/// THREATS 12: one spoiled signature among good ones; the good ones are right.
#[tokio::test(flavor = "multi_thread")]
async fn threat_12_only_the_spoiled_signature_is_withheld() {
    let shim = Shim::new();
    let (hsm, _) = started(&shim.config()).await;
    let rows = rows(&hsm, 4).await;
    shim.order(&format!("C_Sign flip every=3 mechanism={ECDSA:#x}"));
    let (mut good, mut withheld) = (0, 0);
    for i in 0..120 {
        let (row, digest) = (&rows[i % rows.len()], digest());
        match row.sign(&hsm, digest).await {
            Ok(signature) => {
                assert_signed_by(&signature, &row.public, digest);
                good += 1;
            }
            Err(_) => withheld += 1,
        }
    }
    assert!(good >= 60, "{good} good, {withheld} withheld");
    assert!(shim.trace().struck() >= 30);
    end(&shim, hsm).await;
}
