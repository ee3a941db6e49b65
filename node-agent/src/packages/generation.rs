//! Generation directories: what one configuration loads, as links, never changed once it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kctl_shared::digest::Digest;
use kctl_shared::name::PluginName;
use kctl_shared::package::hash_tree;
use kctl_shared::spec::{Failure, Placement};

use super::Packages;
use super::disk::{failed, make_dirs, sync_dirs, write_new};
use crate::durable;
use crate::gateway::{Wanted, extras_list};

/// From the directory of `path` in a generation to the Lua directory, which may be mounted elsewhere then.
fn up(path: &str) -> PathBuf {
    let depth = path.matches('/').count() + 2;
    std::iter::repeat_n("..", depth).collect()
}

/// How many links are below a directory.
fn links(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_symlink() => 1,
            Ok(kind) if kind.is_dir() => links(&entry.path()),
            _ => 0,
        })
        .sum()
}

/// What a link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// The files that are meant to run.
    Placed,
    /// The agent's own copies where there are some: they stay what they are while a tree that others use too is changed.
    Kept,
    /// As [`Self::Kept`], for a list that is only tried: nothing of it has to outlive the agent.
    Tried,
}

impl Packages {
    /// Makes the directory of links for one configuration; `None` when nothing of ours is listed.
    ///
    /// # Errors
    /// `DISK_FULL`, `PLACING_FAILED`, `FILES_MISSING`.
    pub fn link(&self, number: u64, wanted: &Wanted, links: Links) -> Result<Option<PathBuf>, Failure> {
        if wanted.listed.values().all(|release| release.method.is_in_place()) {
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
        let dir = self.kept_dir(hidden, placement);
        let (_, files) = hash_tree(&dir, hidden).map_err(|e| failed("cannot read", &dir, &e))?;
        let own = files.into_iter().map(|f| format!("kong/plugins/{hidden}/{}", f.path));
        let stubs =
            own.chain(self.extras(hidden, placement)).filter(|path| path.ends_with(".lua")).map(|path| {
                let module = path.trim_end_matches(".lua").replace('/', ".");
                let module = module.strip_suffix(".init").unwrap_or(&module);
                // As Lua says it of a module that is not there; without a position in front.
                let stub =
                    format!("error(\"module '{module}' not found:\\n\\tit is about to be removed\", 0)\n");
                (path, stub)
            });
        self.generation(number, wanted, Links::Placed, &stubs.collect())
    }

    /// What a generation for `wanted` links: paths relative to it, and where they lead.
    ///
    /// # Errors
    /// `FILES_MISSING`, `MODULE_CONFLICT`.
    fn plan(&self, wanted: &Wanted, links: Links) -> Result<BTreeMap<String, PathBuf>, Failure> {
        let mut planned = BTreeMap::new();
        for (plugin, release) in wanted.listed.iter().filter(|(_, r)| !r.method.is_in_place()) {
            let placement = release.placement();
            let dir = match links {
                Links::Placed => self.placed_dir(plugin, &placement),
                Links::Kept | Links::Tried => Some(self.kept_dir(plugin, &placement)),
            };
            let missing = || {
                let message = format!("nothing says where {plugin} {} lies on this node", release.version);
                Failure::new("FILES_MISSING", message)
            };
            planned.insert(format!("kong/plugins/{plugin}"), dir.ok_or_else(missing)?);
        }
        // Two plugins may bring the same module, as long as it is the same.
        let mut brought: BTreeMap<String, (&PluginName, Option<Digest>)> = BTreeMap::new();
        for (plugin, release) in &wanted.listed {
            let placement = release.placement();
            let (kept, placed) = (self.kept_root(plugin, &placement), self.placed_root(plugin, &placement));
            for extra in self.extras(plugin, &placement) {
                let content = fs::read(kept.join(&extra)).ok().map(|bytes| Digest::of(&bytes));
                let below = wanted.listed.keys().find(|p| extra.starts_with(&format!("kong/plugins/{p}/")));
                let other = brought.get(&extra).filter(|(_, c)| *c != content).map(|(p, _)| *p).or(below);
                if let Some(other) = other {
                    let message =
                        format!("{extra} comes with {plugin} and with {other}, and is not the same in both");
                    return Err(Failure::new("MODULE_CONFLICT", message));
                }
                brought.entry(extra.clone()).or_insert((plugin, content));
                let root = if links == Links::Placed { &placed } else { &kept };
                planned.entry(extra.clone()).or_insert_with(|| root.join(&extra));
            }
        }
        Ok(planned)
    }

    fn generation(
        &self,
        number: u64,
        wanted: &Wanted,
        links: Links,
        files: &BTreeMap<String, String>,
    ) -> Result<PathBuf, Failure> {
        let target = self.root.join("gen").join(number.to_string());
        let planned = self.plan(wanted, links)?;
        let mut lists = BTreeMap::new();
        for (plugin, release) in &wanted.listed {
            let extras = self.extras(plugin, &release.placement());
            if !extras.is_empty() {
                lists.insert(extras_list(plugin), serde_json::to_string(&extras).unwrap_or_default());
            }
        }
        let work = || -> io::Result<()> {
            let staging = tempfile::tempdir_in(self.root.join("staging"))?;
            let tree = staging.path().join("gen");
            make_dirs(&tree.join("kong/plugins"))?;
            for (path, to) in &planned {
                let link = match to.strip_prefix(&self.root) {
                    Ok(inside) => up(path).join(inside),
                    Err(_) => to.clone(),
                };
                let place = tree.join(path);
                make_dirs(place.parent().unwrap_or(&tree))?;
                durable::link("gen.link", &link, &place)?;
            }
            for (path, content) in files.iter().filter(|(path, _)| !planned.contains_key(*path)).chain(&lists)
            {
                write_new(&tree.join(path), content.as_bytes())?;
            }
            if links == Links::Tried {
                return fs::rename(&tree, &target);
            }
            sync_dirs(&tree, None)?;
            durable::rename("gen.release", &tree, &target)
        };
        work().map_err(|e| failed("cannot link", &target, &e))?;
        Ok(target)
    }

    /// Whether `generation` links just what `wanted` lists.
    pub fn links_exactly(&self, generation: &Path, wanted: &Wanted) -> bool {
        let Ok(planned) = self.plan(wanted, Links::Placed) else { return false };
        let real = |path: &Path| fs::canonicalize(path).ok();
        let fits = |(path, to): (&String, &PathBuf)| {
            let found = real(&generation.join(path));
            found.is_some() && found == real(to)
        };
        generation.starts_with(self.root.join("gen"))
            && links(generation) == planned.len()
            && planned.iter().all(fits)
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
            let work = || -> io::Result<()> {
                let trash = tempfile::tempdir_in(self.root.join("trash"))?;
                durable::rename("gen.delete", &generation, &trash.path().join("gen"))?;
                trash.close()
            };
            work().map_err(|e| failed("cannot delete", &generation, &e))?;
        }
        Ok(())
    }
}
