//! `eth_simulateV1`: any number of calls on one state, with every transfer told.

use alloy::primitives::{Address, B256, Bytes, U64, U256};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{End, Outcome, failed, garbage};
use crate::chain::{Rpc, RpcError};
use crate::simulate::EventLog;
use crate::simulate::call::Call;
use crate::simulate::effects::{Moved, NATIVE};

pub(super) const SIMULATE: &str = "eth_simulateV1";

/// One outcome for each call, up to the first that cannot start.
///
/// A call that cannot start (no funds) fails the whole, without a word which one it is: it is looked for by halving.
pub(super) async fn simulate(rpc: &Rpc, calls: &[Call]) -> Result<Vec<Outcome>, RpcError> {
    let latest = rpc.request("eth_getBlockByNumber", json!(["latest", false])).await?;
    let head: HeadJson = serde_json::from_value(latest).map_err(|_| garbage(rpc, "the latest block lacks a field"))?;
    let whole = attempt(rpc, &head, calls).await?;
    let Attempt::Refused(mut refused) = whole else { return Ok(whole.outcomes()) };
    // `start` of them can start, `end` of them cannot.
    let (mut start, mut end, mut good) = (0, calls.len(), Vec::new());
    while end - start > 1 {
        let half = start + (end - start) / 2;
        match attempt(rpc, &head, &calls[..half]).await? {
            Attempt::Done(outcomes) => (start, good) = (half, outcomes),
            Attempt::Refused(outcome) => (end, refused) = (half, outcome),
        }
    }
    good.push(*refused);
    Ok(good)
}

enum Attempt {
    Done(Vec<Outcome>),
    Refused(Box<Outcome>),
}

impl Attempt {
    fn outcomes(self) -> Vec<Outcome> {
        match self {
            Self::Done(outcomes) => outcomes,
            Self::Refused(outcome) => vec![*outcome],
        }
    }
}

/// The block that is simulated on, as far as contracts see it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadJson {
    number: U64,
    timestamp: U64,
    #[serde(default)]
    base_fee_per_gas: Option<U256>,
    #[serde(default)]
    miner: Option<Address>,
}

impl HeadJson {
    /// What the block `index` after it looks like. Without this a contract sees a base fee of 0 and no producer, and can tell a simulation
    /// from a block.
    fn next(&self, index: usize) -> Value {
        let time = self.timestamp.to::<u64>().saturating_add(index as u64 + 1);
        let mut block = json!({ "time": format!("{time:#x}") });
        if let Some(base_fee) = self.base_fee_per_gas {
            block["baseFeePerGas"] = json!(format!("{base_fee:#x}"));
        }
        if let Some(miner) = self.miner {
            block["feeRecipient"] = json!(miner);
        }
        block
    }
}

/// A block for each call: together they may ask for more gas than one block has.
async fn attempt(rpc: &Rpc, head: &HeadJson, calls: &[Call]) -> Result<Attempt, RpcError> {
    let block = |(index, call): (usize, &Call)| json!({"blockOverrides": head.next(index), "calls": [call.to_json()]});
    let blocks: Vec<Value> = calls.iter().enumerate().map(block).collect();
    let options = json!({"blockStateCalls": blocks, "traceTransfers": true, "validation": false});
    let answer = match rpc.request(SIMULATE, json!([options, format!("{:#x}", head.number.to::<u64>())])).await {
        Ok(answer) => answer,
        Err(error) => return failed(error).map(|outcome| Attempt::Refused(Box::new(outcome))),
    };
    let blocks: Vec<SimulatedBlock> =
        serde_json::from_value(answer).map_err(|_| garbage(rpc, "a simulated block lacks a field"))?;
    let results: Vec<SimulatedCall> = blocks.into_iter().flat_map(|block| block.calls).collect();
    if results.len() != calls.len() {
        return Err(garbage(rpc, "not one result for each call"));
    }
    Ok(Attempt::Done(results.into_iter().map(Outcome::from).collect()))
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

#[derive(Deserialize)]
pub(super) struct LogJson {
    address: Address,
    #[serde(default)]
    topics: Vec<B256>,
    #[serde(default)]
    data: Bytes,
}

impl From<LogJson> for EventLog {
    fn from(log: LogJson) -> Self {
        Self { address: log.address, topics: log.topics, data: log.data }
    }
}

impl From<SimulatedCall> for Outcome {
    fn from(call: SimulatedCall) -> Self {
        let gas_used = call.gas_used.to();
        if call.status == U64::from(1) {
            let (mut logs, mut moved) = (Vec::new(), Moved::default());
            for log in call.logs.unwrap_or_default().into_iter().map(EventLog::from) {
                // Native transfers are logs only by this method's convention: they move something, but are no events.
                moved.log(&log);
                if log.address != NATIVE {
                    logs.push(log);
                }
            }
            return Self { gas_used, output: call.return_data, logs, moved, ..Self::ended(End::Success) };
        }
        let error = call.error.unwrap_or(CallError { message: String::new(), data: None });
        let output = if call.return_data.is_empty() { error.data.unwrap_or_default() } else { call.return_data };
        let words = error.message.to_lowercase();
        // anvil says "execution failed" whatever it was. Return data comes from REVERT alone.
        let end =
            if !output.is_empty() || words.contains("revert") { End::Reverted } else { End::Halted(error.message) };
        Self { gas_used, output, ..Self::ended(end) }
    }
}
