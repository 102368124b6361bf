//! Accounts.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use crate::access::{self, Principal, Role};
use crate::db::DbError;
use crate::ids::{OrgId, UserId};
use crate::orgs::limits;

/// What a login needs to know of an account.
#[derive(FromRow)]
pub struct Account {
    /// The human.
    pub user_id: UserId,
    /// The organisation.
    pub org_id: OrgId,
    /// argon2id in PHC form, if there is a password.
    pub password_hash: Option<String>,
    /// Raised to end what rests on it.
    pub auth_epoch: i32,
    /// Whether a second factor is asked for.
    pub second_factor: bool,
}

/// The active account of an address.
///
/// # Errors
/// As any statement.
pub async fn account(conn: &mut PgConnection, email: &str) -> Result<Option<Account>, DbError> {
    let account = sqlx::query_as(
        "SELECT u.id AS user_id, u.org_id, u.password_hash, u.auth_epoch,
                EXISTS (SELECT 1 FROM second_factors f WHERE f.user_id = u.id AND f.confirmed_at IS NOT NULL) AS second_factor
         FROM users u WHERE u.email = $1 AND u.is_active",
    )
    .bind(email)
    .fetch_optional(conn)
    .await?;
    Ok(account)
}

/// Whether an address has an account, active or not.
///
/// # Errors
/// As any statement.
pub async fn email_is_taken(conn: &mut PgConnection, email: &str) -> Result<bool, DbError> {
    Ok(sqlx::query("SELECT 1 FROM users WHERE email = $1").bind(email).fetch_optional(conn).await?.is_some())
}

/// The same password under today's parameters, unless it was changed meanwhile.
///
/// # Errors
/// As any statement.
pub async fn rehash(conn: &mut PgConnection, id: UserId, old: &str, new: &str) -> Result<(), DbError> {
    sqlx::query("UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2")
        .bind(id)
        .bind(old)
        .bind(new)
        .execute(conn)
        .await?;
    Ok(())
}

/// A new human, whose address has been proven.
pub struct NewUser {
    /// The id.
    pub id: UserId,
    /// The organisation, which exists.
    pub org_id: OrgId,
    /// The address, in lower case.
    pub email: String,
    /// The role.
    pub role: Role,
    /// argon2id in PHC form.
    pub password_hash: String,
    /// The name to show.
    pub display_name: Option<String>,
}

/// Makes an account.
///
/// # Errors
/// [`DbError::Duplicate`] when the address has one.
pub async fn insert(conn: &mut PgConnection, user: &NewUser) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO users (id, org_id, email, role, password_hash, display_name, email_verified_at) VALUES ($1, $2, $3, $4, $5, $6, now())",
    )
    .bind(user.id)
    .bind(user.org_id)
    .bind(&user.email)
    .bind(user.role)
    .bind(&user.password_hash)
    .bind(user.display_name.as_deref())
    .execute(conn)
    .await?;
    Ok(())
}

/// An active human whose row is held.
#[derive(FromRow)]
pub struct Locked {
    /// The organisation.
    pub org_id: OrgId,
    /// The address.
    pub email: String,
    /// The role.
    pub role: Role,
    /// argon2id in PHC form.
    pub password_hash: Option<String>,
    /// Raised to end what rests on it.
    pub auth_epoch: i32,
}

/// Holds a human's row until the transaction ends: everything that changes what belongs to them begins with it.
///
/// # Errors
/// As any statement. `Ok(None)`: not there, or not active.
pub async fn lock(conn: &mut PgConnection, id: UserId) -> Result<Option<Locked>, DbError> {
    let locked = sqlx::query_as(
        "SELECT org_id, email, role, password_hash, auth_epoch FROM users WHERE id = $1 AND is_active FOR UPDATE",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(locked)
}

/// As [`lock`], if the credential of the request still holds too: for an effect that must not outlast it, such as a new key.
///
/// # Errors
/// As any statement. `Ok(None)`: the human or the credential has ended.
pub async fn lock_proven(
    conn: &mut PgConnection,
    principal: &Principal,
    id: UserId,
) -> Result<Option<Locked>, DbError> {
    let locked = lock(conn, id).await?;
    if locked.is_some() && access::store::still_proven(conn, principal).await? { Ok(locked) } else { Ok(None) }
}

/// The address and the password's hash of a human.
///
/// # Errors
/// As any statement.
pub async fn name_and_password(
    conn: &mut PgConnection,
    id: UserId,
) -> Result<Option<(String, Option<String>)>, DbError> {
    let row = sqlx::query_as("SELECT email, password_hash FROM users WHERE id = $1 AND is_active")
        .bind(id)
        .fetch_optional(conn)
        .await?;
    Ok(row)
}

/// A new password, and the end of everything that the old one had opened: tokens, links, logins and devices on their way. With
/// `verified`, it came by a letter to the address. Hold the human's row.
///
/// # Errors
/// As any statement.
pub async fn set_password(conn: &mut PgConnection, id: UserId, hash: &str, verified: bool) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE users SET password_hash = $2, auth_epoch = auth_epoch + 1,
                email_verified_at = CASE WHEN $3 THEN COALESCE(email_verified_at, now()) ELSE email_verified_at END WHERE id = $1",
    )
    .bind(id)
    .bind(hash)
    .bind(verified)
    .execute(&mut *conn)
    .await?;
    end_what_is_pending(conn, id).await
}

async fn end_what_is_pending(conn: &mut PgConnection, id: UserId) -> Result<(), DbError> {
    for sql in [
        "DELETE FROM password_resets WHERE user_id = $1",
        "DELETE FROM login_challenges WHERE user_id = $1",
        "DELETE FROM device_grants WHERE user_id = $1",
    ] {
        sqlx::query(sql).bind(id).execute(&mut *conn).await?;
    }
    Ok(())
}

/// What humans see of their own account.
#[derive(Debug, FromRow)]
pub struct Profile {
    /// The address.
    pub email: String,
    /// The name to show.
    pub display_name: Option<String>,
    /// The role.
    pub role: Role,
    /// Whether there is a password.
    pub has_password: bool,
    /// Whether the address was proven by a letter.
    pub email_verified: bool,
    /// Stored for clients.
    pub marketing_emails: bool,
    /// Whether a second factor is asked for.
    pub totp_enabled: bool,
    /// Since when.
    pub created_at: OffsetDateTime,
}

/// A human's own account.
///
/// # Errors
/// As any statement.
pub async fn profile(conn: &mut PgConnection, org_id: OrgId, id: UserId) -> Result<Option<Profile>, DbError> {
    let profile = sqlx::query_as(
        "SELECT email, display_name, role, password_hash IS NOT NULL AS has_password, email_verified_at IS NOT NULL AS email_verified,
                marketing_emails, created_at,
                EXISTS (SELECT 1 FROM second_factors f WHERE f.user_id = u.id AND f.confirmed_at IS NOT NULL) AS totp_enabled
         FROM users u WHERE id = $1 AND org_id = $2 AND is_active",
    )
    .bind(id)
    .bind(org_id)
    .fetch_optional(conn)
    .await?;
    Ok(profile)
}

/// Changes what is given: a name (`Some(None)` removes it), the wish for letters.
///
/// # Errors
/// As any statement.
pub async fn update_profile(
    conn: &mut PgConnection,
    org_id: OrgId,
    id: UserId,
    display_name: Option<Option<&str>>,
    marketing_emails: Option<bool>,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE users SET display_name = CASE WHEN $3 THEN $4 ELSE display_name END, marketing_emails = COALESCE($5, marketing_emails)
         WHERE id = $1 AND org_id = $2 AND is_active",
    )
    .bind(id)
    .bind(org_id)
    .bind(display_name.is_some())
    .bind(display_name.flatten())
    .bind(marketing_emails)
    .execute(conn)
    .await?;
    Ok(())
}

/// Holds an organisation's row and its limits: nobody joins it until the transaction ends. Not `FOR UPDATE`: whatever is written for a
/// human whose row is held refers to the organisation, and would wait here for whoever waits for that human.
///
/// # Errors
/// As any statement.
pub async fn lock_organisation(conn: &mut PgConnection, id: OrgId) -> Result<(), DbError> {
    sqlx::query("SELECT 1 FROM organisations WHERE id = $1 FOR NO KEY UPDATE").bind(id).execute(&mut *conn).await?;
    limits::store::get_for_update(conn, id).await?;
    Ok(())
}

/// Who else there is in a human's organisation.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct Company {
    /// Other active humans.
    pub humans: i64,
    /// Owners among them.
    pub owners: i64,
    /// Agents that may come in.
    pub agents: i64,
}

/// Who else there is. Hold the organisation's row.
///
/// # Errors
/// As any statement.
pub async fn company(conn: &mut PgConnection, org_id: OrgId, id: UserId) -> Result<Company, DbError> {
    let company = sqlx::query_as(
        "SELECT (SELECT count(*) FROM users WHERE org_id = $1 AND id <> $2 AND is_active) AS humans,
                (SELECT count(*) FROM users WHERE org_id = $1 AND id <> $2 AND is_active AND role = 'owner') AS owners,
                (SELECT count(*) FROM agents WHERE org_id = $1 AND is_active AND deleted_at IS NULL
                   AND (expires_at IS NULL OR expires_at > now())) AS agents",
    )
    .bind(org_id)
    .bind(id)
    .fetch_one(conn)
    .await?;
    Ok(company)
}

/// What ended with an account.
#[derive(Clone, Copy, Debug)]
pub struct Erased {
    /// Policies that granted to the human.
    pub policies: u64,
    /// Keys that were active.
    pub api_keys: u64,
}

/// Erases an account, whoever ends it: its row stays for what points at it, without name, address and password; its keys, tokens and
/// second factor end, and whatever policies granted to it; its address is free, and can be invited anew. Hold the human's row.
///
/// # Errors
/// As any statement.
pub async fn erase(conn: &mut PgConnection, org_id: OrgId, id: UserId) -> Result<Erased, DbError> {
    let ended = async |conn: &mut PgConnection, sql: &'static str| -> Result<u64, DbError> {
        Ok(sqlx::query(sql).bind(id).bind(org_id).execute(conn).await?.rows_affected())
    };
    let api_keys = "UPDATE user_api_keys SET is_active = false WHERE user_id = $1 AND org_id = $2 AND is_active";
    let api_keys = ended(conn, api_keys).await?;
    let policies = "DELETE FROM policies WHERE principal_type = 'user' AND principal_id = $1 AND org_id = $2";
    let policies = ended(conn, policies).await?;
    end_what_is_pending(conn, id).await?;
    sqlx::query("DELETE FROM second_factors WHERE user_id = $1").bind(id).execute(&mut *conn).await?;
    // RFC 2606: no mail ever goes to .invalid.
    sqlx::query(
        "UPDATE users SET email = id::text || '@deleted.invalid', display_name = NULL, password_hash = NULL, is_active = false,
                platform_admin = false, auth_epoch = auth_epoch + 1, deleted_at = now() WHERE id = $1 AND org_id = $2",
    )
    .bind(id)
    .bind(org_id)
    .execute(conn)
    .await?;
    Ok(Erased { policies, api_keys })
}
