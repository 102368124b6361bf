//! From a JSON body to a request: everything that can be wrong with the input is found here, before any nonce. Pure.
//!
//! Unknown fields are ignored, as the contract wants, unless they would change what is sent: then they must agree with what is
//! sent, or the request is refused.

mod agree;

use alloy::primitives::{Address, Bytes};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::address::parse_address;
use crate::chain::ChainId;
use crate::chain::fees::FeeRequest;
use crate::money::Wei;

/// Longest calldata that is read, in bytes: a node's pool takes no transaction above 128 KiB.
pub const DATA_BYTES_MAX: usize = 128 * 1024;
/// Longest `signing_key_path`, in characters.
const PATH_CHARS_MAX: usize = 512;

/// Whether the daemon broadcasts the transaction or hands out the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `POST …/transactions`.
    Submit,
    /// `POST …/transactions/sign`.
    SignOnly,
    /// `POST …/transactions/simulate`: nothing comes of it.
    Simulate,
}

impl Kind {
    /// As the table writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::SignOnly => "sign_only",
            Self::Simulate => "simulate",
        }
    }

    /// The action of its audit rows.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Submit => "transaction.submit",
            Self::SignOnly => "transaction.sign",
            Self::Simulate => "transaction.simulate",
        }
    }
}

/// What was asked for, read and self-consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which route.
    pub kind: Kind,
    /// The chain, by our registry.
    pub chain_id: ChainId,
    /// The recipient.
    pub to: Address,
    /// The amount.
    pub value: Wei,
    /// The calldata, empty for a transfer.
    pub data: Bytes,
    /// Where the key is, if not at the default path.
    pub signing_key_path: Option<String>,
    /// An explicit nonce.
    pub nonce: Option<u64>,
    /// The gas limit, if the caller sets it.
    pub gas_limit: Option<u64>,
    /// The fees, as far as the caller sets them.
    pub fees: FeeRequest,
    /// Simulate before signing.
    pub simulate_first: bool,
    /// A sender the caller expects; it must turn out to be the key's address.
    pub expected_from: Option<Address>,
}

/// What is wrong with a request; the text names the field and the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

fn refuse<T>(text: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError(text.into()))
}

/// Reads a request. `chain_of` is the registry: a name or a decimal id to a chain id, or why not.
///
/// # Errors
/// [`ParseError`] for the first thing that is wrong.
pub fn parse(
    kind: Kind,
    body: &Map<String, Value>,
    chain_of: impl Fn(&str) -> Option<ChainId>,
) -> Result<Request, ParseError> {
    let fields = Fields(body);
    let chain = fields.required_text("chain", "a chain's name such as \"base\", or its id such as \"8453\"")?;
    let Some(chain_id) = chain_of(chain) else {
        let shown: String = chain.chars().take(40).collect();
        return refuse(format!("chain: {shown:?} is not a chain of this daemon; GET /v1/chains lists them"));
    };
    let to_text = fields.required_text("to", "the recipient's address; contracts cannot be created here")?;
    let to = parse_address(to_text).map_err(|error| ParseError(format!("to: {error}")))?;
    let value_text = fields.required_text("value", "an amount in whole units as a decimal string, such as \"0.05\"")?;
    let value = Wei::from_units(value_text).map_err(|error| ParseError(format!("value: {error}")))?;
    let request = Request {
        kind,
        chain_id,
        to,
        value,
        data: fields.data()?,
        signing_key_path: fields.key_path()?,
        nonce: fields.integer("nonce")?,
        gas_limit: fields.gas_limit()?,
        fees: fields.fees()?,
        simulate_first: fields.flag("simulate_first")?,
        expected_from: None,
    };
    agree::refuse_contradictions(&fields, request)
}

struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The field, with an explicit null as absent.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, ParseError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => refuse(format!("{name}: must be a string, not {}", type_of(other))),
        }
    }

    fn required_text(&self, name: &str, what: &str) -> Result<&'a str, ParseError> {
        match self.text(name)? {
            Some(text) => Ok(text),
            None => refuse(format!("{name}: is missing: it must be {what}")),
        }
    }

    fn integer(&self, name: &str) -> Result<Option<u64>, ParseError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(n) if i64::try_from(n).is_ok() => Ok(Some(n)),
                _ => refuse(format!("{name}: must be an integer from 0 to 2^63 - 1, not {}", type_of(value))),
            },
        }
    }

    fn flag(&self, name: &str) -> Result<bool, ParseError> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => refuse(format!("{name}: must be true or false, not {}", type_of(other))),
        }
    }

    fn wei_per_gas(&self, name: &str) -> Result<Option<u128>, ParseError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wei = Wei::from_wei_text(text).map_err(|_| {
            ParseError(format!("{name}: must be a decimal integer of wei as a string, such as \"1000000000\""))
        })?;
        match u128::try_from(wei.0) {
            Ok(wei) => Ok(Some(wei)),
            Err(_) => refuse(format!("{name}: is larger than any fee (2^128 - 1 wei)")),
        }
    }

    fn data(&self) -> Result<Bytes, ParseError> {
        let Some(text) = self.text("data")? else { return Ok(Bytes::new()) };
        if text.is_empty() {
            return Ok(Bytes::new());
        }
        let Some(digits) = text.strip_prefix("0x") else {
            return refuse("data: must be hex that begins with 0x");
        };
        if digits.len() > 2 * DATA_BYTES_MAX {
            return refuse(format!("data: is longer than {DATA_BYTES_MAX} bytes, which no node's pool takes"));
        }
        hex::decode(digits)
            .map(Bytes::from)
            .or_else(|_| refuse("data: must be hex: an even number of digits 0-9, a-f after 0x"))
    }

    fn key_path(&self) -> Result<Option<String>, ParseError> {
        match self.text("signing_key_path")? {
            Some(path) if path.len() > PATH_CHARS_MAX => {
                refuse(format!("signing_key_path: is longer than {PATH_CHARS_MAX} characters"))
            }
            path => Ok(path.map(str::to_owned)),
        }
    }

    fn gas_limit(&self) -> Result<Option<u64>, ParseError> {
        match self.integer("gas_limit")? {
            Some(0) => refuse("gas_limit: must be above 0; leave it out to have it estimated"),
            limit => Ok(limit),
        }
    }

    fn fees(&self) -> Result<FeeRequest, ParseError> {
        Ok(FeeRequest {
            gas_price: self.wei_per_gas("gas_price")?,
            max_fee_per_gas: self.wei_per_gas("max_fee_per_gas")?,
            max_priority_fee_per_gas: self.wei_per_gas("max_priority_fee_per_gas")?,
        })
    }
}

/// The fees of a speed-up, all of them optional. What would change the payment is refused: it stays what it is.
///
/// # Errors
/// [`ParseError`] for the first thing that is wrong.
pub fn fees_only(body: &Map<String, Value>) -> Result<FeeRequest, ParseError> {
    let fields = Fields(body);
    for name in ["to", "value", "data", "chain", "nonce", "gas_limit"] {
        if fields.get(name).is_some() {
            return refuse(format!("{name}: a speed-up changes the fees alone; leave it out"));
        }
    }
    fields.fees()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number with a fraction or exponent",
        Value::Number(_) => "a number (or one out of range)",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

impl Request {
    /// SHA-256 over the route and the parsed values, length-prefixed: `"8453"` and `base`, `0.10` and `0.1` are the same request.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let parts = [
            self.kind.as_str().to_owned(),
            self.chain_id.0.to_string(),
            hex::encode(self.to),
            self.value.to_string(),
            hex::encode(&self.data),
            optional(self.signing_key_path.as_ref().map(|path| format!("={path}"))),
            optional(self.nonce.map(|n| n.to_string())),
            optional(self.gas_limit.map(|n| n.to_string())),
            optional(self.fees.gas_price.map(|n| n.to_string())),
            optional(self.fees.max_fee_per_gas.map(|n| n.to_string())),
            optional(self.fees.max_priority_fee_per_gas.map(|n| n.to_string())),
            self.simulate_first.to_string(),
            optional(self.expected_from.map(hex::encode)),
        ];
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// Reads an `Idempotency-Key`: 1 to 255 visible ASCII characters. What is stored is its SHA-256.
#[must_use]
pub fn idempotency_key(text: &[u8]) -> Option<[u8; 32]> {
    let visible = text.iter().all(|b| (0x20..0x7f).contains(b));
    (visible && (1..=255).contains(&text.len())).then(|| Sha256::digest(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TO: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

    fn read(body: Value) -> Result<Request, ParseError> {
        let chain_of = |text: &str| match text {
            "base" | "8453" => Some(ChainId(8453)),
            "ethereum" | "1" => Some(ChainId(1)),
            _ => None,
        };
        parse(Kind::Submit, body.as_object().expect("an object"), chain_of)
    }

    fn with(extra: Value) -> Result<Request, ParseError> {
        let mut body = json!({"to": TO, "value": "0.1", "chain": "base"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        read(body)
    }

    #[test]
    fn the_least_request_is_read() {
        let request = with(json!({})).unwrap();
        assert_eq!((request.chain_id, request.value), (ChainId(8453), Wei::from(100_000_000_000_000_000u64)));
        assert_eq!((request.nonce, request.gas_limit, request.simulate_first), (None, None, false));
    }

    #[test]
    fn explicit_nulls_are_absent_and_unknown_fields_are_ignored() {
        let nulls =
            json!({"data": null, "nonce": null, "gas_price": null, "mode": null, "token_mint": null, "note": "hello"});
        assert_eq!(with(nulls), with(json!({})));
    }

    #[test]
    fn threat_19_an_empty_recipient_never_creates_a_contract() {
        for to in [json!(null), json!(""), json!("0x"), json!({})] {
            assert!(with(json!({"to": to})).is_err(), "{to}");
        }
        assert!(read(json!({"value": "1", "chain": "base"})).is_err());
    }

    #[test]
    fn threat_47_fields_that_would_change_what_is_sent_are_refused() {
        let refused = [
            json!({"chain_id": 1}),
            json!({"chain_id": "1"}),
            json!({"chainId": 1}),
            json!({"network": "ethereum"}),
            json!({"to_address": "0x0000000000000000000000000000000000000001"}),
            json!({"amount": "2"}),
            json!({"amount": 0.1}),
            json!({"value_wei": "1"}),
            json!({"token_mint": "0x01"}),
            json!({"token": "USDC"}),
            json!({"mode": "smart_account"}),
            json!({"gasless": true}),
            json!({"raw_transaction": "AAAA"}),
            json!({"input": "0x01"}),
            json!({"gasLimit": 5}),
            json!({"maxFeePerGas": "5"}),
            json!({"access_list": [{}]}),
            json!({"type": 3}),
            json!({"sign_only": true}),
            json!({"transactions": [{}]}),
            json!({"intent_type": "digest"}),
            json!({"digest": "0x00"}),
            json!({"from": "me"}),
            json!({"approval_id": "x"}),
            json!({"authorization_list": [1]}),
        ];
        for extra in refused {
            let error = with(extra.clone()).expect_err(&extra.to_string());
            assert!(error.0.contains(extra.as_object().unwrap().keys().next().unwrap()), "{extra}: {error}");
        }
        let passes = [
            json!({"chain_id": 8453}),
            json!({"chain_id": "8453"}),
            json!({"to_address": TO.to_lowercase()}),
            json!({"amount": "0.10"}),
            json!({"value_wei": "100000000000000000"}),
            json!({"token_mint": null}),
            json!({"gasless": false}),
            json!({"mode": "eoa"}),
            json!({"raw_transaction": null}),
            json!({"access_list": []}),
            json!({"network": "base"}),
            json!({"input": "0x"}),
        ];
        for extra in passes {
            assert!(with(extra.clone()).is_ok(), "{extra}: {:?}", with(extra.clone()));
        }
    }

    #[test]
    fn threat_42_every_wrong_type_is_an_error_that_names_the_field() {
        let fields = [
            "to",
            "value",
            "chain",
            "data",
            "signing_key_path",
            "nonce",
            "gas_price",
            "gas_limit",
            "max_fee_per_gas",
            "max_priority_fee_per_gas",
            "simulate_first",
        ];
        let values = [
            json!(1.5),
            json!(-1),
            json!([]),
            json!({"a": 1}),
            json!("\u{0}"),
            json!(u64::MAX),
            json!("x".repeat(10_000)),
        ];
        for field in fields {
            for value in &values {
                if field == "signing_key_path" && value == "\u{0}" {
                    continue; // A text: the path grammar refuses it, not the JSON type.
                }
                let error = with(json!({ field: value })).expect_err(&format!("{field}: {value}"));
                assert!(error.0.starts_with(field), "{field}: {error}");
            }
        }
    }

    #[test]
    fn the_request_hash_covers_values_not_spellings() {
        let hash = |extra: Value| with(extra).unwrap().hash();
        assert_eq!(hash(json!({"chain": "8453", "value": "0.10", "to": TO.to_lowercase()})), hash(json!({})));
        for other in
            [json!({"value": "0.2"}), json!({"nonce": 0}), json!({"data": "0x00"}), json!({"gas_limit": 21000})]
        {
            assert_ne!(hash(other.clone()), hash(json!({})), "{other}");
        }
    }
}
