//! `intentd simulator`: the chains' own nodes behind Tenderly's HTTP API, so that a self-hoster needs no third party.
//!
//! - [`request`]: what clients send. Pure.
//! - [`render`]: what they get. Pure.
//! - [`page`]: a simulation as a page for people. Pure.
//! - [`results`]: what is kept, bounded in size and time.
//! - [`http`]: the routes.
//!
//! It has no database and signs nothing. Where the node traces, the tree and all that changes are told; where it only has
//! `eth_simulateV1`, the transfers are; where it has neither, the answer says that its effects are not complete.

pub mod http;
mod page;
mod render;
pub mod request;
mod results;

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, U256};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use self::request::SimulateRequest;
use super::balances;
use super::call::{Call, Overrides};
use super::effects::TRANSFER;
use super::frame::CallFrame;
use super::node::trace::{self, Changes};
use super::node::{self, End, Outcome};
use super::{Method, SimulateError};
use crate::chain::{Chain, ChainSpec, Rpc, RpcError};

/// Most simulations of one bundle: a client's own, and those of the transactions that come first.
const BUNDLE_MAX: usize = super::BUNDLE_MAX + super::UNMINED_MAX;
/// Gas of a request that names none, as Tenderly has it.
const DEFAULT_GAS: u64 = 8_000_000;

/// One simulation with all that is shown of it.
#[derive(Clone, Debug)]
struct Simulated {
    id: Uuid,
    request: SimulateRequest,
    call: Call,
    outcome: Outcome,
    /// The tree; made up of the transfers where the node has no tracer.
    frame: CallFrame,
    traced: bool,
    changes: Changes,
    block: Block,
    tokens: BTreeMap<Address, Token>,
    native: String,
    at: OffsetDateTime,
}

/// The block that it ran on.
#[derive(Clone, Debug)]
struct Block {
    number: u64,
    timestamp: u64,
    miner: Address,
    header: Value,
}

/// What a token says of itself.
#[derive(Clone, Debug, Default)]
struct Token {
    symbol: Option<String>,
    decimals: Option<u8>,
}

/// Why there is no result.
#[derive(Debug)]
enum Refusal {
    /// 400: it cannot start, or the request is not usable.
    Refused { slug: &'static str, message: String },
    /// 503.
    Unavailable(SimulateError),
}

impl From<SimulateError> for Refusal {
    fn from(error: SimulateError) -> Self {
        Self::Unavailable(error)
    }
}

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// Simulates some requests of one chain in order, up to the first that fails.
async fn simulate(chain: &Chain, requests: Vec<SimulateRequest>) -> Result<Vec<Simulated>, Refusal> {
    let rpc = chain.rpc().await.map_err(SimulateError::from)?;
    let block = read_block(rpc, requests.first().and_then(|request| request.block_number)).await?;
    let steps: Vec<(Call, Overrides)> = requests.iter().map(|request| step(request, chain.spec(), &block)).collect();
    let (mut outcomes, traced) = run(rpc, &block, &steps).await?;
    if let Some((Outcome { end: End::Refused(_, message), .. }, _)) = outcomes.last() {
        return Err(Refusal::Refused { slug: "invalid_transaction_simulation", message: message.clone() });
    }
    let good = outcomes.iter().take_while(|(outcome, _)| outcome.succeeded()).count();
    outcomes.truncate(good + 1);
    let tokens = read_tokens(rpc, &outcomes).await?;
    let at = crate::clock::now();
    let results =
        requests.into_iter().zip(steps).zip(outcomes).map(|((request, (call, _)), (outcome, changes))| Simulated {
            id: Uuid::new_v4(),
            frame: outcome.frame.clone().unwrap_or_else(|| made_up(&call, &outcome)),
            native: chain.spec().native_currency.clone(),
            block: block.clone(),
            tokens: tokens.clone(),
            request,
            call,
            outcome,
            traced,
            changes,
            at,
        });
    Ok(results.collect())
}

/// With the tracer if there is one; else, on the latest block and with no state changed first, by the other methods.
async fn run(
    rpc: &Rpc,
    block: &Block,
    steps: &[(Call, Overrides)],
) -> Result<(Vec<(Outcome, Changes)>, bool), Refusal> {
    match trace::sequence(rpc, block.number, steps, true).await {
        Ok(traced) => Ok((traced.into_iter().map(|one| (one.outcome, one.changes)).collect(), true)),
        Err(error) if node::words::is_missing(&error) => {
            if steps.iter().any(|(_, before)| !before.0.is_empty()) {
                let message = "state_objects need a node with debug_traceCall and stateOverrides".to_owned();
                return Err(Refusal::Refused { slug: "invalid_request", message });
            }
            let calls = steps.iter().map(|(call, _)| call.clone()).collect();
            let run = node::run(rpc, &[], calls).await?;
            Ok((
                run.outcomes.into_iter().map(|outcome| (with_transfers(outcome, run.method), Changes::new())).collect(),
                false,
            ))
        }
        Err(error) => Err(error.into()),
    }
}

fn with_transfers(outcome: Outcome, method: Method) -> Outcome {
    Outcome { complete: outcome.complete && method != Method::Call, ..outcome }
}

fn step(request: &SimulateRequest, spec: &ChainSpec, block: &Block) -> (Call, Overrides) {
    let gas_max = spec.max_gas_limit.min(block.header["gasLimit"].as_str().and_then(hex_u64).unwrap_or(u64::MAX));
    let gas_limit = Some(request.gas.unwrap_or_else(|| DEFAULT_GAS.min(gas_max)));
    let call = Call {
        from: request.from,
        to: request.to,
        value: request.value,
        data: request.input.clone(),
        gas_limit,
        fees: request.fees,
        access_list: request.access_list.clone(),
    };
    (call, request.state_objects.clone())
}

fn hex_u64(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

async fn read_block(rpc: &Rpc, number: Option<u64>) -> Result<Block, Refusal> {
    let tag = number.map_or_else(|| "latest".to_owned(), |number| format!("{number:#x}"));
    let mut header = rpc.request("eth_getBlockByNumber", json!([tag, false])).await?;
    let field = |name: &str| header.get(name).and_then(Value::as_str).and_then(hex_u64);
    let (Some(number), Some(timestamp)) = (field("number"), field("timestamp")) else {
        let message = "there is no such block".to_owned();
        return Err(Refusal::Refused { slug: "invalid_block", message });
    };
    let miner = header["miner"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    // Of a block's body clients get nothing.
    for name in ["transactions", "uncles", "withdrawals"] {
        header[name] = Value::Null;
    }
    Ok(Block { number, timestamp, miner, header })
}

/// The tokens whose transfers are among the events.
async fn read_tokens(rpc: &Rpc, outcomes: &[(Outcome, Changes)]) -> Result<BTreeMap<Address, Token>, RpcError> {
    let logs = outcomes.iter().flat_map(|(outcome, _)| &outcome.logs);
    let tokens: BTreeSet<Address> =
        logs.filter(|log| log.topics.first() == Some(&TRANSFER)).map(|log| log.address).collect();
    if tokens.is_empty() {
        return Ok(BTreeMap::new());
    }
    let known = balances::ask(rpc, BTreeSet::new(), tokens.clone()).await?;
    let token = |address: Address| Token {
        symbol: known.symbols.get(&address).cloned(),
        decimals: known.decimals.get(&address).copied(),
    };
    Ok(tokens.into_iter().map(|address| (address, token(address))).collect())
}

/// Without a tracer: the call itself, and below it the transfers that are known. An account that only passes something on is not seen.
fn made_up(call: &Call, outcome: &Outcome) -> CallFrame {
    let kind = if call.to.is_some() { "CALL" } else { "CREATE" };
    let error = match &outcome.end {
        End::Success => None,
        End::Reverted => Some("execution reverted".to_owned()),
        End::Halted(words) | End::Refused(_, words) => Some(words.clone()),
    };
    CallFrame {
        kind: kind.to_owned(),
        from: call.from,
        to: call.to,
        value: call.value,
        gas: call.gas_limit.unwrap_or_default(),
        gas_used: outcome.gas_used,
        input: call.data.clone(),
        output: outcome.output.clone(),
        error,
        logs: outcome.logs.clone(),
        calls: inner_transfers(call, outcome),
    }
}

/// What moves natively beyond the call's own value, as transfers that come to the same: what accounts lose goes to those that gain.
fn inner_transfers(call: &Call, outcome: &Outcome) -> Vec<CallFrame> {
    let mut rest = outcome.moved.clone();
    if let Some(to) = call.to.filter(|_| !call.value.is_zero()) {
        rest.transfer(None, to, call.from, call.value);
    }
    let native: Vec<_> = rest.changes().filter(|((_, token), _)| token.is_none()).collect();
    let amount = |loses: bool| {
        native.iter().filter_map(move |((account, _), delta)| {
            let side = if loses { *delta } else { delta.negated() };
            side.loss().filter(|loss| !loss.is_zero()).map(|loss| (*account, loss))
        })
    };
    let mut gains: Vec<(Address, U256)> = amount(false).collect();
    let mut frames = Vec::new();
    for (from, mut left) in amount(true).collect::<Vec<_>>() {
        while let Some((to, gain)) = gains.last_mut().filter(|_| !left.is_zero()) {
            let part = left.min(*gain);
            frames.push(CallFrame {
                kind: "CALL".to_owned(),
                from,
                to: Some(*to),
                value: part,
                gas: 0,
                gas_used: 0,
                input: Default::default(),
                output: Default::default(),
                error: None,
                logs: Vec::new(),
                calls: Vec::new(),
            });
            left -= part;
            *gain -= part;
            if gain.is_zero() {
                gains.pop();
            }
        }
    }
    frames
}
