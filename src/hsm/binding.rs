//! What the MAC of a stored key covers: one canonical, length-prefixed encoding. Pure.

use sha2::{Digest as _, Sha256};

use super::types::{KeyContext, KeyRef, PublicKey};

const DOMAIN: &[u8] = b"intentd signing key v1";

/// The MAC's message: context, where the key lives (KEK, mechanism and blob, or CKA_ID), MAC key, public key. Every field is
/// preceded by its length as 8 bytes big-endian, so no two different tuples have one encoding.
pub(super) fn message(ctx: &KeyContext, key: &KeyRef, public: &PublicKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut field = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        out.extend_from_slice(bytes);
    };
    field(DOMAIN);
    field(ctx.org_id.0.as_bytes());
    field(ctx.key_id.0.as_bytes());
    field(ctx.path.as_bytes());
    field(&ctx.version.to_be_bytes());
    match key {
        KeyRef::Wrapped { blob, mechanism, kek_id, mac_kek_id, mac: _ } => {
            field(b"wrapped");
            field(mac_kek_id.0.as_bytes());
            field(kek_id.0.as_bytes());
            field(&mechanism.to_be_bytes());
            field(blob);
        }
        KeyRef::Token { cka_id, mac_kek_id, mac: _ } => {
            field(b"token");
            field(mac_kek_id.0.as_bytes());
            field(cka_id);
        }
    }
    field(&public.to_bytes());
    out
}

/// The stored MAC.
pub(super) fn mac(key: &KeyRef) -> &[u8; 32] {
    match key {
        KeyRef::Wrapped { mac, .. } | KeyRef::Token { mac, .. } => mac,
    }
}

/// What names a verified tuple in the cache: a hash over the message and its MAC. A hit means that exactly this tuple was verified.
pub(super) fn fingerprint(message: &[u8], mac: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(message).chain_update(mac).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsm::signature::public_key_of;
    use crate::ids::{KekId, KeyId, OrgId};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn wrapped(blob: &[u8]) -> KeyRef {
        let id = KekId(Uuid::from_bytes([3; 16]));
        KeyRef::Wrapped { blob: blob.into(), mechanism: 0x2109, kek_id: id, mac_kek_id: id, mac: [0; 32] }
    }

    fn context(path: &str) -> KeyContext {
        let (org_id, key_id) = (OrgId(Uuid::from_bytes([1; 16])), KeyId(Uuid::from_bytes([2; 16])));
        KeyContext { org_id, key_id, path: path.into(), version: 1 }
    }

    #[test]
    fn every_field_changes_the_message() {
        let (a, b) = (public_key_of(&[7; 32]).unwrap(), public_key_of(&[8; 32]).unwrap());
        let id = |n| Uuid::from_bytes([n; 16]);
        let base = context("keys/a");
        let key = |blob: &[u8], mechanism, kek, mac_kek| KeyRef::Wrapped {
            blob: blob.into(),
            mechanism,
            kek_id: KekId(id(kek)),
            mac_kek_id: KekId(id(mac_kek)),
            mac: [0; 32],
        };
        let messages = [
            message(&base, &key(b"x", 1, 1, 2), &a),
            message(&KeyContext { org_id: OrgId(id(9)), ..base.clone() }, &key(b"x", 1, 1, 2), &a),
            message(&KeyContext { key_id: KeyId(id(9)), ..base.clone() }, &key(b"x", 1, 1, 2), &a),
            message(&KeyContext { path: "keys/b".into(), ..base.clone() }, &key(b"x", 1, 1, 2), &a),
            message(&KeyContext { version: 2, ..base.clone() }, &key(b"x", 1, 1, 2), &a),
            message(&base, &key(b"y", 1, 1, 2), &a),
            message(&base, &key(b"x", 2, 1, 2), &a),
            message(&base, &key(b"x", 1, 3, 2), &a),
            message(&base, &key(b"x", 1, 1, 3), &a),
            message(&base, &key(b"x", 1, 1, 2), &b),
            message(&base, &KeyRef::Token { cka_id: [1; 16], mac_kek_id: KekId(id(2)), mac: [0; 32] }, &a),
        ];
        let distinct: std::collections::HashSet<_> = messages.iter().collect();
        assert_eq!(distinct.len(), messages.len());
    }

    proptest! {
        /// Bytes cannot move from one field into the next.
        #[test]
        fn no_two_splits_of_the_same_bytes_are_equal(bytes in "[a-z]{1,40}", cut in 0usize..40, other in 0usize..40) {
            let (cut, other) = (cut.min(bytes.len()), other.min(bytes.len()));
            let public = public_key_of(&[7; 32]).unwrap();
            let encode = |at: usize| message(&context(&bytes[..at]), &wrapped(&bytes.as_bytes()[at..]), &public);
            prop_assert_eq!(encode(cut) == encode(other), cut == other);
        }
    }
}
