//! What clients send to make or change an agent. Pure.

use alloy::primitives::Address;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use super::Agent;
use crate::access::agent_token::certificate::Fingerprint;
use crate::access::input::{self, InputError};
use crate::address::parse_address;
use crate::ids::VaultId;
use crate::money::Wei;

/// Most entries of a list.
const LIST_MAX: usize = 1_000;
/// Bounds of a token's lifetime, in seconds. Clients renew 60 s early: with less than 120 they would renew at every call.
const TOKEN_TTL_S: std::ops::RangeInclusive<i64> = 120..=86_400;

/// Restrictions that other versions of this API have and this daemon does not. Ignoring one would leave an agent less restricted than
/// the human believes, so they are refused when set.
const UNKNOWN_RESTRICTIONS: &[&str] = &[
    "address_screening_policy",
    "api_key_expires_at",
    "eip712_default_policy",
    "eip712_domain_allowlist",
    "environment_locked",
    "intents_require_tee",
    "new_recipient_cap_native",
    "per_environment_guardrails",
    "personal_sign_policy",
    "raw_signing_policy",
    "simulation_failure_policy",
    "solana_ata_allowlist",
    "tx_approval_policy",
    "tx_daily_limit_usd",
    "tx_known_tokens_only",
    "tx_max_value_usd",
    "tx_overhead_budget",
    "tx_per_recipient_daily_limit",
    "tx_per_recipient_max_per_day",
    "typed_data_policy",
    "xrpl_allowed_tx_types",
];

/// A field that tells "not given" from `null`.
type Given<T> = Option<Option<T>>;

fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Given<T>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The body of POST and PATCH. A list that is `null` is not given (emptying it takes `[]`); a cap that is `null` is cleared.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AgentRequest {
    name: Option<String>,
    #[serde(deserialize_with = "given")]
    description: Given<String>,
    auth_method: Option<String>,
    scopes: Option<Vec<String>>,
    vault_ids: Option<Vec<String>>,
    is_active: Option<bool>,
    #[serde(deserialize_with = "given")]
    expires_at: Given<String>,
    intents_api_enabled: Option<bool>,
    crypto_proxy_enabled: Option<bool>,
    tx_to_allowlist: Option<Vec<String>>,
    tx_allowed_chains: Option<Vec<Value>>,
    #[serde(deserialize_with = "given")]
    tx_max_value_eth: Given<String>,
    #[serde(deserialize_with = "given")]
    tx_max_value: Given<String>,
    #[serde(deserialize_with = "given")]
    tx_daily_limit_eth: Given<String>,
    #[serde(deserialize_with = "given")]
    tx_daily_limit: Given<String>,
    #[serde(deserialize_with = "given")]
    tx_max_fee_eth: Given<String>,
    #[serde(deserialize_with = "given")]
    tx_daily_fee_limit_eth: Given<String>,
    #[serde(deserialize_with = "given")]
    tx_max_gas_limit: Given<i64>,
    #[serde(deserialize_with = "given")]
    token_ttl_seconds: Given<i64>,
    client_cert_fingerprint: Option<String>,
    oidc_issuer: Option<String>,
    oidc_client_id: Option<String>,
    shroud_enabled: Option<bool>,
    #[serde(deserialize_with = "given")]
    shroud_config: Given<Value>,
    /// Agrees to lifting a restriction.
    pub confirm_unrestricted: Option<bool>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl AgentRequest {
    /// Applies the request to an agent (for POST, a blank one). `chain_name` gives a chain's name in the registry by name or id.
    ///
    /// # Errors
    /// [`InputError`], naming the field.
    pub fn apply(self, agent: &mut Agent, chain_name: impl Fn(&str) -> Option<String>) -> Result<(), InputError> {
        self.refuse_unknown_restrictions()?;
        let intents = agree("intents_api_enabled", self.intents_api_enabled, self.crypto_proxy_enabled)?;
        let max_value = agree("tx_max_value_eth", self.tx_max_value_eth, self.tx_max_value)?;
        let daily_limit = agree("tx_daily_limit_eth", self.tx_daily_limit_eth, self.tx_daily_limit)?;
        if let Some(name) = self.name {
            agent.name = input::name("name", &name)?;
        }
        if let Some(text) = self.description {
            agent.description = input::description(text)?;
        }
        if let Some(scopes) = self.scopes {
            agent.scopes = scopes_of(scopes)?;
        }
        if let Some(ids) = self.vault_ids {
            bounded("vault_ids", &ids)?;
            agent.vault_ids = distinct(ids.iter().map(|id| vault_id(id)).collect::<Result<_, _>>()?);
        }
        set(&mut agent.is_active, self.is_active);
        set(&mut agent.intents_api_enabled, intents);
        set(&mut agent.shroud_enabled, self.shroud_enabled);
        if let Some(at) = self.expires_at {
            agent.expires_at = at.map(|at| time_of("expires_at", &at)).transpose()?;
        }
        if let Some(ttl) = self.token_ttl_seconds {
            agent.token_ttl_seconds = ttl.map(ttl_of).transpose()?;
        }
        if let Some(config) = self.shroud_config {
            agent.shroud_config = input::object("shroud_config", config)?;
        }

        let rails = &mut agent.guardrails;
        if let Some(list) = self.tx_to_allowlist {
            bounded("tx_to_allowlist", &list)?;
            rails.to_allowlist = distinct(list.iter().map(|a| address_of(a)).collect::<Result<_, _>>()?);
        }
        if let Some(list) = self.tx_allowed_chains {
            bounded("tx_allowed_chains", &list)?;
            rails.allowed_chains = distinct(list.iter().map(|c| chain_of(c, &chain_name)).collect::<Result<_, _>>()?);
        }
        cap("tx_max_value_eth", &mut rails.max_value, max_value)?;
        cap("tx_daily_limit_eth", &mut rails.daily_limit, daily_limit)?;
        cap("tx_max_fee_eth", &mut rails.max_fee, self.tx_max_fee_eth)?;
        cap("tx_daily_fee_limit_eth", &mut rails.daily_fee_limit, self.tx_daily_fee_limit_eth)?;
        if let Some(gas) = self.tx_max_gas_limit {
            let read = |gas: i64| u64::try_from(gas).ok().filter(|gas| *gas > 0);
            let refuse = || InputError("tx_max_gas_limit must be a whole number above 0, or null".to_owned());
            rails.max_gas_limit = gas.map(|gas| read(gas).ok_or_else(refuse)).transpose()?;
        }
        rails.apply_json(&self.rest, &chain_name)
    }

    /// How the agent authenticates, with what that takes. What is not given stays; what belongs to another method goes.
    ///
    /// # Errors
    /// [`InputError`], naming the field.
    pub fn apply_auth_method(&self, agent: &mut Agent) -> Result<(), InputError> {
        let method = self.auth_method.clone().unwrap_or_else(|| agent.auth_method.clone());
        let fields = [
            ("client_cert_fingerprint", &self.client_cert_fingerprint, "mtls"),
            ("oidc_issuer", &self.oidc_issuer, "oidc_client_credentials"),
            ("oidc_client_id", &self.oidc_client_id, "oidc_client_credentials"),
        ];
        let stray = fields.iter().find(|(_, value, of)| *of != method && value.as_ref().is_some_and(|v| !v.is_empty()));
        if let Some((name, _, of)) = stray {
            return Err(InputError(format!("{name} is for auth_method {of}; this agent's is {method}")));
        }
        let needed = |name: &str, value: Option<String>| {
            value.ok_or_else(|| InputError(format!("{name} is required for this auth_method")))
        };
        let (old_fingerprint, old_issuer, old_client_id) =
            (agent.client_cert_fingerprint.take(), agent.oidc_issuer.take(), agent.oidc_client_id.take());
        match method.as_str() {
            "api_key" => {}
            "mtls" => {
                let given = self.client_cert_fingerprint.as_deref().map(fingerprint_of).transpose()?;
                agent.client_cert_fingerprint = Some(needed("client_cert_fingerprint", given.or(old_fingerprint))?);
            }
            "oidc_client_credentials" => {
                let issuer = self.oidc_issuer.as_deref().map(issuer_of).transpose()?;
                let client_id =
                    self.oidc_client_id.as_deref().map(|id| input::name("oidc_client_id", id)).transpose()?;
                agent.oidc_issuer = Some(needed("oidc_issuer", issuer.or(old_issuer))?);
                agent.oidc_client_id = Some(needed("oidc_client_id", client_id.or(old_client_id))?);
            }
            _ => return Err(InputError("auth_method must be api_key, mtls or oidc_client_credentials".to_owned())),
        }
        agent.auth_method = method;
        Ok(())
    }

    /// Whether the request gives a name: POST needs one.
    #[must_use]
    pub fn has_name(&self) -> bool {
        self.name.is_some()
    }

    fn refuse_unknown_restrictions(&self) -> Result<(), InputError> {
        let set = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(members) => !members.is_empty(),
            Value::Bool(true) | Value::Number(_) => true,
        };
        match UNKNOWN_RESTRICTIONS.iter().find(|name| self.rest.get(**name).is_some_and(set)) {
            Some(name) => Err(InputError(format!("{name} is not supported by this daemon; it would not be enforced"))),
            None => Ok(()),
        }
    }
}

/// Old and new name of the same field: either, or both if they say the same.
fn agree<T: PartialEq>(name: &str, new: Option<T>, old: Option<T>) -> Result<Option<T>, InputError> {
    match (new, old) {
        (Some(new), Some(old)) if new != old => {
            Err(InputError(format!("{name} is given twice, with different values")))
        }
        (new, old) => Ok(new.or(old)),
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn cap(name: &str, target: &mut Option<Wei>, value: Given<String>) -> Result<(), InputError> {
    if let Some(value) = value {
        let read = |text: String| Wei::from_units(&text).map_err(|error| InputError(format!("{name} {error}")));
        *target = value.map(read).transpose()?;
    }
    Ok(())
}

fn bounded<T>(name: &str, list: &[T]) -> Result<(), InputError> {
    if list.len() > LIST_MAX { Err(InputError(format!("{name} may have at most {LIST_MAX} entries"))) } else { Ok(()) }
}

fn distinct<T: PartialEq>(list: Vec<T>) -> Vec<T> {
    let mut seen = Vec::with_capacity(list.len());
    for entry in list {
        if !seen.contains(&entry) {
            seen.push(entry);
        }
    }
    seen
}

fn scopes_of(scopes: Vec<String>) -> Result<Vec<String>, InputError> {
    bounded("scopes", &scopes)?;
    let fits = |scope: &String| (1..=1_024).contains(&scope.len()) && !scope.chars().any(char::is_control);
    if scopes.iter().all(fits) {
        Ok(scopes)
    } else {
        Err(InputError("scopes must be texts of 1 to 1024 characters without control characters".to_owned()))
    }
}

/// In the one spelling that is stored.
fn fingerprint_of(text: &str) -> Result<String, InputError> {
    Fingerprint::parse(text).map(|fingerprint| fingerprint.to_string()).ok_or_else(|| {
        InputError(
            "client_cert_fingerprint must be the SHA-256 of the certificate: 64 hex digits, with or without colons"
                .to_owned(),
        )
    })
}

/// To the letter: tokens name their issuer so.
fn issuer_of(text: &str) -> Result<String, InputError> {
    let url = input::name("oidc_issuer", text)?.parse::<Url>().ok();
    let plain =
        url.filter(|url| matches!(url.scheme(), "https" | "http") && url.query().is_none() && url.fragment().is_none());
    match plain {
        Some(_) if text.trim() == text => Ok(text.to_owned()),
        _ => Err(InputError("oidc_issuer must be an https:// URL without query and fragment".to_owned())),
    }
}

fn address_of(text: &str) -> Result<Address, InputError> {
    parse_address(text).map_err(|error| InputError(format!("tx_to_allowlist: an entry {error}")))
}

fn vault_id(text: &str) -> Result<VaultId, InputError> {
    text.parse().map_err(|_| InputError("vault_ids must be a list of vault ids (UUIDs)".to_owned()))
}

fn chain_of(value: &Value, chain_name: impl Fn(&str) -> Option<String>) -> Result<String, InputError> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err(InputError("tx_allowed_chains must be a list of chain names or ids".to_owned())),
    };
    let shown: String = text.chars().take(64).collect();
    chain_name(&text).ok_or_else(|| {
        InputError(format!("tx_allowed_chains: chain \"{shown}\" is not known; GET /v1/chains lists them"))
    })
}

fn ttl_of(seconds: i64) -> Result<i32, InputError> {
    let refuse = || InputError(format!("token_ttl_seconds must be {} to {}", TOKEN_TTL_S.start(), TOKEN_TTL_S.end()));
    if !TOKEN_TTL_S.contains(&seconds) {
        return Err(refuse());
    }
    i32::try_from(seconds).map_err(|_| refuse())
}

/// An RFC 3339 time of a request.
///
/// # Errors
/// [`InputError`], naming the field.
pub fn time_of(name: &str, text: &str) -> Result<OffsetDateTime, InputError> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map(crate::clock::to_microsecond)
        .map_err(|_| InputError(format!("{name} must be a time such as 2026-11-21T12:00:00Z (RFC 3339)")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AgentId, OrgId, UserId};
    use serde_json::json;

    fn chains(text: &str) -> Option<String> {
        matches!(text, "base" | "8453").then(|| "base".to_owned())
    }

    fn blank() -> Agent {
        Agent::blank(AgentId::random(), OrgId::random(), UserId::random(), crate::clock::now())
    }

    fn apply(agent: &mut Agent, body: Value) -> Result<(), InputError> {
        serde_json::from_value::<AgentRequest>(body).map_err(|e| InputError(e.to_string()))?.apply(agent, chains)
    }

    #[test]
    fn null_clears_a_cap_and_an_empty_list_clears_a_list() {
        let mut agent = blank();
        let address = "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";
        apply(&mut agent, json!({
            "tx_max_value_eth": "0.10", "tx_daily_limit": "1", "tx_to_allowlist": [address, address.to_uppercase().replace("0X", "0x")],
            "tx_allowed_chains": ["8453", "base", 8453], "tx_max_gas_limit": 100_000
        }))
        .unwrap();
        let body = agent.render();
        assert_eq!(body["tx_max_value_eth"], "0.1");
        assert_eq!(body["tx_daily_limit_eth"], "1");
        assert_eq!(body["tx_to_allowlist"], json!(["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"]));
        assert_eq!(body["tx_allowed_chains"], json!(["base"]));
        assert_eq!(body["tx_max_gas_limit"], 100_000);

        let before = agent.clone();
        apply(&mut agent, json!({"tx_to_allowlist": null, "tx_allowed_chains": null})).unwrap();
        assert_eq!(agent.guardrails, before.guardrails, "null does not empty a list");
        apply(&mut agent, json!({"tx_max_value_eth": null, "tx_to_allowlist": []})).unwrap();
        assert_eq!(before.lifted(&agent), ["tx_to_allowlist", "tx_max_value_eth"]);
        assert!(!agent.render().contains_key("tx_max_value_eth"));
    }

    #[test]
    fn how_an_agent_authenticates_takes_what_that_needs_and_nothing_else() {
        let auth = |agent: &mut Agent, body: Value| {
            serde_json::from_value::<AgentRequest>(body).unwrap().apply_auth_method(agent).map_err(|error| error.0)
        };
        let (hex, colons) = ("ab".repeat(32), ["AB"; 32].join(":"));
        let mut agent = blank();
        auth(&mut agent, json!({"auth_method": "mtls", "client_cert_fingerprint": colons, "oidc_issuer": ""})).unwrap();
        assert_eq!(agent.client_cert_fingerprint.as_deref(), Some(hex.as_str()));
        let pinned = agent.clone();
        auth(&mut agent, json!({"name": "x", "client_cert_fingerprint": null})).unwrap();
        assert!(!pinned.ends_proof(&agent), "nothing given, nothing changed");
        auth(&mut agent, json!({"client_cert_fingerprint": "cd".repeat(32)})).unwrap();
        assert!(pinned.ends_proof(&agent));
        let oidc = json!({"auth_method": "oidc_client_credentials", "oidc_issuer": "https://i.example/r", "oidc_client_id": "c"});
        auth(&mut agent, oidc).unwrap();
        assert_eq!(
            (&agent.client_cert_fingerprint, agent.oidc_issuer.as_deref()),
            (&None, Some("https://i.example/r"))
        );
        auth(&mut agent, json!({"oidc_client_id": "d"})).unwrap();
        assert_eq!(
            (agent.oidc_issuer.as_deref(), agent.oidc_client_id.as_deref()),
            (Some("https://i.example/r"), Some("d"))
        );
        auth(&mut agent, json!({"auth_method": "api_key"})).unwrap();
        assert_eq!((&agent.oidc_issuer, &agent.oidc_client_id), (&None, &None));

        for body in [
            json!({"auth_method": "password"}),
            json!({"auth_method": "mtls"}),
            json!({"auth_method": "mtls", "client_cert_fingerprint": "ab".repeat(20)}),
            json!({"auth_method": "mtls", "client_cert_fingerprint": ""}),
            json!({"client_cert_fingerprint": hex}),
            json!({"auth_method": "oidc_client_credentials", "oidc_issuer": "https://i.example"}),
            json!({"auth_method": "oidc_client_credentials", "oidc_client_id": "c"}),
            json!({"auth_method": "oidc_client_credentials", "oidc_issuer": "i.example", "oidc_client_id": "c"}),
            json!({"auth_method": "oidc_client_credentials", "oidc_issuer": "ftp://i.example", "oidc_client_id": "c"}),
            json!({"auth_method": "oidc_client_credentials", "oidc_issuer": "https://i.example?x", "oidc_client_id": "c"}),
            json!({"auth_method": "oidc_client_credentials", "oidc_issuer": " https://i.example", "oidc_client_id": "c"}),
        ] {
            assert!(auth(&mut blank(), body.clone()).is_err(), "{body}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_enforced_is_refused() {
        let refused = [
            json!({"tx_max_value_eth": "1e18"}),
            json!({"tx_max_value_eth": "-1"}),
            json!({"tx_max_value_eth": ""}),
            json!({"tx_max_value_eth": 1}),
            json!({"tx_max_value_eth": "1", "tx_max_value": "2"}),
            json!({"intents_api_enabled": true, "crypto_proxy_enabled": false}),
            json!({"tx_to_allowlist": ["vitalik.eth"]}),
            json!({"tx_to_allowlist": ["0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"]}),
            json!({"tx_allowed_chains": ["bsae"]}),
            json!({"tx_max_gas_limit": 0}),
            json!({"token_ttl_seconds": 119}),
            json!({"token_ttl_seconds": 86_401}),
            json!({"expires_at": "tomorrow"}),
            json!({"name": ""}),
            json!({"name": "a\0"}),
            json!({"vault_ids": ["x"]}),
            json!({"shroud_config": []}),
            json!({"per_chain_guardrails": {"base": {"max_vlaue": "1"}}}),
            json!({"per_environment_guardrails": {"prod": {"max_value": "1"}}}),
            json!({"tx_token_allowlist": ["0x"]}),
            json!({"tx_max_value_usd": "3"}),
        ];
        for body in refused {
            assert!(apply(&mut blank(), body.clone()).is_err(), "{body}");
        }
        let taken = [
            json!({"unknown": 1, "description": null, "scopes": ["vault:read"], "expires_at": null, "token_ttl_seconds": null}),
            json!({"tx_max_value_eth": "1", "tx_max_value": "1"}),
            json!({"crypto_proxy_enabled": true}),
            json!({"tx_token_allowlist": [], "per_chain_guardrails": null, "tx_block_unlimited_approvals": false}),
            json!({"token_ttl_seconds": 120}),
        ];
        for body in taken {
            assert_eq!(apply(&mut blank(), body.clone()), Ok(()), "{body}");
        }
    }
}
