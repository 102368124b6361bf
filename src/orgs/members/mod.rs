//! The humans of an organisation: their roles, and how somebody leaves.

pub mod api;
pub mod http;
pub mod rules;
pub mod store;

use sqlx::PgConnection;

use self::rules::{Change, Refusal, Standing};
use crate::access::{Principal, Role};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::ids::{OrgId, UserId};
use crate::users;

pub use store::Member;

/// Why a member was not changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Nobody of that id is in the organisation (404).
    #[error("no such member")]
    NotFound,
    /// Refused by a rule.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Could not be done.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for MemberError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// Gives a member a role.
///
/// # Errors
/// [`MemberError`].
pub async fn set_role(app: &App, principal: &Principal, id: UserId, role: Role) -> Result<Member, MemberError> {
    let mut tx = app.db.begin().await?;
    let target = decide(&mut tx, principal, id, Change::Role(role)).await?;
    if target.role != role {
        store::set_role(&mut tx, principal.org_id, id, role).await?;
        let event = Event::by(principal, "member.update", Resource::new("member", id))
            .with("before", serde_json::json!({ "role": target.role }))
            .with("after", serde_json::json!({ "role": role }));
        audit::record(&mut tx, event).await?;
    }
    let member = store::get(&mut tx, principal.org_id, id).await?.ok_or(MemberError::NotFound)?;
    tx.commit().await?;
    Ok(member)
}

/// Removes a member: keys, sessions and policies end with the commit.
///
/// # Errors
/// [`MemberError`].
pub async fn remove(app: &App, principal: &Principal, id: UserId) -> Result<(), MemberError> {
    let mut tx = app.db.begin().await?;
    decide(&mut tx, principal, id, Change::Remove).await?;
    end(&mut tx, principal, id).await?;
    tx.commit().await?;
    Ok(())
}

/// Ends a human's membership and account, without asking whether that may be: [`remove`] asks. In the caller's transaction, with the
/// owners held (see [`store::hold`]).
///
/// # Errors
/// [`MemberError`].
pub async fn end(conn: &mut PgConnection, principal: &Principal, id: UserId) -> Result<(), MemberError> {
    let member = store::get(conn, principal.org_id, id).await?.ok_or(MemberError::NotFound)?;
    let ended = users::store::erase(conn, principal.org_id, id).await?;
    let event = Event::by(principal, "member.remove", Resource::new("member", id))
        .with("email", member.email)
        .with("role", serde_json::json!(member.role))
        .with("policies_ended", ended.policies)
        .with("api_keys_ended", ended.api_keys);
    audit::record(conn, event).await?;
    Ok(())
}

/// Holds every owner, the caller and the target, and decides by what their rows say then. Two owners who demote each other at once wait
/// for each other here, and the second is an owner no more. Gives the target as it was.
async fn decide(
    conn: &mut PgConnection,
    principal: &Principal,
    id: UserId,
    change: Change,
) -> Result<Standing, MemberError> {
    let (by, target, owners) = held(conn, principal, id).await?;
    let by = by.ok_or(Refusal::NotManager)?;
    // Who may not see who is there is told that first.
    if by.id != id {
        rules::may_manage(by.role, Role::Member)?;
    }
    let target = target.ok_or(MemberError::NotFound)?;
    rules::check(by, target, change, owners)?;
    Ok(target)
}

async fn held(
    conn: &mut PgConnection,
    principal: &Principal,
    id: UserId,
) -> Result<(Option<Standing>, Option<Standing>, usize), DbError> {
    let org_id: OrgId = principal.org_id;
    let caller = principal.user_id();
    let held = store::hold(conn, org_id, caller, id).await?;
    let find = |id: UserId| held.iter().copied().find(|standing| standing.id == id);
    let owners = held.iter().filter(|standing| standing.role == Role::Owner).count();
    Ok((caller.and_then(find), find(id), owners))
}
