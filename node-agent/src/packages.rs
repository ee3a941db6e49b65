//! Plugin files on the node.
//!
//! ```text
//! <lua_dir>/store/<plugin>/<sha256>/kong/plugins/<plugin>/…   never changed once it is there
//! <lua_dir>/gen/<n>/kong/plugins/<plugin> -> ../../../../store/<plugin>/<sha256>/kong/plugins/<plugin>
//! <lua_dir>/staging, <lua_dir>/trash                          on their way in and out
//! ```
//!
//! Everything on the way is 0755 or 0644 whatever the umask: Kong's workers run as another user. A tree is complete and
//! synced before it gets its name, so a name is a promise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::name::PluginName;
use kctl_shared::package::{Limits, Package, hash_tree};
use kctl_shared::spec::Failure;

use crate::gateway::Wanted;

#[derive(Clone, Debug)]
pub struct Packages {
    root: PathBuf,
}

fn failed(what: &str, path: &Path, e: &io::Error) -> Failure {
    let code = if e.kind() == io::ErrorKind::StorageFull { "DISK_FULL" } else { "PLACING_FAILED" };
    Failure::new(code, format!("{what} {}: {e}", path.display()))
}

impl Packages {
    /// # Errors
    /// `LUA_DIR` when the directories cannot be made.
    pub fn open(root: &Path) -> Result<Self, Fault> {
        let make = || -> io::Result<()> {
            for dir in ["store", "gen", "staging", "trash"] {
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
        Ok(Self { root: root.to_owned() })
    }

    /// For a look at what another process works on: nothing is made or taken away.
    pub fn beside(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn release_dir(&self, plugin: &PluginName, digest: &Digest) -> PathBuf {
        self.root.join("store").join(plugin.as_str()).join(digest.hex())
    }

    /// Releases in the store, by name alone; see [`Self::verify`].
    pub fn stored(&self) -> BTreeMap<PluginName, BTreeSet<Digest>> {
        let names = |dir: &Path| -> Vec<String> {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.filter_map(|e| e.file_name().into_string().ok()).collect()
        };
        let store = self.root.join("store");
        let plugins = names(&store).into_iter().filter_map(|n| PluginName::parse(&n).ok());
        let releases = |p: PluginName| {
            let digests: BTreeSet<_> =
                names(&store.join(p.as_str())).iter().filter_map(|d| d.parse().ok()).collect();
            (!digests.is_empty()).then_some((p, digests))
        };
        plugins.filter_map(releases).collect()
    }

    /// Whether the files on disk are still those of the digest.
    pub fn verify(&self, plugin: &PluginName, digest: &Digest) -> bool {
        let tree = self.release_dir(plugin, digest).join("kong/plugins").join(plugin.as_str());
        hash_tree(&tree, plugin).is_ok_and(|(found, _)| found == *digest)
    }

    /// Checks an artifact and puts its files into the store.
    ///
    /// # Errors
    /// The package's codes, `DIGEST_MISMATCH`, `DISK_FULL`, `PLACING_FAILED`.
    pub fn place(&self, plugin: &PluginName, digest: &Digest, artifact: &[u8]) -> Result<(), Failure> {
        let package = Package::from_artifact(artifact, &Limits::default())
            .map_err(|e| Failure::new(e.code, e.message.clone()))?;
        if package.digest() != *digest || package.plugin != *plugin {
            return Err(Failure::new(
                "DIGEST_MISMATCH",
                format!("the control plane sent {}, not {digest}", package.digest()),
            ));
        }
        let target = self.release_dir(plugin, digest);
        if target.exists() {
            if self.verify(plugin, digest) {
                return Ok(());
            }
            self.delete(plugin, digest)?;
        }
        self.write(&package, &target).map_err(|e| failed("cannot place", &target, &e))?;
        if self.verify(plugin, digest) {
            return Ok(());
        }
        self.delete(plugin, digest)?;
        Err(Failure::new("DIGEST_MISMATCH", format!("{} is not what was written to it", target.display())))
    }

    fn write(&self, package: &Package, target: &Path) -> io::Result<()> {
        let staging = tempfile::tempdir_in(self.root.join("staging"))?;
        let tree = staging.path().join("release");
        let plugin = tree.join("kong/plugins").join(package.plugin.as_str());
        make_dirs(&plugin)?;
        for packaged in &package.files {
            let path = plugin.join(&packaged.entry.path);
            if let Some(parent) = path.parent() {
                make_dirs(parent)?;
            }
            let mut file = File::create_new(&path)?;
            file.write_all(&packaged.bytes)?;
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.sync_all()?;
        }
        sync_tree(&tree)?;
        let parent = target.parent().unwrap_or(&self.root);
        make_dirs(parent)?;
        fs::rename(&tree, target)?;
        sync_dir(parent)?;
        sync_dir(&self.root.join("store"))
    }

    /// Takes a release's files away: renamed out of sight first, so that no half a release is ever on a path.
    ///
    /// # Errors
    /// `PLACING_FAILED`.
    pub fn delete(&self, plugin: &PluginName, digest: &Digest) -> Result<(), Failure> {
        let source = self.release_dir(plugin, digest);
        let work = || -> io::Result<()> {
            let trash = tempfile::tempdir_in(self.root.join("trash"))?;
            match fs::rename(&source, trash.path().join("release")) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            let parent = source.parent().unwrap_or(&self.root);
            if parent.exists() {
                sync_dir(parent)?;
            }
            // Only goes when it is empty; another release of the plugin keeps it.
            let _others_remain = fs::remove_dir(parent);
            trash.close()
        };
        work().map_err(|e| failed("cannot delete", &source, &e))
    }

    /// Makes the directory of links for one configuration; `None` when nothing of ours is listed.
    ///
    /// # Errors
    /// `DISK_FULL`, `PLACING_FAILED`.
    pub fn link(&self, number: u64, wanted: &Wanted) -> Result<Option<PathBuf>, Failure> {
        if wanted.listed.is_empty() {
            return Ok(None);
        }
        let target = self.root.join("gen").join(number.to_string());
        let work = || -> io::Result<()> {
            let staging = tempfile::tempdir_in(self.root.join("staging"))?;
            let tree = staging.path().join("gen");
            let plugins = tree.join("kong/plugins");
            make_dirs(&plugins)?;
            for (plugin, release) in &wanted.listed {
                let (name, digest) = (plugin.as_str(), release.digest.hex());
                symlink(
                    format!("../../../../store/{name}/{digest}/kong/plugins/{name}"),
                    plugins.join(name),
                )?;
            }
            sync_tree(&tree)?;
            fs::rename(&tree, &target)?;
            sync_dir(&self.root.join("gen"))
        };
        work().map_err(|e| failed("cannot link", &target, &e))?;
        Ok(Some(target))
    }

    /// Whether `generation` links just what `wanted` lists.
    pub fn links_exactly(&self, generation: &Path, wanted: &Wanted) -> bool {
        let plugins = generation.join("kong/plugins");
        let count = fs::read_dir(&plugins).map_or(0, Iterator::count);
        let fits = |(plugin, release): (&PluginName, &kctl_shared::spec::ReleaseRef)| {
            let target = fs::canonicalize(plugins.join(plugin.as_str())).ok();
            let release =
                self.release_dir(plugin, &release.digest).join("kong/plugins").join(plugin.as_str());
            target.is_some() && target == fs::canonicalize(release).ok()
        };
        count == wanted.listed.len()
            && generation.starts_with(self.root.join("gen"))
            && wanted.listed.iter().all(fits)
    }

    fn generations(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join("gen")).into_iter().flatten().flatten();
        entries.map(|e| e.path()).collect()
    }

    /// Generation directories that are not in `used`.
    pub fn idle_generations(&self, used: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
        self.generations().into_iter().filter(|g| !used.contains(g)).collect()
    }

    /// # Errors
    /// `PLACING_FAILED`.
    pub fn collect(&self, used: &BTreeSet<PathBuf>) -> Result<(), Failure> {
        for generation in self.idle_generations(used) {
            fs::remove_dir_all(&generation).map_err(|e| failed("cannot delete", &generation, &e))?;
        }
        Ok(())
    }
}

fn make_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dirs(parent)?;
    }
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => {
            other?;
            fs::set_permissions(path, Permissions::from_mode(0o755))
        }
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_dir(path)
}
