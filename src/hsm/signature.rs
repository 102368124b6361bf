//! Signature and point arithmetic: what a module returns becomes what Ethereum takes, or nothing. Pure.
//!
//! libsecp256k1 recovers in 26 µs where k256's trial recovery takes 140 to 290 µs. Nothing here can sign.

use std::sync::LazyLock;

use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, Secp256k1, VerifyOnly};

use super::types::{PublicKey, Signature};

static CURVE: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

/// Why a module's answer is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not 64 bytes of r ‖ s with both in 1..n.
    #[error("the module returned no ECDSA signature")]
    Malformed,
    /// A signature, but not by the expected key over this digest.
    #[error("the signature is not by the expected key")]
    WrongKey,
    /// Neither a bare nor an OCTET STRING-wrapped uncompressed point on secp256k1.
    #[error("the module returned no secp256k1 point")]
    Point,
}

/// Turns r ‖ s (64 bytes, PKCS#11 §2.3.1) into a low-s signature with the parity that recovers `expect`.
///
/// # Errors
/// [`SignatureError::Malformed`], or [`SignatureError::WrongKey`] when neither parity recovers `expect`.
pub fn finish(raw: &[u8], digest: &[u8; 32], expect: &PublicKey) -> Result<Signature, SignatureError> {
    // libsecp256k1 reads zeros without complaint.
    if raw.len() != 64 || raw[..32] == [0; 32] || raw[32..] == [0; 32] {
        return Err(SignatureError::Malformed);
    }
    let mut signature = secp256k1::ecdsa::Signature::from_compact(raw).map_err(|_| SignatureError::Malformed)?;
    signature.normalize_s();
    let compact = signature.serialize_compact();
    let expect = expect.to_bytes();
    for (id, y_parity) in [(RecoveryId::Zero, false), (RecoveryId::One, true)] {
        let candidate = RecoverableSignature::from_compact(&compact, id).map_err(|_| SignatureError::Malformed)?;
        let recovered = CURVE.recover_ecdsa(Message::from_digest(*digest), &candidate);
        if recovered.is_ok_and(|key| key.serialize_uncompressed() == expect) {
            let (mut r, mut s) = ([0; 32], [0; 32]);
            r.copy_from_slice(&compact[..32]);
            s.copy_from_slice(&compact[32..]);
            return Ok(Signature { r, s, y_parity });
        }
    }
    Err(SignatureError::WrongKey)
}

/// A digest that is nobody's transaction: what a check signs, and throws away.
#[must_use]
pub fn check_digest(of: &[u8]) -> [u8; 32] {
    use sha2::{Digest as _, Sha256};
    Sha256::new().chain_update(b"intentd check v1").chain_update(of).finalize().into()
}

/// Reads CKA_EC_POINT: an OCTET STRING around the point by the standard (67 bytes), the bare point from some modules (65).
///
/// # Errors
/// [`SignatureError::Point`].
pub fn ec_point(value: &[u8]) -> Result<PublicKey, SignatureError> {
    let point: &[u8; 65] = match value {
        [0x04, 0x41, point @ ..] if value.len() == 67 => point.try_into().map_err(|_| SignatureError::Point)?,
        point => point.try_into().map_err(|_| SignatureError::Point)?,
    };
    PublicKey::from_bytes(*point).map_err(|_| SignatureError::Point)
}

/// Whether 65 bytes are an uncompressed point on the curve.
///
/// # Errors
/// [`SignatureError::Point`].
pub fn check_point(bytes: &[u8; 65]) -> Result<(), SignatureError> {
    // The length and first byte are checked too: libsecp256k1 would also take the hybrid forms 06 and 07.
    if bytes[0] != 0x04 {
        return Err(SignatureError::Point);
    }
    secp256k1::PublicKey::from_slice(bytes).map(|_| ()).map_err(|_| SignatureError::Point)
}

/// The public key of an imported scalar. The one place where k256 sees a private key; it only multiplies the generator.
///
/// # Errors
/// [`SignatureError::Malformed`] for zero and for n and above.
pub fn public_key_of(scalar: &[u8; 32]) -> Result<PublicKey, SignatureError> {
    use k256::elliptic_curve::sec1::ToEncodedPoint as _;
    let secret = k256::SecretKey::from_slice(scalar).map_err(|_| SignatureError::Malformed)?;
    let point = secret.public_key().to_encoded_point(false);
    ec_point(point.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// n, the order of the group.
    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// r and s with leading zeros occur once in 256 signatures each; they must come out as 32 bytes.
    #[test]
    fn threat_12_both_halves_of_s_give_the_same_signature() {
        // EIP-155's example: key 0x46…46, digest daf5…e53.
        let key = public_key_of(&[0x46; 32]).unwrap();
        let digest = bytes("daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53");
        let r = "28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276";
        let s = "67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83";
        let signature = finish(&bytes::<64>(&format!("{r}{s}")), &digest, &key).unwrap();
        assert_eq!(
            (hex::encode(signature.r), hex::encode(signature.s), signature.y_parity),
            (r.into(), s.into(), false)
        );
        let high = alloy::primitives::U256::from_str_radix(ORDER, 16).unwrap()
            - alloy::primitives::U256::from_be_bytes(signature.s);
        let again = finish(&[signature.r, high.to_be_bytes()].concat(), &digest, &key).unwrap();
        assert_eq!(again, signature);
    }

    #[test]
    fn a_signature_by_another_key_or_over_another_digest_is_refused() {
        let digest: [u8; 32] = bytes("daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53");
        let raw: [u8; 64] = bytes(
            "28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa63627667cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83",
        );
        let key = public_key_of(&[0x46; 32]).unwrap();
        assert_eq!(finish(&raw, &digest, &public_key_of(&[0x47; 32]).unwrap()), Err(SignatureError::WrongKey));
        assert_eq!(finish(&raw, &[1; 32], &key), Err(SignatureError::WrongKey));
        for garbage in [&raw[..63], &[0; 64][..], &[0xff; 64][..], &[][..], &[raw.as_slice(), &[0]].concat()[..]] {
            assert_eq!(finish(garbage, &digest, &key), Err(SignatureError::Malformed));
        }
    }

    #[test]
    fn threat_13_a_point_is_read_bare_or_wrapped_and_garbage_is_refused() {
        let key = public_key_of(&[7; 32]).unwrap();
        let bare = key.to_bytes();
        let wrapped = [&[0x04, 0x41][..], &bare].concat();
        assert_eq!(ec_point(&bare), Ok(key));
        assert_eq!(ec_point(&wrapped), Ok(key));
        let mut off_curve = bare;
        off_curve[64] ^= 1;
        let mut hybrid = bare;
        hybrid[0] = 0x06 | (bare[64] & 1);
        let refused: [&[u8]; 8] = [
            &[],
            &bare[..64],
            &bare[1..],
            &wrapped[..66],
            &off_curve,
            &hybrid,
            &[&[0x03, 0x41][..], &bare].concat(),
            &[0; 65],
        ];
        for value in refused {
            assert_eq!(ec_point(value), Err(SignatureError::Point), "{}", hex::encode(value));
        }
    }

    /// The point whose x starts with zero bytes, and wrapped forms whose second byte could be mistaken for a prefix.
    #[test]
    fn threat_13_points_with_leading_zeros_keep_them() {
        let found = (1u32..20_000).find_map(|n| {
            let mut scalar = [0; 32];
            scalar[28..].copy_from_slice(&n.to_be_bytes());
            let key = public_key_of(&scalar).ok()?;
            (key.to_bytes()[1] == 0 || key.to_bytes()[33] == 0).then_some(key)
        });
        let key = found.unwrap();
        assert_eq!(ec_point(&key.to_bytes()), Ok(key));
        assert_eq!(ec_point(&[&[0x04, 0x41][..], &key.to_bytes()].concat()), Ok(key));
    }

    #[test]
    fn threat_32_scalars_outside_the_group_are_refused() {
        let order: [u8; 32] = bytes(ORDER);
        let mut below = order;
        below[31] -= 1;
        for bad in [[0; 32], order, [0xff; 32]] {
            assert_eq!(public_key_of(&bad), Err(SignatureError::Malformed));
        }
        assert!(public_key_of(&below).is_ok());
        let mut one = [0; 32];
        one[31] = 1;
        assert_eq!(public_key_of(&one).unwrap().address().to_string(), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
    }

    proptest! {
        #[test]
        fn garbage_never_panics_nor_passes(raw in proptest::collection::vec(any::<u8>(), 0..80), digest in any::<[u8; 32]>()) {
            let key = public_key_of(&[7; 32]).unwrap();
            prop_assert!(finish(&raw, &digest, &key).is_err());
        }
    }
}
