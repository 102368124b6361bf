//! What bounds the rest: signatures of the HSM, commits of Postgres.

use std::io::Write as _;
use std::process::Command;

use intentd::dev::postgres::NAME;

use crate::Plan;
use crate::harness::install::{self, DAEMON};
use crate::report::Report;
use crate::world::World;

pub struct Ceilings {
    /// C_Sign alone, all workers.
    pub raw_signatures: f64,
    /// Commits of one small row by 16 connections.
    pub commits: f64,
}

/// The other parts show their ratios to it.
pub async fn measure(plan: &Plan, report: &mut Report) -> Ceilings {
    report.part("ceilings");
    let world = World::with(Vec::new(), &[]).await;
    let stack = &world.stack;
    let mut command = Command::new(DAEMON);
    install::environment(&mut command, &stack.install.root, &stack.postgres.url(NAME));
    let seconds = plan.measure.as_secs().clamp(1, 3).to_string();
    let output = command.args(["admin", "hsm", "bench", "--seconds", &seconds]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let mut raw_signatures: f64 = 0.0;
    for line in text.lines().filter(|line| line.ends_with(" /s")) {
        let words: Vec<&str> = line.rsplit("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
        let rate: f64 = words[0].trim_end_matches(" /s").trim().parse().unwrap();
        let what = words.last().unwrap();
        if *what == intentd::hsm::bench::SIGN_RAW {
            raw_signatures = raw_signatures.max(rate);
        }
        report.figure(&format!("HSM: {what}, {}", words[1]), &format!("{rate:.0} /s"));
    }
    let mut commits: f64 = 0.0;
    for clients in [1, 16, 64] {
        let rate = pgbench(&world, plan, clients);
        commits = commits.max(rate);
        report.figure(&format!("Postgres: one row and COMMIT, {clients} connections"), &format!("{rate:.0} /s"));
    }
    Ceilings { raw_signatures, commits }
}

fn pgbench(world: &World, plan: &Plan, clients: usize) -> f64 {
    let root = &world.stack.install.root;
    let script = root.join("commit.sql");
    let mut file = std::fs::File::create(&script).unwrap();
    writeln!(file, "INSERT INTO bench_commits (v) VALUES (1);").unwrap();
    let url = world.stack.postgres.url(NAME);
    let psql = |sql: &str| {
        Command::new("psql")
            .args(["-q", &url, "-c", sql])
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .status()
            .unwrap()
    };
    assert!(psql("CREATE TABLE IF NOT EXISTS bench_commits (v int)").success());
    let output = Command::new(pgbench_path())
        .args(["-n", "-M", "prepared", "-f"])
        .arg(&script)
        .args(["-c", &clients.to_string(), "-j", "2", "-T", &plan.measure.as_secs().clamp(1, 5).to_string(), &url])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    tps.unwrap_or_else(|| panic!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Debian keeps it beside the server.
fn pgbench_path() -> std::path::PathBuf {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin/pgbench"))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| "pgbench".into())
}
