//! Webhooks: an organisation hears of its audit events at addresses of its own.
//!
//! A delivery is a row that the statement which writes the event writes with it (`audit::record`), so nothing that happened is missing
//! and nothing that was rolled back is told. Whichever daemon comes first leases a webhook for a while, sends what is due, oldest first,
//! and removes what was taken (2xx). A daemon that dies in between leaves it to the next one: a message may come twice, under one
//! `webhook-id`. What cannot be delivered in three days is dead: listed, and sent again on demand.
//!
//! Messages have the form of the Standard Webhooks specification: `webhook-id`, `webhook-timestamp`, and `webhook-signature` over both and
//! the raw body, HMAC-SHA256 under a secret of 32 random bytes that is shown once as `whsec_…`.

pub mod api;
mod deliver;
pub mod http;
pub mod rules;
pub mod store;

pub use deliver::keep_delivering;
pub use store::Webhook;

use crate::ids::{OrgId, WebhookId};

/// Most webhooks of one organisation.
pub const WEBHOOKS_MAX: i64 = 20;

/// What binds a webhook's secret to its row.
#[must_use]
pub fn associated_data(org_id: OrgId, id: WebhookId) -> Vec<u8> {
    [b"intentd webhook 1".as_slice(), org_id.0.as_bytes(), id.0.as_bytes()].concat()
}
