//! What goes over the wire. Reading is tolerant: empty lists are `null`, amounts are decimal or hex strings or numbers, `"0x"` is zero,
//! an address may be empty; a member that is not read may be anything. The JSON-RPC face's spelling of the same members is understood too.

use alloy::primitives::{Address, B256, Bytes, U256};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::chain::Fees;
use crate::simulate::EventLog;
use crate::simulate::call::Call;

/// One simulation, as it is asked for.
#[derive(Clone, Debug, Serialize)]
pub struct SimulateRequest {
    network_id: String,
    from: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Address>,
    input: Bytes,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gas: Option<u64>,
    gas_price: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_fee_per_gas: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_priority_fee_per_gas: Option<String>,
    save: bool,
    save_if_fails: bool,
    /// `quick` is raw and has all that moves; `full` adds names, and nests deeper than a parser should follow.
    simulation_type: &'static str,
}

impl SimulateRequest {
    /// A call on the latest block.
    #[must_use]
    pub fn new(chain_id: u64, call: &Call, save: bool) -> Self {
        let (max_fee, tip) = match call.fees {
            Some(Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas }) => {
                (Some(max_fee_per_gas.to_string()), Some(max_priority_fee_per_gas.to_string()))
            }
            Some(Fees::Legacy { .. }) | None => (None, None),
        };
        Self {
            network_id: chain_id.to_string(),
            from: call.from,
            to: call.to,
            input: call.data.clone(),
            value: call.value.to_string(),
            gas: call.gas_limit,
            gas_price: call.fees.map_or(0, Fees::max_per_gas).to_string(),
            max_fee_per_gas: max_fee,
            max_priority_fee_per_gas: tip,
            save,
            save_if_fails: save,
            simulation_type: "quick",
        }
    }
}

/// Several, in order.
#[derive(Clone, Debug, Serialize)]
pub struct BundleRequest {
    /// Each on the state that the one before left.
    pub simulations: Vec<SimulateRequest>,
}

/// The answer to one.
#[derive(Clone, Debug, Deserialize)]
pub struct Simulated {
    /// What it would do.
    pub transaction: Transaction,
    /// What the service keeps of it.
    #[serde(default)]
    pub simulation: Option<SimulationInfo>,
}

/// The answer to several: up to the first that fails.
#[derive(Clone, Debug, Deserialize)]
pub struct BundleSimulated {
    /// In order.
    #[serde(default, deserialize_with = "nullable")]
    pub simulation_results: Vec<Simulated>,
}

/// What the service keeps.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct SimulationInfo {
    /// Its id.
    #[serde(default)]
    pub id: Option<String>,
    /// Where it says so, whether logs and transfers are all there are: `intentd simulator` does when its node cannot tell.
    #[serde(default)]
    pub effects_complete: Option<bool>,
}

/// What a transaction would do.
#[derive(Clone, Debug, Deserialize)]
pub struct Transaction {
    /// False: reverted, or out of gas.
    pub status: bool,
    /// The sender.
    #[serde(default, deserialize_with = "address")]
    pub from: Option<Address>,
    /// The recipient; none for a creation.
    #[serde(default, deserialize_with = "address")]
    pub to: Option<Address>,
    /// Calldata.
    #[serde(default, deserialize_with = "bytes")]
    pub input: Option<Bytes>,
    /// In wei.
    #[serde(default, deserialize_with = "quantity")]
    pub value: Option<U256>,
    /// The chain's id.
    #[serde(default, deserialize_with = "text")]
    pub network_id: Option<String>,
    /// Gas used.
    #[serde(default, alias = "gasUsed", deserialize_with = "quantity")]
    pub gas_used: Option<U256>,
    /// Why it failed.
    #[serde(default)]
    pub error_message: Option<String>,
    /// The rest.
    #[serde(default, deserialize_with = "nullable")]
    pub transaction_info: TransactionInfo,
    /// The calls, one after the other, without their nesting.
    #[serde(default, alias = "trace", deserialize_with = "nullable")]
    pub call_trace: Vec<Frame>,
    /// Events, in the JSON-RPC face.
    #[serde(default, deserialize_with = "nullable")]
    pub logs: Vec<Log>,
    /// Transfers, in the JSON-RPC face.
    #[serde(default, alias = "assetChanges")]
    pub asset_changes: Option<Vec<AssetChange>>,
}

/// The part of a transaction that holds what it did.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct TransactionInfo {
    /// The calls, nested.
    #[serde(default)]
    pub call_trace: Option<Frame>,
    /// Events.
    #[serde(default, deserialize_with = "nullable")]
    pub logs: Vec<Log>,
    /// Transfers, as the service understands them; `None` where it does not say.
    #[serde(default)]
    pub asset_changes: Option<Vec<AssetChange>>,
    /// Native balances before and after, fees included.
    #[serde(default, deserialize_with = "nullable")]
    pub balance_diff: Vec<BalanceDiff>,
}

/// One call.
#[derive(Clone, Debug, Deserialize)]
pub struct Frame {
    /// `CALL`, `DELEGATECALL` …; `JUMPDEST` is a function inside a contract, which is no call.
    #[serde(default)]
    call_type: Option<String>,
    /// The same in a list that is not nested, where both may stand.
    #[serde(default)]
    r#type: Option<String>,
    /// The caller.
    #[serde(default, deserialize_with = "address")]
    pub from: Option<Address>,
    /// Who is called.
    #[serde(default, deserialize_with = "address")]
    pub to: Option<Address>,
    /// In wei.
    #[serde(default, deserialize_with = "quantity")]
    pub value: Option<U256>,
    /// Calldata.
    #[serde(default, deserialize_with = "bytes")]
    pub input: Option<Bytes>,
    /// Return data.
    #[serde(default, deserialize_with = "bytes")]
    pub output: Option<Bytes>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
    /// The same for people.
    #[serde(default)]
    pub error_reason: Option<String>,
    /// The calls that it made.
    #[serde(default, deserialize_with = "nullable")]
    pub calls: Vec<Frame>,
}

impl Frame {
    /// The kind of call, as far as it says.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.call_type.as_deref().or(self.r#type.as_deref())
    }
}

/// One event.
#[derive(Clone, Debug, Deserialize)]
pub struct Log {
    /// As it is emitted.
    pub raw: RawLog,
}

/// An event as it is emitted.
#[derive(Clone, Debug, Deserialize)]
pub struct RawLog {
    address: Address,
    #[serde(default, deserialize_with = "nullable")]
    topics: Vec<B256>,
    #[serde(default, deserialize_with = "nullable")]
    data: Bytes,
}

impl From<&Log> for EventLog {
    fn from(log: &Log) -> Self {
        let RawLog { address, topics, data } = &log.raw;
        Self { address: *address, topics: topics.clone(), data: data.clone() }
    }
}

/// One transfer, mint or burn, as the service understands it.
#[derive(Clone, Debug, Deserialize)]
pub struct AssetChange {
    /// Of what.
    #[serde(alias = "assetInfo")]
    pub token_info: TokenInfo,
    /// None for a mint.
    #[serde(default, deserialize_with = "address")]
    pub from: Option<Address>,
    /// None for a burn.
    #[serde(default, deserialize_with = "address")]
    pub to: Option<Address>,
    /// In smallest units.
    #[serde(default, alias = "rawAmount", deserialize_with = "quantity")]
    pub raw_amount: Option<U256>,
}

/// An asset.
#[derive(Clone, Debug, Deserialize)]
pub struct TokenInfo {
    /// `NativeCurrency`, `ERC20`, `ERC721`, `ERC1155`.
    #[serde(default)]
    pub standard: Option<String>,
    /// The token; none for the native unit.
    #[serde(default, alias = "contractAddress", deserialize_with = "address")]
    pub contract_address: Option<Address>,
}

/// A native balance before and after.
#[derive(Clone, Debug, Deserialize)]
pub struct BalanceDiff {
    /// Whose.
    #[serde(default, deserialize_with = "address")]
    pub address: Option<Address>,
    /// Before.
    #[serde(default, deserialize_with = "quantity")]
    pub original: Option<U256>,
    /// After.
    #[serde(default, deserialize_with = "quantity")]
    pub dirty: Option<U256>,
    /// Whether it is the block's producer, who gets fees.
    #[serde(default)]
    pub is_miner: bool,
}

/// What is not 200.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorInfo,
}

/// An error.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorInfo {
    /// A short word.
    #[serde(default)]
    pub slug: String,
    /// A sentence.
    #[serde(default)]
    pub message: String,
}

/// `null` is the default.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A text, or a number as its digits.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// An address; empty and `null` are none.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("" | "0x") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// Bytes in hex; what is not hex is none, and whoever needs them finds none.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// An integer however it is written.
fn quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<U256>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(None);
    }
    read_quantity(&value).map(Some).ok_or_else(|| serde::de::Error::custom("not an integer"))
}

/// A decimal or hex string, or a number.
#[must_use]
pub fn read_quantity(value: &Value) -> Option<U256> {
    match value {
        Value::String(text) => match text.strip_prefix("0x") {
            Some(digits) if digits.len() <= 64 => {
                if digits.is_empty() {
                    Some(U256::ZERO)
                } else {
                    U256::from_str_radix(digits, 16).ok()
                }
            }
            Some(_) => None,
            None if text.is_empty() => Some(U256::ZERO),
            None if text.len() <= 78 && text.bytes().all(|b| b.is_ascii_digit()) => U256::from_str_radix(text, 10).ok(),
            None => None,
        },
        Value::Number(number) => number.as_u64().map(U256::from),
        _ => None,
    }
}
