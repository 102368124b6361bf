//! What documents the routes of platform admins' chains.

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::chain::api::example as public_example;
use crate::http::api::schemas::{Id, Time, Wei, words};
use crate::http::api::{Doc, Tag};

words!(
    /// How its fees and limits are reckoned.
    ChainKind: "ethereum" | "op" | "arbitrum" | "zksync"
);
words!(
    /// Where it comes from. What the file (chains.toml) says wins.
    ChainSource: "file" | "database"
);

/// Wei, as a number or in decimal digits: up to 2^63 - 1.
pub struct GivenWei;

impl utoipa::PartialSchema for GivenWei {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]+$")).max_length(Some(40));
        OneOfBuilder::new()
            .description(Some("Wei, as a number or in decimal digits: up to 2^63 - 1."))
            .item(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)))
            .item(text)
            .into()
    }
}

impl ToSchema for GivenWei {}

/// A chain as platform admins see it.
#[derive(ToSchema)]
pub struct AdminChain {
    /// The id that the API shows, made of the chain id.
    pub id: Id,
    /// Its name, by which requests may call it.
    pub name: String,
    /// Its name for people.
    pub display_name: String,
    /// Its chain id (EIP-155).
    pub chain_id: u64,
    /// What its native unit is called.
    pub native_currency: String,
    /// Whether its money is worth nothing.
    pub is_testnet: bool,
    /// Whether it signs anything new.
    pub is_enabled: bool,
    /// Where people look at it.
    #[schema(required = false, format = "uri")]
    pub explorer_url: String,
    /// Since when it is there.
    pub created_at: Time,
    /// When it was changed.
    pub updated_at: Time,
    /// How its fees and limits are reckoned.
    pub kind: ChainKind,
    /// With which other chains its amounts count together.
    pub spend_group: String,
    /// No transaction offers more per gas.
    pub max_fee_per_gas_ceiling_wei: Wei,
    /// No transaction takes more gas.
    pub max_gas_limit: u64,
    /// So many blocks make a transaction final.
    pub confirmations: u64,
    /// How long what is only signed holds its nonce, in seconds.
    pub sign_only_ttl_s: u64,
    /// How often there is a block, in milliseconds.
    pub block_time_ms: u64,
    /// How long its node may take, in milliseconds.
    pub rpc_deadline_ms: u64,
    /// Whether there is a URL of a node. None is ever shown.
    pub has_rpc_url: bool,
    /// How many there are, in all.
    pub rpc_url_count: u64,
    /// Where it comes from.
    pub source: ChainSource,
}

/// Chains as platform admins see them.
#[derive(ToSchema)]
pub struct AdminChainList {
    /// All of them.
    pub chains: Vec<AdminChain>,
}

/// A chain to be added.
#[derive(ToSchema)]
pub struct CreateChain {
    /// Its chain id (EIP-155).
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_u64)]
    pub chain_id: u64,
    /// Its name. It belongs to the chain id for good.
    #[schema(min_length = 1, max_length = 255, examples("base"))]
    pub name: String,
    /// Its name for people.
    #[schema(max_length = 255)]
    pub display_name: String,
    /// How its fees and limits are reckoned.
    pub kind: ChainKind,
    /// With which other chains its amounts count together.
    #[schema(min_length = 1, max_length = 255)]
    pub spend_group: String,
    /// What its native unit is called.
    #[schema(max_length = 255)]
    pub native_currency: String,
    /// Whether its money is worth nothing.
    pub is_testnet: bool,
    /// Where people look at it; an empty one is none.
    #[schema(max_length = 2048)]
    pub explorer_url: Option<String>,
    /// No transaction offers more per gas.
    pub max_fee_per_gas_ceiling_wei: GivenWei,
    /// No transaction takes more gas.
    #[schema(maximum = 1_000_000_000_000_u64)]
    pub max_gas_limit: u64,
    /// So many blocks make a transaction final.
    #[schema(maximum = 100_000)]
    pub confirmations: u64,
    /// How long what is only signed holds its nonce, in seconds.
    #[schema(maximum = 2_592_000)]
    pub sign_only_ttl_s: u64,
    /// How often there is a block, in milliseconds.
    #[schema(maximum = 3_600_000)]
    pub block_time_ms: u64,
    /// How long its node may take, in milliseconds; 5000 if not given.
    pub rpc_deadline_ms: Option<u64>,
    /// The URL of its node, which is asked at once.
    #[schema(max_length = 2048)]
    pub rpc_url: Option<String>,
    /// The URLs of further nodes, in the order in which they are asked when the ones before fail. Eight in all.
    #[schema(max_items = 8)]
    pub rpc_urls: Option<Vec<String>>,
    /// Whether it signs anything new; yes if not given.
    pub is_enabled: Option<bool>,
}

/// What is to be changed of a chain. What makes it this chain stays, and so does what chains.toml says of it.
#[derive(ToSchema)]
pub struct UpdateChain {
    /// Its chain id, which cannot be changed.
    #[schema(minimum = 1)]
    pub chain_id: Option<u64>,
    /// Its name, which cannot be changed.
    pub name: Option<String>,
    /// Its name for people.
    #[schema(max_length = 255)]
    pub display_name: Option<String>,
    /// How its fees and limits are reckoned, which cannot be changed.
    pub kind: Option<ChainKind>,
    /// Its spend group, which cannot be changed.
    pub spend_group: Option<String>,
    /// Its native unit, which cannot be changed.
    pub native_currency: Option<String>,
    /// Whether its money is worth nothing, which cannot be changed.
    pub is_testnet: Option<bool>,
    /// Where people look at it; an empty one takes it away.
    #[schema(max_length = 2048)]
    pub explorer_url: Option<String>,
    /// No transaction offers more per gas.
    pub max_fee_per_gas_ceiling_wei: Option<GivenWei>,
    /// No transaction takes more gas.
    #[schema(maximum = 1_000_000_000_000_u64)]
    pub max_gas_limit: Option<u64>,
    /// So many blocks make a transaction final.
    #[schema(maximum = 100_000)]
    pub confirmations: Option<u64>,
    /// How long what is only signed holds its nonce, in seconds.
    #[schema(maximum = 2_592_000)]
    pub sign_only_ttl_s: Option<u64>,
    /// How often there is a block, in milliseconds.
    #[schema(maximum = 3_600_000)]
    pub block_time_ms: Option<u64>,
    /// How long its node may take, in milliseconds.
    pub rpc_deadline_ms: Option<u64>,
    /// The URL of its node, which is asked at once; an empty one takes it away, and the further ones with it unless they are named again.
    #[schema(max_length = 2048)]
    pub rpc_url: Option<String>,
    /// The URLs of further nodes, in the order in which they are asked when the ones before fail. Eight in all. Whoever changes one names
    /// all of them: what is named takes the place of every URL of the chain, those of the environment and of chains.toml included. Not
    /// empty without an `rpc_url`.
    #[schema(max_items = 8)]
    pub rpc_urls: Option<Vec<String>>,
    /// Whether it signs anything new.
    pub is_enabled: Option<bool>,
}

fn settings() -> Value {
    json!({
        "kind": "op",
        "spend_group": "eth",
        "max_fee_per_gas_ceiling_wei": "100000000000",
        "max_gas_limit": 15_000_000,
        "confirmations": 60,
        "sign_only_ttl_s": 3600,
        "block_time_ms": 2000,
        "rpc_deadline_ms": 5000,
    })
}

fn with(mut base: Value, more: &Value) -> Value {
    if let (Some(base), Some(more)) = (base.as_object_mut(), more.as_object()) {
        base.extend(more.clone());
    }
    base
}

fn example() -> Value {
    with(with(public_example(), &settings()), &json!({"has_rpc_url": true, "rpc_url_count": 1, "source": "database"}))
}

/// List the chains with what keeps their users safe.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Platform, "adminListChains", "List the chains with what keeps their users safe")
        .reply::<AdminChainList>(200, "The chains.", json!({"chains": [example()]}))
}

/// Add a chain.
#[must_use]
pub fn create() -> Doc {
    let identity = json!({
        "chain_id": 8453,
        "name": "base",
        "display_name": "Base",
        "native_currency": "ETH",
        "is_testnet": false,
        "rpc_url": "https://node.example/key",
    });
    Doc::new(Tag::Platform, "adminCreateChain", "Add a chain")
        .says("Its node is asked at once whether it is of this chain. Every daemon has it within seconds.")
        .body::<CreateChain>(with(identity, &settings()))
        .reply::<AdminChain>(201, "The chain.", example())
        .problem(409, "There is a chain of this id or name, or there was.")
        .problem(422, "What answers at the URL is no node of this chain, or there are as many chains as there may be.")
}

/// Change a chain.
#[must_use]
pub fn change() -> Doc {
    Doc::new(Tag::Platform, "adminUpdateChain", "Change a chain")
        .optional_body::<UpdateChain>(json!({"is_enabled": false}))
        .reply::<AdminChain>(200, "The chain.", example())
        .problem(409, "There was another chain of this name.")
        .problem(422, "It cannot be changed, or what answers at the URL is no node of this chain.")
}

/// Take a chain away.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Platform, "adminDeleteChain", "Take a chain away")
        .empty(204, "It is gone; its name and id stay together.")
        .problem(409, "chains.toml has it.")
        .problem(422, "It cannot be taken away.")
}
