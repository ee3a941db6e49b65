//! Command line of the daemon.

use std::ffi::OsString;
use std::process::ExitCode;

use kctl_shared::daemon::Daemon;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
    raise_open_files();
    DAEMON.main(args, |config, shutdown| async move {
        server::run(Config::load(&config)?, Ports::default(), shutdown).await
    })
}

/// Up to what the system allows: each agent has a connection or two, and without asking a process mostly gets 1024.
pub fn raise_open_files() {
    let most = getrlimit(Resource::Nofile).maximum;
    let _denied = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
}
