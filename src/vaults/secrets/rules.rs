//! Types of secrets, what counts as a signing key, the gate in front of keys, and the bounds of what is stored. Pure.

use std::time::Duration;

use alloy::primitives::Address;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::access::SecretPath;

/// Characters of a private key in hex.
const SCALAR_HEX_CHARS: usize = 64;

/// What a secret is. The union of what clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretType {
    /// The default.
    Generic,
    /// An API key.
    ApiKey,
    /// A password.
    Password,
    /// A private key: of an account, or any other.
    PrivateKey,
    /// A certificate.
    Certificate,
    /// A file.
    File,
    /// A note.
    Note,
    /// An SSH key.
    SshKey,
    /// A bundle of environment variables.
    EnvBundle,
    /// One environment variable.
    Env,
}

impl SecretType {
    const ALL: [Self; 10] = [
        Self::Generic,
        Self::ApiKey,
        Self::Password,
        Self::PrivateKey,
        Self::Certificate,
        Self::File,
        Self::Note,
        Self::SshKey,
        Self::EnvBundle,
        Self::Env,
    ];

    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::ApiKey => "api_key",
            Self::Password => "password",
            Self::PrivateKey => "private_key",
            Self::Certificate => "certificate",
            Self::File => "file",
            Self::Note => "note",
            Self::SshKey => "ssh_key",
            Self::EnvBundle => "env_bundle",
            Self::Env => "env",
        }
    }

    /// Reads one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether agents that send intents may never read it.
    #[must_use]
    pub fn is_key(self) -> bool {
        matches!(self, Self::PrivateKey | Self::SshKey)
    }
}

/// Why a rule about keys says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An agent with the Intents API reads no keys (403).
    #[error(
        "Insufficient permissions: an agent with the Intents API may not read keys; it sends intents, which are signed in the HSM"
    )]
    KeyRead,
    /// … and replaces or deletes none (403).
    #[error("Insufficient permissions: an agent with the Intents API may not replace or delete keys")]
    KeyReplace,
    /// The plaintext was not kept (403).
    #[error("the key of {0} is held in the HSM and cannot be read: send intents to sign with it")]
    KeyHeldInHsm(Address),
    /// Only humans keep a readable copy of a signing key (403).
    #[error("Insufficient permissions: only a human may store a signing key with metadata.exportable = true")]
    Exportable,
    /// Hex, at a signing path, and no key (400).
    #[error("a signing key must be 64 hex digits (32 bytes), with or without 0x")]
    KeyLength,
    /// Zero, or the group order and above (422).
    #[error("not a secp256k1 private key: it must be from 1 to the group order less 1")]
    KeyRange,
}

/// What a value is to become.
pub enum Content {
    /// An ordinary secret.
    Body,
    /// A signing key, which goes into the HSM.
    Key {
        /// The private scalar, in range.
        scalar: Zeroizing<[u8; 32]>,
        /// Whether a human asked for a readable copy.
        exportable: bool,
    },
}

impl Content {
    /// Whether the value itself is kept, sealed.
    #[must_use]
    pub fn keeps_body(&self) -> bool {
        matches!(self, Self::Body | Self::Key { exportable: true, .. })
    }

    /// The private scalar of a signing key.
    #[must_use]
    pub fn scalar(&self) -> Option<Zeroizing<[u8; 32]>> {
        match self {
            Self::Body => None,
            Self::Key { scalar, .. } => Some(scalar.clone()),
        }
    }
}

/// Tells signing keys from other secrets: type `private_key`, at a signing path, in hex. Anything else of that type (PEM, RSA …) is an ordinary secret.
///
/// # Errors
/// [`Refusal`] for what can only be a damaged signing key.
pub fn content(
    path: &SecretPath,
    kind: SecretType,
    value: &str,
    metadata: &Value,
    human: bool,
) -> Result<Content, Refusal> {
    if kind != SecretType::PrivateKey || !path.is_signing_path() {
        return Ok(Content::Body);
    }
    let text = value.trim();
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Content::Body);
    }
    if digits.len() != SCALAR_HEX_CHARS {
        return Err(Refusal::KeyLength);
    }
    let mut scalar = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, scalar.as_mut_slice()).map_err(|_| Refusal::KeyLength)?;
    if !in_range(&scalar) {
        return Err(Refusal::KeyRange);
    }
    let exportable = metadata.get("exportable") == Some(&Value::Bool(true));
    if exportable && !human {
        return Err(Refusal::Exportable);
    }
    Ok(Content::Key { scalar, exportable })
}

/// Whether it is from 1 to n − 1, n being the order of secp256k1 (SEC 2 §2.4.1).
fn in_range(scalar: &[u8; 32]) -> bool {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae,
        0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
    ];
    *scalar != [0; 32] && *scalar < ORDER
}

/// The gate in front of keys: an agent whose intents flag is on reads no secret that ever was a key, and nothing at a signing path.
///
/// # Errors
/// [`Refusal::KeyRead`].
pub fn may_read(intents_agent: bool, path: &SecretPath, was_key_type: bool) -> Result<(), Refusal> {
    if intents_agent && (was_key_type || path.is_signing_path()) { Err(Refusal::KeyRead) } else { Ok(()) }
}

/// Such an agent neither replaces nor deletes one. `existing` tells, for a secret that is there (or was), whether it ever was a key.
///
/// # Errors
/// [`Refusal::KeyReplace`].
pub fn may_replace(intents_agent: bool, path: &SecretPath, existing: Option<bool>) -> Result<(), Refusal> {
    match existing {
        Some(was_key_type) if intents_agent && (was_key_type || path.is_signing_path()) => Err(Refusal::KeyReplace),
        _ => Ok(()),
    }
}

/// Largest `metadata`, in bytes of JSON: a list carries that of every secret.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Largest `rotation_policy`, in bytes of JSON.
pub const ROTATION_POLICY_BYTES_MAX: usize = 4 * 1024;
/// Longest time ahead that a list can be asked for.
const WITHIN_S_MAX: u64 = 10 * 366 * 86_400;

/// Whether an object of the client's is small enough to keep.
#[must_use]
pub fn fits(object: &Value, bytes_max: usize) -> bool {
    // Counted without building the text.
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, object).is_ok() && count.0 <= bytes_max
}

/// A span of time as `expiring_within` has it: seconds, or a whole number with `s`, `m`, `h`, `d` or `w`. At most ten years.
#[must_use]
pub fn within(text: &str) -> Option<Duration> {
    let (digits, unit_s) = match text.char_indices().next_back()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3_600),
        (at, 'd') => (&text[..at], 86_400),
        (at, 'w') => (&text[..at], 7 * 86_400),
        _ => (text, 1),
    };
    if digits.is_empty() || digits.len() > 10 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds = digits.parse::<u64>().ok()?.checked_mul(unit_s)?;
    (1..=WITHIN_S_MAX).contains(&seconds).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ONE: &str = "0000000000000000000000000000000000000000000000000000000000000001";
    /// n − 1 and n.
    const LAST: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140";
    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

    fn path(text: &str) -> SecretPath {
        SecretPath::parse(text).unwrap()
    }

    fn read(at: &str, kind: SecretType, value: &str) -> Result<Content, Refusal> {
        content(&path(at), kind, value, &json!({}), true)
    }

    #[test]
    fn threat_32_only_a_scalar_of_the_curve_becomes_a_signing_key() {
        let prefixed = format!("0x{LAST}");
        let upper = LAST.to_uppercase();
        let line = format!("{ONE}\n");
        for value in [ONE, LAST, &prefixed, &upper, &line] {
            let content = read("keys/base-signer", SecretType::PrivateKey, value).unwrap();
            assert!(content.scalar().is_some() && !content.keeps_body(), "{value}");
        }
        for value in ["0".repeat(64), ORDER.to_owned(), "f".repeat(64), format!("0x{ORDER}")] {
            let refused = read("keys/base-signer", SecretType::PrivateKey, &value).err();
            assert_eq!(refused, Some(Refusal::KeyRange), "{value}");
        }
        for value in [&ONE[1..], &format!("0{ONE}"), "0x1", "deadbeef"] {
            let refused = read("keys/base-signer", SecretType::PrivateKey, value).err();
            assert_eq!(refused, Some(Refusal::KeyLength), "{value}");
        }
    }

    #[test]
    fn other_secrets_stay_secrets() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----";
        let table = [
            ("keys/base-signer", SecretType::PrivateKey, pem),
            ("keys/base-signer", SecretType::Generic, ONE),
            ("keys/base-signer", SecretType::SshKey, ONE),
            ("api/x", SecretType::PrivateKey, ONE),
            ("keys", SecretType::PrivateKey, ONE),
            ("keys/x", SecretType::PrivateKey, ""),
            ("keys/x", SecretType::PrivateKey, "0x"),
        ];
        for (at, kind, value) in table {
            let content = read(at, kind, value).unwrap();
            assert!(content.scalar().is_none() && content.keeps_body(), "{at} {kind:?} {value}");
        }
    }

    #[test]
    fn a_readable_copy_is_for_humans_to_ask_for() {
        let (at, exportable) = (path("wallets/main"), json!({"exportable": true}));
        let kept = |metadata: &Value, human| {
            content(&at, SecretType::PrivateKey, ONE, metadata, human).map(|content| content.keeps_body())
        };
        assert_eq!(kept(&exportable, true), Ok(true));
        assert_eq!(kept(&exportable, false), Err(Refusal::Exportable));
        assert_eq!(kept(&json!({"exportable": "true"}), true), Ok(false));
        assert_eq!(kept(&json!({}), false), Ok(false));
    }

    #[test]
    fn the_gate_looks_at_history_and_path() {
        for (intents, at, was_key, open) in [
            (false, "keys/a", true, true),
            (true, "api/a", false, true),
            (true, "api/a", true, false),
            (true, "keys/a", false, false),
            (true, "wallets/a", false, false),
        ] {
            assert_eq!(may_read(intents, &path(at), was_key).is_ok(), open, "{intents} {at} {was_key}");
            assert_eq!(may_replace(intents, &path(at), Some(was_key)).is_ok(), open, "{intents} {at} {was_key}");
            assert_eq!(may_replace(intents, &path(at), None), Ok(()), "a new path");
        }
    }

    #[test]
    fn every_type_reads_as_it_is_written() {
        for kind in SecretType::ALL {
            assert_eq!(SecretType::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(SecretType::parse("admin"), None);
    }

    #[test]
    fn spans_of_time_are_whole_numbers_with_a_unit() {
        for (text, seconds) in
            [("1", 1), ("3600", 3600), ("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("2w", 1_209_600)]
        {
            assert_eq!(within(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "0", "0d", "d", "-1", "+1", "1.5d", "1e3", " 1", "7 d", "7D", "99999d", "18446744073709551615w", "٣"]
        {
            assert_eq!(within(text), None, "{text}");
        }
    }

    #[test]
    fn an_object_is_measured_as_it_is_written() {
        let object = json!({"a": "é"});
        assert!(fits(&object, 10) && !fits(&object, 9), "{}", object.to_string().len());
    }
}
