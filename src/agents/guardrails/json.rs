//! The newer guardrails in JSON: one grammar for requests, replies and the column that keeps them. Pure.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use alloy::primitives::{Address, U256, hex};
use serde_json::{Map, Value, json};

use super::{Callable, ChainGuardrails, Guardrails, OnChain, TokenLimit};
use crate::access::input::InputError;
use crate::address::parse_address;
use crate::money::Wei;

/// Most entries of a list.
const LIST_MAX: usize = 1_000;
/// Most functions of one contract.
const SELECTORS_MAX: usize = 100;
/// Most transactions a day that a cap can mean.
const PER_DAY_MAX: u64 = 1_000_000_000;
/// How many denials within an hour may freeze an agent: each is remembered for so long.
const DENIALS: RangeInclusive<u16> = 2..=1_000;
/// More decimals than 2^256 has digits have no meaning.
const DECIMALS_MAX: u64 = 77;
/// Longest amount, in characters.
const AMOUNT_CHARS_MAX: usize = 160;

const FIELDS: [&str; 8] = [
    "tx_max_per_day",
    "tx_token_allowlist",
    "tx_token_limits",
    "tx_contract_allowlist",
    "tx_block_unlimited_approvals",
    "tx_allow_privileged_calls",
    "tx_suspend_after_denials",
    "per_chain_guardrails",
];

type Read<T> = Result<T, InputError>;

fn refuse<T>(name: &str, what: &str) -> Read<T> {
    Err(InputError(format!("{name} {what}")))
}

/// A chain's name in the registry, by name or id.
type ChainName<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Guardrails {
    /// Applies the fields that are there. A cap, a flag or `per_chain_guardrails` that is `null` is cleared; a list that is `null` is
    /// not given (emptying it takes `[]`).
    ///
    /// # Errors
    /// [`InputError`], naming the field.
    pub fn apply_json(&mut self, fields: &Map<String, Value>, chain_name: ChainName<'_>) -> Read<()> {
        for name in FIELDS {
            let Some(value) = fields.get(name) else { continue };
            match name {
                "tx_max_per_day" => self.max_per_day = optional(value, |v| per_day(name, v))?,
                "tx_block_unlimited_approvals" => self.block_unlimited_approvals = flag(name, value)?,
                "tx_allow_privileged_calls" => self.allow_privileged_calls = flag(name, value)?,
                "tx_suspend_after_denials" => self.suspend_after_denials = optional(value, |v| denials(name, v))?,
                "per_chain_guardrails" => self.per_chain = per_chain(name, value, chain_name)?,
                _ if value.is_null() => {}
                "tx_token_allowlist" => self.token_allowlist = list(name, value, |v| on_chain(name, v, chain_name))?,
                "tx_token_limits" => self.token_limits = token_limits(name, value, chain_name)?,
                _ => self.contract_allowlist = list(name, value, |v| callable(name, v, chain_name))?,
            }
        }
        Ok(())
    }

    /// What [`Guardrails::apply_json`] reads, as far as it is set.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let mut out = Map::new();
        let mut put = |name: &str, set: bool, value: Value| {
            if set {
                out.insert(name.to_owned(), value);
            }
        };
        put("tx_max_per_day", self.max_per_day.is_some(), json!(self.max_per_day));
        let tokens = self.token_allowlist.iter().map(OnChain::text).collect();
        put("tx_token_allowlist", !self.token_allowlist.is_empty(), tokens);
        let limits = self.token_limits.iter().map(TokenLimit::to_json).collect();
        put("tx_token_limits", !self.token_limits.is_empty(), limits);
        let contracts = self.contract_allowlist.iter().map(Callable::to_json).collect();
        put("tx_contract_allowlist", !self.contract_allowlist.is_empty(), contracts);
        put("tx_block_unlimited_approvals", self.block_unlimited_approvals, json!(true));
        put("tx_allow_privileged_calls", self.allow_privileged_calls, json!(true));
        put("tx_suspend_after_denials", self.suspend_after_denials.is_some(), json!(self.suspend_after_denials));
        let chains: Map<_, _> =
            self.per_chain.iter().map(|(name, rails)| (name.clone(), Value::Object(rails.to_json()))).collect();
        put("per_chain_guardrails", !self.per_chain.is_empty(), Value::Object(chains));
        out
    }

    /// Reads back what [`Guardrails::to_json`] wrote. A member that this version does not know is a restriction that it cannot keep: an
    /// error, never an agent without it.
    ///
    /// # Errors
    /// [`InputError`].
    pub fn apply_stored(&mut self, stored: &Map<String, Value>) -> Read<()> {
        if let Some(name) = stored.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return refuse(name, "is not known to this version");
        }
        // Chains are kept by name; one that has left the registry since is still meant.
        self.apply_json(stored, &|name| Some(name.to_owned()))
    }
}

fn optional<T>(value: &Value, read: impl Fn(&Value) -> Read<T>) -> Read<Option<T>> {
    if value.is_null() { Ok(None) } else { read(value).map(Some) }
}

fn flag(name: &str, value: &Value) -> Read<bool> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::Null => Ok(false),
        _ => refuse(name, "must be true, false or null"),
    }
}

fn per_day(name: &str, value: &Value) -> Read<u64> {
    match value.as_u64().filter(|count| *count <= PER_DAY_MAX) {
        Some(count) => Ok(count),
        None => refuse(name, "must be a whole number of transactions, or null"),
    }
}

fn denials(name: &str, value: &Value) -> Read<u16> {
    let count = value.as_u64().and_then(|count| u16::try_from(count).ok()).filter(|count| DENIALS.contains(count));
    count.map_or_else(|| refuse(name, "must be a whole number from 2 to 1000, or null"), Ok)
}

fn list<T: PartialEq>(name: &str, value: &Value, read: impl Fn(&Value) -> Read<T>) -> Read<Vec<T>> {
    let Value::Array(entries) = value else { return refuse(name, "must be a list") };
    if entries.len() > LIST_MAX {
        return refuse(name, &format!("may have at most {LIST_MAX} entries"));
    }
    let mut read_entries = Vec::with_capacity(entries.len());
    for entry in entries {
        let entry = read(entry)?;
        if !read_entries.contains(&entry) {
            read_entries.push(entry);
        }
    }
    Ok(read_entries)
}

fn text<'a>(name: &str, value: &'a Value) -> Read<&'a str> {
    value.as_str().map_or_else(|| refuse(name, "must be a text"), Ok)
}

fn address(name: &str, value: &Value) -> Read<Address> {
    parse_address(text(name, value)?).map_err(|error| InputError(format!("{name}: an entry {error}")))
}

/// `0x…`, or `chain:0x…`.
fn on_chain(name: &str, value: &Value, chain_name: ChainName<'_>) -> Read<OnChain> {
    let text = text(name, value)?;
    let (chain, address) = match text.split_once(':') {
        None => (None, text),
        Some((chain, address)) => match chain_name(chain) {
            Some(chain) => (Some(chain), address),
            None => return refuse(name, "has an entry of a chain that is not known; GET /v1/chains lists them"),
        },
    };
    let address = parse_address(address).map_err(|error| InputError(format!("{name}: an entry {error}")))?;
    Ok(OnChain { chain, address })
}

/// An object without members that nobody reads: a misspelt restriction would not be kept.
fn members<'a>(name: &str, value: &'a Value, known: &[&str]) -> Read<&'a Map<String, Value>> {
    let Value::Object(members) = value else { return refuse(name, "must be an object") };
    match members.iter().find(|(member, value)| !known.contains(&member.as_str()) && !value.is_null()) {
        Some((member, _)) => {
            let shown: String = member.chars().take(40).collect();
            refuse(
                name,
                &format!("has a member {shown:?} that this daemon would not enforce; it knows {}", known.join(", ")),
            )
        }
        None => Ok(members),
    }
}

fn member<T>(members: &Map<String, Value>, name: &str, read: impl Fn(&Value) -> Read<T>) -> Read<Option<T>> {
    members.get(name).map_or(Ok(None), |value| optional(value, read))
}

/// An amount with so many decimals as an integer of the smallest unit: `digits[.digits]`, exact or refused.
fn amount(name: &str, value: &Value, decimals: u8) -> Read<U256> {
    let text = text(name, value)?;
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return refuse(name, "has a point without decimals"),
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() > AMOUNT_CHARS_MAX || whole.is_empty() || !digits(whole) || !digits(fraction) {
        return refuse(name, "must be a plain decimal number as a text, such as \"1000000\"");
    }
    let width = usize::from(decimals);
    if fraction.len() > width {
        return refuse(name, &format!("has more decimals than the {decimals} of \"decimals\""));
    }
    U256::from_str_radix(&format!("{whole}{fraction:0<width$}"), 10)
        .or_else(|_| refuse(name, "is larger than any token can carry (2^256 - 1)"))
}

fn show_amount(amount: U256, decimals: u8) -> String {
    crate::simulate::Delta::gain(amount).to_units(decimals)
}

fn token_limits(name: &str, value: &Value, chain_name: ChainName<'_>) -> Read<Vec<TokenLimit>> {
    let limits = list(name, value, |entry| {
        let members = members(name, entry, &["token", "max_value", "daily_limit", "decimals"])?;
        let Some(token) = members.get("token") else { return refuse(name, "has an entry without \"token\"") };
        let decimals = member(members, "decimals", |value| {
            let decimals = value.as_u64().filter(|decimals| *decimals <= DECIMALS_MAX);
            decimals.and_then(|n| u8::try_from(n).ok()).map_or_else(|| refuse(name, "decimals must be 0 to 77"), Ok)
        })?;
        let decimals = decimals.unwrap_or(0);
        let limit = TokenLimit {
            token: on_chain(name, token, chain_name)?,
            max_value: member(members, "max_value", |value| amount(&format!("{name}: max_value"), value, decimals))?,
            daily_limit: member(members, "daily_limit", |value| {
                amount(&format!("{name}: daily_limit"), value, decimals)
            })?,
            decimals,
        };
        if limit.max_value.is_none() && limit.daily_limit.is_none() {
            return refuse(name, "has an entry without max_value and daily_limit, which would limit nothing");
        }
        Ok(limit)
    })?;
    let twice = |(at, limit): (usize, &TokenLimit)| limits[..at].iter().any(|other| other.token == limit.token);
    if limits.iter().enumerate().any(twice) {
        return refuse(name, "names a token twice");
    }
    Ok(limits)
}

/// `0x…`, `chain:0x…`, or `{address, selectors?}`.
fn callable(name: &str, value: &Value, chain_name: ChainName<'_>) -> Read<Callable> {
    if value.is_string() {
        return Ok(Callable { contract: on_chain(name, value, chain_name)?, selectors: None });
    }
    let members = members(name, value, &["address", "selectors"])?;
    let Some(contract) = members.get("address") else { return refuse(name, "has an entry without \"address\"") };
    let selectors = member(members, "selectors", |value| {
        let selectors = list(name, value, |entry| selector(name, text(name, entry)?))?;
        if selectors.is_empty() || selectors.len() > SELECTORS_MAX {
            return refuse(name, "selectors must be 1 to 100; leave the member out to allow every function");
        }
        Ok(selectors)
    })?;
    Ok(Callable { contract: on_chain(name, contract, chain_name)?, selectors })
}

fn selector(name: &str, text: &str) -> Read<[u8; 4]> {
    let mut selector = [0; 4];
    match text.strip_prefix("0x").map(|digits| hex::decode_to_slice(digits, &mut selector)) {
        Some(Ok(())) => Ok(selector),
        _ => refuse(name, "selectors must be 4 bytes in hex, such as \"0xa9059cbb\""),
    }
}

fn per_chain(name: &str, value: &Value, chain_name: ChainName<'_>) -> Read<BTreeMap<String, ChainGuardrails>> {
    let chains = match value {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(chains) => chains,
        _ => return refuse(name, "must be an object of chains"),
    };
    let mut rails = BTreeMap::new();
    for (key, value) in chains {
        let shown: String = key.chars().take(40).collect();
        let field = format!("{name}.{shown}");
        let Some(chain) = chain_name(key) else {
            return refuse(&field, "is not a chain of this daemon; GET /v1/chains lists them");
        };
        if rails.contains_key(&chain) {
            return refuse(&field, "is given twice");
        }
        if let Some(own) = optional(value, |value| chain_rails(&field, value))?
            && own != ChainGuardrails::default()
        {
            rails.insert(chain, own);
        }
    }
    Ok(rails)
}

fn chain_rails(field: &str, value: &Value) -> Read<ChainGuardrails> {
    const KNOWN: [&str; 8] = [
        "max_value",
        "daily_limit",
        "to_allowlist",
        "token_allowlist",
        "max_per_day",
        "max_fee_per_gas_gwei",
        "max_gas_limit",
        "gas_daily_budget_native",
    ];
    let members = members(field, value, &KNOWN)?;
    let named = |name: &str| format!("{field}.{name}");
    let wei = |name: &str| {
        member(members, name, |value| {
            Wei::from_units(text(&named(name), value)?).map_err(|error| InputError(format!("{} {error}", named(name))))
        })
    };
    let addresses = |name: &str| {
        let field = named(name);
        member(members, name, |value| list(&field, value, |entry| address(&field, entry)))
    };
    Ok(ChainGuardrails {
        max_value: wei("max_value")?,
        daily_limit: wei("daily_limit")?,
        to_allowlist: addresses("to_allowlist")?.unwrap_or_default(),
        token_allowlist: addresses("token_allowlist")?.unwrap_or_default(),
        max_per_day: member(members, "max_per_day", |value| per_day(&named("max_per_day"), value))?,
        max_fee_per_gas_wei: member(members, "max_fee_per_gas_gwei", |value| {
            gwei(&named("max_fee_per_gas_gwei"), value)
        })?,
        max_gas_limit: member(members, "max_gas_limit", |value| {
            let gas = value.as_u64().filter(|gas| (1..=i64::MAX as u64).contains(gas));
            gas.map_or_else(|| refuse(&named("max_gas_limit"), "must be a whole number above 0, or null"), Ok)
        })?,
        gas_daily_budget: wei("gas_daily_budget_native")?,
    })
}

/// A text with up to nine decimals, or a whole number. A number with a fraction was rounded before it came here.
fn gwei(name: &str, value: &Value) -> Read<u128> {
    let as_text = value.as_u64().map(|whole| Value::String(whole.to_string()));
    let wei = amount(name, as_text.as_ref().unwrap_or(value), 9)?;
    wei.try_into().or_else(|_| refuse(name, "is more than any fee"))
}

impl OnChain {
    fn text(&self) -> Value {
        let address = self.address.to_checksum(None);
        json!(self.chain.as_ref().map_or_else(|| address.clone(), |chain| format!("{chain}:{address}")))
    }
}

impl TokenLimit {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("token".to_owned(), self.token.text());
        for (name, amount) in [("max_value", self.max_value), ("daily_limit", self.daily_limit)] {
            out.extend(amount.map(|amount| (name.to_owned(), json!(show_amount(amount, self.decimals)))));
        }
        if self.decimals != 0 {
            out.insert("decimals".to_owned(), json!(self.decimals));
        }
        Value::Object(out)
    }
}

impl Callable {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("address".to_owned(), self.contract.text());
        if let Some(selectors) = &self.selectors {
            out.insert("selectors".to_owned(), selectors.iter().map(|s| json!(hex::encode_prefixed(s))).collect());
        }
        Value::Object(out)
    }
}

impl ChainGuardrails {
    fn to_json(&self) -> Map<String, Value> {
        let addresses = |list: &[Address]| list.iter().map(|a| json!(a.to_checksum(None))).collect::<Value>();
        let list = |list: &[Address]| (!list.is_empty()).then(|| addresses(list));
        let members = [
            ("max_value", self.max_value.map(|v| json!(v.to_units()))),
            ("daily_limit", self.daily_limit.map(|v| json!(v.to_units()))),
            ("to_allowlist", list(&self.to_allowlist)),
            ("token_allowlist", list(&self.token_allowlist)),
            ("max_per_day", self.max_per_day.map(|v| json!(v))),
            ("max_fee_per_gas_gwei", self.max_fee_per_gas_wei.map(|v| json!(show_amount(U256::from(v), 9)))),
            ("max_gas_limit", self.max_gas_limit.map(|v| json!(v))),
            ("gas_daily_budget_native", self.gas_daily_budget.map(|v| json!(v.to_units()))),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

    fn chain(text: &str) -> Option<String> {
        matches!(text, "base" | "8453").then(|| "base".to_owned())
    }

    fn read(fields: Value) -> Read<Guardrails> {
        let mut rails = Guardrails::default();
        rails.apply_json(fields.as_object().unwrap(), &chain)?;
        Ok(rails)
    }

    #[test]
    fn what_is_read_is_shown_and_kept_as_it_is_meant() {
        let given = json!({
            "tx_max_per_day": 5,
            "tx_token_allowlist": [T, format!("8453:{T}"), T.to_lowercase()],
            "tx_token_limits": [
                {"token": T, "max_value": "1.50", "decimals": 6},
                {"token": format!("base:{T}"), "daily_limit": "7", "max_value": null},
            ],
            "tx_contract_allowlist": [T, {"address": format!("base:{T}"), "selectors": ["0xA9059CBB", "0xa9059cbb"]}],
            "tx_block_unlimited_approvals": true,
            "tx_allow_privileged_calls": true,
            "per_chain_guardrails": {"8453": {
                "max_value": "0.10", "daily_limit": "1", "to_allowlist": [T], "token_allowlist": [T], "max_per_day": 3,
                "max_fee_per_gas_gwei": "1.5", "max_gas_limit": 100_000, "gas_daily_budget_native": "0.01", "overhead_budget": null,
            }},
        });
        let shown = json!({
            "tx_max_per_day": 5,
            "tx_token_allowlist": [T, format!("base:{T}")],
            "tx_token_limits": [
                {"token": T, "max_value": "1.5", "decimals": 6}, {"token": format!("base:{T}"), "daily_limit": "7"},
            ],
            "tx_contract_allowlist": [{"address": T}, {"address": format!("base:{T}"), "selectors": ["0xa9059cbb"]}],
            "tx_block_unlimited_approvals": true,
            "tx_allow_privileged_calls": true,
            "per_chain_guardrails": {"base": {
                "max_value": "0.1", "daily_limit": "1", "to_allowlist": [T], "token_allowlist": [T], "max_per_day": 3,
                "max_fee_per_gas_gwei": "1.5", "max_gas_limit": 100_000, "gas_daily_budget_native": "0.01",
            }},
        });
        let rails = read(given).unwrap();
        assert_eq!(Value::Object(rails.to_json()), shown);
        assert_eq!(rails.token_limits[0].max_value, Some(U256::from(1_500_000)));
        assert_eq!(rails.per_chain["base"].max_fee_per_gas_wei, Some(1_500_000_000));
        let mut kept = Guardrails::default();
        kept.apply_stored(&rails.to_json()).unwrap();
        assert_eq!(kept, rails);
        let unknown = json!({"tx_something_newer": true});
        assert!(kept.apply_stored(unknown.as_object().unwrap()).is_err());

        // Clearing, and not giving.
        let cleared = json!({
            "tx_max_per_day": null, "per_chain_guardrails": null, "tx_block_unlimited_approvals": null, "tx_token_limits": [],
            "tx_token_allowlist": null, "tx_contract_allowlist": null, "tx_allow_privileged_calls": false,
        });
        let mut after = rails.clone();
        after.apply_json(cleared.as_object().unwrap(), &chain).unwrap();
        let left = json!({"tx_token_allowlist": shown["tx_token_allowlist"], "tx_contract_allowlist": shown["tx_contract_allowlist"]});
        assert_eq!(Value::Object(after.to_json()), left);
        let lifted = ["tx_max_per_day", "tx_token_limits", "tx_block_unlimited_approvals", "per_chain_guardrails"];
        assert_eq!(rails.lifted(&after), lifted);
        assert_eq!(after.lifted(&rails), ["tx_allow_privileged_calls"]);
        assert_eq!(after.lifted(&Guardrails::default()), ["tx_token_allowlist", "tx_contract_allowlist"]);
    }

    #[test]
    fn what_cannot_be_enforced_is_refused() {
        let selectors = |list: Value| json!({"tx_contract_allowlist": [{"address": T, "selectors": list}]});
        let limit = |members: Value| json!({"tx_token_limits": [members]});
        let chain = |members: Value| json!({"per_chain_guardrails": {"base": members}});
        let refused = [
            json!({"tx_max_per_day": -1}),
            json!({"tx_max_per_day": 1.5}),
            json!({"tx_max_per_day": "5"}),
            json!({"tx_token_allowlist": "USDC"}),
            json!({"tx_token_allowlist": ["USDC"]}),
            json!({"tx_token_allowlist": [format!("bsae:{T}")]}),
            json!({"tx_token_allowlist": [T.replacen('A', "a", 1)]}),
            json!({"tx_block_unlimited_approvals": "true"}),
            json!({"tx_allow_privileged_calls": 1}),
            selectors(json!([])),
            selectors(json!(["transfer"])),
            selectors(json!(["0xa9059c"])),
            json!({"tx_contract_allowlist": [{"address": T, "methods": ["0xa9059cbb"]}]}),
            limit(json!({"token": T})),
            limit(json!({"token": T, "max_value": 5})),
            limit(json!({"token": T, "max_value": "-5"})),
            limit(json!({"token": T, "max_value": "1.5"})),
            limit(json!({"token": T, "max_value": "1.5555555", "decimals": 6})),
            limit(json!({"token": T, "max_value": "1", "decimals": 78})),
            limit(json!({"token": T, "max_value": "9".repeat(78)})),
            limit(json!({"token": T, "max_value": "1", "per_hour": "1"})),
            limit(json!({"max_value": "1"})),
            json!({"tx_token_limits": [{"token": T, "max_value": "1"}, {"token": T.to_lowercase(), "daily_limit": "1"}]}),
            chain(json!({"max_vlaue": "1"})),
            chain(json!({"overhead_budget": "1"})),
            chain(json!({"max_value": "1e18"})),
            chain(json!({"max_fee_per_gas_gwei": 1.5})),
            chain(json!({"max_fee_per_gas_gwei": "1.0000000001"})),
            chain(json!({"max_gas_limit": 0})),
            json!({"per_chain_guardrails": {"bsae": {"max_value": "1"}}}),
            json!({"per_chain_guardrails": {"base": {"max_value": "1"}, "8453": {"max_value": "2"}}}),
            json!({"per_chain_guardrails": []}),
        ];
        for fields in refused {
            assert!(read(fields.clone()).is_err(), "{fields}");
        }
    }
}
