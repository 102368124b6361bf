//! Processor time and memory of processes, by /proc.

use std::collections::BTreeMap;
use std::time::Duration;

/// A group of processes by its name: those at its top, and whether their children count with them.
pub struct Group {
    pub name: &'static str,
    pub pids: Vec<u32>,
    pub with_children: bool,
}

/// The groups' processor time from a moment on.
pub struct Watched {
    groups: Vec<Group>,
    begin: BTreeMap<&'static str, Duration>,
}

impl Watched {
    /// From now on.
    pub fn begin(groups: Vec<Group>) -> Self {
        let begin = groups.iter().map(|group| (group.name, group.spent())).collect();
        Self { groups, begin }
    }

    /// Since then, by group.
    pub fn spent(&self) -> BTreeMap<&'static str, Duration> {
        let since = |group: &Group| group.spent().saturating_sub(self.begin[group.name]);
        self.groups.iter().map(|group| (group.name, since(group))).collect()
    }
}

impl Group {
    /// User and system time of all of them; of children that have ended, too, once they were waited for.
    fn spent(&self) -> Duration {
        let mut pids = self.pids.clone();
        let mut next = 0;
        while self.with_children && next < pids.len() {
            let pid = pids[next];
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            next += 1;
        }
        // utime and stime are the 14th and 15th field, cutime and cstime follow.
        let fields = if self.with_children { 4 } else { 2 };
        let ticks: u64 = pids
            .into_iter()
            .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok())
            .map(|stat| {
                // The name, in parentheses, may have spaces.
                let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
                after.split(' ').skip(11).take(fields).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
            })
            .sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

/// Resident memory and its peak, in MiB.
pub fn memory(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    };
    (field("VmRSS:"), field("VmHWM:"))
}
