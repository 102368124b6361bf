//! What platform admins may say of chains. Pure.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::store::Row;
use crate::chain::{ChainId, ChainSpec, Kind, NODES_MAX};

/// Most rows.
pub const ROWS_MAX: i64 = 256;
/// Longest text, in characters.
const TEXT_CHARS_MAX: usize = 255;
/// Longest URL, in characters.
pub const URL_CHARS_MAX: usize = 2_048;

/// The body of POST and PUT. A `null` is a field not given; an empty URL takes one away.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Request {
    chain_id: Option<u64>,
    name: Option<String>,
    display_name: Option<String>,
    kind: Option<String>,
    spend_group: Option<String>,
    native_currency: Option<String>,
    is_testnet: Option<bool>,
    explorer_url: Option<String>,
    max_fee_per_gas_ceiling_wei: Option<Value>,
    max_gas_limit: Option<u64>,
    confirmations: Option<u64>,
    sign_only_ttl_s: Option<u64>,
    block_time_ms: Option<u64>,
    rpc_deadline_ms: Option<u64>,
    rpc_url: Option<String>,
    rpc_urls: Option<Vec<String>>,
    /// Whether it signs anything new.
    pub is_enabled: Option<bool>,
}

impl Request {
    /// The nodes that it names, the first one first; `None` when it says nothing of nodes. Whatever it says of any is said of all: what a
    /// request no longer names is not asked any more.
    #[must_use]
    pub fn nodes(&self) -> Option<Vec<&str>> {
        if self.rpc_url.is_none() && self.rpc_urls.is_none() {
            return None;
        }
        let first = self.rpc_url.as_deref().filter(|text| !text.is_empty());
        Some(first.into_iter().chain(self.rpc_urls.iter().flatten().map(String::as_str)).collect())
    }
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A field that is missing or cannot be read (400).
    #[error("{0}")]
    Invalid(String),
    /// Not a URL that a node may have (400). It is not repeated: it may hold a key.
    #[error(
        "rpc_url and each of rpc_urls must be an http or https URL of at most {URL_CHARS_MAX} characters, on a public address or in a network that `outbound.allow_private` lists, {NODES_MAX} in all"
    )]
    RpcUrl,
    /// A list of nodes without any (400): what it is to mean is not told.
    #[error(
        "rpc_urls: an empty list names no node: leave it out to change none, or send \"rpc_url\": \"\" to take away all that were set here"
    )]
    NoUrls,
    /// A field that cannot be changed (422).
    #[error("{field} of chain {chain} cannot be changed: {why}")]
    Fixed {
        /// Which field.
        field: &'static str,
        /// Of which chain.
        chain: String,
        /// Why not.
        why: &'static str,
    },
    /// Too many rows (422).
    #[error("there are {ROWS_MAX} chains in the database already")]
    TooMany,
}

const IN_FILE: &str = "chains.toml has it, and wins";
const IDENTITY: &str = "limits, keys' paths and allowlists of agents go by it";

fn missing(field: &str) -> Fault {
    Fault::Invalid(format!(
        "{field} is required: a chain needs all of chain_id, name, display_name, kind, spend_group, native_currency, is_testnet, \
         max_fee_per_gas_ceiling_wei, max_gas_limit, confirmations, sign_only_ttl_s and block_time_ms"
    ))
}

/// A whole chain of a request or row, without its URL. Its faults are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition(ChainSpec);

impl Definition {
    /// Of a chain that is in the registry.
    #[must_use]
    pub fn of(spec: &ChainSpec) -> Self {
        Self(ChainSpec { rpc_url: None, rpc_urls: Vec::new(), ..spec.clone() })
    }

    /// The chain.
    #[must_use]
    pub fn spec(&self) -> &ChainSpec {
        &self.0
    }

    /// Its id.
    #[must_use]
    pub fn chain_id(&self) -> ChainId {
        self.0.chain_id
    }
}

/// The families, as chains.toml names them.
const KINDS: [(&str, Kind); 4] =
    [("ethereum", Kind::Ethereum), ("op", Kind::Op), ("arbitrum", Kind::Arbitrum), ("zksync", Kind::Zksync)];

/// As chains.toml names it.
#[must_use]
pub fn kind_str(kind: Kind) -> &'static str {
    KINDS.iter().find(|(_, other)| *other == kind).map_or("ethereum", |(name, _)| name)
}

/// Reads one.
#[must_use]
pub fn parse_kind(text: &str) -> Option<Kind> {
    KINDS.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind)
}

fn kind_of(text: &str) -> Result<Kind, Fault> {
    parse_kind(text).ok_or_else(|| Fault::Invalid("kind must be ethereum, op, arbitrum or zksync".to_owned()))
}

/// Wei per gas, as a number or in decimal digits.
fn ceiling_of(value: &Value) -> Result<u128, Fault> {
    let number = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    let number = number.filter(|wei| i64::try_from(*wei).is_ok()).map(u128::from);
    let refuse =
        || Fault::Invalid("max_fee_per_gas_ceiling_wei must be a whole number of wei, up to 2^63 - 1".to_owned());
    number.ok_or_else(refuse)
}

/// A URL for people; an empty one is none.
fn explorer_of(text: &str) -> Result<Option<Url>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    match url {
        Some(url) if text.len() <= URL_CHARS_MAX => Ok(Some(url)),
        _ => Err(Fault::Invalid("explorer_url must be an http or https URL".to_owned())),
    }
}

/// A chain of a request that must have all of it.
///
/// # Errors
/// [`Fault`].
pub fn define(request: &Request) -> Result<Definition, Fault> {
    let text = |field: &str, value: &Option<String>| value.clone().ok_or_else(|| missing(field));
    let number = |field: &str, value: Option<u64>| value.ok_or_else(|| missing(field));
    let ceiling = request.max_fee_per_gas_ceiling_wei.as_ref().filter(|value| !value.is_null());
    let spec = ChainSpec {
        name: text("name", &request.name)?,
        display_name: text("display_name", &request.display_name)?,
        chain_id: ChainId(number("chain_id", request.chain_id)?),
        kind: kind_of(&text("kind", &request.kind)?)?,
        spend_group: text("spend_group", &request.spend_group)?,
        native_currency: text("native_currency", &request.native_currency)?,
        explorer_url: request.explorer_url.as_deref().map_or(Ok(None), explorer_of)?,
        is_testnet: request.is_testnet.ok_or_else(|| missing("is_testnet"))?,
        max_fee_per_gas_ceiling_wei: ceiling_of(ceiling.ok_or_else(|| missing("max_fee_per_gas_ceiling_wei"))?)?,
        max_gas_limit: number("max_gas_limit", request.max_gas_limit)?,
        confirmations: number("confirmations", request.confirmations)?,
        sign_only_ttl_s: number("sign_only_ttl_s", request.sign_only_ttl_s)?,
        block_time_ms: number("block_time_ms", request.block_time_ms)?,
        rpc_deadline_ms: request.rpc_deadline_ms.unwrap_or(5_000),
        // As chains.toml has them by default.
        bump_after_s: 90,
        bump_max: 8,
        // What a unit is worth is for chains.toml to say.
        usd_per_unit: None,
        usd_feed: None,
        rpc_url: None,
        rpc_urls: Vec::new(),
    };
    check(spec)
}

/// What chains.toml is checked for, and that it fits a row.
fn check(spec: ChainSpec) -> Result<Definition, Fault> {
    let mut faults = spec.faults();
    let numbers = [
        ("chain_id", spec.chain_id.0, u64::MAX >> 1),
        ("max_gas_limit", spec.max_gas_limit, 1_000_000_000_000),
        ("confirmations", spec.confirmations, 100_000),
        ("sign_only_ttl_s", spec.sign_only_ttl_s, 30 * 86_400),
        ("block_time_ms", spec.block_time_ms, 3_600_000),
    ];
    faults.extend(
        numbers.iter().filter(|(_, n, max)| n > max).map(|(name, _, max)| format!("{name}: must be at most {max}")),
    );
    for (name, text) in [("display_name", &spec.display_name), ("native_currency", &spec.native_currency)] {
        if text.chars().count() > TEXT_CHARS_MAX || text.chars().any(char::is_control) {
            faults.push(format!("{name}: must have at most {TEXT_CHARS_MAX} characters and no control characters"));
        }
    }
    if faults.is_empty() { Ok(Definition(spec)) } else { Err(Fault::Invalid(faults.join("; "))) }
}

/// Whether `new` is the chain that `old` was: what makes it this chain is the same.
///
/// # Errors
/// [`Fault::Fixed`].
pub fn same_chain(old: &ChainSpec, new: &ChainSpec) -> Result<(), Fault> {
    let fixed = |field| Err(Fault::Fixed { field, chain: old.name.clone(), why: IDENTITY });
    match () {
        () if old.chain_id != new.chain_id => fixed("chain_id"),
        () if old.name != new.name => fixed("name"),
        () if old.kind != new.kind => fixed("kind"),
        () if old.spend_group != new.spend_group => fixed("spend_group"),
        () if old.native_currency != new.native_currency => fixed("native_currency"),
        () if old.is_testnet != new.is_testnet => fixed("is_testnet"),
        () => Ok(()),
    }
}

/// The nodes that a change names, as [`Request::nodes`].
///
/// # Errors
/// [`Fault::NoUrls`]. It may be meant as "none but the first" or as "none at all", and a chain without a node signs nothing.
pub fn changed_nodes(request: &Request) -> Result<Option<Vec<&str>>, Fault> {
    let nodes = request.nodes();
    if request.rpc_url.is_none() && nodes.as_ref().is_some_and(Vec::is_empty) {
        return Err(Fault::NoUrls);
    }
    Ok(nodes)
}

/// The row as the request wants it; the URL is the caller's business.
///
/// # Errors
/// [`Fault`].
pub fn change(before: &Row, file: Option<&ChainSpec>, request: &Request) -> Result<Row, Fault> {
    let mut after = Row { deleted: false, ..before.clone() };
    after.is_enabled = request.is_enabled.unwrap_or(before.is_enabled);
    let base = match (file, &before.own) {
        (Some(spec), _) => spec.clone(),
        (None, Some(own)) => own.spec().clone(),
        (None, None) => return Err(Fault::Invalid("chains.toml of this daemon does not have this chain".to_owned())),
    };
    let wanted = merged(&base, request)?;
    same_chain(&base, wanted.spec())?;
    if file.is_some() {
        let (old, new) = (&base, wanted.spec());
        let fixed = |field| Err(Fault::Fixed { field, chain: old.name.clone(), why: IN_FILE });
        match () {
            () if old.max_fee_per_gas_ceiling_wei != new.max_fee_per_gas_ceiling_wei => {
                return fixed("max_fee_per_gas_ceiling_wei");
            }
            () if old.max_gas_limit != new.max_gas_limit => return fixed("max_gas_limit"),
            () if old.confirmations != new.confirmations => return fixed("confirmations"),
            () if old.sign_only_ttl_s != new.sign_only_ttl_s => return fixed("sign_only_ttl_s"),
            () if old.block_time_ms != new.block_time_ms => return fixed("block_time_ms"),
            () if old.rpc_deadline_ms != new.rpc_deadline_ms => return fixed("rpc_deadline_ms"),
            () => {}
        }
        if request.display_name.is_some() {
            after.display_name = Some(new.display_name.clone());
        }
        if request.explorer_url.is_some() {
            after.explorer_url.clone_from(&new.explorer_url);
        }
    } else {
        after.display_name = Some(wanted.spec().display_name.clone());
        after.explorer_url.clone_from(&wanted.spec().explorer_url);
        after.own = Some(wanted);
    }
    Ok(after)
}

/// The chain with every field that is given.
fn merged(base: &ChainSpec, request: &Request) -> Result<Definition, Fault> {
    let mut spec = ChainSpec { rpc_url: None, rpc_urls: Vec::new(), ..base.clone() };
    let texts = [
        (&mut spec.name, &request.name),
        (&mut spec.display_name, &request.display_name),
        (&mut spec.spend_group, &request.spend_group),
        (&mut spec.native_currency, &request.native_currency),
    ];
    for (field, given) in texts {
        if let Some(given) = given {
            field.clone_from(given);
        }
    }
    let numbers = [
        (&mut spec.chain_id.0, request.chain_id),
        (&mut spec.max_gas_limit, request.max_gas_limit),
        (&mut spec.confirmations, request.confirmations),
        (&mut spec.sign_only_ttl_s, request.sign_only_ttl_s),
        (&mut spec.block_time_ms, request.block_time_ms),
        (&mut spec.rpc_deadline_ms, request.rpc_deadline_ms),
    ];
    for (field, given) in numbers {
        *field = given.unwrap_or(*field);
    }
    if let Some(kind) = &request.kind {
        spec.kind = kind_of(kind)?;
    }
    if let Some(given) = request.max_fee_per_gas_ceiling_wei.as_ref().filter(|value| !value.is_null()) {
        spec.max_fee_per_gas_ceiling_wei = ceiling_of(given)?;
    }
    if let Some(text) = &request.explorer_url {
        spec.explorer_url = explorer_of(text)?;
    }
    spec.is_testnet = request.is_testnet.unwrap_or(spec.is_testnet);
    check(spec)
}
