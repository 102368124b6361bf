//! What humans type: addresses, passwords, names, codes. Pure.

use lettre::Address;

use crate::access::input::{self, InputError};

/// Shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// Longest password, in characters.
pub const PASSWORD_CHARS_MAX: usize = 256;
/// Longest address, in characters.
const EMAIL_CHARS_MAX: usize = 320;

/// An address as a login compares it. It need not be one.
#[must_use]
pub fn login_name(text: &str) -> String {
    text.trim().to_lowercase()
}

/// An address in lower case that mail can be sent to.
///
/// # Errors
/// [`InputError`].
pub fn email(text: &str) -> Result<String, InputError> {
    let email = login_name(text);
    let usable =
        email.chars().count() <= EMAIL_CHARS_MAX && !email.chars().any(|c| c.is_whitespace() || c.is_control());
    if !usable || email.parse::<Address>().is_err() {
        return Err(InputError("email must be an email address".to_owned()));
    }
    Ok(email)
}

/// A new password: 12 to 256 characters, with an upper-case and a lower-case letter, a digit and a special character, without three
/// equal characters in a row, or three that follow each other in the alphabet or among the digits, forwards or backwards.
///
/// # Errors
/// [`InputError`] naming the rule that it breaks, and nothing of the password.
pub fn new_password(field: &str, password: &str) -> Result<(), InputError> {
    let chars: Vec<char> = password.chars().take(PASSWORD_CHARS_MAX + 1).collect();
    let any = |rule: fn(&char) -> bool| chars.iter().any(rule);
    let run = |rule: fn(char, char, char) -> bool| chars.windows(3).any(|w| rule(w[0], w[1], w[2]));
    let rules = [
        (chars.len() >= PASSWORD_CHARS_MIN, "must have at least 12 characters"),
        (chars.len() <= PASSWORD_CHARS_MAX, "must have at most 256 characters"),
        (!any(|c| c.is_control()), "must not have control characters"),
        (any(|c| c.is_uppercase()), "must have an upper-case letter"),
        (any(|c| c.is_lowercase()), "must have a lower-case letter"),
        (any(char::is_ascii_digit), "must have a digit"),
        (any(|c| !c.is_alphanumeric()), "must have a special character"),
        (!run(|a, b, c| a == b && b == c), "must not have the same character three times in a row"),
        (!run(follow_each_other), "must not have three characters in a row that follow each other, such as abc or 321"),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, rule)) => Err(InputError(format!("{field} {rule}"))),
        None => Ok(()),
    }
}

fn follow_each_other(a: char, b: char, c: char) -> bool {
    let of_a_row = |c: char| c.is_ascii_alphanumeric();
    if !(of_a_row(a) && of_a_row(b) && of_a_row(c)) {
        return false;
    }
    let [a, b, c] = [a, b, c].map(|c| i32::from(c.to_ascii_lowercase() as u8));
    (b - a == 1 && c - b == 1) || (a - b == 1 && b - c == 1)
}

/// The name to show. An empty one is none.
///
/// # Errors
/// [`InputError`].
pub fn display_name(text: Option<String>) -> Result<Option<String>, InputError> {
    text.filter(|text| !text.trim().is_empty()).map(|text| input::name("display_name", &text)).transpose()
}

/// What the organisation of somebody who signs up is called at first.
#[must_use]
pub fn organisation_name(display_name: Option<&str>, email: &str) -> String {
    let name = display_name.unwrap_or_else(|| email.split_once('@').map_or(email, |(local, _)| local));
    name.chars().take(input::NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_in_lower_case_and_can_be_written_to() {
        assert_eq!(email(" Ada@Example.COM "), Ok("ada@example.com".to_owned()));
        let long = format!("a@{}.example", "b".repeat(320));
        for text in [
            "",
            "a",
            "@",
            "a@",
            "@b",
            "a@b@c",
            "a b@c.example",
            "a@b\n.example",
            "a@b.example\r\nBcc: c@d.example",
            &long,
        ] {
            assert!(email(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_new_password_is_held_to_every_rule_and_told_which() {
        let table = [
            ("Correct-Horse-7", None),
            ("Zwölf-Zeichen-1", None),
            ("Pass word 1 Xy!", None),
            ("Ab1!Ab1!Ab1", Some("at least 12")),
            ("correct-horse-7", Some("upper-case")),
            ("CORRECT-HORSE-7", Some("lower-case")),
            ("Correct-Horse-x", Some("digit")),
            ("CorrectHorse77x", Some("special")),
            ("Correct-Horsse-777", Some("same character")),
            ("Correct-Horse-789", Some("follow each other")),
            ("Correct-Horse-210", Some("follow each other")),
            ("CorrecT-abCd-77", Some("follow each other")),
            ("Correct-Horse-7\n", Some("control")),
            ("", Some("at least 12")),
        ];
        for (password, broken) in table {
            let told = new_password("password", password).err().map(|error| error.0);
            match (broken, told) {
                (None, None) => {}
                (Some(rule), Some(told)) => {
                    assert!(told.starts_with("password must") && told.contains(rule), "{password:?}: {told}");
                    assert!(password.len() < 4 || !told.contains(password), "{told}");
                }
                (_, told) => panic!("{password:?}: {told:?}"),
            }
        }
        let most = format!("Aa1!{}", "xq".repeat(126));
        assert!(new_password("password", &most).is_ok() && new_password("password", &format!("{most}x")).is_err());
    }

    #[test]
    fn an_organisation_begins_with_a_name() {
        assert_eq!(organisation_name(None, "ada@example.com"), "ada");
        assert_eq!(organisation_name(Some("Ada"), "x@y.example"), "Ada");
        assert_eq!(display_name(Some("  ".to_owned())), Ok(None));
        assert!(display_name(Some("a\nb".to_owned())).is_err());
    }
}
