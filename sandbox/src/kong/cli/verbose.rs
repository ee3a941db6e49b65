//! What `--v` and `--vv` add: each line with its time and level, and the whole configuration at level debug.

use std::path::Path;

use serde_json::Value;

use super::args::Args;
use crate::kong::conf::Conf;
use crate::kong::{log, version};

/// A line of level verbose.
pub fn verbose(args: &Args, line: impl FnOnce() -> String) {
    if args.verbose {
        println!("{} [verbose] {}", log::timestamp(), line());
    }
}

/// A line of level debug.
pub fn debug(args: &Args, line: impl FnOnce() -> String) {
    if args.debug {
        println!("{} [debug] {}", log::timestamp(), line());
    }
}

/// Who speaks.
pub fn versions(args: &Args) {
    verbose(args, || format!("Kong: {}", version::played()));
    for line in ["ngx_lua: 10026", "nginx: 1025003", "Lua: LuaJIT 2.1-20231117"] {
        debug(args, || line.to_owned());
    }
}

/// Where the configuration is read from.
pub fn reading(args: &Args, file: &Path) {
    verbose(args, || format!("reading config file at {}", file.display()));
    debug(args, || "reading environment variables".to_owned());
}

/// The configuration that came of it.
pub fn configuration(args: &Args, conf: &Conf) {
    verbose(args, || format!("prefix in use: {}", conf.prefix().display()));
    if !args.debug {
        return;
    }
    let shown = conf.to_json();
    for (key, value) in shown.as_object().into_iter().flatten().filter(|(key, _)| is_told(key)) {
        debug(args, || format!("{key} = {}", lua(value)));
    }
}

/// Whether it is a setting, and not what Kong makes of several later on.
fn is_told(key: &str) -> bool {
    let made = ["_listeners", "_directives", "_ssl_enabled"];
    let late =
        ["enabled_headers", "enabled_headers_upstream", "loaded_plugins", "loaded_vaults", "pluginservers"];
    !made.iter().any(|end| key.ends_with(end)) && !late.contains(&key)
}

/// A value as Kong writes Lua's on one line.
fn lua(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(",")),
        Value::Object(_) => "{}".to_owned(),
        other => other.to_string(),
    }
}
