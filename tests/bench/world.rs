//! What is measured: one daemon on its own Postgres, token and anvil, and agents with a key each.

use std::time::Duration;

use serde_json::{Value, json};

use crate::Plan;
use crate::harness::anvil::Anvil;
use crate::harness::stack::{Agent, Options, Stack};
use crate::load::{self, Caller, Outcome};
use crate::procs::{self, Group, Watched};
use crate::report::{Line, Report};

pub struct World {
    pub stack: Stack,
}

impl World {
    /// With further variables for the daemon.
    pub async fn start(env: &[(&str, String)]) -> Self {
        Self::with(vec![("base", 8453)], env).await
    }

    pub async fn with(chains: Vec<(&'static str, u64)>, env: &[(&str, String)]) -> Self {
        Self::on(&[], chains, env).await
    }

    /// With further settings of Postgres, too.
    pub async fn on(postgres: &[&'static str], chains: Vec<(&'static str, u64)>, env: &[(&str, String)]) -> Self {
        let mut stack = Stack::with(Options {
            chains,
            daemons: 0,
            postgres: [&["shared_buffers=256MB"], postgres].concat(),
            anvil: |_, anvil| {
                anvil.block_time_s = Some(1);
                anvil.extra = ["--gas-limit", "1000000000"].map(str::to_owned).into();
            },
            env: env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            ..Options::default()
        })
        .await;
        // What guards against one busy principal would be measured instead of the daemon.
        let config = stack.install.root.join("intentd.toml");
        std::fs::write(&config, "[limits]\nprincipal_per_second = 1000000\nprincipal_burst = 1000000\n").unwrap();
        let own = [
            ("INTENTD_CONFIG", config.display().to_string()),
            ("INTENTD_LANE_DEPTH_MAX", "1000000".to_owned()),
            // As they are unless configured.
            ("INTENTD_TRACKER_INTERVAL_MS", "0".to_owned()),
            ("INTENTD_REBROADCAST_S", "15".to_owned()),
        ];
        stack.options.env.extend(own.map(|(name, value)| (name.to_owned(), value)));
        stack.add_daemon("daemon").await;
        Self { stack }
    }

    /// Agents with a key each.
    pub async fn agents(&self, count: usize) -> Vec<Agent> {
        let mut agents = Vec::with_capacity(count);
        for _ in 0..count {
            agents.push(self.stack.agent(json!({})).await);
        }
        agents
    }

    fn postgres(&self) -> u32 {
        let text = std::fs::read_to_string(self.stack.install.root.join("pg/postmaster.pid")).unwrap();
        text.lines().next().unwrap().trim().parse().unwrap()
    }

    /// Warms up, measures, prints the line.
    pub async fn measure(
        &self,
        plan: &Plan,
        report: &Report,
        what: &str,
        callers: &[Caller],
        connections: usize,
        ceiling: Option<(f64, &str)>,
    ) -> Outcome {
        let daemon = &self.stack.daemons[0];
        load::run(&daemon.url, callers, connections, plan.warm_up).await;
        let group = |name, pids, with_children| Group { name, pids, with_children };
        let watched = Watched::begin(vec![
            group("daemon", vec![daemon.pid()], false),
            group("postgres", vec![self.postgres()], true),
            group("node", self.stack.anvils.values().map(Anvil::pid).collect(), false),
            group("load", vec![std::process::id()], false),
        ]);
        let outcome = load::run(&daemon.url, callers, connections, plan.measure).await;
        let spent = watched.spent();
        let memory = procs::memory(daemon.pid());
        report.line(&Line { what, outcome: &outcome, spent: &spent, memory, ceiling });
        outcome
    }

    /// Until everything that was sent is final, so that the next figure begins with nothing to follow.
    pub async fn settle(&self) {
        let open = "SELECT count(*) FROM slots WHERE state NOT IN ('final', 'foreign') AND NOT sign_only";
        for _ in 0..600 {
            if self.stack.count(open).await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("    not final after a minute: {}", self.stack.count(open).await);
    }
}

/// Callers that submit (or sign) a payment.
pub fn payers(agents: &[Agent], route: &str, more: &Value) -> Vec<Caller> {
    let mut body = json!({"to": crate::harness::stack::TO, "value": "0.000001", "chain": "base"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    agents.iter().map(|agent| Caller::post(&agent.api_key, &format!("{}{route}", agent.path()), &body)).collect()
}
