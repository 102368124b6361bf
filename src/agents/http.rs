//! `/v1/agents…`. Humans make and change agents; an agent sees itself.

use std::sync::Arc;

use alloy::primitives::Address;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api;
use super::enroll::{self, Enrolment};
use super::identity::{self, Identity};
use super::request::AgentRequest;
use super::{Agent, store};
use crate::access::http::{AuthPeer, Ids, deny, require};
use crate::access::throttle::{self, Throttle};
use crate::access::tokens::{KeyKind, PlainKey};
use crate::access::{self, Action, Actor, Lock, Principal, input};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::clock::rfc3339;
use crate::http::extract::Body;
use crate::http::limits::too_many;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, post};
use crate::ids::{AgentId, VaultId};
use crate::intents::guardrails::{COUNT_UNIT, TOKEN_UNITS, chain_unit};
use crate::money::Wei;
use crate::orgs::{self, limits};
use crate::users;
use crate::vaults;
use crate::vaults::secrets::SecretError;

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/agents", post(create, api::create()).get(list, api::list()))
        .route("/v1/agents/me", get(me, api::me()))
        .route("/v1/agents/enroll", post(enroll, api::enroll()))
        .route(
            "/v1/agents/{agent_id}",
            get(read, api::read()).patch(change, api::change()).delete(remove, api::remove()),
        )
        .route("/v1/agents/{agent_id}/rotate-key", post(rotate_key, api::rotate_key()))
        .route("/v1/agents/{agent_id}/rotate-identity-keys", post(rotate_identity_keys, api::rotate_identity_keys()))
        .route("/v1/org/agent-keys-vault", get(agent_keys_vault, api::agent_keys_vault()))
}

fn not_found() -> Problem {
    Problem::not_found("no such agent")
}

/// Agents are made and changed by the humans who manage the organisation, never by agents.
async fn require_manager(app: &App, principal: &Principal, action: Action, id: Option<AgentId>) -> Result<(), Problem> {
    require(app, principal, action, id.map_or(Resource::kind("agent"), |id| Resource::new("agent", id))).await
}

async fn create(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<AgentRequest>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    require_manager(&app, &principal, Action::AgentRegister, None).await?;
    let Actor::User(user_id) = principal.actor else {
        return Err(Problem::forbidden("only humans may register agents"));
    };
    if !request.has_name() {
        return Err(Problem::bad_request("name is required"));
    }
    let mut agent = Agent::blank(AgentId::random(), principal.org_id, user_id, crate::clock::now());
    request.apply_auth_method(&mut agent)?;
    check_issuer(&app, &agent)?;
    request.apply(&mut agent, |chain| canonical_chain(&app, chain))?;
    let key = match agent.auth_method.as_str() {
        "api_key" => Some(PlainKey::mint(KeyKind::Agent, &*app.hsm.random::<32>().await?)),
        _ => None,
    };

    let identity = Identity::make(&app.hsm).await?.seal(&app, principal.org_id, agent.id).await?;

    let mut tx = app.db.begin().await?;
    if let Err(error) = limits::admit(&mut tx, principal.org_id, limits::Kind::Agents).await {
        drop(tx);
        return Err(limits::http::explain(&app, &principal, "agent.register", Resource::kind("agent"), error).await);
    }
    refuse_unknown(vaults::store::first_unknown(&mut tx, principal.org_id, &agent.vault_ids).await?)?;
    store::insert(&mut tx, &agent, key.as_ref()).await?;
    let written = Event::by(&principal, "secret.write", Resource::kind("secret"));
    if !identity.store(&mut tx, &mut agent, principal.actor, &written).await? {
        return Err(SecretError::Contended.into());
    }
    let event = Event::by(&principal, "agent.register", Resource::new("agent", agent.id)).with("agent", agent.render());
    audit::record(&mut tx, event).await?;
    tx.commit().await?;

    let mut body = json!({ "agent": agent.render() });
    if let Some(key) = key {
        body["api_key"] = json!(key.reveal());
    }
    Ok((StatusCode::CREATED, Json(body)))
}

async fn list(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::AgentRead, Resource::kind("agent")).await?;
    let mut conn = app.db.acquire().await?;
    let mut agents = match principal.actor {
        Actor::User(_) => store::list(&mut conn, principal.org_id).await?,
        Actor::Agent(id) => store::get(&mut conn, principal.org_id, id).await?.into_iter().collect(),
    };
    vaults::keys::store::add_addresses(&mut conn, principal.org_id, &mut agents).await?;
    Ok(Json(json!({ "agents": agents.iter().map(Agent::render).collect::<Vec<_>>() })))
}

async fn me(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    let Actor::Agent(id) = principal.actor else { return Err(Problem::forbidden("only agents have this route")) };
    let mut conn = app.db.acquire().await?;
    let agent = store::get(&mut conn, principal.org_id, id).await?.ok_or_else(not_found)?;
    let mut body = json!({
        "id": agent.id,
        "name": agent.name,
        "org_id": agent.org_id,
        "scopes": agent.scopes,
        "is_active": agent.is_active,
        "intents_api_enabled": agent.intents_api_enabled,
        "created_by": agent.created_by,
        "created_at": rfc3339(agent.created_at),
        "shroud_enabled": agent.shroud_enabled,
    });
    let optional = [
        ("description", agent.description.map(Value::from)),
        ("expires_at", agent.expires_at.map(|at| rfc3339(at).into())),
        ("ssh_public_key", agent.ssh_public_key.map(|key| STANDARD.encode(key).into())),
        ("ecdh_public_key", agent.ecdh_public_key.map(|key| STANDARD.encode(key).into())),
        ("shroud_config", agent.shroud_config),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    Ok(Json(body))
}

async fn read(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<AgentId>,
) -> Result<Json<Map<String, Value>>, Problem> {
    require(&app, &principal, Action::AgentRead, Resource::new("agent", id)).await?;
    let mut conn = app.db.acquire().await?;
    let mut agent = store::get(&mut conn, principal.org_id, id).await?.ok_or_else(not_found)?;
    if principal.agent_id().is_some_and(|own| own != id) {
        return Err(Problem::forbidden("an agent may look at itself only"));
    }
    vaults::keys::store::add_addresses(&mut conn, principal.org_id, std::slice::from_mut(&mut agent)).await?;
    let mut body = agent.render();
    if agent.guardrails.has_rules_beyond_amounts() {
        body.extend(spent_today(&app, &agent, &store::spent(&mut conn, id).await?));
    }
    Ok(Json(body))
}

/// What counts of the rolling 24 hours, where a limit of the newer kinds counts it. Clients that know only the older ones read strictly.
fn spent_today(app: &App, agent: &Agent, spent: &[(String, Wei, Wei)]) -> Map<String, Value> {
    let rails = &agent.guardrails;
    let of = |unit: &str| spent.iter().find(|(own, ..)| own == unit).map_or(Wei::ZERO, |(_, value, _)| *value);
    let mut body = Map::new();
    let mut groups = spent.iter().filter(|(unit, ..)| !unit.contains(':'));
    if let (true, Some((_, value, _)), None) = (rails.daily_limit.is_some(), groups.next(), groups.next()) {
        body.insert("tx_spent_today".to_owned(), json!(value.to_units()));
    }
    if rails.max_per_day.is_some() {
        body.insert("tx_count_today".to_owned(), json!(u64::try_from(of(COUNT_UNIT).0).unwrap_or(u64::MAX)));
    }
    let limited = rails.per_chain.iter().filter(|(_, own)| own.daily_limit.is_some() || own.gas_daily_budget.is_some());
    let chains: Map<String, Value> = limited
        .filter_map(|(name, _)| {
            let chain_id = app.chains.get(name)?.spec().chain_id;
            Some((name.clone(), json!(of(&chain_unit(chain_id)).to_units())))
        })
        .collect();
    if !chains.is_empty() {
        body.insert("tx_spent_today_by_chain".to_owned(), Value::Object(chains));
    }
    if rails.token_limits.iter().any(|limit| limit.daily_limit.is_some()) {
        let tokens = spent.iter().filter_map(|(unit, value, _)| {
            let (chain_id, token) = unit.strip_prefix(TOKEN_UNITS)?.split_once(':')?;
            let chain = app.chains.get(chain_id)?.spec().name.clone();
            let token: Address = token.parse().ok()?;
            Some(json!({ "chain": chain, "token": token.to_checksum(None), "amount": value.to_string() }))
        });
        body.insert("tx_token_spent_today".to_owned(), tokens.collect());
    }
    body
}

async fn change(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<AgentId>,
    Body(request): Body<AgentRequest>,
) -> Result<Json<Map<String, Value>>, Problem> {
    require_manager(&app, &principal, Action::AgentUpdate, Some(id)).await?;
    let mut tx = app.db.begin().await?;
    let before = store::get_for_update(&mut tx, principal.org_id, id).await?.ok_or_else(not_found)?;
    let mut after = before.clone();
    let confirmed = request.confirm_unrestricted == Some(true);
    request.apply_auth_method(&mut after)?;
    if after.oidc_issuer != before.oidc_issuer {
        check_issuer(&app, &after)?;
    }
    request.apply(&mut after, |chain| canonical_chain(&app, chain))?;
    if after.vault_ids != before.vault_ids {
        refuse_unknown(vaults::store::first_unknown(&mut tx, principal.org_id, &after.vault_ids).await?)?;
    }
    let lifted = before.lifted(&after);
    if !lifted.is_empty()
        && !confirmed
        && orgs::settings::store::get(&mut tx, principal.org_id).await?.guardrail_widening_requires_confirm
    {
        return Err(Problem::unprocessable(format!(
            "this lifts {} and leaves the agent unrestricted there: send \"confirm_unrestricted\": true if that is meant",
            lifted.join(", ")
        )));
    }
    store::update(&mut tx, &after).await?;
    if before.ends_proof(&after) {
        store::replace_auth(&mut tx, &after).await?;
    }
    let (old, new) = differences(&before.render(), &after.render());
    let event = Event::by(&principal, "agent.update", Resource::new("agent", id))
        .with("before", old)
        .with("after", new)
        .with("lifted", lifted);
    audit::record(&mut tx, event).await?;
    vaults::keys::store::add_addresses(&mut tx, principal.org_id, std::slice::from_mut(&mut after)).await?;
    tx.commit().await?;
    Ok(Json(after.render()))
}

async fn remove(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<AgentId>,
) -> Result<StatusCode, Problem> {
    require_manager(&app, &principal, Action::AgentDeactivate, Some(id)).await?;
    let mut tx = app.db.begin().await?;
    if !store::delete(&mut tx, principal.org_id, id).await? {
        return Err(not_found());
    }
    vaults::keys::provision::end(&mut tx, &principal, id).await?;
    audit::record(&mut tx, Event::by(&principal, "agent.deactivate", Resource::new("agent", id))).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rotate_key(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<AgentId>,
) -> Result<Json<Value>, Problem> {
    require_manager(&app, &principal, Action::AgentRotateKey, Some(id)).await?;
    let key = PlainKey::mint(KeyKind::Agent, &*app.hsm.random::<32>().await?);
    let mut tx = app.db.begin().await?;
    let agent = store::get_for_update(&mut tx, principal.org_id, id).await?.ok_or_else(not_found)?;
    if !store::replace_key(&mut tx, principal.org_id, id, &key).await? {
        return Err(Problem::bad_request(format!(
            "this agent authenticates by {}, it has no key: to end its tokens change what it authenticates by, or deactivate it",
            agent.auth_method
        )));
    }
    audit::record(&mut tx, Event::by(&principal, "agent.rotate_key", Resource::new("agent", id))).await?;
    tx.commit().await?;
    Ok(Json(json!({ "api_key": key.reveal() })))
}

/// How often identity keys are made again because another request stored some first.
const ATTEMPTS: usize = 4;

async fn rotate_identity_keys(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<AgentId>,
) -> Result<Json<Map<String, Value>>, Problem> {
    require_manager(&app, &principal, Action::AgentRotateIdentityKeys, Some(id)).await?;
    let mut conn = app.db.acquire().await?;
    store::get(&mut conn, principal.org_id, id).await?.ok_or_else(not_found)?;
    drop(conn);
    for _ in 0..ATTEMPTS {
        let identity = Identity::make(&app.hsm).await?.seal(&app, principal.org_id, id).await?;
        let mut tx = app.db.begin().await?;
        let mut agent = store::get_for_update(&mut tx, principal.org_id, id).await?.ok_or_else(not_found)?;
        let written = Event::by(&principal, "secret.write", Resource::kind("secret"));
        if !identity.store(&mut tx, &mut agent, principal.actor, &written).await? {
            continue;
        }
        let rendered = agent.render();
        let public = ["ssh_public_key", "ecdh_public_key"].map(|name| rendered.get(name).cloned().unwrap_or_default());
        let event = Event::by(&principal, "agent.rotate_identity_keys", Resource::new("agent", id));
        audit::record(&mut tx, event.with("public_keys", Value::from(public.to_vec()))).await?;
        tx.commit().await?;
        return Ok(Json(rendered));
    }
    Err(SecretError::Contended.into())
}

/// The vault of the agents' private identity keys: for every human, and for agents that a policy opens it for.
async fn agent_keys_vault(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::AgentKeysVaultRead, Resource::kind("vault")).await?;
    if principal.user_id().is_some() {
        return Ok(Json(json!({ "vault_id": identity::vault(&app, principal.org_id).await?.id })));
    }
    let mut conn = app.db.acquire().await?;
    if let Some(vault) = vaults::store::agent_keys(&mut conn, principal.org_id).await?
        && access::store::grants(&mut conn, &principal, &vault, Lock::None).await?.sees_vault()
    {
        return Ok(Json(json!({ "vault_id": vault.id })));
    }
    drop(conn);
    let reason = "Insufficient permissions: no policy opens the vault of agents' identity keys to this agent";
    Err(deny(&app, &principal, "vault.read", Resource::kind("vault"), reason).await?)
}

#[derive(Deserialize)]
struct EnrollRequest {
    name: Option<String>,
    human_email: Option<String>,
    description: Option<String>,
}

/// Public. The reply is the same whether or not there is such a human, and does not wait for what is done for one: neither its text
/// nor its time tells.
async fn enroll(
    State(app): State<Arc<App>>,
    AuthPeer(peer): AuthPeer,
    Body(request): Body<EnrollRequest>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let required = |name: &str| Problem::bad_request(format!("{name} is required"));
    let enrolment = Enrolment {
        name: input::name("name", &request.name.ok_or_else(|| required("name"))?)?,
        description: input::description(request.description)?,
        email: users::rules::email(&request.human_email.ok_or_else(|| required("human_email"))?)?,
        ip: peer,
    };
    let prepared = enroll::prepare(&app, enrolment).await?;
    let mut conn = app.db.acquire().await?;
    if let Some(wait) = throttle::take(&mut conn, Throttle::Enroll, prepared.throttle_key()).await? {
        return Err(too_many("enrolments for this address", wait));
    }
    drop(conn);
    let background = Arc::clone(&app);
    app.tasks.spawn(async move { prepared.finish(&background).await });
    Ok((
        StatusCode::CREATED,
        Json(json!({
            "agent_id": uuid::Uuid::nil(),
            "message": "If this address belongs to an account, its owner now gets a mail with the agent's id and key.",
        })),
    ))
}

/// What can be told of an issuer's address without asking it.
fn check_issuer(app: &App, agent: &Agent) -> Result<(), Problem> {
    let Some(url) = agent.oidc_issuer.as_ref().and_then(|issuer| issuer.parse().ok()) else { return Ok(()) };
    app.outbound.check_url(&url).map_err(|refusal| Problem::bad_request(format!("oidc_issuer {refusal}")))
}

/// A chain's name in the registry.
fn canonical_chain(app: &App, name_or_id: &str) -> Option<String> {
    app.chains.get(name_or_id).map(|chain| chain.spec().name.clone())
}

/// Every vault an agent is bound to is one of the organisation's.
fn refuse_unknown(vault: Option<VaultId>) -> Result<(), Problem> {
    vault.map_or(Ok(()), |id| Err(Problem::bad_request(format!("vault_ids: there is no vault {id}"))))
}

/// The members that differ, as they were and as they are. What is missing on one side is `null` there.
fn differences(before: &Map<String, Value>, after: &Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    let names = before.keys().chain(after.keys()).filter(|name| before.get(*name) != after.get(*name));
    let pick = |side: &Map<String, Value>, name: &String| side.get(name).cloned().unwrap_or(Value::Null);
    names.map(|name| ((name.clone(), pick(before, name)), (name.clone(), pick(after, name)))).unzip()
}
