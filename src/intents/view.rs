//! A transaction as the API shows it. Pure.

use serde_json::{Map, Value, json};

use super::state::{Outcome, SlotState};
use super::store::{IntentRow, SlotRow};
use crate::chain::tx::Fees;
use crate::clock::rfc3339;

/// The contract's status words. Mined and final are extra fields; `failed` is only said when it is final.
#[must_use]
pub fn status(row: &IntentRow) -> &'static str {
    let Some(slot) = &row.slot else { return "simulation_failed" };
    match (slot.state, slot.outcome) {
        (SlotState::Final, Some(Outcome::Reverted | Outcome::Cancelled | Outcome::Foreign))
        // Its nonce came out to be unused, and is being closed.
        | (SlotState::Foreign, Some(Outcome::Foreign)) => "failed",
        _ if row.sign_only => "sign_only",
        (SlotState::Signed | SlotState::Foreign, _) => "signed",
        (SlotState::Broadcast | SlotState::Mined | SlotState::Final, _) => "broadcast",
    }
}

/// The TransactionResponse. Signed bytes only when asked for: they move money.
#[must_use]
pub fn transaction(row: &IntentRow, with_signed_tx: bool) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            out.insert(name.to_owned(), value);
        }
    };
    put("id", json!(row.id));
    put("agent_id", json!(row.agent_id));
    put("chain", json!(row.chain));
    put("chain_id", json!(row.tx.chain_id.0));
    put("from", json!(row.tx.from.to_string()));
    put("to", json!(row.tx.to.to_string()));
    put("value_wei", json!(row.tx.value));
    if !row.tx.data.is_empty() {
        put("data", json!(row.tx.data.to_string()));
    }
    put("gas_limit", json!(row.tx.gas_limit));
    match row.tx.fees {
        Fees::Legacy { gas_price } => put("gas_price", json!(gas_price.to_string())),
        Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas } => {
            put("max_fee_per_gas", json!(max_fee_per_gas.to_string()));
            put("max_priority_fee_per_gas", json!(max_priority_fee_per_gas.to_string()));
        }
    }
    put("status", json!(status(row)));
    put("created_at", json!(rfc3339(row.created_at)));
    if let Some(simulation) = &row.simulation {
        put("simulation_id", json!(simulation.id));
        put("simulation_status", json!(simulation.status));
        put("error_message", json!(simulation.error));
        put("tenderly_dashboard_url", json!(simulation.url));
    }
    if let Some(slot) = &row.slot {
        put("signed_at", json!(rfc3339(row.created_at)));
        put_slot(&mut put, slot, with_signed_tx);
    }
    out
}

fn put_slot(put: &mut impl FnMut(&str, Value), slot: &SlotRow, with_signed_tx: bool) {
    put("nonce", json!(slot.nonce));
    put("tx_hash", json!(slot.tx_hash.to_string()));
    // What is held back, or being cancelled, is not given out for others to send.
    if let Some(raw) = slot.raw.as_ref().filter(|_| with_signed_tx) {
        put("signed_tx", json!(format!("0x{}", hex::encode(raw))));
    }
    put("broadcast_at", json!(slot.broadcast_at.map(rfc3339)));
    put("error_message", json!(slot.error_message));
    put("hold_reason", json!(slot.held));
    put("wait_reason", json!(slot.waits_for.map(waiting_for)));
    let Some(outcome) = slot.outcome else {
        put("replaced_by", json!(slot.noop_tx_hash.map(|hash| hash.to_string())));
        return;
    };
    put("receipt_status", json!(outcome.as_str()));
    put("block_number", json!(slot.block_number));
    put("block_hash", json!(slot.block_hash.map(|hash| hash.to_string())));
    put("gas_used", json!(slot.gas_used));
    put("effective_gas_price", json!(slot.effective_gas_price));
    put("confirmations", json!(slot.confirmations));
    put("final", json!(slot.state == SlotState::Final));
    if slot.mined_tx_hash.is_some_and(|mined| mined != slot.tx_hash) {
        put("replaced_by", json!(slot.mined_tx_hash.map(|hash| hash.to_string())));
    }
}

fn waiting_for(nonce: u64) -> String {
    format!(
        "nonce {nonce} of its key comes before it and is held back: this one cannot be mined until that one is sent or cancelled, which \
         GET /v1/lanes tells humans about"
    )
}

/// The body of `POST …/sign`.
#[must_use]
pub fn signed(row: &IntentRow) -> Map<String, Value> {
    let mut out = transaction(row, true);
    for name in ["agent_id", "signed_at", "data"] {
        out.remove(name);
    }
    out
}
