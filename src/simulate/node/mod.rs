//! The node's simulators, best first: `eth_simulateV1`, `debug_traceCall`, `eth_call` with `eth_estimateGas`.
//!
//! Which of them a node has is found by asking, and remembered with the connection. All run on mined blocks: `pending` would apply our
//! own unmined transactions a second time.

mod simulate_v1;
pub(super) mod trace;
pub(super) mod words;

use alloy::primitives::{Bytes, U64};
use serde_json::json;

use self::simulate_v1::SIMULATE;
use self::trace::TRACE;
use self::words::is_missing;
use super::call::{Call, Overrides};
use super::effects::Moved;
use super::frame::CallFrame;
use super::{EventLog, Method, SimulateError, UNMINED_MAX};
use crate::chain::{Rpc, RpcError, Unreachable, UnsignedTx};
use crate::ids::SimulationId;

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
    /// Whether `logs` and `moved` are all there is.
    pub(super) complete: bool,
    /// The tree, where it is known.
    pub(super) frame: Option<CallFrame>,
    /// The simulator's own id of it, and where a person can look at it.
    pub(super) id: Option<SimulationId>,
    pub(super) dashboard_url: Option<String>,
    /// Why it failed, in the simulator's words, for where the return data says nothing.
    pub(super) reason: Option<String>,
}

impl Outcome {
    /// An outcome without effects.
    pub(super) fn ended(end: End) -> Self {
        Self {
            end,
            gas_used: 0,
            output: Bytes::new(),
            logs: Vec::new(),
            moved: Moved::default(),
            complete: true,
            frame: None,
            id: None,
            dashboard_url: None,
            reason: None,
        }
    }

    /// All that a tree tells.
    pub(super) fn of_frame(frame: CallFrame) -> Self {
        let end = match frame.error.as_deref() {
            None => End::Success,
            Some(words) if words.contains("revert") => End::Reverted,
            Some(words) => End::Halted(words.to_owned()),
        };
        let (logs, mut moved) = (frame.logs_emitted(), frame.moved_natively());
        logs.iter().for_each(|log| moved.log(log));
        Self {
            gas_used: frame.gas_used,
            output: frame.output.clone(),
            logs,
            moved,
            frame: Some(frame),
            ..Self::ended(end)
        }
    }

    pub(super) fn succeeded(&self) -> bool {
        self.end == End::Success
    }
}

/// What all calls did, ours that are unmined first.
pub(super) struct Run {
    pub(super) method: Method,
    /// The sum of what the unmined ones move.
    pub(super) prior: Moved,
    /// The rest, one each, up to the first that fails.
    pub(super) outcomes: Vec<Outcome>,
}

impl Run {
    /// Takes the first `prior` of the outcomes as those of our unmined transactions. One of them that reverts changes nothing.
    ///
    /// # Errors
    /// [`SimulateError::UnminedCannotStart`]: one of them holds up what comes after it, of which nothing can be told.
    pub(super) fn new(method: Method, prior: usize, mut outcomes: Vec<Outcome>) -> Result<Self, SimulateError> {
        if prior > 0 && outcomes.len() <= prior {
            return Err(SimulateError::UnminedCannotStart);
        }
        let mut sum = Moved::default();
        outcomes.drain(..prior).for_each(|outcome| sum.merge(&outcome.moved));
        let good = outcomes.iter().take_while(|outcome| outcome.succeeded()).count();
        outcomes.truncate(good + 1);
        Ok(Self { method, prior: sum, outcomes })
    }
}

/// Runs `prior` and then `calls`, each on the state that the one before left.
pub(super) async fn run(rpc: &Rpc, prior: &[UnsignedTx], calls: Vec<Call>) -> Result<Run, SimulateError> {
    let count = prior.len();
    if count > UNMINED_MAX {
        return Err(SimulateError::TooManyUnmined { count });
    }
    // What ours pay for gas is of no effect, and their fee may be below what a block asks for now.
    let calls: Vec<Call> = prior.iter().map(|tx| Call::from(tx).unpaid()).chain(calls).collect();
    if !rpc.lacks(SIMULATE) {
        match simulate_v1::simulate(rpc, &calls).await {
            Err(error) if is_missing(&error) => rpc.remember(SIMULATE, false),
            Err(error) => return Err(error.into()),
            Ok(outcomes) => return Run::new(Method::SimulateV1, count, outcomes),
        }
    }
    if !rpc.lacks(TRACE) {
        let outcomes = match calls.as_slice() {
            [call] => trace::one(rpc, call).await.map(|outcome| vec![outcome]),
            _ => trace_all(rpc, &calls).await,
        };
        match outcomes {
            Err(error) if is_missing(&error) && calls.len() == 1 => rpc.remember(TRACE, false),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error.into()),
            Ok(outcomes) => return Run::new(Method::TraceCall, count, outcomes),
        }
    }
    let [call] = calls.as_slice() else {
        let count = calls.len() - 1;
        return Err(SimulateError::UnminedNotSupported { chain: rpc.chain().to_owned(), count });
    };
    Run::new(Method::Call, count, vec![plain_call(rpc, call).await?])
}

async fn trace_all(rpc: &Rpc, calls: &[Call]) -> Result<Vec<Outcome>, RpcError> {
    let block = rpc.head().await?.number;
    let calls: Vec<(Call, Overrides)> = calls.iter().map(|call| (call.clone(), Overrides::default())).collect();
    let traced = trace::sequence(rpc, block, &calls, false).await?;
    Ok(traced.into_iter().map(|traced| traced.outcome).collect())
}

/// Of the effects only the transaction's own value is known.
async fn plain_call(rpc: &Rpc, call: &Call) -> Result<Outcome, RpcError> {
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
    if let Some(to) = call.to {
        moved.transfer(None, call.from, to, call.value);
    }
    Ok(Outcome { gas_used: gas_used.to(), output, moved, complete: false, ..Outcome::ended(End::Success) })
}

/// A node's error object as the end of the call, where it is one; otherwise the error.
fn failed(error: RpcError) -> Result<Outcome, RpcError> {
    let Some(node) = error.node_error() else { return Err(error) };
    let Some(end) = words::end_of(&node.message) else { return Err(error) };
    let output = node.data.clone().unwrap_or_default();
    Ok(Outcome { output, ..Outcome::ended(end) })
}

fn garbage(rpc: &Rpc, what: &'static str) -> RpcError {
    RpcError::Unreachable { chain: rpc.chain().to_owned(), cause: Unreachable::Garbage(what) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_ours_that_cannot_start_is_never_told_as_the_callers() {
        let good = || Outcome::ended(End::Success);
        let refused = || Outcome::ended(End::Refused("insufficient_funds", String::new()));
        let run = |prior, outcomes| Run::new(Method::SimulateV1, prior, outcomes);
        assert_eq!(run(2, vec![good(), refused()]).err(), Some(SimulateError::UnminedCannotStart));
        assert_eq!(run(1, vec![]).err(), Some(SimulateError::UnminedCannotStart));
        assert_eq!(run(1, vec![good(), refused()]).unwrap().outcomes.len(), 1);
        assert_eq!(run(1, vec![Outcome::ended(End::Reverted), good(), good()]).unwrap().outcomes.len(), 2);
    }
}
