//! The guardrails, as they are sent and shown.

use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::http::api::schemas::{Address, Amount, text};

text!(
    /// A contract: an address on every chain (`0x…`), or on one (`base:0x…`).
    OnChainAddress = "base:0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", pattern: "^([^:]{1,255}:)?0x[0-9a-fA-F]{40}$"
);
text!(
    /// A function: the first four bytes of its call.
    Selector = "0xa9059cbb", pattern: "^0x[0-9a-fA-F]{8}$"
);
text!(
    /// An amount of a token, in a plain decimal number with at most as many decimals as `decimals` says.
    LimitAmount = "50", pattern: r"^[0-9]+(\.[0-9]+)?$", max_length: 160
);

/// Gwei, as a text with up to nine decimals or as a whole number.
pub struct Gwei;

impl PartialSchema for Gwei {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^[0-9]+(\.[0-9]{1,9})?$"));
        OneOfBuilder::new()
            .description(Some("Gwei, as a text with up to nine decimals or as a whole number."))
            .item(text.max_length(Some(160)))
            .item(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)))
            .into()
    }
}

impl ToSchema for Gwei {}

text!(
    /// Gwei.
    ShownGwei = "1.5", pattern: r"^[0-9]+(\.[0-9]{1,9})?$"
);

/// How much of a token. Transferred and approved amounts count alike.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenLimit {
    /// Which token.
    pub token: OnChainAddress,
    /// The most of one transaction.
    pub max_value: Option<LimitAmount>,
    /// The most in any 24 hours.
    pub daily_limit: Option<LimitAmount>,
    /// With how many decimals the amounts are written; 0, the smallest unit, if not given.
    #[schema(maximum = 77)]
    pub decimals: Option<u8>,
}

/// How much of a token, as it is shown.
#[derive(ToSchema)]
pub struct ShownTokenLimit {
    /// Which token.
    pub token: OnChainAddress,
    /// The most of one transaction.
    #[schema(required = false)]
    pub max_value: LimitAmount,
    /// The most in any 24 hours.
    #[schema(required = false)]
    pub daily_limit: LimitAmount,
    /// With how many decimals the amounts are written; 0 if it is not there.
    #[schema(required = false)]
    pub decimals: u8,
}

/// A contract and its functions.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContractFunctions {
    /// The contract.
    pub address: OnChainAddress,
    /// The functions; any of them if not given.
    #[schema(min_items = 1, max_items = 100)]
    pub selectors: Option<Vec<Selector>>,
}

/// A contract and its functions, as they are shown.
#[derive(ToSchema)]
pub struct ShownContractFunctions {
    /// The contract.
    pub address: OnChainAddress,
    /// The functions; any of them if it is not there.
    #[schema(required = false)]
    pub selectors: Vec<Selector>,
}

/// What may be called: a contract, or some of its functions.
pub struct Callable;

impl PartialSchema for Callable {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .description(Some("What may be called: a contract, or some of its functions."))
            .item(Ref::from_schema_name(OnChainAddress::name()))
            .item(Ref::from_schema_name(ContractFunctions::name()))
            .into()
    }
}

impl ToSchema for Callable {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((OnChainAddress::name().into_owned(), OnChainAddress::schema()));
        schemas.push((ContractFunctions::name().into_owned(), ContractFunctions::schema()));
        ContractFunctions::schemas(schemas);
    }
}

/// What holds on one chain beside everything else.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChainGuardrails {
    /// The most value of one transaction.
    pub max_value: Option<Amount>,
    /// The most value in any 24 hours.
    pub daily_limit: Option<Amount>,
    /// Whom it may send to.
    #[schema(max_items = 1000)]
    pub to_allowlist: Option<Vec<Address>>,
    /// Which tokens it may move or approve.
    #[schema(max_items = 1000)]
    pub token_allowlist: Option<Vec<Address>>,
    /// The most transactions in any 24 hours.
    #[schema(maximum = 1_000_000_000)]
    pub max_per_day: Option<u64>,
    /// The most that is offered per gas.
    pub max_fee_per_gas_gwei: Option<Gwei>,
    /// The most gas of one transaction.
    #[schema(minimum = 1)]
    pub max_gas_limit: Option<u64>,
    /// The most that may be spent on fees in any 24 hours.
    pub gas_daily_budget_native: Option<Amount>,
}

/// What holds on one chain; `null` is nothing.
pub struct GivenChainGuardrails;

impl PartialSchema for GivenChainGuardrails {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .description(Some("What holds on one chain; `null` is nothing."))
            .item(ObjectBuilder::new().schema_type(Type::Null))
            .item(Ref::from_schema_name(ChainGuardrails::name()))
            .into()
    }
}

impl ToSchema for GivenChainGuardrails {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((ChainGuardrails::name().into_owned(), ChainGuardrails::schema()));
        ChainGuardrails::schemas(schemas);
    }
}

/// What holds on one chain, as it is shown.
#[derive(ToSchema)]
pub struct ShownChainGuardrails {
    /// The most value of one transaction.
    #[schema(required = false)]
    pub max_value: Amount,
    /// The most value in any 24 hours.
    #[schema(required = false)]
    pub daily_limit: Amount,
    /// Whom it may send to.
    #[schema(required = false)]
    pub to_allowlist: Vec<Address>,
    /// Which tokens it may move or approve.
    #[schema(required = false)]
    pub token_allowlist: Vec<Address>,
    /// The most transactions in any 24 hours.
    #[schema(required = false)]
    pub max_per_day: u64,
    /// The most that is offered per gas.
    #[schema(required = false)]
    pub max_fee_per_gas_gwei: ShownGwei,
    /// The most gas of one transaction.
    #[schema(required = false)]
    pub max_gas_limit: u64,
    /// The most that may be spent on fees in any 24 hours.
    #[schema(required = false)]
    pub gas_daily_budget_native: Amount,
}

/// A chain by its name or id.
pub struct ChainName;

impl PartialSchema for ChainName {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).max_length(Some(255)).examples(["base"]);
        OneOfBuilder::new()
            .description(Some("A chain by its name or id: `\"base\"`, `\"8453\"` or `8453`."))
            .item(text)
            .item(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)))
            .into()
    }
}

impl ToSchema for ChainName {}
