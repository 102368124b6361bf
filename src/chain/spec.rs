//! What the registry knows of a chain: one `[[chain]]` table of chains.toml. Pure.

use std::fmt;
use std::sync::Arc;

use alloy::primitives::Address;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use crate::outbound::rules::Rules;

/// Most nodes of one chain.
pub const NODES_MAX: usize = 8;
/// Longest chain name, in characters.
const NAME_CHARS_MAX: usize = 32;

/// An EIP-155 chain id. Never 0 in a [`ChainSpec`]: a transaction for chain 0 could be replayed on any chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub u64);

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The family of a chain, where the families differ in their rules for gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Ethereum's own rules, incl. the cap on a transaction's gas (EIP-7825).
    Ethereum,
    /// The OP stack: an extra fee for data on the parent chain is taken from the balance.
    Op,
    /// Arbitrum: the parent chain's data is paid in gas, so limits are higher.
    Arbitrum,
    /// ZKsync's stack: its own gas schedule.
    Zksync,
}

/// The address of a chain's node. It usually contains an access key, so nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct RpcUrl {
    url: Url,
    /// It came over the API: only these addresses are connected to, see [`super::guard`].
    guard: Option<Arc<Rules>>,
}

impl RpcUrl {
    /// Reads an `http` or `https` URL with a host. `None` for anything else: the text is not echoed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text.trim()).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(Self { url, guard: None })
    }

    /// As [`RpcUrl::parse`], for one that came over the API: connections are only made to addresses where a node may be. `None` also for
    /// a host that is a forbidden address.
    #[must_use]
    pub fn parse_guarded(text: &str, rules: &Arc<Rules>) -> Option<Self> {
        let url = Self::parse(text)?.url;
        let checked = match url.host()? {
            url::Host::Ipv4(ip) => rules.check_address(ip.into(), false),
            url::Host::Ipv6(ip) => rules.check_address(ip.into(), false),
            url::Host::Domain(_) => Ok(()),
        };
        checked.ok().map(|()| Self { url, guard: Some(Arc::clone(rules)) })
    }

    /// What connections are held against.
    pub(super) fn guard(&self) -> Option<&Arc<Rules>> {
        self.guard.as_ref()
    }

    /// The whole of it, for the one place that seals it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.url.as_str()
    }

    /// The URL itself, for the one place that connects to it.
    pub(super) fn expose(&self) -> &Url {
        &self.url
    }
}

impl fmt::Debug for RpcUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// One chain of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainSpec {
    /// The name that requests use: lower-case letters, digits and `-`, not digits alone.
    pub name: String,
    /// The name that people read.
    pub display_name: String,
    /// The id that is signed and that the node must answer. Not 0.
    pub chain_id: ChainId,
    /// The family.
    pub kind: Kind,
    /// Chains of one group share an agent's spending window; caps are in the group's native unit.
    pub spend_group: String,
    /// Symbol of the native unit (18 decimals).
    pub native_currency: String,
    /// The block explorer's base URL.
    #[serde(default)]
    pub explorer_url: Option<Url>,
    /// Whether its coins are without value.
    pub is_testnet: bool,
    /// The most wei per gas that is ever signed, whatever the node quotes.
    #[serde(deserialize_with = "wei_per_gas")]
    pub max_fee_per_gas_ceiling_wei: u128,
    /// The most gas that one transaction may ask for.
    pub max_gas_limit: u64,
    /// Blocks on top of a receipt's, its own included, before the transaction is final.
    pub confirmations: u64,
    /// How long bytes given out by `/sign` hold up later transactions of the key, in seconds.
    pub sign_only_ttl_s: u64,
    /// Usual time between two blocks, in milliseconds.
    pub block_time_ms: u64,
    /// A lane's first unmined transaction whose fee the market has left behind is replaced by one that pays more when it has waited for
    /// this long, in seconds; 0: never.
    #[serde(default = "default_bump_after_s")]
    pub bump_after_s: u64,
    /// How often that is done for one transaction.
    #[serde(default = "default_bump_max")]
    pub bump_max: usize,
    /// Total time for one call of the node, in milliseconds.
    #[serde(default = "default_rpc_deadline_ms")]
    pub rpc_deadline_ms: u64,
    /// Dollars for one native unit, for `gas_estimate_usd`. For people: no rule rests on it.
    #[serde(default, deserialize_with = "usd")]
    pub usd_per_unit: Option<Decimal>,
    /// A Chainlink price feed on this chain, in dollars for one native unit; it goes before `usd_per_unit`.
    #[serde(default)]
    pub usd_feed: Option<Address>,
    /// Where its first node is: from the environment, from platform admins, or from `dev`.
    #[serde(skip)]
    pub rpc_url: Option<RpcUrl>,
    /// Its further nodes, in order: from the environment, then from the file.
    #[serde(default, deserialize_with = "rpc_urls")]
    pub rpc_urls: Vec<RpcUrl>,
}

fn default_bump_after_s() -> u64 {
    90
}

fn default_bump_max() -> usize {
    8
}

fn default_rpc_deadline_ms() -> u64 {
    5_000
}

/// A decimal as a text: a float would round.
fn usd<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let price = text.parse::<Decimal>().ok().filter(|price| price.is_sign_positive() && !price.is_zero());
    price
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom("must be a decimal above 0 as a string, such as \"2500.00\""))
}

/// URLs as texts, which no error repeats.
fn rpc_urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RpcUrl>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let urls: Option<Vec<RpcUrl>> = texts.iter().map(|text| RpcUrl::parse(text)).collect();
    urls.ok_or_else(|| serde::de::Error::custom("rpc_urls: each must be an http or https URL"))
}

/// TOML integers have 63 bits; that is 9 wei per gas more than all ether there is.
fn wei_per_gas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    u64::deserialize(deserializer).map(u128::from)
}

impl ChainSpec {
    /// A local development chain: one confirmation, fast blocks, its spending apart from real chains'.
    #[must_use]
    pub fn local(name: &str, chain_id: ChainId, rpc_url: RpcUrl) -> Self {
        Self {
            name: name.to_owned(),
            display_name: format!("Local {name}"),
            chain_id,
            kind: Kind::Ethereum,
            spend_group: "eth-test".to_owned(),
            native_currency: "ETH".to_owned(),
            explorer_url: None,
            is_testnet: true,
            max_fee_per_gas_ceiling_wei: 500_000_000_000,
            max_gas_limit: super::tx::TX_GAS_MAX,
            confirmations: 1,
            sign_only_ttl_s: 900,
            block_time_ms: 1_000,
            bump_after_s: default_bump_after_s(),
            bump_max: default_bump_max(),
            rpc_deadline_ms: default_rpc_deadline_ms(),
            usd_per_unit: None,
            usd_feed: None,
            rpc_url: Some(rpc_url),
            rpc_urls: Vec::new(),
        }
    }

    /// The same chain by name and id, played by a local node: code written for it runs unchanged, its spending is apart
    /// from the real chain's.
    #[must_use]
    pub fn into_local(self, rpc_url: RpcUrl) -> Self {
        let local = Self::local(&self.name, self.chain_id, rpc_url);
        Self { kind: self.kind, native_currency: self.native_currency, max_gas_limit: self.max_gas_limit, ..local }
    }

    /// Where its nodes are, in the order in which they are asked.
    #[must_use]
    pub fn nodes(&self) -> Vec<RpcUrl> {
        let mut nodes: Vec<RpcUrl> = Vec::new();
        for url in self.rpc_url.iter().chain(&self.rpc_urls) {
            if !nodes.contains(url) {
                nodes.push(url.clone());
            }
        }
        nodes
    }

    /// Whether it has a node.
    #[must_use]
    pub fn has_node(&self) -> bool {
        self.rpc_url.is_some() || !self.rpc_urls.is_empty()
    }

    /// The environment variable that holds this chain's URLs: `INTENTD_RPC_URL_ARBITRUM_ONE`.
    #[must_use]
    pub fn rpc_url_variable(&self) -> String {
        format!("INTENTD_RPC_URL_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// What is wrong with this table, each fault as `key: why`.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut require = |ok: bool, fault: &str| {
            if !ok {
                faults.push(fault.to_owned());
            }
        };
        require(
            is_name(&self.name) && !self.name.bytes().all(|b| b.is_ascii_digit()),
            "name: must be 1 to 32 of a-z, 0-9 and '-', not only digits",
        );
        require(!self.display_name.trim().is_empty(), "display_name: must not be empty");
        require(self.chain_id.0 != 0, "chain_id: must not be 0 (its transactions could be replayed on any chain)");
        require(is_name(&self.spend_group), "spend_group: must be 1 to 32 of a-z, 0-9 and '-'");
        require(!self.native_currency.trim().is_empty(), "native_currency: must not be empty");
        require(
            self.explorer_url.as_ref().is_none_or(|url| matches!(url.scheme(), "http" | "https")),
            "explorer_url: must be an http or https URL",
        );
        require(self.max_fee_per_gas_ceiling_wei > 0, "max_fee_per_gas_ceiling_wei: must be above 0");
        require(self.max_gas_limit >= 21_000, "max_gas_limit: must be at least 21000");
        require(self.confirmations >= 1, "confirmations: must be at least 1");
        require(self.sign_only_ttl_s >= 1, "sign_only_ttl_s: must be at least 1");
        require(self.block_time_ms >= 1, "block_time_ms: must be at least 1");
        require((1..=60_000).contains(&self.rpc_deadline_ms), "rpc_deadline_ms: must be 1 to 60000");
        require(self.bump_after_s <= 86_400, "bump_after_s: must be at most 86400");
        require(self.bump_max <= 24, "bump_max: must be at most 24");
        require(self.nodes().len() <= NODES_MAX, "rpc_urls: must be at most 8 nodes together with the environment's");
        faults
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
