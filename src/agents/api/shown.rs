//! Agents, as they are shown.

use std::collections::BTreeMap;

use utoipa::ToSchema;

use super::guardrails::{OnChainAddress, ShownChainGuardrails, ShownContractFunctions, ShownTokenLimit};
use super::schemas::{AgentAuthMethod, AgentScope};
use crate::access::agent_token::api::AgentKey;
use crate::http::api::schemas::{
    Address, Amount, Anything, Description, Fingerprint, Id, JsonObject, Name, Time, Wei, text,
};
use crate::vaults::keys::api::KeyChain;

text!(
    /// A public Ed25519 key: base64 of 32 bytes.
    SshPublicKey = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", pattern: "^[A-Za-z0-9+/]{43}=$"
);
text!(
    /// A public P-256 key: base64 of its uncompressed point (SEC 1, 65 bytes).
    EcdhPublicKey = "BGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU=",
    pattern: "^[A-Za-z0-9+/]{87}=$"
);

/// How much of a token counts now.
#[derive(ToSchema)]
pub struct SpentToken {
    /// On which chain.
    pub chain: String,
    /// Which token.
    pub token: Address,
    /// In its smallest unit.
    pub amount: Wei,
}

/// An agent.
#[derive(ToSchema)]
pub struct Agent {
    /// Its id.
    pub id: Id,
    /// Its name.
    pub name: Name,
    /// How it proves who it is.
    pub auth_method: AgentAuthMethod,
    /// Its scopes.
    pub scopes: Vec<AgentScope>,
    /// Whether it may do anything at all.
    pub is_active: bool,
    /// Whether it may send intents.
    pub intents_api_enabled: bool,
    /// Whom it may send to.
    pub tx_to_allowlist: Vec<Address>,
    /// On which chains.
    pub tx_allowed_chains: Vec<String>,
    /// The vaults that it reaches at most.
    pub vault_ids: Vec<Id>,
    /// Kept for other services of the same clients.
    pub shroud_enabled: bool,
    /// Always empty.
    #[schema(max_items = 0)]
    pub smart_accounts: Vec<Anything>,
    /// When it was registered.
    pub created_at: Time,
    /// What it is for.
    #[schema(required = false)]
    pub description: Description,
    /// The most value of one transaction.
    #[schema(required = false)]
    pub tx_max_value_eth: Amount,
    /// The most value in any 24 hours.
    #[schema(required = false)]
    pub tx_daily_limit_eth: Amount,
    /// The most that one transaction may cost in fees.
    #[schema(required = false)]
    pub tx_max_fee_eth: Amount,
    /// The most that may be spent on fees in any 24 hours.
    #[schema(required = false)]
    pub tx_daily_fee_limit_eth: Amount,
    /// The most gas of one transaction.
    #[schema(required = false)]
    pub tx_max_gas_limit: u64,
    /// How long its tokens last.
    #[schema(required = false)]
    pub token_ttl_seconds: i32,
    /// When it ends.
    #[schema(required = false)]
    pub expires_at: Time,
    /// The SHA-256 of its certificate.
    #[schema(required = false)]
    pub client_cert_fingerprint: Fingerprint,
    /// Its issuer.
    #[schema(required = false)]
    pub oidc_issuer: String,
    /// Its client id.
    #[schema(required = false)]
    pub oidc_client_id: String,
    /// Its public Ed25519 key.
    #[schema(required = false)]
    pub ssh_public_key: SshPublicKey,
    /// Its public P-256 key.
    #[schema(required = false)]
    pub ecdh_public_key: EcdhPublicKey,
    /// Kept for other services of the same clients.
    #[schema(required = false)]
    pub shroud_config: JsonObject,
    /// Since when it may sign nothing.
    #[schema(required = false)]
    pub frozen_at: Time,
    /// The address of its own signing key.
    #[schema(required = false)]
    pub evm_address: Address,
    /// The chains that it has a signing key of its own for.
    #[schema(required = false)]
    pub signing_chains: Vec<KeyChain>,
    /// The most transactions in any 24 hours.
    #[schema(required = false)]
    pub tx_max_per_day: u64,
    /// So many denials by guardrails within an hour, and the agent is frozen.
    #[schema(required = false)]
    pub tx_suspend_after_denials: u16,
    /// Which tokens it may move or approve.
    #[schema(required = false)]
    pub tx_token_allowlist: Vec<OnChainAddress>,
    /// How much of which token.
    #[schema(required = false)]
    pub tx_token_limits: Vec<ShownTokenLimit>,
    /// What it may call.
    #[schema(required = false)]
    pub tx_contract_allowlist: Vec<ShownContractFunctions>,
    /// Nobody may be given leave to take any amount of a token.
    #[schema(required = false)]
    pub tx_block_unlimited_approvals: bool,
    /// Whether it may change who commands a contract, or its code.
    #[schema(required = false)]
    pub tx_allow_privileged_calls: bool,
    /// What holds on single chains beside everything else.
    #[schema(required = false)]
    pub per_chain_guardrails: BTreeMap<String, ShownChainGuardrails>,
    /// The value that counts now, where one limit holds for all of it.
    #[schema(required = false)]
    pub tx_spent_today: Amount,
    /// The transactions that count now, where their number is limited.
    #[schema(required = false)]
    pub tx_count_today: u64,
    /// The value that counts now, on chains with a limit of their own.
    #[schema(required = false)]
    pub tx_spent_today_by_chain: BTreeMap<String, Amount>,
    /// The tokens that count now, where one is limited.
    #[schema(required = false)]
    pub tx_token_spent_today: Vec<SpentToken>,
}

/// An agent as it sees itself.
#[derive(ToSchema)]
pub struct OwnAgent {
    /// Its id.
    pub id: Id,
    /// Its name.
    pub name: Name,
    /// Its organisation.
    pub org_id: Id,
    /// Its scopes.
    pub scopes: Vec<AgentScope>,
    /// Whether it may do anything at all.
    pub is_active: bool,
    /// Whether it may send intents.
    pub intents_api_enabled: bool,
    /// The human who registered it.
    pub created_by: Id,
    /// When.
    pub created_at: Time,
    /// Kept for other services of the same clients.
    pub shroud_enabled: bool,
    /// What it is for.
    #[schema(required = false)]
    pub description: Description,
    /// When it ends.
    #[schema(required = false)]
    pub expires_at: Time,
    /// Its public Ed25519 key.
    #[schema(required = false)]
    pub ssh_public_key: SshPublicKey,
    /// Its public P-256 key.
    #[schema(required = false)]
    pub ecdh_public_key: EcdhPublicKey,
    /// Kept for other services of the same clients.
    #[schema(required = false)]
    pub shroud_config: JsonObject,
}

/// Agents.
#[derive(ToSchema)]
pub struct AgentList {
    /// All of the organisation's for a human; itself for an agent.
    pub agents: Vec<Agent>,
}

/// A new agent.
#[derive(ToSchema)]
pub struct CreatedAgent {
    /// The agent.
    pub agent: Agent,
    /// Its key, if it has one. It is shown once.
    #[schema(required = false)]
    pub api_key: AgentKey,
}

/// A new key.
#[derive(ToSchema)]
pub struct RotatedAgentKey {
    /// The key. It is shown once.
    pub api_key: AgentKey,
}

/// The same for everybody.
#[derive(ToSchema)]
pub struct Enrolled {
    /// Always nil: the id is in the human's letter.
    #[schema(format = "uuid", examples("00000000-0000-0000-0000-000000000000"))]
    pub agent_id: String,
    /// What happens now.
    pub message: String,
}

/// Where the agents' private identity keys are.
#[derive(ToSchema)]
pub struct AgentKeysVault {
    /// The vault.
    pub vault_id: Id,
}
