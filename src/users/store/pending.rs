//! What waits for a link or a code: sign-ups, new passwords, second factors of logins.

use sqlx::{FromRow, PgConnection};

use crate::db::DbError;
use crate::ids::{OrgId, UserId};

/// Live sign-ups of one address.
const SIGNUPS_MAX: i32 = 5;
/// Live logins of one human that wait for a second factor.
const CHALLENGES_MAX: i32 = 10;

/// A sign-up that waits for its letter's answer.
#[derive(FromRow)]
pub struct Signup {
    /// The address, which its link has proven.
    pub email: String,
    /// argon2id in PHC form.
    pub password_hash: String,
    /// The name to show.
    pub display_name: Option<String>,
}

/// Keeps a sign-up for `lifetime_s`. The oldest of the address goes when there are too many; some that have ended go too.
///
/// # Errors
/// As any statement.
pub async fn put_signup(
    conn: &mut PgConnection,
    token_hash: [u8; 32],
    signup: &Signup,
    lifetime_s: i32,
) -> Result<(), DbError> {
    sqlx::query(
        "DELETE FROM signups WHERE token_hash IN
           (SELECT token_hash FROM signups WHERE expires_at < now() ORDER BY expires_at LIMIT 16 FOR UPDATE SKIP LOCKED)",
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "INSERT INTO signups (token_hash, email, password_hash, display_name, expires_at)
         VALUES ($1, $2, $3, $4, now() + $5 * interval '1 second')",
    )
    .bind(token_hash.as_slice())
    .bind(&signup.email)
    .bind(&signup.password_hash)
    .bind(signup.display_name.as_deref())
    .bind(lifetime_s)
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "DELETE FROM signups WHERE token_hash IN
           (SELECT token_hash FROM signups WHERE email = $1 ORDER BY created_at DESC OFFSET $2)",
    )
    .bind(&signup.email)
    .bind(SIGNUPS_MAX)
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes a sign-up by its token, once, and with it all others of the address.
///
/// # Errors
/// As any statement.
pub async fn take_signup(conn: &mut PgConnection, token_hash: [u8; 32]) -> Result<Option<Signup>, DbError> {
    let signup: Option<Signup> = sqlx::query_as(
        "DELETE FROM signups WHERE token_hash = $1 AND expires_at > now() RETURNING email, password_hash, display_name",
    )
    .bind(token_hash.as_slice())
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(signup) = &signup {
        sqlx::query("DELETE FROM signups WHERE email = $1").bind(&signup.email).execute(conn).await?;
    }
    Ok(signup)
}

/// The one live link to a new password.
///
/// # Errors
/// As any statement.
pub async fn put_reset(
    conn: &mut PgConnection,
    id: UserId,
    token_hash: [u8; 32],
    lifetime_s: i32,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO password_resets (user_id, token_hash, expires_at) VALUES ($1, $2, now() + $3 * interval '1 second')
         ON CONFLICT (user_id) DO UPDATE SET token_hash = EXCLUDED.token_hash, expires_at = EXCLUDED.expires_at",
    )
    .bind(id)
    .bind(token_hash.as_slice())
    .bind(lifetime_s)
    .execute(conn)
    .await?;
    Ok(())
}

/// Whose link it is, if it is live. Takes nothing.
///
/// # Errors
/// As any statement.
pub async fn reset_owner(conn: &mut PgConnection, token_hash: [u8; 32]) -> Result<Option<UserId>, DbError> {
    let id = sqlx::query_scalar("SELECT user_id FROM password_resets WHERE token_hash = $1 AND expires_at > now()")
        .bind(token_hash.as_slice())
        .fetch_optional(conn)
        .await?;
    Ok(id)
}

/// Takes the link, once. Hold the human's row.
///
/// # Errors
/// As any statement. `Ok(false)`: it was taken or replaced, or has ended.
pub async fn take_reset(conn: &mut PgConnection, id: UserId, token_hash: [u8; 32]) -> Result<bool, DbError> {
    let taken = sqlx::query(
        "DELETE FROM password_resets WHERE user_id = $1 AND token_hash = $2 AND expires_at > clock_timestamp()",
    )
    .bind(id)
    .bind(token_hash.as_slice())
    .execute(conn)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// A login that waits for its second factor.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct Challenge {
    /// The human.
    pub user_id: UserId,
    /// The organisation.
    pub org_id: OrgId,
    /// The epoch of the login.
    pub epoch: i32,
}

/// Keeps a login for `lifetime_s`. The oldest of the human goes when there are too many; some that have ended go too.
///
/// # Errors
/// As any statement.
pub async fn put_challenge(
    conn: &mut PgConnection,
    token_hash: [u8; 32],
    id: UserId,
    epoch: i32,
    lifetime_s: i32,
) -> Result<(), DbError> {
    sqlx::query(
        "DELETE FROM login_challenges WHERE token_hash IN
           (SELECT token_hash FROM login_challenges WHERE expires_at < now() ORDER BY expires_at LIMIT 16 FOR UPDATE SKIP LOCKED)",
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "INSERT INTO login_challenges (token_hash, user_id, epoch, expires_at) VALUES ($1, $2, $3, now() + $4 * interval '1 second')",
    )
    .bind(token_hash.as_slice())
    .bind(id)
    .bind(epoch)
    .bind(lifetime_s)
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "DELETE FROM login_challenges WHERE token_hash IN
           (SELECT token_hash FROM login_challenges WHERE user_id = $1 ORDER BY created_at DESC OFFSET $2)",
    )
    .bind(id)
    .bind(CHALLENGES_MAX)
    .execute(conn)
    .await?;
    Ok(())
}

/// A live login that waits. Takes nothing.
///
/// # Errors
/// As any statement.
pub async fn challenge(conn: &mut PgConnection, token_hash: [u8; 32]) -> Result<Option<Challenge>, DbError> {
    let challenge = sqlx::query_as(
        "SELECT c.user_id, u.org_id, c.epoch FROM login_challenges c
         JOIN users u ON u.id = c.user_id AND u.auth_epoch = c.epoch AND u.is_active
         WHERE c.token_hash = $1 AND c.expires_at > now()",
    )
    .bind(token_hash.as_slice())
    .fetch_optional(conn)
    .await?;
    Ok(challenge)
}

/// Takes it, once. Hold the human's row.
///
/// # Errors
/// As any statement. `Ok(false)`: it was taken, or has ended.
pub async fn take_challenge(conn: &mut PgConnection, token_hash: [u8; 32]) -> Result<bool, DbError> {
    let taken = sqlx::query("DELETE FROM login_challenges WHERE token_hash = $1 AND expires_at > clock_timestamp()")
        .bind(token_hash.as_slice())
        .execute(conn)
        .await?;
    Ok(taken.rows_affected() == 1)
}
