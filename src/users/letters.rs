//! What humans are written. Plain text, short, and never more than one secret in one letter.

use std::net::IpAddr;

use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::once::OneTime;
use crate::mail::Letter;

/// How long a letter that only tells something is worth sending.
const NEWS: Duration = Duration::days(3);

/// What a letter is about.
#[derive(Debug)]
pub enum Subject<'a> {
    /// Prove this address to make an account.
    VerifyEmail(&'a OneTime),
    /// Somebody, the reader perhaps, signed up with an address that has an account.
    AlreadyRegistered,
    /// Choose a new password.
    ResetPassword(&'a OneTime),
    /// The password was changed.
    PasswordChanged,
    /// A second factor is asked for from now on.
    SecondFactorOn,
    /// It no longer is.
    SecondFactorOff,
    /// A recovery code stood in for the second factor.
    RecoveryCodeUsed {
        /// How many are left.
        left: i64,
    },
    /// The account is gone.
    AccountDeleted,
}

/// What a letter says of its occasion.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// What links begin with.
    pub url: &'a str,
    /// From which address it was asked for.
    pub peer: Option<IpAddr>,
    /// When.
    pub now: OffsetDateTime,
}

/// Composes a letter. `ends` is when the link in it ends.
#[must_use]
pub fn compose(recipient: &str, subject: &Subject<'_>, occasion: Occasion<'_>, ends: Option<OffsetDateTime>) -> Letter {
    let Occasion { url, peer, now } = occasion;
    let from = peer.map_or_else(String::new, |ip| format!(" from {ip}"));
    let at = crate::clock::rfc3339(now.replace_nanosecond(0).unwrap_or(now));
    let asked = format!("This was asked for at {at}{from}.");
    let done = format!("This was done at {at}{from}.");
    let unasked = "If it was not you, change your password now, and look at your API keys and the audit trail.";
    let link = |page: &str, token: &OneTime| format!("{url}/{page}#{}", token.reveal());
    let (kind, title, text) = match subject {
        Subject::VerifyEmail(token) => (
            "verify_email",
            "Confirm your email address",
            format!(
                "Open this link within 24 hours to confirm your address and make your account:\n\n{}\n\nor send its code yourself:\n\n\
                 curl -sS {url}/v1/auth/verify-email -d '{{\"token\":\"{}\"}}'\n\n{asked}\nIf it was not you who asked, do nothing: \
                 the account would have a password that somebody else chose.",
                link("verify-email", token),
                token.reveal()
            ),
        ),
        Subject::AlreadyRegistered => (
            "already_registered",
            "You have an account already",
            format!(
                "Somebody signed up with this address, which has an account already. Nothing was changed: log in as ever, or ask for a \
                 new password:\n\ncurl -sS {url}/v1/auth/forgot-password -d '{{\"email\":\"{recipient}\"}}'\n\n{asked}\nIf it was not \
                 you, there is nothing to do."
            ),
        ),
        Subject::ResetPassword(token) => (
            "reset_password",
            "Choose a new password",
            format!(
                "Open this link within an hour to choose a new password:\n\n{}\n\nor send its code yourself, with the password in \
                 NEW_PASSWORD:\n\ncurl -sS {url}/v1/auth/reset-password -d \
                 \"{{\\\"token\\\":\\\"{}\\\",\\\"new_password\\\":\\\"$NEW_PASSWORD\\\"}}\"\n\n{asked}\nIf it was not you, do nothing: \
                 your password stays as it is.",
                link("reset-password", token),
                token.reveal()
            ),
        ),
        Subject::PasswordChanged => (
            "password_changed",
            "Your password was changed",
            format!(
                "{done} Whoever was logged in with the old password is logged out. Your API keys still hold: revoke them if \
                     you want them to end.\n\n{unasked}"
            ),
        ),
        Subject::SecondFactorOn => (
            "second_factor_on",
            "Two-factor authentication is on",
            format!(
                "{done} From now on a login needs a code of your authenticator app, or one of your recovery codes.\n\n{unasked}"
            ),
        ),
        Subject::SecondFactorOff => (
            "second_factor_off",
            "Two-factor authentication is off",
            format!("{done} From now on a login needs your password alone.\n\n{unasked}"),
        ),
        Subject::RecoveryCodeUsed { left } => (
            "recovery_code_used",
            "A recovery code was used",
            format!(
                "{done} It stood in for a code of your authenticator app. You have {left} recovery codes left.\n\n{unasked}"
            ),
        ),
        Subject::AccountDeleted => (
            "account_deleted",
            "Your account was deleted",
            format!("{done} Its password, API keys and logins have ended, and your address is free again."),
        ),
    };
    Letter {
        kind,
        recipient: recipient.to_owned(),
        subject: title.into(),
        body: Zeroizing::new(folded(&text)),
        expires_at: ends.unwrap_or(now + NEWS),
    }
}

/// Prose in lines of at most 72 characters. Lines that are to be copied (they begin with a link or a command) stay as they are.
fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len() + 16);
    for line in text.lines() {
        let (verbatim, mut length) = (line.starts_with("http") || line.starts_with("curl "), 0);
        for (n, word) in line.split(' ').enumerate() {
            let more = word.chars().count() + 1;
            let breaks = !verbatim && length + more > 72;
            if n > 0 {
                folded.push(if breaks { '\n' } else { ' ' });
            }
            length = if breaks { more } else { length + more };
            folded.push_str(word);
        }
        folded.push('\n');
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_folded_and_what_is_to_be_copied_is_not() {
        let link = format!("https://intentd.example/{}", "x".repeat(80));
        let command = format!("curl -sS {link} -d '{{}}'");
        let text = format!("{}\n\n{link}\n{command}\n{}", "word ".repeat(30).trim(), "y".repeat(90));
        let folded = folded(&text);
        let long: Vec<&str> = folded.lines().filter(|line| line.len() > 72).collect();
        assert_eq!(long, [link.as_str(), &command, &"y".repeat(90)]);
        assert_eq!(folded.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
    }
}
