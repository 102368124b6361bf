//! What documents the routes of webhooks.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Cursor, Id, Time, text, words};
use crate::http::api::{Doc, Tag};

text!(
    /// An audit action such as `transaction.final`, a family such as `transaction.*`, or `*`.
    WebhookEvent = "transaction.*", pattern: r"^(\*|[a-z_]+\.([a-z_]+|\*))$", max_length: 64
);
text!(
    /// Where messages go: https.
    WebhookUrl = "https://ops.example.com/intentd", max_length: 2048
);
words!(
    /// `pending`: it is tried again. `dead`: it is tried no more, unless somebody says so.
    DeliveryState: "pending" | "dead"
);

/// A webhook to be made.
#[derive(ToSchema)]
pub struct NewWebhook {
    /// Where messages go.
    pub url: WebhookUrl,
    /// What for.
    #[schema(max_length = 500)]
    pub description: Option<String>,
    /// Which events; `transaction.*` and `freeze.*` if not given.
    #[schema(min_items = 1, max_items = 100)]
    pub events: Option<Vec<WebhookEvent>>,
    /// Whether anything is sent.
    pub is_active: Option<bool>,
}

/// What is to be changed. What is `null` or not given stays.
#[derive(ToSchema)]
pub struct ChangeWebhook {
    /// Where messages go.
    pub url: Option<WebhookUrl>,
    /// What for.
    #[schema(max_length = 500)]
    pub description: Option<String>,
    /// Which events.
    #[schema(min_items = 1, max_items = 100)]
    pub events: Option<Vec<WebhookEvent>>,
    /// Whether anything is sent.
    pub is_active: Option<bool>,
}

/// A webhook.
#[derive(ToSchema)]
pub struct Webhook {
    /// Its id.
    pub id: Id,
    /// Where messages go.
    pub url: WebhookUrl,
    /// What for.
    pub description: String,
    /// Which events.
    pub events: Vec<WebhookEvent>,
    /// Whether anything is sent.
    pub is_active: bool,
    /// Why the daemon turned it off.
    #[schema(required = false)]
    pub disabled_reason: String,
    /// Who made it.
    pub created_by: Id,
    /// When.
    pub created_at: Time,
    /// How many messages were taken.
    #[schema(minimum = 0)]
    pub delivered: i64,
    /// When the last was.
    #[schema(required = false)]
    pub last_delivered_at: Time,
}

/// A new webhook, with what its messages are signed with.
#[derive(ToSchema)]
pub struct CreatedWebhook {
    /// Its id.
    pub id: Id,
    /// Where messages go.
    pub url: WebhookUrl,
    /// What for.
    pub description: String,
    /// Which events.
    pub events: Vec<WebhookEvent>,
    /// Whether anything is sent.
    pub is_active: bool,
    /// Who made it.
    pub created_by: Id,
    /// When.
    pub created_at: Time,
    /// How many messages were taken.
    #[schema(minimum = 0)]
    pub delivered: i64,
    /// `whsec_` and the base64 of 32 bytes (Standard Webhooks). Shown once.
    #[schema(examples("whsec_7r1TFHd/qt8Uv2vtl/8bpiIMSOdPva7DBy62qBeUtpk="))]
    pub secret: String,
}

/// The organisation's webhooks.
#[derive(ToSchema)]
pub struct WebhookList {
    /// The oldest first.
    pub webhooks: Vec<Webhook>,
}

/// A message that was not taken yet.
#[derive(ToSchema)]
pub struct Delivery {
    /// Its id, which is the message's `webhook-id`.
    pub id: Id,
    /// Of which event.
    pub event_id: Id,
    /// What happened.
    #[schema(examples("transaction.final"))]
    pub r#type: String,
    /// Whether it is tried again.
    pub state: DeliveryState,
    /// How often it was tried.
    #[schema(minimum = 0)]
    pub attempts: i32,
    /// Since when.
    pub created_at: Time,
    /// Not before then.
    #[schema(required = false)]
    pub next_attempt_at: Time,
    /// The HTTP status of the last attempt.
    #[schema(required = false)]
    pub last_status: i32,
    /// What the last attempt met.
    #[schema(required = false)]
    pub last_error: String,
}

/// What a webhook has not taken.
#[derive(ToSchema)]
pub struct DeliveryList {
    /// The oldest first.
    pub deliveries: Vec<Delivery>,
    /// Only when there is more.
    #[schema(required = false)]
    pub next_cursor: Cursor,
}

/// What is on its way now.
#[derive(ToSchema)]
pub struct Queued {
    /// The delivery's id.
    pub delivery_id: Id,
}

const MANAGERS: &str = "For owners and admins.";

fn webhook() -> Value {
    json!({
        "id": "8f14e45f-ceea-467f-a83c-3b1a5f9e6d01",
        "url": "https://ops.example.com/intentd",
        "description": "",
        "events": ["transaction.*"],
        "is_active": true,
        "created_by": "7f9c24e8-3b12-4f6d-8a5e-9c1d2e3f4a5b",
        "created_at": "2026-11-21T12:00:00Z",
        "delivered": 0,
    })
}

fn queued() -> Value {
    json!({"delivery_id": "1c3e5a7b-9d1f-4b3d-8f5a-7c9e1b3d5f7a"})
}

/// Make a webhook.
#[must_use]
pub fn create() -> Doc {
    let mut created = webhook();
    created["secret"] = json!("whsec_7r1TFHd/qt8Uv2vtl/8bpiIMSOdPva7DBy62qBeUtpk=");
    Doc::new(Tag::Webhooks, "createWebhook", "Make a webhook")
        .says(
            "For owners and admins. Messages have the form of the Standard Webhooks specification and come at least once. At most 20 for an \
             organisation (409).",
        )
        .body::<NewWebhook>(json!({"url": "https://ops.example.com/intentd", "events": ["transaction.*"]}))
        .reply::<CreatedWebhook>(201, "The webhook with its secret.", created)
        .problem(409, "There are as many as there may be.")
}

/// List webhooks.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Webhooks, "listWebhooks", "List webhooks").says(MANAGERS).reply::<WebhookList>(
        200,
        "The webhooks.",
        json!({"webhooks": [webhook()]}),
    )
}

/// Look at a webhook.
#[must_use]
pub fn read() -> Doc {
    Doc::new(Tag::Webhooks, "getWebhook", "Look at a webhook").says(MANAGERS).reply::<Webhook>(
        200,
        "The webhook.",
        webhook(),
    )
}

/// Change a webhook.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Webhooks, "updateWebhook", "Change a webhook")
        .says("For owners and admins. While it is off nothing is kept for it.")
        .optional_body::<ChangeWebhook>(json!({"is_active": false}))
        .reply::<Webhook>(200, "The webhook.", webhook())
}

/// Delete a webhook.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Webhooks, "deleteWebhook", "Delete a webhook").says(MANAGERS).empty(204, "It is gone.")
}

/// Send a trial.
#[must_use]
pub fn test() -> Doc {
    Doc::new(Tag::Webhooks, "testWebhook", "Send a trial")
        .says("For owners and admins. An event `webhook.test`, to this webhook alone.")
        .reply::<Queued>(202, "It is on its way.", queued())
}

/// List what was not taken.
#[must_use]
pub fn deliveries() -> Doc {
    Doc::new(Tag::Webhooks, "listWebhookDeliveries", "List what a webhook has not taken")
        .says(MANAGERS)
        .query("state", json!({"type": "string", "enum": ["pending", "dead"]}), "Only these.")
        .query(
            "cursor",
            json!({"type": "string", "maxLength": 4096}),
            "Where to go on: the `next_cursor` of the page before.",
        )
        .reply::<DeliveryList>(200, "The oldest first.", json!({"deliveries": []}))
}

/// Forget what was not taken.
#[must_use]
pub fn clear() -> Doc {
    Doc::new(Tag::Webhooks, "clearWebhookDeliveries", "Forget what a webhook has not taken")
        .says(MANAGERS)
        .empty(204, "It is forgotten.")
}

/// Send once more.
#[must_use]
pub fn redeliver() -> Doc {
    Doc::new(Tag::Webhooks, "redeliverWebhookDelivery", "Send a message once more")
        .says("For owners and admins. Under the id that it had.")
        .reply::<Queued>(202, "It is on its way.", queued())
}
