//! A simulation in the shape that Tenderly gives it: empty lists are `null`, wei are decimal texts, a revert is `status: false`. Pure.

use alloy::primitives::{Address, B256, U256, keccak256};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Simulated, Token};
use crate::clock::rfc3339;
use crate::simulate::EventLog;
use crate::simulate::effects::{Delta, TRANSFER};
use crate::simulate::frame::CallFrame;
use crate::simulate::names::{Kind, Names};
use crate::simulate::node::End;
use crate::simulate::revert::Reason;

/// The whole answer to one simulation.
pub(super) fn answer(result: &Simulated, account: &str, project: &str, names: &Names) -> Value {
    json!({
        "transaction": transaction(result, names),
        "simulation": simulation(result, account, project, names),
        "contracts": [],
        "generated_access_list": [],
    })
}

/// Why it failed, for people.
pub(super) fn failure(result: &Simulated, names: &Names) -> Option<String> {
    match &result.outcome.end {
        End::Success => None,
        End::Reverted => {
            let output = &result.outcome.output;
            let named = names.decode(Kind::Error, output, result.call.to);
            Some(named.unwrap_or_else(|| Reason::decode(output).to_string()))
        }
        End::Halted(words) if words.to_lowercase().replace(' ', "").contains("outofgas") => {
            Some("out of gas".to_owned())
        }
        End::Halted(words) if words.is_empty() => Some("execution failed".to_owned()),
        End::Halted(words) | End::Refused(_, words) => Some(words.clone()),
    }
}

fn transaction(result: &Simulated, names: &Names) -> Value {
    let Simulated { request, call, outcome, frame, block, .. } = result;
    let succeeded = outcome.succeeded();
    let fees = call.fees.map_or(0, crate::chain::Fees::max_per_gas);
    let nonce = result.changes.get(&call.from).and_then(|change| change.nonce).map_or(0, |(before, _)| before);
    let to = frame.to.or(call.to);
    let mut flat = Vec::new();
    flatten(frame, &mut flat);
    let mut body = json!({
        "hash": keccak256([result.id.as_bytes().as_slice(), &call.data].concat()),
        "block_hash": "",
        "block_number": block.number,
        "from": hex(call.from),
        "gas": call.gas_limit,
        "gas_price": fees,
        "gas_fee_cap": fees,
        "gas_tip_cap": fees,
        "cumulative_gas_used": 0,
        "gas_used": outcome.gas_used,
        "effective_gas_price": 0,
        "input": call.data,
        "nonce": nonce,
        "to": to.map_or_else(String::new, hex),
        "index": 0,
        "value": quantity(call.value),
        "access_list": null,
        "status": succeeded,
        "addresses": null,
        "contract_ids": null,
        "network_id": request.network_id,
        "timestamp": time_of(block.timestamp),
        "function_selector": "",
        "transaction_info": info(result, names, to),
        "method": "",
        "decoded_input": null,
        "call_trace": flat,
    });
    if let Some(why) = failure(result, names) {
        body["error_message"] = json!(why);
        body["error_info"] = json!({ "error_message": why, "address": to.map(hex) });
    }
    body
}

fn info(result: &Simulated, names: &Names, to: Option<Address>) -> Value {
    let Simulated { request, outcome, block, .. } = result;
    let contract = to.map_or_else(String::new, hex);
    json!({
        "contract_id": format!("eth:{}:{contract}", request.network_id),
        "block_number": block.number,
        "transaction_id": keccak256([result.id.as_bytes().as_slice(), &result.call.data].concat()),
        "contract_address": contract,
        "method": null,
        "parameters": null,
        "intrinsic_gas": 21_000,
        "refund_gas": 0,
        "call_trace": nested(&result.frame, &request.network_id, names),
        "stack_trace": null,
        "logs": list(outcome.logs.iter().map(log).collect()),
        "balance_diff": balance_diff(result),
        "nonce_diff": nonce_diff(result),
        "state_diff": state_diff(result),
        "raw_state_diff": null,
        "console_logs": null,
        "asset_changes": list(asset_changes(result)),
        "balance_changes": null,
        "created_at": rfc3339(result.at),
    })
}

fn simulation(result: &Simulated, account: &str, project: &str, names: &Names) -> Value {
    let Simulated { request, call, outcome, block, .. } = result;
    let mut body = json!({
        "id": result.id,
        "project_id": project,
        "owner_id": account,
        "network_id": request.network_id,
        "block_number": block.number,
        "transaction_index": 0,
        "from": hex(call.from),
        "to": call.to.map_or_else(String::new, hex),
        "input": call.data,
        "gas": call.gas_limit,
        "gas_price": call.fees.map_or(0, crate::chain::Fees::max_per_gas).to_string(),
        "gas_used": outcome.gas_used,
        "value": call.value.to_string(),
        "method": "",
        "status": outcome.succeeded(),
        "access_list": null,
        "queue_origin": "",
        "block_header": block.header,
        "created_at": rfc3339(result.at),
    });
    if let Some(why) = failure(result, names) {
        body["error_message"] = json!(why);
    }
    if !outcome.complete {
        body["effects_complete"] = json!(false);
    }
    body
}

fn nested(frame: &CallFrame, network_id: &str, names: &Names) -> Value {
    let calls: Vec<Value> = frame.calls.iter().map(|call| nested(call, network_id, names)).collect();
    let mut body = json!({
        "call_type": frame.kind,
        "from": hex(frame.from),
        "to": frame.to.map_or_else(String::new, hex),
        "value": frame.value.to_string(),
        "gas": frame.gas,
        "gas_used": frame.gas_used,
        "input": frame.input,
        "output": frame.output,
        "network_id": network_id,
        "calls": list(calls),
    });
    if let Some(error) = &frame.error {
        body["error"] = json!(error);
        if !frame.output.is_empty() {
            let named = names.decode(Kind::Error, &frame.output, frame.to);
            body["error_reason"] = json!(named.unwrap_or_else(|| Reason::decode(&frame.output).to_string()));
        }
    }
    body
}

fn flatten(frame: &CallFrame, flat: &mut Vec<Value>) {
    let mut body = json!({
        "call_type": frame.kind,
        "type": frame.kind,
        "from": hex(frame.from),
        "to": frame.to.map_or_else(String::new, hex),
        "gas": frame.gas,
        "gas_used": frame.gas_used,
        "input": frame.input,
    });
    if !frame.value.is_zero() {
        body["value"] = json!(quantity(frame.value));
    }
    if !frame.output.is_empty() {
        body["output"] = json!(frame.output);
    }
    if let Some(error) = &frame.error {
        body["error"] = json!(error);
    }
    flat.push(body);
    frame.calls.iter().for_each(|call| flatten(call, flat));
}

fn log(log: &EventLog) -> Value {
    let raw = json!({ "address": hex(log.address), "topics": log.topics, "data": log.data });
    json!({ "name": "", "anonymous": false, "inputs": null, "raw": raw })
}

fn balance_diff(result: &Simulated) -> Value {
    let rows = result.changes.iter().filter_map(|(address, change)| {
        let (before, after) = change.balance.filter(|(before, after)| before != after)?;
        Some(json!({
            "address": address.to_string(),
            "original": before.to_string(),
            "dirty": after.to_string(),
            "is_miner": *address == result.block.miner,
        }))
    });
    list(rows.collect())
}

fn nonce_diff(result: &Simulated) -> Value {
    let rows = result.changes.iter().filter_map(|(address, change)| {
        let (before, after) = change.nonce.filter(|(before, after)| before != after)?;
        Some(json!({ "address": address.to_string(), "original": before.to_string(), "dirty": after.to_string() }))
    });
    list(rows.collect())
}

fn state_diff(result: &Simulated) -> Value {
    let rows = result.changes.iter().flat_map(|(address, change)| {
        change.storage.iter().filter(|(_, (before, after))| before != after).map(move |(key, (before, after))| {
            let raw = json!({ "address": hex(*address), "key": key, "original": before, "dirty": after });
            json!({ "address": hex(*address), "soltype": null, "original": null, "dirty": null, "raw": [raw] })
        })
    });
    list(rows.collect())
}

/// A transfer, mint or burn.
pub(super) struct AssetMove {
    pub(super) token: Option<Address>,
    pub(super) symbol: Option<String>,
    pub(super) decimals: u8,
    pub(super) from: Address,
    pub(super) to: Address,
    /// In smallest units.
    pub(super) amount: U256,
    /// Of a single token of a collection.
    pub(super) token_id: Option<B256>,
}

impl AssetMove {
    /// In the asset's unit.
    pub(super) fn units(&self) -> String {
        Delta::gain(self.amount).to_units(self.decimals)
    }
}

/// Native transfers first, then tokens in the order of their events.
pub(super) fn asset_moves(result: &Simulated) -> Vec<AssetMove> {
    if !result.outcome.succeeded() {
        return Vec::new();
    }
    let native = result.frame.transfers_made().into_iter().map(|(from, to, amount)| AssetMove {
        token: None,
        symbol: Some(result.native.clone()),
        decimals: 18,
        from,
        to,
        amount,
        token_id: None,
    });
    let tokens = result.outcome.logs.iter().filter_map(|log| token_move(result, log));
    native.chain(tokens).collect()
}

fn token_move(result: &Simulated, log: &EventLog) -> Option<AssetMove> {
    let Token { symbol, decimals } = result.tokens.get(&log.address).cloned().unwrap_or_default();
    let (from, to, amount, token_id) = match log.topics.as_slice() {
        [TRANSFER, from, to] => (from, to, U256::from_be_bytes(<[u8; 32]>::try_from(log.data.as_ref()).ok()?), None),
        [TRANSFER, from, to, id] => (from, to, U256::from(1), Some(*id)),
        _ => return None,
    };
    Some(AssetMove {
        token: Some(log.address),
        symbol,
        decimals: if token_id.is_some() { 0 } else { decimals.unwrap_or(0) },
        from: Address::from_word(*from),
        to: Address::from_word(*to),
        amount,
        token_id,
    })
}

fn asset_changes(result: &Simulated) -> Vec<Value> {
    let one = |asset: &AssetMove| {
        let mut info = match (asset.token, asset.token_id) {
            (None, _) => json!({ "standard": "NativeCurrency", "type": "Native" }),
            (Some(token), None) => json!({ "standard": "ERC20", "type": "Fungible", "contract_address": hex(token) }),
            (Some(token), Some(_)) => {
                json!({ "standard": "ERC721", "type": "NonFungible", "contract_address": hex(token) })
            }
        };
        if let Some(symbol) = &asset.symbol {
            info["symbol"] = json!(symbol);
        }
        info["decimals"] = json!(asset.decimals);
        let (minted, burned) =
            (asset.token.is_some() && asset.from.is_zero(), asset.token.is_some() && asset.to.is_zero());
        let kind = if minted {
            "Mint"
        } else if burned {
            "Burn"
        } else {
            "Transfer"
        };
        let mut body = json!({
            "token_info": info,
            "type": kind,
            "amount": asset.units(),
            "raw_amount": asset.amount.to_string(),
        });
        if !minted {
            body["from"] = json!(hex(asset.from));
        }
        if !burned {
            body["to"] = json!(hex(asset.to));
        }
        if let Some(id) = asset.token_id {
            body["token_id"] = json!(id);
        }
        body
    };
    asset_moves(result).iter().map(one).collect()
}

/// An empty list is `null`.
fn list(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

/// In lower case.
fn hex(address: Address) -> String {
    format!("{address:#x}")
}

/// Zero is `0x`.
fn quantity(value: U256) -> String {
    if value.is_zero() { "0x".to_owned() } else { format!("{value:#x}") }
}

fn time_of(unix_s: u64) -> String {
    let at = i64::try_from(unix_s).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    rfc3339(at.unwrap_or(OffsetDateTime::UNIX_EPOCH))
}
