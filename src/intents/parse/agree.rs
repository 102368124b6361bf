//! Fields that are known and not read: where they would change what is sent, they must agree with it. Pure.

use alloy::primitives::Address;
use serde_json::Value;

use super::{Fields, Kind, ParseError, Request, refuse};
use crate::address::parse_address;
use crate::chain::ChainId;
use crate::money::Wei;

/// Fields of other products and versions that would change what is sent, by their name without case and underscores.
/// Present with anything but null, false or an empty value, they are refused.
const WOULD_CHANGE: &[&str] = &[
    "token",
    "tokenmint",
    "tokenaddress",
    "tokendecimals",
    "tokenamount",
    "tokensymbol",
    "contractaddress",
    "asset",
    "currency",
    "unit",
    "gasless",
    "sponsored",
    "sponsorship",
    "paymaster",
    "feepayer",
    "rawtransaction",
    "trontransaction",
    "xrpltxjson",
    "transaction",
    "transactions",
    "calls",
    "batch",
    "smartaccount",
    "safe",
    "safeaddress",
    "accesslist",
    "authorizationlist",
    "blobversionedhashes",
    "blobs",
    "maxfeeperblobgas",
    "approvalid",
    "memo",
    "destinationtag",
    "messagehash",
    "digest",
    "message",
    "typeddata",
    "replacetxhash",
    "replaces",
];

/// Holds known-but-unread fields against what will be sent (THREATS 47).
pub(super) fn refuse_contradictions(fields: &Fields<'_>, mut request: Request) -> Result<Request, ParseError> {
    for (name, value) in fields.0 {
        let empty = match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::Bool(true) | Value::Number(_) => false,
        };
        if empty {
            continue;
        }
        let folded: String = name.chars().filter(|c| *c != '_' && *c != '-').flat_map(char::to_lowercase).collect();
        let agrees = match folded.as_str() {
            "chainid" | "network" | "networkid" => same_chain(value, request.chain_id, fields),
            "toaddress" | "recipient" | "recipientaddress" | "destination" => same_address(value, request.to),
            "from" | "fromaddress" | "sender" => {
                let Some(from) = value.as_str().and_then(|text| parse_address(text).ok()) else {
                    return refuse(format!("{name}: must be the key's address, or left out"));
                };
                request.expected_from = Some(from);
                true
            }
            "amount" | "valueeth" | "amounteth" => {
                value.as_str().and_then(|text| Wei::from_units(text).ok()) == Some(request.value)
            }
            "valuewei" | "amountwei" => wei_of(value) == Some(request.value),
            "input" | "calldata" => value.as_str().is_some_and(|text| {
                text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok()).as_deref()
                    == Some(&request.data[..])
            }),
            // The camel-case spellings of fields that are read must agree with the ones that are.
            "gaslimit" | "gas" => name == "gas_limit" || value.as_u64() == request.gas_limit,
            "gasprice" => name == "gas_price" || per_gas(value) == request.fees.gas_price,
            "maxfeepergas" => name == "max_fee_per_gas" || per_gas(value) == request.fees.max_fee_per_gas,
            "maxpriorityfeepergas" => {
                name == "max_priority_fee_per_gas" || per_gas(value) == request.fees.max_priority_fee_per_gas
            }
            "signingkeypath" | "keypath" => {
                name == "signing_key_path" || value.as_str() == request.signing_key_path.as_deref()
            }
            "simulatefirst" => request.simulate_first,
            "mode" => value.as_str() == Some("eoa"),
            "intenttype" => value.as_str() == Some("transaction"),
            "signonly" => request.kind == Kind::SignOnly,
            "broadcast" => request.kind == Kind::Submit,
            "type" | "txtype" | "transactiontype" => {
                let wanted =
                    value.as_u64().or_else(|| value.as_str().and_then(|t| t.trim_start_matches("0x").parse().ok()));
                match wanted {
                    Some(0) => request.fees.gas_price.is_some(),
                    Some(2) => request.fees.max_fee_per_gas.is_some(),
                    _ => false,
                }
            }
            other => !WOULD_CHANGE.contains(&other),
        };
        if !agrees {
            let shown: String = value.to_string().chars().take(60).collect();
            return refuse(format!(
                "{name}: {shown} would change what is sent, and is not supported here or contradicts the other fields; leave it out"
            ));
        }
    }
    Ok(request)
}

fn same_chain(value: &Value, chain_id: ChainId, fields: &Fields<'_>) -> bool {
    match value {
        Value::Number(n) => n.as_u64() == Some(chain_id.0),
        Value::String(text) => {
            text.parse() == Ok(chain_id.0) || fields.get("chain").and_then(Value::as_str) == Some(text)
        }
        _ => false,
    }
}

fn same_address(value: &Value, to: Address) -> bool {
    value.as_str().and_then(|text| parse_address(text).ok()) == Some(to)
}

fn wei_of(value: &Value) -> Option<Wei> {
    match value {
        Value::String(text) => Wei::from_wei_text(text).ok(),
        Value::Number(n) => n.as_u64().map(Wei::from),
        _ => None,
    }
}

fn per_gas(value: &Value) -> Option<u128> {
    wei_of(value).and_then(|wei| u128::try_from(wei.0).ok())
}
