//! The node's simulators, best first: `eth_simulateV1`, `debug_traceCall`, `eth_call` with `eth_estimateGas`.
//!
//! Which of them a node has is found by asking, and remembered with the connection. All run on state `latest`: `pending`
//! would apply our own unmined transactions a second time.

use alloy::primitives::{Address, B256, Bytes, U64, U256};
use serde::Deserialize;
use serde_json::{Value, json};

use super::effects::Moved;
use super::{EventLog, Method, SimulateError, UNMINED_MAX};
use crate::chain::{NodeError, Rpc, RpcError, TxRequest, Unreachable, UnsignedTx};

const SIMULATE: &str = "eth_simulateV1";
const TRACE: &str = "debug_traceCall";

/// How one call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Success,
    /// By `REVERT`; the return data says why.
    Reverted,
    /// By a fault of the code, out of gas above all; the node's words.
    Halted(String),
    /// It could not start; the short word and the node's words.
    Refused(&'static str, String),
}

/// What one call did.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) gas_used: u64,
    pub(super) output: Bytes,
    pub(super) logs: Vec<EventLog>,
    pub(super) moved: Moved,
}

/// What all calls did, ours that are unmined first.
pub(super) struct Run {
    pub(super) method: Method,
    /// The sum of what the unmined ones move.
    pub(super) prior: Moved,
    /// The rest, one each.
    pub(super) outcomes: Vec<Outcome>,
}

/// Runs `prior` and then `txs`, each on the state that the one before left.
pub(super) async fn run(rpc: &Rpc, prior: &[UnsignedTx], txs: &[UnsignedTx]) -> Result<Run, SimulateError> {
    let count = prior.len();
    if count > UNMINED_MAX {
        return Err(SimulateError::TooManyUnmined { count });
    }
    let calls: Vec<TxRequest> = prior.iter().chain(txs).map(TxRequest::from).collect();
    if !rpc.lacks(SIMULATE) {
        match simulate_v1(rpc, &calls).await {
            Err(error) if is_missing(&error) => rpc.set_lacks(SIMULATE),
            Err(error) => return Err(error.into()),
            Ok(mut outcomes) => {
                let mut prior = Moved::default();
                outcomes.drain(..count).for_each(|outcome| prior.merge(&outcome.moved));
                return Ok(Run { method: Method::SimulateV1, prior, outcomes });
            }
        }
    }
    let [call] = calls.as_slice() else {
        let count = calls.len() - 1;
        return Err(SimulateError::UnminedNotSupported { chain: rpc.chain().to_owned(), count });
    };
    let (method, outcome) = one(rpc, call).await?;
    Ok(Run { method, prior: Moved::default(), outcomes: vec![outcome] })
}

async fn one(rpc: &Rpc, call: &TxRequest) -> Result<(Method, Outcome), RpcError> {
    if !rpc.lacks(TRACE) {
        match trace_call(rpc, call).await {
            Err(error) if is_missing(&error) => rpc.set_lacks(TRACE),
            answer => return answer.map(|outcome| (Method::TraceCall, outcome)),
        }
    }
    Ok((Method::Call, plain_call(rpc, call).await?))
}

/// One outcome for each call. A block for each call, too: together they may ask for more gas than one block has.
///
/// A call that cannot start (no funds) fails the whole, without a word which one it is: then all have that outcome.
async fn simulate_v1(rpc: &Rpc, calls: &[TxRequest]) -> Result<Vec<Outcome>, RpcError> {
    let blocks: Vec<Value> = calls.iter().map(|call| json!({"calls": [call.to_json()]})).collect();
    let options = json!({"blockStateCalls": blocks, "traceTransfers": true, "validation": false});
    let answer = match rpc.request(SIMULATE, json!([options, "latest"])).await {
        Ok(answer) => answer,
        Err(error) => return failed(error).map(|outcome| vec![outcome; calls.len()]),
    };
    let blocks: Vec<SimulatedBlock> =
        serde_json::from_value(answer).map_err(|_| garbage(rpc, "a simulated block lacks a field"))?;
    let results: Vec<SimulatedCall> = blocks.into_iter().flat_map(|block| block.calls).collect();
    if results.len() != calls.len() {
        return Err(garbage(rpc, "not one result for each call"));
    }
    Ok(results.into_iter().map(Outcome::from).collect())
}

async fn trace_call(rpc: &Rpc, call: &TxRequest) -> Result<Outcome, RpcError> {
    let options = json!({"tracer": "callTracer", "tracerConfig": {"withLog": true}});
    let answer = match rpc.request(TRACE, json!([call.to_json(), "latest", options])).await {
        Ok(answer) => answer,
        Err(error) => return failed(error),
    };
    let frame: Frame = serde_json::from_value(answer).map_err(|_| garbage(rpc, "a call frame lacks a field"))?;
    let end = match frame.error.as_deref() {
        None => End::Success,
        Some(words) if words.contains("revert") => End::Reverted,
        Some(words) => End::Halted(words.to_owned()),
    };
    let (gas_used, output) = (frame.gas_used.to(), frame.output.clone());
    let (mut logs, mut moved) = (Vec::new(), Moved::default());
    frame.collect(&mut logs, &mut moved);
    Ok(Outcome { end, gas_used, output, logs, moved })
}

async fn plain_call(rpc: &Rpc, call: &TxRequest) -> Result<Outcome, RpcError> {
    let params = json!([call.to_json(), "latest"]);
    let output = match rpc.request("eth_call", params.clone()).await {
        Ok(output) => serde_json::from_value(output).map_err(|_| garbage(rpc, "return data that is not hex"))?,
        Err(error) => return failed(error),
    };
    let gas_used: U64 = match rpc.request("eth_estimateGas", params).await {
        Ok(gas) => serde_json::from_value(gas).map_err(|_| garbage(rpc, "gas that is not a number"))?,
        Err(error) => return failed(error),
    };
    let mut moved = Moved::default();
    moved.transfer(None, call.from, call.to, call.value.0);
    Ok(Outcome { end: End::Success, gas_used: gas_used.to(), output, logs: Vec::new(), moved })
}

/// A node's error object as the end of the call, where it is one; otherwise the error.
fn failed(error: RpcError) -> Result<Outcome, RpcError> {
    let Some(node) = error.node_error() else { return Err(error) };
    let Some(end) = end_of(node) else { return Err(error) };
    let output = node.data.clone().unwrap_or_default();
    Ok(Outcome { end, gas_used: 0, output, logs: Vec::new(), moved: Moved::default() })
}

/// geth, anvil, Nethermind, Erigon and Besu, by their words.
fn end_of(error: &NodeError) -> Option<End> {
    let words = error.message.to_lowercase();
    let has = |list: &[&str]| list.iter().any(|word| words.contains(word));
    if has(&["insufficient funds", "insufficient balance", "lack of funds", "insufficientfunds"]) {
        return Some(End::Refused("insufficient_funds", error.message.clone()));
    }
    if has(&["intrinsic gas", "gas floor", "floor data gas", "callgascostmorethangaslimit"]) {
        return Some(End::Refused("intrinsic_gas", error.message.clone()));
    }
    if has(&["gas limit", "gaslimit", "gas required exceeds"]) && has(&["exceed", "too high", "above", "higher", "max"])
    {
        return Some(End::Refused("gas_limit", error.message.clone()));
    }
    if has(&["revert"]) {
        return Some(End::Reverted);
    }
    if has(&[
        "out of gas",
        "outofgas",
        "invalid opcode",
        "stack underflow",
        "stack overflow",
        "invalid jump",
        "evm error",
    ]) {
        return Some(End::Halted(error.message.clone()));
    }
    None
}

/// Whether the node has no such method, or not for us.
fn is_missing(error: &RpcError) -> bool {
    let Some(error) = error.node_error() else { return false };
    let words = error.message.to_lowercase();
    let missing = [
        "method not found",
        "does not exist",
        "not available",
        "not supported",
        "unsupported",
        "not allowed",
        "not enabled",
        "disabled",
        "whitelisted",
        "unknown method",
    ];
    matches!(error.code, -32601 | -32602 | -32004) || missing.iter().any(|word| words.contains(word))
}

fn garbage(rpc: &Rpc, what: &'static str) -> RpcError {
    RpcError::Unreachable { chain: rpc.chain().to_owned(), cause: Unreachable::Garbage(what) }
}

#[derive(Deserialize)]
struct SimulatedBlock {
    calls: Vec<SimulatedCall>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SimulatedCall {
    status: U64,
    gas_used: U64,
    return_data: Bytes,
    #[serde(default)]
    logs: Option<Vec<LogJson>>,
    #[serde(default)]
    error: Option<CallError>,
}

#[derive(Deserialize)]
struct CallError {
    #[serde(default)]
    message: String,
    /// geth puts the return data here as well.
    #[serde(default)]
    data: Option<Bytes>,
}

impl From<SimulatedCall> for Outcome {
    fn from(call: SimulatedCall) -> Self {
        let gas_used = call.gas_used.to();
        if call.status == U64::from(1) {
            let (mut logs, mut moved) = (Vec::new(), Moved::default());
            for log in call.logs.unwrap_or_default() {
                log.add_to(&mut logs, &mut moved);
            }
            return Self { end: End::Success, gas_used, output: call.return_data, logs, moved };
        }
        let error = call.error.unwrap_or(CallError { message: String::new(), data: None });
        let output = if call.return_data.is_empty() { error.data.unwrap_or_default() } else { call.return_data };
        let words = error.message.to_lowercase();
        // anvil says "execution failed" whatever it was. Return data comes from REVERT alone.
        let end =
            if !output.is_empty() || words.contains("revert") { End::Reverted } else { End::Halted(error.message) };
        Self { end, gas_used, output, logs: Vec::new(), moved: Moved::default() }
    }
}

#[derive(Deserialize)]
struct LogJson {
    address: Address,
    #[serde(default)]
    topics: Vec<B256>,
    #[serde(default)]
    data: Bytes,
}

impl LogJson {
    /// Native transfers are logs only by `eth_simulateV1`'s convention: they move something, but are no events.
    fn add_to(self, logs: &mut Vec<EventLog>, moved: &mut Moved) {
        let log = EventLog { address: self.address, topics: self.topics, data: self.data };
        moved.log(&log);
        if log.address != super::effects::NATIVE {
            logs.push(log);
        }
    }
}

/// A frame of `callTracer`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Frame {
    r#type: String,
    from: Address,
    #[serde(default)]
    to: Option<Address>,
    #[serde(default)]
    value: Option<U256>,
    #[serde(default)]
    gas_used: U64,
    #[serde(default)]
    output: Bytes,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    logs: Vec<LogJson>,
    #[serde(default)]
    calls: Vec<Frame>,
}

impl Frame {
    /// What it and its sub-calls emit and move; nothing where it failed, whatever its sub-calls did.
    fn collect(self, logs: &mut Vec<EventLog>, moved: &mut Moved) {
        if self.error.is_some() {
            return;
        }
        let transfers = matches!(self.r#type.as_str(), "CALL" | "CREATE" | "CREATE2" | "SELFDESTRUCT");
        if let (true, Some(to), Some(value)) = (transfers, self.to, self.value.filter(|value| !value.is_zero())) {
            moved.transfer(None, self.from, to, value);
        }
        self.logs.into_iter().for_each(|log| log.add_to(logs, moved));
        self.calls.into_iter().for_each(|call| call.collect(logs, moved));
    }
}
