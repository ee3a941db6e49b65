//! What must be true of a node at every instant, looked at from outside.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// Name and content of each file.
pub type Files = BTreeSet<(String, String)>;

/// A node whose kong.conf and load path are whole at every look.
#[derive(Debug)]
pub struct Watched<'a> {
    pub conf: PathBuf,
    plugin: &'a str,
    /// What kctl does not own of it.
    foreign: Vec<String>,
    releases: &'a [Files],
}

/// The lines of a kong.conf that kctl writes.
fn is_ours(line: &str) -> bool {
    line.starts_with("plugins") || line.starts_with("lua_package_path")
}

fn others(conf: &str) -> Vec<String> {
    conf.lines().filter(|l| !is_ours(l) && !l.is_empty()).map(str::to_owned).collect()
}

fn value<'a>(conf: &'a str, key: &str) -> Option<&'a str> {
    let line = conf.lines().rev().find(|l| l.starts_with(key))?;
    Some(line.split_once('=')?.1.trim())
}

impl<'a> Watched<'a> {
    /// `releases`: what may lie at the load path while the node lists `plugin`.
    pub fn new(node: &Value, plugin: &'a str, releases: &'a [Files]) -> Self {
        let conf = PathBuf::from(node["conf"].as_str().unwrap());
        let foreign = others(&fs::read_to_string(&conf).unwrap());
        Self { conf, plugin, foreign, releases }
    }

    /// What is wrong at this instant.
    ///
    /// # Errors
    /// Words for a person.
    pub fn look(&self) -> Result<(), String> {
        let conf = fs::read_to_string(&self.conf).map_err(|e| format!("kong.conf: {e}"))?;
        if others(&conf) != self.foreign || !conf.ends_with('\n') {
            return Err(format!("kong.conf is not whole:\n{conf}"));
        }
        let listed = value(&conf, "plugins").is_some_and(|v| v.split(',').any(|n| n.trim() == self.plugin));
        if !listed {
            return Ok(());
        }
        let found = self.at_load_path(&conf);
        let whole = found.as_ref().is_some_and(|found| self.releases.contains(found));
        // Between the two looks the node may have gone on.
        let same = fs::read_to_string(&self.conf).is_ok_and(|now| now == conf);
        if whole || !same {
            return Ok(());
        }
        let names = found.map(|f| f.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        Err(format!("it lists {}, and at its load path is no whole release: {names:?}", self.plugin))
    }

    /// The files of the plugin at the place that a configuration leads to.
    fn at_load_path(&self, conf: &str) -> Option<Files> {
        let entry = value(conf, "lua_package_path")?.split(';').next()?;
        let handler = entry.replace('?', &format!("kong/plugins/{}/handler", self.plugin));
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(PathBuf::from(handler).parent()?).ok()? {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_string_lossy().into_owned();
            found.insert((name, fs::read_to_string(path).ok()?));
        }
        Some(found)
    }
}
