//! The datastore of a node: entities in one JSON file.
//!
//! For `database = postgres` the file belongs to the group: it lies in the directory that `pg_host` names, as a
//! Postgres socket would, and every node that names the same directory and `pg_database` shares it. A directory that
//! is not there is a database that is down. For `database = off` it is the node's own, in the place of Kong's LMDB.

mod declarative;
mod errors;
mod operations;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kong::conf::Conf;

pub use declarative::{ParseError, parse as parse_declarative};
pub use errors::ApiError;
pub use operations::{PageQuery, Scope};

/// The entity kinds a store can hold.
pub const KINDS: [&str; 5] = ["services", "routes", "consumers", "plugins", "keyauth_credentials"];

/// The hash of a configuration that holds nothing.
pub const EMPTY_HASH: &str = "00000000000000000000000000000000";

/// The words with which Kong reports a Postgres that does not answer.
pub const UNREACHABLE: &str =
    "[PostgreSQL error] failed to retrieve PostgreSQL server_version_num: connection refused";

/// Everything a datastore holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Data {
    /// Grows with every write.
    pub version: u64,
    /// MD5 of the declarative configuration the data came from, if it did.
    pub hash: String,
    /// Entities by kind and id; Kong pages through them in this order.
    pub entities: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Default for Data {
    fn default() -> Self {
        Self { version: 0, hash: EMPTY_HASH.to_owned(), entities: BTreeMap::new() }
    }
}

impl Data {
    /// The entities of one kind in id order.
    pub fn all<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.entities.get(kind).into_iter().flat_map(|table| table.values())
    }

    /// The distinct names of all plugin rows, enabled or not.
    pub fn plugin_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.all("plugins").filter_map(|row| row["name"].as_str()).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Kong's complaint about the first plugin row whose plugin is not among `loaded`.
    pub fn in_use_but_not_enabled(&self, loaded: &[String]) -> Option<String> {
        let missing = self.plugin_names().into_iter().find(|name| !loaded.contains(name))?;
        Some(format!("{missing} plugin is in use but not enabled"))
    }
}

/// What identifies a state of the file without reading it.
type Stamp = (u64, i64, i64, u64);

/// Access to one datastore.
#[derive(Debug)]
pub struct Store {
    /// The data; absent while nothing was written.
    path: Option<PathBuf>,
    shared: bool,
    cache: RefCell<Option<(Stamp, Rc<Data>)>>,
}

impl Store {
    /// The datastore a configuration names.
    pub fn new(conf: &Conf) -> Self {
        let shared = conf.has_database();
        let path = if shared {
            let directory = PathBuf::from(conf.text("pg_host"));
            let schema = conf.get("pg_schema").map(|schema| format!(".{schema}")).unwrap_or_default();
            directory
                .is_absolute()
                .then(|| directory.join(format!("{}{schema}.kongdb", conf.text("pg_database"))))
        } else {
            Some(conf.prefix().join(conf.text("lmdb_environment_path")).join("data.mdb"))
        };
        Self { path, shared, cache: RefCell::new(None) }
    }

    /// Whether other nodes may share this store.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whether the database answers.
    pub fn reachable(&self) -> bool {
        self.path.as_ref().and_then(|path| path.parent()).is_some_and(std::path::Path::is_dir)
    }

    /// The present data. Fails when the database is down.
    pub fn read(&self) -> io::Result<Rc<Data>> {
        let path = self.path()?;
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.reachable() => {
                return Ok(Rc::new(Data::default()));
            }
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        let stamp = (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len());
        if let Some((known, data)) = self.cache.borrow().as_ref()
            && *known == stamp
        {
            return Ok(Rc::clone(data));
        }
        let data: Data = if meta.len() == 0 {
            Data::default()
        } else {
            serde_json::from_reader(io::BufReader::new(file)).map_err(io::Error::other)?
        };
        let data = Rc::new(data);
        *self.cache.borrow_mut() = Some((stamp, Rc::clone(&data)));
        Ok(data)
    }

    /// Changes the data under the store's lock. An `Err` of `change` leaves everything as it was.
    pub fn write<T, E: From<io::Error>>(
        &self,
        change: impl FnOnce(&mut Data) -> Result<T, E>,
    ) -> Result<T, E> {
        let path = self.path()?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.with_extension("lock"))
            .map_err(E::from)?;
        lock.lock().map_err(E::from)?;
        let mut data = (*self.read()?).clone();
        let result = change(&mut data)?;
        data.version += 1;
        let text = serde_json::to_vec(&data).map_err(|error| E::from(io::Error::other(error)))?;
        let scratch = path.with_extension(format!("new-{}", std::process::id()));
        let mut file = File::create(&scratch).map_err(E::from)?;
        file.write_all(&text).map_err(E::from)?;
        std::fs::rename(&scratch, path).map_err(E::from)?;
        Ok(result)
    }

    fn path(&self) -> io::Result<&PathBuf> {
        self.path.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))
    }
}
