//! The background task that sends messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;

use super::associated_data;
use super::rules::{ATTEMPTS_MAX, sign, wait};
use super::store::{self, Due, Failure, Leased};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::clock::rfc3339;
use crate::db::DbError;
use crate::http::problem::chain;
use crate::ids::{OrgId, WebhookId};
use crate::outbound::{HeaderMap, HeaderValue, Method, Request};
use crate::telemetry::record;

/// How often what is due is looked for.
const EVERY: Duration = Duration::from_millis(500);
/// Webhooks that one daemon sends to at once: a slow one holds up its own messages only.
const AT_ONCE: usize = 16;
/// How long a daemon has a webhook for itself.
const LEASE: Duration = Duration::from_secs(60);
/// After this it begins no other message under one lease.
const TURN: Duration = Duration::from_secs(30);
/// Messages of one turn.
const BATCH: i64 = 100;
/// Messages that one webhook may leave untaken, waiting or dead.
const WAITING_MAX: i64 = 100_000;
/// How often it is looked whether more wait, and what is long dead.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// Messages to one webhook that are on their way at once.
const ABREAST: usize = 8;

/// Sends what is due until the daemon stops.
pub async fn keep_delivering(app: Arc<App>) {
    let mut turns = JoinSet::new();
    let mut tidied: Option<Instant> = None;
    while !app.stopping.is_cancelled() {
        while turns.try_join_next().is_some() {}
        if tidied.is_none_or(|at| at.elapsed() > TIDY_EVERY) {
            tidied = Some(Instant::now());
            if let Err(error) = tidy(&app).await {
                tracing::warn!(error = %chain(&error), "webhooks could not be tidied");
            }
        }
        let mut idle = true;
        while turns.len() < AT_ONCE && !app.stopping.is_cancelled() {
            match store::lease(&app.db, LEASE).await {
                Ok(Some(leased)) => {
                    idle = false;
                    let app = Arc::clone(&app);
                    turns.spawn(async move { turn(&app, leased).await });
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "webhooks could not be looked for");
                    break;
                }
            }
        }
        if idle || turns.len() >= AT_ONCE {
            tokio::select! {
                () = app.stopping.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
    while turns.join_next().await.is_some() {}
}

/// One webhook's turn: what is due, in order, until something is in the way.
async fn turn(app: &App, webhook: Leased) {
    if let Err(error) = deliver_due(app, &webhook).await {
        tracing::warn!(webhook = %webhook.id, error = %chain(&error), "a webhook's messages could not be recorded: they will come again");
        return;
    }
    if let Err(error) = store::release(&app.db, webhook.id).await {
        tracing::warn!(webhook = %webhook.id, error = %chain(&error), "a webhook's lease could not be given back");
    }
}

async fn deliver_due(app: &App, webhook: &Leased) -> Result<(), DbError> {
    let started = Instant::now();
    let due = store::due(&app.db, webhook.id, BATCH).await?;
    let Some(envelope) = webhook.sealed.envelope() else {
        return disable(app, webhook.id, webhook.org_id, None, "its secret's row is damaged").await;
    };
    let secret = match app.hsm.open(&associated_data(webhook.org_id, webhook.id), &envelope).await {
        Ok(secret) => secret,
        Err(error) => {
            // The HSM's failure, not the receiver's: nothing of the messages is used up.
            tracing::warn!(webhook = %webhook.id, error = %chain(&error), "a webhook's secret cannot be opened");
            return Ok(());
        }
    };
    let mut failures = webhook.failures;
    for some in due.chunks(ABREAST) {
        // Deleted, turned off or moved meanwhile: what is not on its way is not sent.
        if started.elapsed() > TURN || app.stopping.is_cancelled() || !store::still_wanted(&app.db, webhook).await? {
            return Ok(());
        }
        let sent = join_all(some.iter().map(|message| send(app, webhook, message, &secret))).await;
        let mut rests = false;
        for (message, taken) in some.iter().zip(sent) {
            match taken {
                Taken::Yes => {
                    failures = 0;
                    store::taken(&app.db, webhook.id, message.id).await?;
                    record::webhook_attempt("taken");
                }
                Taken::Gone => {
                    record::webhook_attempt("gone");
                    return disable(app, webhook.id, webhook.org_id, Some(&webhook.url), "it answered 410 Gone").await;
                }
                Taken::No { status, error, kind } => {
                    let again = message.attempts + 1 < ATTEMPTS_MAX && kind != Trouble::Hopeless;
                    let again_after = again.then(|| wait(message.attempts + 1));
                    // Once for all that went out together.
                    let rest = (kind == Trouble::Receiver && !rests).then(|| wait(failures + 1));
                    rests |= rest.is_some();
                    let failure = Failure { status, error: &error, again_after, rest };
                    store::failed(&app.db, webhook.id, message.id, &failure).await?;
                    record::webhook_attempt(if again { "failed" } else { "dead" });
                    tracing::info!(webhook = %webhook.id, delivery = %message.id, ?status, %error, dead = !again, "a webhook did not take a message");
                }
            }
        }
        if rests {
            return Ok(());
        }
    }
    Ok(())
}

/// What became of one attempt.
enum Taken {
    Yes,
    /// The receiver wants no more, ever.
    Gone,
    No {
        status: Option<u16>,
        error: String,
        kind: Trouble,
    },
}

/// Whose trouble it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The receiver does not like this message.
    Message,
    /// The receiver is not well, or cannot be reached.
    Receiver,
    /// Nobody can ever send it.
    Hopeless,
}

async fn send(app: &App, webhook: &Leased, message: &Due, secret: &[u8]) -> Taken {
    let no = |error: &str, kind| Taken::No { status: None, error: error.to_owned(), kind };
    if message.is_gone {
        return no("its event is not in the audit trail any more", Trouble::Hopeless);
    }
    let Ok(url) = webhook.url.parse() else { return no("its url is none", Trouble::Receiver) };
    let body = body(message).to_string().into_bytes();
    let (id, timestamp) = (message.id.to_string(), crate::clock::now().unix_timestamp());
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json".to_owned()),
        ("webhook-id", id.clone()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", sign(secret, &id, timestamp, &body)),
    ] {
        let Ok(value) = HeaderValue::try_from(value) else { return no("a header cannot be written", Trouble::Message) };
        headers.insert(name, value);
    }
    // What it says is taken or not by the status; nobody reads on.
    let request = Request { method: Method::POST, url, headers, body, reply_bytes_max: 0 };
    match app.outbound.send_for_status(request).await {
        Ok(200..=299) => Taken::Yes,
        Ok(410) => Taken::Gone,
        Ok(status) => {
            let kind = if status >= 500 || status == 429 { Trouble::Receiver } else { Trouble::Message };
            Taken::No { status: Some(status), error: format!("it answered {status}"), kind }
        }
        Err(error) => no(&chain(&error).to_string(), Trouble::Receiver),
    }
}

/// What is told: the event as the audit trail has it, without addresses of people.
fn body(message: &Due) -> serde_json::Value {
    json!({
        "type": message.action,
        "timestamp": rfc3339(message.event_created_at),
        "data": {
            "event_id": message.event_id,
            "actor_type": message.actor_type,
            "actor_id": message.actor_id,
            "resource_type": message.resource_type,
            "resource_id": message.resource_id,
            "details": message.details.0,
        },
    })
}

async fn disable(app: &App, id: WebhookId, org_id: OrgId, url: Option<&str>, reason: &str) -> Result<(), DbError> {
    let mut tx = app.db.begin().await?;
    if store::disable(&mut tx, id, url, reason).await? {
        tracing::warn!(webhook = %id, reason, "a webhook was turned off: a human turns it on again");
        let event = Event::by_system(org_id, "webhook.disable", Resource::new("webhook", id)).with("reason", reason);
        audit::record(&mut tx, event).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn tidy(app: &App) -> Result<(), DbError> {
    for (id, org_id) in store::overfull(&app.db, WAITING_MAX).await? {
        disable(app, id, org_id, None, "it has not taken more than 100000 messages").await?;
    }
    store::forget(&app.db).await
}
