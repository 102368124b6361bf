//! What the rest of the program knows of a key: its context, where it lives, its public half, its signatures.

use alloy::primitives::{Address, keccak256};
use serde::{Deserialize, Serialize};

use super::error::HsmError;
use super::signature;
use crate::ids::{KekId, KeyId, OrgId};

/// What binds a key to its row: all of it is under the MAC, together with the public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyContext {
    /// The organisation that owns the key.
    pub org_id: OrgId,
    /// The key, that is one version of it.
    pub key_id: KeyId,
    /// The path under which it is known, for instance `keys/base-signer`.
    pub path: String,
    /// The version of the path.
    pub version: i32,
}

/// Where a signing key lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Custody {
    /// Made in the HSM, wrapped by its `seal` key, kept in the database, unwrapped inside the HSM to sign.
    #[default]
    Wrapped,
    /// An object on the token that can never leave it.
    Token,
}

/// How to find a signing key again: what a row keeps. Worth nothing without the HSM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "custody", rename_all = "lowercase")]
pub enum KeyRef {
    /// A wrapped key.
    Wrapped {
        /// What C_WrapKey gave.
        blob: Vec<u8>,
        /// The wrapping mechanism's number (`CKM_…`).
        mechanism: u64,
        /// The wrapping key.
        kek_id: KekId,
        /// The MAC key.
        mac_kek_id: KekId,
        /// HMAC-SHA256 over (context, where the key lives, public key).
        mac: [u8; 32],
    },
    /// A token object.
    Token {
        /// Its random CKA_ID.
        cka_id: [u8; 16],
        /// The MAC key.
        mac_kek_id: KekId,
        /// HMAC-SHA256 over (context, where the key lives, public key).
        mac: [u8; 32],
    },
}

impl KeyRef {
    /// Where the key lives.
    #[must_use]
    pub fn custody(&self) -> Custody {
        match self {
            Self::Wrapped { .. } => Custody::Wrapped,
            Self::Token { .. } => Custody::Token,
        }
    }
}

/// A point of secp256k1, uncompressed (SEC 1 §2.3.3: `04 ‖ x ‖ y`). Always on the curve.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 65]);

impl PublicKey {
    /// Reads 65 bytes of SEC 1.
    ///
    /// # Errors
    /// [`HsmError::Invalid`] unless they are an uncompressed point on the curve.
    pub fn from_bytes(bytes: [u8; 65]) -> Result<Self, HsmError> {
        signature::check_point(&bytes).map_err(|_| HsmError::Invalid { what: "not a secp256k1 public key" })?;
        Ok(Self(bytes))
    }

    /// The 65 bytes of SEC 1.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 65] {
        self.0
    }

    /// The Ethereum address: the last 20 bytes of Keccak-256 over x ‖ y.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::from_slice(&keccak256(&self.0[1..])[12..])
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", self.address())
    }
}

/// An ECDSA signature with s ≤ n/2 that was recovered to the expected key before it left this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Big-endian, padded to 32 bytes.
    pub r: [u8; 32],
    /// Big-endian, padded to 32 bytes, at most half the group order (EIP-2).
    pub s: [u8; 32],
    /// Whether R's y is odd (EIP-1559's `y_parity`, EIP-155's v less its offset).
    pub y_parity: bool,
}

/// A data-encryption key, sealed in the HSM by the `data` key (AES-256-GCM).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedDek {
    /// The `data` key that sealed it.
    pub kek_id: KekId,
    /// The nonce as the module left it.
    pub iv: [u8; 12],
    /// 32 bytes and the 16-byte tag.
    pub ciphertext: Vec<u8>,
}

/// A sealed secret body: its own DEK, and the body under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The key of the body.
    pub dek: SealedDek,
    /// The nonce of the body.
    pub nonce: [u8; 12],
    /// The body and its 16-byte tag.
    pub ciphertext: Vec<u8>,
}
