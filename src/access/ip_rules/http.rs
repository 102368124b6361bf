//! `/v1/security/ip-rules…`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api;
use super::rules::{AppliesTo, IpRule, LABEL_CHARS_MAX, RULES_MAX, RuleSet, RuleType};
use super::store::{self, Stored};
use super::{IpError, IpRules};
use crate::access::http::{Ids, deny, require};
use crate::access::policy::parse_network;
use crate::access::{Action, Principal};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::clock::rfc3339;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, delete, get};
use crate::ids::{IpRuleId, OrgId};

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/security/ip-rules", get(list, api::list()).post(create, api::create()))
        .route("/v1/security/ip-rules/{rule_id}", delete(remove, api::remove()))
}

impl IpRules {
    /// The first thing after authentication.
    ///
    /// # Errors
    /// 403, counted for the audit trail; or when it could not be checked.
    pub async fn admit(&self, app: &App, principal: &Principal) -> Result<(), Problem> {
        match self.check(&app.db, principal).await {
            Ok(()) => Ok(()),
            Err(IpError::Refused(refused)) => {
                app.auth_failures.count_refused_address(principal.org_id, principal.actor, principal.ip);
                Err(Problem::forbidden(refused.to_string()))
            }
            Err(IpError::Db(error)) => Err(error.into()),
        }
    }
}

fn render(org_id: OrgId, stored: &Stored) -> Value {
    json!({
        "id": stored.id,
        "org_id": org_id,
        "rule_type": stored.rule.rule_type.as_str(),
        "cidr": stored.rule.network.trunc().to_string(),
        "label": stored.label,
        "applies_to": stored.rule.applies_to.as_str(),
        "created_by": stored.created_by,
        "created_at": rfc3339(stored.created_at),
    })
}

async fn list(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::IpRuleList, Resource::kind("ip_rule")).await?;
    let mut conn = app.db.acquire().await?;
    let rules = store::list(&mut conn, principal.org_id).await?;
    let rules: Vec<Value> = rules.iter().map(|stored| render(principal.org_id, stored)).collect();
    Ok(Json(json!({ "rules": rules })))
}

#[derive(Deserialize)]
struct CreateRule {
    rule_type: Option<String>,
    cidr: Option<String>,
    label: Option<String>,
    description: Option<String>,
    applies_to: Option<String>,
}

impl CreateRule {
    fn read(self) -> Result<(IpRule, Option<String>), Problem> {
        let rule_type = self
            .rule_type
            .as_deref()
            .and_then(RuleType::parse)
            .ok_or_else(|| Problem::bad_request("rule_type must be allow or deny"))?;
        let network = self.cidr.as_deref().and_then(|text| parse_network(text.trim())).ok_or_else(|| {
            Problem::bad_request("cidr must be a network such as 10.0.0.0/8 or 2001:db8::/32, or a single address")
        })?;
        let applies_to = match self.applies_to.as_deref() {
            None => AppliesTo::All,
            Some(text) => AppliesTo::parse(text)
                .ok_or_else(|| Problem::bad_request("applies_to must be all, humans or agents"))?,
        };
        let label = match (self.label, self.description) {
            (Some(label), Some(description)) if label != description => {
                return Err(Problem::bad_request("label and description are the same field, with different values"));
            }
            (label, description) => label.or(description).filter(|text| !text.is_empty()),
        };
        let fits = |text: &String| text.chars().count() <= LABEL_CHARS_MAX && !text.chars().any(char::is_control);
        if !label.as_ref().is_none_or(fits) {
            return Err(Problem::bad_request(format!(
                "label must have at most {LABEL_CHARS_MAX} characters and no control characters"
            )));
        }
        Ok((IpRule { rule_type, network: network.trunc(), applies_to }, label))
    }
}

/// Whoever changes the rules must still get in by them: nobody locks themself out, and with themself the organisation.
fn lets_in(principal: &Principal, rules: impl Iterator<Item = IpRule>) -> bool {
    RuleSet(rules.collect()).check(principal.ip, AppliesTo::of(principal.actor)).is_ok()
}

async fn create(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<CreateRule>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    require(&app, &principal, Action::IpRuleManage, Resource::kind("ip_rule")).await?;
    let Some(created_by) = principal.user_id() else { return Err(Problem::forbidden("only humans may do this")) };
    let (rule, label) = request.read()?;
    let stored = Stored { id: IpRuleId::random(), rule, label, created_by, created_at: crate::clock::now() };
    let mut tx = app.db.begin().await?;
    let rules = store::list_for_update(&mut tx, principal.org_id).await?;
    if !store::has_room(&rules) {
        let detail = format!("there are {RULES_MAX} IP rules already: delete some first");
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    if !lets_in(&principal, rules.iter().map(|stored| stored.rule).chain([rule])) {
        drop(tx);
        return Err(locks_out(&app, &principal, "ip_rule.create", Resource::kind("ip_rule")).await);
    }
    store::insert(&mut tx, principal.org_id, &stored).await?;
    let shown = render(principal.org_id, &stored);
    let event =
        Event::by(&principal, "ip_rule.create", Resource::new("ip_rule", stored.id)).with("rule", shown.clone());
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    app.ip_rules.forget(principal.org_id).await;
    Ok((StatusCode::CREATED, Json(shown)))
}

async fn remove(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<IpRuleId>,
) -> Result<StatusCode, Problem> {
    let resource = Resource::new("ip_rule", id);
    require(&app, &principal, Action::IpRuleManage, resource.clone()).await?;
    let mut tx = app.db.begin().await?;
    let rules = store::list_for_update(&mut tx, principal.org_id).await?;
    let Some(stored) = rules.iter().find(|stored| stored.id == id) else {
        return Err(Problem::not_found("no such IP rule"));
    };
    if !lets_in(&principal, rules.iter().filter(|stored| stored.id != id).map(|stored| stored.rule)) {
        drop(tx);
        return Err(locks_out(&app, &principal, "ip_rule.delete", resource).await);
    }
    store::delete(&mut tx, principal.org_id, id).await?;
    let event = Event::by(&principal, "ip_rule.delete", resource).with("rule", render(principal.org_id, stored));
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    app.ip_rules.forget(principal.org_id).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a connection: end the transaction first.
async fn locks_out(app: &App, principal: &Principal, asked: &'static str, resource: Resource) -> Problem {
    let from = principal.ip.map_or_else(|| "an unknown address".to_owned(), |ip| ip.to_string());
    let reason = format!(
        "this would lock you out yourself: you come from {from}, which the rules would not let in; allow it first"
    );
    match deny(app, principal, asked, resource, &reason).await {
        Ok(_) => Problem::unprocessable(reason),
        Err(problem) => problem,
    }
}
