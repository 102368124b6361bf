//! Agents: programs that ask for secrets and send intents, inside the guardrails that humans give them.

pub mod api;
pub mod enroll;
mod guardrails;
pub mod http;
pub mod identity;
pub mod request;
pub mod store;

use alloy::primitives::Address;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::access::tokens::KeyHash;
use crate::clock::rfc3339;
use crate::ids::{AgentId, OrgId, UserId, VaultId};

pub use guardrails::{Callable, ChainGuardrails, Guardrails, OnChain, TokenLimit};

/// An agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its organisation.
    pub org_id: OrgId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The human who made it.
    pub created_by: UserId,
    /// How it authenticates: `api_key`, `mtls` or `oidc_client_credentials`.
    pub auth_method: String,
    /// The hash of its key, if it has one.
    pub key_hash: Option<KeyHash>,
    /// SHA-256 of its client certificate.
    pub client_cert_fingerprint: Option<String>,
    /// Who vouches for it.
    pub oidc_issuer: Option<String>,
    /// Under which name.
    pub oidc_client_id: Option<String>,
    /// A ceiling over its paths, where all of them are path globs.
    pub scopes: Vec<String>,
    /// The vaults it is bound to; empty: those that policies give it.
    pub vault_ids: Vec<VaultId>,
    /// Lifetime of its tokens.
    pub token_ttl_seconds: Option<i32>,
    /// Whether it may come in.
    pub is_active: bool,
    /// When it stops.
    pub expires_at: Option<OffsetDateTime>,
    /// Since when it may sign nothing new.
    pub frozen_at: Option<OffsetDateTime>,
    /// Deleted agents keep their row.
    pub deleted_at: Option<OffsetDateTime>,
    /// Since when it exists.
    pub created_at: OffsetDateTime,
    /// Whether it may send intents.
    pub intents_api_enabled: bool,
    /// What its transactions are held to.
    pub guardrails: Guardrails,
    /// Its public Ed25519 key, raw.
    pub ssh_public_key: Option<[u8; 32]>,
    /// Its public P-256 point, uncompressed (SEC 1).
    pub ecdh_public_key: Option<[u8; 65]>,
    /// Enrolled by itself, and not used yet.
    pub unclaimed: bool,
    /// Kept for other services of the same clients.
    pub shroud_enabled: bool,
    /// Kept likewise.
    pub shroud_config: Option<Value>,
    /// The address of its own provisioned key, where it was looked up to be shown.
    pub evm_address: Option<Address>,
}

impl Agent {
    /// A new agent that may do nothing yet.
    #[must_use]
    pub fn blank(id: AgentId, org_id: OrgId, created_by: UserId, created_at: OffsetDateTime) -> Self {
        Self {
            id,
            org_id,
            name: String::new(),
            description: None,
            created_by,
            auth_method: "api_key".to_owned(),
            key_hash: None,
            client_cert_fingerprint: None,
            oidc_issuer: None,
            oidc_client_id: None,
            scopes: Vec::new(),
            vault_ids: Vec::new(),
            token_ttl_seconds: None,
            is_active: true,
            expires_at: None,
            frozen_at: None,
            deleted_at: None,
            created_at,
            intents_api_enabled: false,
            guardrails: Guardrails::default(),
            ssh_public_key: None,
            ecdh_public_key: None,
            unclaimed: false,
            shroud_enabled: false,
            shroud_config: None,
            evm_address: None,
        }
    }

    /// As the API writes it. What the contract does not know appears only when it is set.
    #[must_use]
    pub fn render(&self) -> Map<String, Value> {
        let rails = &self.guardrails;
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| {
            body.insert(name.to_owned(), value);
        };
        put("id", json!(self.id));
        put("name", json!(self.name));
        put("auth_method", json!(self.auth_method));
        put("scopes", json!(self.scopes));
        put("is_active", json!(self.is_active));
        put("intents_api_enabled", json!(self.intents_api_enabled));
        put("tx_to_allowlist", rails.to_allowlist.iter().map(|a| json!(a.to_checksum(None))).collect());
        put("tx_allowed_chains", json!(rails.allowed_chains));
        put("vault_ids", json!(self.vault_ids));
        put("shroud_enabled", json!(self.shroud_enabled));
        put("smart_accounts", json!([]));
        put("created_at", json!(rfc3339(self.created_at)));
        let optional = [
            ("description", self.description.as_ref().map(|v| json!(v))),
            ("tx_max_value_eth", rails.max_value.map(|v| json!(v.to_units()))),
            ("tx_daily_limit_eth", rails.daily_limit.map(|v| json!(v.to_units()))),
            ("tx_max_fee_eth", rails.max_fee.map(|v| json!(v.to_units()))),
            ("tx_daily_fee_limit_eth", rails.daily_fee_limit.map(|v| json!(v.to_units()))),
            ("tx_max_gas_limit", rails.max_gas_limit.map(|v| json!(v))),
            ("token_ttl_seconds", self.token_ttl_seconds.map(|v| json!(v))),
            ("expires_at", self.expires_at.map(|v| json!(rfc3339(v)))),
            ("client_cert_fingerprint", self.client_cert_fingerprint.as_ref().map(|v| json!(v))),
            ("oidc_issuer", self.oidc_issuer.as_ref().map(|v| json!(v))),
            ("oidc_client_id", self.oidc_client_id.as_ref().map(|v| json!(v))),
            ("ssh_public_key", self.ssh_public_key.map(|key| json!(STANDARD.encode(key)))),
            ("ecdh_public_key", self.ecdh_public_key.map(|key| json!(STANDARD.encode(key)))),
            ("shroud_config", self.shroud_config.clone()),
            ("frozen_at", self.frozen_at.map(|v| json!(rfc3339(v)))),
            ("evm_address", self.evm_address.map(|v| json!(v.to_checksum(None)))),
            ("signing_chains", self.evm_address.map(|_| json!([crate::vaults::keys::provision::CHAIN]))),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                put(name, value);
            }
        }
        body.extend(rails.to_json());
        body
    }

    /// Whether `after` authenticates in another way, or by something else, or stops to: what its tokens rest on ends then.
    #[must_use]
    pub fn ends_proof(&self, after: &Self) -> bool {
        fn of(agent: &Agent) -> [Option<&str>; 4] {
            let of_method = [&agent.client_cert_fingerprint, &agent.oidc_issuer, &agent.oidc_client_id];
            let [fingerprint, issuer, client] = of_method.map(Option::as_deref);
            [Some(&agent.auth_method), fingerprint, issuer, client]
        }
        of(self) != of(after) || (self.is_active && !after.is_active)
    }

    /// The restrictions that `after` no longer has at all.
    #[must_use]
    pub fn lifted(&self, after: &Self) -> Vec<&'static str> {
        let gone = |emptied: bool, name| emptied.then_some(name);
        let mut lifted = self.guardrails.lifted(&after.guardrails);
        lifted.extend(gone(!self.vault_ids.is_empty() && after.vault_ids.is_empty(), "vault_ids"));
        lifted.extend(gone(!self.scopes.is_empty() && after.scopes.is_empty(), "scopes"));
        lifted
    }
}
