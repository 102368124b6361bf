//! Client certificates, by which agents without a key are known. Pure.
//!
//! An agent's certificate is pinned by its SHA-256 fingerprint, so nobody has to vouch for it: it may be self-signed. What counts is
//! that the other end proved to hold its key, in the TLS handshake with us or with a proxy that we trust to say so.

use std::fmt;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_cert::Certificate as X509;
use x509_cert::der::Decode as _;

/// Longest text of a certificate in a header, in characters.
const PEM_CHARS_MAX: usize = 32 * 1024;

/// The SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Reads 64 hex digits in either case, with or without colons between the bytes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut bytes = [0; 32];
        if text.len() == 64 {
            hex::decode_to_slice(text, &mut bytes).ok()?;
        } else {
            let mut parts = text.split(':');
            for byte in &mut bytes {
                let part = parts.next().filter(|part| part.len() == 2)?;
                hex::decode_to_slice(part, std::slice::from_mut(byte)).ok()?;
            }
            if parts.next().is_some() {
                return None;
            }
        }
        Some(Self(bytes))
    }

    /// Of a certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

/// 64 hex digits in lower case: as it is stored and shown.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A certificate whose holder is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Which.
    pub fingerprint: Fingerprint,
    /// From when until when it is valid, both included; `None` when a proxy told the fingerprint only, and looks at the times itself.
    pub validity: Option<(OffsetDateTime, OffsetDateTime)>,
}

impl Certificate {
    /// From DER (RFC 5280). `None`: not a certificate.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let validity = X509::from_der(der).ok()?.tbs_certificate.validity;
        let time = |at: Duration| OffsetDateTime::from_unix_timestamp(i64::try_from(at.as_secs()).ok()?).ok();
        let not_before = time(validity.not_before.to_unix_duration())?;
        let not_after = time(validity.not_after.to_unix_duration())?;
        Some(Self { fingerprint: Fingerprint::of(der), validity: Some((not_before, not_after)) })
    }

    /// From one certificate in PEM, percent-encoded as it has to be in a header. `None`: not one certificate.
    #[must_use]
    pub fn from_escaped_pem(text: &str) -> Option<Self> {
        if text.len() > PEM_CHARS_MAX {
            return None;
        }
        let pem: Vec<u8> = percent_encoding::percent_decode_str(text).collect();
        let mut found = CertificateDer::pem_slice_iter(&pem);
        match (found.next(), found.next()) {
            (Some(Ok(der)), None) => Self::from_der(&der),
            _ => None,
        }
    }

    /// Whether it is valid at this time.
    #[must_use]
    pub fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        self.validity.is_none_or(|(from, until)| from <= now && now <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use time::macros::datetime;

    fn made() -> rcgen::Certificate {
        let mut params = rcgen::CertificateParams::new(vec!["agent.example".to_owned()]).unwrap();
        params.not_before = datetime!(2026-01-01 00:00 UTC);
        params.not_after = datetime!(2026-12-31 23:59:59 UTC);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_fingerprint_is_the_same_however_it_is_written() {
        let bytes: Vec<u8> = (0..32).map(|n| n * 8).collect();
        let plain = hex::encode(&bytes);
        let colons = bytes.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":");
        for text in [&plain, &plain.to_uppercase(), &colons, &colons.to_lowercase(), &format!(" {plain} ")] {
            assert_eq!(Fingerprint::parse(text).unwrap().to_string(), plain, "{text}");
        }
        let sha1 = "a".repeat(40);
        for text in [
            "",
            &plain[1..],
            &format!("{plain}00"),
            &format!("{}zz", &plain[2..]),
            &colons[..92],
            &format!("{colons}:"),
            &format!("{colons}:00"),
            &colons.replacen(':', "", 1),
            &colons.replace(':', "::"),
            &sha1,
            &format!("sha256:{plain}"),
        ] {
            assert_eq!(Fingerprint::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_certificate_is_hashed_and_has_its_times() {
        let made = made();
        let read = Certificate::from_der(made.der()).unwrap();
        assert_eq!(read.fingerprint, Fingerprint::of(made.der()));
        for (at, valid) in [
            (datetime!(2025-12-31 23:59:59 UTC), false),
            (datetime!(2026-01-01 00:00:00 UTC), true),
            (datetime!(2026-12-31 23:59:59 UTC), true),
            (datetime!(2027-01-01 00:00:00 UTC), false),
        ] {
            assert_eq!(read.is_valid_at(at), valid, "{at}");
        }
        let escaped = utf8_percent_encode(&made.pem(), NON_ALPHANUMERIC).to_string();
        assert_eq!(Certificate::from_escaped_pem(&escaped), Some(read));
        let two = format!("{escaped}{escaped}");
        for text in ["", "-----BEGIN", &escaped[..escaped.len() / 2], &two, &"A".repeat(PEM_CHARS_MAX + 1)] {
            assert_eq!(Certificate::from_escaped_pem(text), None);
        }
        assert_eq!(Certificate::from_der(b"no certificate"), None);
    }
}
