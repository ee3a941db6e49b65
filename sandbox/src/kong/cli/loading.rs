//! Which configuration a command works with.

use std::path::{Path, PathBuf};

use super::args::Args;
use super::verbose;
use crate::kong::conf::{Conf, DEFAULT_FILES, Sources};
use crate::kong::prefix;

/// The file of `-c`, or the first default that is there.
fn file(args: &Args) -> Option<PathBuf> {
    args.conf.clone().or_else(|| DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.exists()))
}

fn from_text(text: Option<&str>, prefix: Option<&Path>) -> Result<Conf, String> {
    Conf::load(&Sources { text, environment: true, prefix }).map_err(|errors| errors.join("\n"))
}

/// Text of the configuration file, if there is one.
pub fn text(args: &Args) -> Result<Option<String>, String> {
    file(args).map(|path| Conf::read_file(&path)).transpose()
}

/// The configuration from file, environment and arguments.
pub fn conf(args: &Args) -> Result<Conf, String> {
    let text = text(args)?;
    if let Some(file) = file(args) {
        verbose::reading(args, &file);
    }
    let conf = from_text(text.as_deref(), args.prefix.as_deref())?;
    verbose::configuration(args, &conf);
    Ok(conf)
}

/// The configuration from `TEXT`, environment and arguments.
pub fn conf_of(text: &str, args: &Args) -> Result<Conf, String> {
    from_text(Some(text), args.prefix.as_deref())
}

/// The configuration of a command that only looks at a prefix: what `.kong_env` says wins over any file.
pub fn prefix_conf(args: &Args) -> Result<Conf, String> {
    let given = conf(args)?;
    let prefix = given.prefix();
    match std::fs::read_to_string(prefix::kong_env(&prefix)) {
        Ok(text) => from_text(Some(&text), Some(&prefix)),
        Err(_) => Ok(given),
    }
}

/// The prefix of a command that takes only `-p`.
pub fn prefix(args: &Args) -> Result<PathBuf, String> {
    match &args.prefix {
        Some(prefix) => Ok(prefix.clone()),
        None => Ok(conf(args)?.prefix()),
    }
}
