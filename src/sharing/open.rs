//! Opening a share: who may, with which passphrase, and whether what it lends is still there.

use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::rules::{self, Closed};
use super::{Refusal, Share, ShareError, passphrase, store};
use crate::access::throttle::{self, Throttle};
use crate::access::{self, AccessError, Lock, Permission, Principal, SecretPath};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::ids::ShareId;
use crate::vaults::secrets::{self, SecretError};

/// Whoever opens a share.
#[derive(Clone, Copy)]
pub struct Visitor<'a> {
    /// Looked at where the share names its recipient.
    pub principal: Option<&'a Principal>,
    /// Where the request came from.
    pub ip: Option<IpAddr>,
}

/// What a share opened to.
pub struct Opened {
    /// The share, as it was before.
    pub share: Share,
    /// Where the secret is.
    pub path: SecretPath,
    /// Its type.
    pub kind: String,
    /// The value.
    pub value: Zeroizing<String>,
    /// How often the share was opened, this time included.
    pub access_count: i32,
}

/// A share that is not revoked, whoever asks. [`open`] looks who may know of it.
///
/// # Errors
/// [`ShareError::Db`].
pub async fn find(app: &App, id: ShareId) -> Result<Option<Share>, ShareError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    Ok(store::find(&mut conn, id).await?)
}

/// Opens a share to the latest version of its secret. Both counts (the share's and the secret's own) and the audit row are committed after
/// the value was decrypted and before it is given out.
///
/// # Errors
/// [`ShareError`]; who is not the recipient, and a recipient who has not accepted, find none.
pub async fn open(
    app: &App,
    share: Share,
    visitor: Visitor<'_>,
    passphrase: Option<Zeroizing<String>>,
) -> Result<Opened, ShareError> {
    if let Some(recipient) = share.recipient {
        let theirs = visitor.principal.is_some_and(|p| p.org_id == share.org_id && p.actor == recipient);
        if !theirs || !share.accepted || share.declined {
            return Err(ShareError::NotFound);
        }
    }
    let now = crate::clock::now();
    rules::check_open(&share, now)?;
    if !rules::admits(&share, visitor.ip, now) {
        return Err(refuse(app, &share, visitor, Refusal::Network, None).await?);
    }
    check_passphrase(app, &share, visitor, passphrase).await?;

    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let (vault, path) = store::located(&mut conn, share.org_id, share.secret_id).await?.ok_or(ShareError::Gone)?;
    let lent = access::authorise_absent(&mut conn, share.created_by, visitor.ip, &vault, &path, Permission::Read).await;
    let granted = match lent {
        Ok(granted) => granted,
        Err(AccessError::Denied(denial)) => {
            drop(conn);
            return Err(refuse(app, &share, visitor, Refusal::Lender, Some(denial.to_string())).await?);
        }
        Err(AccessError::Db(error)) => return Err(error.into()),
    };
    let mut intents = secrets::store::intents_enabled(&mut conn, share.org_id, share.created_by).await?;
    if let Some(principal) = visitor.principal.filter(|_| share.recipient.is_some()) {
        // A share is no way around what humans bound the recipient to.
        let own = access::store::grants(&mut conn, principal, &vault, Lock::None).await?;
        if let Err(denial) = own.check_limits(&path) {
            drop(conn);
            return Err(refuse(app, &share, visitor, Refusal::Recipient, Some(denial.to_string())).await?);
        }
        intents |= secrets::store::intents_enabled(&mut conn, principal.org_id, principal.actor).await?;
    }
    let current = secrets::readable(&mut conn, &granted, intents).await;
    drop(conn);
    let current = match current {
        Ok(current) => current,
        Err(SecretError::Refused(refusal)) => {
            return Err(refuse(app, &share, visitor, Refusal::Key, Some(refusal.to_string())).await?);
        }
        Err(SecretError::NotFound | SecretError::Deleted | SecretError::Expired | SecretError::Exhausted) => {
            return Err(ShareError::Gone);
        }
        Err(error) => return Err(error.into()),
    };
    let value = secrets::unseal(app, &granted, &current).await?;

    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    if !secrets::store::count_access(&mut tx, &granted, &current).await? {
        return Err(ShareError::Gone);
    }
    let Some(access_count) = store::count_opening(&mut tx, share.id).await? else {
        drop(tx);
        return Err(ended_meanwhile(app, share.id).await?);
    };
    let event = event(&share, visitor, "secret.read", Resource::new("secret", current.id))
        .with("vault_id", vault.id.to_string())
        .with("path", path.as_str())
        .with("version", current.version)
        .with("share", share.reference());
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(Opened { share, path, kind: current.kind, value, access_count })
}

/// Why the count did not go up.
async fn ended_meanwhile(app: &App, id: ShareId) -> Result<ShareError, ShareError> {
    let Some(share) = find(app, id).await?.filter(|share| !share.declined) else { return Ok(ShareError::NotFound) };
    // By the database's clock it has ended, by this machine's perhaps not quite.
    Ok(rules::check_open(&share, crate::clock::now()).err().unwrap_or(Closed::Expired).into())
}

/// Nothing is told of a wrong passphrase but that it is not the one. Only wrong ones count against the limit, which holds across daemons.
async fn check_passphrase(
    app: &App,
    share: &Share,
    visitor: Visitor<'_>,
    given: Option<Zeroizing<String>>,
) -> Result<(), ShareError> {
    let Some(hash) = &share.passphrase_hash else { return Ok(()) };
    let Some(given) = given.filter(|given| given.len() <= rules::PASSPHRASE_BYTES_MAX) else {
        return Err(refuse(app, share, visitor, Refusal::Passphrase, None).await?);
    };
    let key = throttle::key(&[share.id.0.as_bytes()]);
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    if let Some(wait) = throttle::take(&mut conn, Throttle::SharePassphrase, key).await? {
        return Err(ShareError::TooMany { what: "wrong passphrases for this share", wait });
    }
    drop(conn);
    // Taken before it is looked at, so that no number of guesses at once gets past the limit.
    let right = passphrase::verify(given, Arc::clone(hash)).await;
    if !matches!(right, Ok(false)) {
        let mut conn = app.db.acquire().await.map_err(DbError::from)?;
        throttle::give_back(&mut conn, Throttle::SharePassphrase, key).await?;
    }
    match right? {
        true => Ok(()),
        false => Err(refuse(app, share, visitor, Refusal::Passphrase, None).await?),
    }
}

fn event(share: &Share, visitor: Visitor<'_>, action: &'static str, resource: Resource) -> Event {
    let actor = match visitor.principal.filter(|_| share.recipient.is_some()) {
        Some(principal) => audit::Actor::Principal(principal.actor),
        None => audit::Actor::Anonymous,
    };
    Event { org_id: Some(share.org_id), ip: visitor.ip, ..Event::new(actor, action, resource) }
}

/// Writes down that a share was not opened. The cause is for its organisation, not for the reply.
async fn refuse(
    app: &App,
    share: &Share,
    visitor: Visitor<'_>,
    refusal: Refusal,
    cause: Option<String>,
) -> Result<ShareError, DbError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let event = event(share, visitor, "access.denied", share.resource())
        .with("asked", "share.open")
        .with("secret_id", share.secret_id.to_string())
        .with("reason", cause.unwrap_or_else(|| refusal.to_string()));
    audit::record(&mut conn, event).await?;
    Ok(ShareError::Refused(refusal))
}
