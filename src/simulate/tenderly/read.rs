//! From an answer to what moved. Pure.
//!
//! Native amounts come from the calls, tokens from the events: the same sources that a node's own answer is read from, so the integers
//! are the same. What the service says of assets and balances beside that is held against them: where it knows of more that leaves an
//! account, the effects are not complete.

use std::collections::BTreeSet;

use alloy::primitives::{Address, Bytes, U256};

use super::wire::{AssetChange, Frame, Simulated, Transaction};
use crate::simulate::EventLog;
use crate::simulate::call::Call;
use crate::simulate::effects::{Delta, Moved, NATIVE, Position, TRANSFER};
use crate::simulate::frame::CallFrame;
use crate::simulate::node::{End, Outcome};

/// Reads one result. It must be about the call that was asked about.
///
/// # Errors
/// What makes no sense of it.
pub(in crate::simulate) fn outcome(result: &Simulated, chain_id: u64, call: &Call) -> Result<Outcome, &'static str> {
    let transaction = &result.transaction;
    check_echo(transaction, chain_id, call)?;
    let mut outcome = effects(transaction)?;
    if let Some(info) = &result.simulation {
        outcome.id = info.id.as_deref().and_then(|id| id.parse().ok());
        outcome.complete &= info.effects_complete != Some(false);
    }
    Ok(outcome)
}

/// A cache, a proxy or a mix-up must not answer for another transaction.
fn check_echo(transaction: &Transaction, chain_id: u64, call: &Call) -> Result<(), &'static str> {
    let same = transaction.network_id.as_deref() == Some(chain_id.to_string().as_str())
        && transaction.from == Some(call.from)
        && (call.to.is_none() || transaction.to == call.to)
        && transaction.value.unwrap_or_default() == call.value
        && transaction.input.as_ref().unwrap_or(&Bytes::new()) == &call.data;
    let root = transaction.transaction_info.call_trace.as_ref();
    let same_call = root.is_none_or(|root| {
        root.from.is_none_or(|from| from == call.from)
            && (call.to.is_none() || root.to.is_none() || root.to == call.to)
            && root.value.is_none_or(|value| value == call.value)
            && (call.to.is_none() || root.input.as_ref().is_none_or(|input| *input == call.data))
    });
    if same && same_call { Ok(()) } else { Err("it is about another transaction") }
}

/// What a transaction did, however it is written.
///
/// # Errors
/// What makes no sense of it.
pub(in crate::simulate) fn effects(transaction: &Transaction) -> Result<Outcome, &'static str> {
    let info = &transaction.transaction_info;
    let gas_used = transaction.gas_used.unwrap_or_default().try_into().map_err(|_| "more gas than there is")?;
    let root = info.call_trace.as_ref().or(transaction.call_trace.first());
    let output = root.and_then(|root| root.output.clone()).unwrap_or_default();
    if !transaction.status {
        let words = root.and_then(|root| root.error.as_deref()).or(transaction.error_message.as_deref());
        let told = root.and_then(|root| root.error_reason.clone()).or_else(|| transaction.error_message.clone());
        let reverted = !output.is_empty() || words.is_none_or(|words| words.to_lowercase().contains("revert"));
        let end = if reverted { End::Reverted } else { End::Halted(words.unwrap_or_default().to_owned()) };
        let reason = told.filter(|told| !told.eq_ignore_ascii_case("execution reverted"));
        return Ok(Outcome { gas_used, output, reason, ..Outcome::ended(end) });
    }
    let told = |words: Option<&str>| words.is_some_and(|words| !words.is_empty());
    if told(root.and_then(|root| root.error.as_deref())) || told(transaction.error_message.as_deref()) {
        return Err("it says both that the call succeeded and why it failed");
    }
    let logs = if info.logs.is_empty() { &transaction.logs } else { &info.logs };
    let logs: Vec<EventLog> = logs.iter().map(EventLog::from).filter(|log| log.address != NATIVE).collect();
    let (native, nested) = match &info.call_trace {
        Some(root) => (nested_frame(root)?.moved_natively(), true),
        None => (flat_transfers(&transaction.call_trace), false),
    };
    let assets = info.asset_changes.as_ref().or(transaction.asset_changes.as_ref());
    let known = assets.map(|assets| assets_moved(assets));
    let complete = nested
        && known.as_ref().is_none_or(|known| !loses_more(known, &native, |(_, token)| token.is_none()))
        && !loses_more(&balances_moved(transaction), &native, |(account, token)| {
            token.is_none() && Some(account) != transaction.from
        });

    let mut moved = native;
    logs.iter().for_each(|log| moved.log(log));
    // Rules about tokens read the events: what the service knows of beside them would pass unseen.
    let complete = complete
        && known.as_ref().is_none_or(|known| {
            !loses_more(known, &moved, |(account, token)| token.is_some() && Some(account) == transaction.from)
        });
    let with_events: BTreeSet<Address> =
        logs.iter().filter(|log| log.topics.first() == Some(&TRANSFER)).map(|log| log.address).collect();
    // Wrapped native tokens mint and burn without a Transfer event: the service knows them by name.
    for ((account, token), delta) in known.iter().flat_map(Moved::changes) {
        if token.is_some_and(|token| !with_events.contains(&token)) {
            moved.change((account, token), delta);
        }
    }
    Ok(Outcome { gas_used, output, logs, moved, complete, ..Outcome::ended(End::Success) })
}

/// The tree, without the functions inside of contracts.
fn nested_frame(frame: &Frame) -> Result<CallFrame, &'static str> {
    let kind = frame.kind().unwrap_or_default().to_owned();
    let mut calls = Vec::new();
    for call in &frame.calls {
        let inner = nested_frame(call)?;
        if inner.kind == "JUMPDEST" {
            calls.extend(inner.calls);
        } else {
            calls.push(inner);
        }
    }
    let known = ["CALL", "STATICCALL", "DELEGATECALL", "CALLCODE", "CREATE", "CREATE2", "SELFDESTRUCT", "JUMPDEST"];
    let value = frame.value.unwrap_or_default();
    if !known.contains(&kind.as_str()) && !value.is_zero() {
        return Err("a call of an unknown kind moves value");
    }
    Ok(CallFrame {
        kind,
        from: frame.from.ok_or("a call without a caller")?,
        to: frame.to,
        value,
        gas: 0,
        gas_used: 0,
        input: Bytes::new(),
        output: frame.output.clone().unwrap_or_default(),
        error: frame.error.clone().filter(|error| !error.is_empty()),
        logs: Vec::new(),
        calls,
    })
}

/// Without nesting it cannot be told what a failed call takes with it, nor whether any is missing: this is never complete.
fn flat_transfers(frames: &[Frame]) -> Moved {
    let mut moved = Moved::default();
    for frame in frames.iter().filter(|frame| frame.error.is_none()) {
        let transfers = matches!(frame.kind(), Some("CALL" | "CREATE" | "CREATE2" | "SELFDESTRUCT"));
        if let (true, Some(from), Some(to), Some(value)) = (transfers, frame.from, frame.to, frame.value) {
            moved.transfer(None, from, to, value);
        }
    }
    moved
}

/// The sums of what the service says moved; single tokens of a collection are no amounts.
pub(in crate::simulate) fn assets_moved(assets: &[AssetChange]) -> Moved {
    let mut moved = Moved::default();
    for asset in assets {
        let amount = asset.raw_amount.unwrap_or_default();
        let (from, to) = (asset.from.unwrap_or_default(), asset.to.unwrap_or_default());
        match (asset.token_info.standard.as_deref(), asset.token_info.contract_address) {
            (Some("NativeCurrency"), _) => moved.transfer(None, from, to, amount),
            (Some("ERC20"), Some(token)) => moved.transfer(Some(token), from, to, amount),
            _ => {}
        }
    }
    moved
}

fn balances_moved(transaction: &Transaction) -> Moved {
    let mut moved = Moved::default();
    let accounts = transaction.transaction_info.balance_diff.iter().filter(|diff| !diff.is_miner);
    for diff in accounts {
        let gain = |amount: Option<U256>| Delta::gain(amount.unwrap_or_default());
        if let Some(account) = diff.address {
            moved.change((account, None), gain(diff.dirty).plus(gain(diff.original).negated()));
        }
    }
    moved
}

/// Whether by `claimed` an account loses more of something than by `found`, of the positions that are asked about.
fn loses_more(claimed: &Moved, found: &Moved, which: impl Fn(Position) -> bool) -> bool {
    let loss = |delta: Delta| delta.loss().unwrap_or(U256::MAX);
    claimed
        .changes()
        .filter(|(position, _)| which(*position))
        .any(|(position, delta)| loss(delta) > loss(found.of(position)))
}

#[cfg(test)]
#[path = "samples.rs"]
mod samples;
