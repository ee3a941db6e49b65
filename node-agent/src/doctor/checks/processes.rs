//! Kong's processes.

use crate::doctor::facts::State;
use crate::doctor::{Facts, Finding, Repair};

/// For so long after a reload old workers are nothing strange.
const TURNOVER_SECONDS: u64 = 10;

pub fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let (processes, prefix) = (&facts.processes, facts.prefix.display());
    match processes.state {
        State::Running => {}
        State::Held => found.push(
            Finding::error(
                "KONG_STOPPED",
                format!("Kong's master (process {}) is held and does nothing", processes.master),
            )
            .detail("it was sent SIGSTOP, or a debugger is attached")
            .fix(format!("kill -CONT {}", processes.master))
            .repair_if_allowed(Repair::Continue(processes.master)),
        ),
        State::Down => found.push(down(facts)),
    }
    if let Some((file, pid, other)) = &processes.stale_pid {
        let finding = match other {
            None => Finding::warning(
                "STALE_PID_FILE",
                format!("{} names process {pid}, which is gone", file.display()),
            ),
            Some(other) => Finding::error(
                "STALE_PID_FILE",
                format!("{} names process {pid}, which is {other}, not Kong", file.display()),
            )
            .detail("`kong start` says it is already running, `kong health` says it is healthy"),
        };
        found.push(finding.fix(format!("rm {}", file.display())).repair(Repair::RemoveFile(file.clone())));
    }
    if !processes.orphans.is_empty() {
        let pids = processes.orphans.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        found.push(
            Finding::error(
                "ORPHAN_WORKERS",
                format!("workers of {prefix} live on without their master: {pids}"),
            )
            .detail("they hold the ports, so a new Kong cannot start")
            .fix(format!("kill {pids}"))
            .repair_if_allowed(Repair::End(processes.orphans.clone())),
        );
    }
    let lingering = processes.youngest >= TURNOVER_SECONDS;
    if let Some(oldest) = processes.draining.iter().map(|(_, age)| *age).max().filter(|_| lingering) {
        let count = processes.draining.len();
        found.push(
            Finding::warning("OLD_WORKERS", format!("{count} worker(s) of an earlier configuration still serve requests, the oldest for {oldest} s"))
                .detail("they run the code they were started with; files it may still read must stay")
                .fix("wait, or bound it with nginx_main_worker_shutdown_timeout in kong.conf"),
        );
    }
    found
}

fn down(facts: &Facts) -> Finding {
    let finding = Finding::error("KONG_DOWN", format!("no Kong runs in {}", facts.prefix.display()));
    let finding = match facts.log.refused.as_ref().or(facts.log.emergency.as_ref()) {
        Some(words) => finding.detail("the last words in its log:").says(words),
        None => finding,
    };
    finding.fix(format!("start it with its supervisor, or: kong start {}", facts.flags()))
}
