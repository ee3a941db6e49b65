//! Kong's processes: the nginx master of a prefix and its workers, told apart by title, parent and start time.
//!
//! A pid file alone proves nothing: it outlives a killed master, and the number may belong to another process by then.
//! `nginx: worker process` is the title of a worker that has finished `init_worker`; before that it has its master's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use procfs::process::{FDTarget, Process};
use serde::{Deserialize, Serialize};

const MASTER: &str = "nginx: master process";
const WORKER: &str = "nginx: worker process";
const DRAINING: &str = "nginx: worker process is shutting down";

/// A process for good: numbers are used again, a number with its start time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks since boot.
    pub started: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    pub id: ProcessId,
    /// Takes no new connections, serves the old ones with the code it has.
    pub draining: bool,
}

/// A living master and its children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    pub master: ProcessId,
    /// Held by a signal or a tracer.
    pub stopped: bool,
    pub workers: Vec<Worker>,
    /// Forked, not yet past `init_worker`.
    pub starting: usize,
}

impl Tree {
    /// The processes of the Kong that runs in `prefix`; `None`: no master lives.
    pub fn of(prefix: &Path) -> Option<Self> {
        let master = by_pid_file(prefix).or_else(|| by_title(prefix))?;
        let stat = master.stat().ok()?;
        let mut tree = Self {
            master: ProcessId { pid: stat.pid, started: stat.starttime },
            stopped: matches!(stat.state, 'T' | 't'),
            workers: Vec::new(),
            starting: 0,
        };
        for child in children(&master) {
            let Ok(stat) = child.stat() else { continue };
            let title = title(&child);
            if title.starts_with(WORKER) {
                let id = ProcessId { pid: stat.pid, started: stat.starttime };
                tree.workers.push(Worker { id, draining: title.starts_with(DRAINING) });
            } else if title.starts_with(MASTER) {
                tree.starting += 1;
            }
        }
        tree.workers.sort_by_key(|w| w.id);
        Some(tree)
    }

    pub fn serving(&self) -> impl Iterator<Item = ProcessId> {
        self.workers.iter().filter(|w| !w.draining).map(|w| w.id)
    }

    pub fn draining(&self) -> impl Iterator<Item = ProcessId> {
        self.workers.iter().filter(|w| w.draining).map(|w| w.id)
    }
}

fn title(process: &Process) -> String {
    process.cmdline().unwrap_or_default().join(" ")
}

/// The pid file of a prefix and the number in it.
pub fn pid_file(prefix: &Path) -> Option<(PathBuf, i32)> {
    // Before 0.9 it lies in the directory itself.
    let files = ["pids/nginx.pid", "nginx.pid"].map(|name| prefix.join(name));
    let (path, text) = files
        .into_iter()
        .find_map(|path| Some((fs::read_to_string(&path).ok()?, path)))
        .map(|(text, path)| (path, text))?;
    Some((path, text.trim().parse().ok()?))
}

fn by_pid_file(prefix: &Path) -> Option<Process> {
    let (_, pid) = pid_file(prefix)?;
    let process = Process::new(pid).ok()?;
    is_master_of(&process, prefix).then_some(process)
}

/// For a master whose pid file was lost: saying that it is down would let its files be taken away.
fn by_title(prefix: &Path) -> Option<Process> {
    procfs::process::all_processes()
        .ok()?
        .filter_map(Result::ok)
        .find(|process| is_master_of(process, prefix))
}

/// Prefixes of all Kongs that run on this machine: of masters that a `kong` prepared.
pub fn prefixes() -> Vec<PathBuf> {
    let all = procfs::process::all_processes().into_iter().flatten().filter_map(Result::ok);
    let named = all.filter_map(|process| Some((prefix_in(&title(&process))?, process)));
    let mut found: Vec<PathBuf> = named
        .filter(|(prefix, process)| prefix.join(".kong_env").exists() && is_master_of(process, prefix))
        .map(|(prefix, _)| prefix)
        .collect();
    found.sort();
    found.dedup();
    found
}

fn prefix_in(title: &str) -> Option<PathBuf> {
    let mut words = title.strip_prefix(MASTER)?.split_whitespace();
    words.find(|word| *word == "-p")?;
    words.next().map(PathBuf::from)
}

/// `nginx: master process <binary> -p <prefix> -c nginx.conf`; a freshly forked worker has the same title and a master
/// for its parent.
fn is_master_of(process: &Process, prefix: &Path) -> bool {
    let title = title(process);
    let Some(theirs) = prefix_in(&title) else { return false };
    if !is_same(&theirs, prefix) {
        return false;
    }
    let Ok(stat) = process.stat() else { return false };
    stat.state != 'Z' && !Process::new(stat.ppid).is_ok_and(|parent| self::title(&parent) == title)
}

/// Whether two paths are one directory, links followed. Of two that are not there nobody can tell: a master whose prefix
/// was deleted is not the one of a prefix that is yet to be made.
pub fn is_same(a: &Path, b: &Path) -> bool {
    a == b || fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
}

fn children(master: &Process) -> Vec<Process> {
    let listed = master.task_main_thread().and_then(|task| task.children());
    if let Ok(pids) = listed {
        return pids.into_iter().filter_map(|pid| Process::new(i32::try_from(pid).ok()?).ok()).collect();
    }
    // Kernels built without that file.
    let all = procfs::process::all_processes().into_iter().flatten().filter_map(Result::ok);
    all.filter(|p| p.stat().is_ok_and(|stat| stat.ppid == master.pid())).collect()
}

/// All processes below `pid`, deepest last.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(next) = open.pop() {
        let Ok(process) = Process::new(next) else { continue };
        let pids: Vec<i32> = children(&process).iter().map(Process::pid).collect();
        found.extend(&pids);
        open.extend(pids);
    }
    found
}

/// Effective user, group and supplementary groups of a process.
pub fn credentials(pid: i32) -> Option<(u32, Vec<u32>)> {
    let status = Process::new(pid).ok()?.status().ok()?;
    let mut groups = status.groups;
    groups.push(status.egid);
    Some((status.euid, groups))
}

/// Soft limit on open files of a process.
pub fn open_files_limit(pid: i32) -> Option<u64> {
    match Process::new(pid).ok()?.limits().ok()?.max_open_files.soft_limit {
        procfs::process::LimitValue::Value(value) => Some(value),
        procfs::process::LimitValue::Unlimited => None,
    }
}

/// What a process is, for a person; `None`: it is gone.
pub fn describe(pid: i32) -> Option<String> {
    let process = Process::new(pid).ok()?;
    if process.stat().ok()?.state == 'Z' {
        return None;
    }
    let title = title(&process);
    Some(if title.is_empty() {
        "a process of the kernel".to_owned()
    } else {
        title.chars().take(80).collect()
    })
}

/// Workers of `prefix` whose master is gone: they have its error log open, or it as their directory.
pub fn orphans(prefix: &Path) -> Vec<i32> {
    let Ok(prefix) = fs::canonicalize(prefix) else { return Vec::new() };
    let of_prefix = |process: &Process| {
        let inside = |fd: procfs::process::FDInfo| matches!(fd.target, FDTarget::Path(path) if path.starts_with(&prefix));
        process.cwd().is_ok_and(|cwd| cwd == prefix)
            || process.fd().is_ok_and(|fds| fds.filter_map(Result::ok).any(inside))
    };
    let left_alone = |process: &Process| {
        title(process).starts_with(WORKER)
            && process.stat().is_ok_and(|stat| {
                stat.state != 'Z'
                    && !Process::new(stat.ppid).is_ok_and(|parent| title(&parent).starts_with(MASTER))
            })
    };
    let all = procfs::process::all_processes().into_iter().flatten().filter_map(Result::ok);
    all.filter(left_alone).filter(of_prefix).map(|process| process.pid()).collect()
}

/// Environment of whoever started a process, as far as that still lives and may be read.
pub fn parent_environment(pid: i32) -> Vec<(String, String)> {
    let parent = Process::new(pid).and_then(|p| p.stat()).and_then(|stat| Process::new(stat.ppid));
    let Ok(environment) = parent.and_then(|parent| parent.environ()) else { return Vec::new() };
    environment
        .into_iter()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect()
}

pub fn ticks_per_second() -> u64 {
    procfs::ticks_per_second().max(1)
}

/// Now, in clock ticks since boot, as process start times are.
pub fn ticks_now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds * procfs::ticks_per_second() + nanos * procfs::ticks_per_second() / 1_000_000_000
}

/// A moment of the wall clock in ticks since boot; the latest possible when the clock was set back over it.
pub fn ticks_of(moment: SystemTime) -> u64 {
    let age = SystemTime::now().duration_since(moment).unwrap_or(Duration::ZERO);
    let ticks = age.as_millis() * u128::from(procfs::ticks_per_second()) / 1000;
    ticks_now().saturating_sub(u64::try_from(ticks).unwrap_or(u64::MAX))
}

/// Tells boots apart, for what is remembered in ticks.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
