//! Postgres stopped (SIGSTOP) and let go on, or one of its processes killed.

use intentd::dev::postgres::Cluster;
use rustix::process::{Pid, Signal, kill_process};

use super::stack::Stack;

/// Every server process of the stack's cluster but the postmaster.
pub fn backends(stack: &Stack) -> Vec<Pid> {
    children(&stack.postgres)
}

fn children(cluster: &Cluster) -> Vec<Pid> {
    let parent = cluster.server().pid().to_string();
    let is_child = |folder: &std::path::Path| {
        let stat = std::fs::read_to_string(folder.join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(&parent))
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| is_child(&entry.path()));
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter_map(Pid::from_raw).collect()
}

pub fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ = kill_process(*pid, signal);
    }
}

/// kill -9 of the whole cluster, as a power cut ends it. Its System V segment, which a power cut would take too, goes with it, by util-linux's
/// ipcrm, which is there where a Debian is: some thousands of them left behind, and no server on the machine can start any more.
pub async fn kill_cluster(cluster: &mut Cluster) {
    // Line 7 of postmaster.pid: key and id of the segment (PostgreSQL, `src/include/utils/pidfile.h`).
    let lock_file = format!("/proc/{}/cwd/postmaster.pid", cluster.server().pid());
    let segment = std::fs::read_to_string(lock_file).unwrap_or_default();
    let segment = segment.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)).map(str::to_owned);
    let children = children(cluster);
    cluster.server().signal(Signal::KILL);
    signal_all(&children, Signal::KILL);
    cluster.process().wait().await;
    if let Some(id) = segment {
        let _ = std::process::Command::new("ipcrm").args(["-m", &id]).status();
    }
}

/// The whole cluster, stopped until this is dropped.
pub struct Frozen(Vec<Pid>);

impl Frozen {
    pub fn postgres(stack: &Stack) -> Self {
        Self::cluster(&stack.postgres)
    }

    pub fn cluster(cluster: &Cluster) -> Self {
        let postmaster = Pid::from_raw(i32::try_from(cluster.server().pid()).unwrap()).unwrap();
        signal_all(&[postmaster], Signal::STOP);
        let mut pids = children(cluster);
        signal_all(&pids, Signal::STOP);
        pids.push(postmaster);
        Self(pids)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal_all(&self.0, Signal::CONT);
    }
}
