//! The master's life after start: signals in, workers out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::{Cycle, Failure, Worker, binds, cycle};
use crate::kong::shm::Shared;
use crate::kong::{log, prefix, raw, version};

/// Old workers are told to go this long after the new ones were started.
const HANDOVER: Duration = Duration::from_millis(100);
/// How long the master sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);
/// After a fast stop was asked for, workers that are still there after this are killed.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// One worker as the master sees it.
#[derive(Debug)]
struct Child {
    /// Its number within its generation.
    number: usize,
    generation: u64,
}

#[derive(Debug)]
struct Master<'a> {
    prefix: &'a Path,
    title: Option<raw::Title>,
    cycle: Cycle,
    shared: Shared,
    node_id: &'a str,
    generation: u64,
    children: BTreeMap<i32, Child>,
    /// When the workers of older generations are told to drain.
    handover: Option<Instant>,
    /// Set by QUIT or TERM: nothing is respawned any more.
    stopping: Option<Stop>,
}

#[derive(Debug, Clone, Copy)]
struct Stop {
    kill_at: Option<Instant>,
}

/// Serves until told to stop; returns when the last worker is gone.
pub fn run(prefix: &Path, title: Option<raw::Title>, cycle: Cycle, shared: Shared, node_id: &str) {
    let mut master = Master {
        prefix,
        title,
        cycle,
        shared,
        node_id,
        generation: 1,
        children: BTreeMap::new(),
        handover: None,
        stopping: None,
    };
    master.spawn_all();
    while !(master.stopping.is_some() && master.children.is_empty()) {
        let signal = raw::wait_signal(master.patience());
        if let Some(signal) = signal {
            master.on_signal(signal);
        }
        master.on_time();
    }
    // Gone already if somebody cleaned up the prefix.
    let _ = std::fs::remove_file(prefix::pid_file(prefix));
    log::write("notice", "exit");
}

impl Master<'_> {
    fn patience(&self) -> Duration {
        let kill_at = self.stopping.and_then(|stop| stop.kill_at);
        let next = [self.handover, kill_at].into_iter().flatten().min();
        next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()))
    }

    fn on_signal(&mut self, signal: raw::Signal) {
        let sender = signal.sender;
        match signal.number {
            1 => {
                log::write("notice", &format!("signal 1 (SIGHUP) received from {sender}, reconfiguring"));
                if self.stopping.is_none() {
                    self.reconfigure();
                }
            }
            2 | 15 => {
                let name = if signal.number == 2 { "SIGINT" } else { "SIGTERM" };
                log::write(
                    "notice",
                    &format!("signal {} ({name}) received from {sender}, exiting", signal.number),
                );
                self.stopping = Some(Stop { kill_at: Some(Instant::now() + KILL_AFTER) });
                self.tell(Signal::TERM, |_| true);
            }
            3 => {
                log::write("notice", &format!("signal 3 (SIGQUIT) received from {sender}, shutting down"));
                self.stopping = Some(Stop { kill_at: None });
                self.cycle.listeners.clear();
                self.tell(Signal::QUIT, |_| true);
            }
            17 => {
                log::write("notice", &format!("signal 17 (SIGCHLD) received from {sender}"));
                self.reap();
            }
            _ => {}
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if self.handover.is_some_and(|at| at <= now) {
            self.handover = None;
            let generation = self.generation;
            self.tell(Signal::QUIT, |child| child.generation < generation);
        }
        if let Some(Stop { kill_at: Some(at) }) = self.stopping
            && at <= now
        {
            self.stopping = Some(Stop { kill_at: None });
            self.tell(Signal::KILL, |_| true);
        }
    }

    /// Builds a new cycle; the old one goes on if that fails.
    fn reconfigure(&mut self) {
        log::write("notice", "reconfiguring");
        let conf = match cycle::read_conf(self.prefix) {
            Ok(conf) => conf,
            Err(error) => return log::write("emerg", &error),
        };
        let log_path = self.prefix.join(conf.text("proxy_error_log"));
        if let Err(error) = log::open(&log_path, conf.text("log_level")) {
            return log::write("emerg", &format!("open() \"{}\" failed ({error})", log_path.display()));
        }
        let mut cycle = match Cycle::init(self.prefix, conf, self.shared, self.node_id, false) {
            Ok(cycle) => cycle,
            // It ended the process, and the workers were left to themselves.
            Err(Failure::Lua(error)) if version::is_ancient() => {
                log::write("error", &format!("[lua] kong.lua:141: init(): Startup error: {error}"));
                self.tell(Signal::TERM, |_| true);
                std::process::exit(1);
            }
            Err(Failure::Lua(error)) => return log::write("error", &format!("init_by_lua error: {error}")),
            Err(Failure::Conf(error)) => return log::write("emerg", &error),
        };
        let complain = |line: &str| {
            log::write("emerg", line);
            log::write("notice", "try again to bind() after 500ms");
        };
        match binds::open(&cycle.conf, &self.cycle.listeners, complain) {
            Ok(listeners) => cycle.listeners = listeners,
            Err(()) => return log::write("emerg", "still could not bind()"),
        }
        self.cycle = cycle;
        self.generation += 1;
        log::write("notice", "start worker processes");
        self.spawn_all();
        self.handover = Some(Instant::now() + HANDOVER);
    }

    fn spawn_all(&mut self) {
        for number in 0..self.cycle.workers {
            self.spawn(number);
        }
    }

    /// Forks one worker from the memory of the present cycle.
    fn spawn(&mut self, number: usize) {
        match raw::fork_process() {
            Ok(raw::Fork::Child) => {
                let worker = Worker {
                    number,
                    cycle: &self.cycle,
                    shared: self.shared,
                    title: self.title.as_ref(),
                    master: rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get()),
                };
                std::process::exit(worker.run());
            }
            Ok(raw::Fork::Parent(pid)) => {
                log::write("notice", &format!("start worker process {pid}"));
                self.children.insert(pid, Child { number, generation: self.generation });
            }
            Err(error) => {
                log::write("alert", &format!("fork() failed while spawning \"worker process\" ({error})"))
            }
        }
    }

    fn tell(&self, signal: Signal, which: impl Fn(&Child) -> bool) {
        for (pid, _) in self.children.iter().filter(|(_, child)| which(child)) {
            if let Some(pid) = Pid::from_raw(*pid) {
                // A worker that is gone already is reaped next.
                let _ = kill_process(pid, signal);
            }
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = waitpid(None, WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            if let Some(signal) = status.terminating_signal() {
                log::write("alert", &format!("worker process {pid} exited on signal {signal}"));
            } else {
                let code = status.exit_status().unwrap_or_default();
                log::write("notice", &format!("worker process {pid} exited with code {code}"));
            }
            if let Some(child) = self.children.remove(&pid)
                && child.generation == self.generation
                && self.stopping.is_none()
            {
                self.spawn(child.number);
            }
        }
    }
}
