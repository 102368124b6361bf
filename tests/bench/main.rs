//! `anvil/bench`: what this machine does, in one run, next to the ceilings that the same run measures.
//!
//! Everything is real: the release build of the daemon, PostgreSQL with durable commits, a SoftHSM2 token, an anvil that mines a block a
//! second. The load generator is in this process, whose own processor time is shown with that of the others.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says where, and ends")]

#[path = "../it/harness/mod.rs"]
mod harness;

mod ceilings;
mod frozen;
mod history;
mod intents;
mod load;
mod procs;
mod report;
mod secrets;
mod startup;
mod statements;
mod world;

use std::time::Duration;

use report::Report;

const HELP: &str = "anvil/bench: measures the daemon on this machine, next to its ceilings.

Usage: anvil/bench [--seconds N] [--only PART[,PART…]] [--keys N[,N…]] [--concurrency N[,N…]]

  --seconds N        how long each figure is measured, after a fifth of that to warm up (default 8)
  --only PARTS       some of: ceilings sign submit statements simulated frozen secrets startup history (default: all)
  --keys LIST        agents with a key each, for sign and submit (default 1,8,64)
  --concurrency LIST requests at once, for sign and submit (default 1,16,64)

It takes about 20 minutes and wants a machine with nothing else to do. Nothing is left behind.";

/// What to measure.
pub struct Plan {
    /// How long each figure is measured.
    pub measure: Duration,
    /// How long before it the same is done without being counted.
    pub warm_up: Duration,
    /// Agents with a key each.
    pub keys: Vec<usize>,
    /// Requests at once.
    pub concurrency: Vec<usize>,
    only: Vec<String>,
}

impl Plan {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }

    fn of(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut seconds, mut only, mut keys, mut concurrency) = (8.0, Vec::new(), vec![1, 8, 64], vec![1, 16, 64]);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--seconds" => seconds = value()?.parse().map_err(|_| "--seconds: not a number")?,
                "--only" => only = value()?.split(',').map(str::to_owned).collect(),
                "--keys" => keys = numbers(&value()?)?,
                "--concurrency" => concurrency = numbers(&value()?)?,
                // cargo's own.
                "--bench" => {}
                _ => return Err(HELP.to_owned()),
            }
        }
        let measure = Duration::from_secs_f64(seconds);
        Ok(Self { measure, warm_up: measure / 5, keys, concurrency, only })
    }
}

fn numbers(list: &str) -> Result<Vec<usize>, String> {
    list.split(',').map(|text| text.parse().map_err(|_| format!("not a number: {text}"))).collect()
}

fn main() {
    let plan = match Plan::of(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(text) => {
            println!("{text}");
            std::process::exit(2);
        }
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run(&plan));
}

async fn run(plan: &Plan) {
    let mut report = Report::begin();
    let ceilings = if plan.wants("ceilings") { Some(ceilings::measure(plan, &mut report).await) } else { None };
    let ceilings = ceilings.as_ref();
    if plan.wants("sign") {
        intents::sign(plan, &mut report, ceilings).await;
    }
    if plan.wants("submit") {
        intents::submit(plan, &mut report, ceilings).await;
    }
    if plan.wants("statements") {
        statements::measure(plan, &mut report).await;
    }
    if plan.wants("simulated") {
        intents::simulated(plan, &mut report, ceilings).await;
    }
    if plan.wants("frozen") {
        frozen::measure(plan, &mut report).await;
    }
    if plan.wants("secrets") {
        secrets::measure(plan, &mut report).await;
    }
    if plan.wants("startup") {
        startup::measure(&mut report).await;
    }
    if plan.wants("history") {
        history::measure(plan, &mut report).await;
    }
    report.end();
}
