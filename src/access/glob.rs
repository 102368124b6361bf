//! Whole-segment globs over secret paths: `*` is exactly one segment, `**` any number of them, also none.
//!
//! A star inside a segment (`keys/*-signer`) is refused: what it would match is not written down anywhere, and a pattern must
//! not grant more than its author meant.

use std::fmt;

use super::path::{PATH_CHARS_MAX, SecretPath, is_segment_byte};

/// A pattern that has been read.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    segments: Vec<Segment>,
}

#[derive(Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    One,
    Any,
}

/// Why a text is not a pattern. The text completes the sentence "secret_path_pattern …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Empty, or too long.
    #[error("must have 1 to {PATH_CHARS_MAX} characters")]
    Length,
    /// `//`, or a slash at either end.
    #[error("has an empty segment (// or a slash at either end)")]
    EmptySegment,
    /// `keys/*-signer`.
    #[error("has a star inside a segment: * stands for one whole segment, ** for any number of them")]
    PartialStar,
    /// Something that no path has.
    #[error("may have only letters, digits, - and _ in segments joined by /, and the segments * and **")]
    Character,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`GlobError`].
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() || text.len() > PATH_CHARS_MAX {
            return Err(GlobError::Length);
        }
        let segments = text.split('/').map(Segment::parse).collect::<Result<_, _>>()?;
        Ok(Self { segments })
    }

    /// Whether the pattern covers the path. Takes at most (segments of the pattern × segments of the path) steps.
    #[must_use]
    pub fn matches(&self, path: &SecretPath) -> bool {
        let path: Vec<&str> = path.segments().collect();
        let (mut at, mut next) = (0, 0);
        // Where the last `**` was, and up to which segment it has eaten: the only place to come back to.
        let mut back: Option<(usize, usize)> = None;
        while next < path.len() {
            match self.segments.get(at) {
                Some(Segment::Any) => {
                    back = Some((at, next));
                    at += 1;
                }
                Some(segment) if segment.is(path[next]) => {
                    at += 1;
                    next += 1;
                }
                _ => match back {
                    Some((any, eaten)) => {
                        back = Some((any, eaten + 1));
                        at = any + 1;
                        next = eaten + 1;
                    }
                    None => return false,
                },
            }
        }
        self.segments[at..].iter().all(|s| *s == Segment::Any)
    }
}

impl Glob {
    /// Whether this pattern certainly matches every path that `other` matches. Where that takes more than comparing segment by
    /// segment it says no. Takes at most (segments of the one × segments of the other) steps.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        // Row by row: what of the rest of `other` the rest of `self` covers.
        let width = other.segments.len() + 1;
        let mut below = vec![false; width];
        below[width - 1] = true;
        for segment in self.segments.iter().rev() {
            let mut row = vec![false; width];
            for (at, covered) in row.iter_mut().enumerate().rev() {
                // For `**`, which may end here or eat one more: filled from the right.
                *covered = match (segment, other.segments.get(at)) {
                    (Segment::Any, _) => below[at],
                    (_, None) | (_, Some(Segment::Any)) => false,
                    (Segment::One, Some(_)) => below[at + 1],
                    (literal, Some(theirs)) => literal == theirs && below[at + 1],
                };
            }
            if *segment == Segment::Any {
                for at in (0..width - 1).rev() {
                    row[at] = row[at] || row[at + 1];
                }
            }
            below = row;
        }
        below[0]
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, GlobError> {
        match text {
            "" => Err(GlobError::EmptySegment),
            "*" => Ok(Self::One),
            "**" => Ok(Self::Any),
            _ if text.contains('*') => Err(GlobError::PartialStar),
            _ if text.bytes().all(is_segment_byte) => Ok(Self::Literal(text.to_owned())),
            _ => Err(GlobError::Character),
        }
    }

    fn is(&self, segment: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == segment,
            Self::One => true,
            Self::Any => false,
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.segments.iter().enumerate() {
            let slash = if i == 0 { "" } else { "/" };
            match segment {
                Segment::Literal(literal) => write!(f, "{slash}{literal}")?,
                Segment::One => write!(f, "{slash}*")?,
                Segment::Any => write!(f, "{slash}**")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_covers_what_matches_no_more() {
        let table = [
            ("**", "**", true),
            ("**", "a/*/b", true),
            ("a/*", "a/b", true),
            ("a/*", "a/*", true),
            ("a/*", "*/b", false),
            ("a/*", "a/**", false),
            ("a/**", "a/*/b", true),
            ("a/**", "a", true),
            ("a/**", "b/**", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/**/b", true),
            ("a/**/b", "a/**", false),
            ("*", "**", false),
            ("a/b", "a/*", false),
        ];
        for (ours, theirs, expected) in table {
            let covers = Glob::parse(ours).unwrap().covers(&Glob::parse(theirs).unwrap());
            assert_eq!(covers, expected, "{ours} covers {theirs}");
        }
    }

    proptest! {
        #[test]
        fn what_is_covered_is_matched(
            ours in proptest::collection::vec(prop_oneof!["[ab]", Just("*".to_owned()), Just("**".to_owned())], 1..5),
            theirs in proptest::collection::vec(prop_oneof!["[ab]", Just("*".to_owned()), Just("**".to_owned())], 1..5),
            path in proptest::collection::vec("[abc]", 1..6),
        ) {
            let (ours, theirs) = (Glob::parse(&ours.join("/")).unwrap(), Glob::parse(&theirs.join("/")).unwrap());
            let path = SecretPath::parse(&path.join("/")).unwrap();
            if ours.covers(&theirs) && theirs.matches(&path) {
                prop_assert!(ours.matches(&path), "{ours} {theirs} {path}");
            }
        }
    }

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(&SecretPath::parse(path).unwrap())
    }

    #[test]
    fn threat_27_a_star_stays_inside_its_segment() {
        let yes = [
            ("a", "a"),
            ("a/b", "a/b"),
            ("a/*", "a/b"),
            ("*/b", "a/b"),
            ("*", "a"),
            ("**", "a"),
            ("**", "a/b/c"),
            ("db/**", "db"),
            ("db/**", "db/x"),
            ("db/**", "db/x/y"),
            ("**/x", "x"),
            ("**/x", "a/b/x"),
            ("a/**/z", "a/z"),
            ("a/**/z", "a/b/c/z"),
            ("a/**/m/**/z", "a/m/q/m/z"),
            ("**/a/*", "a/a/b"),
            ("**/**", "a"),
            ("*/**", "a"),
        ];
        for (pattern, path) in yes {
            assert!(matches(pattern, path), "{pattern} should match {path}");
        }
        let no = [
            ("a", "b"),
            ("a", "A"),
            ("a", "a/b"),
            ("a/b", "a"),
            ("api-keys/*", "api-keys/a/b"),
            ("api-keys/*", "api-keys"),
            ("*", "a/b"),
            ("*/*", "a"),
            ("db/**", "dbx"),
            ("db/**", "dbx/y"),
            ("**/x", "a/xx"),
            ("a/**/z", "a/b"),
            ("a/*/c", "a/b/d/c"),
            ("**/a/*", "a"),
        ];
        for (pattern, path) in no {
            assert!(!matches(pattern, path), "{pattern} should not match {path}");
        }
    }

    #[test]
    fn patterns_that_are_not_whole_segments_are_refused() {
        let table = [
            ("", GlobError::Length),
            ("/", GlobError::EmptySegment),
            ("/a", GlobError::EmptySegment),
            ("a/", GlobError::EmptySegment),
            ("a//b", GlobError::EmptySegment),
            ("keys/*-signer", GlobError::PartialStar),
            ("a*", GlobError::PartialStar),
            ("***", GlobError::PartialStar),
            ("a/b**", GlobError::PartialStar),
            ("..", GlobError::Character),
            ("a/./b", GlobError::Character),
            ("a%2Fb", GlobError::Character),
            ("a b", GlobError::Character),
            ("a?", GlobError::Character),
            ("[ab]", GlobError::Character),
            ("{a,b}", GlobError::Character),
            ("a\\b", GlobError::Character),
            ("vault:read", GlobError::Character),
            ("vault.read", GlobError::Character),
        ];
        for (pattern, error) in table {
            assert_eq!(Glob::parse(pattern).unwrap_err(), error, "{pattern:?}");
        }
        assert_eq!(Glob::parse(&"a".repeat(1025)).unwrap_err(), GlobError::Length);
    }

    /// The definition, without the cleverness.
    fn oracle(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => {
                oracle(rest, path) || path.split_first().is_some_and(|(_, tail)| oracle(pattern, tail))
            }
            (Some((first, rest)), Some((segment, tail))) => (*first == "*" || first == segment) && oracle(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn threat_27_agrees_with_the_definition(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "**"]), 1..6),
            path in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..7),
        ) {
            prop_assert_eq!(matches(&pattern.join("/"), &path.join("/")), oracle(&pattern, &path));
        }

        /// match(canon(p)) = match(p), however p was spelled in the URL.
        #[test]
        fn threat_27_the_spelling_of_a_path_changes_no_match(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "**"]), 1..5),
            path in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..5),
            slash in prop::sample::select(vec!["/", "%2F", "%2f"]),
        ) {
            let glob = Glob::parse(&pattern.join("/")).unwrap();
            let canonical = SecretPath::parse(&path.join("/")).unwrap();
            let spelled = SecretPath::from_wire(&path.join(slash)).unwrap();
            prop_assert_eq!(glob.matches(&spelled), glob.matches(&canonical));
        }

        #[test]
        fn a_path_is_its_own_pattern(path in "[a-z0-9]{1,4}(/[a-z0-9]{1,4}){0,4}") {
            let glob = Glob::parse(&path).unwrap();
            prop_assert!(glob.matches(&SecretPath::parse(&path).unwrap()));
            prop_assert_eq!(glob.to_string(), path);
        }
    }
}
