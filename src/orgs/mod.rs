//! Organisations: how one begins, who is in it, and what it has set and may have.

pub mod http;
pub mod invitations;
pub mod limits;
pub mod members;
pub mod settings;
pub mod store;

use sqlx::PgPool;

use crate::access::input::{self, InputError};
use crate::access::tokens::{KeyKind, PlainKey};
use crate::audit::{self, Event, Resource};
use crate::config::Secret;
use crate::db::DbError;
use crate::hsm::{Hsm, HsmError};
use crate::ids::{OrgId, UserId};
use crate::users::{password, rules};

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
    /// A name or address that is none, or a password that is too weak.
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
    password: Option<&Secret>,
) -> Result<Bootstrapped, OrgError> {
    let name = input::name("organisation", organisation)?;
    let email = rules::email(email)?;
    let password_hash = match password {
        None => None,
        Some(password) => {
            rules::new_password("the password", password.expose())?;
            Some(password::hash(password, &*hsm.random::<16>().await?)?)
        }
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
