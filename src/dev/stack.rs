//! The stack as a whole: up in order, down in the opposite order.

use std::net::SocketAddr;
use std::time::Instant;

use super::chains::{self, LocalChain, Plan};
use super::demo::{self, Demo};
use super::postgres::{self, Cluster, ClusterOptions};
use super::process::Process;
use super::serve::{Daemon, Settings};
use super::simulator::Simulator;
use super::state::StateDir;
use super::{DevError, DevOptions, envfile, journal, store, token, user};

/// The demo intent's recipient: an account of anvil's well-known mnemonic, so nobody's money.
const DEMO_RECIPIENT: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const DEMO_VALUE_ETH: &str = "0.01";

/// A running dev stack. Dropping it kills its parts; [`DevStack::stop`] is the polite way.
pub struct DevStack {
    state: StateDir,
    postgres: Option<Cluster>,
    chains: Vec<LocalChain>,
    simulator: Option<Simulator>,
    daemon: Option<Daemon>,
    demo: Demo,
    url: String,
    metrics_url: String,
}

impl DevStack {
    /// Takes the state folder. Nothing runs yet: [`DevStack::bring_up`] is next.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub(super) fn new(options: &DevOptions) -> Result<Self, DevError> {
        let state = StateDir::open(&options.state, options.reset)?;
        state.remove("env");
        journal::stop_leftovers(&state);
        Ok(Self {
            state,
            postgres: None,
            chains: Vec::new(),
            simulator: None,
            daemon: None,
            demo: Demo::default(),
            url: String::new(),
            metrics_url: String::new(),
        })
    }

    /// Starts everything. Cancel safe: what has been started is in the stack, for [`DevStack::stop`].
    ///
    /// # Errors
    /// [`DevError`] of the part that failed.
    pub(super) async fn bring_up(&mut self, options: &DevOptions) -> Result<(), DevError> {
        let plan = chains::plan(crate::chain::DEFAULT_CHAINS, &options.local)?;
        // All that could be missing on this machine is looked for before anything is started.
        let anvil = chains::find_anvil(options.anvil_bin.as_deref())?;
        let token = step("HSM token", async { token::ensure(&self.state) }).await?;
        step("Postgres", self.start_postgres()).await?;
        step("local chains", self.start_chains(&anvil, &plan)).await?;
        let chains_file = self.state.write("chains/chains.toml", &plan.chains_toml)?;
        let database_url = self.database_url();
        let mut settings =
            Settings::new(database_url.clone(), &token, &chains_file, &self.state.path("mail"), &self.chains)?;
        step("HSM keys", settings.admin(&["admin", "hsm", "init"])).await?;
        for chain in &self.chains {
            chain.catch_up(&store::settled_nonces(&database_url, chain.chain_id).await?).await?;
        }
        step("simulator", self.start_simulator(&mut settings)).await?;
        step("daemon", self.start_daemon(&settings, options)).await?;
        let local: Vec<String> = plan.local.iter().map(|(name, _)| name.clone()).collect();
        self.demo = step("demo data", demo::ensure(&self.state, &settings, &self.url, &local, &plan.all)).await?;
        for chain in &self.chains {
            chain.fund(&self.demo.signer_address).await?;
        }
        self.state.write("env", &self.env())?;
        Ok(())
    }

    async fn start_postgres(&mut self) -> Result<(), DevError> {
        let owner = user::for_postgres()?;
        let folder = self.state.cluster_folder(owner.as_ref())?;
        let options = ClusterOptions {
            data: folder.join("data"),
            log: self.state.log("postgres"),
            owner,
            settings: ["max_connections=200", "shared_buffers=128MB"].map(str::to_owned).to_vec(),
            bound: true,
        };
        self.postgres = Some(Cluster::start(options).await?);
        self.record_children()
    }

    async fn start_chains(&mut self, anvil: &std::path::Path, plan: &Plan) -> Result<(), DevError> {
        for (name, chain_id) in &plan.local {
            let chain = LocalChain::start(&self.state, anvil, name, *chain_id).await?;
            self.chains.push(chain);
        }
        self.record_children()
    }

    async fn start_simulator(&mut self, settings: &mut Settings) -> Result<(), DevError> {
        let simulator = self.simulator.insert(Simulator::start(&self.state, settings).await?);
        settings.add(simulator.variables());
        self.record_children()
    }

    async fn start_daemon(&mut self, settings: &Settings, options: &DevOptions) -> Result<(), DevError> {
        let port = chains::pick_port(&self.state, "metrics")?;
        let metrics = SocketAddr::from(([127, 0, 0, 1], port));
        let daemon = self.daemon.insert(settings.serve(&self.state, options.listen, metrics)?);
        self.url = daemon.until_ready().await?;
        self.metrics_url = format!("http://{metrics}/metrics");
        self.state.write("chains/metrics.port", &port.to_string())?;
        self.record_children()
    }

    fn record_children(&self) -> Result<(), DevError> {
        journal::record(&self.state, self.processes())
    }

    /// In the order in which they are stopped.
    fn processes(&self) -> impl Iterator<Item = &Process> {
        let daemon = self.daemon.iter().map(|daemon| &daemon.process);
        let chains = self.chains.iter().map(|chain| &chain.process);
        let simulator = self.simulator.iter().map(|simulator| &simulator.process);
        daemon.chain(simulator).chain(chains).chain(self.postgres.iter().map(Cluster::server))
    }

    fn database_url(&self) -> String {
        self.postgres.as_ref().map(|cluster| cluster.url(postgres::NAME)).unwrap_or_default()
    }

    /// Where the daemon serves: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The text of DIR/env.
    fn env(&self) -> String {
        let demo = &self.demo;
        let anvil = self.chains.iter().find(|chain| chain.name == chains::ANVIL);
        let own = std::process::id().to_string();
        let pids = self.processes().map(|process| process.pid().to_string());
        let variables = [
            ("INTENTD_URL", self.url.clone()),
            ("INTENTD_USER_KEY", demo.user_key.clone()),
            ("INTENTD_USER_EMAIL", demo.email.clone()),
            ("INTENTD_USER_PASSWORD", demo.password.clone()),
            ("INTENTD_ORG_ID", demo.org_id.clone()),
            ("INTENTD_VAULT_ID", demo.vault_id.clone()),
            ("INTENTD_AGENT_ID", demo.agent_id.clone()),
            ("INTENTD_AGENT_KEY", demo.agent_key.clone()),
            ("INTENTD_SIGNER_ADDRESS", demo.signer_address.clone()),
            ("ANVIL_RPC_URL", anvil.map(|chain| chain.rpc_url.clone()).unwrap_or_default()),
            (
                "INTENTD_SIMULATOR_URL",
                self.simulator.as_ref().map(|simulator| simulator.url.clone()).unwrap_or_default(),
            ),
            ("INTENTD_METRICS_URL", self.metrics_url.clone()),
            ("DATABASE_URL", self.database_url()),
            ("INTENTD_PIDS", std::iter::once(own.clone()).chain(pids).collect::<Vec<_>>().join(" ")),
        ];
        let mut comments = vec![format!("process {own}: intentd dev")];
        comments.extend(self.processes().map(|process| format!("process {}: {}", process.pid(), process.name())));
        comments.extend(
            self.chains.iter().map(|chain| format!("chain {} ({}): {}", chain.name, chain.chain_id, chain.rpc_url)),
        );
        envfile::render(&variables, &comments)
    }

    /// Says what there is and how to use it: on standard output, for the person who started it.
    pub fn introduce(&self) {
        let demo = &self.demo;
        let chain = self.chains.iter().find(|chain| chain.name != chains::ANVIL).or(self.chains.first());
        let chain = chain.map_or(chains::ANVIL, |chain| &chain.name);
        println!("\nintentd serves at {}", self.url);
        for chain in &self.chains {
            println!("  chain {:<13} {} (id {})", chain.name, chain.rpc_url, chain.chain_id);
        }
        if let Some(simulator) = &self.simulator {
            println!("  simulator           {} (pages of simulations are there)", simulator.url);
        }
        println!("  metrics             {}", self.metrics_url);
        println!(
            "  signer              {} (its key is in the HSM; 10000 ETH on each local chain)",
            demo.signer_address
        );
        println!("  human's API key     {}", demo.user_key);
        println!("  human's login       {} / {}", demo.email, demo.password);
        println!("  agent's API key     {}", demo.agent_key);
        println!("  state, logs         {}", self.state.root().display());
        println!("  for scripts         . {}", self.state.path("env").display());
        println!("\nSend an intent as the agent:\n");
        println!("curl -sS {}/v1/agents/{}/transactions \\", self.url, demo.agent_id);
        println!("  -H 'Authorization: Bearer {}' \\", demo.agent_key);
        println!("  -H 'Content-Type: application/json' -H \"Idempotency-Key: demo-$(date +%s)\" \\");
        println!("  -d '{{\"chain\":\"{chain}\",\"to\":\"{DEMO_RECIPIENT}\",\"value\":\"{DEMO_VALUE_ETH}\"}}'");
        println!(
            "\nBytes signed for a local chain that has a real chain's id (such as base) are valid on the real one too:"
        );
        println!("never import a key here that holds real money. Ctrl-C stops everything; the state is kept.");
    }

    /// Waits until one of the parts ends by itself.
    pub async fn first_death(&mut self) -> DevError {
        let mut waits: Vec<std::pin::Pin<Box<dyn Future<Output = DevError> + Send + '_>>> = Vec::new();
        let daemon = self.daemon.iter_mut().map(|daemon| &mut daemon.process);
        let chains = self.chains.iter_mut().map(|chain| &mut chain.process);
        let simulator = self.simulator.iter_mut().map(|simulator| &mut simulator.process);
        for process in daemon.chain(simulator).chain(chains).chain(self.postgres.iter_mut().map(Cluster::process)) {
            waits.push(Box::pin(async move {
                let status = process.wait().await;
                let part = format!("{} (process {})", process.name(), process.pid());
                DevError::Died { part, status, log_tail: process.log_tail() }
            }));
        }
        if waits.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(waits).await.0
    }

    /// Stops the daemon, which finishes what it has begun, then the simulator, the chains, and Postgres.
    pub async fn stop(mut self) {
        self.state.remove("env");
        if let Some(daemon) = self.daemon.take() {
            daemon.stop().await;
        }
        if let Some(simulator) = self.simulator.take() {
            simulator.stop().await;
        }
        futures::future::join_all(self.chains.drain(..).map(LocalChain::stop)).await;
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await;
        }
        self.state.remove("ready");
        journal::forget(&self.state);
    }
}

/// Runs one step of the start and says how long it took.
async fn step<T>(name: &str, work: impl Future<Output = Result<T, DevError>>) -> Result<T, DevError> {
    let started = Instant::now();
    let result = work.await?;
    eprintln!("  {name:<14} ready ({:.1} s)", started.elapsed().as_secs_f32());
    Ok(result)
}
