//! Shares: a secret lent to a human, an agent, a mail address or whoever has the link, until a time and for so many openings.
//!
//! A share lends its maker's own right to read and is worth no more than that: at every opening the right is looked up again, with its
//! conditions held against whoever opens. What a share for a named recipient opens to is that recipient's credential; what the others
//! open to is the id itself, so it stands in no log line and no audit row (see [`Share::reference`]).

pub mod api;
pub mod http;
pub mod rules;
pub mod store;

mod open;
mod passphrase;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use self::rules::{Addressee, Closed, NewShare};
use crate::access::throttle::{self, Throttle};
use crate::access::{self, AccessError, Actor, Lock, Permission, Principal};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::hsm::HsmError;
use crate::ids::{OrgId, SecretId, ShareId, UserId};
use crate::mail::{self, Letter};
use crate::vaults;
use crate::vaults::secrets::{self, SecretError};

pub use open::{Opened, Visitor, find, open};

/// A share that is not revoked.
pub struct Share {
    /// Its id.
    pub id: ShareId,
    /// Its organisation.
    pub org_id: OrgId,
    /// What is shared.
    pub secret_id: SecretId,
    /// Whose right to read is lent.
    pub created_by: Actor,
    /// As the API writes it.
    pub recipient_type: String,
    /// Who alone may open it; `None`: whoever has the link.
    pub recipient: Option<Actor>,
    /// Where the link was sent.
    pub recipient_email: Option<String>,
    /// argon2id, in PHC form.
    pub passphrase_hash: Option<Arc<str>>,
    /// From where it may be opened; empty: from anywhere.
    pub ip_allowlist: Vec<String>,
    /// How often it may be opened.
    pub max_access_count: Option<i32>,
    /// How often it was.
    pub access_count: i32,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// The recipient said yes.
    pub accepted: bool,
    /// The recipient said no, which is final.
    pub declined: bool,
    /// Since when.
    pub created_at: OffsetDateTime,
}

impl Share {
    /// What the audit trail calls it: a hash, as the id of many a share is all that opens it.
    #[must_use]
    pub fn reference(&self) -> String {
        let hash = Sha256::new().chain_update(b"intentd share 1").chain_update(self.id.0.as_bytes()).finalize();
        hex::encode(&hash[..16])
    }

    fn resource(&self) -> Resource {
        Resource::new("share", self.reference())
    }
}

/// The rule that refused (403).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An agent sends no mail to the outside.
    #[error("Insufficient permissions: an agent may not share with an external address")]
    AgentMail,
    /// The private keys of agents are for the agents they are of.
    #[error("Insufficient permissions: the keys of agents are not shared")]
    AgentsKey,
    /// Neither its maker nor who manages the vault.
    #[error("Insufficient permissions: only who made the share, or manages its vault, may revoke it")]
    NotYours,
    /// Outside of its networks.
    #[error("this share may not be opened from this address")]
    Network,
    /// Missing or wrong: the same answer.
    #[error("this share opens with its passphrase only: send {{\"passphrase\": \"…\"}} as the body of the request")]
    Passphrase,
    /// The right that it lends is not there.
    #[error("this share does not open: who made it may not read the secret, or not now or not from here")]
    Lender,
    /// Beyond the recipient's own limits.
    #[error("Insufficient permissions: what is shared lies outside of what this agent is bound to")]
    Recipient,
    /// A key, and an agent with the Intents API; or one that the HSM holds.
    #[error("Insufficient permissions: what is shared is a key, which may not be read")]
    Key,
}

/// Why a share was not made, opened, answered or revoked.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// There is none, it is revoked, or it is not this principal's.
    #[error("no such share")]
    NotFound,
    /// It has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The recipient said no before.
    #[error("the share was declined")]
    Declined,
    /// The secret is.
    #[error("what was shared is gone: deleted, expired, or read as often as it may be")]
    Gone,
    /// A rule of shares says no; it is written down.
    #[error(transparent)]
    Refused(Refusal),
    /// The maker may not.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is nobody to share with.
    #[error("{0}")]
    NoRecipient(&'static str),
    /// Too many of something.
    #[error("too many {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// When there is one again.
        wait: Duration,
    },
    /// Too many passphrases are being worked on.
    #[error("too many passphrases are being checked: try again")]
    Busy,
    /// The HSM did not do it.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The database did not do it.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<AccessError> for ShareError {
    fn from(error: AccessError) -> Self {
        Self::Secret(error.into())
    }
}

/// Makes a share of a secret that the principal may read. What is refused counts against no limit.
///
/// # Errors
/// [`ShareError`]; then nothing was made.
pub async fn create(app: &App, principal: &Principal, secret_id: SecretId, new: NewShare) -> Result<Share, ShareError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    let (vault, path) = store::located(&mut conn, principal.org_id, secret_id)
        .await?
        .ok_or(ShareError::Secret(SecretError::NotFound))?;
    let granted = access::authorise(&mut conn, principal, &vault, &path, Permission::Read, Lock::None).await?;
    if vault.is_reserved() {
        return Err(ShareError::Refused(Refusal::AgentsKey));
    }
    let intents = secrets::store::intents_enabled(&mut conn, principal.org_id, principal.actor).await?;
    secrets::readable(&mut conn, &granted, intents).await?;
    if principal.agent_id().is_some() && matches!(new.addressee, Addressee::Email(_)) {
        return Err(ShareError::Refused(Refusal::AgentMail));
    }
    let creator = store::creator(&mut conn, principal).await?;
    let recipient = match recipient(&new.addressee, creator)? {
        Some((actor, missing)) if !store::is_active(&mut conn, principal.org_id, actor).await? => {
            return Err(ShareError::NoRecipient(missing));
        }
        found => found.map(|(actor, _)| actor),
    };
    let limit = throttle::key(&[principal.org_id.0.as_bytes()]);
    if let Some(wait) = throttle::take(&mut conn, Throttle::Share, limit).await? {
        return Err(ShareError::TooMany { what: "shares were made in this organisation", wait });
    }
    drop(conn);
    let passphrase_hash = match new.passphrase {
        None => None,
        Some(text) => Some(passphrase::hash(text, app.hsm.random::<16>().await?).await?.into()),
    };
    let share = Share {
        id: ShareId::random(),
        org_id: principal.org_id,
        secret_id,
        created_by: principal.actor,
        recipient_type: new.addressee.kind().to_owned(),
        recipient,
        recipient_email: match new.addressee {
            Addressee::Email(email) => Some(email),
            _ => None,
        },
        passphrase_hash,
        ip_allowlist: new.ip_allowlist,
        max_access_count: new.max_access_count,
        access_count: 0,
        expires_at: new.expires_at,
        accepted: false,
        declined: false,
        created_at: crate::clock::now(),
    };
    let letter = match &share.recipient_email {
        Some(email) => Some(mail::seal(&app.hsm, letter(&app.public_url(), email, &share)).await?),
        None => None,
    };

    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let vault = vaults::store::get_for_share(&mut tx, principal.org_id, vault.id).await?;
    let vault = vault.ok_or(ShareError::Secret(SecretError::NoVault))?;
    access::authorise(&mut tx, principal, &vault, &path, Permission::Read, Lock::Share).await?;
    store::insert(&mut tx, &share).await?;
    if let Some(letter) = &letter {
        mail::store::post(&mut tx, letter).await?;
    }
    let event = Event::by(principal, "share.create", share.resource())
        .with("secret_id", secret_id.to_string())
        .with("vault_id", vault.id.to_string())
        .with("path", path.as_str())
        .with("recipient_type", share.recipient_type.as_str())
        .with("recipient_id", share.recipient.map(|recipient| recipient.uuid().to_string()))
        .with("recipient_email", share.recipient_email.clone())
        .with("expires_at", crate::clock::rfc3339(share.expires_at))
        .with("max_access_count", share.max_access_count)
        .with("passphrase", share.passphrase_hash.is_some())
        .with("ip_allowlist", share.ip_allowlist.clone());
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    if letter.is_some() {
        app.mail.nudge();
    }
    Ok(share)
}

/// What somebody reads to whom a secret is lent by mail: neither its path, nor who lends it, nor its passphrase.
fn letter(url: &str, email: &str, share: &Share) -> Letter {
    let opens = match share.max_access_count {
        Some(count) => format!(", {count} times at most"),
        None => String::new(),
    };
    let passphrase = if share.passphrase_hash.is_some() {
        "You also need a passphrase, which whoever sent you this gives you in another way: it goes into the body of the request, as \
         {\"passphrase\": \"…\"}.\n\n"
    } else {
        ""
    };
    let body = format!(
        "Somebody lends you a secret. Whoever has this link can open it until {}{opens}:\n\n  {url}/v1/share/{}\n\n{passphrase}If you \
         do not know what this is about, delete this message.\n",
        crate::clock::rfc3339(share.expires_at),
        share.id
    );
    Letter {
        kind: "share",
        recipient: email.to_owned(),
        subject: "A secret is lent to you".into(),
        body: Zeroizing::new(body),
        expires_at: share.expires_at,
    }
}

/// Who alone is to open it, and what to say when there is no such human or agent. An id of another organisation is one that does not
/// exist.
fn recipient(addressee: &Addressee, creator: Option<UserId>) -> Result<Option<(Actor, &'static str)>, ShareError> {
    match addressee {
        Addressee::Email(_) | Addressee::AnyoneWithLink => Ok(None),
        Addressee::User(id) => Ok(Some((Actor::User(*id), "recipient_id: there is no such user"))),
        Addressee::Agent(id) => Ok(Some((Actor::Agent(*id), "recipient_id: there is no such agent"))),
        Addressee::Creator => {
            let human = creator.ok_or(ShareError::NoRecipient(
                "recipient_type creator is the human who registered the agent that shares: a human has none",
            ))?;
            Ok(Some((Actor::User(human), "the human who registered this agent is no longer active")))
        }
    }
}

/// The recipient's answer. Both may be said again; a decline is final.
///
/// # Errors
/// [`ShareError::NotFound`] for everybody else; [`ShareError::Declined`] and [`Closed`] for an acceptance that comes too late.
pub async fn answer(app: &App, principal: &Principal, id: ShareId, accepted: bool) -> Result<(), ShareError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let share = store::find_for_update(&mut tx, principal.org_id, id).await?;
    let share = share.filter(|share| share.recipient == Some(principal.actor)).ok_or(ShareError::NotFound)?;
    if accepted {
        if share.declined {
            return Err(ShareError::Declined);
        }
        rules::check_open(&share, crate::clock::now())?;
    }
    store::answer(&mut tx, id, accepted).await?;
    let action = if accepted { "share.accept" } else { "share.decline" };
    let event = Event::by(principal, action, share.resource()).with("secret_id", share.secret_id.to_string());
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(())
}

/// Revokes a share for good: its maker, or whoever manages the vault.
///
/// # Errors
/// [`ShareError::NotFound`] also for one that was revoked; [`Refusal::NotYours`].
pub async fn revoke(app: &App, principal: &Principal, id: ShareId) -> Result<(), ShareError> {
    let mut tx = app.db.begin().await.map_err(DbError::from)?;
    let share = store::find_for_update(&mut tx, principal.org_id, id).await?.ok_or(ShareError::NotFound)?;
    if share.created_by != principal.actor {
        let manages = match store::located(&mut tx, principal.org_id, share.secret_id).await? {
            Some((vault, _)) => access::store::grants(&mut tx, principal, &vault, Lock::None).await?.manages_vault(),
            None => principal.manages(),
        };
        if !manages {
            return Err(ShareError::Refused(Refusal::NotYours));
        }
    }
    store::revoke(&mut tx, id).await?;
    let event = Event::by(principal, "share.revoke", share.resource()).with("secret_id", share.secret_id.to_string());
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(())
}
