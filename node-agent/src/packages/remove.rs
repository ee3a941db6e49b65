//! Undoing a placement, by its method's own counterpart.

use std::fs;
use std::io;
use std::path::Path;

use kctl_shared::method::Method;
use kctl_shared::name::PluginName;
use kctl_shared::package::hash_release;
use kctl_shared::spec::{Failure, Placement};

use super::Packages;
use super::disk::{failed, sync_dir};
use super::luarocks;
use crate::durable;

impl Packages {
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
    pub(super) fn discard(&self, target: &Path) -> Result<(), Failure> {
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
