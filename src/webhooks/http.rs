//! `/v1/webhooks…`

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::api;
use super::store::{Delivery, NewWebhook};
use super::{WEBHOOKS_MAX, Webhook, associated_data, rules, store};
use crate::access::http::{Ids, require};
use crate::access::input::InputError;
use crate::access::{Action, Actor, Principal};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::clock::rfc3339;
use crate::http::extract::Body;
use crate::http::pages;
use crate::http::problem::Problem;
use crate::http::routes::{Routes, get, post};
use crate::ids::{DeliveryId, WebhookId};
use crate::orgs::limits;

/// Longest URL, in bytes.
const URL_MAX: usize = 2048;
/// Longest description, in characters.
const DESCRIPTION_MAX: usize = 500;
/// Deliveries of one page.
const PAGE: i64 = 100;

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/webhooks", post(create, api::create()).get(list, api::list()))
        .route(
            "/v1/webhooks/{webhook_id}",
            get(read, api::read()).patch(change, api::change()).delete(remove, api::remove()),
        )
        .route("/v1/webhooks/{webhook_id}/test", post(test, api::test()))
        .route("/v1/webhooks/{webhook_id}/deliveries", get(deliveries, api::deliveries()).delete(clear, api::clear()))
        .route("/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", post(redeliver, api::redeliver()))
}

fn render(webhook: &Webhook) -> Value {
    let mut body = json!({
        "id": webhook.id,
        "url": webhook.url,
        "description": webhook.description,
        "events": webhook.events,
        "is_active": webhook.is_active,
        "created_by": webhook.created_by,
        "created_at": rfc3339(webhook.created_at),
        "delivered": webhook.delivered,
    });
    if let Some(at) = webhook.delivered_at {
        body["last_delivered_at"] = json!(rfc3339(at));
    }
    if let Some(reason) = &webhook.disabled_reason {
        body["disabled_reason"] = json!(reason);
    }
    body
}

fn render_delivery(delivery: &Delivery) -> Value {
    let mut body = json!({
        "id": delivery.id,
        "event_id": delivery.event_id,
        "type": delivery.action,
        "state": if delivery.is_dead { "dead" } else { "pending" },
        "attempts": delivery.attempts,
        "created_at": rfc3339(delivery.created_at),
    });
    let optional = [
        ("next_attempt_at", (!delivery.is_dead).then(|| json!(rfc3339(delivery.due_at)))),
        ("last_status", delivery.last_status.map(Value::from)),
        ("last_error", delivery.last_error.clone().map(Value::from)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    body
}

fn not_found() -> Problem {
    Problem::not_found("no such webhook")
}

#[derive(Deserialize)]
struct WebhookRequest {
    url: Option<String>,
    description: Option<String>,
    events: Option<Vec<String>>,
    is_active: Option<bool>,
}

impl WebhookRequest {
    /// Over what there is.
    fn apply(self, app: &App, webhook: &mut Webhook) -> Result<(), Problem> {
        if let Some(text) = self.url {
            let url = Url::parse(&text).map_err(|_| Problem::bad_request("url must be an https URL"))?;
            if text.len() > URL_MAX || !url.username().is_empty() || url.password().is_some() {
                return Err(Problem::bad_request(format!(
                    "url must be at most {URL_MAX} bytes, without user and password"
                )));
            }
            let local = url.host_str().is_some_and(|host| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()));
            if url.scheme() != "https" && !local {
                return Err(Problem::bad_request("url must be an https URL"));
            }
            app.outbound
                .check_url(&url)
                .map_err(|refusal| Problem::bad_request(format!("url: the address {refusal}")))?;
            webhook.url = url.into();
        }
        if let Some(text) = self.description {
            if text.chars().count() > DESCRIPTION_MAX {
                return Err(Problem::bad_request(format!("description must be at most {DESCRIPTION_MAX} characters")));
            }
            webhook.description = text;
        }
        if let Some(events) = self.events {
            webhook.events = rules::events(events).map_err(|InputError(detail)| Problem::bad_request(detail))?;
        }
        webhook.is_active = self.is_active.unwrap_or(webhook.is_active);
        Ok(())
    }
}

async fn create(
    State(app): State<Arc<App>>,
    principal: Principal,
    Body(request): Body<WebhookRequest>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    require(&app, &principal, Action::WebhookManage, Resource::kind("webhook")).await?;
    let Actor::User(created_by) = principal.actor else {
        return Err(Problem::forbidden("only humans may make webhooks"));
    };
    if request.url.is_none() {
        return Err(Problem::bad_request("url is required"));
    }
    let mut webhook = Webhook {
        id: WebhookId::random(),
        url: String::new(),
        description: String::new(),
        events: vec!["transaction.*".to_owned(), "freeze.*".to_owned()],
        is_active: true,
        disabled_reason: None,
        created_by,
        created_at: crate::clock::now(),
        delivered: 0,
        delivered_at: None,
    };
    request.apply(&app, &mut webhook)?;
    let secret = app.hsm.random::<{ rules::SECRET_BYTES }>().await?;
    let sealed = app.hsm.seal(&associated_data(principal.org_id, webhook.id), &*secret).await?;

    let mut tx = app.db.begin().await?;
    limits::store::get_for_update(&mut tx, principal.org_id).await?;
    if store::count(&mut tx, principal.org_id).await? >= WEBHOOKS_MAX {
        let detail = format!("an organisation has at most {WEBHOOKS_MAX} webhooks: delete one first");
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    let new = NewWebhook {
        id: webhook.id,
        org_id: principal.org_id,
        url: &webhook.url,
        description: &webhook.description,
        events: &webhook.events,
        secret: &sealed,
        created_by,
    };
    let made = store::insert(&mut tx, &new).await?;
    audit::record(&mut tx, event(&principal, "webhook.create", &made)).await?;
    tx.commit().await?;
    let mut body = render(&made);
    body["secret"] = json!(rules::show(&secret));
    Ok((StatusCode::CREATED, Json(body)))
}

fn event(principal: &Principal, action: &'static str, webhook: &Webhook) -> Event {
    // A receiver's path may be what lets a message in.
    let host = Url::parse(&webhook.url).ok().and_then(|url| url.host_str().map(str::to_owned));
    Event::by(principal, action, Resource::new("webhook", webhook.id))
        .with_some("host", host)
        .with("events", json!(webhook.events))
        .with("is_active", webhook.is_active)
}

async fn list(State(app): State<Arc<App>>, principal: Principal) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::WebhookManage, Resource::kind("webhook")).await?;
    let webhooks = store::list(&mut *app.db.acquire().await?, principal.org_id).await?;
    Ok(Json(json!({ "webhooks": webhooks.iter().map(render).collect::<Vec<_>>() })))
}

async fn read(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<WebhookId>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::WebhookManage, Resource::new("webhook", id)).await?;
    let webhook = store::get(&mut *app.db.acquire().await?, principal.org_id, id).await?.ok_or_else(not_found)?;
    Ok(Json(render(&webhook)))
}

async fn change(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<WebhookId>,
    Body(request): Body<WebhookRequest>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::WebhookManage, Resource::new("webhook", id)).await?;
    let mut tx = app.db.begin().await?;
    let mut webhook = store::get_for_update(&mut tx, principal.org_id, id).await?.ok_or_else(not_found)?;
    request.apply(&app, &mut webhook)?;
    store::update(&mut tx, &webhook).await?;
    let webhook = store::get(&mut tx, principal.org_id, id).await?.ok_or_else(not_found)?;
    audit::record(&mut tx, event(&principal, "webhook.update", &webhook)).await?;
    tx.commit().await?;
    Ok(Json(render(&webhook)))
}

async fn remove(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<WebhookId>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::WebhookManage, Resource::new("webhook", id)).await?;
    let mut tx = app.db.begin().await?;
    let gone = store::delete(&mut tx, principal.org_id, id).await?.ok_or_else(not_found)?;
    audit::record(&mut tx, event(&principal, "webhook.delete", &gone)).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends an event of its own to the webhook, whatever it listens to, through the same queue as all others.
async fn test(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<WebhookId>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    require(&app, &principal, Action::WebhookManage, Resource::new("webhook", id)).await?;
    let mut tx = app.db.begin().await?;
    store::get_for_update(&mut tx, principal.org_id, id).await?.ok_or_else(not_found)?;
    let event = Event::by(&principal, rules::TEST, Resource::new("webhook", id));
    let delivery = store::enqueue(&mut tx, id, &event).await?;
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "delivery_id": delivery }))))
}

#[derive(Deserialize)]
struct Which {
    state: Option<String>,
    cursor: Option<String>,
}

async fn deliveries(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<WebhookId>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    require(&app, &principal, Action::WebhookManage, Resource::new("webhook", id)).await?;
    let Query(which) = which.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let dead = match which.state.as_deref() {
        None => None,
        Some("dead") => Some(true),
        Some("pending") => Some(false),
        Some(_) => return Err(Problem::bad_request("state must be pending or dead")),
    };
    let after = match which.cursor.as_deref() {
        None => None,
        Some(text) => Some(pages::read_cursor(text).ok_or_else(|| Problem::bad_request("cursor is not one of ours"))?),
    };
    let mut conn = app.db.acquire().await?;
    store::get(&mut conn, principal.org_id, id).await?.ok_or_else(not_found)?;
    let mut rows = store::deliveries(&mut conn, id, dead, after, PAGE + 1).await?;
    let more = pages::cut(&mut rows, PAGE);
    let mut body = json!({ "deliveries": rows.iter().map(render_delivery).collect::<Vec<_>>() });
    if let Some(last) = rows.last().filter(|_| more) {
        body["next_cursor"] = json!(pages::cursor(last.created_at, last.id));
    }
    Ok(Json(body))
}

/// Forgets what the webhook has not taken, waiting or dead, so that one that is full can be turned on again.
async fn clear(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids(id): Ids<WebhookId>,
) -> Result<StatusCode, Problem> {
    require(&app, &principal, Action::WebhookManage, Resource::new("webhook", id)).await?;
    let mut tx = app.db.begin().await?;
    store::get_for_update(&mut tx, principal.org_id, id).await?.ok_or_else(not_found)?;
    let count = store::clear(&mut tx, id).await?;
    let event = Event::by(&principal, "webhook.clear", Resource::new("webhook", id)).with("deliveries", count);
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn redeliver(
    State(app): State<Arc<App>>,
    principal: Principal,
    Ids((id, delivery)): Ids<(WebhookId, DeliveryId)>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    require(&app, &principal, Action::WebhookManage, Resource::new("webhook", id)).await?;
    let mut tx = app.db.begin().await?;
    store::get_for_update(&mut tx, principal.org_id, id).await?.ok_or_else(not_found)?;
    if !store::redeliver(&mut tx, id, delivery).await? {
        return Err(Problem::not_found("no such delivery: it may have been taken meanwhile"));
    }
    let event =
        Event::by(&principal, "webhook.redeliver", Resource::new("webhook", id)).with("delivery", delivery.to_string());
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "delivery_id": delivery }))))
}
