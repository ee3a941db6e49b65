//! Command line of the daemon.

use std::ffi::OsString;
use std::process::ExitCode;

use kctl_shared::daemon::Daemon;

use crate::config::Config;
use crate::ports::Ports;
use crate::server;

const DAEMON: Daemon = Daemon {
    name: "kctl-control-plane",
    about: "One member of kctl's control plane",
    config_env: "KCTL_MEMBER_CONFIG",
    log: "info,openraft=warn,sled=warn,h2=warn,tower=warn",
    threads: 2,
};

/// Runs the daemon; exit codes as [`Daemon::main`].
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    DAEMON.main(args, |config, shutdown| async move {
        server::run(Config::load(&config)?, Ports::default(), shutdown).await
    })
}
