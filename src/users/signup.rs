//! Sign-up: a letter first, then an account.

use std::net::IpAddr;

use super::letters::Subject;
use super::once::{OneTime, Purpose};
use super::store::{self, NewUser, Signup};
use super::{Proven, UserError, address_key, event_of, letter, one_time, rules, take};
use crate::access::Role;
use crate::access::throttle::Throttle;
use crate::app::App;
use crate::audit::{self, Actor, Event, Resource};
use crate::config::Secret;
use crate::db::DbError;
use crate::ids::{OrgId, UserId};
use crate::{mail, orgs};

/// How long a sign-up waits for its letter's answer, in seconds.
const LIFETIME_S: i32 = 24 * 3600;

/// What somebody signs up with.
pub struct Wanted {
    /// The address, as typed.
    pub email: String,
    /// The password, as typed.
    pub password: Secret,
    /// The name to show.
    pub display_name: Option<String>,
}

/// Sends a letter to the address: with a link that makes the account, or, if there is one already, that says so. The caller sees no
/// difference, and both ways do the same work. Returns the address as it is understood.
///
/// # Errors
/// [`UserError::SignupOff`], [`UserError::Input`] with the rule that is broken, [`UserError::TooMany`]; or it could not be done.
pub async fn sign_up(app: &App, wanted: Wanted, peer: Option<IpAddr>) -> Result<String, UserError> {
    if !app.config.signup.enabled {
        return Err(UserError::SignupOff);
    }
    let email = rules::email(&wanted.email)?;
    rules::new_password("password", wanted.password.expose())?;
    let display_name = rules::display_name(wanted.display_name)?;
    take(app, Throttle::Mail, address_key(&email), "letters to this address").await?;
    let token = one_time(app).await?;
    let password_hash = app.passwords.hash(&wanted.password, *app.hsm.random::<16>().await?).await?;

    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let taken = store::email_is_taken(&mut conn, &email).await?;
    drop(conn);
    let subject = if taken { Subject::AlreadyRegistered } else { Subject::VerifyEmail(&token) };
    let lifetime = time::Duration::seconds(i64::from(LIFETIME_S));
    let letter = letter(app, &email, &subject, peer, Some(lifetime)).await?;

    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    if !taken {
        let signup = Signup { email: email.clone(), password_hash, display_name };
        store::put_signup(&mut tx, token.hash(Purpose::SignUp), &signup, LIFETIME_S).await?;
    }
    mail::store::post(&mut tx, &letter).await?;
    let event = Event::new(Actor::Anonymous, "user.signup", Resource::kind("signup"));
    audit::record(&mut tx, Event { ip: peer, ..event }).await?;
    tx.commit().await.map_err(DbError::from)?;
    app.mail.nudge();
    Ok(email)
}

/// The answer to the letter: makes the account, as the owner of an organisation of its own.
///
/// # Errors
/// [`UserError::Spent`] for a token that leads nowhere; [`UserError::Conflict`] when the address has got an account meanwhile.
pub async fn verify_email(app: &App, token: &str, peer: Option<IpAddr>) -> Result<Proven, UserError> {
    const SPENT: UserError = UserError::Spent("this confirmation code");
    if !app.config.signup.enabled {
        return Err(UserError::SignupOff);
    }
    let token = OneTime::parse(token).ok_or(SPENT)?;
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let Signup { email, password_hash, display_name } =
        store::take_signup(&mut tx, token.hash(Purpose::SignUp)).await?.ok_or(SPENT)?;
    if store::email_is_taken(&mut tx, &email).await? {
        return Err(taken());
    }
    let (org_id, user_id) = (OrgId::random(), UserId::random());
    let name = rules::organisation_name(display_name.as_deref(), &email);
    orgs::store::insert_organisation(&mut tx, org_id, &name).await?;
    let user = NewUser { id: user_id, org_id, email, role: Role::Owner, password_hash, display_name };
    store::insert(&mut tx, &user).await.map_err(|error| match error {
        DbError::Duplicate(_) => taken(),
        error => error.into(),
    })?;
    let proven = Proven { org_id, user_id, epoch: 0 };
    let event = Event { resource: Resource::new("organisation", org_id), ..event_of(&proven, "org.create", peer) };
    audit::record(&mut tx, event.with("owner", user_id.to_string())).await?;
    audit::record(&mut tx, event_of(&proven, "user.create", peer)).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(proven)
}

fn taken() -> UserError {
    UserError::Conflict("this address has an account already: log in, or ask for a new password".to_owned())
}
