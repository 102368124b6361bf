//! Authentication: every request's credential, and the routes that exchange keys for tokens.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::api;
use super::jwt::{self, Claims};
use super::tokens::{KeyKind, PlainKey};
use super::{AccessError, Action, Actor, Credential, Denial, Principal, store};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::http::extract::{Body, Peer};
use crate::http::problem::Problem;
use crate::http::routes::{Routes, delete, get, post};
use crate::ids::{OrgId, UserId};
use crate::metering;

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new()
        .merge(super::agent_token::http::routes())
        .route("/v1/auth/api-key-token", post(api_key_token, api::api_key_token()))
        .route("/v1/auth/token", delete(revoke_token, api::revoke_token()))
        .route("/v1/auth/refresh", post(refresh, api::refresh()))
        .route("/v1/auth/jwt-public-key", get(jwt_public_key, api::jwt_public_key()))
        .merge(super::ip_rules::http::routes())
}

/// Who sends this request: `Authorization: Bearer` with a token of ours, an agent's key or a human's.
///
/// # Errors
/// 401 with one text for everything that is wrong with a credential; 403 from an address that the organisation does not let in; 429; 503
/// when it could not be checked.
pub async fn authenticate(app: &Arc<App>, parts: &mut Parts) -> Result<Principal, Problem> {
    let peer = Peer::of(app, parts).0;
    let Some(credential) = bearer(&parts.headers) else {
        app.limits.check_peer(peer)?;
        return Err(Problem::unauthorized(
            "credentials are missing: send Authorization: Bearer with a token or an API key",
        ));
    };
    app.limits.check_credential(peer, credential)?;
    match look_up(app, credential, peer).await? {
        Ok(principal) => {
            app.limits.credential_held(credential);
            let agent_of = matches!(principal.actor, Actor::Agent(_)).then_some(principal.org_id.0);
            let place = app.limits.admit(principal.actor.uuid(), agent_of)?;
            app.ip_rules.admit(app, &principal).await?;
            app.meter.count(principal.org_id, metering::Kind::Requests);
            Ok(principal.in_its(place))
        }
        Err(who) => Err(refused(app, who, peer, credential)),
    }
}

/// Once more, for a request whose body was long in coming: with the same credential, the same principal as before.
///
/// # Errors
/// As [`authenticate`]; 403 when the role or the paths of the credential are others by now.
pub async fn authenticate_again(app: &Arc<App>, parts: &Parts, before: &Principal) -> Result<(), Problem> {
    let Some(credential) = bearer(&parts.headers) else { return Err(Problem::unauthorized("credentials are missing")) };
    let principal = match look_up(app, credential, before.ip).await? {
        Ok(principal) => principal,
        Err(who) => return Err(refused(app, who, before.ip, credential)),
    };
    app.ip_rules.admit(app, &principal).await?;
    if principal.may_the_same_as(before) {
        return Ok(());
    }
    let reason = "what these credentials may do has changed while the request was read: send it again";
    Err(deny(app, &principal, "request", Resource::kind("request"), reason).await?)
}

/// Whose credential it is, or whom to count the failure for. What has the form of no credential of ours costs no connection.
async fn look_up(
    app: &Arc<App>,
    credential: &str,
    peer: Option<IpAddr>,
) -> Result<Result<Principal, Option<(OrgId, Actor)>>, Problem> {
    if let Some(key) = PlainKey::parse(KeyKind::Agent, credential) {
        let mut conn = app.db.acquire().await?;
        let found = store::principal_by_agent_key(&mut conn, &key, peer).await?;
        Ok(found.map(|(principal, _)| principal))
    } else if let Some(key) = PlainKey::parse(KeyKind::User, credential) {
        let mut conn = app.db.acquire().await?;
        let found = store::principal_by_user_key(&mut conn, &key, peer).await?;
        Ok(found.inspect(|principal| app.last_used.note(principal)))
    } else if let Some(claims) = verify(app, credential) {
        let mut conn = app.db.acquire().await?;
        Ok(store::principal_by_token(&mut conn, &claims, peer).await?)
    } else if app.kek_look.is_too_old() && credential.matches('.').count() == 2 {
        // It may be signed by a key that this daemon has not heard of: that is not a refusal.
        Err(Problem::unavailable("this daemon was away and has not looked at the installation's keys again yet", 1))
    } else {
        Ok(Err(None))
    }
}

/// The credential of an `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, credential) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let credential = credential.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then_some(credential)
}

fn verify(app: &App, token: &str) -> Option<Claims> {
    app.hsm.jwt_public_keys().iter().find_map(|(_, key)| jwt::verify(key, &app.config.issuer, token).ok())
}

/// The one reply to a credential that does not hold, counted.
pub(super) fn refused(app: &App, who: Option<(OrgId, Actor)>, peer: Option<IpAddr>, credential: &str) -> Problem {
    app.auth_failures.count(who, peer);
    match app.limits.credential_failed(peer, credential) {
        Ok(()) => Problem::unauthorized("the credentials are not valid: unknown, expired, revoked or deactivated"),
        Err(too_many) => too_many,
    }
}

/// The peer of a request to an authentication route that its limit lets through. Taken before the body is read.
pub(crate) struct AuthPeer(pub(crate) Option<IpAddr>);

impl axum::extract::FromRequestParts<Arc<App>> for AuthPeer {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Peer(peer) = Peer::of(app, parts);
        app.limits.check_auth(peer)?;
        Ok(Self(peer))
    }
}

#[derive(Deserialize)]
struct ApiKeyTokenRequest {
    api_key: Option<String>,
}

/// A human's key for a token. Exactly three fields: strict decoders read this one.
async fn api_key_token(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Body(request): Body<ApiKeyTokenRequest>,
) -> Result<Json<Value>, Problem> {
    let api_key = request.api_key.ok_or_else(|| Problem::bad_request("api_key is required"))?;
    let Some(key) = PlainKey::parse(KeyKind::User, &api_key) else { return Err(refused(&app, None, peer, &api_key)) };
    let mut conn = app.db.acquire().await?;
    let principal = match store::principal_by_user_key(&mut conn, &key, peer).await? {
        Ok(principal) => principal,
        Err(who) => return Err(refused(&app, who, peer, &api_key)),
    };
    app.last_used.note(&principal);
    drop(conn);
    let root = jwt::Root::KeyPrefix(key.prefix().to_owned());
    let claims = claims(&app, &principal, root, jwt::USER_TTL_S);
    let token = issue(&app, &principal, &claims).await?;
    Ok(Json(json!({ "access_token": token, "token_type": "Bearer", "expires_in": jwt::USER_TTL_S })))
}

/// The claims that every token has.
pub(crate) fn claims(app: &App, principal: &Principal, root: jwt::Root, ttl_s: u32) -> Claims {
    claims_of(app, principal.org_id, principal.actor, root, ttl_s)
}

fn claims_of(app: &App, org_id: OrgId, actor: Actor, root: jwt::Root, ttl_s: u32) -> Claims {
    let iat = crate::clock::now().unix_timestamp();
    Claims {
        sub: jwt::subject(actor),
        org: org_id,
        scopes: Vec::new(),
        vault_ids: Vec::new(),
        iat,
        exp: iat + i64::from(ttl_s),
        iss: app.config.issuer.clone(),
        aud: app.config.issuer.clone(),
        jti: Uuid::new_v4(),
        root,
        intents_api_enabled: None,
    }
}

/// Signs a token in the HSM, for who comes from an address that the organisation lets in. Every token is made here.
pub(super) async fn sign(app: &App, principal: &Principal, claims: &Claims) -> Result<String, Problem> {
    app.ip_rules.admit(app, principal).await?;
    Ok(jwt::sign(&app.hsm, claims).await?)
}

/// Signs a token and writes the audit row, without which nobody gets it.
async fn issue(app: &App, principal: &Principal, claims: &Claims) -> Result<String, Problem> {
    let token = sign(app, principal, claims).await?;
    let mut conn = app.db.acquire().await?;
    let event = Event::by(principal, "auth.success", Resource::new("token", claims.jti)).with("expires_at", claims.exp);
    audit::record(&mut conn, event).await?;
    Ok(token)
}

/// A token for a human who has proven who they are without a key in this request: by password, second factor, letter or device code.
/// For `users` alone. What the token rests on is looked up as it would be for a request that carries it.
///
/// # Errors
/// When it cannot be looked up, signed or written down. `Ok(None)`: what it would rest on no longer holds.
pub(crate) async fn issue_to_human(
    app: &App,
    (org_id, user_id): (OrgId, UserId),
    root: jwt::Root,
    ttl_s: u32,
    peer: Option<IpAddr>,
) -> Result<Option<String>, Problem> {
    let claims = claims_of(app, org_id, Actor::User(user_id), root, ttl_s);
    let mut conn = app.db.acquire().await?;
    let found = store::principal_by_token(&mut conn, &claims, peer).await?;
    drop(conn);
    match found {
        Ok(principal) => Ok(Some(issue(app, &principal, &claims).await?)),
        Err(_) => Ok(None),
    }
}

/// Revokes the token that the request carries.
async fn revoke_token(
    State(app): State<Arc<App>>,
    _: AuthPeer,
    principal: Principal,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let Credential::Token { jti, .. } = principal.credential else {
        return Err(Problem::bad_request(
            "this request carries an API key, not a token: rotate or delete the key instead",
        ));
    };
    let exp = bearer(&headers).and_then(|token| verify(&app, token)).map(|claims| claims.exp);
    let expires_at = exp
        .and_then(|exp| OffsetDateTime::from_unix_timestamp(exp).ok())
        .ok_or_else(|| Problem::unauthorized("the credentials are not valid: the token has ended"))?;
    let mut tx = app.db.begin().await?;
    store::lock_root(&mut tx, &principal).await?;
    store::revoke(&mut tx, jti, expires_at).await?;
    audit::record(&mut tx, Event::by(&principal, "auth.revoke", Resource::new("token", jti))).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn refresh(_: AuthPeer) -> Problem {
    Problem::bad_request("there are no refresh tokens: exchange the API key again")
}

/// The raw 32 bytes that verify our tokens. Public.
async fn jwt_public_key(State(app): State<Arc<App>>, Peer(peer): Peer) -> Result<Json<Value>, Problem> {
    app.limits.check_peer(peer)?;
    let keys = app.hsm.jwt_public_keys();
    let (_, key) = keys.first().ok_or_else(|| Problem::unavailable("the HSM has no token key yet", 5))?;
    let mut body = json!({ "alg": "EdDSA", "public_key_base64": STANDARD.encode(key) });
    // While the key is rotated, who verifies tokens needs both.
    if keys.len() > 1 {
        let each = keys.iter().map(|(kid, key)| json!({ "kid": kid, "public_key_base64": STANDARD.encode(key) }));
        body["keys"] = each.collect();
    }
    Ok(Json(body))
}

/// Lets through who may do this; refuses, and writes down, everybody else.
///
/// # Errors
/// 403; and when the row cannot be written.
pub async fn require(app: &App, principal: &Principal, action: Action, resource: Resource) -> Result<(), Problem> {
    let who = action.who();
    if who.includes(principal) {
        return Ok(());
    }
    Err(deny(app, principal, action.as_str(), resource, who.refusal(principal)).await?)
}

/// Writes down that a principal was refused, and gives the reply.
///
/// # Errors
/// When the row cannot be written.
pub async fn deny(
    app: &App,
    principal: &Principal,
    asked: &'static str,
    resource: Resource,
    denial: impl std::fmt::Display,
) -> Result<Problem, Problem> {
    let reason = denial.to_string();
    let mut conn = app.db.acquire().await?;
    let event = Event::by(principal, "access.denied", resource).with("asked", asked).with("reason", reason.clone());
    audit::record(&mut conn, event).await?;
    Ok(Problem::forbidden(reason))
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        Self::forbidden(denial.to_string())
    }
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Denied(denial) => denial.into(),
            AccessError::Db(error) => error.into(),
        }
    }
}

impl From<super::input::InputError> for Problem {
    fn from(error: super::input::InputError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<crate::hsm::HsmError> for Problem {
    fn from(error: crate::hsm::HsmError) -> Self {
        use crate::hsm::HsmError;
        match &error {
            HsmError::Unavailable { .. } | HsmError::Busy { .. } | HsmError::Timeout | HsmError::UnknownKek { .. } => {
                tracing::warn!(error = %crate::http::problem::chain(&error), "the HSM could not serve a request");
                Self::unavailable(error.to_string(), u64::from(error.retry_after_s().unwrap_or(1)))
            }
            HsmError::Fatal { .. } => {
                tracing::error!(error = %crate::http::problem::chain(&error), "the HSM cannot be used");
                Self::unavailable("the HSM cannot be used; the daemon's log has the cause", 30)
            }
            HsmError::Invalid { what } => Self::unprocessable(*what),
            HsmError::Integrity { .. } | HsmError::NotFound | HsmError::Internal { .. } => Self::internal(&error),
        }
    }
}

/// The ids of a path. One that cannot be an id is nobody's: 404.
pub struct Ids<T>(pub T);

impl<T: serde::de::DeserializeOwned + Send> axum::extract::FromRequestParts<Arc<App>> for Ids<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, app).await {
            Ok(axum::extract::Path(ids)) => Ok(Self(ids)),
            Err(_) => Err(Problem::not_found("no such thing: an id in the path cannot be read; most ids are UUIDs")),
        }
    }
}
