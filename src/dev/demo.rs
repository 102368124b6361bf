//! The demo data, made the way a person would make it: `intentd admin bootstrap`, then the HTTP API.
//!
//! Every step is written to DIR/demo.json before the next one, so that an interrupted start goes on where it was.

use std::io::Read as _;
use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::DevError;
use super::serve::Settings;
use super::state::{StateDir, write_private};
use crate::hsm::PublicKey;

const FILE: &str = "demo.json";
const EMAIL: &str = "owner@demo.example";
/// The demo agent's limits, in ETH.
const MAX_VALUE_ETH: &str = "0.1";
const DAILY_LIMIT_ETH: &str = "1";

/// Who and what the demo consists of. Empty fields are still to be made.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Demo {
    pub email: String,
    pub password: String,
    pub org_id: String,
    /// The human's `1ck_` key.
    pub user_key: String,
    pub vault_id: String,
    pub agent_id: String,
    /// The agent's `ocv_` key.
    pub agent_key: String,
    /// The policy that lets the agent use what is in the vault.
    pub policy_id: String,
    pub signer_address: String,
    /// The chains that the agent may use.
    pub chains: Vec<String>,
}

/// Reads the demo or makes what is missing of it. `local` are the chains that the agent may use, `all` get its signing key.
///
/// # Errors
/// [`DevError::Demo`] with what the daemon answered.
pub async fn ensure(
    state: &StateDir,
    settings: &Settings,
    url: &str,
    local: &[String],
    all: &[String],
) -> Result<Demo, DevError> {
    let mut demo: Demo = state.read(FILE).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    if demo.user_key.is_empty() {
        bootstrap(state, settings, &mut demo).await?;
        save(state, &demo)?;
    }
    let api = Api::new(url, &demo.user_key)?;
    if demo.vault_id.is_empty() {
        let vault =
            api.send(Method::POST, "/v1/vaults", json!({"name": "demo", "description": "Made by intentd dev"})).await?;
        demo.vault_id = field(&vault, "/id")?;
        save(state, &demo)?;
    }
    if demo.agent_id.is_empty() {
        let agent = api.send(Method::POST, "/v1/agents", agent_body(local)).await?;
        demo.agent_id = field(&agent, "/agent/id")?;
        demo.agent_key = field(&agent, "/api_key")?;
        demo.chains = local.to_vec();
        save(state, &demo)?;
    }
    if demo.policy_id.is_empty() {
        let body = json!({
            "secret_path_pattern": "**", "principal_type": "agent", "principal_id": demo.agent_id, "permissions": ["read"],
        });
        let policy = api.send(Method::POST, &format!("/v1/vaults/{}/policies", demo.vault_id), body).await?;
        demo.policy_id = field(&policy, "/id")?;
        save(state, &demo)?;
    }
    if demo.signer_address.is_empty() {
        demo.signer_address = provision_key(&api, &demo.vault_id, all).await?;
        save(state, &demo)?;
    }
    if demo.chains != local {
        api.send(Method::PATCH, &format!("/v1/agents/{}", demo.agent_id), json!({"tx_allowed_chains": local})).await?;
        demo.chains = local.to_vec();
        save(state, &demo)?;
    }
    Ok(demo)
}

fn save(state: &StateDir, demo: &Demo) -> Result<(), DevError> {
    let text = serde_json::to_string_pretty(demo).map_err(|error| DevError::Demo(error.to_string()))?;
    state.write(FILE, &text).map(|_| ())
}

async fn bootstrap(state: &StateDir, settings: &Settings, demo: &mut Demo) -> Result<(), DevError> {
    let password = password();
    let password_file = state.path("password");
    write_private(&password_file, &password)?;
    let file = password_file.display().to_string();
    let made = settings
        .admin(&["admin", "bootstrap", "--organisation", "Demo", "--email", EMAIL, "--password-file", &file, "--json"])
        .await;
    state.remove("password");
    let made: Value = serde_json::from_str(&made?).map_err(|error| DevError::Demo(error.to_string()))?;
    demo.email = EMAIL.to_owned();
    demo.password = password;
    demo.org_id = field(&made, "/org_id")?;
    demo.user_key = field(&made, "/api_key")?;
    Ok(())
}

/// A password that the daemon takes, which a random one may not be.
fn password() -> String {
    loop {
        let password = format!("Demo-{}", Uuid::new_v4());
        if crate::users::rules::new_password("password", &password).is_ok() {
            return password;
        }
    }
}

fn agent_body(chains: &[String]) -> Value {
    json!({
        "name": "demo",
        "description": "Made by intentd dev",
        "intents_api_enabled": true,
        "tx_max_value_eth": MAX_VALUE_ETH,
        "tx_daily_limit_eth": DAILY_LIMIT_ETH,
        "tx_allowed_chains": chains,
    })
}

/// Makes a key and stores it where the signer of each chain is looked for. It is made here for this one moment; from the PUT on
/// it is in the HSM alone, and nobody can read it back.
async fn provision_key(api: &Api, vault_id: &str, chains: &[String]) -> Result<String, DevError> {
    let secret = random_key()?;
    let point = k256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&secret.public_key(), false);
    let public = point.as_bytes().try_into().ok().and_then(|bytes: [u8; 65]| PublicKey::from_bytes(bytes).ok());
    let address =
        public.map(|public| public.address().to_string()).ok_or_else(|| DevError::Demo("no address".into()))?;
    let value = Zeroizing::new(format!("0x{}", hex::encode(Zeroizing::new(secret.to_bytes()))));
    for chain in chains {
        let path = format!("/v1/vaults/{vault_id}/secrets/keys/{chain}-signer");
        api.send(Method::PUT, &path, json!({"value": &*value, "type": "private_key"})).await?;
    }
    Ok(address)
}

fn random_key() -> Result<k256::SecretKey, DevError> {
    let source = std::path::Path::new("/dev/urandom");
    let mut bytes = Zeroizing::new([0u8; 32]);
    loop {
        let read = std::fs::File::open(source).and_then(|mut file| file.read_exact(&mut *bytes));
        read.map_err(DevError::file("read", source))?;
        // Not a key once in 2^128 times.
        if let Ok(key) = k256::SecretKey::from_slice(&*bytes) {
            return Ok(key);
        }
    }
}

/// The daemon's API, as the demo's human.
struct Api {
    client: reqwest::Client,
    url: String,
    key: String,
}

impl Api {
    fn new(url: &str, key: &str) -> Result<Self, DevError> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build();
        let client = client.map_err(|error| DevError::Demo(error.to_string()))?;
        Ok(Self { client, url: url.to_owned(), key: key.to_owned() })
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Result<Value, DevError> {
        let what = format!("{method} {path}");
        let failed = |why: String| DevError::Demo(format!("{what}: {why}"));
        let request =
            self.client.request(method.clone(), format!("{}{path}", self.url)).bearer_auth(&self.key).json(&body);
        let reply = request.send().await.map_err(|error| failed(error.to_string()))?;
        let status = reply.status();
        let body: Value = reply.json().await.map_err(|error| failed(error.to_string()))?;
        if status.is_success() { Ok(body) } else { Err(failed(format!("{status}: {}", body["detail"]))) }
    }
}

fn field(body: &Value, pointer: &str) -> Result<String, DevError> {
    let text = body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| DevError::Demo(format!("a reply has no {pointer}")))
}
