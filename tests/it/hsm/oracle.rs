//! Signature arithmetic of the tests' own, by k256's field operations, where the product uses libsecp256k1.

use alloy::primitives::{Address, U256};
use intentd::hsm::{PublicKey, Signature};
use k256::elliptic_curve::PrimeField as _;
use k256::elliptic_curve::sec1::{FromEncodedPoint as _, ToEncodedPoint as _};
use k256::{AffinePoint, EncodedPoint, ProjectivePoint, Scalar};

/// n / 2, the largest s that EIP-2 allows.
const HALF_ORDER: &str = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";

/// EIP-2.
pub fn is_low(s: &[u8; 32]) -> bool {
    U256::from_be_bytes(*s) <= U256::from_str_radix(HALF_ORDER, 16).unwrap()
}

/// Q = (s R - z G) / r, by SEC 1 section 4.1.6, with R of the given parity.
pub fn recover(signature: &Signature, digest: [u8; 32]) -> Option<Address> {
    let tag = if signature.y_parity { 3 } else { 2 };
    let r_point = EncodedPoint::from_bytes([&[tag][..], &signature.r].concat()).ok()?;
    let r_point = Option::<AffinePoint>::from(AffinePoint::from_encoded_point(&r_point))?;
    let r = Option::<Scalar>::from(Scalar::from_repr(signature.r.into()))?;
    let s = Option::<Scalar>::from(Scalar::from_repr(signature.s.into()))?;
    let z = <Scalar as k256::elliptic_curve::ops::Reduce<k256::U256>>::reduce_bytes(&digest.into());
    let inverse = Option::<Scalar>::from(r.invert())?;
    let q = (ProjectivePoint::from(r_point) * s - ProjectivePoint::GENERATOR * z) * inverse;
    let point = q.to_affine().to_encoded_point(false);
    Some(PublicKey::from_bytes(point.as_bytes().try_into().ok()?).ok()?.address())
}

/// Whether the signature is by the key with this address.
pub fn recovers(signature: &Signature, digest: [u8; 32], address: Address) -> bool {
    recover(signature, digest) == Some(address)
}
