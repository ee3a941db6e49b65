//! `nginx -s reload` and its kind: what the command line does to a running master.

use std::path::Path;

use rustix::process::{Signal, kill_process};

use crate::kong::conf::Conf;
use crate::kong::{log, prefix};

/// Sends a signal to the master of a prefix. False when none runs there.
pub fn send(prefix: &Path, signal: Signal) -> bool {
    prefix::running_master(prefix).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Asks the master to reconfigure itself, with the line nginx leaves in the log.
pub fn reload(conf: &Conf) -> bool {
    let prefix = conf.prefix();
    if log::open(&prefix.join(conf.text("proxy_error_log")), conf.text("log_level")).is_ok() {
        log::write("notice", "signal process started");
    }
    send(&prefix, Signal::HUP)
}
