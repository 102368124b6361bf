//! Invitations in the database.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use super::{DAYS, Newcomer};
use crate::access::Role;
use crate::db::DbError;
use crate::ids::{InvitationId, OrgId, UserId};

/// An invitation; its token is not here.
#[derive(Clone, Debug, FromRow)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// The organisation.
    pub org_id: OrgId,
    /// Who is invited, in lower case.
    pub email: String,
    /// As what.
    pub role: Role,
    /// By whom; `None` is the operator.
    pub invited_by: Option<UserId>,
    /// Until when.
    pub expires_at: OffsetDateTime,
    /// Since when.
    pub created_at: OffsetDateTime,
}

macro_rules! columns {
    () => {
        "id, org_id, email, role, invited_by, expires_at, created_at"
    };
}

/// An organisation's name.
///
/// # Errors
/// As any statement.
pub async fn organisation(conn: &mut PgConnection, org_id: OrgId) -> Result<Option<String>, DbError> {
    Ok(sqlx::query_scalar("SELECT name FROM organisations WHERE id = $1").bind(org_id).fetch_optional(conn).await?)
}

/// The role of a member as it is now, with the row held `FOR SHARE`: it is not lowered before the transaction ends.
///
/// # Errors
/// As any statement.
pub async fn role_of(conn: &mut PgConnection, org_id: OrgId, id: Option<UserId>) -> Result<Option<Role>, DbError> {
    let role = sqlx::query_scalar("SELECT role FROM users WHERE id = $2 AND org_id = $1 AND is_active FOR SHARE")
        .bind(org_id)
        .bind(id)
        .fetch_optional(conn)
        .await?;
    Ok(role)
}

/// Whether an address is a member's.
///
/// # Errors
/// As any statement.
pub async fn is_member(conn: &mut PgConnection, org_id: OrgId, email: &str) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT 1 FROM users WHERE email = $2 AND org_id = $1 AND is_active")
        .bind(org_id)
        .bind(email)
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// Forgets what has expired.
///
/// # Errors
/// As any statement.
pub async fn forget_expired(conn: &mut PgConnection, org_id: OrgId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM invitations WHERE org_id = $1 AND expires_at <= now()").bind(org_id).execute(conn).await?;
    Ok(())
}

/// How many are open for other addresses.
///
/// # Errors
/// As any statement.
pub async fn count_others(conn: &mut PgConnection, org_id: OrgId, email: &str) -> Result<i64, DbError> {
    let count = sqlx::query_scalar("SELECT count(*) FROM invitations WHERE org_id = $1 AND email <> $2")
        .bind(org_id)
        .bind(email)
        .fetch_one(conn)
        .await?;
    Ok(count)
}

/// A new invitation, in the place of an older one of the same address.
///
/// # Errors
/// As any statement.
pub async fn put(
    conn: &mut PgConnection,
    org_id: OrgId,
    email: &str,
    role: Role,
    token_hash: &[u8; 32],
    invited_by: Option<UserId>,
) -> Result<Invitation, DbError> {
    let invitation = sqlx::query_as(concat!(
        "INSERT INTO invitations (id, org_id, email, role, token_hash, invited_by, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(days => $7))
         ON CONFLICT (org_id, email) DO UPDATE
            SET id = excluded.id, role = excluded.role, token_hash = excluded.token_hash, invited_by = excluded.invited_by,
                expires_at = excluded.expires_at, created_at = excluded.created_at
         RETURNING ",
        columns!()
    ))
    .bind(InvitationId::random())
    .bind(org_id)
    .bind(email)
    .bind(role)
    .bind(token_hash.as_slice())
    .bind(invited_by)
    .bind(DAYS)
    .fetch_one(conn)
    .await?;
    Ok(invitation)
}

/// The open invitations of an organisation, newest first.
///
/// # Errors
/// As any statement.
pub async fn list(conn: &mut PgConnection, org_id: OrgId) -> Result<Vec<Invitation>, DbError> {
    let invitations = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM invitations WHERE org_id = $1 AND expires_at > now() ORDER BY created_at DESC, id"
    ))
    .bind(org_id)
    .fetch_all(conn)
    .await?;
    Ok(invitations)
}

/// The organisation that an open invitation's token is for. Says nothing that [`take`] does not check again.
///
/// # Errors
/// As any statement. `Ok(None)`: it is the token of none.
pub async fn organisation_of(conn: &mut PgConnection, token_hash: &[u8; 32]) -> Result<Option<OrgId>, DbError> {
    let org_id = sqlx::query_scalar("SELECT org_id FROM invitations WHERE token_hash = $1 AND expires_at > now()")
        .bind(token_hash.as_slice())
        .fetch_optional(conn)
        .await?;
    Ok(org_id)
}

/// Uses up an open invitation.
///
/// # Errors
/// As any statement.
pub async fn take(conn: &mut PgConnection, token_hash: &[u8; 32]) -> Result<Option<Invitation>, DbError> {
    let taken = sqlx::query_as(concat!(
        "DELETE FROM invitations WHERE token_hash = $1 AND expires_at > now() RETURNING ",
        columns!()
    ))
    .bind(token_hash.as_slice())
    .fetch_optional(conn)
    .await?;
    Ok(taken)
}

/// Withdraws one, and gives its address.
///
/// # Errors
/// As any statement.
pub async fn delete(conn: &mut PgConnection, org_id: OrgId, id: InvitationId) -> Result<Option<String>, DbError> {
    let email = sqlx::query_scalar("DELETE FROM invitations WHERE id = $2 AND org_id = $1 RETURNING email")
        .bind(org_id)
        .bind(id)
        .fetch_optional(conn)
        .await?;
    Ok(email)
}

/// The invited, as a member whose address is proven: the token went there and nowhere else.
///
/// # Errors
/// [`DbError::Duplicate`] when the address has an account.
pub async fn insert_member(
    conn: &mut PgConnection,
    id: UserId,
    invitation: &Invitation,
    newcomer: &Newcomer,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO users (id, org_id, email, display_name, role, password_hash, email_verified_at) VALUES ($1, $2, $3, $4, $5, $6, now())",
    )
    .bind(id)
    .bind(invitation.org_id)
    .bind(&invitation.email)
    .bind(newcomer.display_name.as_deref())
    .bind(invitation.role)
    .bind(&newcomer.password_hash)
    .execute(conn)
    .await?;
    Ok(())
}
