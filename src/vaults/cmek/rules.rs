//! The clients' format and keys. Pure.
//!
//! A value is base64 of `0x01 ‖ IV (12 bytes) ‖ ciphertext ‖ tag (16 bytes)`: AES-256-GCM (NIST SP 800-38D) without associated data.

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// The first byte of what a client has encrypted.
const FORMAT: u8 = 1;
const IV_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// Clients write the padding, or leave it out.
const EITHER_PADDING: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why something that was sent cannot be used. It never repeats what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// No fingerprint.
    #[error("{0} must be the SHA-256 of the key: 64 hex digits")]
    Fingerprint(&'static str),
    /// No key.
    #[error("the header {0} must be the key: base64 of 32 bytes")]
    Key(&'static str),
    /// Not the vault's.
    #[error("x-cmek-old-key is not this vault's key: its SHA-256 is not the vault's cmek_fingerprint")]
    OldKey,
    /// Not what the body says.
    #[error("x-cmek-new-key does not fit: its SHA-256 is not new_fingerprint")]
    NewKey,
    /// Nothing to do.
    #[error("the new key is the old one")]
    SameKey,
}

/// A fingerprint in its one spelling: 64 lower-case hex digits.
///
/// # Errors
/// [`InputError::Fingerprint`].
pub fn fingerprint(field: &'static str, text: &str) -> Result<String, InputError> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(InputError::Fingerprint(field))
    }
}

/// A customer's key, for as long as a rotation runs. Wiped when it is dropped; on the heap, so that moving it leaves no copy behind.
pub struct ClientKey(Box<Zeroizing<[u8; 32]>>);

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientKey(…)")
    }
}

impl ClientKey {
    /// Reads base64 of 32 bytes.
    ///
    /// # Errors
    /// [`InputError::Key`].
    pub fn parse(header: &'static str, text: &[u8]) -> Result<Self, InputError> {
        let bytes =
            EITHER_PADDING.decode(text.trim_ascii()).map(Zeroizing::new).map_err(|_| InputError::Key(header))?;
        if bytes.len() != 32 {
            return Err(InputError::Key(header));
        }
        let mut key = Box::new(Zeroizing::new([0; 32]));
        key.copy_from_slice(&bytes);
        Ok(Self(key))
    }

    /// SHA-256, in hex.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(self.0.as_slice()))
    }

    /// Whether this is the key of a fingerprint.
    #[must_use]
    pub fn is(&self, fingerprint: &str) -> bool {
        self.fingerprint().as_bytes().ct_eq(fingerprint.as_bytes()).into()
    }

    /// What a client encrypted under this key; `None`: under another one, or not at all.
    #[must_use]
    pub fn open(&self, value: &str) -> Option<Zeroizing<Vec<u8>>> {
        let blob = blob(value)?;
        let (iv, ciphertext) = blob[1..].split_at_checked(IV_LEN)?;
        let iv: [u8; IV_LEN] = iv.try_into().ok()?;
        self.cipher()?.decrypt(&Nonce::from(iv), ciphertext).map(Zeroizing::new).ok()
    }

    /// A value as a client would have encrypted it under this key. The IV must be random, and used once. `None`: it is too large.
    #[must_use]
    pub fn seal(&self, iv: [u8; IV_LEN], plaintext: &[u8]) -> Option<String> {
        let ciphertext = self.cipher()?.encrypt(&Nonce::from(iv), plaintext).ok()?;
        let mut blob = Vec::with_capacity(1 + IV_LEN + ciphertext.len());
        blob.push(FORMAT);
        blob.extend_from_slice(&iv);
        blob.extend_from_slice(&ciphertext);
        Some(STANDARD.encode(blob))
    }

    fn cipher(&self) -> Option<Aes256Gcm> {
        Aes256Gcm::new_from_slice(self.0.as_slice()).ok()
    }
}

/// The bytes of a value that has the clients' format.
fn blob(value: &str) -> Option<Vec<u8>> {
    // Of 1 as the first byte the first character is A.
    if !value.starts_with('A') {
        return None;
    }
    let blob = EITHER_PADDING.decode(value).ok()?;
    (blob.len() >= 1 + IV_LEN + TAG_LEN && blob[0] == FORMAT).then_some(blob)
}

/// Whether a client has encrypted a value, as far as its form tells. What only looks like it can say so in its metadata, with
/// `"cmek_encrypted": false`.
#[must_use]
pub fn is_encrypted(value: &str, metadata: &Value) -> bool {
    metadata.get("cmek_encrypted") != Some(&Value::Bool(false)) && blob(value).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn key(seed: u8) -> ClientKey {
        ClientKey::parse("k", STANDARD.encode([seed; 32]).as_bytes()).unwrap()
    }

    #[test]
    fn a_known_answer() {
        // AES-256-GCM, test case 14 of the GCM specification: zero key, zero IV, sixteen zero bytes.
        let value = key(0).seal([0; 12], &[0; 16]).unwrap();
        let expected = "01000000000000000000000000cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919";
        assert_eq!(hex::encode(STANDARD.decode(&value).unwrap()), expected);
        assert_eq!(key(0).fingerprint(), "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
        assert!(key(0).is(&key(0).fingerprint()) && !key(0).is(&key(1).fingerprint()));
    }

    #[test]
    fn the_form_decides_and_metadata_may_deny() {
        let value = key(1).seal([2; 12], b"").unwrap();
        let unpadded = value.trim_end_matches('=');
        for (value, metadata, encrypted) in [
            (value.as_str(), json!({}), true),
            (unpadded, json!({"cmek_encrypted": true}), true),
            (&value, json!({"cmek_encrypted": "false"}), true),
            (&value, json!({"cmek_encrypted": false}), false),
            (&STANDARD.encode([1; 28]), json!({}), false),
            (&STANDARD.encode([2; 60]), json!({}), false),
            (&format!("{value}!"), json!({}), false),
            (&format!(" {value}"), json!({}), false),
            ("", json!({}), false),
            ("A", json!({}), false),
            ("plain text", json!({}), false),
        ] {
            assert_eq!(is_encrypted(value, &metadata), encrypted, "{value} {metadata}");
        }
    }

    #[test]
    fn keys_and_fingerprints_have_one_form() {
        let long = STANDARD.encode([1; 33]);
        for text in ["", "AAAA", "!", &hex::encode([1; 32]), &long] {
            assert_eq!(ClientKey::parse("k", text.as_bytes()).err(), Some(InputError::Key("k")), "{text}");
        }
        assert_eq!(format!("{:?}", key(7)), "ClientKey(…)");
        assert_eq!(fingerprint("f", &"AB".repeat(32)), Ok("ab".repeat(32)));
        for text in [String::new(), "a".repeat(63), "a".repeat(65), "g".repeat(64), format!("0x{}", "a".repeat(62))] {
            assert_eq!(fingerprint("f", &text), Err(InputError::Fingerprint("f")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_under_its_key_alone(plain in prop::collection::vec(any::<u8>(), 0..200), iv in any::<[u8; 12]>()) {
            let value = key(3).seal(iv, &plain).unwrap();
            let encrypted = is_encrypted(&value, &Value::Null);
            prop_assert!(encrypted);
            prop_assert_eq!(key(3).open(&value).map(|opened| opened.to_vec()), Some(plain));
            prop_assert!(key(4).open(&value).is_none());
        }
    }
}
