//! Invitations: how somebody joins an organisation. The token goes to the address that is invited, and to nobody else: not to who
//! invites, who would otherwise make accounts in other people's names.

pub mod api;
pub mod http;
pub mod store;

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, PgPool};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::limits::{self, Kind, LimitError, Reached};
use super::members::rules::{self, Refusal};
use crate::access::input::{self, InputError};
use crate::access::{Actor, Principal, Role};
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::hsm::{Hsm, HsmError};
use crate::ids::{InvitationId, OrgId, UserId};
use crate::mail::{self, Letter};
use crate::users;

pub use store::Invitation;

/// How long an invitation holds.
pub const DAYS: i32 = 7;
/// Most open invitations of an organisation.
pub const OPEN_MAX: i64 = 100;
/// Characters of a token: base64url over 32 bytes.
const TOKEN_CHARS: usize = 43;

/// The token of an invitation, as it is in the letter. It has no SQL form: only its hash is stored.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Token(String);

impl Token {
    /// A new one from 32 random bytes.
    #[must_use]
    pub fn mint(random: &[u8; 32]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(random))
    }

    /// Reads what somebody sent; `None` when it has not the form of a token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let form =
            text.len() == TOKEN_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        form.then(|| Self(text.to_owned()))
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// The token itself, for the letter.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Who invites.
#[derive(Clone, Copy, Debug)]
pub enum Inviter<'a> {
    /// A human of the organisation, and what links begin with in the letter that they have sent.
    Member(&'a Principal, &'a str),
    /// Whoever runs the installation, at the machine.
    Operator(OrgId),
}

impl Inviter<'_> {
    fn org_id(self) -> OrgId {
        match self {
            Self::Member(principal, _) => principal.org_id,
            Self::Operator(org_id) => org_id,
        }
    }

    fn user_id(self) -> Option<UserId> {
        match self {
            Self::Member(principal, _) => principal.user_id(),
            Self::Operator(_) => None,
        }
    }

    fn event(self, action: &'static str, resource: Resource) -> Event {
        match self {
            Self::Member(principal, _) => Event::by(principal, action, resource),
            Self::Operator(org_id) => Event::by_system(org_id, action, resource),
        }
    }
}

/// Why nobody was invited, or nobody joined.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// An address or name that is none (400).
    #[error(transparent)]
    Input(#[from] InputError),
    /// The inviter may not (403).
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no room for another member (403).
    #[error(transparent)]
    Limit(#[from] Reached),
    /// They are in it already (409).
    #[error("there is a member with this email address already")]
    Member,
    /// Too many are open (409).
    #[error("{OPEN_MAX} invitations are open already: withdraw some with DELETE /v1/org/invitations/{{id}}")]
    TooMany,
    /// No such organisation (404).
    #[error("no such organisation")]
    NoOrganisation,
    /// Unknown, expired, withdrawn, used, or by somebody who may not invite any more (400).
    #[error("the invitation is not valid: unknown, expired, withdrawn or used; ask for a new one")]
    NotValid,
    /// The address has an account, in whatever organisation (409).
    #[error("there is an account with this email address already: one address has one account")]
    EmailTaken,
    /// No randomness from the HSM.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// Could not be done.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<LimitError> for InviteError {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Reached(reached) => reached.into(),
            LimitError::Db(error) => error.into(),
        }
    }
}

impl From<sqlx::Error> for InviteError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// Invites an address; an open invitation of the same one is replaced. Whether the address has an account in another organisation is not
/// said: that is told to whoever accepts.
///
/// # Errors
/// [`InviteError`].
pub async fn invite(
    pool: &PgPool,
    hsm: &Hsm,
    by: Inviter<'_>,
    email: &str,
    role: Role,
) -> Result<(Invitation, Token), InviteError> {
    let email = users::rules::email(email)?;
    let token = Token::mint(&*hsm.random::<32>().await?);
    let org_id = by.org_id();
    let organisation =
        store::organisation(&mut *pool.acquire().await?, org_id).await?.ok_or(InviteError::NoOrganisation)?;
    let letter = match by {
        Inviter::Member(_, url) => Some(mail::seal(hsm, letter(url, &organisation, &email, role, &token)).await?),
        Inviter::Operator(_) => None,
    };
    let mut tx = pool.begin().await?;
    // Members are always limited, so this also holds the row that makes invitations of one organisation wait for each other.
    limits::admit(&mut tx, org_id, Kind::Members).await?;
    if let Inviter::Member(principal, _) = by {
        let held = store::role_of(&mut tx, org_id, principal.user_id()).await?.ok_or(Refusal::NotManager)?;
        rules::may_manage(held, role)?;
    }
    if store::is_member(&mut tx, org_id, &email).await? {
        return Err(InviteError::Member);
    }
    store::forget_expired(&mut tx, org_id).await?;
    if store::count_others(&mut tx, org_id, &email).await? >= OPEN_MAX {
        return Err(InviteError::TooMany);
    }
    let invitation = store::put(&mut tx, org_id, &email, role, &token.hash(), by.user_id()).await?;
    if let Some(letter) = letter {
        mail::store::post(&mut tx, &letter).await?;
    }
    let event = by
        .event("member.invite", Resource::new("invitation", invitation.id))
        .with("email", invitation.email.as_str())
        .with("role", serde_json::json!(invitation.role));
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok((invitation, token))
}

/// What the invited reads. The organisation's name is what somebody chose who signed up: only what cannot become a link is repeated.
fn letter(url: &str, organisation: &str, email: &str, role: Role, token: &Token) -> Letter {
    let organisation = mail::plain(organisation);
    let role = match role {
        Role::Owner => "an owner",
        Role::Admin => "an admin",
        Role::Member => "a member",
    };
    let body = format!(
        "You are invited to join \"{organisation}\" as {role}.\n\nTo accept, open this link and choose a password:\n\n  \
         {url}/accept-invite#{}\n\nIt holds for {DAYS} days and works once. If you do not know what this is about, ignore this \
         message: nothing happens.\n",
        token.reveal()
    );
    Letter {
        kind: "invitation",
        recipient: email.to_owned(),
        subject: format!("Invitation to \"{organisation}\"").into(),
        body: Zeroizing::new(body),
        expires_at: crate::clock::now() + time::Duration::days(i64::from(DAYS)),
    }
}

/// Somebody who joins.
#[derive(Debug)]
pub struct Newcomer {
    /// The name to show.
    pub display_name: Option<String>,
    /// argon2id in PHC form.
    pub password_hash: String,
    /// Where the request came from.
    pub ip: Option<IpAddr>,
}

/// A new member.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The organisation.
    pub org_id: OrgId,
    /// The human.
    pub user_id: UserId,
    /// The address, which the token has proven.
    pub email: String,
    /// The role.
    pub role: Role,
}

/// Accepts an invitation, in the caller's transaction: it is used up, and the human is a member, with its commit. Of any number at once
/// with one token, one joins. What the inviter may not give any more is not given.
///
/// Locks the organisation's limits, as whoever invites does, then the invitation, then the inviter (shared).
///
/// # Errors
/// [`InviteError`]: `NotValid`, `EmailTaken`, `Limit`, or the database's.
pub async fn accept(
    conn: &mut PgConnection,
    token_hash: &[u8; 32],
    newcomer: &Newcomer,
) -> Result<Joined, InviteError> {
    let org_id = store::organisation_of(conn, token_hash).await?.ok_or(InviteError::NotValid)?;
    limits::admit(conn, org_id, Kind::Members).await?;
    let taken = store::take(conn, token_hash).await?.ok_or(InviteError::NotValid)?;
    let Invitation { id, role, invited_by, .. } = taken;
    if let Some(inviter) = invited_by {
        let held = store::role_of(conn, org_id, Some(inviter)).await?.ok_or(InviteError::NotValid)?;
        rules::may_manage(held, role).map_err(|_| InviteError::NotValid)?;
    }
    let user_id = UserId::random();
    store::insert_member(conn, user_id, &taken, newcomer).await.map_err(|error| match error {
        DbError::Duplicate(_) => InviteError::EmailTaken,
        error => error.into(),
    })?;
    let mut event =
        Event::new(audit::Actor::Principal(Actor::User(user_id)), "member.join", Resource::new("member", user_id))
            .with("invitation", id.to_string())
            .with("email", taken.email.as_str())
            .with("role", serde_json::json!(role));
    event.org_id = Some(org_id);
    event.ip = newcomer.ip;
    audit::record(conn, event).await?;
    Ok(Joined { org_id, user_id, email: taken.email, role })
}

/// Withdraws an invitation. `false`: there is none.
///
/// # Errors
/// As any statement.
pub async fn withdraw(pool: &PgPool, principal: &Principal, id: InvitationId) -> Result<bool, DbError> {
    let mut tx = pool.begin().await?;
    let Some(email) = store::delete(&mut tx, principal.org_id, id).await? else { return Ok(false) };
    let event = Event::by(principal, "member.invite_withdrawn", Resource::new("invitation", id)).with("email", email);
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(true)
}

/// A name that somebody gives themself; an empty one is none.
fn display_name(text: Option<String>) -> Result<Option<String>, InputError> {
    text.filter(|text| !text.trim().is_empty()).map(|text| input::name("display_name", &text)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organisations_name_is_no_link_in_a_letter() {
        let name = format!("Your bank: https://evil.example/x?y <b>\r\nBcc: x@y.z{}", "a".repeat(200));
        let Letter { subject, body, .. } =
            letter("https://intents.example", &name, "a@b.example", Role::Member, &Token::mint(&[7; 32]));
        assert!(subject.starts_with("Invitation to \"Your bank_ https___evil_example"), "{subject}");
        assert!(subject.chars().count() < 100 && !subject.contains(['\r', '\n']), "{subject}");
        for bad in ["evil.example", "https://evil", "<", "@", "Bcc:"] {
            assert!(!body.contains(bad), "{bad}: {}", body.as_str());
        }
    }

    #[test]
    fn threat_23_a_token_shows_in_its_letter_only() {
        let token = Token::mint(&[7; 32]);
        assert_eq!(token.reveal().len(), TOKEN_CHARS);
        assert!(Token::parse(token.reveal()).is_some_and(|again| again.hash() == token.hash()));
        assert_eq!(format!("{token:?}"), "Token(…)");
        for text in ["", &"a".repeat(42), &"a".repeat(44), &"=".repeat(43), &format!("{}ü", "a".repeat(41))] {
            assert!(Token::parse(text).is_none(), "{text:?}");
        }
    }
}
