//! Secret paths.
//!
//! Clients send `a/b` and `a%2Fb` for the same secret, so a path is percent-decoded exactly once; whatever could be decoded again,
//! or mean another path to another reader, is refused. What remains is one spelling per path.

use std::fmt;

use uuid::Uuid;

use crate::ids::AgentId;

/// Longest path in characters.
pub const PATH_CHARS_MAX: usize = 1024;

/// A path in its only spelling: segments of `[A-Za-z0-9_-]` joined by `/`, beginning and ending with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretPath(String);

/// Why a text is not a secret path. The text completes the sentence "the secret path …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// More than [`PATH_CHARS_MAX`] characters.
    #[error("is longer than {PATH_CHARS_MAX} characters")]
    TooLong,
    /// A broken percent escape, or one that does not decode to UTF-8.
    #[error("has a percent escape that does not decode")]
    Escape,
    /// Encoded twice.
    #[error("still has a % after decoding once: it was encoded twice")]
    EncodedTwice,
    /// `//`, or a slash at either end.
    #[error("has an empty segment (// or a slash at either end)")]
    EmptySegment,
    /// Anything outside the grammar, dots among them.
    #[error(
        "may have only letters, digits, - and _ in segments joined by /, and must begin and end with a letter or digit"
    )]
    Character,
}

impl SecretPath {
    /// Reads a path as it stands in a URL: decodes it once, then as [`SecretPath::parse`].
    ///
    /// # Errors
    /// [`PathError`].
    pub fn from_wire(raw: &str) -> Result<Self, PathError> {
        let mut rest = raw.as_bytes();
        while let Some(at) = rest.iter().position(|b| *b == b'%') {
            let escape = rest.get(at + 1..at + 3).ok_or(PathError::Escape)?;
            if !escape.iter().all(u8::is_ascii_hexdigit) {
                return Err(PathError::Escape);
            }
            rest = &rest[at + 3..];
        }
        let decoded = percent_encoding::percent_decode_str(raw).decode_utf8().map_err(|_| PathError::Escape)?;
        Self::parse(&decoded)
    }

    /// Reads a path that needs no decoding.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > PATH_CHARS_MAX {
            return Err(PathError::TooLong);
        }
        if text.contains('%') {
            return Err(PathError::EncodedTwice);
        }
        if text.split('/').any(str::is_empty) {
            return Err(PathError::EmptySegment);
        }
        let bytes = text.as_bytes();
        let ends = [bytes.first(), bytes.last()].into_iter().flatten().all(u8::is_ascii_alphanumeric);
        if !ends || !bytes.iter().all(|b| *b == b'/' || is_segment_byte(*b)) {
            return Err(PathError::Character);
        }
        Ok(Self(text.to_owned()))
    }

    /// The one spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, of which there is at least one and none is empty.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether it lies below `agents/`, and not below `agents/{agent}/`.
    #[must_use]
    pub fn is_anothers(&self, agent: AgentId) -> bool {
        let mut segments = self.segments();
        segments.next() == Some("agents") && segments.next().is_none_or(|id| id != agent.to_string())
    }

    /// Whether signing keys live here: `keys/…`, `wallets/…`, `agents/{id}/keys/…` or `agents/{id}/chains/{chain}/private_key`.
    #[must_use]
    pub fn is_signing_path(&self) -> bool {
        let segments: Vec<&str> = self.segments().collect();
        match segments.as_slice() {
            ["keys" | "wallets", _, ..] => true,
            ["agents", id, "keys", _, ..] | ["agents", id, "chains", _, "private_key"] => Uuid::parse_str(id).is_ok(),
            _ => false,
        }
    }
}

/// What a segment is made of.
pub(super) fn is_segment_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn threat_27_raw_and_encoded_slashes_are_the_same_path() {
        for raw in ["a/b", "a%2Fb", "a%2fb", "%61/b", "%61%2F%62"] {
            assert_eq!(SecretPath::from_wire(raw).unwrap().as_str(), "a/b", "{raw}");
        }
    }

    #[test]
    fn threat_27_ordinary_paths_are_taken() {
        for raw in ["a", "9", "keys/base-signer", "a_b/c-d/E9", "x/_y", "x/-y", "agents/1/ssh/private_key"] {
            assert!(SecretPath::from_wire(raw).is_ok(), "{raw}");
        }
        assert!(SecretPath::parse(&"a".repeat(PATH_CHARS_MAX)).is_ok());
    }

    #[test]
    fn threat_27_hostile_paths_are_refused() {
        let hostile = [
            "",
            "/",
            "//",
            "/a",
            "a/",
            "a//b",
            "a///b",
            "%2F",
            "%2Fa",
            "a%2F",
            "a%2F%2Fb",
            "a/%2Fb",
            ".",
            "..",
            "./a",
            "../a",
            "a/.",
            "a/..",
            "a/./b",
            "a/../b",
            "%2e",
            "%2e%2e",
            "%2e%2e/a",
            "a/%2e%2e/b",
            "a%2F..%2Fb",
            "a/.%2e/b",
            "..%2fa",
            "..;/a",
            "a/...",
            "%252f",
            "a%252fb",
            "%252e%252e",
            "a%252e%252e%252fb",
            "%25",
            "%2525",
            "a%25",
            "%",
            "a%",
            "a%2",
            "a%zz",
            "%g0",
            "a%-1",
            "a\\b",
            "a%5Cb",
            "..\\a",
            "a%5c..%5cb",
            "a\0b",
            "a%00b",
            "a%00",
            "%00",
            "a\nb",
            "a%0ab",
            "a%0d",
            "a\tb",
            "a%09b",
            "a%7fb",
            "a b",
            "a%20b",
            "a+b",
            " a",
            "a ",
            "a.b",
            "a.json",
            "-a",
            "_a",
            "a-",
            "a_",
            "a/b-",
            "~a",
            "a:b",
            "a*b",
            "*",
            "**",
            "a/*",
            "a?b",
            "a#b",
            "a%3Fb",
            "a%23b",
            "é",
            "%c3%a9",
            "%ff",
            "a%c0%afb",
            "%c0%ae%c0%ae",
            "a／b",
            "a%ef%bc%8fb",
            "a%e2%81%84b",
            "a%u002fb",
            "a;b",
            "a'b",
            "a\"b",
            "$a",
            "a@b",
            "a&b=c",
            "{a}",
            "a|b",
        ];
        for raw in hostile {
            assert!(SecretPath::from_wire(raw).is_err(), "{raw:?} was accepted");
        }
        assert_eq!(SecretPath::parse(&"a".repeat(PATH_CHARS_MAX + 1)), Err(PathError::TooLong));
        assert_eq!(SecretPath::from_wire("a%252fb"), Err(PathError::EncodedTwice));
    }

    #[test]
    fn signing_paths() {
        let id = "6f1a8e5e-6a9e-4a27-8d62-0d9bb3f4d7f1";
        for path in ["keys/base-signer", "wallets/main", "keys/a/b", &format!("agents/{id}/keys/x")] {
            assert!(SecretPath::parse(path).unwrap().is_signing_path(), "{path}");
        }
        for path in [
            "keys",
            "wallets",
            "api-keys/x",
            "a/keys/x",
            "Keys/x",
            "agents/x/keys/y",
            &format!("agents/{id}/ssh/private_key"),
        ] {
            assert!(!SecretPath::parse(path).unwrap().is_signing_path(), "{path}");
        }
    }

    /// Each character as itself, or as a percent escape.
    fn respell(path: &str, how: &[bool]) -> String {
        path.bytes()
            .zip(how.iter().cycle())
            .map(|(b, escape)| if *escape { format!("%{b:02x}") } else { char::from(b).to_string() })
            .collect()
    }

    proptest! {
        #[test]
        fn threat_27_every_spelling_of_a_path_is_that_path(path in "[a-z0-9]{1,4}(/[a-z0-9]{1,4}){0,4}", how in prop::collection::vec(any::<bool>(), 1..9)) {
            let read = SecretPath::from_wire(&respell(&path, &how)).unwrap();
            prop_assert_eq!(read.as_str(), path);
        }

        #[test]
        fn threat_27_reading_a_path_again_changes_nothing(raw in "[a-b/.%2fF5e\\\\]{0,12}") {
            if let Ok(path) = SecretPath::from_wire(&raw) {
                let (again, parsed) = (SecretPath::from_wire(path.as_str()), SecretPath::parse(path.as_str()));
                prop_assert_eq!(again.as_ref(), Ok(&path));
                prop_assert_eq!(parsed.as_ref(), Ok(&path));
                prop_assert!(path.segments().all(|s| !s.is_empty() && s != "." && s != ".."));
            }
        }
    }
}
