//! What is printed: the machine, the method, and a line for each figure as soon as it is there.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::load::Outcome;

pub struct Report {
    began: Instant,
}

/// One measured load.
pub struct Line<'a> {
    pub what: &'a str,
    pub outcome: &'a Outcome,
    pub spent: &'a BTreeMap<&'static str, Duration>,
    /// Resident memory of the daemon and its peak, in MiB.
    pub memory: (f64, f64),
    /// A ceiling of the same run and its name.
    pub ceiling: Option<(f64, &'a str)>,
}

impl Report {
    /// Prints the machine.
    pub fn begin() -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, m)| m);
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default();
        println!("machine    {model}, {} processors, {} GiB", cores(), kib / 1024 / 1024);
        println!("system     Linux {}", first_line("uname", &["-r"]));
        println!(
            "versions   {}; SoftHSM {}; intentd {}",
            first_line("psql", &["--version"]),
            first_line("softhsm2-util", &["--version"]),
            env!("CARGO_PKG_VERSION")
        );
        println!(
            "method     all on this machine; connections that each wait for their reply; release build; synchronous_commit and fsync on;"
        );
        println!("           anvil mines a block a second; processor time by /proc, of the load generator too");
        println!("load       {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
        Self { began: Instant::now() }
    }

    /// A heading.
    pub fn part(&self, title: &str) {
        println!("\n{title}");
    }

    /// A figure by itself.
    pub fn figure(&self, what: &str, figure: &str) {
        println!("  {what:44} {figure}");
    }

    /// Names of the columns of [`Report::line`].
    pub fn columns(&self) {
        println!(
            "  {:44} {:>7}  {:>7} {:>7} {:>7} ms  {:>22}  {:>6}  MiB (peak)",
            "", "/s", "p50", "p95", "p99", "CPU ms each: d pg n load", "d+pg"
        );
    }

    /// A load's figures.
    pub fn line(&self, line: &Line<'_>) {
        let Line { what, outcome, spent, memory, ceiling } = line;
        let count = outcome.latency.len().max(1) as f64;
        let each = |name: &str| spent.get(name).map_or(0.0, |time| time.as_secs_f64() * 1000.0 / count);
        let (daemon, postgres, node, load) = (each("daemon"), each("postgres"), each("node"), each("load"));
        let ratio = ceiling.map(|(top, name)| format!("  {:.0} % of {name}", 100.0 * outcome.per_second() / top));
        println!(
            "  {what:44} {:7.0}  {:7.2} {:7.2} {:7.2}     {:5.2} {:5.2} {:5.2} {:5.2}   {:6.2}  {:4.0} ({:.0}){}",
            outcome.per_second(),
            outcome.quantile(0.5),
            outcome.quantile(0.95),
            outcome.quantile(0.99),
            daemon,
            postgres,
            node,
            load,
            daemon + postgres,
            memory.0,
            memory.1,
            ratio.unwrap_or_default(),
        );
        for ((status, detail), count) in &outcome.others {
            println!("    not counted: {count} × {status} {detail}");
        }
    }

    /// How long all of it took.
    pub fn end(self) {
        println!("\nmeasured in {:.0} s", self.began.elapsed().as_secs_f64());
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("?").to_owned()
}
