//! What documents cancelling and speeding up.

use serde_json::json;
use utoipa::ToSchema;

use super::{Transaction, transaction};
use crate::http::api::schemas::Wei;
use crate::http::api::{Doc, Tag};

/// Fees for a further attempt. Without any, an eighth more than before or the market's, whichever is more.
#[derive(ToSchema)]
pub struct SpeedUpRequest {
    /// The price per gas in wei, for a transaction of the old type (EIP-155).
    pub gas_price: Option<Wei>,
    /// The most per gas in wei (EIP-1559).
    pub max_fee_per_gas: Option<Wei>,
    /// The tip per gas in wei (EIP-1559).
    pub max_priority_fee_per_gas: Option<Wei>,
}

/// Speed a transaction up.
#[must_use]
pub fn speed_up() -> Doc {
    Doc::new(Tag::Intents, "speedUpTransaction", "Speed a transaction up")
        .says(
            "For the agent itself, and for owners and admins. The same transaction with the same nonce and higher fees, within the ceilings \
             and the agent's guardrails. It is counted once. Without fees and without an `Idempotency-Key`, a repeat within two blocks (at least 5 s) \
             of the last raise answers with that one, and raises no further.",
        )
        .header(
            "Idempotency-Key",
            false,
            json!({"type": "string", "minLength": 1, "maxLength": 255}),
            "Repeating a request under its key makes no further attempt.",
        )
        .optional_body::<SpeedUpRequest>(json!({"max_fee_per_gas": "4000000000"}))
        .reply::<Transaction>(200, "The transaction with its new hash and fees.", transaction())
        .problem(409, "It is mined, final, or was never broadcast.")
        .problem(422, "The fees are not enough for a replacement, above a ceiling, or it would fail by now.")
}

/// Cancel a transaction.
#[must_use]
pub fn cancel() -> Doc {
    Doc::new(Tag::Intents, "cancelTransaction", "Cancel a transaction")
        .says(
            "For the agent itself, and for owners and admins. A payment of nothing to the key's own address takes its nonce. What it would have \
             spent is given back when that is final.",
        )
        .optional_body::<Nothing>(json!({}))
        .reply::<Transaction>(200, "The transaction; `status` becomes `failed` when the cancellation is final.", transaction())
        .problem(409, "It is mined, or final.")
        .problem(422, "The fees that it takes are above a ceiling, or cannot be paid.")
}

/// Nothing is asked.
#[derive(ToSchema)]
pub struct Nothing {}
