//! What humans do with their own account.

use super::letters::Subject;
use super::store::{self, Profile};
use super::{UserError, human, letter, rules};
use crate::access::{Principal, Role};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::freezes;
use crate::mail;

/// What a human changes about themselves. A field that is not given stays as it is; an empty name is none.
#[derive(Debug)]
pub struct Change {
    /// The name to show.
    pub display_name: Option<String>,
    /// Stored for clients.
    pub marketing_emails: Option<bool>,
}

/// The account.
///
/// # Errors
/// [`UserError::Refused`] for agents; or it could not be read.
pub async fn profile(app: &App, principal: &Principal) -> Result<Profile, UserError> {
    let user_id = human(principal)?;
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    store::profile(&mut conn, principal.org_id, user_id).await?.ok_or(UserError::Ended)
}

/// Changes the account.
///
/// # Errors
/// [`UserError::Input`], [`UserError::Refused`] for agents; or it could not be done.
pub async fn change(app: &App, principal: &Principal, change: Change) -> Result<Profile, UserError> {
    let user_id = human(principal)?;
    let named = change.display_name.is_some();
    let display_name = rules::display_name(change.display_name)?;
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    store::lock(&mut tx, user_id).await?.ok_or(UserError::Ended)?;
    let name = named.then_some(display_name.as_deref());
    store::update_profile(&mut tx, principal.org_id, user_id, name, change.marketing_emails).await?;
    let mut event =
        Event::by(principal, "user.update", Resource::new("user", user_id)).with("display_name_changed", named);
    if let Some(wish) = change.marketing_emails {
        event = event.with("marketing_emails", wish);
    }
    audit::record(&mut tx, event).await?;
    let profile = store::profile(&mut tx, principal.org_id, user_id).await?.ok_or(UserError::Ended)?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(profile)
}

/// Erases the account: its keys, tokens and second factor end with it, its address is free, and its row stays for the audit trail.
///
/// The last owner stays while others depend on the organisation: nobody could manage what is left. One who is alone in it may go; the
/// organisation is then frozen for good.
///
/// # Errors
/// [`UserError::Conflict`] for such an owner, [`UserError::Refused`] for agents; or it could not be done.
pub async fn delete(app: &App, principal: &Principal) -> Result<(), UserError> {
    let user_id = human(principal)?;
    let recipient = profile(app, principal).await?.email;
    let letter = letter(app, &recipient, &Subject::AccountDeleted, principal.ip, None).await?;
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    freezes::store::close_gate(&mut tx, principal.org_id).await?;
    store::lock_organisation(&mut tx, principal.org_id).await?;
    let account = store::lock_proven(&mut tx, principal, user_id).await?.ok_or(UserError::Ended)?;
    let company = store::company(&mut tx, principal.org_id, user_id).await?;
    if account.role == Role::Owner && company.owners == 0 && (company.humans > 0 || company.agents > 0) {
        return Err(UserError::Conflict(format!(
            "you are the only owner of an organisation with {} other members and {} active agents: make somebody else an owner, or \
             remove the members and delete the agents, first",
            company.humans, company.agents
        )));
    }
    let last = company.humans == 0;
    store::erase(&mut tx, principal.org_id, user_id).await?;
    if last {
        let scope = freezes::Scope::Organisation(principal.org_id);
        freezes::store::put(&mut tx, principal.org_id, scope, "its last human left", audit::Actor::System).await?;
    }
    mail::store::post(&mut tx, &letter).await?;
    let event = Event::by(principal, "user.delete", Resource::new("user", user_id)).with("organisation_frozen", last);
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    app.mail.nudge();
    Ok(())
}
