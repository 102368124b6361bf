//! The background task that sends letters, and the two ways out: a server, or a folder.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, Mailbox, Message};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::config::MailConfig;
use super::store::{self, Claimed};
use crate::app::App;
use crate::db::DbError;
use crate::hsm::HsmError;
use crate::http::problem::chain;
use crate::ids::MailId;

/// How often letters that other daemons posted, or that were put off, are looked for.
const EVERY: Duration = Duration::from_secs(2);
/// How long a daemon has for one letter before another takes it up.
const LEASE: Duration = Duration::from_secs(120);
/// How long a server may take for one letter.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Attempts before a letter is given up.
const ATTEMPTS_MAX: i32 = 24;

/// Why a letter was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The sender's address, or the recipient's.
    #[error("the address is not one that mail can be sent to")]
    Address(#[from] lettre::address::AddressError),
    /// It cannot be put into the form of a message.
    #[error("the letter cannot be put into a message")]
    Message(#[from] lettre::error::Error),
    /// The server's URL, the connection, or the server.
    #[error("the mail server did not take it")]
    Smtp(#[from] lettre::transport::smtp::Error),
    /// The server took too long.
    #[error("the mail server did not answer in time")]
    Slow,
    /// The folder.
    #[error("the outbox folder {0} cannot be written")]
    Folder(PathBuf, #[source] std::io::Error),
    /// The row does not open.
    #[error("the letter cannot be opened")]
    Hsm(#[from] HsmError),
    /// The row is not one of ours.
    #[error("the letter's row is damaged")]
    Damaged,
}

enum Way {
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
    Folder(PathBuf),
}

/// Sends letters.
pub struct Mailer {
    from: Mailbox,
    way: Way,
    posted: Notify,
}

impl Mailer {
    /// From the configuration, which has been checked.
    ///
    /// # Errors
    /// When the sender's address or the server's URL cannot be used.
    pub fn new(config: &MailConfig) -> Result<Self, MailError> {
        let way = match &config.smtp_url {
            Some(url) => {
                let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose())?;
                Way::Smtp(Box::new(builder.timeout(Some(PATIENCE)).build()))
            }
            None => Way::Folder(config.outbox_folder()),
        };
        Ok(Self { from: config.from.parse()?, way, posted: Notify::new() })
    }

    /// A letter was posted and committed: do not wait for the next look.
    pub fn nudge(&self) {
        self.posted.notify_one();
    }

    async fn send(&self, letter: &Claimed, text: &Zeroizing<String>) -> Result<(), MailError> {
        let message = message(&self.from, letter, text)?;
        match &self.way {
            Way::Smtp(server) => {
                tokio::time::timeout(PATIENCE, server.send(message)).await.map_err(|_| MailError::Slow)??;
                tracing::info!(kind = letter.kind, mail = %letter.id, "a letter was sent");
            }
            Way::Folder(folder) => {
                let path = write(folder, letter.id, &message.formatted())
                    .map_err(|error| MailError::Folder(folder.clone(), error))?;
                tracing::info!(
                    kind = letter.kind,
                    path = %path.display(),
                    "a letter was written to a file, because no mail.smtp_url is configured"
                );
            }
        }
        Ok(())
    }
}

/// RFC 5322, with the letter's id in its Message-ID: one that comes twice is known by it.
fn message(from: &Mailbox, letter: &Claimed, text: &str) -> Result<Message, MailError> {
    let (subject, body) = text.split_once('\n').ok_or(MailError::Damaged)?;
    let to = Mailbox::new(None, letter.recipient.parse::<Address>()?);
    let date = std::time::UNIX_EPOCH + Duration::from_secs(letter.created_at.unix_timestamp().unsigned_abs());
    let message = Message::builder()
        .from(from.clone())
        .to(to)
        .subject(subject)
        .date(date)
        .message_id(Some(format!("<{}@{}>", letter.id, from.email.domain())))
        // So that nobody's holiday notice answers (RFC 3834).
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN)
        .body(as_it_is(body))?;
    Ok(message)
}

/// Links and commands are copied from files and raw messages too: nothing in them is encoded if it can be helped. The library would
/// encode whatever has a line of more than 76 characters; RFC 5322 (2.1.1) allows 998.
fn as_it_is(body: &str) -> Body {
    const LINE_CHARS_MAX: usize = 998;
    // A carriage return by itself ends a line for some servers and none for others; a NUL is in no letter (RFC 5322, 4.1).
    let body = body.replace(['\r', '\0'], "");
    if body.is_ascii() && body.lines().all(|line| line.len() <= LINE_CHARS_MAX) {
        Body::dangerous_pre_encoded(body.replace('\n', "\r\n").into_bytes(), ContentTransferEncoding::SevenBit)
    } else {
        Body::new(body)
    }
}

#[derive(Clone)]
struct AutoSubmitted;

impl lettre::message::header::Header for AutoSubmitted {
    fn name() -> lettre::message::header::HeaderName {
        lettre::message::header::HeaderName::new_from_ascii_str("Auto-Submitted")
    }
    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }
    fn display(&self) -> lettre::message::header::HeaderValue {
        lettre::message::header::HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// A file that only we can read, whole or not at all. Writing it twice changes nothing.
fn write(folder: &Path, id: MailId, text: &[u8]) -> std::io::Result<PathBuf> {
    use std::io::Write as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let (part, path) = (folder.join(format!("{id}.part")), folder.join(format!("{id}.eml")));
    let mut file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(part, &path)?;
    Ok(path)
}

/// Sends what is due until the daemon stops.
pub async fn keep_delivering(app: Arc<App>) {
    if let Way::Folder(folder) = &app.mail.way {
        tracing::info!(folder = %folder.display(), "no mail.smtp_url is configured: letters are written to files");
    }
    while !app.stopping.is_cancelled() {
        match deliver_one(&app).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "letters could not be looked for"),
        }
        tokio::select! {
            () = app.stopping.cancelled() => {}
            () = app.mail.posted.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// `Ok(false)`: there was none.
async fn deliver_one(app: &App) -> Result<bool, DbError> {
    let Some(letter) = store::claim(&app.db, LEASE).await? else { return Ok(false) };
    if letter.expired || letter.attempts > ATTEMPTS_MAX {
        tracing::error!(kind = letter.kind, mail = %letter.id, attempts = letter.attempts - 1, "a letter was never sent, and is given up");
        store::remove(&app.db, letter.id).await?;
        return Ok(true);
    }
    match open_and_send(app, &letter).await {
        Ok(()) => store::remove(&app.db, letter.id).await?,
        Err(error) => {
            let wait = wait(letter.attempts);
            tracing::warn!(
                kind = letter.kind, mail = %letter.id, attempt = letter.attempts, error = %chain(&error),
                "a letter was not sent; it is tried again in {} s", wait.as_secs()
            );
            store::put_off(&app.db, &letter, wait).await?;
        }
    }
    Ok(true)
}

async fn open_and_send(app: &App, letter: &Claimed) -> Result<(), MailError> {
    let envelope = letter.sealed.envelope().ok_or(MailError::Damaged)?;
    let opened = app.hsm.open(&super::associated_data(letter.id, &letter.recipient), &envelope).await?;
    let text = std::str::from_utf8(&opened).map_err(|_| MailError::Damaged)?;
    app.mail.send(letter, &Zeroizing::new(text.to_owned())).await
}

/// Two seconds, doubled each time, up to a quarter of an hour.
fn wait(attempts: i32) -> Duration {
    let doubled = 2_u64.saturating_pow(attempts.clamp(1, 16).unsigned_abs());
    Duration::from_secs(doubled).min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_encoded_only_where_it_must_be() {
        let link = format!("https://intentd.example/{}", "x".repeat(200));
        let body = as_it_is(&format!("Open\n{link}\n"));
        assert_eq!(body.encoding(), ContentTransferEncoding::SevenBit);
        assert_eq!(body.into_vec(), format!("Open\r\n{link}\r\n").into_bytes());
        assert_eq!(as_it_is("a\r.\0\r\nb").into_vec(), b"a.\r\nb");
        for text in ["Ärger\n".to_owned(), "x".repeat(999)] {
            assert_ne!(as_it_is(&text).encoding(), ContentTransferEncoding::SevenBit, "{text:?}");
        }
    }

    #[test]
    fn the_wait_grows_to_its_bound() {
        assert_eq!([1, 2, 3, 9, 10, i32::MAX].map(|n| wait(n).as_secs()), [2, 4, 8, 512, 900, 900]);
    }
}
