//! Codes: those of an authenticator app (RFC 6238 with what every app can: HMAC-SHA-1, six digits, 30 seconds), and recovery codes.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;
use totp_rs::{Builder, Secret, Totp};
use zeroize::Zeroizing;

/// Bytes of a secret: as many as HMAC-SHA-1 gives (RFC 4226 §4).
pub const SECRET_BYTES: usize = 20;
/// How many recovery codes there are.
pub const RECOVERY_CODES: usize = 10;
/// Random bytes of one: 80 bits, so that a plain hash of it is enough.
pub const RECOVERY_BYTES: usize = 10;
/// Digits of an app's code.
const DIGITS: usize = 6;
/// Characters of a recovery code without its hyphens.
const RECOVERY_CHARS: usize = 16;
/// 32 characters that nobody mistakes for each other.
const RECOVERY_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A code as a human types it.
#[derive(PartialEq, Eq)]
pub enum Code {
    /// Of the app: six digits.
    Totp(Zeroizing<String>),
    /// A recovery code, in its plain form.
    Recovery(Zeroizing<String>),
}

impl Code {
    /// Reads one, with spaces and hyphens wherever people put them. `None`: neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Nobody types more.
        if text.len() > 64 {
            return None;
        }
        let plain = Zeroizing::new(recovery_form(text));
        if plain.len() == DIGITS && plain.bytes().all(|b| b.is_ascii_digit()) {
            Some(Self::Totp(plain))
        } else if plain.len() == RECOVERY_CHARS && plain.bytes().all(|b| RECOVERY_ALPHABET.contains(&b)) {
            Some(Self::Recovery(plain))
        } else {
            None
        }
    }
}

fn totp(secret: &[u8]) -> Option<Totp> {
    // One step before and one after: for clocks that are a little off, and people that are slow (RFC 6238 §5.2).
    Builder::new().with_secret(Secret::from(secret)).with_digits(6).with_step_duration(30).with_skew(1).build().ok()
}

/// The time step whose code this is: this one, the one before or the one after. Compared in constant time.
#[must_use]
pub fn step_of(secret: &[u8], code: &str, now: OffsetDateTime) -> Option<i64> {
    let now = u64::try_from(now.unix_timestamp()).ok()?;
    totp(secret)?.check(code, now).and_then(|step| i64::try_from(step).ok())
}

/// As people type it into an app (RFC 4648, without padding).
#[must_use]
pub fn base32(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(Secret::from(secret).to_base32())
}

/// As apps read it from a QR code (the Key URI format).
#[must_use]
pub fn otpauth_uri(secret: &str, account: &str, issuer: &str) -> Zeroizing<String> {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (account, issuer) = (encode(account), encode(issuer));
    Zeroizing::new(format!(
        "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits=6&period=30"
    ))
}

/// Recovery codes as they are shown: `xxxx-xxxx-xxxx-xxxx`. Takes [`RECOVERY_BYTES`] for each.
#[must_use]
pub fn recovery_codes(random: &[u8]) -> Vec<Zeroizing<String>> {
    let code = |bytes: &[u8]| {
        let bits = bytes.iter().fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
        let mut text = Zeroizing::new(String::with_capacity(RECOVERY_CHARS + 3));
        for at in 0..RECOVERY_CHARS {
            if at > 0 && at % 4 == 0 {
                text.push('-');
            }
            // Five bits: below 32.
            let index = (bits >> (5 * (RECOVERY_CHARS - 1 - at))) & 31;
            text.push(char::from(RECOVERY_ALPHABET[index as usize]));
        }
        text
    };
    random.chunks_exact(RECOVERY_BYTES).map(code).collect()
}

/// The plain form of a code: what is compared.
#[must_use]
pub fn recovery_form(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '-').flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B: the secret of the SHA-1 rows, and their codes less the first two of eight digits.
    const RFC_SECRET: &[u8; 20] = b"12345678901234567890";
    const RFC_CODES: [(i64, &str); 6] = [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ];

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(second).unwrap()
    }

    #[test]
    fn the_codes_are_those_of_rfc_6238() {
        for (second, code) in RFC_CODES {
            let step = second / 30;
            for (moved, fits) in [(0, true), (30, true), (-30, true), (60, false), (-60, false)] {
                let now = step * 30 + moved;
                let found = if now < 0 { None } else { step_of(RFC_SECRET, code, at(now)) };
                assert_eq!(found, (fits && now >= 0).then_some(step), "{code} at {second}{moved:+}");
            }
        }
        for code in ["", "28708", "2870822", "+28708", "２８７０８２", "28708a"] {
            assert_eq!(step_of(RFC_SECRET, code, at(59)), None, "{code}");
        }
    }

    #[test]
    fn codes_are_read_as_people_type_them() {
        let codes = recovery_codes(&[0xa5; RECOVERY_CODES * RECOVERY_BYTES]);
        assert_eq!((codes.len(), codes[0].len()), (RECOVERY_CODES, RECOVERY_CHARS + 3));
        let typed = format!(" {} ", codes[0].to_uppercase().replace('-', " "));
        assert!(Code::parse(&typed) == Some(Code::Recovery(Zeroizing::new(recovery_form(&codes[0])))));
        assert!(Code::parse("123 456") == Some(Code::Totp(Zeroizing::new("123456".to_owned()))));
        for text in [
            "",
            "12345",
            "1234567",
            "aaaa-aaaa-aaaa-aaa",
            "llll-llll-llll-llll",
            "0000-0000-0000-0000",
            &"1".repeat(100),
        ] {
            assert!(Code::parse(text).is_none(), "{text}");
        }
        assert_eq!(recovery_codes(&[0; RECOVERY_BYTES])[0].as_str(), "aaaa-aaaa-aaaa-aaaa");
        assert_eq!(recovery_codes(&[0xff; RECOVERY_BYTES])[0].as_str(), "9999-9999-9999-9999");
    }

    #[test]
    fn a_uri_is_what_apps_read() {
        let uri = otpauth_uri(&base32(RFC_SECRET), "ada@example.com", "https://x");
        assert_eq!(
            uri.as_str(),
            "otpauth://totp/https%3A%2F%2Fx:ada%40example%2Ecom?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=https%3A%2F%2Fx&algorithm=SHA1&digits=6&period=30"
        );
    }
}
