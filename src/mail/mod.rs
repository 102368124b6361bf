//! Letters to humans: sealed into the database in the transaction of what they tell, sent in the background.
//!
//! A letter is composed and sealed first ([`seal`], which asks the HSM and so stands outside of any transaction), then posted with the
//! rest ([`store::post`]). Whichever daemon comes first claims it for a while, sends it by SMTP or writes it into a folder, and removes
//! the row. A daemon that dies in between leaves the letter to the next one: a letter may come twice (under one Message-ID), and is not
//! lost while it still means something.

mod config;
mod deliver;
pub mod store;

use std::borrow::Cow;
use std::fmt;

use time::OffsetDateTime;
use zeroize::Zeroizing;

pub use config::MailConfig;
pub use deliver::{MailError, Mailer, keep_delivering};

use crate::hsm::{Envelope, Hsm, HsmError};
use crate::ids::MailId;

/// A letter, in plain text. What is in it is for its recipient alone.
pub struct Letter {
    /// What sort of letter, for the log: `verify_email`, …
    pub kind: &'static str,
    /// To whom.
    pub recipient: String,
    /// What it is about, in one line: control characters become spaces. No secrets: some servers log it.
    pub subject: Cow<'static, str>,
    /// What it says.
    pub body: Zeroizing<String>,
    /// When it no longer means anything.
    pub expires_at: OffsetDateTime,
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Letter({})", self.kind)
    }
}

/// Characters of a stranger's words that a letter repeats.
const PLAIN_CHARS_MAX: usize = 64;

/// A stranger's words as a letter may repeat them: short, on one line, and nothing that a mail program would make a link of.
#[must_use]
pub fn plain(words: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, ' ' | '-' | '_') { c } else { '_' };
    words.chars().take(PLAIN_CHARS_MAX).map(plain).collect()
}

/// A letter as the database keeps it.
#[derive(Debug)]
pub struct Sealed {
    id: MailId,
    kind: &'static str,
    recipient: String,
    content: Envelope,
    expires_at: OffsetDateTime,
}

/// What binds a letter to its row.
#[must_use]
pub fn associated_data(id: MailId, recipient: &str) -> Vec<u8> {
    [b"intentd mail 1".as_slice(), id.0.as_bytes(), recipient.as_bytes()].concat()
}

/// Seals a letter.
///
/// # Errors
/// As [`Hsm::seal`].
pub async fn seal(hsm: &Hsm, letter: Letter) -> Result<Sealed, HsmError> {
    let id = MailId::random();
    // What follows the first line break is the body.
    let subject = letter.subject.replace(char::is_control, " ");
    let text = Zeroizing::new(format!("{subject}\n{}", letter.body.as_str()));
    let content = hsm.seal(&associated_data(id, &letter.recipient), text.as_bytes()).await?;
    Ok(Sealed { id, kind: letter.kind, recipient: letter.recipient, content, expires_at: letter.expires_at })
}
