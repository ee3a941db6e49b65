//! Placing: a release is complete and synced before it gets its name, and trees of others are filled from it.

use std::fs;
use std::io;
use std::path::Path;

use kctl_shared::method::Method;
use kctl_shared::name::PluginName;
use kctl_shared::package::{FileEntry, Limits, Package, hash_release};
use kctl_shared::spec::{Failure, ReleaseRef};

use super::disk::{failed, make_dirs, sync_all, sync_dir, sync_dirs, write_all_new};
use super::luarocks;
use super::slot::{Note, TREE_LUA};
use super::tree::Tree;
use super::{Packages, blocking, manual};
use crate::durable;
use crate::gateway::Wanted;

/// What a file takes beside its bytes, rounded up: its last block, and its name.
const PER_FILE: u64 = 4096;

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
                let note = note.file().map(|(name, bytes)| (root.join(name), bytes));
                let placed =
                    package.placed().filter(|_| unpacks).map(|(path, bytes)| (root.join(path), bytes));
                let noted = note.iter().map(|(path, bytes)| (path.clone(), &**bytes));
                write_all_new(&placed.chain(noted).collect::<Vec<_>>())?;
                let parent = to.parent().unwrap_or(Path::new("/"));
                make_dirs(parent)?;
                let above = parent.parent().unwrap_or(parent);
                if unpacks {
                    sync_dirs(&root, Some(above))?
                } else {
                    sync_all(&root)?;
                    sync_dir(above)?;
                }
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
}
