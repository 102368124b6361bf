//! `/v1/vaults/{vault_id}/policies…`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::api;
use super::store::{self, Policy};
use crate::access::glob::Glob;
use crate::access::http::{Ids, deny, require};
use crate::access::input;
use crate::access::policy::{ConditionError, Conditions, Permission};
use crate::access::{self, Action, Actor, Lock, Principal};
use crate::agents::request::time_of;
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::clock::rfc3339;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, post, put};
use crate::ids::{AgentId, PolicyId, UserId, VaultId};
use crate::orgs::limits::{self, Kind};
use crate::vaults::Vault;
use crate::vaults::http::{require_manager, vault};

/// Restrictions that other versions of this API have and this daemon does not. Dropping one would grant more than was meant.
const UNKNOWN_RESTRICTIONS: &[&str] = &[
    "attribute_conditions",
    "consensus_trigger",
    "cron_expr",
    "environment_in",
    "ip_allowlist",
    "max_access_count",
    "not_before",
    "time_window",
    "tx_conditions",
];
/// What switches a policy off where it is `false`. Here a policy that is not to grant is deleted.
const SWITCHES: &[&str] = &["enabled", "is_active", "is_enabled"];

/// The routes of this feature.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/vaults/{vault_id}/policies", post(create, api::create()).get(list, api::list()))
        .route("/v1/vaults/{vault_id}/policies/{policy_id}", put(change, api::change()).delete(remove, api::remove()))
}

/// The body of POST and PUT. A `null` is a field not given, so that it widens nothing: conditions are lifted by `{}`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PolicyRequest {
    secret_path_pattern: Option<String>,
    principal_type: Option<String>,
    principal_id: Option<String>,
    permissions: Option<Vec<String>>,
    conditions: Option<Value>,
    expires_at: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl PolicyRequest {
    /// `effect: "allow"`, `priority` and `policy_schema_version` change nothing; what would restrict is refused.
    fn refuse_unknown_restrictions(&self) -> Result<(), Problem> {
        match self.rest.get("effect") {
            None | Some(Value::Null) => {}
            Some(Value::String(effect)) if effect == "allow" => {}
            Some(_) => {
                return Err(Problem::bad_request(
                    "effect must be \"allow\": rules that deny are not supported by this daemon",
                ));
            }
        }
        let set = |value: &Value| match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(members) => !members.is_empty(),
            _ => true,
        };
        if let Some(name) = UNKNOWN_RESTRICTIONS.iter().find(|name| self.rest.get(**name).is_some_and(set)) {
            return Err(Problem::bad_request(format!(
                "{name} is not supported by this daemon as a field of a policy; it would not be enforced (conditions may have ip_allowlist and time_window)"
            )));
        }
        let off =
            |name: &&&str| self.rest.get(**name).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(true)));
        match SWITCHES.iter().find(off) {
            Some(name) => {
                Err(Problem::bad_request(format!("{name}: a policy grants while it is there; delete it instead")))
            }
            None => Ok(()),
        }
    }

    /// What POST and PUT share: what is granted, under which conditions, until when.
    fn apply(self, policy: &mut Policy) -> Result<(), Problem> {
        self.refuse_unknown_restrictions()?;
        if let Some(permissions) = self.permissions {
            policy.permissions = permissions_of(&permissions)?;
        }
        if let Some(conditions) = self.conditions {
            Conditions::parse(&conditions)?;
            policy.conditions = input::object("conditions", Some(conditions))?;
        }
        if let Some(at) = self.expires_at {
            policy.expires_at = Some(time_of("expires_at", &at)?);
        }
        Ok(())
    }
}

fn permissions_of(texts: &[String]) -> Result<Vec<String>, Problem> {
    let mut permissions: Vec<String> = Vec::new();
    for text in texts {
        let Some(permission) = Permission::parse(text) else {
            return Err(Problem::bad_request("permissions must be a list of read, write and delete"));
        };
        if !permissions.iter().any(|p| p == permission.as_str()) {
            permissions.push(permission.as_str().to_owned());
        }
    }
    if permissions.is_empty() {
        return Err(Problem::bad_request("permissions must not be empty: read, write or delete"));
    }
    Ok(permissions)
}

fn principal_of(kind: Option<&str>, id: Option<&str>) -> Result<Actor, Problem> {
    let id: Uuid = id
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| Problem::bad_request("principal_id must be the id (UUID) of a user or an agent"))?;
    match kind {
        Some("user") => Ok(Actor::User(UserId(id))),
        Some("agent") => Ok(Actor::Agent(AgentId(id))),
        _ => Err(Problem::bad_request("principal_type must be user or agent")),
    }
}

fn render(policy: &Policy) -> Value {
    let mut body = json!({
        "id": policy.id,
        "vault_id": policy.vault_id,
        "secret_path_pattern": policy.secret_path_pattern,
        "principal_type": policy.principal_type,
        "principal_id": policy.principal_id,
        "permissions": policy.permissions,
        "conditions": policy.conditions.clone().unwrap_or_else(|| json!({})),
        "created_by": policy.created_by,
        "created_by_type": policy.created_by_type,
        "created_at": rfc3339(policy.created_at),
    });
    if let Some(at) = policy.expires_at {
        body["expires_at"] = json!(rfc3339(at));
    }
    body
}

fn not_found() -> Problem {
    Problem::not_found("no such policy")
}

async fn create(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(vault_id): Ids<VaultId>,
    Body(request): Body<PolicyRequest>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let vault = vault(&app, &principal, vault_id).await?;
    require_manager(&app, &principal, &vault, "policy.create").await?;
    let pattern =
        request.secret_path_pattern.clone().ok_or_else(|| Problem::bad_request("secret_path_pattern is required"))?;
    let pattern =
        Glob::parse(&pattern).map_err(|error| Problem::bad_request(format!("secret_path_pattern {error}")))?;
    require_own_reach(&app, &principal, &vault, &pattern).await?;
    let grantee = principal_of(request.principal_type.as_deref(), request.principal_id.as_deref())?;
    let mut policy = Policy {
        id: PolicyId::random(),
        vault_id,
        secret_path_pattern: pattern.to_string(),
        principal_type: grantee.kind().to_owned(),
        principal_id: grantee.uuid(),
        permissions: Vec::new(),
        conditions: None,
        expires_at: None,
        created_by: principal.actor.uuid(),
        created_by_type: principal.actor.kind().to_owned(),
        opens_signing: principal.manages(),
        created_at: crate::clock::now(),
    };
    request.apply(&mut policy)?;
    if policy.permissions.is_empty() {
        return Err(Problem::bad_request("permissions is required: read, write or delete"));
    }
    let mut tx = app.db.begin().await?;
    if !store::principal_exists(&mut tx, principal.org_id, grantee).await? {
        return Err(Problem::bad_request(format!("principal_id: there is no such {}", grantee.kind())));
    }
    if let Err(error) = limits::admit(&mut tx, principal.org_id, Kind::Policies).await {
        drop(tx);
        return Err(
            limits::http::explain(&app, &principal, "policy.create", Resource::new("vault", vault_id), error).await
        );
    }
    store::insert(&mut tx, principal.org_id, &policy).await?;
    let event =
        Event::by(&principal, "policy.create", Resource::new("policy", policy.id)).with("policy", render(&policy));
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(render(&policy))))
}

/// Signing keys are opened by managers. An agent grants on its own vault what it reaches itself.
async fn require_own_reach(app: &App, principal: &Principal, vault: &Vault, pattern: &Glob) -> Result<(), Problem> {
    if principal.manages() {
        return Ok(());
    }
    let resource = Resource::new("vault", vault.id);
    if is_for_signing_keys(pattern) {
        let reason = "Insufficient permissions: only owners and admins grant access to signing keys";
        return Err(deny(app, principal, "policy.create", resource, reason).await?);
    }
    if principal.user_id().is_some() {
        return Ok(());
    }
    let mut conn = app.db.acquire().await?;
    let grants = access::store::grants(&mut conn, principal, vault, Lock::None).await?;
    drop(conn);
    if grants.reaches_all_of(pattern) {
        return Ok(());
    }
    let reason = format!("Insufficient permissions: {pattern} reaches beyond this agent's own scopes");
    Err(deny(app, principal, "policy.create", resource, reason).await?)
}

/// Whether it matches nothing but signing keys.
fn is_for_signing_keys(pattern: &Glob) -> bool {
    ["keys/**", "wallets/**", "agents/*/keys/**"]
        .iter()
        .filter_map(|text| Glob::parse(text).ok())
        .any(|keys| keys.covers(pattern))
}

/// An agent changes and ends only the policies that it made: a human's may restrict what it owns.
fn may_change(principal: &Principal, policy: &Policy) -> bool {
    principal.user_id().is_some() || policy.created_by == principal.actor.uuid()
}

/// The refusal of what [`may_change`] does not let through. Takes a connection: end the transaction first.
async fn not_own(app: &App, principal: &Principal, id: PolicyId, asked: &'static str) -> Problem {
    let reason = "Insufficient permissions: an agent changes only the policies that it made";
    deny(app, principal, asked, Resource::new("policy", id), reason).await.unwrap_or_else(|problem| problem)
}

/// Humans and the vault's owner see all of them; another agent sees those for itself.
async fn list(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(vault_id): Ids<VaultId>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::PolicyList, Resource::new("vault", vault_id)).await?;
    let vault = vault(&app, &principal, vault_id).await?;
    let mut conn = app.db.acquire().await?;
    let grants = access::store::grants(&mut conn, &principal, &vault, Lock::None).await?;
    let policies = if principal.user_id().is_some() || grants.manages_vault() {
        store::list(&mut conn, principal.org_id, vault_id).await?
    } else if grants.sees_vault() {
        store::list_for(&mut conn, &principal, vault_id).await?
    } else {
        drop(conn);
        let resource = Resource::new("vault", vault_id);
        return Err(deny(&app, &principal, "policy.list", resource, "Insufficient permissions on this vault").await?);
    };
    Ok(Json(json!({ "policies": policies.iter().map(render).collect::<Vec<_>>() })))
}

async fn change(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((vault_id, id)): Ids<(VaultId, PolicyId)>,
    Body(request): Body<PolicyRequest>,
) -> Result<Json<Value>, Problem> {
    let vault = vault(&app, &principal, vault_id).await?;
    require_manager(&app, &principal, &vault, "policy.update").await?;
    let mut tx = app.db.begin().await?;
    let before = store::get_for_update(&mut tx, principal.org_id, vault_id, id).await?.ok_or_else(not_found)?;
    if !may_change(&principal, &before) {
        drop(tx);
        return Err(not_own(&app, &principal, id, "policy.update").await);
    }
    let mut after = before.clone();
    request.apply(&mut after)?;
    store::update(&mut tx, principal.org_id, &after).await?;
    let event = Event::by(&principal, "policy.update", Resource::new("policy", id))
        .with("before", render(&before))
        .with("after", render(&after));
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(Json(render(&after)))
}

async fn remove(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((vault_id, id)): Ids<(VaultId, PolicyId)>,
) -> Result<StatusCode, Problem> {
    let vault = vault(&app, &principal, vault_id).await?;
    require_manager(&app, &principal, &vault, "policy.delete").await?;
    let mut tx = app.db.begin().await?;
    let policy = store::get_for_update(&mut tx, principal.org_id, vault_id, id).await?.ok_or_else(not_found)?;
    if !may_change(&principal, &policy) {
        drop(tx);
        return Err(not_own(&app, &principal, id, "policy.delete").await);
    }
    store::delete(&mut tx, principal.org_id, id).await?;
    let event = Event::by(&principal, "policy.delete", Resource::new("policy", id)).with("policy", render(&policy));
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<ConditionError> for Problem {
    fn from(error: ConditionError) -> Self {
        Self::bad_request(error.to_string())
    }
}
