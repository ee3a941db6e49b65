//! `.kong_env`: what Kong last rendered for a prefix from file, environment and command line.
//!
//! It is in kong.conf's grammar, in random order, and describes what the *next* HUP loads; Kong deletes and re-creates it
//! with every `prepare` and `reload`. Empty values are left out of it. Kong 0.9 calls it `kong.conf`; before that there is
//! none, and the node's own file says what the next reload loads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kctl_shared::nginx::NginxSetting;
use kctl_shared::spec::Failure;
use sha2::{Digest as _, Sha256};

use super::conf_file::ConfFile;
use super::dialect::{Dialect, Grammar};
use super::kong_conf::OurPath;
use super::kong_conf::{Comments, DEFAULT_LUA_PATH, Style};
use super::node_conf::NodeConf;
use super::process;

/// The values that are ours to change; everything else must stay as it is.
const OURS: [&str; 3] = ["plugins", "custom_plugins", "lua_package_path"];

#[derive(Clone, Debug)]
pub struct KongEnv {
    values: BTreeMap<String, String>,
    conf: NodeConf,
    /// Of the Kong that rendered it.
    pub dialect: Dialect,
    pub modified: SystemTime,
    /// Who rendered it: Kong's commands have to be run as this user, or the master cannot read the next one.
    pub owner: (u32, u32),
}

impl KongEnv {
    pub fn path(prefix: &Path, dialect: &Dialect) -> PathBuf {
        prefix.join(dialect.armed.unwrap_or(".kong_env"))
    }

    /// # Errors
    /// `NOT_PREPARED` when no Kong was ever started with this prefix, or a `prepare` was killed in the middle;
    /// `PREFIX_UNREADABLE`.
    pub fn read(prefix: &Path, dialect: &Dialect) -> Result<Self, Failure> {
        Self::from_file(&Self::path(prefix, dialect), dialect)
    }

    /// # Errors
    /// As [`Self::read`].
    pub fn from_file(path: &Path, dialect: &Dialect) -> Result<Self, Failure> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                let message = format!(
                    "{} is not there or empty: no Kong was started with this prefix yet",
                    path.display()
                );
                Failure::new("NOT_PREPARED", message)
            }
            _ => Failure::new("PREFIX_UNREADABLE", format!("{} cannot be read ({error})", path.display())),
        };
        let metadata = fs::metadata(path).map_err(failed)?;
        // Whatever Kong's own rules for comments were, it wrote none behind its values.
        let grammar = match dialect.grammar {
            Grammar::Conf(style) => Grammar::Conf(Style { comments: Comments::Unescaped, ..style }),
            Grammar::Yml(key) => Grammar::Yml(key),
        };
        let conf = NodeConf::parse(&fs::read(path).map_err(failed)?, grammar)?;
        if conf.get("prefix").is_none() {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let owner = (metadata.uid(), metadata.gid());
        Ok(Self { values: conf.to_map(), conf, dialect: *dialect, modified, owner })
    }

    /// What the own file of a Kong before 0.9 says, under the names that later ones use.
    ///
    /// # Errors
    /// `PREFIX_DIFFERS` when the file names another directory.
    pub fn of(file: &ConfFile, prefix: &Path, dialect: Dialect) -> Result<Self, Failure> {
        let conf = &file.conf;
        let there = conf.get("nginx_working_dir").unwrap_or_else(|| "/usr/local/kong/".into());
        if !process::is_same(Path::new(&there), prefix) {
            let message = format!(
                "the file's nginx_working_dir is {there}, and the prefix that was named is {}; make them one",
                prefix.display()
            );
            return Err(Failure::new("PREFIX_DIFFERS", message));
        }
        let admin = conf.get("admin_api_listen").unwrap_or_else(|| {
            format!("0.0.0.0:{}", conf.get("admin_api_port").unwrap_or_else(|| "8001".into()))
        });
        let mut values = BTreeMap::from([
            ("prefix".to_owned(), there),
            ("admin_listen".to_owned(), admin),
            ("database".to_owned(), conf.get("database").unwrap_or_else(|| "cassandra".into())),
        ]);
        values.insert("lua_package_path".into(), rendered_lua_path(prefix).unwrap_or_default());
        let owner = fs::metadata(prefix).map_or(file.owner, |m| (m.uid(), m.gid()));
        Ok(Self { values, conf: conf.clone(), dialect, modified: file.modified, owner })
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    pub fn seconds(&self, key: &str, default: f64) -> f64 {
        self.get(key).and_then(|v| v.parse().ok()).unwrap_or(default)
    }

    /// Names in `plugins`, as the next HUP reads them.
    pub fn plugins(&self) -> Result<Vec<String>, Failure> {
        Ok(self.conf.plugins()?)
    }

    pub fn generation(&self, ours: &OurPath) -> Option<PathBuf> {
        self.conf.generation(ours)
    }

    /// What Kong handed on to nginx.
    pub fn nginx(&self) -> BTreeSet<NginxSetting> {
        self.conf.nginx()
    }

    pub fn users_lua_path(&self, ours: &OurPath) -> String {
        self.conf.users_lua_path(ours)
    }

    pub fn lua_path(&self) -> &str {
        self.get("lua_package_path").unwrap_or(DEFAULT_LUA_PATH)
    }

    pub fn role(&self) -> &str {
        self.get("role").unwrap_or("traditional")
    }

    pub fn database(&self) -> &str {
        self.get("database").unwrap_or("postgres")
    }

    /// Equal for nodes that share a database; empty without one.
    pub fn datastore(&self) -> String {
        if self.database() == "off" {
            return String::new();
        }
        let part = |key: &str, default: &str| self.get(key).unwrap_or(default).to_owned();
        let parts = [
            part("pg_host", "127.0.0.1"),
            part("pg_port", "5432"),
            part("pg_database", "kong"),
            part("pg_schema", ""),
        ];
        hex::encode(Sha256::digest(parts.join("\n")))
    }

    /// Milliseconds until every worker of the group has forgotten a deleted entity: nodes poll for events, wait a
    /// configured while, and then their workers rebuild on a timer.
    pub fn propagation_ms(&self) -> u64 {
        if self.database() == "off" {
            return 0;
        }
        let seconds = self.seconds("db_update_frequency", 5.0)
            + self.seconds("db_update_propagation", 0.0)
            + self.seconds("worker_state_update_frequency", 5.0);
        // The rebuild itself.
        ((seconds + 1.0) * 1000.0).max(0.0) as u64
    }

    /// Number of workers, when it is written as a number.
    pub fn worker_processes(&self) -> Option<usize> {
        self.get("nginx_main_worker_processes").or_else(|| self.get("nginx_worker_processes"))?.parse().ok()
    }

    /// Log files of the main and the Admin API server that can be read back.
    pub fn error_logs(&self, prefix: &Path) -> Vec<PathBuf> {
        let configured =
            ["proxy_error_log", "admin_error_log"].map(|key| self.get(key).unwrap_or("logs/error.log"));
        let mut paths: Vec<PathBuf> = Vec::new();
        for value in configured {
            // `path level`; `syslog:…` and `stderr` are not files.
            let name = value.split_whitespace().next().unwrap_or_default();
            let path = prefix.join(name);
            if !name.is_empty() && !name.starts_with("syslog:") && name != "stderr" && !paths.contains(&path)
            {
                paths.push(path);
            }
        }
        paths
    }

    /// Keys whose value differs in `other`, which was rendered into `others_prefix`; what is ours to change left out.
    pub fn differences(&self, prefix: &Path, other: &Self, others_prefix: &Path) -> BTreeSet<String> {
        let (here, there) = (prefix.to_string_lossy(), others_prefix.to_string_lossy());
        let keys: BTreeSet<&String> = self.values.keys().chain(other.values.keys()).collect();
        let differs = |key: &&&String| {
            let theirs = other.get(key).map(|value| value.replace(&*there, &here));
            !OURS.contains(&key.as_str()) && self.get(key) != theirs.as_deref()
        };
        keys.iter().filter(differs).map(|key| (**key).clone()).collect()
    }

    /// Equal for equal settings beside our two, whatever their order in the file.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.values)
    }

    /// A key whose value is kept in an environment variable; its text is not in the file.
    pub fn secret_from_environment(&self) -> Option<&str> {
        self.values.iter().find(|(_, value)| value.contains("{vault://env/")).map(|(key, _)| key.as_str())
    }

    /// `KONG_<KEY>` assignments that make Kong's command line arrive at this file's values for `keys`. A value that is
    /// absent here was set to nothing.
    pub fn as_environment(&self, keys: &BTreeSet<String>) -> BTreeMap<String, String> {
        keys.iter()
            .map(|k| (format!("KONG_{}", k.to_uppercase()), self.get(k).unwrap_or_default().to_owned()))
            .collect()
    }
}

/// Over all settings but ours.
pub fn fingerprint(values: &BTreeMap<String, String>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for text in
        values.iter().filter(|(key, _)| !OURS.contains(&key.as_str())).flat_map(|(key, value)| [key, value])
    {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    }
    hasher.finalize().into()
}

/// `lua_package_path` as nginx got it: `<conf value>;<LUA_PATH of the command>;;`.
pub fn rendered_lua_path(prefix: &Path) -> Option<String> {
    let files = ["nginx-kong.conf", "nginx.conf"].map(|name| prefix.join(name));
    let text = files.iter().find_map(|path| fs::read_to_string(path).ok())?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("lua_package_path")?.trim().strip_suffix(';'))?;
    Some(line.trim().trim_matches('\'').to_owned())
}

/// Entries that `LUA_PATH` of the command that rendered `prefix` added to `lua_path`, the path of its settings. Kong's own
/// executable may be a script that sets it.
pub fn stray_lua_path(prefix: &Path, lua_path: &str) -> Vec<String> {
    let rendered = rendered_lua_path(prefix).unwrap_or_default();
    let tail = rendered.strip_prefix(lua_path).unwrap_or_default();
    tail.split(';').filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}
