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
mod slot;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kctl_shared::fault::Fault;
use kctl_shared::method::Method;
use kctl_shared::name::PluginName;
use kctl_shared::package::{FileEntry, Limits, Package, hash_release};
use kctl_shared::spec::{Failure, Placement, ReleaseRef};
use tempfile::TempDir;

use crate::durable;
use crate::gateway::Wanted;
use disk::{failed, make_dirs, sync_all, sync_dir, sync_dirs, write_new};
pub use generation::Links;
use luarocks::{Luarocks, unpack};
use slot::{Note, TREE_LUA, modules, slot};
use tree::Tree;

/// What a file takes beside its bytes, rounded up: its last block, and its name.
const PER_FILE: u64 = 4096;

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
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Failure::new("INTERNAL", e.to_string())))
}

fn checked(plugin: &PluginName, release: &ReleaseRef, artifact: &[u8]) -> Result<Package, Failure> {
    let mut package = Package::from_artifact(artifact, &Limits::default())
        .map_err(|e| Failure::new(e.code, e.message.clone()))?;
    if package.digest() != release.digest || package.plugin != *plugin {
        let message = format!("the control plane sent {}, not {}", package.digest(), release.digest);
        return Err(Failure::new("DIGEST_MISMATCH", message));
    }
    package.version.clone_from(&release.version);
    Ok(package)
}

/// Bytes that a release takes on the disk.
fn room_for(package: &Package, method: &Method) -> u64 {
    let files = package.files.iter().chain(&package.extras);
    let once = files.map(|file| file.bytes.len() as u64 + PER_FILE).sum::<u64>();
    match method {
        Method::Path { .. } => PER_FILE,
        Method::Store => once,
        // LuaRocks is given a copy to work on.
        Method::Luarocks { .. } => 2 * once,
    }
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

    /// Checks an artifact and makes the release ready to be enabled, by its method. Nothing that Kong could load changes.
    /// `lua_path` is the node's own, entries absolute.
    ///
    /// # Errors
    /// The package's codes, `DIGEST_MISMATCH`, `DISK_FULL`, `PLACING_FAILED`; `LUAROCKS_NOT_FOUND`, `LUAROCKS_FAILED`,
    /// `LUAROCKS_HANGS`, `TREE_NOT_WRITABLE`, `TREE_BUSY`, `MODULE_OWNED_BY`; `PATH_NOT_FOUND`, `PATH_DIFFERS`.
    pub async fn stage(
        &self,
        plugin: &PluginName,
        release: &ReleaseRef,
        artifact: bytes::Bytes,
        lua_path: Option<&str>,
    ) -> Result<(), Failure> {
        let (name, wanted) = (plugin.clone(), release.clone());
        let package = blocking(move || checked(&name, &wanted, &artifact)).await?;
        self.note(plugin, None);
        let placement = release.placement();
        let target = self.slot(plugin, &placement);
        if target.exists() {
            if self.verify(plugin, &placement) {
                return Ok(());
            }
            self.discard(&target)?;
        }
        durable::ensure_room(&[&self.root], room_for(&package, &release.method))?;
        let staging = self.staging()?;
        let (root, work) = (staging.path().join("slot"), staging.path().join("work"));
        make_dirs(&root).and_then(|()| make_dirs(&work)).map_err(|e| failed("cannot work in", &root, &e))?;
        let extras: Vec<String> = package.extras.iter().map(|f| f.entry.path.clone()).collect();
        let mut note = Note { method: release.method.clone(), found: None, extras: extras.clone() };
        match &release.method {
            Method::Luarocks { tree: None, make } => {
                self.luarocks.install(&work, &root, &package, *make).await?;
                let dir = luarocks::plugin_dir(&root, plugin);
                let found = hash_release(&dir, plugin, &root.join(TREE_LUA), &extras);
                if !found.is_ok_and(|(found, ..)| found == release.digest) {
                    let message = format!("LuaRocks did not place {plugin} {} as it is", release.version);
                    return Err(Failure::new("DIGEST_MISMATCH", message));
                }
            }
            Method::Luarocks { tree: Some(tree), .. } => {
                Tree { extras, ..self.tree(plugin, Path::new(tree)) }.check(&work, &package).await?
            }
            Method::Path { dir } => {
                let found = manual::find(plugin, dir.as_deref(), lua_path)?;
                manual::compare(&package, &found)?;
                note.found = Some(found);
            }
            Method::Store => {}
        }
        let unpacks = matches!(release.method, Method::Store | Method::Luarocks { tree: Some(_), .. });
        let to = target.clone();
        blocking(move || {
            let write = || -> io::Result<()> {
                if unpacks {
                    unpack(&package, &root)?;
                }
                if let Some((name, bytes)) = note.file() {
                    write_new(&root.join(name), &bytes)?;
                }
                if unpacks {
                    sync_dirs(&root)?
                } else {
                    sync_all(&root)?
                }
                let parent = to.parent().unwrap_or(Path::new("/"));
                make_dirs(parent)?;
                sync_dir(parent.parent().unwrap_or(parent))?;
                durable::rename("store.release", &root, &to)
            };
            write().map_err(|e| failed("cannot place", &to, &e))
        })
        .await?;
        if self.verify(plugin, &placement) {
            return Ok(());
        }
        self.discard(&target)?;
        Err(Failure::new("DIGEST_MISMATCH", format!("{} is not what was written to it", target.display())))
    }

    /// Makes every tree that others use too hold what `wanted` lists.
    ///
    /// # Errors
    /// `FILES_CHANGED` and those of [`Self::stage`].
    pub async fn deploy(&self, wanted: &Wanted) -> Result<(), Failure> {
        for (plugin, release) in &wanted.listed {
            let Some(tree) = release.method.shared_tree() else { continue };
            let staging = self.staging()?;
            let package = self.repack(plugin, release)?;
            let extras = package.extras.iter().map(|f| f.entry.path.clone()).collect();
            let tree = Tree { extras, ..self.tree(plugin, tree) };
            tree.deploy(staging.path(), &package, release.method.makes()).await?;
        }
        Ok(())
    }

    /// The package of a staged release, from its files.
    fn repack(&self, plugin: &PluginName, release: &ReleaseRef) -> Result<Package, Failure> {
        let placement = release.placement();
        let (dir, root) = (self.kept_dir(plugin, &placement), self.kept_root(plugin, &placement));
        let changed = |why: String| Failure::new("FILES_CHANGED", format!("{}: {why}", dir.display()));
        let found = hash_release(&dir, plugin, &root, &self.extras(plugin, &placement));
        let (digest, files, extras) = found.map_err(|e| changed(e.to_string()))?;
        if digest != release.digest {
            return Err(changed(format!("it is not {plugin} {} any more", release.version)));
        }
        let read = |root: &Path, list: Vec<FileEntry>| -> io::Result<Vec<(String, Vec<u8>)>> {
            list.into_iter().map(|f| Ok((f.path.clone(), fs::read(root.join(f.path))?))).collect()
        };
        let (files, extras) = read(&dir, files)
            .and_then(|f| Ok((f, read(&root, extras)?)))
            .map_err(|e| changed(e.to_string()))?;
        let limits = Limits::default();
        let package =
            Package::new(plugin.clone(), files, &limits).and_then(|p| p.with_extras(extras, &limits));
        let mut package = package.map_err(|e| changed(e.message.clone()))?;
        package.version.clone_from(&release.version);
        Ok(package)
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

    /// Whether removing the placement takes modules away that others could find without a directive of ours.
    pub fn is_reachable(&self, plugin: &PluginName, placement: &Placement) -> bool {
        let tree = placement.method.shared_tree();
        tree.is_some_and(|tree| self.tree(plugin, tree).is_ours(&placement.digest))
            && !self.is_twin(plugin, placement)
    }

    /// The same files are in the same tree for another placement too, one that was built in another way.
    fn is_twin(&self, plugin: &PluginName, placement: &Placement) -> bool {
        let twin = |other: &Placement| {
            other != placement
                && other.digest == placement.digest
                && other.method.shared_tree() == placement.method.shared_tree()
        };
        self.stored().get(plugin).is_some_and(|all| all.iter().any(twin))
    }

    /// Undoes a placement by its method's own counterpart: renamed out of sight first, so that no half a release is ever on
    /// a path.
    ///
    /// # Errors
    /// `PLACING_FAILED`, `LUAROCKS_…`, `TREE_…`, `REMOVE_INCOMPLETE`.
    pub async fn remove(&self, plugin: &PluginName, placement: &Placement) -> Result<(), Failure> {
        let target = self.slot(plugin, placement);
        let work = self.staging()?;
        match &placement.method {
            Method::Store => self.discard(&target),
            Method::Path { .. } => {
                let found = self.kept_dir(plugin, placement);
                tracing::info!(%plugin, dir = %found.display(), "left in place: not kctl's");
                self.discard(&target)
            }
            Method::Luarocks { tree: Some(_), .. } if self.is_twin(plugin, placement) => {
                self.discard(&target)
            }
            Method::Luarocks { tree: Some(tree), .. } => {
                let (dir, root) = (self.kept_dir(plugin, placement), self.kept_root(plugin, placement));
                let kept = hash_release(&dir, plugin, &root, &self.extras(plugin, placement));
                let (_, files, extras) = kept.unwrap_or_else(|_| (placement.digest, Vec::new(), Vec::new()));
                let tree = self.tree(plugin, Path::new(tree));
                let left = tree.undeploy(work.path(), &placement.digest, &files, &extras).await?;
                if !left.is_empty() {
                    let message = format!(
                        "{} still has files that kctl did not put there: {}",
                        tree.dir().display(),
                        left.join(", ")
                    );
                    self.note(plugin, Some(Failure::new("FILES_LEFT", message)));
                }
                self.discard(&target)
            }
            Method::Luarocks { tree: None, .. } => {
                let aside = self.staging()?;
                let tree = aside.path().join("tree");
                match durable::rename("store.delete", &target, &tree) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    other => other.map_err(|e| failed("cannot delete", &target, &e))?,
                }
                self.forget(&target);
                // The tree is the agent's own and goes as a whole, whatever LuaRocks has to say.
                for rock in luarocks::installed(&tree) {
                    if let Err(failure) = self.luarocks.remove(work.path(), &tree, &rock).await {
                        tracing::warn!(%plugin, %failure, "deleted without LuaRocks");
                    }
                }
                aside.close().map_err(|e| failed("cannot delete", &target, &e))
            }
        }
    }

    /// Out of sight at once, then gone.
    fn discard(&self, target: &Path) -> Result<(), Failure> {
        let work = || -> io::Result<()> {
            let trash = tempfile::tempdir_in(self.root.join("trash"))?;
            match durable::rename("store.delete", target, &trash.path().join("release")) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            self.forget(target);
            trash.close()
        };
        work().map_err(|e| failed("cannot delete", target, &e))
    }

    /// Makes it durable that a slot is gone.
    fn forget(&self, target: &Path) {
        let Some(parent) = target.parent() else { return };
        if let Err(error) = sync_dir(parent) {
            tracing::debug!(%error, "nothing to sync");
        }
        // Only goes when it is empty; another release of the plugin keeps it.
        let _others_remain = fs::remove_dir(parent);
    }
}
