//! Everything at once, all of it real: Postgres, a token, anvil chains, one or more daemons, and an agent with a key.
//!
//! ```ignore
//! let stack = Stack::with(Options { daemons: 3, chains: vec![("base", 8453)], ..Options::default() }).await;
//! let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
//! agent.submit(json!({"to": TO, "value": "0.1", "chain": "base"})).await.expect(201);
//! ```

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256, U256};
use intentd::dev::postgres::{Cluster, NAME};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::anvil::{Anvil, AnvilOptions};
use super::client::{Client, Reply};
use super::daemon::Daemon;
use super::install::{self, DAEMON, Installation};

/// Where demo money goes.
pub const TO: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

pub struct Options {
    /// Names and ids; each gets an anvil of its own.
    pub chains: Vec<(&'static str, u64)>,
    pub daemons: usize,
    /// Further variables for every daemon.
    pub env: Vec<(String, String)>,
    /// RPC URLs to use instead of the anvils' own.
    pub rpc_urls: BTreeMap<&'static str, String>,
    /// Instead of the cluster's own URL.
    pub database_url: Option<String>,
    /// `name=value` for Postgres.
    pub postgres: Vec<&'static str>,
    /// Changes an anvil's options by its chain.
    pub anvil: fn(&str, &mut AnvilOptions),
    /// Blocks, the transaction's own included, before it is final.
    pub confirmations: u64,
    pub sign_only_ttl_s: u64,
    /// Further lines of every chain's table.
    pub chain_toml: &'static str,
    /// Spend groups by chain, where it is not `eth`.
    pub spend_groups: BTreeMap<&'static str, &'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chains: vec![("base", 8453)],
            daemons: 1,
            env: Vec::new(),
            rpc_urls: BTreeMap::new(),
            database_url: None,
            postgres: Vec::new(),
            anvil: |_, _| {},
            confirmations: 1,
            sign_only_ttl_s: 900,
            chain_toml: "",
            spend_groups: BTreeMap::new(),
        }
    }
}

// Fields are dropped in this order: daemons before what they stand on.
pub struct Stack {
    pub daemons: Vec<Daemon>,
    pub anvils: BTreeMap<&'static str, Anvil>,
    pub db: PgPool,
    pub postgres: Cluster,
    pub install: Installation,
    pub options: Options,
    /// The organisation's owner.
    pub owner: Client,
    pub org_id: String,
}

/// An agent with its key.
#[derive(Clone)]
pub struct Agent {
    pub id: String,
    pub api_key: String,
    /// Signs for it on every chain of the stack.
    pub signer: Address,
    pub client: Client,
}

impl Stack {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let install = Installation::fresh().await;
        let postgres = install.postgres(&options.postgres).await;
        let db = PgPool::connect(&postgres.url(NAME)).await.unwrap();
        let mut anvils = BTreeMap::new();
        for (name, chain_id) in &options.chains {
            let mut anvil = AnvilOptions { chain_id: *chain_id, ..AnvilOptions::default() };
            (options.anvil)(name, &mut anvil);
            anvils.insert(*name, Anvil::with(&anvil));
        }
        let key = install.owner["api_key"].as_str().unwrap().to_owned();
        let org_id = install.owner["org_id"].as_str().unwrap().to_owned();
        let mut stack = Self {
            daemons: Vec::new(),
            anvils,
            db,
            postgres,
            install,
            options,
            owner: Client::new("", Some(&key)),
            org_id,
        };
        for index in 0..stack.options.daemons {
            stack.add_daemon(&format!("daemon-{index}")).await;
        }
        stack
    }

    /// One more daemon; the owner speaks to the first.
    pub async fn add_daemon(&mut self, name: &str) {
        let daemon = self.start_daemon(name).await;
        self.daemons.push(daemon);
        self.owner = self.owner.at(&self.daemons[0].url);
    }

    /// The binary with this stack's environment; no subcommand yet.
    pub fn command(&self) -> Command {
        let root = &self.install.root;
        let own_url = self.postgres.url(NAME);
        let mut command = Command::new(DAEMON);
        install::environment(&mut command, root, self.options.database_url.as_deref().unwrap_or(&own_url));
        // In one step: another daemon may be reading it.
        let part = root.join(format!("chains-{}.part", uuid::Uuid::new_v4().simple()));
        std::fs::write(&part, self.chains_toml()).unwrap();
        std::fs::rename(part, root.join("chains.toml")).unwrap();
        command
            .env("INTENTD_CHAINS_FILE", root.join("chains.toml"))
            .env("INTENTD_ENVIRONMENT", "dev")
            .env("INTENTD_MAIL_OUTBOX", root.join("mail"))
            .env("INTENTD_TRACKER_INTERVAL_MS", "150")
            .env("INTENTD_LIMITS_AUTH_BURST", "1000")
            .env("INTENTD_LIMITS_IP_BURST", "100000")
            .env("INTENTD_REBROADCAST_S", "1");
        for (name, anvil) in &self.anvils {
            let url = self.options.rpc_urls.get(name).cloned().unwrap_or_else(|| anvil.url());
            command.env(format!("INTENTD_RPC_URL_{}", name.to_uppercase().replace('-', "_")), url);
        }
        command.envs(self.options.env.iter().cloned());
        command
    }

    /// Every letter to an address whose subject has these words, in order.
    pub fn letters(&self, to: &str, subject: &str) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.install.root.join("mail")) else { return Vec::new() };
        let mut found: Vec<_> = files
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "eml"))
            .map(|file| (file.metadata().unwrap().modified().unwrap(), std::fs::read_to_string(file.path()).unwrap()))
            .filter(|(_, letter)| letter.contains(&format!("To: {to}\r\n")))
            .filter(|(_, letter)| letter.lines().any(|line| line.starts_with("Subject: ") && line.contains(subject)))
            .collect();
        found.sort();
        found.into_iter().map(|(_, letter)| letter).collect()
    }

    pub async fn start_daemon(&self, name: &str) -> Daemon {
        Daemon::start(self.command(), &self.install.root, name).await
    }

    fn chains_toml(&self) -> String {
        if self.options.chains.is_empty() {
            return "chain = []\n".to_owned();
        }
        let Options { confirmations, sign_only_ttl_s, chain_toml: further, spend_groups, .. } = &self.options;
        let one = |name: &str, chain_id: u64| {
            let group = spend_groups.get(name).unwrap_or(&"eth");
            chain_toml(name, chain_id, group, *confirmations, *sign_only_ttl_s, further)
        };
        self.options.chains.iter().map(|(name, id)| one(name, *id)).collect()
    }

    pub fn anvil(&self, name: &str) -> &Anvil {
        &self.anvils[name]
    }

    /// The only chain's anvil.
    pub fn chain(&self) -> &Anvil {
        self.anvils.values().next().unwrap()
    }

    /// A new agent with guardrails (fields of POST /v1/agents over the defaults), a fresh key for every chain of the stack, the
    /// right to it, and 1,000 ETH everywhere.
    pub async fn agent(&self, guardrails: Value) -> Agent {
        self.agent_with_key(guardrails, &fresh_scalar()).await
    }

    /// As [`Stack::agent`], with a given private key.
    pub async fn agent_with_key(&self, guardrails: Value, scalar: &str) -> Agent {
        let mut body = json!({"name": format!("agent-{}", uuid::Uuid::new_v4()), "intents_api_enabled": true});
        body.as_object_mut().unwrap().extend(guardrails.as_object().unwrap().clone());
        let made = self.owner.post("/v1/agents", &body).await.expect(201);
        let id = made["agent"]["id"].as_str().unwrap().to_owned();
        let api_key = made["api_key"].as_str().unwrap().to_owned();
        // Each agent's keys are in a vault of their own, at the default path of each chain.
        let vault = self.owner.post("/v1/vaults", &json!({"name": format!("keys of {id}")})).await.expect(201);
        let vault_id = vault["id"].as_str().unwrap();
        for (chain, _) in &self.options.chains {
            let secret = json!({"value": scalar, "type": "private_key"});
            self.owner.put(&format!("/v1/vaults/{vault_id}/secrets/keys/{chain}-signer"), &secret).await.expect(201);
        }
        let policy = json!({
            "secret_path_pattern": "keys/*", "principal_type": "agent", "principal_id": id, "permissions": ["read"],
        });
        self.owner.post(&format!("/v1/vaults/{vault_id}/policies"), &policy).await.expect(201);
        let signer = address_of(scalar);
        for anvil in self.anvils.values() {
            anvil.set_balance(signer, U256::from(10).pow(U256::from(21))).await;
        }
        let client = self.owner.by(Some(&api_key));
        Agent { id, api_key, signer, client }
    }

    /// The vault that [`Stack::agent`] put the agent's keys into.
    pub async fn vault_of(&self, agent: &Agent) -> String {
        let all = self.owner.get("/v1/vaults").await.expect(200);
        let name = format!("keys of {}", agent.id);
        let vault = all["vaults"].as_array().unwrap().iter().find(|vault| vault["name"] == name.as_str());
        text(vault.unwrap(), "id")
    }

    pub async fn guardrails(&self, agent: &Agent, change: Value) -> Value {
        self.owner.patch(&format!("/v1/agents/{}", agent.id), &change).await.expect(200)
    }

    /// One number from the database.
    pub async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&self.db).await.unwrap()
    }

    /// Runs a statement, to make the past.
    pub async fn sql(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&self.db).await.unwrap();
    }

    /// The nonces of a key's slots on a chain, in order, with their states.
    pub async fn slots(&self, chain_id: u64, address: Address) -> Vec<(u64, String)> {
        let rows: Vec<(i64, String)> =
            sqlx::query_as("SELECT nonce, state FROM slots WHERE chain_id = $1 AND address = $2 ORDER BY nonce")
                .bind(i64::try_from(chain_id).unwrap())
                .bind(address.as_slice())
                .fetch_all(&self.db)
                .await
                .unwrap();
        rows.into_iter().map(|(nonce, state)| (nonce.unsigned_abs(), state)).collect()
    }

    /// Every slot of the lane is final: contiguous from `first`, `count` of them, each mined as what was answered.
    pub async fn assert_settled(&self, chain: &str, address: Address, first: u64, count: u64) {
        let chain_id = self.anvil(chain).chain_id;
        let all_final = async || {
            let slots = self.slots(chain_id, address).await;
            slots.len() as u64 >= count && slots.iter().all(|(_, state)| state == "final")
        };
        until(Duration::from_secs(90), "all slots are final", all_final).await;
        let nonces: Vec<u64> = self.slots(chain_id, address).await.into_iter().map(|(nonce, _)| nonce).collect();
        assert_eq!(nonces, (first..first + count).collect::<Vec<_>>(), "nonces are not contiguous");
        assert_eq!(self.anvil(chain).nonce(address).await, first + count, "the chain has another count");
    }
}

/// One chain's table.
pub fn chain_toml(name: &str, chain_id: u64, group: &str, confirmations: u64, ttl_s: u64, further: &str) -> String {
    format!(
        "[[chain]]\nname = \"{name}\"\ndisplay_name = \"{name}\"\nchain_id = {chain_id}\nkind = \"ethereum\"\n\
         spend_group = \"{group}\"\nnative_currency = \"ETH\"\nis_testnet = true\nmax_fee_per_gas_ceiling_wei = 500_000_000_000\n\
         max_gas_limit = 16_777_216\nconfirmations = {confirmations}\nsign_only_ttl_s = {ttl_s}\nblock_time_ms = 500\n{further}\n\n"
    )
}

impl Agent {
    pub async fn simulate(&self, body: Value) -> Reply {
        self.client.post(&format!("{}/simulate", self.path()), &body).await
    }

    pub async fn simulate_bundle(&self, transactions: Vec<Value>) -> Reply {
        self.client.post(&format!("{}/simulate-bundle", self.path()), &json!({ "transactions": transactions })).await
    }

    pub fn path(&self) -> String {
        format!("/v1/agents/{}/transactions", self.id)
    }

    pub async fn submit(&self, body: Value) -> Reply {
        self.client.post(&self.path(), &body).await
    }

    pub async fn submit_with_key(&self, idempotency_key: &str, body: Value) -> Reply {
        let request = self.client.request(reqwest::Method::POST, &self.path());
        Client::send(request.header("Idempotency-Key", idempotency_key).json(&body)).await
    }

    pub async fn sign(&self, body: Value) -> Reply {
        self.client.post(&format!("{}/sign", self.path()), &body).await
    }

    pub async fn transaction(&self, id: &str) -> Value {
        self.client.get(&format!("{}/{id}", self.path())).await.expect(200)
    }

    /// The same agent at another daemon.
    pub fn at(&self, url: &str) -> Self {
        Self { client: self.client.at(url), ..self.clone() }
    }

    /// Waits for a transaction's end and returns it.
    pub async fn settled(&self, id: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let shown = self.transaction(id).await;
            if shown["final"] == json!(true) {
                return shown;
            }
            assert!(Instant::now() < deadline, "not final: {shown}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A transfer on `base`.
pub fn pay(value: &str) -> Value {
    json!({"to": TO, "value": value, "chain": "base"})
}

pub fn text(body: &Value, field: &str) -> String {
    body[field].as_str().unwrap_or_else(|| panic!("{field} is not a text: {body}")).to_owned()
}

pub fn hash(body: &Value) -> B256 {
    text(body, "tx_hash").parse().unwrap()
}

/// Polls until it holds.
pub async fn until(within: Duration, what: &str, reached: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + within;
    while !reached().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A random private key, as clients send them.
pub fn fresh_scalar() -> String {
    format!("0x{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// The address of a private key.
pub fn address_of(scalar: &str) -> Address {
    let bytes: [u8; 32] = hex::decode(scalar.trim_start_matches("0x")).unwrap().try_into().unwrap();
    let key = secp256k1::SecretKey::from_byte_array(bytes).unwrap();
    let point = key.public_key(&secp256k1::Secp256k1::new()).serialize_uncompressed();
    Address::from_raw_public_key(&point[1..])
}
