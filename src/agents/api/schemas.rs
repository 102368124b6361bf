//! Agents, as they are sent.

use std::collections::BTreeMap;

use utoipa::ToSchema;

use super::guardrails::{Callable, ChainName, GivenChainGuardrails, OnChainAddress, TokenLimit};
use crate::http::api::schemas::{Address, Amount, Description, GivenEmail, Id, JsonObject, Name, Time, text, words};

words!(
    /// How an agent proves who it is: by its key, a client certificate, or an assertion of its identity provider.
    AgentAuthMethod: "api_key" | "mtls" | "oidc_client_credentials"
);
text!(
    /// A path glob, or a text of the client's.
    AgentScope = "prod/**", min_length: 1, max_length: 1024
);
/// An agent to be registered. Restrictions of other versions of this API that would not be enforced are refused.
#[derive(ToSchema)]
pub struct CreateAgent {
    /// Its name.
    pub name: Name,
    /// What it is for; `null` takes it away.
    pub description: Option<Description>,
    /// How it proves who it is; `api_key` if not given.
    pub auth_method: Option<AgentAuthMethod>,
    /// Path globs that it reaches at most, if all of them are globs; otherwise texts of the client's.
    #[schema(max_items = 1000)]
    pub scopes: Option<Vec<AgentScope>>,
    /// The vaults that it reaches at most; any if empty.
    #[schema(max_items = 1000)]
    pub vault_ids: Option<Vec<Id>>,
    /// Whether it may do anything at all.
    pub is_active: Option<bool>,
    /// When it ends; `null` takes that away.
    pub expires_at: Option<Time>,
    /// Whether it may send intents.
    pub intents_api_enabled: Option<bool>,
    /// An older name of `intents_api_enabled`.
    pub crypto_proxy_enabled: Option<bool>,
    /// How long its tokens last; `null` is an hour.
    #[schema(minimum = 120, maximum = 86_400)]
    pub token_ttl_seconds: Option<i32>,
    /// For `mtls`: the SHA-256 of its certificate, 64 hex digits with or without colons.
    #[schema(max_length = 255)]
    pub client_cert_fingerprint: Option<String>,
    /// For `oidc_client_credentials`: its issuer.
    #[schema(max_length = 255, examples("https://issuer.example/realm"))]
    pub oidc_issuer: Option<String>,
    /// For `oidc_client_credentials`: its client id.
    #[schema(max_length = 255)]
    pub oidc_client_id: Option<String>,
    /// Kept for other services of the same clients.
    pub shroud_enabled: Option<bool>,
    /// Kept likewise.
    pub shroud_config: Option<JsonObject>,
    /// Agrees to lifting a restriction.
    pub confirm_unrestricted: Option<bool>,
    /// Whom it may send to; anybody if empty. So with all lists below.
    #[schema(max_items = 1000)]
    pub tx_to_allowlist: Option<Vec<Address>>,
    /// On which chains.
    #[schema(max_items = 1000)]
    pub tx_allowed_chains: Option<Vec<ChainName>>,
    /// The most value of one transaction; `null` is any. So with all caps below.
    pub tx_max_value_eth: Option<Amount>,
    /// The same as `tx_max_value_eth`.
    pub tx_max_value: Option<Amount>,
    /// The most value in any 24 hours.
    pub tx_daily_limit_eth: Option<Amount>,
    /// The same as `tx_daily_limit_eth`.
    pub tx_daily_limit: Option<Amount>,
    /// The most that one transaction may cost in fees (gas limit × fee cap).
    pub tx_max_fee_eth: Option<Amount>,
    /// The most that may be spent on fees in any 24 hours.
    pub tx_daily_fee_limit_eth: Option<Amount>,
    /// The most gas of one transaction.
    #[schema(minimum = 1)]
    pub tx_max_gas_limit: Option<i64>,
    /// The most transactions in any 24 hours.
    #[schema(maximum = 1_000_000_000)]
    pub tx_max_per_day: Option<u64>,
    /// Which tokens it may move or approve.
    #[schema(max_items = 1000)]
    pub tx_token_allowlist: Option<Vec<OnChainAddress>>,
    /// How much of which token.
    #[schema(max_items = 1000)]
    pub tx_token_limits: Option<Vec<TokenLimit>>,
    /// What it may call.
    #[schema(max_items = 1000)]
    pub tx_contract_allowlist: Option<Vec<Callable>>,
    /// Nobody may be given leave to take any amount of a token.
    pub tx_block_unlimited_approvals: Option<bool>,
    /// Calls that change who commands a contract, or its code, and delegatecalls, are off unless this is set.
    pub tx_allow_privileged_calls: Option<bool>,
    /// What holds on single chains beside everything else, by the chain's name or id; `null` is nothing.
    pub per_chain_guardrails: Option<BTreeMap<String, GivenChainGuardrails>>,
}

/// What is to be changed of an agent. A list that is `null` is not given (`[]` empties it); a cap that is `null` is taken away.
#[derive(ToSchema)]
pub struct UpdateAgent {
    /// Its name.
    pub name: Option<Name>,
    /// What it is for; `null` takes it away.
    pub description: Option<Description>,
    /// How it proves who it is; as before if not given.
    pub auth_method: Option<AgentAuthMethod>,
    /// Path globs that it reaches at most, if all of them are globs; otherwise texts of the client's.
    #[schema(max_items = 1000)]
    pub scopes: Option<Vec<AgentScope>>,
    /// The vaults that it reaches at most; any if empty.
    #[schema(max_items = 1000)]
    pub vault_ids: Option<Vec<Id>>,
    /// Whether it may do anything at all.
    pub is_active: Option<bool>,
    /// When it ends; `null` takes that away.
    pub expires_at: Option<Time>,
    /// Whether it may send intents.
    pub intents_api_enabled: Option<bool>,
    /// An older name of `intents_api_enabled`.
    pub crypto_proxy_enabled: Option<bool>,
    /// How long its tokens last; `null` is an hour.
    #[schema(minimum = 120, maximum = 86_400)]
    pub token_ttl_seconds: Option<i32>,
    /// For `mtls`: the SHA-256 of its certificate, 64 hex digits with or without colons.
    #[schema(max_length = 255)]
    pub client_cert_fingerprint: Option<String>,
    /// For `oidc_client_credentials`: its issuer.
    #[schema(max_length = 255, examples("https://issuer.example/realm"))]
    pub oidc_issuer: Option<String>,
    /// For `oidc_client_credentials`: its client id.
    #[schema(max_length = 255)]
    pub oidc_client_id: Option<String>,
    /// Kept for other services of the same clients.
    pub shroud_enabled: Option<bool>,
    /// Kept likewise.
    pub shroud_config: Option<JsonObject>,
    /// Agrees to lifting a restriction.
    pub confirm_unrestricted: Option<bool>,
    /// Whom it may send to; anybody if empty. So with all lists below.
    #[schema(max_items = 1000)]
    pub tx_to_allowlist: Option<Vec<Address>>,
    /// On which chains.
    #[schema(max_items = 1000)]
    pub tx_allowed_chains: Option<Vec<ChainName>>,
    /// The most value of one transaction; `null` is any. So with all caps below.
    pub tx_max_value_eth: Option<Amount>,
    /// The same as `tx_max_value_eth`.
    pub tx_max_value: Option<Amount>,
    /// The most value in any 24 hours.
    pub tx_daily_limit_eth: Option<Amount>,
    /// The same as `tx_daily_limit_eth`.
    pub tx_daily_limit: Option<Amount>,
    /// The most that one transaction may cost in fees (gas limit × fee cap).
    pub tx_max_fee_eth: Option<Amount>,
    /// The most that may be spent on fees in any 24 hours.
    pub tx_daily_fee_limit_eth: Option<Amount>,
    /// The most gas of one transaction.
    #[schema(minimum = 1)]
    pub tx_max_gas_limit: Option<i64>,
    /// The most transactions in any 24 hours.
    #[schema(maximum = 1_000_000_000)]
    pub tx_max_per_day: Option<u64>,
    /// Which tokens it may move or approve.
    #[schema(max_items = 1000)]
    pub tx_token_allowlist: Option<Vec<OnChainAddress>>,
    /// How much of which token.
    #[schema(max_items = 1000)]
    pub tx_token_limits: Option<Vec<TokenLimit>>,
    /// What it may call.
    #[schema(max_items = 1000)]
    pub tx_contract_allowlist: Option<Vec<Callable>>,
    /// Nobody may be given leave to take any amount of a token.
    pub tx_block_unlimited_approvals: Option<bool>,
    /// Calls that change who commands a contract, or its code, and delegatecalls, are off unless this is set.
    pub tx_allow_privileged_calls: Option<bool>,
    /// What holds on single chains beside everything else, by the chain's name or id; `null` is nothing.
    pub per_chain_guardrails: Option<BTreeMap<String, GivenChainGuardrails>>,
}

/// Whose agent somebody wants to be.
#[derive(ToSchema)]
pub struct EnrollAgent {
    /// What it calls itself.
    pub name: Name,
    /// The human's address.
    pub human_email: GivenEmail,
    /// What it is for.
    pub description: Option<Description>,
}
