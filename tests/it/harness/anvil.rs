//! A real anvil of its own for a test, on a free loopback port. Ended, by its process id, when dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use alloy::primitives::{Address, B256, U256, address, hex};
use intentd::chain::{Chain, ChainId, ChainSpec, Chains, RpcUrl};
use serde_json::{Value, json};

/// The first account of anvil's well-known mnemonic, 10,000 ETH on every fresh anvil.
pub const RICH: Address = address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
/// Its key, which everybody knows.
pub const RICH_KEY: [u8; 32] = hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
/// The second account.
pub const OTHER: Address = address!("70997970C51812dc3A010C7d01b50e0d17dc79C8");

/// How an anvil is started.
#[derive(Clone, Debug)]
pub struct AnvilOptions {
    pub chain_id: u64,
    /// `None` mines each transaction at once; otherwise a block every so many seconds.
    pub block_time_s: Option<u64>,
    /// Blocks only on `evm_mine`.
    pub no_mining: bool,
    pub accounts: u32,
    /// 0: any free port.
    pub port: u16,
    /// Further arguments, as they are.
    pub extra: Vec<String>,
}

impl Default for AnvilOptions {
    fn default() -> Self {
        Self { chain_id: 31337, block_time_s: None, no_mining: false, accounts: 10, port: 0, extra: Vec::new() }
    }
}

/// A running anvil.
pub struct Anvil {
    child: Child,
    pub port: u16,
    pub chain_id: u64,
    http: reqwest::Client,
}

impl Anvil {
    /// Mines at once, chain id as given.
    pub fn start(chain_id: u64) -> Self {
        Self::with(&AnvilOptions { chain_id, ..AnvilOptions::default() })
    }

    /// Starts anvil and returns when it listens. Panics with one sentence otherwise.
    pub fn with(options: &AnvilOptions) -> Self {
        let binary = binary("anvil", "INTENTD_ANVIL_BIN");
        let mut command = Command::new(&binary);
        command.args(["--host", "127.0.0.1", "--port", &options.port.to_string()]);
        command.args(["--chain-id", &options.chain_id.to_string(), "--accounts", &options.accounts.to_string()]);
        if let Some(seconds) = options.block_time_s {
            command.args(["--block-time", &seconds.to_string()]);
        }
        if options.no_mining {
            command.arg("--no-mining");
        }
        command.args(&options.extra).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", binary.display()));
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let port = loop {
            match lines.next() {
                Some(Ok(line)) => {
                    if let Some(address) = line.strip_prefix("Listening on 127.0.0.1:") {
                        break address.trim().parse().expect("a port");
                    }
                }
                _ => panic!("anvil ended before it listened (status {:?})", child.wait()),
            }
        };
        // anvil logs every call: somebody has to read it, or the pipe fills and anvil stops.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port, chain_id: options.chain_id, http: client() }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A call that must succeed, past the code under test.
    pub async fn request(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = self.http.post(self.url()).json(&body).send().await.expect("anvil answers");
        let mut answer: Value = answer.json().await.expect("anvil answers JSON");
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    pub async fn set_balance(&self, address: Address, wei: U256) {
        self.request("anvil_setBalance", json!([address, format!("{wei:#x}")])).await;
    }

    pub async fn set_code(&self, address: Address, code: &[u8]) {
        self.request("anvil_setCode", json!([address, hex::encode_prefixed(code)])).await;
    }

    pub async fn mine(&self, blocks: u64) {
        self.request("anvil_mine", json!([format!("{blocks:#x}")])).await;
    }

    pub async fn nonce(&self, address: Address) -> u64 {
        let answer = self.request("eth_getTransactionCount", json!([address, "latest"])).await;
        number(&answer)
    }

    pub async fn balance(&self, address: Address) -> U256 {
        let answer = self.request("eth_getBalance", json!([address, "latest"])).await;
        answer.as_str().and_then(|text| text.parse().ok()).expect("a balance")
    }

    /// The receipt, polled for until `within` is over.
    pub async fn receipt(&self, hash: B256, within: Duration) -> Value {
        let deadline = std::time::Instant::now() + within;
        loop {
            let receipt = self.request("eth_getTransactionReceipt", json!([hash])).await;
            if !receipt.is_null() {
                return receipt;
            }
            assert!(std::time::Instant::now() < deadline, "{hash} was not mined within {within:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A chain of the registry that this anvil plays, reached at `url` (its own, or a proxy's in front of it).
    pub fn chain_at(&self, name: &str, url: &str) -> std::sync::Arc<Chain> {
        chain(ChainSpec::local(name, ChainId(self.chain_id), RpcUrl::parse(url).expect("a URL")))
    }

    pub fn chain(&self, name: &str) -> std::sync::Arc<Chain> {
        self.chain_at(name, &self.url())
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one chain of a registry of one.
pub fn chain(spec: ChainSpec) -> std::sync::Arc<Chain> {
    let name = spec.name.clone();
    Chains::load(vec![spec]).expect("a good spec").get(&name).expect("the chain")
}

/// A JSON-RPC number.
pub fn number(value: &Value) -> u64 {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x")).expect("a hex quantity");
    u64::from_str_radix(digits, 16).expect("a number")
}

/// A Foundry tool: from the environment, from `.tools` under the project's root, or from the PATH.
pub fn binary(tool: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let package = format!("{tool}-linux-{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let local = root.join(format!(".tools/node_modules/@foundry-rs/{package}/bin/{tool}"));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).map(|folder| folder.join(tool)).collect::<Vec<_>>();
    std::iter::once(local)
        .chain(on_path)
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{tool} is not installed: run anvil/test once, or name its binary in {variable}"))
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("an HTTP client")
}
