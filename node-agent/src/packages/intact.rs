//! Whether files are still what was placed. Hashing them every second would be waste: they are hashed when something about
//! them changed since they were hashed last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::PoisonError;

use kctl_shared::name::PluginName;
use kctl_shared::spec::Placement;

use super::Packages;

/// What was seen of a placement's files, and whether they were right.
pub(super) type Seen = BTreeMap<(PluginName, Placement), (u64, bool)>;

impl Packages {
    /// Placements whose files are not those of the release any more.
    pub fn damaged(&self) -> BTreeMap<PluginName, BTreeSet<Placement>> {
        let stored = self.stored();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(plugin, placement), _| stored.get(plugin).is_some_and(|s| s.contains(placement)));
        let mut damaged: BTreeMap<PluginName, BTreeSet<Placement>> = BTreeMap::new();
        for (plugin, placement) in stored.iter().flat_map(|(p, s)| s.iter().map(move |d| (p, d))) {
            let key = (plugin.clone(), placement.clone());
            let stamp = self.stamp(plugin, placement);
            let known = seen.get(&key).filter(|(at, _)| *at == stamp).map(|(_, intact)| *intact);
            let intact = known.unwrap_or_else(|| self.verify(plugin, placement));
            seen.insert(key, (stamp, intact));
            if !intact {
                damaged.entry(plugin.clone()).or_default().insert(placement.clone());
            }
        }
        damaged
    }

    fn stamp(&self, plugin: &PluginName, placement: &Placement) -> u64 {
        let mut hasher = DefaultHasher::new();
        stamp(&self.kept_dir(plugin, placement), &mut hasher);
        let root = self.kept_root(plugin, placement);
        self.extras(plugin, placement).iter().for_each(|extra| stamp(&root.join(extra), &mut hasher));
        hasher.finish()
    }
}

/// Over everything that changes with a file's content, whoever sets its times back.
pub(super) fn stamp(path: &Path, hasher: &mut DefaultHasher) {
    path.hash(hasher);
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    (metadata.ino(), metadata.size(), metadata.mode(), changed).hash(hasher);
    if metadata.is_dir() {
        let mut entries: Vec<_> =
            fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| stamp(entry, hasher));
    }
}
