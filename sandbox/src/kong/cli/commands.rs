//! The small commands: check, drain, health, migrations, prepare, version.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use super::args::Args;
use super::{Failure, Outcome, Output, loading, verbose};
use crate::kong::conf::{Conf, DEFAULT_FILES, Sources};
use crate::kong::db::{Store, UNREACHABLE};
use crate::kong::{log, prefix, version};

/// `kong version`.
pub fn version(args: &Args, output: &mut Output) -> Outcome {
    if args.all {
        output.say(format!(
            "Kong: {}\nngx_lua: 10026\nnginx: 1025003\nLua: LuaJIT 2.1-20231117",
            version::played()
        ));
    } else {
        output.say(version::played().to_string());
    }
    Ok(())
}

/// `kong check`: validates a file and knows nothing of plugins.
pub fn check(args: &Args, output: &mut Output) -> Outcome {
    let path = args.words.first().map_or_else(|| PathBuf::from(DEFAULT_FILES[0]), PathBuf::from);
    let complain = |errors: Vec<String>| {
        let lines: String =
            errors.iter().map(|error| format!("{} [error] {error}\n", log::timestamp())).collect();
        Failure::Plain(lines)
    };
    let text = Conf::read_file(&path).map_err(|error| complain(vec![error]))?;
    verbose::reading(args, &path);
    let conf =
        Conf::load(&Sources { text: Some(&text), environment: true, prefix: None }).map_err(complain)?;
    verbose::configuration(args, &conf);
    output.say(format!("configuration at {} is valid", path.display()));
    Ok(())
}

/// `kong prepare`: regenerates the prefix and signals nobody.
pub fn prepare(args: &Args, output: &mut Output) -> Outcome {
    let conf = loading::conf(args)?;
    create(&conf, output)?;
    prefix::prepare(&conf)
        .map_err(|error| format!("could not prepare Kong prefix at {}: {error}", conf.text("prefix")))?;
    Ok(())
}

/// Creates what a prefix lacks, and says so at the end of the output if that was everything.
pub fn create(conf: &Conf, output: &mut Output) -> Outcome {
    let prefix = conf.prefix();
    let new = prefix::create(conf)
        .map_err(|error| format!("could not prepare Kong prefix at {}: {error}", prefix.display()))?;
    if new {
        output.say_last(format!("prefix directory {} not found, trying to create it", prefix.display()));
    }
    Ok(())
}

/// `kong health`: whether the pid file's process is alive, no more.
pub fn health(args: &Args, output: &mut Output) -> Outcome {
    let prefix = loading::prefix(args)?;
    let shown = prefix.display();
    if !prefix.exists() {
        return Err(format!("no such prefix: {shown}").into());
    }
    if !prefix::kong_env(&prefix).exists() {
        return Err(format!("Kong is not running at {shown}").into());
    }
    if prefix::running_master(&prefix).is_some() {
        output.say(format!("nginx.......running\n\nKong is healthy at {shown}"));
        return Ok(());
    }
    output.say("nginx.......not running");
    Err(format!("Kong is not running at {shown}").into())
}

/// `kong drain`: tells the first status listener; exits 0 even when nobody hears it.
pub fn drain(args: &Args, output: &mut Output) -> Outcome {
    let conf = loading::prefix_conf(args)?;
    let Some(listener) = conf.listeners("status_listen").iter().find(|listener| !listener.ssl) else {
        output.say("No status listeners found in configuration.");
        return Ok(());
    };
    let call = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&listener.address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let body = "{\"status\":\"draining\"}";
        write!(
            stream,
            "POST /status HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            listener.address,
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 204"))
    };
    match call() {
        Ok(true) => output.say("Kong's status successfully changed to 'draining'"),
        Ok(false) => output.say("Failed to send request to Kong"),
        Err(error) => output.say(format!("Failed to send request to Kong: {error}")),
    }
    Ok(())
}

/// `kong migrations`: the stand-in's store needs none, so every verb finds the work done.
pub fn migrations(args: &Args, output: &mut Output) -> Outcome {
    let conf = loading::conf(args)?;
    let store = Store::new(&conf);
    if store.is_shared() && !store.reachable() {
        return Err(UNREACHABLE.into());
    }
    match args.words.first().map(String::as_str) {
        Some("list") => output.say("Executed migrations:\n                 core: 000_base, 024_380_to_390"),
        Some("bootstrap" | "up") => output.say("Database is already up-to-date"),
        Some("finish") => output.say("No pending migrations to finish"),
        Some("status") => output.say("{\n  \"needs_bootstrap\": false\n}"),
        _ => return Err("missing or unknown command for kong migrations".into()),
    }
    Ok(())
}
