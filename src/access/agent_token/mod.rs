//! How agents prove who they are for a token: by key, by a client certificate that is pinned to them, or by an assertion of the
//! OpenID provider that vouches for them (RFC 7521, RFC 7523; without registration: what is trusted stands in the agent's row).

pub mod api;
pub mod assertion;
pub mod certificate;
pub mod http;
pub mod issuers;
pub mod store;

pub use issuers::Issuers;

use std::net::IpAddr;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use self::assertion::{Assertion, Expected};
use self::certificate::Certificate;
use self::issuers::IssuerError;
use self::store::KeylessAgent;
use super::jwt::Root;
use super::principal::Proof;
use super::store::AgentIdentity;
use super::{Actor, Credential, KeyRoot, Principal};
use crate::app::App;
use crate::db::DbError;
use crate::ids::{AgentId, OrgId};

/// `[oidc]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OidcConfig {
    /// `aud` that assertions of agents must have; `issuer` unless given. Environment: `INTENTD_OIDC_AUDIENCE`.
    pub audience: Option<String>,
}

/// An agent that has proven who it is, and what its token will rest on.
pub struct Proven {
    /// The agent as a principal.
    pub principal: Principal,
    /// The agent.
    pub agent: AgentIdentity,
    /// What the token rests on.
    pub root: Root,
    /// When what it showed ends, if its token must not outlive that.
    pub ends_at: Option<OffsetDateTime>,
    /// What may be used only once.
    pub once: Option<Once>,
}

/// An assertion that has an id is taken once.
#[derive(Clone, Copy, Debug)]
pub struct Once {
    /// SHA-256 over issuer and id.
    pub key: [u8; 32],
    /// Until when it must be remembered.
    pub until: OffsetDateTime,
}

/// Why no token is given.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// It does not hold. One answer for everything; with whom it would have been, if that much was proven.
    #[error("the credentials do not hold")]
    Refused(Option<(OrgId, Actor)>),
    /// Whether it holds could not be found out.
    #[error("the agent's identity provider cannot be asked now")]
    Unchecked(#[source] IssuerError),
    /// Likewise.
    #[error(transparent)]
    Db(#[from] DbError),
}

const REFUSED: ProofError = ProofError::Refused(None);

/// By the certificate of the connection: its fingerprint is the agent's, and it is valid now.
///
/// # Errors
/// [`ProofError`].
pub async fn by_certificate(
    app: &App,
    agent_id: AgentId,
    shown: Option<Certificate>,
    ip: Option<IpAddr>,
) -> Result<Proven, ProofError> {
    let Some(shown) = shown.filter(|shown| shown.is_valid_at(crate::clock::now())) else { return Err(REFUSED) };
    let agent = keyless(app, agent_id).await?;
    if agent.auth_method != "mtls" || agent.client_cert_fingerprint != Some(shown.fingerprint.to_string()) {
        return Err(REFUSED);
    }
    agent.admit(ip, shown.validity.map(|(_, until)| until), None)
}

/// By an assertion of its issuer. What can be told without asking the issuer is looked at first, so that rubbish makes no request.
///
/// # Errors
/// [`ProofError`]: an issuer that cannot be asked is not a refusal.
pub async fn by_assertion(app: &App, agent_id: AgentId, text: &str, ip: Option<IpAddr>) -> Result<Proven, ProofError> {
    let assertion = Assertion::read(text).map_err(|_| REFUSED)?;
    let agent = keyless(app, agent_id).await?;
    let (Some(issuer), Some(client_id)) = (&agent.oidc_issuer, &agent.oidc_client_id) else { return Err(REFUSED) };
    if agent.auth_method != "oidc_client_credentials" {
        return Err(REFUSED);
    }
    let audience = app.config.oidc.audience.as_deref().unwrap_or(&app.config.issuer);
    let expected = Expected { issuer, audience, client_id, now: crate::clock::now().unix_timestamp() };
    if let Err(reason) = assertion.check(&expected) {
        tracing::debug!(agent = %agent_id, %reason, "an assertion was refused");
        return Err(REFUSED);
    }
    let keys = app.issuers.keys(issuer, |keys| assertion.has_key_in(keys)).await.map_err(|error| match error {
        IssuerError::Refused(ref reason) => {
            tracing::warn!(agent = %agent_id, %reason, "an agent's issuer may not be asked");
            REFUSED
        }
        error => ProofError::Unchecked(error),
    })?;
    if !assertion.is_signed_by(&keys) {
        return Err(REFUSED);
    }
    let once = assertion.id().and_then(|id| {
        let until = OffsetDateTime::from_unix_timestamp(assertion.remembered_until()).ok()?;
        Some(Once { key: once_key(issuer, id), until })
    });
    agent.admit(ip, None, once)
}

async fn keyless(app: &App, id: AgentId) -> Result<KeylessAgent, ProofError> {
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    store::keyless_agent(&mut conn, id).await?.ok_or(REFUSED)
}

impl KeylessAgent {
    /// What it showed holds; whether it may come in is another question.
    fn admit(
        self,
        ip: Option<IpAddr>,
        ends_at: Option<OffsetDateTime>,
        once: Option<Once>,
    ) -> Result<Proven, ProofError> {
        let (agent, epoch) = (self.identity, self.auth_epoch);
        if !agent.admitted {
            return Err(ProofError::Refused(Some((agent.org_id, Actor::Agent(agent.id)))));
        }
        let principal = Principal {
            org_id: agent.org_id,
            actor: Actor::Agent(agent.id),
            role: None,
            platform_admin: false,
            credential: Credential::Key(KeyRoot::Epoch(epoch)),
            ip,
            ceiling: None,
            _proof: Proof,
            _place: None,
        };
        Ok(Proven { principal, agent, root: Root::Epoch(epoch), ends_at, once })
    }
}

fn once_key(issuer: &str, id: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((issuer.len() as u64).to_be_bytes());
    hash.update(issuer);
    hash.update(id);
    hash.finalize().into()
}
