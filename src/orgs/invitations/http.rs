//! `/v1/org/invite`, `/v1/org/invitations…`, `/v1/auth/accept-invite`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api;
use super::{Invitation, InviteError, Inviter, Newcomer, Token, store};
use crate::access::http::{AuthPeer, Ids, deny, require};
use crate::access::throttle::{self, Throttle};
use crate::access::{Action, Principal, Role};
use crate::app::App;
use crate::audit::Resource;
use crate::clock::rfc3339;
use crate::config::Secret;
use crate::http::extract::Body;
use crate::http::limits::too_many;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, delete, get, post};
use crate::ids::InvitationId;
use crate::orgs::OrgError;
use crate::orgs::members::http::role_of;
use crate::users;

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/org/invite", post(invite, api::invite()))
        .route("/v1/org/invitations", get(list, api::list()))
        .route("/v1/org/invitations/{invitation_id}", delete(withdraw, api::withdraw()))
        .route("/v1/auth/accept-invite", post(accept, api::accept()))
}

/// Never the token.
fn render(invitation: &Invitation) -> Value {
    json!({
        "id": invitation.id,
        "email": invitation.email,
        "role": invitation.role,
        "status": "pending",
        "invited_by": invitation.invited_by,
        "expires_at": rfc3339(invitation.expires_at),
        "created_at": rfc3339(invitation.created_at),
    })
}

#[derive(Deserialize)]
struct InviteRequest {
    email: Option<String>,
    role: Option<String>,
}

async fn invite(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<InviteRequest>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::MemberInvite, Resource::kind("invitation")).await?;
    let email = request.email.ok_or_else(|| Problem::bad_request("email is required"))?;
    let role = request.role.map_or(Ok(Role::Member), |role| role_of(Some(&role)))?;
    let email = users::rules::email(&email)?;
    let mut conn = app.db.acquire().await?;
    let wait = throttle::take(&mut conn, Throttle::Invitation, throttle::key(&[email.as_bytes()])).await?;
    drop(conn);
    if let Some(wait) = wait {
        return Err(too_many("invitations of this address", wait));
    }
    match super::invite(&app.db, &app.hsm, Inviter::Member(&principal, &app.public_url()), &email, role).await {
        Ok((invitation, _)) => {
            app.mail.nudge();
            Ok(Json(render(&invitation)))
        }
        Err(error @ (InviteError::Refused(_) | InviteError::Limit(_))) => {
            match deny(&app, &principal, "member.invite", Resource::kind("invitation"), &error).await {
                Ok(_) => Err(error.into()),
                Err(problem) => Err(problem),
            }
        }
        Err(error) => Err(error.into()),
    }
}

async fn list(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::MemberInvite, Resource::kind("invitation")).await?;
    let mut conn = app.db.acquire().await?;
    let invitations = store::list(&mut conn, principal.org_id).await?;
    Ok(Json(json!({ "invitations": invitations.iter().map(render).collect::<Vec<_>>() })))
}

async fn withdraw(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<InvitationId>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::MemberInvite, Resource::new("invitation", id)).await?;
    if super::withdraw(&app.db, &principal, id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::not_found("no such invitation"))
}

#[derive(Deserialize)]
struct AcceptRequest {
    token: Option<String>,
    password: Option<String>,
    display_name: Option<String>,
}

/// The account is made here; a login follows with the password.
async fn accept(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Body(request): Body<AcceptRequest>,
) -> Result<Json<Value>, Problem> {
    let token = request.token.ok_or_else(|| Problem::bad_request("token is required"))?;
    let password = request.password.ok_or_else(|| Problem::bad_request("password is required"))?;
    let password = Secret::from(password);
    users::rules::new_password("password", password.expose())?;
    let display_name = super::display_name(request.display_name)?;
    let not_valid = || {
        app.auth_failures.count(None, peer);
        Problem::from(InviteError::NotValid)
    };
    let token_hash = Token::parse(&token).ok_or_else(not_valid)?.hash();
    // Before the password is hashed, which is slow by design.
    if store::organisation_of(&mut *app.db.acquire().await?, &token_hash).await?.is_none() {
        return Err(not_valid());
    }
    let password_hash = app.passwords.hash(&password, *app.hsm.random::<16>().await?).await?;
    let mut tx = app.db.begin().await?;
    let joined = super::accept(&mut tx, &token_hash, &Newcomer { display_name, password_hash, ip: peer }).await?;
    tx.commit().await?;
    Ok(Json(json!({
        "message": "The account is made: log in with the email address and the password.",
        "user_id": joined.user_id,
        "org_id": joined.org_id,
        "email": joined.email,
        "role": joined.role,
    })))
}

impl From<InviteError> for Problem {
    fn from(error: InviteError) -> Self {
        let text = error.to_string();
        match error {
            InviteError::Input(_) | InviteError::NotValid => Self::bad_request(text),
            InviteError::Refused(_) => Self::forbidden(text),
            InviteError::Limit(reached) => reached.into(),
            InviteError::Member | InviteError::TooMany | InviteError::EmailTaken => {
                Self::new(StatusCode::CONFLICT, text)
            }
            InviteError::NoOrganisation => Self::not_found(text),
            InviteError::Hsm(error) => error.into(),
            InviteError::Db(error) => error.into(),
        }
    }
}

impl From<OrgError> for Problem {
    fn from(error: OrgError) -> Self {
        match error {
            OrgError::Input(error) => error.into(),
            OrgError::EmailTaken => Self::new(StatusCode::CONFLICT, error.to_string()),
            OrgError::Hsm(error) => error.into(),
            OrgError::Db(error) => error.into(),
        }
    }
}
