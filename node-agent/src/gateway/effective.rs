//! What a prefix would be rendered to, compared with what runs in it: a `prepare` in the wrong environment would silently
//! set a node that takes its settings from the environment back to Kong's defaults.
//!
//! The master's own environment cannot be read (nginx overwrites it), so it is inferred: a setting that kong.conf and
//! Kong's defaults do not explain came from the environment, and is replayed to every command as `KONG_<KEY>`. A line
//! that somebody edited and did not load looks the same and gets the same treatment: the running settings stay as they
//! are, and the difference is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use kctl_shared::name::BUNDLED;
use kctl_shared::nginx::NginxSetting;
use kctl_shared::spec::Failure;
use sha2::{Digest as _, Sha256};

use super::cli::Cli;
use super::conf_file::ConfFile;
use super::kong_conf::OurPath;
use super::kong_env::{self, KongEnv};
use super::node_conf::NodeConf;
use super::process::ProcessId;
use super::scratch::Scratch;

/// Environment of Kong's commands beyond PATH and HOME.
pub type Environment = BTreeMap<String, String>;

/// What was inferred, as long as the same master runs.
#[derive(Debug, Default)]
pub struct Inferred {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    master: Option<ProcessId>,
    keys: BTreeSet<String>,
    /// What was compared last and found equal.
    fingerprint: Option<[u8; 32]>,
    /// Keys that kong.conf sets otherwise than they run.
    overridden: BTreeSet<String>,
}

impl Inferred {
    /// Keys that kong.conf sets to something that does not run.
    pub fn overridden(&self) -> BTreeSet<String> {
        self.lock().overridden.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The environment in which `text`, rendered with `cli`, gives the settings that run now.
    ///
    /// # Errors
    /// `EFFECTIVE_CONFIG_DIFFERS` with the names of the settings (values may be secrets); `SECRETS_FROM_ENVIRONMENT`;
    /// `CONF_REFUSED` with Kong's words when it does not take `text` at all.
    pub async fn settle(
        &self,
        renderer: &Renderer<'_>,
        text: &[u8],
        armed: &KongEnv,
        master: Option<ProcessId>,
    ) -> Result<Environment, Failure> {
        let conf = NodeConf::parse(text, armed.dialect.grammar)?;
        let fingerprint = fingerprint(&conf, armed);
        if let Some(key) = armed.secret_from_environment() {
            let message = format!(
                "the value of {key} is a reference to an environment variable that only Kong's supervisor knows; a reload without it would \
                 lose it; let the supervisor do it, or keep the value in the conf or another vault"
            );
            return Err(Failure::new("SECRETS_FROM_ENVIRONMENT", message));
        }
        let remembered = {
            let mut known = self.lock();
            if known.master != master {
                *known = Known { master, ..Known::default() };
            }
            if known.fingerprint == Some(fingerprint) {
                return Ok(armed.as_environment(&known.keys));
            }
            &known.keys - renderer.ours
        };
        let compare = async |environment: &Environment| -> Result<BTreeSet<String>, Failure> {
            renderer.render(text, environment, armed).await
        };
        let mut keys = remembered;
        let mut left = compare(&armed.as_environment(&keys)).await?;
        if !left.is_empty() {
            if !keys.is_empty() {
                left = compare(&Environment::new()).await?;
            }
            keys = left;
            left = compare(&armed.as_environment(&keys)).await?;
        }
        if !left.is_empty() {
            let names = left.into_iter().collect::<Vec<_>>().join(", ");
            let message = format!(
                "rendering kong.conf anew would change more of the running Kong than its plugins: {names}; reload Kong by hand once, or \
                 put these settings right"
            );
            return Err(Failure::new("EFFECTIVE_CONFIG_DIFFERS", message));
        }
        let environment = armed.as_environment(&keys);
        let mut known = self.lock();
        known.overridden = keys
            .iter()
            .filter(|k| conf.get(k).is_some_and(|v| Some(v.as_str()) != armed.get(k)))
            .cloned()
            .collect();
        known.keys = keys;
        known.fingerprint = Some(fingerprint);
        Ok(environment)
    }
}

/// Over everything but the two values that are ours, which have no influence on the others.
fn fingerprint(conf: &NodeConf, armed: &KongEnv) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(kong_env::fingerprint(&conf.to_map()));
    hasher.update(armed.fingerprint());
    hasher.finalize().into()
}

/// What renders a conf beside a Kong: its own command line, in the way its version has it.
#[derive(Clone, Copy, Debug)]
pub struct Renderer<'a> {
    pub cli: &'a Cli,
    /// Of the running Kong.
    pub prefix: &'a Path,
    /// For one command.
    pub limit: Duration,
    /// Keys with lines of ours for nginx: what they come out as is looked at by [`check_nginx`].
    pub ours: &'a BTreeSet<String>,
}

impl Renderer<'_> {
    /// Renders `text` into a scratch prefix: the settings that come out otherwise than they are armed.
    pub async fn render(
        &self,
        text: &[u8],
        environment: &Environment,
        armed: &KongEnv,
    ) -> Result<BTreeSet<String>, Failure> {
        let Self { cli, prefix, limit, ours } = *self;
        let scratch = Scratch::new(prefix, cli.user)?;
        let conf = scratch.write("kong.conf", text)?;
        let there = scratch.prefix();
        let (conf, there_text) = (conf.to_string_lossy(), there.to_string_lossy());
        let ended = cli.run(&["prepare", "-c", &conf, "-p", &there_text], environment, limit).await?;
        if !ended.succeeded() {
            return Err(Failure::new(
                "CONF_REFUSED",
                ended.words().replace(&*there_text, &prefix.to_string_lossy()),
            ));
        }
        let here = armed.get("prefix").map_or(prefix, Path::new);
        let rendered = KongEnv::read(&there, &armed.dialect)?;
        let mut differences = armed.differences(here, &rendered, &there);
        differences.retain(|key| !ours.contains(key));
        // `LUA_PATH` is in nginx's configuration only. What Kong's command brings by itself it brings again.
        let brought = kong_env::stray_lua_path(&there, rendered.lua_path());
        if kong_env::stray_lua_path(prefix, armed.lua_path()).iter().any(|entry| !brought.contains(entry)) {
            differences.insert("LUA_PATH (environment)".into());
        }
        Ok(differences)
    }
}

/// Refuses when `plugins` or `lua_package_path` of the running Kong do not come from kong.conf: an edit would have no
/// effect, or another one than meant. `ours` are the names that may differ.
///
/// # Errors
/// `ENV_OVERRIDES_CONF`, or `EFFECTIVE_CONFIG_DIFFERS` when the file is younger than what runs.
pub fn check_directives(
    conf: &ConfFile,
    armed: &KongEnv,
    path: &OurPath,
    ours: &BTreeSet<String>,
) -> Result<(), Failure> {
    let younger = conf.modified > armed.modified;
    let running = expanded(armed.plugins()?);
    let written = expanded(conf.conf.plugins()?);
    let lost: Vec<&String> = running.difference(&written).filter(|name| !ours.contains(*name)).collect();
    let gained: Vec<&String> = written.difference(&running).filter(|name| !ours.contains(*name)).collect();
    let names = |list: &[&String]| list.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
    if !lost.is_empty() && younger {
        let message = format!(
            "kong.conf was edited after Kong last read it and lacks plugins that run: {}; reload Kong by hand, or list them again",
            names(&lost)
        );
        return Err(Failure::new("EFFECTIVE_CONFIG_DIFFERS", message));
    }
    // A younger file may list more: the next reload is meant to load it.
    if !lost.is_empty() || (!gained.is_empty() && !younger) {
        let (what, list) = if lost.is_empty() { ("lacks", names(&gained)) } else { ("has", names(&lost)) };
        let message = format!(
            "the running Kong {what} {list} against its kong.conf: KONG_PLUGINS is set where Kong is started, and editing the file would \
             have no effect; take it away there"
        );
        return Err(Failure::new("ENV_OVERRIDES_CONF", message));
    }
    if armed.users_lua_path(path) != conf.conf.users_lua_path(path) {
        let (code, why) = if younger {
            ("EFFECTIVE_CONFIG_DIFFERS", "kong.conf was edited after Kong last read it; reload Kong by hand")
        } else {
            ("ENV_OVERRIDES_CONF", "KONG_LUA_PACKAGE_PATH is set where Kong is started; take it away there")
        };
        return Err(Failure::new(
            code,
            format!("the running `lua_package_path` is not the one of kong.conf: {why}"),
        ));
    }
    Ok(())
}

/// Refuses when the running Kong gives nginx directives, beside those of a setting that is ours to add to, which neither
/// kong.conf nor we explain: they came from where Kong is started, and a line in the file would have no effect there, or
/// take them away here.
///
/// Only of directives that may be said several times: what else runs under the same key may be Kong's own default.
///
/// # Errors
/// `ENV_OVERRIDES_CONF`, or `EFFECTIVE_CONFIG_DIFFERS` when the file is younger than what runs.
pub fn check_nginx(conf: &ConfFile, armed: &KongEnv, ours: &BTreeSet<NginxSetting>) -> Result<(), Failure> {
    let keys: BTreeSet<&str> = ours.iter().filter(|s| s.is_repeatable()).map(|s| s.key.as_str()).collect();
    let explained = &conf.conf.users_nginx() | ours;
    let running = armed.nginx();
    let foreign = running.iter().find(|s| keys.contains(s.key.as_str()) && !explained.contains(*s));
    let Some(setting) = foreign else { return Ok(()) };
    let key = &setting.key;
    let (code, why) = if conf.modified > armed.modified {
        ("EFFECTIVE_CONFIG_DIFFERS", "it was edited after Kong last read it; reload Kong by hand".to_owned())
    } else {
        let variable = format!("KONG_{}", key.to_uppercase());
        ("ENV_OVERRIDES_CONF", format!("{variable} is set where Kong is started; take it away there"))
    };
    Err(Failure::new(code, format!("`{setting}` runs and is not in kong.conf: {why}")))
}

fn expanded(names: Vec<String>) -> BTreeSet<String> {
    let bundled = names.iter().any(|name| name == "bundled");
    let all = names.into_iter().filter(|name| name != "bundled");
    all.chain(BUNDLED.iter().filter(|_| bundled).map(|n| (*n).to_owned())).collect()
}
