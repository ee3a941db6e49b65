//! Kong's executable, the disk and the prefix.

use crate::doctor::{Facts, Finding, Repair};
use crate::gateway::dialect::Takes;

pub fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(Err(failure)) = &facts.version {
        let fix = match failure.code.as_str() {
            "KONG_NOT_FOUND" => "name Kong's executable: --kong /usr/local/bin/kong",
            "KONG_VERSION_UNSUPPORTED" => "upgrade Kong; `kctl conf` still edits its file",
            "KONG_VERSION_UNKNOWN" => "name Kong's own executable with --kong, or upgrade kctl",
            _ => "run it by hand and see what it does: kong version",
        };
        let hint = if facts.is_of_no_known_kind() {
            "nothing else was looked at: how to read such a node is not known"
        } else {
            "plugins could not be tried in a scratch Kong without it"
        };
        found.push(Finding::of(failure).detail(hint).fix(fix));
    }
    if let Some(full) = &facts.disk.full {
        found.push(Finding::error("DISK_FULL", full).fix(format!("df -h {}", facts.prefix.display())));
    }
    if let Some(closed) = &facts.disk.closed {
        let prefix = facts.prefix.display();
        found.push(
            Finding::error("PREFIX_NOT_WRITABLE", closed).fix(format!(
                "chown {prefix} to the user Kong runs as, or remount its file system read-write"
            )),
        );
    }
    match &facts.armed {
        Some(Err(failure)) if failure.code == "PREFIX_UNREADABLE" => {
            found.push(Finding::of(failure).fix("run this as root or as Kong's user"));
        }
        Some(Err(failure)) if facts.conf().is_some() => {
            let finding = Finding::warning(&failure.code, &failure.message).fix(format!(
                "name the prefix Kong runs with (--prefix), or: {}",
                if facts.dialect.takes == Takes::Restart {
                    format!("kong start {}", facts.flags())
                } else {
                    format!("kong prepare {}", facts.flags())
                }
            ));
            found.push(finding);
        }
        Some(Ok(armed)) if !armed.readable => found.push(
            Finding::error(
                "KONG_ENV_OWNER",
                format!(
                    "{} belongs to user {}, and Kong's master runs as user {} and cannot read it",
                    facts.prefix.join(".kong_env").display(),
                    armed.owner,
                    facts.processes.user
                ),
            )
            .detail("the next reload by anybody is thrown away")
            .fix(format!("chown -R {} {}", facts.processes.user, facts.prefix.display()))
            .repair(Repair::Owner {
                path: facts.prefix.clone(),
                user: facts.processes.user,
                group: facts.processes.user,
            }),
        ),
        _ => {}
    }
    found
}
