//! `kong config parse`: loads every plugin, then reads a declarative file.

use std::path::PathBuf;
use std::rc::Rc;

use super::args::Args;
use super::{Outcome, Output, commands, loading};
use crate::kong::lua::{Engine, Host, Phase, paths};

/// Runs the command.
pub fn run(args: &Args, output: &mut Output) -> Outcome {
    let (verb, file) = (args.words.first().map(String::as_str), args.words.get(1));
    let file = match (verb, file) {
        (Some("parse"), Some(file)) => PathBuf::from(file),
        (Some("parse"), None) => {
            return Err("expected a declarative configuration file; see `kong config --help`".into());
        }
        _ => return Err("missing or unknown command for kong config".into()),
    };
    let conf = loading::prefix_conf(args)?;
    commands::create(&conf, output)?;
    let search = paths::command_line(&conf);
    let host = Rc::new(Host::new(conf, uuid::Uuid::new_v4().to_string(), Phase::Cli, Some(file)));
    host.worker_id.set(Some(0));
    let engine = Engine::new(host, &search).map_err(|error| error.to_string())?;
    engine.config_parse()?;
    output.say("parse successful");
    Ok(())
}
