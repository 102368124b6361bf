//! The device flow (RFC 8628): a program asks for a pair of codes, a human who is logged in elsewhere says yes to the short one, and the
//! program gets a token for the long one.
//!
//! The token rests on what the human said yes with: on the epoch of their login, or on their API key, and ends with it.

pub mod api;
pub mod http;
pub mod rules;
pub mod store;

use std::net::IpAddr;

use self::rules::UserCode;
use self::store::{Grant, Poll, State};
use super::once::{self, OneTime, Purpose};
use super::{UserError, human, one_time, take, user_key};
use crate::access::jwt::Root;
use crate::access::throttle::{self, Throttle};
use crate::access::{KeyRoot, Principal};
use crate::app::App;
use crate::audit::{self, Actor, Event, Resource};
use crate::db::DbError;
use crate::ids::{OrgId, UserId};
use crate::net::site_of;
use crate::users::rules as users;

/// How long a pair of codes lives, in seconds.
pub const LIFETIME_S: i32 = 600;
/// How often the program may ask at first, in seconds.
pub const INTERVAL_S: i32 = 5;
/// What is limited, in the refusal.
const GUESSES: &str = "user codes";
const UNKNOWN: UserError =
    UserError::NotFound("user code: it is mistyped, was used already, has ended, or is for somebody else");

/// A pair of codes.
pub struct Codes {
    /// For the program.
    pub device: OneTime,
    /// For the human.
    pub user: UserCode,
}

/// A pair of codes for a program that says what it is and, if it likes, whom it is for.
///
/// # Errors
/// [`UserError::Input`], [`UserError::TooMany`]; or it could not be done.
pub async fn begin(app: &App, client_id: &str, email: Option<&str>, peer: Option<IpAddr>) -> Result<Codes, UserError> {
    let client_id = crate::access::input::name("client_id", client_id)?;
    let email = email.map(users::email).transpose()?;
    let key = match (&email, peer) {
        (Some(email), _) => throttle::key(&[b"email", email.as_bytes()]),
        (None, peer) => throttle::key(&[b"peer", format!("{:?}", peer.map(site_of)).as_bytes()]),
    };
    take(app, Throttle::DeviceCode, key, "device codes").await?;
    let device = one_time(app).await?;
    let user = UserCode::mint(&*app.hsm.random::<16>().await?);
    let grant = store::NewGrant {
        device_hash: device.hash(Purpose::Device),
        user_hash: user_hash(&user),
        client_id: &client_id,
        email: email.as_deref(),
    };
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    store::put(&mut tx, &grant, LIFETIME_S, INTERVAL_S).await?;
    let event =
        Event::new(Actor::Anonymous, "device.request", Resource::kind("device")).with("client_id", client_id.as_str());
    audit::record(&mut tx, Event { ip: peer, ..event }).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(Codes { device, user })
}

/// What a human sees of a code before they say yes.
///
/// # Errors
/// [`UserError::NotFound`], also for a code that is for somebody else; [`UserError::TooMany`].
pub async fn look(app: &App, principal: &Principal, code: &str) -> Result<Grant, UserError> {
    let (user_id, code) = guess(app, principal, code).await?;
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    store::find(&mut conn, user_hash(&code), user_id).await?.ok_or(UNKNOWN)
}

/// A human's yes or no. The first one counts.
///
/// # Errors
/// [`UserError::NotFound`], also for a code that is for somebody else or has its answer; [`UserError::TooMany`].
pub async fn answer(app: &App, principal: &Principal, code: &str, yes: bool) -> Result<(), UserError> {
    let (user_id, code) = guess(app, principal, code).await?;
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let account = super::store::lock_proven(&mut tx, principal, user_id).await?.ok_or(UserError::Ended)?;
    let rests_on = yes.then_some(store::RestsOn {
        user_id,
        epoch: account.auth_epoch,
        key: match principal.credential.root() {
            KeyRoot::User(key_id) => Some(key_id),
            KeyRoot::Epoch(_) | KeyRoot::Agent(_) => None,
        },
    });
    let client_id = store::answer(&mut tx, user_hash(&code), user_id, rests_on).await?.ok_or(UNKNOWN)?;
    let action = if yes { "device.approve" } else { "device.deny" };
    let event = Event::by(principal, action, Resource::kind("device")).with("client_id", client_id);
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(())
}

/// Counts a guess, right or wrong: a right one must not make room for more wrong ones.
async fn guess(app: &App, principal: &Principal, code: &str) -> Result<(UserId, UserCode), UserError> {
    let user_id = human(principal)?;
    take(app, Throttle::DeviceApproval, user_key(user_id), GUESSES).await?;
    Ok((user_id, UserCode::parse(code).ok_or(UNKNOWN)?))
}

/// What the program is told when it asks.
#[derive(Debug)]
pub enum Told {
    /// A token for this human, resting on this.
    Token(OrgId, UserId, Root),
    /// Nobody has answered yet.
    Pending,
    /// It asks too often; from now on so many seconds between two questions.
    SlowDown(i32),
    /// The human said no, or has taken the yes back by ending what it rests on.
    Denied,
    /// Unknown, used or ended.
    Expired,
}

/// The program asks. A yes is told once.
///
/// # Errors
/// When it could not be looked up.
pub async fn poll(app: &App, device_code: &str) -> Result<Told, UserError> {
    let Some(code) = OneTime::parse(device_code) else { return Ok(Told::Expired) };
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let told = match store::poll(&mut tx, code.hash(Purpose::Device)).await? {
        None => Told::Expired,
        Some(Poll { too_soon: true, interval_s, .. }) => Told::SlowDown(interval_s),
        Some(Poll { state: State::Pending, .. }) => Told::Pending,
        Some(Poll { state: State::Denied, .. }) => Told::Denied,
        Some(Poll { state: State::Approved(approved), .. }) => {
            let root = approved.key_prefix.map_or(Root::Epoch(approved.epoch), Root::KeyPrefix);
            Told::Token(approved.org_id, approved.user_id, root)
        }
    };
    tx.commit().await.map_err(DbError::from)?;
    Ok(told)
}

fn user_hash(code: &UserCode) -> [u8; 32] {
    once::hash(Purpose::UserCode, code.plain())
}
