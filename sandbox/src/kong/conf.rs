//! Kong's configuration as its command line computes it: defaults, file, environment, arguments.

mod defaults;
pub mod grammar;
pub mod listen;
mod shown;
pub mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use defaults::{BUNDLED_PLUGINS, Kind};
use listen::Listener;

use super::version;

/// Where `kong` looks when no `-c` is given.
pub const DEFAULT_FILES: [&str; 2] = ["/etc/kong/kong.conf", "/etc/kong.conf"];

/// Where a configuration's text comes from.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// Text of the configuration file.
    pub text: Option<&'a str>,
    /// Whether `KONG_*` variables of this process count; the running master ignores them.
    pub environment: bool,
    /// Value of `-p`.
    pub prefix: Option<&'a Path>,
}

/// A complete configuration.
#[derive(Debug, Clone)]
pub struct Conf {
    values: BTreeMap<String, String>,
    /// Listeners by setting: `proxy_listen`, `admin_listen`, `status_listen`, …
    listeners: BTreeMap<&'static str, Vec<Listener>>,
}

const LISTENS: [&str; 6] =
    ["proxy_listen", "admin_listen", "status_listen", "stream_listen", "cluster_listen", "admin_gui_listen"];

const LOG_LEVELS: [&str; 8] = ["debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"];

impl Conf {
    /// Merges the sources. The error is the list of Kong's complaints, one line each.
    pub fn load(sources: &Sources<'_>) -> Result<Self, Vec<String>> {
        let mut values = defaults();
        if let Some(text) = sources.text {
            for (key, value) in grammar::parse(text) {
                set(&mut values, key, value);
            }
        }
        if sources.environment {
            for (key, value) in std::env::vars() {
                let Some(key) = key.strip_prefix("KONG_") else { continue };
                set(&mut values, key.to_ascii_lowercase(), value);
            }
        }
        if let Some(prefix) = sources.prefix {
            values.insert("prefix".to_owned(), prefix.display().to_string());
        }
        Self::complete(values)
    }

    /// The file of a Kong before 0.9; nothing else counts for it.
    pub fn of_yaml(text: &str) -> Result<Self, Vec<String>> {
        let mut values = defaults();
        values.extend(yaml::parse(text).map_err(|error| vec![error])?);
        Self::complete(values)
    }

    /// Reads a file for [`Sources::text`]; the error is Kong's.
    pub fn read_file(path: &Path) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("no file at: {}", path.display()),
            _ => format!("could not read {}: {error}", path.display()),
        })
    }

    fn complete(mut values: BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        values.retain(|key, value| !(value.is_empty() && kind(key) != Some(Kind::List)));
        for (key, value) in &mut values {
            match kind(key) {
                Some(Kind::Bool) => match value.to_ascii_lowercase().as_str() {
                    "on" | "true" => *value = "true".to_owned(),
                    "off" | "false" => *value = "false".to_owned(),
                    _ => errors.push(format!("{key} is not a boolean: '{value}'")),
                },
                Some(Kind::Number) if value.parse::<f64>().is_err() => {
                    errors.push(format!("{key} is not a number: '{value}'"));
                }
                Some(Kind::List) => *value = grammar::items(value).join(","),
                _ => {}
            }
        }
        choice(&values, "log_level", &LOG_LEVELS, &mut errors);
        let databases: &[&str] = if version::since(1, 1, 0) { &["postgres", "off"] } else { &["postgres"] };
        choice(&values, "database", databases, &mut errors);
        choice(&values, "role", &["data_plane", "control_plane", "traditional"], &mut errors);
        choice(
            &values,
            "router_flavor",
            &["traditional", "traditional_compatible", "expressions"],
            &mut errors,
        );

        let prefix = values.get("prefix").map(PathBuf::from).unwrap_or_default();
        let prefix = std::path::absolute(&prefix).unwrap_or(prefix);
        let prefix = prefix.display().to_string();
        values.insert("prefix".to_owned(), prefix.clone());
        for (key, path) in defaults::DERIVED_PATHS {
            values.insert((*key).to_owned(), path.replace("{}", &prefix));
        }
        let mut listeners = BTreeMap::new();
        for key in LISTENS {
            match listen::parse(key, values.get(key).map_or("off", String::as_str)) {
                Ok(parsed) => {
                    let ssl = parsed.iter().any(|listener| listener.ssl);
                    let flag = key.replace("_listen", "_ssl_enabled").replace("stream_", "stream_proxy_");
                    if key != "cluster_listen" {
                        values.insert(flag, ssl.to_string());
                    }
                    listeners.insert(key, parsed);
                }
                Err(error) => errors.push(error),
            }
        }
        for (derived, from) in [
            ("nginx_main_worker_processes", "nginx_worker_processes"),
            ("nginx_main_daemon", "nginx_daemon"),
            ("nginx_main_user", "nginx_user"),
        ] {
            if let (None, Some(value)) = (values.get(derived), values.get(from)) {
                let value = value.clone();
                values.insert(derived.to_owned(), value);
            }
        }
        if errors.is_empty() { Ok(Self { values, listeners }) } else { Err(errors) }
    }

    /// A setting's text; lists are comma joined, booleans `true` or `false`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// A setting's text, empty when it has none.
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    /// A numeric setting.
    pub fn number(&self, key: &str) -> f64 {
        self.text(key).parse().unwrap_or_default()
    }

    /// Drops a setting.
    pub fn remove(&mut self, key: &str) {
        self.values.remove(key);
    }

    /// The prefix directory.
    pub fn prefix(&self) -> PathBuf {
        PathBuf::from(self.text("prefix"))
    }

    /// Whether a datastore is shared with other nodes (`database = postgres`).
    pub fn has_database(&self) -> bool {
        self.text("database") == "postgres"
    }

    /// The addresses of one of the `*_listen` settings.
    pub fn listeners(&self, key: &str) -> &[Listener] {
        self.listeners.get(key).map_or(&[], Vec::as_slice)
    }

    /// The names in `plugins`, with `bundled` spelled out. `off` first means none at all, elsewhere it is skipped.
    pub fn loaded_plugins(&self) -> Vec<String> {
        let mut items = match (version::since(0, 14, 0), version::since(0, 6, 0)) {
            (true, _) => grammar::items(self.text("plugins")),
            (false, true) => vec!["bundled".to_owned()],
            (false, false) => Vec::new(),
        };
        if items.first().is_some_and(|item| item == "off") {
            items.clear();
        }
        if !version::since(1, 0, 0) {
            items.extend(grammar::items(self.text("custom_plugins")));
        }
        let mut seen = BTreeSet::new();
        let mut names = Vec::new();
        for item in items {
            let expanded: Vec<String> = match item.as_str() {
                "off" => Vec::new(),
                "bundled" => BUNDLED_PLUGINS.iter().map(|name| (*name).to_owned()).collect(),
                _ => vec![item],
            };
            for name in expanded {
                if seen.insert(name.clone()) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// The body of `.kong_env`: every setting that has a value.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

fn set(values: &mut BTreeMap<String, String>, key: String, value: String) {
    let dynamic = ["nginx_", "pluginserver_", "vault_"].iter().any(|family| key.starts_with(family));
    if dynamic || kind(&key).is_some() {
        values.insert(key, value);
    }
}

/// What holds without a file.
fn defaults() -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = defaults::DEFAULTS
        .iter()
        .filter(|(key, ..)| kind(key).is_some())
        .map(|(key, _, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    if !version::since(3, 6, 0) {
        values.insert("status_listen".to_owned(), "off".to_owned());
    }
    if !version::since(0, 11, 1) {
        values.insert("lua_package_path".to_owned(), "?/init.lua;./kong/?.lua".to_owned());
    }
    if !version::since(3, 0, 0) {
        values.insert("admin_gui_listen".to_owned(), "off".to_owned());
    }
    values
}

fn kind(key: &str) -> Option<Kind> {
    // Settings that are older or younger than the rest of the table.
    match key {
        "custom_plugins" => return (!version::since(1, 0, 0)).then_some(Kind::List),
        "plugins" if !version::since(0, 14, 0) => return None,
        _ => {}
    }
    let default = defaults::DEFAULTS.iter().find(|(name, _, _)| *name == key).map(|(_, kind, _)| *kind);
    default.or_else(|| defaults::OPTIONAL.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind))
}

fn choice(values: &BTreeMap<String, String>, key: &str, allowed: &[&str], errors: &mut Vec<String>) {
    if let Some(value) = values.get(key)
        && !allowed.contains(&value.as_str())
    {
        errors.push(format!("{key} has an invalid value: '{value}' ({})", allowed.join(", ")));
    }
}
