//! `/v1/org/members…`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api;
use super::rules::Refusal;
use super::{Member, MemberError, store};
use crate::access::http::{Ids, deny, require};
use crate::access::{Action, Principal, Role};
use crate::app::App;
use crate::audit::Resource;
use crate::clock::rfc3339;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, patch};
use crate::ids::UserId;

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/org/members", get(list, api::list()))
        .route("/v1/org/members/{user_id}", patch(change, api::change()).delete(remove, api::remove()))
}

fn render(member: &Member) -> Value {
    json!({
        "id": member.id,
        "email": member.email,
        "display_name": member.display_name,
        "role": member.role,
        "auth_method": member.auth_method,
        "created_at": rfc3339(member.created_at),
    })
}

/// A role of a request.
///
/// # Errors
/// 400.
pub(in crate::orgs) fn role_of(text: Option<&str>) -> Result<Role, Problem> {
    match text {
        Some("owner") => Ok(Role::Owner),
        Some("admin") => Ok(Role::Admin),
        Some("member") => Ok(Role::Member),
        _ => Err(Problem::bad_request("role must be owner, admin or member")),
    }
}

async fn list(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::MemberList, Resource::kind("member")).await?;
    let mut conn = app.db.acquire().await?;
    let members = store::list(&mut conn, principal.org_id).await?;
    Ok(Json(json!({ "members": members.iter().map(render).collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
struct ChangeMember {
    role: Option<String>,
}

/// Everybody may take less or leave, by what may change their account; the rest is for those who manage members, and decided with the rows held.
async fn change(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<UserId>,
    Body(request): Body<ChangeMember>,
) -> Result<Json<Value>, Problem> {
    require_manager(&app, &principal, id).await?;
    let role = role_of(request.role.as_deref())?;
    match super::set_role(&app, &principal, id, role).await {
        Ok(member) => Ok(Json(render(&member))),
        Err(error) => Err(explain(&app, &principal, "member.update", id, error).await),
    }
}

async fn remove(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<UserId>,
) -> Result<StatusCode, Problem> {
    require_manager(&app, &principal, id).await?;
    match super::remove(&app, &principal, id).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(explain(&app, &principal, "member.remove", id, error).await),
    }
}

/// Who changes their own membership needs no rights over others, but a credential that may change their account.
async fn require_manager(app: &App, principal: &Principal, id: UserId) -> Result<(), Problem> {
    let own = principal.user_id() == Some(id);
    let action = if own { Action::AccountManage } else { Action::MemberManage };
    require(app, principal, action, Resource::new("member", id)).await
}

async fn explain(app: &App, principal: &Principal, asked: &'static str, id: UserId, error: MemberError) -> Problem {
    let MemberError::Refused(refusal) = &error else { return error.into() };
    match deny(app, principal, asked, Resource::new("member", id), refusal).await {
        Ok(_) => error.into(),
        Err(problem) => problem,
    }
}

impl From<MemberError> for Problem {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::NotFound => Self::not_found(error.to_string()),
            MemberError::Refused(refusal @ Refusal::LastOwner) => Self::new(StatusCode::CONFLICT, refusal.to_string()),
            MemberError::Refused(refusal) => Self::forbidden(refusal.to_string()),
            MemberError::Db(error) => error.into(),
        }
    }
}
