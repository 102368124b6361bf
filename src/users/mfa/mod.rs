//! The second factor: time-based codes of an authenticator app (RFC 6238), and recovery codes for whoever loses it.
//!
//! The app's secret is sealed; a code is taken by moving the row's last step forward, so that none passes twice, whichever daemon is
//! asked; attempts are limited for each human across daemons.

pub mod api;
pub mod http;
pub mod rules;
pub mod store;

use std::net::IpAddr;

use zeroize::Zeroizing;

use self::rules::Code;
use self::store::{Factor, Passed};
use super::letters::Subject;
use super::login::confirm_password;
use super::once::{self, OneTime, Purpose};
use super::store as users;
use super::{Proven, UserError, event_of, forget, human, letter, take, user_key};
use crate::access::throttle::Throttle;
use crate::access::{Actor, Principal};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::config::Secret;
use crate::db::DbError;
use crate::ids::{OrgId, UserId};
use crate::mail;

/// What is limited, in the refusal.
const ATTEMPTS: &str = "codes of a second factor";
const WRONG: UserError = UserError::Refused("the code is not right, or was used already: wait for the app's next one");

/// A new secret for an app, shown once.
pub struct Setup {
    /// In base32, for typing.
    pub secret: Zeroizing<String>,
    /// As a URI, for a QR code.
    pub uri: Zeroizing<String>,
}

/// What binds a sealed secret to its human.
#[must_use]
pub fn associated_data(org_id: OrgId, user_id: UserId) -> Vec<u8> {
    [b"intentd totp 1".as_slice(), org_id.0.as_bytes(), user_id.0.as_bytes()].concat()
}

/// Whether a second factor is asked for, and how many recovery codes are left.
///
/// # Errors
/// [`UserError::Refused`] for agents; or it could not be read.
pub async fn status(app: &App, principal: &Principal) -> Result<(bool, i64), UserError> {
    let user_id = human(principal)?;
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let on = store::factor(&mut conn, user_id).await?.is_some_and(|factor| factor.confirmed);
    Ok((on, store::recovery_codes_left(&mut conn, user_id).await?))
}

/// A new secret. It is asked for only once the app has shown that it has it ([`confirm`]); until then another call replaces it.
///
/// # Errors
/// [`UserError::Conflict`] when there is a second factor already; or it could not be done.
pub async fn set_up(app: &App, principal: &Principal) -> Result<Setup, UserError> {
    let user_id = human(principal)?;
    let secret = app.hsm.random::<{ rules::SECRET_BYTES }>().await?;
    let sealed = app.hsm.seal(&associated_data(principal.org_id, user_id), secret.as_slice()).await?;
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let account = users::lock_proven(&mut tx, principal, user_id).await?.ok_or(UserError::Ended)?;
    if !store::put(&mut tx, principal.org_id, user_id, &sealed).await? {
        return Err(UserError::Conflict("there is a second factor already: turn it off first".to_owned()));
    }
    audit::record(&mut tx, Event::by(principal, "user.mfa_setup", Resource::new("user", user_id))).await?;
    tx.commit().await.map_err(DbError::from)?;
    let secret = rules::base32(secret.as_slice());
    let uri = rules::otpauth_uri(&secret, &account.email, &app.config.issuer);
    Ok(Setup { secret, uri })
}

/// The app shows that it has the secret. From now on logins ask for it. Returns the recovery codes, which are shown once.
///
/// # Errors
/// [`UserError::Conflict`] without a set-up, [`UserError::Refused`] for a wrong code, [`UserError::TooMany`].
pub async fn confirm(app: &App, principal: &Principal, code: &str) -> Result<Vec<Zeroizing<String>>, UserError> {
    let user_id = human(principal)?;
    let factor = load(app, user_id).await?.filter(|factor| !factor.confirmed).ok_or_else(|| {
        UserError::Conflict(
            "there is nothing to verify: POST /v1/auth/mfa/setup first, unless it is on already".to_owned(),
        )
    })?;
    take(app, Throttle::SecondFactor, user_key(user_id), ATTEMPTS).await?;
    let step = step_of(app, &factor, user_id, code).await?.ok_or(WRONG)?;
    let random = app.hsm.random::<{ rules::RECOVERY_CODES * rules::RECOVERY_BYTES }>().await?;
    let codes = rules::recovery_codes(random.as_slice());
    let (email, _) = named(app, user_id).await?;
    let letter = letter(app, &email, &Subject::SecondFactorOn, principal.ip, None).await?;

    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    users::lock_proven(&mut tx, principal, user_id).await?.ok_or(UserError::Ended)?;
    if !store::confirm(&mut tx, user_id, &factor, step).await? {
        return Err(WRONG);
    }
    let hashes: Vec<[u8; 32]> = codes.iter().map(|code| recovery_hash(user_id, code)).collect();
    store::put_recovery_codes(&mut tx, user_id, &hashes).await?;
    mail::store::post(&mut tx, &letter).await?;
    audit::record(&mut tx, Event::by(principal, "user.mfa_enable", Resource::new("user", user_id))).await?;
    tx.commit().await.map_err(DbError::from)?;
    app.mail.nudge();
    forget(app, Throttle::SecondFactor, user_key(user_id)).await?;
    Ok(codes)
}

/// The second half of a login.
///
/// # Errors
/// [`UserError::WrongCode`] for whatever is wrong, [`UserError::TooMany`]; or it could not be checked.
pub async fn complete_login(app: &App, token: &str, code: &str, peer: Option<IpAddr>) -> Result<Proven, UserError> {
    let hash = OneTime::parse(token).ok_or(UserError::WrongCode)?.hash(Purpose::Challenge);
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let challenge = users::challenge(&mut conn, hash).await?.ok_or(UserError::WrongCode)?;
    drop(conn);
    let proven = Proven { org_id: challenge.org_id, user_id: challenge.user_id, epoch: challenge.epoch };
    take(app, Throttle::SecondFactor, user_key(proven.user_id), ATTEMPTS).await?;
    let Some(passed) = check(app, proven.user_id, code).await? else {
        app.auth_failures.count(Some((proven.org_id, Actor::User(proven.user_id))), peer);
        return Err(UserError::WrongCode);
    };
    let letter = match passed {
        Passed::Step(..) => None,
        Passed::Recovery(_) => {
            let (email, _) = named(app, proven.user_id).await?;
            let mut conn = app.db.acquire().await.map_err(DbError::from)?;
            let left = store::recovery_codes_left(&mut conn, proven.user_id).await? - 1;
            drop(conn);
            Some(letter(app, &email, &Subject::RecoveryCodeUsed { left: left.max(0) }, peer, None).await?)
        }
    };
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let account = users::lock(&mut tx, proven.user_id).await?.ok_or(UserError::WrongCode)?;
    let fresh = account.auth_epoch == proven.epoch && users::take_challenge(&mut tx, hash).await?;
    if !fresh || !store::take_code(&mut tx, proven.user_id, &passed).await? {
        drop(tx);
        app.auth_failures.count(Some((proven.org_id, Actor::User(proven.user_id))), peer);
        return Err(UserError::WrongCode);
    }
    if let Some(letter) = &letter {
        mail::store::post(&mut tx, letter).await?;
        audit::record(&mut tx, event_of(&proven, "user.recovery_code_used", peer)).await?;
    }
    audit::record(&mut tx, event_of(&proven, "user.mfa_verify", peer)).await?;
    tx.commit().await.map_err(DbError::from)?;
    app.mail.nudge();
    forget(app, Throttle::SecondFactor, user_key(proven.user_id)).await?;
    Ok(proven)
}

/// What a human confirms with that the second factor is to go.
pub enum Confirmation {
    /// A code of the app, or a recovery code.
    Code(Secret),
    /// The password.
    Password(Secret),
}

/// Turns the second factor off.
///
/// # Errors
/// [`UserError::Conflict`] when it is off, [`UserError::Refused`] for a wrong code or password, [`UserError::TooMany`].
pub async fn turn_off(app: &App, principal: &Principal, by: &Confirmation) -> Result<(), UserError> {
    let user_id = human(principal)?;
    if load(app, user_id).await?.is_none() {
        return Err(UserError::Conflict("there is no second factor to turn off".to_owned()));
    }
    let passed = match by {
        Confirmation::Password(password) => {
            confirm_password(app, user_id, password).await?;
            None
        }
        Confirmation::Code(code) => {
            take(app, Throttle::SecondFactor, user_key(user_id), ATTEMPTS).await?;
            Some(check(app, user_id, code.expose()).await?.ok_or(WRONG)?)
        }
    };
    let (email, _) = named(app, user_id).await?;
    let letter = letter(app, &email, &Subject::SecondFactorOff, principal.ip, None).await?;
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    users::lock_proven(&mut tx, principal, user_id).await?.ok_or(UserError::Ended)?;
    if let Some(passed) = &passed
        && !store::take_code(&mut tx, user_id, passed).await?
    {
        return Err(WRONG);
    }
    store::remove(&mut tx, user_id).await?;
    mail::store::post(&mut tx, &letter).await?;
    audit::record(&mut tx, Event::by(principal, "user.mfa_disable", Resource::new("user", user_id))).await?;
    tx.commit().await.map_err(DbError::from)?;
    app.mail.nudge();
    forget(app, Throttle::SecondFactor, user_key(user_id)).await
}

/// Whether a code fits a confirmed factor. Takes nothing.
async fn check(app: &App, user_id: UserId, code: &str) -> Result<Option<Passed>, UserError> {
    match Code::parse(code) {
        None => Ok(None),
        Some(Code::Recovery(code)) => Ok(Some(Passed::Recovery(recovery_hash(user_id, &code)))),
        Some(Code::Totp(code)) => {
            let Some(factor) = load(app, user_id).await?.filter(|factor| factor.confirmed) else { return Ok(None) };
            let step = step_of(app, &factor, user_id, &code).await?;
            Ok(step.map(|step| Passed::Step(factor, step)))
        }
    }
}

async fn step_of(app: &App, factor: &Factor, user_id: UserId, code: &str) -> Result<Option<i64>, UserError> {
    let secret = app.hsm.open(&associated_data(factor.org_id, user_id), &factor.secret).await?;
    Ok(rules::step_of(&secret, code, crate::clock::now()))
}

async fn load(app: &App, user_id: UserId) -> Result<Option<Factor>, UserError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    Ok(store::factor(&mut conn, user_id).await?)
}

async fn named(app: &App, user_id: UserId) -> Result<(String, Option<String>), UserError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    users::name_and_password(&mut conn, user_id).await?.ok_or(UserError::Ended)
}

fn recovery_hash(user_id: UserId, code: &str) -> [u8; 32] {
    once::hash(Purpose::Recovery, &format!("{user_id}:{}", rules::recovery_form(code)))
}
