//! `debug_traceCall`: the tree of one call, and what it changes of the state; several calls by carrying the changes over.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, Bytes, U64, U256, address, bytes};
use serde::Deserialize;
use serde_json::{Value, json};

use super::simulate_v1::LogJson;
use super::words::is_missing;
use super::{End, Outcome, failed, garbage};
use crate::chain::{NodeError, Rpc, RpcError};
use crate::simulate::EventLog;
use crate::simulate::call::{Call, Override, Overrides};
use crate::simulate::frame::CallFrame;

pub(super) const TRACE: &str = "debug_traceCall";
/// Whether the method obeys `stateOverrides`: a node that ignores them would simulate on another state than it was told to.
const OVERRIDES: &str = "debug_traceCall with stateOverrides";
/// Whether its `callTracer` obeys `withLog`: one that does not shows calls without events, as if there were none.
const LOGS: &str = "callTracer with withLog";

/// What one call did, with its tree and the changes it leaves.
#[derive(Clone, Debug)]
pub(in crate::simulate) struct Traced {
    pub(in crate::simulate) outcome: Outcome,
    /// Empty where it was not asked for.
    pub(in crate::simulate) changes: Changes,
}

/// An account before and after. Slots only where they differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::simulate) struct AccountChange {
    pub(in crate::simulate) balance: Option<(U256, U256)>,
    pub(in crate::simulate) nonce: Option<(u64, u64)>,
    pub(in crate::simulate) code: Option<Bytes>,
    pub(in crate::simulate) storage: BTreeMap<B256, (B256, B256)>,
}

/// All accounts that differ.
pub(in crate::simulate) type Changes = BTreeMap<Address, AccountChange>;

/// Traces one call on `block` as it is.
pub(super) async fn one(rpc: &Rpc, call: &Call) -> Result<Outcome, RpcError> {
    let options = json!({"tracer": "callTracer", "tracerConfig": {"withLog": true}});
    match rpc.request(TRACE, json!([call.to_json(), "latest", options])).await {
        Ok(answer) => {
            let outcome = read_frame(rpc, answer)?;
            Ok(Outcome { complete: outcome.complete && tells_logs(rpc).await?, ..outcome })
        }
        Err(error) => failed(error),
    }
}

/// Traces calls one after the other on `block`, changed first as `before` says for each, each on what the ones before left. Ends
/// early at a call that cannot start. `wanted` asks for the changes of the last one too.
///
/// Two requests for each call; none of them sees another block.
pub(in crate::simulate) async fn sequence(
    rpc: &Rpc,
    block: u64,
    calls: &[(Call, Overrides)],
    wanted: bool,
) -> Result<Vec<Traced>, RpcError> {
    let mut state = Overrides::default();
    let mut all = Vec::with_capacity(calls.len());
    for (index, (call, before)) in calls.iter().enumerate() {
        state.apply(before);
        if !state.0.is_empty() {
            ensure_overrides(rpc).await?;
        }
        let with_changes = wanted || index + 1 < calls.len();
        let mut traced = step(rpc, block, call, &state, with_changes).await?;
        traced.outcome.complete &= tells_logs(rpc).await?;
        let refused = matches!(traced.outcome.end, End::Refused(..));
        state.apply(&carried_over(&traced.changes));
        all.push(traced);
        if refused {
            break;
        }
    }
    Ok(all)
}

async fn step(rpc: &Rpc, block: u64, call: &Call, state: &Overrides, with_changes: bool) -> Result<Traced, RpcError> {
    let params = |mut options: Value| {
        if !state.0.is_empty() {
            options["stateOverrides"] = state.to_json();
        }
        json!([call.to_json(), format!("{block:#x}"), options])
    };
    let mut requests = vec![(TRACE, params(json!({"tracer": "callTracer", "tracerConfig": {"withLog": true}})))];
    if with_changes {
        requests.push((TRACE, params(json!({"tracer": "prestateTracer", "tracerConfig": {"diffMode": true}}))));
    }
    let mut answers = rpc.batch(&requests).await?.into_iter();
    let mut next = || answers.next().ok_or_else(|| garbage(rpc, "a call of a batch has no answer"));
    let node = |error: NodeError| RpcError::Node { chain: rpc.chain().to_owned(), error };
    let outcome = match next()? {
        Ok(answer) => read_frame(rpc, answer)?,
        Err(error) => failed(node(error))?,
    };
    let changes = match (with_changes, &outcome.end) {
        (false, _) | (true, End::Refused(..)) => Changes::new(),
        (true, _) => read_changes(rpc, next()?.map_err(node)?)?,
    };
    Ok(Traced { outcome, changes })
}

/// Whether all events of a traced call are told: only a node that has shown it is believed.
async fn tells_logs(rpc: &Rpc) -> Result<bool, RpcError> {
    match probe(rpc).await {
        Ok(()) => Ok(rpc.has(LOGS)),
        Err(error) if error.node_error().is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn ensure_overrides(rpc: &Rpc) -> Result<(), RpcError> {
    probe(rpc).await?;
    if rpc.has(OVERRIDES) {
        return Ok(());
    }
    let message = "debug_traceCall does not support stateOverrides".to_owned();
    Err(RpcError::Node { chain: rpc.chain().to_owned(), error: NodeError { code: -32601, message, data: None } })
}

/// Calls an address that has code only by an override, and emits an event. Asked once for each node.
async fn probe(rpc: &Rpc) -> Result<(), RpcError> {
    const PLACE: Address = address!("c0de00000000000000000000000000000badc0de");
    if rpc.has(OVERRIDES) || rpc.lacks(OVERRIDES) {
        return Ok(());
    }
    // Emits an event without topics and data, and returns 42: PUSH1 0, PUSH1 0, LOG0; PUSH1 42, PUSH1 0, MSTORE, PUSH1 32, PUSH1 0, RETURN.
    let code = bytes!("60006000a0602a60005260206000f3");
    let mut state = Overrides::default();
    state.0.insert(PLACE, Override { code: Some(code), ..Override::default() });
    let call = Call {
        from: PLACE,
        to: Some(PLACE),
        value: U256::ZERO,
        data: Bytes::new(),
        gas_limit: Some(100_000),
        fees: None,
        access_list: Vec::new(),
    };
    let options = json!({
        "tracer": "callTracer", "tracerConfig": {"withLog": true}, "stateOverrides": state.to_json(),
    });
    let (obeyed, logs) = match rpc.request(TRACE, json!([call.to_json(), "latest", options])).await {
        Ok(answer) => {
            let outcome = read_frame(rpc, answer)?;
            (outcome.output.last() == Some(&42), outcome.logs.len() == 1)
        }
        Err(error) if is_missing(&error) || error.node_error().is_some_and(|error| error.code == -32602) => {
            (false, false)
        }
        Err(error) => return Err(error),
    };
    rpc.remember(LOGS, obeyed && logs);
    rpc.remember(OVERRIDES, obeyed);
    Ok(())
}

fn read_frame(rpc: &Rpc, answer: Value) -> Result<Outcome, RpcError> {
    let frame: FrameJson = serde_json::from_value(answer).map_err(|_| garbage(rpc, "a call frame lacks a field"))?;
    Ok(Outcome::of_frame(frame.into()))
}

/// A frame of `callTracer`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FrameJson {
    r#type: String,
    from: Address,
    #[serde(default)]
    to: Option<Address>,
    #[serde(default)]
    value: Option<U256>,
    #[serde(default)]
    gas: U64,
    #[serde(default)]
    gas_used: U64,
    #[serde(default)]
    input: Bytes,
    #[serde(default)]
    output: Bytes,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    logs: Vec<LogJson>,
    #[serde(default)]
    calls: Vec<FrameJson>,
}

impl From<FrameJson> for CallFrame {
    fn from(frame: FrameJson) -> Self {
        Self {
            kind: frame.r#type,
            from: frame.from,
            to: frame.to,
            value: frame.value.unwrap_or_default(),
            gas: frame.gas.to(),
            gas_used: frame.gas_used.to(),
            input: frame.input,
            output: frame.output,
            error: frame.error,
            logs: frame.logs.into_iter().map(EventLog::from).collect(),
            calls: frame.calls.into_iter().map(Self::from).collect(),
        }
    }
}

/// `prestateTracer` in `diffMode`: accounts that did not change are in neither. A slot that was or became zero is missing on that
/// side; of an account that was destroyed there is no `post`.
#[derive(Deserialize)]
struct DiffJson {
    pre: BTreeMap<Address, AccountJson>,
    post: BTreeMap<Address, AccountJson>,
}

#[derive(Default, Deserialize)]
struct AccountJson {
    #[serde(default)]
    balance: Option<U256>,
    #[serde(default)]
    nonce: Option<u64>,
    #[serde(default)]
    code: Option<Bytes>,
    #[serde(default)]
    storage: BTreeMap<B256, B256>,
}

fn read_changes(rpc: &Rpc, answer: Value) -> Result<Changes, RpcError> {
    let DiffJson { mut pre, mut post } =
        serde_json::from_value(answer).map_err(|_| garbage(rpc, "a difference of states lacks a field"))?;
    let addresses: Vec<Address> = pre.keys().chain(post.keys()).copied().collect();
    let mut changes = Changes::new();
    for address in addresses {
        if changes.contains_key(&address) {
            continue;
        }
        let destroyed = !post.contains_key(&address);
        let (before, after) = (pre.remove(&address).unwrap_or_default(), post.remove(&address).unwrap_or_default());
        changes.insert(address, difference(before, after, destroyed));
    }
    Ok(changes)
}

fn difference(before: AccountJson, after: AccountJson, destroyed: bool) -> AccountChange {
    let mut storage = BTreeMap::new();
    for key in before.storage.keys().chain(after.storage.keys()) {
        let at = |side: &AccountJson| side.storage.get(key).copied().unwrap_or_default();
        storage.insert(*key, (at(&before), at(&after)));
    }
    let (balance, nonce, code) = if destroyed {
        (Some(U256::ZERO), Some(0), Some(Bytes::new()))
    } else {
        (after.balance, after.nonce, after.code)
    };
    AccountChange {
        balance: balance.map(|after| (before.balance.unwrap_or_default(), after)),
        nonce: nonce.map(|after| (before.nonce.unwrap_or_default(), after)),
        code,
        storage,
    }
}

fn carried_over(changes: &Changes) -> Overrides {
    let account = |change: &AccountChange| Override {
        balance: change.balance.map(|(_, after)| after),
        nonce: change.nonce.map(|(_, after)| after),
        code: change.code.clone(),
        storage: change.storage.iter().map(|(key, (_, after))| (*key, *after)).collect(),
    };
    Overrides(changes.iter().map(|(address, change)| (*address, account(change))).collect())
}
