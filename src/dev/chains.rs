//! The local chains: one anvil each, whose state survives a restart, and the chains.toml that tells the daemon of them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alloy::primitives::Address;
use serde_json::{Value as Json, json};
use toml::{Table, Value};

use super::DevError;
use super::process::{self, Process, Signal};
use super::state::StateDir;

/// The chain that is always there, with anvil's own id.
pub const ANVIL: &str = "anvil";
const ANVIL_CHAIN_ID: i64 = 31_337;
const START_DEADLINE: Duration = Duration::from_secs(30);
/// anvil writes its state when it is told to stop.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// What the signer has on every local chain after a start: 10,000 ETH.
const SIGNER_BALANCE_WEI: u128 = 10_000 * 10u128.pow(18);

/// A running local chain.
#[derive(Debug)]
pub struct LocalChain {
    /// Its name in chains.toml.
    pub name: String,
    /// The id that it signs for.
    pub chain_id: u64,
    /// Its node.
    pub rpc_url: String,
    /// The anvil.
    pub process: Process,
}

/// The plan: which chains run locally, and the chains.toml that says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name and id of each local chain; `anvil` first.
    pub local: Vec<(String, u64)>,
    /// The names of all chains, local or not.
    pub all: Vec<String>,
    /// All default chains, the local ones changed as local play asks.
    pub chains_toml: String,
}

/// Plans the local chains from the default chains.toml. Pure.
///
/// A local chain keeps its name, id and kind; its spending is counted apart from real money (`eth-test`), one confirmation is
/// final, and it has no block explorer.
///
/// # Errors
/// When a name is not in `defaults`.
pub fn plan(defaults: &str, names: &[String]) -> Result<Plan, DevError> {
    let mut file: Table = defaults.parse().map_err(|error| DevError::start("the built-in chains.toml", error))?;
    let tables = file
        .get_mut("chain")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| DevError::start("the built-in chains.toml", "it has no [[chain]]"))?;
    let mut chains: Vec<Table> = tables.iter().filter_map(|value| value.as_table().cloned()).collect();
    let mut local = Vec::new();
    for name in names.iter().filter(|name| *name != ANVIL) {
        let Some(chain) = chains.iter_mut().find(|chain| text(chain, "name") == name) else {
            let known: Vec<&str> = chains.iter().map(|chain| text(chain, "name")).collect();
            return Err(DevError::UnknownChain { name: name.clone(), known: known.join(", ") });
        };
        let entry = (name.clone(), chain_id(chain));
        if !local.contains(&entry) {
            local.push(entry);
            *chain = played_locally(chain);
        }
    }
    if !chains.iter().any(|chain| text(chain, "name") == ANVIL) {
        chains.push(anvil_table());
    }
    local.insert(0, (ANVIL.to_owned(), ANVIL_CHAIN_ID.unsigned_abs()));
    let all = chains.iter().map(|chain| text(chain, "name").to_owned()).collect();
    *tables = chains.into_iter().map(Value::Table).collect();
    Ok(Plan { local, all, chains_toml: file.to_string() })
}

fn text<'a>(chain: &'a Table, key: &str) -> &'a str {
    chain.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn chain_id(chain: &Table) -> u64 {
    chain.get("chain_id").and_then(Value::as_integer).unwrap_or_default().unsigned_abs()
}

fn played_locally(chain: &Table) -> Table {
    let mut local = chain.clone();
    local.insert("display_name".into(), format!("{} (local)", text(chain, "display_name")).into());
    local.insert("spend_group".into(), "eth-test".into());
    local.insert("is_testnet".into(), true.into());
    local.insert("confirmations".into(), 1.into());
    local.insert("block_time_ms".into(), 1_000.into());
    local.remove("explorer_url");
    local
}

fn anvil_table() -> Table {
    let mut chain = Table::new();
    let texts = [
        ("name", ANVIL),
        ("display_name", "Anvil (local)"),
        ("kind", "ethereum"),
        ("spend_group", "eth-test"),
        ("native_currency", "ETH"),
    ];
    for (key, value) in texts {
        chain.insert(key.into(), value.into());
    }
    let numbers = [
        ("chain_id", ANVIL_CHAIN_ID),
        ("max_fee_per_gas_ceiling_wei", 500_000_000_000),
        ("max_gas_limit", 16_777_216),
        ("confirmations", 1),
        ("sign_only_ttl_s", 900),
        ("block_time_ms", 1_000),
    ];
    for (key, value) in numbers {
        chain.insert(key.into(), value.into());
    }
    chain.insert("is_testnet".into(), true.into());
    chain
}

impl LocalChain {
    /// Starts an anvil for a chain, on the port that it had the last time if that is free.
    ///
    /// # Errors
    /// When it does not start or does not answer with its id.
    pub async fn start(state: &StateDir, anvil: &Path, name: &str, chain_id: u64) -> Result<Self, DevError> {
        let port = pick_port(state, name)?;
        let kept = state.path(format!("chains/{name}.json"));
        let mut command = process::bound_command(anvil, "INT");
        command
            .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--chain-id", &chain_id.to_string()])
            // Written every few seconds too, so that even a SIGKILL costs little.
            .arg("--state")
            .arg(&kept)
            .args(["--state-interval", "2"])
            .arg("--quiet")
            .current_dir(state.root());
        let rpc_url = format!("http://127.0.0.1:{port}");
        let process = Process::spawn(process_name(name), command, &state.log(&process_name(name)))?;
        let mut chain = Self { name: name.to_owned(), chain_id, rpc_url, process };
        let (url, expected) = (chain.rpc_url.clone(), json!(format!("{chain_id:#x}")));
        chain
            .process
            .until_ready(START_DEADLINE, async || {
                request(&url, "eth_chainId", json!([])).await.is_ok_and(|answer| answer == expected)
            })
            .await?;
        state.write(port_file(name), &port.to_string())?;
        Ok(chain)
    }

    /// Gives the signer its play money.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn fund(&self, address: &str) -> Result<(), DevError> {
        let balance = format!("{SIGNER_BALANCE_WEI:#x}");
        request(&self.rpc_url, "anvil_setBalance", json!([address, balance]))
            .await
            .map(|_| ())
            .map_err(|why| DevError::start(format!("chain {}", self.name), format!("the signer was not funded: {why}")))
    }

    /// Mends a chain whose node was killed before it wrote its last seconds: the rows hold settled transactions that the chain has
    /// forgotten, and the next ones would wait for them for ever. Sets the nonces to what is settled.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn catch_up(&self, settled: &[(Address, u64)]) -> Result<(), DevError> {
        let failed =
            |why| DevError::start(format!("chain {}", self.name), format!("its nonces were not mended: {why}"));
        for (address, settled) in settled {
            let count =
                request(&self.rpc_url, "eth_getTransactionCount", json!([address, "latest"])).await.map_err(failed)?;
            let count = count.as_str().and_then(|hex| u64::from_str_radix(hex.trim_start_matches("0x"), 16).ok());
            if count.is_some_and(|count| count >= *settled) {
                continue;
            }
            eprintln!(
                "chain {} has lost its last blocks (its node was killed): nonce of {address} set to {settled}",
                self.name
            );
            let nonce = format!("{settled:#x}");
            request(&self.rpc_url, "anvil_setNonce", json!([address, nonce])).await.map_err(failed)?;
            self.fund(&address.to_string()).await?;
        }
        Ok(())
    }

    /// Stops it; it writes its state.
    pub async fn stop(self) {
        self.process.stop(Signal::INT, STOP_GRACE).await;
    }
}

fn process_name(chain: &str) -> String {
    if chain == ANVIL { ANVIL.to_owned() } else { format!("anvil-{chain}") }
}

fn port_file(name: &str) -> String {
    format!("chains/{name}.port")
}

/// Last time's port if it is free, else any free one.
pub(super) fn pick_port(state: &StateDir, name: &str) -> Result<u16, DevError> {
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr());
    let last = state.read(port_file(name)).and_then(|text| text.trim().parse().ok());
    let address = last.map_or_else(|| bind(0), |port| bind(port).or_else(|_| bind(0)));
    address.map(|address| address.port()).map_err(|error| DevError::start("a local chain", error))
}

/// One JSON-RPC call to a local node.
async fn request(url: &str, method: &str, params: Json) -> Result<Json, String> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let reply = client.map_err(|e| e.to_string())?.post(url).json(&body).send().await.map_err(|e| e.to_string())?;
    let mut reply: Json = reply.json().await.map_err(|e| e.to_string())?;
    match reply.get("error") {
        Some(error) => Err(error.to_string()),
        None => Ok(reply["result"].take()),
    }
}

/// The anvil binary: as given, from the project's tool folder, or from PATH.
///
/// # Errors
/// When there is none.
pub fn find_anvil(given: Option<&Path>) -> Result<PathBuf, DevError> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Some(path) = given {
        return path.is_file().then(|| absolute(path)).ok_or_else(|| DevError::Missing {
            what: format!("anvil ({})", path.display()),
            mend: "there is no such file; `anvil/run` installs it".to_owned(),
        });
    }
    let os = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    // The real binary: the package's own entry is a node script around it.
    let tool = format!(".tools/node_modules/@foundry-rs/anvil-{os}-{arch}/bin/anvil");
    let executable = std::env::current_exe().unwrap_or_default();
    let here = std::env::current_dir().unwrap_or_default();
    let tools = executable.ancestors().chain(here.ancestors()).map(|folder| folder.join(&tool));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).map(|folder| folder.join("anvil")).collect();
    tools.chain(on_path).find(|file| file.is_file()).ok_or_else(|| DevError::Missing {
        what: "anvil (the local chain)".to_owned(),
        mend: "`anvil/run` installs it into .tools/; or name its binary in INTENTD_ANVIL_BIN".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Chains, DEFAULT_CHAINS, registry};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_daemon_reads_what_is_planned() {
        let plan = plan(DEFAULT_CHAINS, &names(&["base", "anvil", "polygon", "base"])).unwrap();
        let expected = [("anvil", 31_337), ("base", 8453), ("polygon", 137)];
        assert_eq!(plan.local, expected.map(|(name, id)| (name.to_owned(), id)));
        let chains = Chains::load(registry::read(&plan.chains_toml, |_| None).unwrap()).unwrap();
        for (name, id) in expected {
            let chain = chains.get(name).unwrap();
            let spec = chain.spec();
            assert_eq!(spec.chain_id.0, id);
            assert_eq!((&*spec.spend_group, spec.is_testnet, spec.confirmations), ("eth-test", true, 1), "{name}");
        }
    }

    #[test]
    fn chains_that_are_not_local_stay_as_they_are() {
        let plan = plan(DEFAULT_CHAINS, &names(&["base"])).unwrap();
        let real = registry::read(DEFAULT_CHAINS, |_| None).unwrap();
        let planned = registry::read(&plan.chains_toml, |_| None).unwrap();
        assert_eq!(planned.len(), real.len() + 1);
        for spec in real.iter().filter(|spec| spec.name != "base") {
            assert!(planned.contains(spec), "{}", spec.name);
        }
    }

    #[test]
    fn an_unknown_chain_is_refused_by_name() {
        let refused = plan(DEFAULT_CHAINS, &names(&["bsae"])).unwrap_err().to_string();
        assert!(refused.contains("bsae") && refused.contains("base, optimism"), "{refused}");
    }
}
