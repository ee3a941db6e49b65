//! start, stop, quit, restart.

use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::args::Args;
use super::{Outcome, Output, commands, loading};
use crate::kong::conf::Conf;
use crate::kong::db::{Store, UNREACHABLE};
use crate::kong::nginx::{self, signaller};
use crate::kong::{lua, prefix};

/// How often a command looks whether the master is gone.
const LOOK: Duration = Duration::from_millis(100);
/// How long `stop` stays until its master is gone.
const STOP_WAIT: Duration = Duration::from_millis(500);
/// How long `restart` waits for the old master.
pub const RESTART_WAIT: Duration = Duration::from_secs(5);
/// How long `quit` waits unless told otherwise.
const QUIT_TIMEOUT: f64 = 10.0;

/// `kong start`.
pub fn start(args: &Args, output: &mut Output) -> Outcome {
    let conf = loading::conf(args)?;
    start_with(&conf, output)
}

fn start_with(conf: &Conf, output: &mut Output) -> Outcome {
    let prefix = conf.prefix();
    if prefix::running_master(&prefix).is_some() {
        return Err(format!("Kong is already running in {}", prefix.display()).into());
    }
    commands::create(conf, output)?;
    prefix::prepare(conf)?;
    let store = Store::new(conf);
    if store.is_shared() && !store.reachable() {
        return Err(UNREACHABLE.into());
    }
    launch(conf, &prefix, None)?;
    output.say("Kong started");
    Ok(())
}

/// Runs nginx; as a daemon its first process returns once the master stands. `file`: what the master reads itself.
pub fn launch(conf: &Conf, prefix: &Path, file: Option<&Path>) -> Result<(), String> {
    let mut command = nginx::command(prefix);
    if let Some(file) = file {
        command.env("KONG_CONF", file);
    }
    if conf.text("nginx_main_daemon") != "on" {
        // In the foreground the command becomes nginx, so that a supervisor's signals reach the master.
        return Err(format!("could not start nginx: {}", command.exec()));
    }
    // A file, not a pipe: the daemon keeps the descriptor.
    let failed = |error: std::io::Error| format!("could not start nginx: {error}");
    let mut errors = tempfile::tempfile().map_err(failed)?;
    let sink = errors.try_clone().map_err(failed)?;
    let status = command.stdout(Stdio::null()).stderr(sink).status().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    errors.rewind().and_then(|()| errors.read_to_string(&mut text)).map_err(failed)?;
    Err(format!("{}/kong/cmd/start.lua:99: {text}", lua::KONG_LUA))
}

/// `kong stop`: TERM, and back without asking whether it helped. Kong's own command takes longer to end than its master
/// does, so that a start right after it never meets the old one; this one is quick and has to give it the time.
pub fn stop(args: &Args, output: &mut Output) -> Outcome {
    let prefix = loading::prefix(args)?;
    signal(&prefix, Signal::TERM)?;
    gone_within(&prefix, STOP_WAIT);
    output.say("Kong stopped");
    Ok(())
}

fn signal(prefix: &Path, signal: Signal) -> Result<(), String> {
    if !prefix.exists() {
        return Err(format!("no such prefix: {}", prefix.display()));
    }
    if !signaller::send(prefix, signal) {
        return Err(format!("nginx not running in prefix: {}", prefix.display()));
    }
    Ok(())
}

/// `kong quit`: lets requests finish for a while.
pub fn quit(args: &Args, output: &mut Output) -> Outcome {
    let prefix = loading::prefix(args)?;
    if let Some(wait) = args.wait
        && prefix::running_master(&prefix).is_some()
    {
        sleep(Duration::from_secs_f64(wait.clamp(0.0, 3600.0)));
    }
    signal(&prefix, Signal::QUIT)?;
    let timeout = Duration::from_secs_f64(args.timeout.unwrap_or(QUIT_TIMEOUT).clamp(0.0, 86_400.0));
    if gone_within(&prefix, timeout) {
        output.say("Kong stopped (gracefully)");
        return Ok(());
    }
    signal(&prefix, Signal::TERM)?;
    output.say("Timeout, Kong stopped forcefully");
    Ok(())
}

pub fn gone_within(prefix: &Path, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while prefix::running_master(prefix).is_some() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK.min(deadline.saturating_duration_since(Instant::now())));
    }
    true
}

/// `kong restart`: stop if it runs, then start; a start that fails leaves nothing running.
pub fn restart(args: &Args, output: &mut Output) -> Outcome {
    let conf = loading::conf(args)?;
    let prefix = conf.prefix();
    if signal(&prefix, Signal::TERM).is_ok() {
        output.say("Kong stopped");
        gone_within(&prefix, RESTART_WAIT);
    }
    start_with(&conf, output)
}
