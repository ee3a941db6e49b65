//! A node as it was found: what [`super::diagnose`] decides on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kctl_shared::name::BUNDLED;
use kctl_shared::spec::Failure;

use super::lines::Line;
use crate::gateway::admin_api::{Readiness, Root};
use crate::gateway::dialect::{Dialect, Takes};

/// `None` in an `Option<Result<…>>`: it was not looked at, because something before it failed.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub conf_path: PathBuf,
    pub prefix: PathBuf,
    /// Of this Kong; the newest one's where its version could not be asked.
    pub dialect: Dialect,
    /// What `kong version` says.
    pub version: Option<Result<String, Failure>>,
    pub conf: Option<Result<Conf, Failure>>,
    /// What `kong prepare` makes of the file in an empty environment.
    pub rendered: Option<Result<Rendered, Failure>>,
    /// `.kong_env`: what the next reload loads.
    pub armed: Option<Result<Armed, Failure>>,
    /// `KONG_…` variables of whoever may have started Kong.
    pub environment: BTreeMap<String, String>,
    pub processes: Processes,
    pub api: Api,
    pub log: Words,
    /// Of every plugin that is listed or used and did not come with Kong.
    pub plugins: BTreeMap<String, Files>,
    /// Bundled plugins that stand on the user's own Lua path too.
    pub shadowed: BTreeMap<String, PathBuf>,
    /// What a scratch Kong said of the file's list, the first refusal first; each was left out for the next try.
    /// `None`: it was not tried.
    pub refused: Option<Vec<Refused>>,
    pub database: Database,
    /// What Kong says of the declarative configuration's file.
    pub declarative: Option<Failure>,
    pub disk: Disk,
}

#[derive(Clone, Debug, Default)]
pub struct Conf {
    /// As a person reads it.
    pub lines: Vec<Line>,
    /// Names in `plugins` as Kong reads them.
    pub names: Vec<String>,
    /// Why the names cannot be told from the text.
    pub unmanaged: Option<Failure>,
    pub values: BTreeMap<String, String>,
    pub lua_path: String,
    /// Written after `.kong_env` was.
    pub younger: bool,
    /// Other files that explain what runs, where this one does not.
    pub others: Vec<PathBuf>,
}

#[derive(Clone, Debug, Default)]
pub struct Rendered {
    /// Keys Kong knows.
    pub known: BTreeSet<String>,
    /// Keys whose value runs otherwise than this file renders them, `plugins` and `lua_package_path` left out.
    pub differing: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Armed {
    pub names: Vec<String>,
    pub lua_path: String,
    pub owner: u32,
    /// Kong's master could read it.
    pub readable: bool,
    /// Entries of the `LUA_PATH` that was there when it was rendered and is not there now.
    pub leaked: Vec<String>,
    pub database: String,
    /// What Kong says when it renders just this again.
    pub refused: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Down,
    Held,
    Running,
}

#[derive(Clone, Debug, Default)]
pub struct Processes {
    pub state: State,
    pub master: i32,
    pub user: u32,
    pub serving: usize,
    /// Started before `.kong_env` was written.
    pub older_than_armed: bool,
    /// Pid and age in seconds of workers that finish old requests.
    pub draining: Vec<(i32, u64)>,
    /// Age in seconds of the youngest worker that takes connections.
    pub youngest: u64,
    /// A pid file without its master: the file, the number, and who has it now.
    pub stale_pid: Option<(PathBuf, i32, Option<String>)>,
    /// Workers without a master.
    pub orphans: Vec<i32>,
}

#[derive(Clone, Debug, Default)]
pub struct Api {
    /// `None`: there is none, or Kong does not run.
    pub root: Option<Result<Root, Failure>>,
    pub readiness: Option<Readiness>,
    /// How many configurations use a plugin, and what they are attached to.
    pub uses: BTreeMap<String, Vec<String>>,
}

/// Kong's words in its error log since it last loaded something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The last reload was thrown away.
    pub refused: Option<String>,
    pub emergency: Option<String>,
    pub worker_init: Option<String>,
    pub stale: Option<String>,
    pub runtime: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Where Lua finds the handler, in its order, one for each directory.
    pub handlers: Vec<PathBuf>,
    pub schemas: Vec<PathBuf>,
    pub dangling: Vec<PathBuf>,
    /// What workers may not read or enter.
    pub closed: Vec<PathBuf>,
    /// As whom they would.
    pub reader: u32,
    /// The files are not those of the digest in their path.
    pub changed: Option<String>,
    /// How it shows that it was written for Kong before 3.0.
    pub old_style: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub plugin: Option<String>,
    pub failure: Failure,
}

#[derive(Clone, Debug, Default)]
pub struct Database {
    /// There is one.
    pub used: bool,
    /// What `kong migrations list` says: why it cannot, or what is left to do.
    pub trouble: Option<Failure>,
    /// Names of plugins in use, as far as they were asked for without the Admin API.
    pub in_use: Option<BTreeSet<String>>,
}

#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub full: Option<String>,
    /// Kong's user cannot write the prefix.
    pub closed: Option<String>,
}

impl Facts {
    pub fn conf(&self) -> Option<&Conf> {
        self.conf.as_ref()?.as_ref().ok()
    }

    pub fn armed(&self) -> Option<&Armed> {
        self.armed.as_ref()?.as_ref().ok()
    }

    pub fn rendered(&self) -> Option<&Rendered> {
        self.rendered.as_ref()?.as_ref().ok()
    }

    pub fn root(&self) -> Option<&Root> {
        self.api.root.as_ref()?.as_ref().ok()
    }

    pub fn is_running(&self) -> bool {
        self.processes.state == State::Running
    }

    /// The running Kong has the plugin.
    pub fn is_loaded(&self, plugin: &str) -> bool {
        self.root().is_some_and(|root| root.available.contains_key(plugin))
    }

    /// Names that any configuration uses, where it is known.
    pub fn in_use(&self) -> Option<&BTreeSet<String>> {
        self.root().map(|root| &root.enabled).or(self.database.in_use.as_ref())
    }

    pub fn is_in_use(&self, plugin: &str) -> bool {
        self.in_use().is_some_and(|names| names.contains(plugin))
    }

    /// Where the plugins are listed, as a person calls it.
    pub fn key(&self) -> &'static str {
        self.dialect.key()
    }

    /// The list that the running Kong says it was given, in the words of this program.
    pub fn told(&self) -> Option<Vec<String>> {
        let mut names = self.root()?.configured_plugins.clone()?;
        if self.key() == "custom_plugins" {
            // Those that came with it are loaded anyway.
            names.insert(0, "bundled".into());
        }
        Some(names)
    }

    /// This Kong cannot be told from others, or not be driven: nothing else about the node can be trusted.
    pub fn is_of_no_known_kind(&self) -> bool {
        matches!(&self.version, Some(Err(failure)) if failure.code.starts_with("KONG_VERSION_"))
    }

    /// `-c CONF -p PREFIX`, for commands that are shown.
    pub fn flags(&self) -> String {
        let conf = self.conf_path.display();
        match self.dialect.armed {
            Some(_) => format!("-c {conf} -p {}", self.prefix.display()),
            // The file itself says where.
            None => format!("-c {conf}"),
        }
    }

    pub fn load_command(&self) -> String {
        match self.dialect.takes {
            Takes::Reload => format!("kong prepare {} && {}", self.flags(), self.reload_command()),
            Takes::Restart => format!("kong restart {}", self.flags()),
        }
    }

    /// Without reading kong.conf.
    pub fn reload_command(&self) -> String {
        match self.dialect.armed {
            Some(_) => format!("kong reload -p {}", self.prefix.display()),
            None => format!("kong reload {}", self.flags()),
        }
    }
}

/// A list with `bundled` spelled out.
pub fn expanded(names: &[String]) -> BTreeSet<String> {
    let bundled = names.iter().any(|name| name == "bundled");
    let told = names.iter().filter(|name| *name != "bundled").cloned();
    told.chain(BUNDLED.iter().filter(|_| bundled).map(|n| (*n).to_owned())).collect()
}
