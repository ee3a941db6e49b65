//! Generation directories: what one configuration loads, as links, never changed once it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use kctl_shared::name::PluginName;
use kctl_shared::package::hash_tree;
use kctl_shared::spec::{Failure, Placement};

use super::Packages;
use super::disk::{failed, make_dirs, sync_dir, sync_dirs, write_new};
use crate::gateway::Wanted;

/// From `gen/<n>/kong/plugins` to the Lua directory, so that it may be mounted elsewhere.
const UP: &str = "../../../..";

/// What a link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// The files that are meant to run.
    Placed,
    /// The agent's own copies where there are some: they stay what they are while a tree that others use too is changed.
    Kept,
}

impl Packages {
    /// Makes the directory of links for one configuration; `None` when nothing of ours is listed.
    ///
    /// # Errors
    /// `DISK_FULL`, `PLACING_FAILED`, `FILES_MISSING`.
    pub fn link(&self, number: u64, wanted: &Wanted, links: Links) -> Result<Option<PathBuf>, Failure> {
        if wanted.listed.is_empty() {
            return Ok(None);
        }
        self.generation(number, wanted, links, &BTreeMap::new()).map(Some)
    }

    /// A generation in which `hidden`'s modules are as good as gone, wherever else they could be found.
    ///
    /// # Errors
    /// As [`Self::link`].
    pub fn link_without(
        &self,
        number: u64,
        wanted: &Wanted,
        hidden: &PluginName,
        placement: &Placement,
    ) -> Result<PathBuf, Failure> {
        let files = self.kept_dir(hidden, placement);
        let (_, files) = hash_tree(&files, hidden).map_err(|e| failed("cannot read", &files, &e))?;
        let lua = files.iter().filter_map(|f| f.path.strip_suffix(".lua"));
        let stubs = lua.map(|path| {
            let module = format!("kong.plugins.{hidden}.{}", path.replace('/', "."));
            let module = module.strip_suffix(".init").unwrap_or(&module);
            // As Lua says it of a module that is not there; without a position in front.
            let stub = format!("error(\"module '{module}' not found:\\n\\tit is about to be removed\", 0)\n");
            (format!("kong/plugins/{hidden}/{path}.lua"), stub)
        });
        self.generation(number, wanted, Links::Placed, &stubs.collect())
    }

    fn generation(
        &self,
        number: u64,
        wanted: &Wanted,
        links: Links,
        files: &BTreeMap<String, String>,
    ) -> Result<PathBuf, Failure> {
        let target = self.root.join("gen").join(number.to_string());
        let mut planned = Vec::new();
        for (plugin, release) in &wanted.listed {
            let placement = release.placement();
            let dir = match links {
                Links::Placed => self.placed_dir(plugin, &placement),
                Links::Kept => Some(self.kept_dir(plugin, &placement)),
            };
            let missing = || {
                let message = format!("nothing says where {plugin} {} lies on this node", release.version);
                Failure::new("FILES_MISSING", message)
            };
            planned.push((plugin, dir.ok_or_else(missing)?));
        }
        let work = || -> io::Result<()> {
            let staging = tempfile::tempdir_in(self.root.join("staging"))?;
            let tree = staging.path().join("gen");
            let plugins = tree.join("kong/plugins");
            make_dirs(&plugins)?;
            for (plugin, dir) in planned {
                let link = match dir.strip_prefix(&self.root) {
                    Ok(inside) => Path::new(UP).join(inside),
                    Err(_) => dir,
                };
                symlink(link, plugins.join(plugin.as_str()))?;
            }
            for (path, content) in files {
                write_new(&tree.join(path), content.as_bytes())?;
            }
            sync_dirs(&tree)?;
            fs::rename(&tree, &target)?;
            sync_dir(&self.root.join("gen"))
        };
        work().map_err(|e| failed("cannot link", &target, &e))?;
        Ok(target)
    }

    /// Whether `generation` links just what `wanted` lists.
    pub fn links_exactly(&self, generation: &Path, wanted: &Wanted) -> bool {
        let plugins = generation.join("kong/plugins");
        let count = fs::read_dir(&plugins).map_or(0, Iterator::count);
        let fits = |(plugin, release): (&PluginName, &kctl_shared::spec::ReleaseRef)| {
            let target = fs::canonicalize(plugins.join(plugin.as_str())).ok();
            let placed = self.placed_dir(plugin, &release.placement());
            target.is_some() && target == placed.and_then(|dir| fs::canonicalize(dir).ok())
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
