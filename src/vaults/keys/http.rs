//! `/v1/agents/{id}/signing-keys…`, and how errors about signing keys are answered.

use std::sync::Arc;

use alloy::primitives::Address;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ResolveError;
use super::api;
use super::provision::{self, CHAIN, ProvisionError, Version};
use super::store;
use crate::access::http::{Ids, require};
use crate::access::{Action, Principal};
use crate::address::parse_address;
use crate::agents;
use crate::app::App;
use crate::audit::Resource;
use crate::chain::balances::TokenBalance;
use crate::clock::rfc3339;
use crate::hsm::Custody;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, delete, get, post};
use crate::ids::AgentId;

/// Most token contracts that one request asks about.
const TOKENS_MAX: usize = 20;

/// The routes of this feature. There is none that gives a private key out.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/agents/{agent_id}/signing-keys", post(create, api::create()).get(list, api::list()))
        .route("/v1/agents/{agent_id}/signing-keys/{chain}", delete(deactivate, api::deactivate()))
        .route("/v1/agents/{agent_id}/signing-keys/{chain}/rotate", post(rotate, api::rotate()))
        .route("/v1/agents/{agent_id}/signing-keys/{chain}/balance", get(balance, api::balance()))
}

fn render(agent: AgentId, key: &Version) -> Value {
    // When it took the place of the one before, or lost its own.
    let rotated_at = key.superseded_at.or((key.version > 1).then_some(key.created_at));
    json!({
        "id": key.id,
        "agent_id": agent,
        "chain": CHAIN,
        "curve": "secp256k1",
        "public_key": format!("0x{}", hex::encode(key.public_key.to_bytes())),
        "address": key.public_key.address().to_checksum(None),
        "key_version": key.version,
        "is_active": key.active,
        "custody": key.custody,
        "created_at": rfc3339(key.created_at),
        "rotated_at": rotated_at.map(rfc3339),
    })
}

/// Every EVM chain of the registry, by name or id, is the one `ethereum` key's.
fn require_evm(app: &App, chain: &str) -> Result<(), Problem> {
    if chain == CHAIN || app.chains.get(chain).is_some() {
        return Ok(());
    }
    let shown: String = chain.chars().take(40).collect();
    Err(Problem::unprocessable(format!(
        "chain: {shown:?} has no signing keys here: EVM chains only, which all share the key \"{CHAIN}\"; GET /v1/chains lists them"
    )))
}

fn resource(agent: AgentId) -> Resource {
    Resource::new("agent", agent)
}

#[derive(Deserialize)]
struct KeyRequest {
    chain: Option<String>,
    custody: Option<String>,
}

impl KeyRequest {
    fn custody(&self) -> Result<Option<Custody>, Problem> {
        match self.custody.as_deref() {
            None => Ok(None),
            Some("wrapped") => Ok(Some(Custody::Wrapped)),
            Some("token") => Ok(Some(Custody::Token)),
            Some(_) => Err(Problem::bad_request(
                "custody must be \"wrapped\" (kept in the database, encrypted by the HSM) or \"token\" (an object of the HSM)",
            )),
        }
    }
}

async fn create(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(agent): Ids<AgentId>,
    Body(request): Body<KeyRequest>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    require(&app, &principal, Action::SigningKeyManage, resource(agent)).await?;
    let chain = request.chain.as_deref().ok_or_else(|| Problem::bad_request("chain is required: \"ethereum\""))?;
    require_evm(&app, chain)?;
    let key = provision::create(&app, &principal, agent, request.custody()?).await?;
    Ok((StatusCode::CREATED, Json(render(agent, &key))))
}

async fn rotate(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((agent, chain)): Ids<(AgentId, String)>,
    Body(request): Body<KeyRequest>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::SigningKeyManage, resource(agent)).await?;
    require_evm(&app, &chain)?;
    let key = provision::rotate(&app, &principal, agent, request.custody()?).await?;
    Ok(Json(render(agent, &key)))
}

async fn deactivate(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((agent, chain)): Ids<(AgentId, String)>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::SigningKeyManage, resource(agent)).await?;
    require_evm(&app, &chain)?;
    provision::deactivate(&app, &principal, agent).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Humans of the organisation, and the agent itself.
async fn may_look(app: &App, principal: &Principal, agent: AgentId) -> Result<(), Problem> {
    require(app, principal, Action::SigningKeyRead, resource(agent)).await?;
    let mut conn = app.db.acquire().await?;
    agents::store::get(&mut conn, principal.org_id, agent).await?.ok_or_else(|| Problem::not_found("no such agent"))?;
    if principal.agent_id().is_some_and(|own| own != agent) {
        return Err(Problem::forbidden("an agent may look at its own signing keys only"));
    }
    Ok(())
}

/// Every version, newest first: money may still be at an older one's address.
async fn list(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(agent): Ids<AgentId>,
) -> Result<Json<Value>, Problem> {
    may_look(&app, &principal, agent).await?;
    let mut conn = app.db.acquire().await?;
    let versions = store::versions(&mut conn, principal.org_id, agent).await?;
    let keys: Vec<Value> = versions.iter().map(|key| render(agent, key)).collect();
    // Clients read either name.
    Ok(Json(json!({ "keys": keys, "signing_keys": keys })))
}

#[derive(Deserialize)]
struct BalanceParams {
    tokens: Option<String>,
}

/// What the active key's address has on one chain.
async fn balance(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((agent, chain)): Ids<(AgentId, String)>,
    params: Result<Query<BalanceParams>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    may_look(&app, &principal, agent).await?;
    let Query(params) = params.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    require_evm(&app, &chain)?;
    let tokens = token_list(params.tokens.as_deref().unwrap_or_default())?;
    let chain = app
        .chains
        .get(&chain)
        .ok_or_else(|| Problem::unprocessable(format!("chain: {chain:?} is not in this daemon's registry")))?;
    let mut conn = app.db.acquire().await?;
    let key = store::provisioned(&mut conn, principal.org_id, agent).await?.ok_or(ProvisionError::NoKey)?;
    drop(conn);
    let unavailable = |error: &dyn std::fmt::Display| Problem::unavailable(error.to_string(), 5);
    let rpc = chain.rpc().await.map_err(|error| unavailable(&error))?;
    let native = rpc.balance(key.address).await.map_err(|error| unavailable(&error))?;
    let held = rpc.token_balances(key.address, &tokens).await.map_err(|error| unavailable(&error))?;
    let spec = chain.spec();
    let mut body = json!({
        "agent_id": agent,
        "chain": spec.name,
        "chain_id": spec.chain_id.0,
        "address": key.address.to_checksum(None),
        "symbol": spec.native_currency,
        "balance": native.to_units(),
        "balance_wei": native.to_string(),
        "tokens": [],
    });
    body["tokens"] = tokens.iter().zip(held).map(|(token, held)| render_token(*token, held)).collect();
    Ok(Json(body))
}

fn token_list(text: &str) -> Result<Vec<Address>, Problem> {
    let parts: Vec<&str> =
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).take(TOKENS_MAX + 1).collect();
    if parts.len() > TOKENS_MAX {
        return Err(Problem::bad_request(format!("tokens: at most {TOKENS_MAX} addresses")));
    }
    let read = |part: &&str| parse_address(part).map_err(|error| Problem::bad_request(format!("tokens: {error}")));
    parts.iter().map(read).collect()
}

fn render_token(token: Address, held: Result<TokenBalance, &'static str>) -> Value {
    let mut body = json!({ "address": token.to_checksum(None) });
    match held {
        Err(why) => body["error"] = json!(why),
        Ok(held) => {
            body["balance_raw"] = json!(held.raw.to_string());
            if let Some(decimals) = held.decimals {
                body["decimals"] = json!(decimals);
                body["balance"] = json!(held.in_units(decimals));
            }
            if let Some(symbol) = held.symbol {
                body["symbol"] = json!(symbol);
            }
        }
    }
    body
}

impl From<ProvisionError> for Problem {
    fn from(error: ProvisionError) -> Self {
        let text = error.to_string();
        match error {
            ProvisionError::NoAgent | ProvisionError::NoKey => Self::not_found(text),
            ProvisionError::Exists => Self::new(StatusCode::CONFLICT, text),
            ProvisionError::Contended => Self::unavailable(text, 1),
            ProvisionError::Access(error) => error.into(),
            ProvisionError::Hsm(error) => error.into(),
            ProvisionError::Db(error) => error.into(),
        }
    }
}

impl From<ResolveError> for Problem {
    fn from(error: ResolveError) -> Self {
        let text = error.to_string();
        match error {
            ResolveError::Forbidden(_) | ResolveError::Denied(_) | ResolveError::Anothers(_) => Self::forbidden(text),
            ResolveError::NoKey(_)
            | ResolveError::NotASigningKey(_)
            | ResolveError::Cmek(_)
            | ResolveError::NoPath(_)
            | ResolveError::Ambiguous { .. } => Self::unprocessable(text),
            ResolveError::NotActive => Self::new(StatusCode::CONFLICT, text),
            ResolveError::Db(error) => error.into(),
        }
    }
}
