//! Plugins that somebody else put on the node: seen, told, packed on request, never changed.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use kctl_shared::digest::Digest;
use kctl_shared::name::{PluginName, is_bundled};
use kctl_shared::package::{Limits, Package, hash_tree};
use kctl_shared::spec::{Failure, FoundPlugin};

use super::intact::stamp;
use super::{Packages, manual};
use crate::gateway::KongObserved;
use crate::ledger::Record;

/// Where a plugin was found, what was seen there, and its digest.
pub(super) type Known = BTreeMap<PluginName, (PathBuf, u64, Option<Digest>)>;

impl Packages {
    /// What the node lists or has loaded, and neither comes with Kong nor is known to the control plane: placed by somebody
    /// else, or by kctl for a cluster that was restored from an older backup since.
    pub fn found(&self, kong: &KongObserved, record: &Record) -> Vec<FoundPlugin> {
        let proven = &record.proven.listed;
        let known_there =
            |name: &PluginName| record.spec.as_ref().is_none_or(|s| s.plugins.contains_key(name));
        let listed = [&kong.conf_plugins, &kong.armed_plugins].into_iter().flatten().flatten();
        let loaded = kong.loaded.iter().flatten().map(|(name, _)| name);
        let mut names: Vec<PluginName> = listed
            .chain(loaded)
            .filter(|name| !is_bundled(name))
            .filter_map(|name| PluginName::parse(name).ok())
            .filter(|name| !(proven.contains_key(name) && known_there(name)))
            .collect();
        names.sort();
        names.dedup();
        let mut known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|plugin, _| names.contains(plugin));
        let one = |plugin: PluginName| {
            let running = kong.loaded.as_ref().and_then(|l| l.get(plugin.as_str()));
            let ours = proven.get(&plugin);
            let place = match ours {
                Some(release) => self.placed_dir(&plugin, &release.placement()),
                None => manual::find(&plugin, None, kong.lua_path.as_deref()).ok(),
            };
            let digest = match ours {
                Some(release) => Some(release.digest),
                None => place.as_ref().and_then(|dir| digest(&mut known, &plugin, dir)),
            };
            FoundPlugin {
                version: running.cloned().flatten().unwrap_or_default(),
                loaded: running.is_some(),
                dir: place.map(|dir| dir.display().to_string()).unwrap_or_default(),
                digest,
                placed: ours.map(|release| release.method.clone()),
                plugin,
            }
        };
        names.into_iter().map(one).collect()
    }

    /// The package of what was found.
    ///
    /// # Errors
    /// `PATH_DIFFERS` when it is not what it was any more, and those of [`Package::new`].
    pub fn pack(&self, found: &FoundPlugin) -> Result<Package, Failure> {
        let dir = Path::new(&found.dir);
        let changed = |why: String| Failure::new("PATH_DIFFERS", format!("{}: {why}", found.dir));
        let (digest, files) = hash_tree(dir, &found.plugin).map_err(|e| changed(e.to_string()))?;
        if Some(digest) != found.digest {
            return Err(changed("it was changed at this moment".into()));
        }
        let read = |path: String| fs::read(dir.join(&path)).map(|bytes| (path, bytes));
        let files = files.into_iter().map(|f| read(f.path)).collect::<Result<Vec<_>, _>>();
        let files = files.map_err(|e| changed(e.to_string()))?;
        let mut package = Package::new(found.plugin.clone(), files, &Limits::default())
            .map_err(|e| Failure::new(e.code, e.message.clone()))?;
        if package.digest() != digest {
            return Err(changed("it was changed at this moment".into()));
        }
        if !found.version.is_empty() {
            package.version.clone_from(&found.version);
        }
        Ok(package)
    }
}

fn digest(known: &mut Known, plugin: &PluginName, dir: &Path) -> Option<Digest> {
    let mut hasher = DefaultHasher::new();
    stamp(dir, &mut hasher);
    let now = hasher.finish();
    if let Some((_, _, digest)) = known.get(plugin).filter(|(at, seen, _)| at == dir && *seen == now) {
        return *digest;
    }
    let digest = hash_tree(dir, plugin).ok().map(|(digest, _)| digest);
    known.insert(plugin.clone(), (dir.to_owned(), now, digest));
    digest
}
