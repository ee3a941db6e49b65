//! Plugin files on the node: how each install method places them, and undoes it.
//!
//! ```text
//! <lua_dir>/{store,luarocks,path}/<plugin>/…   one slot for each placement, see [`slot`]
//! <lua_dir>/gen/<n>/kong/plugins/<plugin> ->   where its files are: in the slot, in a tree, or in a directory of others
//! <lua_dir>/staging, <lua_dir>/trash           on their way in and out
//! ```
//!
//! Everything on the way is 0755 or 0644 whatever the umask: Kong's workers run as another user. A tree is complete and
//! synced before it gets its name, so a name is a promise. Every method is loaded through a link of a generation, so that
//! one edit of `lua_package_path` serves them all and whatever else Lua could find stands behind it.

mod disk;
mod found;
mod generation;
mod intact;
mod luarocks;
mod manual;
mod remove;
mod slot;
mod stage;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kctl_shared::fault::Fault;
use kctl_shared::method::Method;
use kctl_shared::name::PluginName;
use kctl_shared::package::hash_release;
use kctl_shared::simulated::aside;
use kctl_shared::spec::{Failure, Placement};
use tempfile::TempDir;

use crate::gateway::Wanted;
use disk::{failed, make_dirs};
pub use generation::Links;
use luarocks::Luarocks;
use slot::{Note, TREE_LUA, modules, slot};
use tree::Tree;

#[derive(Clone, Debug)]
pub struct Packages {
    root: PathBuf,
    luarocks: Luarocks,
    /// What a person should know about plugins whose files could not all be taken away, until they are placed again.
    notices: Arc<Mutex<BTreeMap<PluginName, Failure>>>,
    seen: Arc<Mutex<intact::Seen>>,
    found: Arc<Mutex<found::Known>>,
}

/// Runs what waits for the disk aside, so that the agent's one thread goes on.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    aside(work).await.unwrap_or_else(|e| Err(Failure::new("INTERNAL", e.to_string())))
}

impl Packages {
    /// `luarocks` is the executable to use; without one it is looked for when it is needed.
    ///
    /// # Errors
    /// `LUA_DIR` when the directories cannot be made.
    pub fn open(root: &Path, luarocks: Option<PathBuf>) -> Result<Self, Fault> {
        let make = || -> io::Result<()> {
            for dir in Method::NAMES.iter().chain(&["gen", "staging", "trash"]) {
                make_dirs(&root.join(dir))?;
            }
            // What a crash left half way is on no path and in no promise.
            for dir in ["staging", "trash"] {
                for entry in fs::read_dir(root.join(dir))?.flatten() {
                    fs::remove_dir_all(entry.path())?;
                }
            }
            Ok(())
        };
        make().map_err(|e| {
            Fault::new("LUA_DIR", format!("{}: {e}", root.display())).hint("check the agent's lua_dir")
        })?;
        Ok(Self {
            root: root.to_owned(),
            luarocks: Luarocks::new(luarocks),
            notices: Arc::default(),
            seen: Arc::default(),
            found: Arc::default(),
        })
    }

    /// For a look at what another process works on: nothing is made or taken away.
    pub fn beside(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            luarocks: Luarocks::new(None),
            notices: Arc::default(),
            seen: Arc::default(),
            found: Arc::default(),
        }
    }

    fn slot(&self, plugin: &PluginName, placement: &Placement) -> PathBuf {
        self.root.join(slot(plugin, placement))
    }

    fn staging(&self) -> Result<TempDir, Failure> {
        let dir = self.root.join("staging");
        tempfile::tempdir_in(&dir).map_err(|e| failed("cannot work in", &dir, &e))
    }

    fn tree<'a>(&'a self, plugin: &'a PluginName, tree: &'a Path) -> Tree<'a> {
        Tree { luarocks: &self.luarocks, owner: &self.root, tree, plugin, extras: Vec::new() }
    }

    /// Placements on this node, by name alone; see [`Self::verify`].
    pub fn stored(&self) -> BTreeMap<PluginName, BTreeSet<Placement>> {
        slot::all(&self.root)
    }

    pub fn notices(&self) -> Vec<Failure> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn note(&self, plugin: &PluginName, notice: Option<Failure>) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        match notice {
            Some(notice) => notices.insert(plugin.clone(), notice),
            None => notices.remove(plugin),
        };
    }

    /// The plugin's own directory among what the agent keeps, or where it was found.
    fn kept_dir(&self, plugin: &PluginName, placement: &Placement) -> PathBuf {
        let slot = self.slot(plugin, placement);
        if let Method::Path { .. } = placement.method
            && let Some(found) = Note::read(&slot).and_then(|n| n.found)
        {
            return found;
        }
        slot.join(modules(&placement.method)).join("kong/plugins").join(plugin.as_str())
    }

    /// The Lua root that modules beside the plugin's own directory lie in, as [`Self::kept_dir`].
    fn kept_root(&self, plugin: &PluginName, placement: &Placement) -> PathBuf {
        let dir = self.kept_dir(plugin, placement);
        manual::lua_root(&dir, plugin).unwrap_or(&dir).to_path_buf()
    }

    /// Modules beside the plugin's own directory.
    fn extras(&self, plugin: &PluginName, placement: &Placement) -> Vec<String> {
        Note::read(&self.slot(plugin, placement)).map(|n| n.extras).unwrap_or_default()
    }

    /// The Lua root as Kong is to load from it.
    fn placed_root(&self, plugin: &PluginName, placement: &Placement) -> PathBuf {
        match placement.method.shared_tree() {
            Some(tree) => tree.join(TREE_LUA),
            None => self.kept_root(plugin, placement),
        }
    }

    /// The plugin's own directory as Kong is to load it.
    fn placed_dir(&self, plugin: &PluginName, placement: &Placement) -> Option<PathBuf> {
        match placement.method.shared_tree() {
            Some(tree) => Some(self.tree(plugin, tree).dir()),
            None => Some(self.kept_dir(plugin, placement)).filter(|dir| dir.is_dir()),
        }
    }

    /// Whether what was staged is still the release.
    pub fn verify(&self, plugin: &PluginName, placement: &Placement) -> bool {
        let (dir, root) = (self.kept_dir(plugin, placement), self.kept_root(plugin, placement));
        let found = hash_release(&dir, plugin, &root, &self.extras(plugin, placement));
        found.is_ok_and(|(found, ..)| found == placement.digest)
    }

    /// Whether deploying `wanted` puts other files where `before` loads its own from.
    pub fn replaces(&self, wanted: &Wanted, before: &Wanted) -> bool {
        before.listed.iter().any(|(plugin, old)| {
            let new = wanted.listed.get(plugin);
            old.method.shared_tree().is_some_and(|tree| {
                new.is_some_and(|n| n.method.shared_tree() == Some(tree) && n.digest != old.digest)
            })
        })
    }
}
