//! `POST /v1/auth/agent-token`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api;
use super::certificate::{Certificate, Fingerprint};
use super::{Once, ProofError, Proven, store};
use crate::access::Principal;
use crate::access::http::{AuthPeer, claims, refused, sign};
use crate::access::jwt::{self, Claims, Root};
use crate::access::store::{effective_scopes, principal_by_agent_key, reachable_vaults};
use crate::access::tokens::{KeyKind, PlainKey};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::http::extract::{Body, connection};
use crate::http::problem::Problem;
use crate::http::routes::{Routes, post};
use crate::ids::AgentId;

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new().route("/v1/auth/agent-token", post(agent_token, api::agent_token()))
}

/// The certificate that the other end has proven to hold the key of: to us, or to a listed proxy that says so.
struct Shown(Option<Certificate>);

impl FromRequestParts<Arc<App>> for Shown {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Some(connection) = connection(parts) else { return Ok(Self(None)) };
        if app.config.limits.trusted_proxies.contains(connection.peer.ip()) {
            // The connection is the proxy's, and so is a certificate of it.
            return Ok(Self(told_by_proxy(app, parts)));
        }
        Ok(Self(connection.certificate.clone()))
    }
}

/// What a listed proxy tells in the configured headers. A header that comes twice, or two that disagree, tell nothing.
fn told_by_proxy(app: &App, parts: &Parts) -> Option<Certificate> {
    let config = &app.config.tls;
    let only = |name: &Option<String>| {
        let mut values = parts.headers.get_all(name.as_deref()?).iter();
        let value = values.next()?.to_str().map_or("?", str::trim);
        if values.next().is_some() { Some("?") } else { Some(value) }.filter(|value| !value.is_empty())
    };
    let certificate = only(&config.client_cert_header).map(Certificate::from_escaped_pem);
    let fingerprint = only(&config.client_fingerprint_header).map(Fingerprint::parse);
    match (certificate, fingerprint) {
        (Some(certificate), None) => certificate,
        (None, Some(fingerprint)) => fingerprint.map(|fingerprint| Certificate { fingerprint, validity: None }),
        (Some(certificate), Some(fingerprint)) => certificate.filter(|shown| Some(shown.fingerprint) == fingerprint),
        (None, None) => None,
    }
}

#[derive(Deserialize)]
struct AgentTokenRequest {
    api_key: Option<String>,
    agent_id: Option<String>,
    client_assertion: Option<String>,
}

/// An agent's token for its key, its certificate or an assertion of its issuer. With a key, `agent_id` is optional; a wrong one is
/// refused like a wrong key.
async fn agent_token(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Shown(certificate): Shown,
    Body(request): Body<AgentTokenRequest>,
) -> Result<Json<Value>, Problem> {
    let id = request.agent_id.as_deref().map(|id| id.parse::<AgentId>().ok());
    let (shown, proven) = match (request.api_key, request.client_assertion) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("send either api_key or client_assertion, not both"));
        }
        (Some(api_key), None) => {
            let proven = by_key(&app, &api_key, id, peer).await;
            (api_key, proven)
        }
        (None, assertion) => {
            let id = id.ok_or_else(|| {
                Problem::bad_request("api_key is required, or agent_id with a client certificate or a client_assertion")
            })?;
            let id = id.unwrap_or(AgentId(uuid::Uuid::nil()));
            match assertion {
                Some(assertion) => {
                    let proven = super::by_assertion(&app, id, &assertion, peer).await;
                    (assertion, proven)
                }
                None => (id.to_string(), super::by_certificate(&app, id, certificate, peer).await),
            }
        }
    };
    let proven = proven.map_err(|error| explain(&app, error, peer, &shown))?;
    match issue(&app, &proven).await? {
        Some(reply) => Ok(Json(reply)),
        None => Err(refused(&app, None, peer, &shown)),
    }
}

async fn by_key(
    app: &App,
    api_key: &str,
    id: Option<Option<AgentId>>,
    peer: Option<std::net::IpAddr>,
) -> Result<Proven, ProofError> {
    let Some(key) = PlainKey::parse(KeyKind::Agent, api_key) else { return Err(ProofError::Refused(None)) };
    let mut conn = app.db.acquire().await.map_err(crate::db::DbError::from)?;
    match principal_by_agent_key(&mut conn, &key, peer).await? {
        Ok((_, agent)) if id.is_some_and(|id| id != Some(agent.id)) => Err(ProofError::Refused(None)),
        Ok((principal, agent)) => {
            let root = Root::KeyPrefix(key.prefix().to_owned());
            Ok(Proven { principal, agent, root, ends_at: None, once: None })
        }
        Err(who) => Err(ProofError::Refused(who)),
    }
}

fn explain(app: &App, error: ProofError, peer: Option<std::net::IpAddr>, shown: &str) -> Problem {
    match error {
        ProofError::Refused(who) => refused(app, who, peer, shown),
        ProofError::Unchecked(_) => Problem::unavailable(
            "the agent's identity provider could not be asked, so the assertion was neither accepted nor refused: try again",
            5,
        ),
        ProofError::Db(error) => error.into(),
    }
}

/// Signs the token in the HSM, and writes the audit row without which nobody gets it. `None`: the assertion was used before.
async fn issue(app: &App, proven: &Proven) -> Result<Option<Value>, Problem> {
    let Proven { principal, agent, root, ends_at, once } = proven;
    let mut conn = app.db.acquire().await?;
    let vault_ids = reachable_vaults(&mut conn, agent).await?;
    let scopes = effective_scopes(&mut conn, agent).await?;
    drop(conn);
    let ttl_s = agent.token_ttl_seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(jwt::AGENT_TTL_S);
    // A token says no longer life than the agent has, or what it showed.
    let end = [agent.expires_at, *ends_at].into_iter().flatten().min();
    let left = end.map(|end| (end - crate::clock::now()).whole_seconds().max(1));
    let ttl_s = left.and_then(|left| u32::try_from(left).ok()).map_or(ttl_s, |left| left.min(ttl_s));
    let claims = Claims {
        scopes,
        vault_ids: vault_ids.iter().map(|id| id.0).collect(),
        intents_api_enabled: Some(agent.intents_api_enabled),
        ..claims(app, principal, root.clone(), ttl_s)
    };
    let token = sign(app, principal, &claims).await?;
    if !record(app, principal, &claims, once.as_ref()).await? {
        return Ok(None);
    }
    // Exactly these five fields.
    Ok(Some(json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": ttl_s,
        "agent_id": agent.id,
        "vault_ids": claims.vault_ids,
    })))
}

async fn record(app: &App, principal: &Principal, claims: &Claims, once: Option<&Once>) -> Result<bool, Problem> {
    let mut tx = app.db.begin().await?;
    if let Some(once) = once
        && !store::use_once(&mut tx, once).await?
    {
        return Ok(false);
    }
    let event = Event::by(principal, "auth.success", Resource::new("token", claims.jti)).with("expires_at", claims.exp);
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(true)
}
