//! Login: a password, and a second factor where one is asked for.

use std::net::IpAddr;

use super::once::{OneTime, Purpose};
use super::password::Verdict;
use super::store::{self, Account};
use super::{Proven, UserError, address_key, forget, one_time, rules, take};
use crate::access::Actor;
use crate::access::throttle::Throttle;
use crate::app::App;
use crate::config::Secret;
use crate::db::DbError;
use crate::ids::UserId;

/// How long a login waits for its second factor, in seconds.
pub const CHALLENGE_LIFETIME_S: i32 = 300;
/// What is limited, in the refusal.
const FAILURES: &str = "failed logins with this email address";

/// What a right password leads to.
#[derive(Debug)]
pub enum Login {
    /// A token.
    Proven(Proven),
    /// The second factor is still to come; this goes with it.
    SecondFactor(OneTime),
}

/// Holds a password against an address. A wrong one, an address without an account and an account without a password are the same to
/// the caller, and take the same time.
///
/// # Errors
/// [`UserError::WrongLogin`], [`UserError::TooMany`] before the password is looked at; or it could not be checked.
pub async fn log_in(app: &App, email: &str, password: &Secret, peer: Option<IpAddr>) -> Result<Login, UserError> {
    let name = rules::login_name(email);
    take(app, Throttle::Login, address_key(&name), FAILURES).await?;
    let account = match rules::email(&name) {
        Ok(email) => {
            let mut conn = app.db.acquire().await.map_err(DbError::from)?;
            store::account(&mut conn, &email).await?
        }
        Err(_) => None,
    };
    let stored = account.as_ref().and_then(|account| account.password_hash.clone());
    let verdict = app.passwords.verify(password, stored).await?;
    let Some(account) = account.as_ref().filter(|_| verdict != Verdict::Wrong) else {
        app.auth_failures.count(account.map(|account| (account.org_id, Actor::User(account.user_id))), peer);
        return Err(UserError::WrongLogin);
    };
    forget(app, Throttle::Login, address_key(&name)).await?;
    if verdict == Verdict::RightButDated {
        hash_again(app, account, password).await?;
    }
    let proven = Proven { org_id: account.org_id, user_id: account.user_id, epoch: account.auth_epoch };
    if !account.second_factor {
        return Ok(Login::Proven(proven));
    }
    let token = one_time(app).await?;
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let hash = token.hash(Purpose::Challenge);
    store::put_challenge(&mut tx, hash, proven.user_id, proven.epoch, CHALLENGE_LIFETIME_S).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(Login::SecondFactor(token))
}

/// Under today's parameters.
async fn hash_again(app: &App, account: &Account, password: &Secret) -> Result<(), UserError> {
    let Some(old) = &account.password_hash else { return Ok(()) };
    let new = app.passwords.hash(password, *app.hsm.random::<16>().await?).await?;
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    Ok(store::rehash(&mut conn, account.user_id, old, &new).await?)
}

/// Asks a human who is known for their password again, under the same limit as a login. Returns the hash that it was held against.
///
/// # Errors
/// [`UserError::Refused`] for a wrong one, [`UserError::Conflict`] when there is none, [`UserError::TooMany`].
pub async fn confirm_password(app: &App, user_id: UserId, password: &Secret) -> Result<String, UserError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let (email, stored) = store::name_and_password(&mut conn, user_id).await?.ok_or(UserError::Ended)?;
    drop(conn);
    let Some(stored) = stored else {
        return Err(UserError::Conflict(
            "this account has no password yet: POST /v1/auth/forgot-password sends a link to set one".to_owned(),
        ));
    };
    take(app, Throttle::Login, address_key(&email), FAILURES).await?;
    if app.passwords.verify(password, Some(stored.clone())).await? == Verdict::Wrong {
        return Err(UserError::Refused("the current password is not right"));
    }
    forget(app, Throttle::Login, address_key(&email)).await?;
    Ok(stored)
}
