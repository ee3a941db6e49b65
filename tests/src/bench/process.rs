//! Processes that end with whoever started them, and what they use.

use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use procfs::process::Process;

/// What a member is allowed to by its unit file.
const OPEN_FILES: u64 = 65_536;

#[derive(Debug)]
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// As if its machine had gone.
    pub fn kill(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }

    /// Time it computed for until now.
    pub fn computed(&self) -> Duration {
        let stat = Process::new(self.pid().cast_signed()).and_then(|p| p.stat()).unwrap();
        Duration::from_secs_f64((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
    }

    /// KiB of memory that are its own.
    pub fn memory(&self) -> u64 {
        memory(&self.pid().to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Lets this process, and those it starts, open as many files as the system allows; returns how many that are.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    // Only root may raise what is allowed.
    let _denied =
        setrlimit(Resource::Nofile, Rlimit { maximum: now.maximum.map(|most| most.max(OPEN_FILES)), ..now });
    kctl_control_plane::entry::raise_open_files();
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// KiB of anonymous memory of a process, or of `self`.
pub fn memory(pid: &str) -> u64 {
    field(pid, "RssAnon")
}

/// A figure of `/proc/PID/status` in KiB.
pub fn field(pid: &str, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
