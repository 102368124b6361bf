//! From a request to a claim with a key: who may ask, the static guardrails, the idempotency claim, and which key signs.

use std::sync::Arc;

use super::calldata::{self, Calls};
use super::error::IntentError;
use super::guardrails::{self, Facts, Seen};
use super::lanes::Lane;
use super::parse::{self, Request};
use super::shown;
use super::store::{self, Claim, IntentRow};
use crate::access::{Actor, Principal, SecretPath};
use crate::agents::{self, Agent};
use crate::app::App;
use crate::chain::Chain;
use crate::db::Connection;
use crate::ids::{AgentId, ClaimToken};
use crate::vaults::keys::{self, SigningKey};

/// A request by an agent that may make it.
pub struct Authorised {
    request: Request,
    principal: Principal,
    agent: Agent,
    chain: Arc<Chain>,
}

impl Authorised {
    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// What was asked for.
    #[must_use]
    pub fn into_request(self) -> Request {
        self.request
    }
}

/// What was found under an idempotency key.
pub enum Claimed {
    /// Nothing that stands in the way: this run may go on.
    Ours(Box<ClaimedRequest>),
    /// The transaction that an earlier run made.
    Replay(Box<IntentRow>),
}

/// A claim of an idempotency key.
#[derive(Clone, Copy, Debug)]
pub struct HeldClaim {
    /// SHA-256 of the key.
    pub key_hash: [u8; 32],
    /// Who may commit.
    pub token: ClaimToken,
}

/// A request that holds its idempotency key, if it came with one.
pub struct ClaimedRequest {
    authorised: Authorised,
    claim: Option<HeldClaim>,
}

impl ClaimedRequest {
    /// The claim, which a refusal gives back.
    #[must_use]
    pub fn claim(&self) -> Option<HeldClaim> {
        self.claim
    }
}

/// A request with its key.
pub struct Keyed {
    pub(super) request: Request,
    pub(super) calls: Calls,
    pub(super) principal: Principal,
    pub(super) agent: Agent,
    pub(super) chain: Arc<Chain>,
    pub(super) claim: Option<HeldClaim>,
    pub(super) key: SigningKey,
    /// The organisation or the installation wants it simulated. T1 asks again.
    pub(super) simulation_required: bool,
}

/// An agent that asks for itself, of a daemon that goes on. Nothing was looked up for it.
pub struct Asker<'a> {
    principal: &'a Principal,
    agent_id: AgentId,
}

/// Only the agent itself submits, and of a daemon that stops nobody.
pub fn admit<'a>(app: &App, principal: &'a Principal, agent_id: AgentId) -> Result<Asker<'a>, IntentError> {
    if app.stopping.is_cancelled() {
        return Err(IntentError::Stopping);
    }
    if principal.actor != Actor::Agent(agent_id) {
        return Err(IntentError::NotAllowed(
            "only the agent itself may submit: humans set its guardrails and read its transactions".to_owned(),
        ));
    }
    Ok(Asker { principal, agent_id })
}

/// While the agent is active and its intents flag is on. All of it is looked up again in T1.
pub async fn authorise(
    app: &Arc<App>,
    conn: &mut Connection,
    asker: &Asker<'_>,
    request: Request,
) -> Result<Authorised, IntentError> {
    let Asker { principal, agent_id } = *asker;
    let agent = agents::store::get(conn, principal.org_id, agent_id)
        .await?
        .ok_or_else(|| IntentError::NotFound("no such agent".to_owned()))?;
    if let Some(why) = why_not_signing(&agent, crate::clock::now()) {
        return Err(IntentError::NotAllowed(why.to_owned()));
    }
    let chain = app.chains.by_id(request.chain_id).ok_or_else(|| IntentError::NotFound("no such chain".to_owned()))?;
    if !chain.is_enabled() {
        return Err(IntentError::ChainDisabled(chain.spec().name.clone()));
    }
    Ok(Authorised { request, principal: principal.clone(), agent, chain })
}

/// Why nothing is signed for this agent now, if so. Asked early, and again in T1 with the agent's row held.
#[must_use]
pub fn why_not_signing(agent: &Agent, now: time::OffsetDateTime) -> Option<&'static str> {
    if !agent.is_active || agent.deleted_at.is_some() {
        Some("this agent is deactivated")
    } else if agent.expires_at.is_some_and(|at| at <= now) {
        Some("this agent has expired")
    } else if agent.frozen_at.is_some() {
        Some("this agent is frozen: nothing new is signed until a human lifts the freeze, see GET /v1/freezes")
    } else if !agent.intents_api_enabled {
        Some(
            "the Intents API is off for this agent: a human turns it on with PATCH /v1/agents/{id} {\"intents_api_enabled\": true}",
        )
    } else {
        None
    }
}

/// Claims the idempotency key in a short transaction of its own, then applies the guardrails that need nothing but the request.
pub async fn claim(
    app: &Arc<App>,
    conn: &mut Connection,
    authorised: Authorised,
    idempotency_key: Option<&[u8]>,
) -> Result<Claimed, IntentError> {
    let Some(text) = idempotency_key else {
        return Ok(Claimed::Ours(Box::new(ClaimedRequest { authorised, claim: None })));
    };
    let key_hash = parse::idempotency_key(text).ok_or(IntentError::BadIdempotencyKey)?;
    let agent = authorised.agent.id;
    let lease_s = app.config.intents.claim_lease_s;
    match store::claim(conn, agent, key_hash, authorised.request.hash(), lease_s).await? {
        Claim::Ours(token) => {
            let claim = Some(HeldClaim { key_hash, token });
            Ok(Claimed::Ours(Box::new(ClaimedRequest { authorised, claim })))
        }
        Claim::Done(id) => match shown::intent(conn, agent, id).await? {
            Some(row) => Ok(Claimed::Replay(Box::new(row))),
            None => Err(IntentError::NotFound("the transaction of this Idempotency-Key is gone".to_owned())),
        },
        Claim::InFlight => Err(IntentError::InFlight),
        Claim::Mismatch => Err(IntentError::IdempotencyMismatch),
    }
}

/// The static guardrails, then the key.
pub async fn resolve_key(conn: &mut Connection, claimed: Box<ClaimedRequest>) -> Result<Keyed, IntentError> {
    let ClaimedRequest { authorised, claim } = *claimed;
    let Authorised { request, agent, chain, .. } = &authorised;
    let calls = calldata::read(request.to, request.value.0, &request.data);
    let spec = chain.spec();
    let facts =
        Facts { chain: &spec.name, chain_id: spec.chain_id, signer: None, calls: &calls, gas: None, seen: Seen::Later };
    let violations = guardrails::check(&agent.guardrails, &facts);
    if !violations.is_empty() {
        return Err(IntentError::Guardrail(violations));
    }
    let key = find_key(conn, &authorised).await?;
    let Authorised { request, principal, agent, chain } = authorised;
    let lane = Lane { chain_id: request.chain_id, address: key.address };
    let standing = store::standing(conn, agent.org_id, agent.id, lane).await?;
    standing.refuse_frozen()?;
    let simulation_required = standing.simulation_required;
    Ok(Keyed { request, calls, principal, agent, chain, claim, key, simulation_required })
}

/// Which key signs: by the path that was named, or the agent's own, or the chain's default path.
pub async fn find_key(conn: &mut Connection, authorised: &Authorised) -> Result<SigningKey, IntentError> {
    let Authorised { request, principal, chain, .. } = authorised;
    let named = request.signing_key_path.as_deref().map(SecretPath::parse).transpose();
    let named = named.map_err(|error| IntentError::Parse(parse::ParseError(format!("signing_key_path: {error}"))))?;
    let key = keys::for_intent(conn, principal, named, &chain.spec().name).await?;
    if let Some(expected) = request.expected_from.filter(|from| *from != key.address) {
        return Err(IntentError::Parse(parse::ParseError(format!(
            "from: {expected} is not the address of the key at {}, which is {}",
            key.path, key.address
        ))));
    }
    Ok(key)
}
