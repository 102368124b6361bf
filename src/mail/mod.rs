//! Letters to humans: sealed into the database in the transaction of what they tell, sent in the background.
//!
//! A letter is composed and sealed first ([`seal`], which asks the HSM and so stands outside of any transaction), then posted with the
//! rest ([`store::post`]). Whichever daemon comes first claims it for a while, sends it by SMTP or writes it into a folder, and removes
//! the row. A daemon that dies in between leaves the letter to the next one: a letter may come twice (under one Message-ID), and is not
//! lost while it still means something.

mod config;
mod deliver;
pub mod store;

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
    /// What it is about. No secrets: some servers log it.
    pub subject: &'static str,
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
fn associated_data(id: MailId, recipient: &str) -> Vec<u8> {
    [b"intentd mail 1".as_slice(), id.0.as_bytes(), recipient.as_bytes()].concat()
}

/// Seals a letter.
///
/// # Errors
/// As [`Hsm::seal`].
pub async fn seal(hsm: &Hsm, letter: Letter) -> Result<Sealed, HsmError> {
    let id = MailId::random();
    // The subject has no line break: what follows the first one is the body.
    let text = Zeroizing::new(format!("{}\n{}", letter.subject, letter.body.as_str()));
    let content = hsm.seal(&associated_data(id, &letter.recipient), text.as_bytes()).await?;
    Ok(Sealed { id, kind: letter.kind, recipient: letter.recipient, content, expires_at: letter.expires_at })
}
