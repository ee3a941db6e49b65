//! The command line of Kong before 0.9, as far as a node is driven by it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::process::Signal;

use super::lifecycle;
use crate::kong::conf::{Conf, yaml};
use crate::kong::nginx::signaller;
use crate::kong::{prefix, version};

const DEFAULT_FILE: &str = "/etc/kong/kong.yml";

/// Runs a command line without the program's name.
pub fn main(words: &[String]) -> ExitCode {
    let help = format!(
        "Usage: kong <command>\n\n  where <command> is one of:\n    start, restart, reload, stop, quit, version\n\nkong@{}",
        version::played()
    );
    let Some(verb) = words.first() else {
        println!("Missing <command>\n\n{help}");
        return ExitCode::FAILURE;
    };
    let outcome = match verb.as_str() {
        "version" | "--version" => {
            println!("Kong version: {}", version::played());
            return ExitCode::SUCCESS;
        }
        "start" => start(words),
        "restart" => stop(words, Signal::TERM).and_then(|_| start(words)),
        "reload" => reload(words),
        "stop" => stop(words, Signal::TERM),
        "quit" => stop(words, Signal::QUIT),
        unknown => {
            println!("Invalid <command>: {unknown}\n\n{help}");
            return ExitCode::FAILURE;
        }
    };
    match outcome {
        Ok(said) => {
            println!("[OK] {said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("[ERR] {}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn file(words: &[String]) -> PathBuf {
    let at = words.iter().position(|word| matches!(word.as_str(), "-c" | "--config"));
    let path = at.and_then(|at| words.get(at + 1)).map_or(DEFAULT_FILE, String::as_str);
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

fn read(path: &Path) -> Result<(Conf, String), String> {
    let text =
        std::fs::read_to_string(path).map_err(|_| format!("No configuration file at: {}", path.display()))?;
    let conf = Conf::of_yaml(&text).map_err(|errors| errors.join("\n"))?;
    Ok((conf, yaml::nginx(&text)))
}

fn start(words: &[String]) -> Result<&'static str, String> {
    let path = file(words);
    let (conf, nginx) = read(&path)?;
    let there = conf.prefix();
    if prefix::running_master(&there).is_some() {
        return Err("Kong is currently running".to_owned());
    }
    prefix::create(&conf)
        .and_then(|_| std::fs::write(there.join("nginx.conf"), nginx))
        .map_err(|e| e.to_string())?;
    lifecycle::launch(&conf, &there, Some(&path))
        .map_err(|error| format!("{error}\n[ERR] Could not start Kong"))?;
    Ok("Started")
}

/// The master reads the file anew; nginx.conf was written when it started, and stays.
fn reload(words: &[String]) -> Result<&'static str, String> {
    let (conf, nginx) = read(&file(words))?;
    if prefix::running_master(&conf.prefix()).is_none() {
        return Err("Kong is not running".to_owned());
    }
    if !version::since(0, 6, 0) {
        std::fs::write(conf.prefix().join("nginx.conf"), nginx).map_err(|e| e.to_string())?;
    }
    if signaller::reload(&conf) { Ok("Reloaded") } else { Err("could not send signal".to_owned()) }
}

fn stop(words: &[String], signal: Signal) -> Result<&'static str, String> {
    let (conf, _) = read(&file(words))?;
    signaller::send(&conf.prefix(), signal);
    lifecycle::gone_within(&conf.prefix(), lifecycle::RESTART_WAIT);
    Ok("Stopped")
}
