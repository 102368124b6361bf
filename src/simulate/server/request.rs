//! What clients send: numbers as numbers or texts, nulls for what they leave out. Pure.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, Bytes, U256};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::chain::Fees;
use crate::simulate::call::{Override, Overrides};
use crate::simulate::tenderly::wire::read_quantity;

/// Longest calldata or code of a request, in bytes.
const INPUT_BYTES_MAX: usize = 256 * 1024;
/// Most accounts whose state is changed first, and most slots of each.
const ACCOUNTS_MAX: usize = 64;
const SLOTS_MAX: usize = 256;
/// Most entries of an access list, and most keys of each.
const ACCESS_MAX: usize = 256;

/// One simulation, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulateRequest {
    /// The chain's id in decimal digits.
    pub network_id: String,
    /// The sender that is played.
    pub from: Address,
    /// The recipient; `None` creates a contract.
    pub to: Option<Address>,
    /// Calldata.
    pub input: Bytes,
    /// In wei.
    pub value: U256,
    /// Gas limit.
    pub gas: Option<u64>,
    /// What it pays for gas; a price of 0 is none.
    pub fees: Option<Fees>,
    /// The block whose end it runs on; the latest if not given.
    pub block_number: Option<u64>,
    /// What is changed of the state first.
    pub state_objects: Overrides,
    /// Warm addresses and slots.
    pub access_list: Vec<(Address, Vec<B256>)>,
    /// Keep the result.
    pub save: bool,
    /// Keep it if it fails.
    pub save_if_fails: bool,
}

/// What is wrong with a request; names the member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RequestError(pub String);

fn wrong<T>(text: impl Into<String>) -> Result<T, RequestError> {
    Err(RequestError(text.into()))
}

#[derive(Deserialize)]
struct AccessItem {
    address: Address,
    #[serde(default, alias = "storageKeys")]
    storage_keys: Option<Vec<B256>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateObject {
    #[serde(default)]
    balance: Option<Value>,
    #[serde(default)]
    nonce: Option<Value>,
    #[serde(default)]
    code: Option<Bytes>,
    #[serde(default)]
    storage: Option<BTreeMap<U256, U256>>,
}

impl SimulateRequest {
    /// Reads the request's object.
    ///
    /// # Errors
    /// [`RequestError`], for the first member that is wrong.
    pub fn read(body: &Map<String, Value>) -> Result<Self, RequestError> {
        let get = |name: &str| body.get(name).filter(|value| !value.is_null());
        let number = |name: &str| match get(name) {
            None => Ok(None),
            Some(value) => read_quantity(value)
                .map(Some)
                .ok_or_else(|| RequestError(format!("{name}: must be an integer, as a number or a text"))),
        };
        let small = |name: &str| match number(name)? {
            None => Ok(None),
            Some(n) => u64::try_from(n).map(Some).map_err(|_| RequestError(format!("{name}: is out of range"))),
        };
        let per_gas = |name: &str| match number(name)? {
            None => Ok(None),
            Some(n) => u128::try_from(n).map(Some).map_err(|_| RequestError(format!("{name}: is out of range"))),
        };
        let flag = |name: &str| get(name).and_then(Value::as_bool).unwrap_or(false);
        if get("block_header").is_some() {
            return wrong("block_header: another header cannot be played here: leave it out");
        }
        let Some(chain_id) = small("network_id")? else { return wrong("network_id: is missing") };
        Ok(Self {
            network_id: chain_id.to_string(),
            from: address(get("from"), "from")?.ok_or_else(|| RequestError("from: is missing".to_owned()))?,
            to: address(get("to"), "to")?,
            input: input(get("input").or(get("data")))?,
            value: number("value")?.unwrap_or_default(),
            gas: small("gas")?.filter(|gas| *gas > 0),
            fees: fees(per_gas("gas_price")?, per_gas("max_fee_per_gas")?, per_gas("max_priority_fee_per_gas")?),
            block_number: small("block_number")?,
            state_objects: state_objects(get("state_objects"))?,
            access_list: access_list(get("access_list"))?,
            save: flag("save"),
            save_if_fails: flag("save_if_fails"),
        })
    }
}

fn address(value: Option<&Value>, name: &str) -> Result<Option<Address>, RequestError> {
    match value.map(|value| value.as_str()) {
        None | Some(Some("")) => Ok(None),
        Some(Some(text)) => match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => wrong(format!("{name}: must be an address")),
        },
        Some(None) => wrong(format!("{name}: must be an address")),
    }
}

fn input(value: Option<&Value>) -> Result<Bytes, RequestError> {
    let Some(value) = value else { return Ok(Bytes::new()) };
    let text = value.as_str().filter(|text| text.len() <= 2 + 2 * INPUT_BYTES_MAX);
    match text.map(|text| if text.is_empty() { Ok(Bytes::new()) } else { text.parse() }) {
        Some(Ok(bytes)) => Ok(bytes),
        _ => wrong(format!("input: must be hex of at most {INPUT_BYTES_MAX} bytes")),
    }
}

fn fees(gas_price: Option<u128>, max_fee: Option<u128>, tip: Option<u128>) -> Option<Fees> {
    match (max_fee, gas_price) {
        (Some(max_fee_per_gas), _) => {
            let max_priority_fee_per_gas = tip.unwrap_or_default().min(max_fee_per_gas);
            Some(Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas })
        }
        (None, Some(gas_price)) if gas_price > 0 => Some(Fees::Legacy { gas_price }),
        _ => None,
    }
}

fn state_objects(value: Option<&Value>) -> Result<Overrides, RequestError> {
    let Some(value) = value else { return Ok(Overrides::default()) };
    let error = |what: &str| RequestError(format!("state_objects: {what}"));
    let objects: BTreeMap<Address, StateObject> = serde_json::from_value(value.clone())
        .map_err(|_| error("must map addresses to objects of balance, nonce, code and storage"))?;
    if objects.len() > ACCOUNTS_MAX {
        return Err(error(&format!("has more than {ACCOUNTS_MAX} accounts")));
    }
    let mut overrides = Overrides::default();
    for (address, object) in objects {
        let storage = object.storage.unwrap_or_default();
        if storage.len() > SLOTS_MAX || object.code.as_ref().is_some_and(|code| code.len() > INPUT_BYTES_MAX) {
            return Err(error(&format!("an account has more than {SLOTS_MAX} slots, or too long a code")));
        }
        let integer = |value: Option<Value>| match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read_quantity(&value).map(Some).ok_or_else(|| error("balance and nonce must be integers")),
        };
        let nonce =
            integer(object.nonce)?.map(u64::try_from).transpose().map_err(|_| error("a nonce is out of range"))?;
        let change = Override {
            balance: integer(object.balance)?,
            nonce,
            code: object.code,
            storage: storage.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        };
        overrides.0.insert(address, change);
    }
    Ok(overrides)
}

fn access_list(value: Option<&Value>) -> Result<Vec<(Address, Vec<B256>)>, RequestError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let error = || RequestError(format!("access_list: must be at most {ACCESS_MAX} of {{address, storage_keys}}"));
    let items: Vec<AccessItem> = serde_json::from_value(value.clone()).map_err(|_| error())?;
    let items: Vec<_> = items.into_iter().map(|item| (item.address, item.storage_keys.unwrap_or_default())).collect();
    let bounded = items.len() <= ACCESS_MAX && items.iter().all(|(_, keys)| keys.len() <= ACCESS_MAX);
    if bounded { Ok(items) } else { Err(error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::call::Call;
    use crate::simulate::tenderly::wire;
    use serde_json::json;

    fn read(body: Value) -> Result<SimulateRequest, RequestError> {
        SimulateRequest::read(body.as_object().unwrap())
    }

    #[test]
    fn what_our_client_sends_is_read_back() {
        let call = Call {
            from: Address::repeat_byte(1),
            to: Some(Address::repeat_byte(2)),
            value: U256::MAX,
            data: Bytes::from_static(&[1, 2, 3]),
            gas_limit: Some(21_000),
            fees: Some(Fees::Eip1559 { max_fee_per_gas: 9, max_priority_fee_per_gas: 1 }),
            access_list: Vec::new(),
        };
        let sent = serde_json::to_value(wire::SimulateRequest::new(8453, &call, true)).unwrap();
        let request = read(sent).unwrap();
        assert_eq!((request.network_id.as_str(), request.from, request.to), ("8453", call.from, call.to));
        assert_eq!((request.value, &request.input, request.gas), (call.value, &call.data, call.gas_limit));
        assert_eq!((request.fees, request.save, request.save_if_fails), (call.fees, true, true));
        let unpaid = read(serde_json::to_value(wire::SimulateRequest::new(1, &call.unpaid(), false)).unwrap()).unwrap();
        assert_eq!((unpaid.fees, unpaid.save), (None, false));
    }

    #[test]
    fn the_documented_requests_are_read() {
        let optimism: Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/tenderly/rest-07-request-optimism.json"))
                .unwrap();
        let request = read(optimism).unwrap();
        assert_eq!((request.network_id.as_str(), request.gas, request.fees), ("10", Some(8_000_000), None));
        assert_eq!(request.input, Bytes::from_static(&[0x8d, 0xa5, 0xcb, 0x5b]));
        let mut full: Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/tenderly/rest-05-request-full.json")).unwrap();
        // The sample's calldata is cut, and it plays another header.
        assert!(read(full.clone()).unwrap_err().0.starts_with("block_header:"));
        full["block_header"] = Value::Null;
        assert!(read(full.clone()).unwrap_err().0.starts_with("input:"));
        full["input"] = json!("0xa94e78ef");
        let request = read(full).unwrap();
        assert_eq!(request.fees, Some(Fees::Legacy { gas_price: 18_312_000_018 }));
        assert_eq!((request.block_number, request.save_if_fails), (Some(17_884_583), true));
        let account: Address = "0xdac17f958d2ee523a2206206994597c13d831ec7".parse().unwrap();
        assert_eq!(request.state_objects.0[&account].storage.len(), 1);
        assert_eq!(request.access_list.len(), 1);
        // The JSON-RPC face sends the same members, and `data`.
        for text in [
            include_str!("../../../tests/fixtures/tenderly/rpc-01-simulateTransaction-request.json"),
            include_str!("../../../tests/fixtures/tenderly/rpc-03-simulateBundle-request.json"),
        ] {
            let body: Value = serde_json::from_str(text).unwrap();
            let calls = body["params"][0].as_array().cloned().unwrap_or_else(|| vec![body["params"][0].clone()]);
            for mut call in calls {
                call["network_id"] = json!(1);
                assert!(read(call).unwrap().input.len() >= 68);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = json!({"network_id": "1", "from": Address::ZERO});
        assert!(read(good.clone()).is_ok());
        for (name, value) in [
            ("network_id", json!("base")),
            ("from", json!("me")),
            ("to", json!(5)),
            ("input", json!("0xzz")),
            ("input", json!("0x".to_owned() + &"00".repeat(INPUT_BYTES_MAX + 1))),
            ("value", json!(-1)),
            ("value", json!("1e18")),
            ("gas", json!("0x10000000000000000")),
            ("gas_price", json!(1.5)),
            ("state_objects", json!({"0x00": {}})),
            ("state_objects", json!({Address::ZERO.to_string(): {"blance": 1}})),
            ("access_list", json!(vec![json!({"address": Address::ZERO}); ACCESS_MAX + 1])),
        ] {
            let mut body = good.clone();
            body[name] = value.clone();
            let error = read(body).unwrap_err();
            assert!(error.0.starts_with(name), "{name}: {value}: {error}");
        }
    }
}
