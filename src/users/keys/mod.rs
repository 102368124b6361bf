//! Personal API keys: what a human's programs come in with. The key is shown once and kept as a hash.
//!
//! Scopes follow the agents' rule: a ceiling over secret paths where every one of them is a path glob, and nothing otherwise. A key with
//! such a ceiling reaches secrets and manages nothing (`Principal::is_limited`), so it makes no further keys.

pub mod api;
pub mod http;
pub mod store;

use time::OffsetDateTime;

use self::store::Key;
use super::{UserError, human};
use crate::access::tokens::{KeyKind, PlainKey};
use crate::access::{Credential, KeyRoot, Principal, input};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::clock::{rfc3339, to_microsecond};
use crate::db::DbError;
use crate::ids::ApiKeyId;
use crate::orgs::limits;

/// Keys that are not revoked, of one human.
pub const KEYS_MAX: i64 = 50;
/// Scopes of one key.
const SCOPES_MAX: usize = 100;
/// Characters of a scope.
const SCOPE_CHARS_MAX: usize = 1024;

/// A key that is asked for.
#[derive(Debug)]
pub struct Wanted {
    /// What it is for.
    pub name: String,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// When it stops.
    pub expires_at: Option<OffsetDateTime>,
}

/// Makes a key. One that is made with a key which ends must end no later: it would be a way to stay.
///
/// # Errors
/// [`UserError::Input`], [`UserError::Limit`], [`UserError::Ended`] when the request's own credential has ended meanwhile.
pub async fn create(app: &App, principal: &Principal, wanted: Wanted) -> Result<(Key, PlainKey), UserError> {
    let user_id = human(principal)?;
    let name = input::name("name", &wanted.name)?;
    let scope_fits = |scope: &String| {
        !scope.is_empty() && scope.chars().count() <= SCOPE_CHARS_MAX && !scope.chars().any(char::is_control)
    };
    if wanted.scopes.len() > SCOPES_MAX || !wanted.scopes.iter().all(scope_fits) {
        return Err(refused(&format!(
            "scopes must be at most {SCOPES_MAX} texts of 1 to {SCOPE_CHARS_MAX} characters without control characters"
        )));
    }
    let expires_at = wanted.expires_at.map(to_microsecond);
    if expires_at.is_some_and(|at| at <= crate::clock::now()) {
        return Err(refused("expires_at must be in the future"));
    }
    let plain = PlainKey::mint(KeyKind::User, &*app.hsm.random::<32>().await?);
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    limits::admit(&mut tx, principal.org_id, limits::Kind::ApiKeys).await?;
    super::store::lock_proven(&mut tx, principal, user_id).await?.ok_or(UserError::Ended)?;
    if store::count(&mut tx, user_id).await? >= KEYS_MAX {
        return Err(UserError::Limit(format!("API key limit reached ({KEYS_MAX}/{KEYS_MAX}): revoke one first")));
    }
    if let KeyRoot::User(own) = principal.credential.root()
        && let Some(end) = store::end_of(&mut tx, own).await?
        && expires_at.is_none_or(|at| at > end)
    {
        return Err(refused(&format!(
            "expires_at must be {} at the latest, when the key of this request ends",
            rfc3339(end)
        )));
    }
    let key = store::insert(&mut tx, principal.org_id, user_id, &name, &wanted.scopes, expires_at, &plain).await?;
    let event = Event::by(principal, "api_key.create", Resource::new("api_key", key.id))
        .with("name", key.name.as_str())
        .with("key_prefix", key.key_prefix.as_str())
        .with("scopes", key.scopes.clone())
        .with("expires_at", key.expires_at.map(rfc3339))
        .with("by_key", matches!(principal.credential, Credential::Key(_)));
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok((key, plain))
}

fn refused(text: &str) -> UserError {
    input::InputError(text.to_owned()).into()
}

/// The keys that are not revoked, oldest first.
///
/// # Errors
/// [`UserError::Refused`] for agents; or they could not be read.
pub async fn list(app: &App, principal: &Principal) -> Result<Vec<Key>, UserError> {
    let user_id = human(principal)?;
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    Ok(store::list(&mut conn, principal.org_id, user_id).await?)
}

/// Revokes a key, and with it the tokens that it was exchanged for.
///
/// # Errors
/// [`UserError::NotFound`], also for somebody else's; or it could not be done.
pub async fn revoke(app: &App, principal: &Principal, id: ApiKeyId) -> Result<(), UserError> {
    let user_id = human(principal)?;
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    super::store::lock_proven(&mut tx, principal, user_id).await?.ok_or(UserError::Ended)?;
    if !store::revoke(&mut tx, principal.org_id, user_id, id).await? {
        return Err(UserError::NotFound("API key"));
    }
    audit::record(&mut tx, Event::by(principal, "api_key.revoke", Resource::new("api_key", id))).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(())
}
