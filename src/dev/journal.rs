//! Who the children are, on disk: if the supervisor is killed outright and the system does not end its children for it, the next
//! start on the same state folder finds them here.

use std::time::{Duration, Instant};

use super::DevError;
use super::process::{self, Process, Signal};
use super::state::StateDir;

const FILE: &str = "children";

/// Writes down the children: one line each, `pid birth name`.
///
/// # Errors
/// When it cannot be written.
pub fn record<'a>(state: &StateDir, children: impl Iterator<Item = &'a Process>) -> Result<(), DevError> {
    let lines: String = children
        .filter_map(|child| {
            Some(format!("{} {} {}\n", child.pid(), compact(&process::birth(child.pid())?), child.name()))
        })
        .collect();
    state.write(FILE, &lines).map(|_| ())
}

/// Nothing is left running.
pub fn forget(state: &StateDir) {
    state.remove(FILE);
}

/// Ends the children that an earlier supervisor left behind. A process is one of them only if it has both the id and the time
/// of birth that were written down.
pub fn stop_leftovers(state: &StateDir) {
    let text = state.read(FILE).unwrap_or_default();
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(pid), Some(birth), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
        let Ok(pid) = pid.parse::<u32>() else { continue };
        let alive = || process::birth(pid).is_some_and(|now| compact(&now) == birth);
        if alive() {
            eprintln!("{name} (process {pid}) is left from an earlier run that was killed: stopping it");
            // Postgres takes SIGINT for "stop now, in order"; the others do too.
            stop(pid, alive);
        }
    }
    forget(state);
}

fn stop(pid: u32, alive: impl Fn() -> bool) {
    for (signal, grace) in [(Signal::INT, Duration::from_secs(15)), (Signal::KILL, Duration::from_secs(5))] {
        process::send(pid, signal);
        let until = Instant::now() + grace;
        while alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn compact(birth: &str) -> String {
    birth.replace(' ', "_")
}
