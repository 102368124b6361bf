//! Organisations: how one begins, who is in it, and what it has set and may have.

pub mod http;
pub mod invitations;
pub mod limits;
pub mod members;
pub mod settings;
pub mod store;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgPool;

use crate::access::input::{self, InputError};
use crate::access::tokens::{KeyKind, PlainKey};
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::hsm::{Hsm, HsmError};
use crate::ids::{OrgId, UserId};

/// A new organisation, its owner, and the owner's API key, which is shown once.
#[derive(Debug)]
pub struct Bootstrapped {
    /// The organisation.
    pub org_id: OrgId,
    /// Its owner.
    pub user_id: UserId,
    /// The owner's key.
    pub api_key: PlainKey,
}

/// Why an organisation could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OrgError {
    /// A name or address that is none.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The address has an account already.
    #[error("there is an account with this email address already")]
    EmailTaken,
    /// No randomness from the HSM.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// As any statement.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Makes an organisation, its owner and a key for the owner, in one transaction. For the operator's own command line only.
///
/// # Errors
/// [`OrgError`].
pub async fn bootstrap(
    pool: &PgPool,
    hsm: &Hsm,
    organisation: &str,
    email: &str,
    password: Option<&SecretString>,
) -> Result<Bootstrapped, OrgError> {
    let name = input::name("organisation", organisation)?;
    let email = parse_email(email)?;
    let password_hash = match password {
        None => None,
        Some(password) => Some(hash_password(password, &*hsm.random::<16>().await?)?),
    };
    let api_key = PlainKey::mint(KeyKind::User, &*hsm.random::<32>().await?);
    let (org_id, user_id) = (OrgId::random(), UserId::random());

    let mut tx = pool.begin().await.map_err(DbError::from)?;
    store::insert_organisation(&mut tx, org_id, &name).await?;
    store::insert_owner(&mut tx, org_id, user_id, &email, password_hash).await.map_err(|error| match error {
        DbError::Duplicate(_) => OrgError::EmailTaken,
        error => error.into(),
    })?;
    store::insert_user_key(&mut tx, org_id, user_id, "bootstrap", &api_key).await?;
    let event = Event::by_system(org_id, "org.create", Resource::new("organisation", org_id))
        .with("owner", user_id.to_string());
    audit::record(&mut tx, event).await?;
    tx.commit().await.map_err(DbError::from)?;
    Ok(Bootstrapped { org_id, user_id, api_key })
}

/// Fewest characters of a password.
const PASSWORD_CHARS_MIN: usize = 12;
/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 1_024;

/// A new password as it is stored, hashed where it holds up no other request.
///
/// # Errors
/// [`OrgError::Input`] when it is too short or too long; or no randomness.
pub async fn new_password_hash(hsm: &Hsm, password: SecretString) -> Result<String, OrgError> {
    let text = password.expose_secret();
    if text.chars().count() < PASSWORD_CHARS_MIN || text.len() > PASSWORD_BYTES_MAX {
        return Err(InputError(format!("password must have at least {PASSWORD_CHARS_MIN} characters")).into());
    }
    let salt = hsm.random::<16>().await?;
    tokio::task::spawn_blocking(move || hash_password(&password, &salt))
        .await
        .map_err(|_| InputError("the password cannot be used".to_owned()))?
}

/// argon2id in PHC form, with the library's parameters (19 MiB, two passes) and the HSM's salt. Takes tens of milliseconds.
fn hash_password(password: &SecretString, salt: &[u8; 16]) -> Result<String, OrgError> {
    use argon2::{Argon2, PasswordHasher};
    let password = password.expose_secret().as_bytes();
    let hash: argon2::password_hash::phc::PasswordHash = Argon2::default()
        .hash_password_with_salt(password, salt)
        .map_err(|_| InputError("the password cannot be used".to_owned()))?;
    Ok(hash.to_string())
}

/// An address in lower case: one `@` with something on both sides, no spaces or control characters.
fn parse_email(text: &str) -> Result<String, InputError> {
    let email = text.trim().to_lowercase();
    let parts =
        email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    if !parts || email.chars().count() > 320 || email.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(InputError("email must be an email address".to_owned()));
    }
    Ok(email)
}
