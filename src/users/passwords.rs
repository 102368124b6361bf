//! New passwords: by a link in a letter, or with the old one. Either raises the human's epoch, which ends every token that rests on the
//! old password, and leaves API keys alone.

use std::net::IpAddr;
use std::sync::Arc;

use super::letters::Subject;
use super::login::confirm_password;
use super::once::{OneTime, Purpose};
use super::{Proven, UserError, address_key, event_of, forget, human, letter, one_time, rules, store, take};
use crate::access::Principal;
use crate::access::input::InputError;
use crate::access::throttle::Throttle;
use crate::app::App;
use crate::audit::{self, Actor, Event, Resource};
use crate::config::Secret;
use crate::db::DbError;
use crate::mail;

/// How long a link to a new password lives, in seconds.
const LIFETIME_S: i32 = 3600;

/// Sends a link to a new password to the address, if it has an account. The caller sees no difference: what is done for an account alone
/// is done after the reply.
///
/// # Errors
/// [`UserError::Input`], [`UserError::TooMany`]; or it could not be done.
pub async fn forgot(app: &Arc<App>, email: &str, peer: Option<IpAddr>) -> Result<(), UserError> {
    let email = rules::email(email)?;
    take(app, Throttle::Mail, address_key(&email), "letters to this address").await?;
    let token = one_time(app).await?;
    let lifetime = time::Duration::seconds(i64::from(LIFETIME_S));
    let letter = letter(app, &email, &Subject::ResetPassword(&token), peer, Some(lifetime)).await?;
    let background = Arc::clone(app);
    app.tasks.spawn(async move {
        if let Err(error) = send_link(&background, &email, &token, &letter, peer).await {
            tracing::error!(error = %crate::http::problem::chain(&error), "a link to a new password was not sent");
        }
    });
    Ok(())
}

/// The link becomes good, and its letter is posted, if the address has an account.
async fn send_link(
    app: &App,
    email: &str,
    token: &OneTime,
    letter: &mail::Sealed,
    peer: Option<IpAddr>,
) -> Result<(), UserError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    if let Some(account) = store::account(&mut tx, email).await?
        && store::lock(&mut tx, account.user_id).await?.is_some()
    {
        store::put_reset(&mut tx, account.user_id, token.hash(Purpose::Reset), LIFETIME_S).await?;
        mail::store::post(&mut tx, letter).await?;
        let event = Event::new(Actor::Anonymous, "user.password_forgotten", Resource::new("user", account.user_id));
        audit::record(&mut tx, Event { org_id: Some(account.org_id), ip: peer, ..event }).await?;
    }
    tx.commit().await.map_err(DbError::from)?;
    app.mail.nudge();
    Ok(())
}

/// Sets a new password with the link of a letter, once.
///
/// # Errors
/// [`UserError::Input`] with the rule that is broken, which leaves the link alone; [`UserError::Spent`]; or it could not be done.
pub async fn reset(app: &App, token: &str, new: &Secret, peer: Option<IpAddr>) -> Result<(), UserError> {
    const SPENT: UserError = UserError::Spent("this code for a new password");
    rules::new_password("new_password", new.expose())?;
    let hash = OneTime::parse(token).ok_or(SPENT)?.hash(Purpose::Reset);
    // Looked at before anything expensive is done for whoever sends it; taken below.
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let user_id = store::reset_owner(&mut conn, hash).await?.ok_or(SPENT)?;
    let (email, _) = store::name_and_password(&mut conn, user_id).await?.ok_or(SPENT)?;
    drop(conn);
    let password_hash = app.passwords.hash(new, *app.hsm.random::<16>().await?).await?;
    let letter = letter(app, &email, &Subject::PasswordChanged, peer, None).await?;

    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let account = store::lock(&mut tx, user_id).await?.ok_or(SPENT)?;
    if !store::take_reset(&mut tx, user_id, hash).await? {
        return Err(SPENT);
    }
    store::set_password(&mut tx, user_id, &password_hash, true).await?;
    mail::store::post(&mut tx, &letter).await?;
    let proven = Proven { org_id: account.org_id, user_id, epoch: account.auth_epoch };
    audit::record(&mut tx, event_of(&proven, "user.password_reset", peer)).await?;
    tx.commit().await.map_err(DbError::from)?;
    app.mail.nudge();
    // Whoever was locked out by somebody else's guesses is in again.
    forget(app, Throttle::Login, address_key(&email)).await
}

/// Sets a new password with the current one.
///
/// # Errors
/// [`UserError::Input`] with the rule that is broken, [`UserError::Refused`] for a wrong current password; or it could not be done.
pub async fn change(app: &App, principal: &Principal, current: &Secret, new: &Secret) -> Result<(), UserError> {
    let user_id = human(principal)?;
    rules::new_password("new_password", new.expose())?;
    let before = confirm_password(app, user_id, current).await?;
    if current.expose() == new.expose() {
        return Err(UserError::Input(InputError("new_password is the current one".to_owned())));
    }
    let password_hash = app.passwords.hash(new, *app.hsm.random::<16>().await?).await?;
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let (email, _) = store::name_and_password(&mut conn, user_id).await?.ok_or(UserError::Ended)?;
    drop(conn);
    let letter = letter(app, &email, &Subject::PasswordChanged, principal.ip, None).await?;

    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let account = store::lock_proven(&mut tx, principal, user_id).await?.ok_or(UserError::Ended)?;
    // Changed meanwhile, by this password's last use or by a link: this one comes too late.
    if account.password_hash.as_ref() != Some(&before) {
        return Err(UserError::Ended);
    }
    store::set_password(&mut tx, user_id, &password_hash, false).await?;
    mail::store::post(&mut tx, &letter).await?;
    audit::record(&mut tx, Event::by(principal, "user.password_change", Resource::new("user", user_id))).await?;
    tx.commit().await.map_err(DbError::from)?;
    app.mail.nudge();
    Ok(())
}
