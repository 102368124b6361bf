//! Which events a webhook hears of, and how a message is signed. Pure.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::access::input::InputError;

/// Bytes of a secret.
pub const SECRET_BYTES: usize = 32;
/// What a secret begins with when it is shown.
pub const SECRET_PREFIX: &str = "whsec_";
/// Most entries of `events`.
const EVENTS_MAX: usize = 100;
/// Longest entry.
const EVENT_CHARS_MAX: usize = 64;
/// Attempts before a message is dead.
pub const ATTEMPTS_MAX: i32 = 25;

/// Reads `events`: actions such as `transaction.final`, families such as `transaction.*`, or `*`.
///
/// # Errors
/// [`InputError`].
pub fn events(given: Vec<String>) -> Result<Vec<String>, InputError> {
    if given.is_empty() || given.len() > EVENTS_MAX {
        return Err(InputError(format!("events must have 1 to {EVENTS_MAX} entries")));
    }
    let word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let is_event = |event: &str| match event.split_once('.') {
        None => event == "*",
        Some((family, action)) => event.len() <= EVENT_CHARS_MAX && word(family) && (word(action) || action == "*"),
    };
    match given.iter().find(|event| !is_event(event)) {
        None => Ok(given),
        Some(_) => Err(InputError(
            "events: each is an action as GET /v1/audit/events names it (transaction.final), a family (transaction.*), or *"
                .to_owned(),
        )),
    }
}

/// What a human has sent to one webhook by way of trial; others do not hear of it.
pub const TEST: &str = "webhook.test";

/// The entries of `events` that an action fits.
#[must_use]
pub fn fitting(action: &str) -> Vec<String> {
    if action == TEST {
        return Vec::new();
    }
    let family = action.split_once('.').map_or(action, |(family, _)| family);
    vec![action.to_owned(), format!("{family}.*"), "*".to_owned()]
}

/// A secret as it is shown.
#[must_use]
pub fn show(secret: &[u8; SECRET_BYTES]) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(secret))
}

/// `webhook-signature` of a message: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body` (Standard Webhooks).
#[must_use]
pub fn sign(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    // Of any length: RFC 2104.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// How long to wait after so many failures: from seconds to six hours, three days in all.
#[must_use]
pub fn wait(failures: i32) -> Duration {
    let exponent = u32::try_from(failures.clamp(1, 14)).unwrap_or(1);
    Duration::from_secs((5 << exponent).min(12 * 60 * 60) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_own_example_is_signed_alike() {
        // https://github.com/standard-webhooks/standard-webhooks: the libraries' test vector.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn events_are_read_and_found() {
        for good in ["*", "transaction.*", "transaction.final", "api_key.create"] {
            assert!(events(vec![good.to_owned()]).is_ok(), "{good}");
        }
        for bad in ["", "transaction", "transaction.", ".final", "Transaction.final", "transaction.%", "a.b.c", "*.*"] {
            assert!(events(vec![bad.to_owned()]).is_err(), "{bad}");
        }
        assert!(events(vec![]).is_err());
        assert_eq!(fitting("transaction.final"), ["transaction.final", "transaction.*", "*"]);
    }

    #[test]
    fn waits_grow_and_end_after_days() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        // The last attempt has no wait behind it.
        let all: Duration = (1..ATTEMPTS_MAX).map(wait).sum();
        assert!(wait(1) <= Duration::from_secs(5) && wait(2) > wait(1) && wait(1_000) == hours(6));
        assert!(all >= hours(72) && all < hours(96), "{all:?}");
    }
}
