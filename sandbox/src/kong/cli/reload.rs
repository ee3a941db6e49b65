//! `kong reload`: re-arms the prefix and signals the master. What the master makes of it is not looked at.

use super::args::Args;
use super::{Outcome, Output, loading, verbose};
use crate::kong::db::{Store, UNREACHABLE};
use crate::kong::nginx::signaller;
use crate::kong::{prefix, version};

/// Runs the command.
pub fn run(args: &Args, output: &mut Output) -> Outcome {
    let silent = Args { verbose: false, debug: false, ..args.clone() };
    let given = loading::conf(&silent)?;
    let prefix = given.prefix();
    if prefix::running_master(&prefix).is_none() {
        return Err(format!("nginx not running in prefix: {}", prefix.display()).into());
    }
    let mut text = std::fs::read_to_string(prefix::kong_env(&prefix))
        .map_err(|_| format!("nginx not running in prefix: {}", prefix.display()))?;
    if args.conf.is_some() && version::since(2, 3, 0) {
        // The file is laid over what is in force, so a key that was deleted from it keeps its old value.
        text.push('\n');
        text.push_str(&loading::text(args)?.unwrap_or_default());
    }
    let there = Args { prefix: Some(prefix.clone()), ..Args::default() };
    let mut conf = loading::conf_of(&text, &there)?;
    if given.get("declarative_config").is_none() {
        conf.remove("declarative_config");
    }
    verbose::configuration(args, &conf);
    verbose::verbose(args, || format!("preparing nginx prefix directory at {}", prefix.display()));
    prefix::prepare(&conf)?;
    let store = Store::new(&conf);
    if version::since(3, 0, 0) && store.is_shared() && !store.reachable() {
        return Err(UNREACHABLE.into());
    }
    verbose::debug(args, || format!("sending signal to pid at: {}", prefix::pid_file(&prefix).display()));
    verbose::debug(args, || {
        let nginx = "/usr/local/openresty/nginx/sbin/nginx";
        format!("reloading nginx: {nginx} -p {} -c nginx.conf -s reload", prefix.display())
    });
    if !signaller::reload(&conf) {
        return Err(format!("nginx not running in prefix: {}", conf.text("prefix")).into());
    }
    output.say("Kong reloaded");
    Ok(())
}
