//! Humans: how they get an account, prove who they are, and leave.
//!
//! `signup` makes an account once its address is proven; `login` holds a password, and then a second factor (`mfa`), against it;
//! `passwords` changes and resets it; `account` is what humans do with their own account; `keys` are their API keys; `device` lets a
//! program in with their yes. `rules` and what it needs are pure; the SQL is in the stores.
//!
//! Invariants: no account before its address is proven by a letter; whatever opens something is stored as a hash, works once and ends;
//! no reply tells whether an address has an account; whoever proved themselves without a key holds a token of an epoch, and a new
//! password raises the epoch. It does not end API keys: they are what programs run with, and are revoked one by one.
//!
//! **Lock order**: organisation → human → everything that belongs to the human.

pub mod account;
pub mod api;
pub mod device;
pub mod http;
pub mod keys;
pub mod letters;
pub mod login;
pub mod mfa;
pub mod once;
pub mod pages;
pub mod password;
pub mod passwords;
pub mod rules;
pub mod signup;
pub mod store;

use std::net::IpAddr;
use std::time::Duration;

use crate::access::input::InputError;
use crate::access::throttle::{self, Throttle};
use crate::access::{Actor, Principal};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::hsm::HsmError;
use crate::ids::{OrgId, UserId};
use crate::orgs::limits::{LimitError, Reached};

use self::letters::{Occasion, Subject};
use self::once::OneTime;

/// Why something about an account was not done. The text is for the caller.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// What was sent is not what it should be.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Nobody signs up here.
    #[error(
        "signing up is switched off in this installation: ask whoever runs it for an account (`signup.enabled` switches it on)"
    )]
    SignupOff,
    /// Too often.
    #[error("too many {what}: try again in {} s", seconds(*wait))]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How long until the next may be.
        wait: Duration,
    },
    /// Address and password do not belong together. The same for every reason.
    #[error("the email address or the password is not right")]
    WrongLogin,
    /// A code for a login that is not one. The same for every reason.
    #[error("the code or the mfa_token is not right, was used already, or has ended")]
    WrongCode,
    /// A link or code that leads nowhere any more.
    #[error("{0} is unknown, was used already, or has ended: ask for a new one")]
    Spent(&'static str),
    /// Who asks is known, and what they gave to confirm it is not right.
    #[error("{0}")]
    Refused(&'static str),
    /// It does not go with what is there.
    #[error("{0}")]
    Conflict(String),
    /// More of them than there may be.
    #[error("{0}")]
    Limit(String),
    /// More of them than the organisation may have.
    #[error(transparent)]
    OrgLimit(#[from] Reached),
    /// No such thing of this human's.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The request's own credential ended while it was served.
    #[error("the credentials are not valid: unknown, expired, revoked or deactivated")]
    Ended,
    /// Too many passwords are being checked.
    #[error("too many passwords are being checked: try again")]
    Busy,
    /// The HSM.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<LimitError> for UserError {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Reached(reached) => Self::OrgLimit(reached),
            LimitError::Db(error) => error.into(),
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// A human who has proven who they are: what a token for them rests on.
#[derive(Clone, Copy, Debug)]
pub struct Proven {
    /// The organisation.
    pub org_id: OrgId,
    /// The human.
    pub user_id: UserId,
    /// The epoch in which it was proven.
    pub epoch: i32,
}

/// Takes one of what may happen only so often, in a transaction of its own.
async fn take(app: &App, what: Throttle, key: [u8; 32], text: &'static str) -> Result<(), UserError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    match throttle::take(&mut conn, what, key).await? {
        None => Ok(()),
        Some(wait) => Err(UserError::TooMany { what: text, wait }),
    }
}

/// Gives back what was taken: it was the right human.
async fn forget(app: &App, what: Throttle, key: [u8; 32]) -> Result<(), UserError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    Ok(throttle::store::forget(&mut conn, what, key).await?)
}

/// The throttle key of an address.
fn address_key(email: &str) -> [u8; 32] {
    throttle::key(&[email.as_bytes()])
}

/// The throttle key of a human.
fn user_key(user_id: UserId) -> [u8; 32] {
    throttle::key(&[user_id.0.as_bytes()])
}

/// A fresh token.
async fn one_time(app: &App) -> Result<OneTime, UserError> {
    Ok(OneTime::mint(&*app.hsm.random::<32>().await?))
}

/// A letter, ready to be posted.
async fn letter(
    app: &App,
    recipient: &str,
    subject: &Subject<'_>,
    peer: Option<IpAddr>,
    lifetime: Option<time::Duration>,
) -> Result<crate::mail::Sealed, UserError> {
    let now = crate::clock::now();
    let url = app.public_url();
    let letter = letters::compose(recipient, subject, Occasion { url: &url, peer, now }, lifetime.map(|l| now + l));
    Ok(crate::mail::seal(&app.hsm, letter).await?)
}

/// Something that a human did who proved it without a credential of ours.
fn event_of(who: &Proven, action: &'static str, peer: Option<IpAddr>) -> Event {
    let actor = audit::Actor::Principal(Actor::User(who.user_id));
    let event = Event::new(actor, action, Resource::new("user", who.user_id));
    Event { org_id: Some(who.org_id), ip: peer, ..event }
}

/// The human behind a principal. Agents have no account.
fn human(principal: &Principal) -> Result<UserId, UserError> {
    principal.user_id().ok_or(UserError::Refused("Insufficient permissions: agents have no account of their own"))
}
