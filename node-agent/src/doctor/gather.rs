//! Looks at a node: files, processes, APIs, and scratch Kongs that touch nothing which runs. Decides nothing.
//!
//! Every probe has a limit, and what could not be looked at is told as such, so that it always comes to an end.

mod plugins;
mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kctl_shared::name::{PluginName, is_bundled};
use kctl_shared::spec::Failure;

use super::facts::{Api, Armed, Conf, Database, Disk, Facts, Processes, State};
use super::{lines, log};
use crate::durable;
use crate::gateway::admin_api::AdminApi;
use crate::gateway::cli::Cli;
use crate::gateway::conf_file::ConfFile;
use crate::gateway::dialect::Grammar;
use crate::gateway::kong_conf::ConfError;
use crate::gateway::kong_env::{self, KongEnv};
use crate::gateway::listen::Listener;
use crate::gateway::process::{self, Tree};

pub use plugins::subject;

/// Kong's own default.
pub const DEFAULT_PREFIX: &str = "/usr/local/kong";
/// One HTTP answer.
const HTTP: Duration = Duration::from_secs(5);

/// Where to look.
#[derive(Clone, Debug)]
pub struct Place {
    pub conf: PathBuf,
    /// `None`: as kong.conf says, or Kong's default.
    pub prefix: Option<PathBuf>,
    pub bin: PathBuf,
    /// One of Kong's commands.
    pub limit: Duration,
}

impl Place {
    pub fn prefix(&self, grammar: Grammar) -> PathBuf {
        let written = || {
            let conf = ConfFile::read(&self.conf, grammar).ok()?;
            let key = if matches!(grammar, Grammar::Yml(_)) { "nginx_working_dir" } else { "prefix" };
            conf.conf.get(key).filter(|p| p.starts_with('/')).map(PathBuf::from)
        };
        let prefix = self.prefix.clone().or_else(written);
        let prefix = prefix.unwrap_or_else(|| DEFAULT_PREFIX.into());
        // nginx's title has no slash at the end.
        prefix.components().collect()
    }
}

/// Everything there is to see; `progress` is told what is being looked at.
pub async fn gather(place: &Place, progress: &(dyn Fn(&str) + Sync)) -> Facts {
    progress("kong version");
    let (version, dialect) = trials::version(place).await;
    let prefix = place.prefix(dialect.grammar);
    let runnable = version.is_ok();
    let mut facts =
        Facts { conf_path: place.conf.clone(), prefix, dialect, version: Some(version), ..Facts::default() };
    if facts.is_of_no_known_kind() {
        return facts;
    }
    progress("kong.conf and the prefix");
    let file = ConfFile::read(&place.conf, dialect.grammar);
    let env = armed_env(file.as_ref(), &facts);
    let tree = Tree::of(&facts.prefix);
    facts.processes = processes(&facts.prefix, tree.as_ref(), env.as_ref().ok());
    facts.environment = starter(tree.as_ref());
    facts.conf = Some(match &file {
        Ok(file) => Ok(conf(file, env.as_ref().ok(), place, dialect.grammar)),
        Err(error) => Err(error.clone().into()),
    });
    facts.armed = Some(env.as_ref().map(|env| armed(env, &facts)).map_err(Clone::clone));
    facts.disk = disk(&facts.prefix, &facts.processes, tree.is_some());
    if let (Ok(env), State::Running) = (&env, facts.processes.state) {
        progress("the Admin API and the Status API");
        facts.api = api(env).await;
    }
    // After the questions: what an Admin API that fails has to say stands there.
    let logs = env
        .as_ref()
        .map_or_else(|_| vec![facts.prefix.join("logs/error.log")], |e| e.error_logs(&facts.prefix));
    facts.log = log::read(&logs);
    facts.database.used = file.as_ref().ok().map_or_else(
        || env.as_ref().is_ok_and(|env| env.database() != "off"),
        |file| file.conf.get("database").is_none_or(|database| database != "off"),
    );
    let cli = Cli { bin: place.bin.clone(), user: user(env.as_ref().ok()), open_files: None };
    let reader = plugins::reader(tree.as_ref(), &facts, env.as_ref().ok());
    if let (Ok(file), true) = (&file, runnable) {
        let trials = trials::Trials { place, cli: &cli, file, env: env.as_ref().ok(), progress };
        trials.run(&mut facts).await;
    }
    progress("the plugins' files");
    plugins::look(&mut facts, &place.bin, &reader);
    let listed = facts.conf().map(|conf| super::facts::expanded(&conf.names)).unwrap_or_default();
    let unknown: Vec<String> = facts
        .in_use()
        .into_iter()
        .flatten()
        .filter(|n| !facts.is_loaded(n) || !listed.contains(*n))
        .cloned()
        .collect();
    if let Ok(env) = &env {
        facts.api.uses = uses(env, facts.api.root.as_ref().is_some_and(Result::is_ok), unknown).await;
    }
    facts
}

/// Kong's commands are run as whoever owns what it rendered last, where there is a choice.
pub(super) fn user(env: Option<&KongEnv>) -> Option<(u32, u32)> {
    let root = rustix::process::geteuid().is_root();
    env.map(|env| env.owner).filter(|owner| root && owner.0 != 0)
}

/// What the next reload loads.
pub(super) fn armed_env(file: Result<&ConfFile, &ConfError>, facts: &Facts) -> Result<KongEnv, Failure> {
    match (facts.dialect.armed, file) {
        (Some(_), _) => KongEnv::read(&facts.prefix, &facts.dialect),
        // nginx reads the node's own file.
        (None, Ok(file)) => KongEnv::of(file, &facts.prefix, facts.dialect),
        (None, Err(error)) => Err(error.clone().into()),
    }
}

fn conf(file: &ConfFile, env: Option<&KongEnv>, place: &Place, grammar: Grammar) -> Conf {
    let names = file.conf.plugins();
    let values = file.conf.to_map();
    let others = match env {
        Some(env) => others(&place.conf, &values, env, grammar),
        None => Vec::new(),
    };
    let (lines, lua_path) = match grammar {
        Grammar::Conf(style) => {
            let written = values.get("lua_package_path").filter(|p| !p.is_empty()).cloned();
            (lines::scan(&file.text), written.unwrap_or_else(|| style.lua_path.into()))
        }
        // It has no lines of its own kind; its Lua path stands in text that only nginx reads.
        Grammar::Yml(_) => (Vec::new(), env.map(|env| env.lua_path().to_owned()).unwrap_or_default()),
    };
    Conf {
        lines,
        unmanaged: names.as_ref().err().map(|e| e.clone().into()),
        names: names.unwrap_or_default(),
        lua_path,
        values,
        younger: env.is_some_and(|env| file.modified > env.modified),
        others,
    }
}

/// Settings whose text in `.kong_env` may be another than in the file although they mean the same.
fn comparable(key: &str) -> bool {
    !key.ends_with("_listen")
}

/// Kong writes switches as `true` and `false`, however they were written.
fn plain(value: &str) -> &str {
    match value {
        "on" => "true",
        "off" => "false",
        value => value,
    }
}

/// Files beside this one, and at Kong's usual places, that contradict nothing which runs where this one does.
fn others(path: &Path, values: &BTreeMap<String, String>, env: &KongEnv, grammar: Grammar) -> Vec<PathBuf> {
    if matches!(grammar, Grammar::Yml(_)) {
        return Vec::new();
    }
    let contradicts = |values: &BTreeMap<String, String>| {
        let differs = |(key, value): &(&String, &String)| {
            comparable(key)
                && !value.is_empty()
                && env.get(key).is_some_and(|running| plain(running) != plain(value))
        };
        values.iter().filter(differs).map(|(key, _)| key.clone()).collect::<BTreeSet<_>>()
    };
    let mine = contradicts(values);
    let beside = path.parent().and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let usual = ["/etc/kong/kong.conf", "/etc/kong.conf"].map(PathBuf::from);
    let beside = beside.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "conf"));
    let mut found: Vec<PathBuf> = beside.chain(usual).collect();
    found.sort();
    found.dedup();
    let me = std::fs::canonicalize(path).ok();
    found.retain(|other| {
        let Ok(file) = ConfFile::read(other, grammar) else { return false };
        let theirs = file.conf.to_map();
        let explains =
            mine.iter().any(|key| theirs.get(key).map(|value| plain(value)) == env.get(key).map(plain));
        std::fs::canonicalize(other).ok() != me
            && file.modified <= env.modified
            && theirs.get("prefix").map(String::as_str) == env.get("prefix")
            && contradicts(&theirs).is_empty()
            && explains
    });
    found
}

fn armed(env: &KongEnv, facts: &Facts) -> Armed {
    let leaked = kong_env::stray_lua_path(&facts.prefix, env.lua_path());
    let master = facts.processes.user;
    let down = facts.processes.state == State::Down;
    Armed {
        names: env.plugins().unwrap_or_default(),
        lua_path: env.lua_path().to_owned(),
        owner: env.owner.0,
        readable: down
            || master == 0
            || master == env.owner.0
            || facts.dialect.armed.is_none()
            || plugins::may_read(&KongEnv::path(&facts.prefix, &facts.dialect), master),
        leaked,
        database: env.database().to_owned(),
        refused: None,
    }
}

fn processes(prefix: &Path, tree: Option<&Tree>, env: Option<&KongEnv>) -> Processes {
    let pid = process::pid_file(prefix);
    let stale = |(path, pid): (PathBuf, i32)| (path, pid, process::describe(pid));
    let Some(tree) = tree else {
        let stale_pid = pid.map(stale);
        return Processes { stale_pid, orphans: process::orphans(prefix), ..Processes::default() };
    };
    let now = process::ticks_now();
    let age = |started: u64| now.saturating_sub(started) / process::ticks_per_second();
    let armed_at = env.map(|env| process::ticks_of(env.modified));
    Processes {
        state: if tree.stopped { State::Held } else { State::Running },
        master: tree.master.pid,
        user: process::credentials(tree.master.pid).map_or(0, |(user, _)| user),
        serving: tree.serving().count(),
        older_than_armed: armed_at.is_some_and(|at| tree.serving().any(|worker| worker.started + 200 < at)),
        youngest: tree.serving().map(|worker| age(worker.started)).min().unwrap_or_default(),
        draining: tree.draining().map(|worker| (worker.pid, age(worker.started))).collect(),
        stale_pid: pid.filter(|(_, pid)| *pid != tree.master.pid).map(stale),
        orphans: Vec::new(),
    }
}

/// `KONG_…` variables of this process and of the master's parent: nginx overwrites its own.
fn starter(tree: Option<&Tree>) -> BTreeMap<String, String> {
    let own = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let parent = tree.map(|tree| process::parent_environment(tree.master.pid)).unwrap_or_default();
    own.chain(parent).filter(|(key, _)| key.starts_with("KONG_")).collect()
}

fn disk(prefix: &Path, processes: &Processes, runs: bool) -> Disk {
    let full = durable::ensure_room(&[prefix], 0).err().map(|e| e.message);
    let user = if runs { processes.user } else { rustix::process::geteuid().as_raw() };
    let shown = prefix.display();
    let read_only =
        rustix::fs::statvfs(prefix).is_ok_and(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let closed = if read_only {
        Some(format!("{shown} is on a file system that is mounted read-only"))
    } else if prefix.is_dir() && !plugins::may_write(prefix, user) {
        Some(format!("{shown} cannot be written by user {user}, as which Kong's master runs"))
    } else {
        None
    };
    Disk { full, closed }
}

async fn api(env: &KongEnv) -> Api {
    let plain = |key: &str| Listener::parse(env.get(key)).address();
    let ask = |key: &str| plain(key).and_then(|address| AdminApi::new(address, HTTP).ok());
    let mut api = Api::default();
    if let Some(admin) = ask("admin_listen") {
        api.root = Some(admin.root().await);
    }
    if let Some(status) = ask("status_listen") {
        api.readiness = status.readiness().await.ok();
    }
    api
}

/// What each of the names is attached to.
async fn uses(env: &KongEnv, answers: bool, names: Vec<String>) -> BTreeMap<String, Vec<String>> {
    let address = Listener::parse(env.get("admin_listen")).address().filter(|_| answers);
    let mut uses = BTreeMap::new();
    let Some(admin) = address.and_then(|address| AdminApi::new(address, HTTP).ok()) else { return uses };
    for name in names {
        let Ok(plugin) = unbundled(&name) else { continue };
        if let Ok(Ok(found)) = tokio::time::timeout(HTTP, admin.entities(&plugin)).await {
            let shown = |e: &kctl_shared::spec::Entity| {
                if e.target.is_empty() { e.scope.clone() } else { e.target.clone() }
            };
            uses.insert(name, found.iter().map(shown).collect());
        }
    }
    uses
}

fn unbundled(name: &str) -> Result<PluginName, Failure> {
    PluginName::parse(name).map_err(|e| Failure::new(e.code, e.message))
}

/// Names that are nobody's but a plugin's.
pub(super) fn custom<'a>(names: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    let all = names.into_iter().filter(|name| *name != "bundled" && !is_bundled(name) && !name.contains('/'));
    all.cloned().collect()
}

/// Whether the database answers, from the running Kong.
pub(super) async fn database_reachable(env: &KongEnv) -> Option<bool> {
    let admin = AdminApi::new(Listener::parse(env.get("admin_listen")).address()?, HTTP).ok()?;
    admin.database_reachable().await.ok()?
}

pub(super) fn trouble(code: &str, words: impl Into<String>) -> Database {
    Database { used: true, trouble: Some(Failure::new(code, words)), in_use: None }
}
