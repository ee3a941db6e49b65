//! The process tree: a master that initialises Kong's Lua and forks workers from its own memory.

mod binds;
mod cycle;
mod fresh;
mod master;
mod serve;
pub mod signaller;
mod timers;
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use crate::kong::{log, prefix, raw, shm, version};
use cycle::{Cycle, Failure};
use worker::Worker;

pub use serve::{Incoming, Reply};

/// Hidden first argument that makes `kong` the nginx of a prefix.
pub const VERB: &str = "standin-nginx";

/// The title of a master, which is also that of a worker in its first moments.
fn master_title(prefix: &std::path::Path) -> String {
    format!(
        "nginx: master process /usr/local/openresty/nginx/sbin/nginx -p {} -c nginx.conf",
        prefix.display()
    )
}

/// The command that starts the nginx of a prefix: this executable again.
pub fn command(prefix: &std::path::Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    // The last argument only makes room: the title is written over the arguments and must fit.
    command
        .arg0(format!("kong-{}", version::played()))
        .arg(VERB)
        .arg(prefix)
        .arg("-".repeat(128))
        .stdin(Stdio::null());
    command
}

/// Runs as the nginx of a prefix: `args` are those after [`VERB`].
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(prefix) = args.next().map(PathBuf::from) else { return ExitCode::FAILURE };
    raw::block_signals();
    let title = raw::Title::claim();
    if let Some(title) = &title {
        title.set(&master_title(&prefix));
    }
    // Kong's own processes are called nginx; a name that cannot be set only looks different in `ps`.
    let _ = rustix::thread::set_name(c"nginx");
    match start(&prefix, title) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprint!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn start(prefix: &std::path::Path, title: Option<raw::Title>) -> Result<(), String> {
    let conf = cycle::read_conf(prefix).map_err(|error| format!("nginx: [emerg] {error}\n"))?;
    let level = conf.text("log_level").to_owned();
    let log_path = prefix.join(conf.text("proxy_error_log"));
    log::open(&log_path, &level).map_err(|error| {
        format!("nginx: [alert] could not open error log file: {}: {error}\n", log_path.display())
    })?;
    // Relative entries of lua_package_path are meant relative to the prefix.
    std::env::set_current_dir(prefix).map_err(|error| format!("nginx: [emerg] chdir() failed: {error}\n"))?;
    let shared = shm::Shared::new().map_err(|error| format!("nginx: [emerg] mmap() failed: {error}\n"))?;
    let node_id = conf.get("node_id").map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let mut cycle = Cycle::init(prefix, conf, shared, &node_id, true).map_err(|failure| match failure {
        Failure::Lua(error) => {
            if version::is_ancient() {
                log::write("error", &format!("[lua] kong.lua:141: init(): Startup error: {error}"));
                return format!("nginx: [error] Startup error: {error}\n");
            }
            log::write("error", &format!("init_by_lua error: {error}"));
            format!("nginx: [error] init_by_lua error: {error}\n")
        }
        Failure::Conf(error) => format!("nginx: [emerg] {error}\n"),
    })?;
    cycle.listeners = binds::open(&cycle.conf, &[], |line| eprintln!("nginx: [emerg] {line}"))
        .map_err(|()| "nginx: [emerg] still could not bind()\n".to_owned())?;
    let pid_file = prefix::pid_file(prefix);
    let own =
        |pid: i32| std::fs::write(&pid_file, format!("{pid}\n")).map_err(|e| format!("nginx: [emerg] {e}\n"));
    if cycle.conf.text("nginx_main_daemon") == "on" {
        match raw::fork_process().map_err(|error| format!("nginx: [emerg] fork() failed: {error}\n"))? {
            raw::Fork::Parent(pid) => return own(pid),
            raw::Fork::Child => {
                // A session leader already is the only way this fails, and that is what is wanted.
                let _ = rustix::process::setsid();
            }
        }
    } else {
        own(i32::try_from(std::process::id()).unwrap_or_default())?;
    }
    log::write("notice", "using the \"epoll\" event method");
    log::write("notice", "openresty/1.25.3.2");
    log::write("notice", "start worker processes");
    master::run(prefix, title, cycle, shared, &node_id);
    Ok(())
}
