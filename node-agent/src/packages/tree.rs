//! A LuaRocks tree that others use too: one copy of each plugin, changed file by file, and full of what is not ours.
//!
//! A claim in the tree says what of it kctl put there, and for whom (several nodes of one machine may share a tree). It is
//! written before the first file and taken away after the last, so that after a crash it is known whose a half is.
//! Whatever lies at a plugin's modules without a claim belongs to somebody else and is never touched.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kctl_shared::digest::Digest;
use kctl_shared::name::PluginName;
use kctl_shared::package::{FileEntry, Package, hash_release, hash_tree};
use kctl_shared::spec::Failure;
use serde::{Deserialize, Serialize};

use super::disk::{self, failed};
use super::luarocks::{Luarocks, Rock, installed, is_settled, is_stale, plugin_dir};
use super::slot::TREE_LUA;
use crate::durable;

/// How long another user of the tree is waited for.
const LOCK: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// What kctl has in a tree of one plugin.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claim {
    version: String,
    digest: Digest,
    /// Lua directories of the agents that asked for it.
    owners: BTreeSet<PathBuf>,
    /// Modules beside the plugin's own directory, relative to the tree's Lua root.
    #[serde(default)]
    extras: BTreeSet<String>,
    /// Versions that this one takes the place of, until they are gone.
    #[serde(default)]
    former: BTreeSet<String>,
}

/// One plugin in one tree, seen by one agent.
pub(super) struct Tree<'a> {
    pub luarocks: &'a Luarocks,
    /// The agent's Lua directory.
    pub owner: &'a Path,
    pub tree: &'a Path,
    pub plugin: &'a PluginName,
    /// Modules beside the plugin's own directory that the release has.
    pub extras: Vec<String>,
}

/// Held while the tree is changed; given up with the file.
struct Lock(#[expect(dead_code, reason = "dropping it gives the lock up")] File);

impl Tree<'_> {
    fn claim_path(&self) -> PathBuf {
        self.tree.join("lib/luarocks/kctl").join(format!("{}.json", self.plugin))
    }

    fn claim(&self) -> Option<Claim> {
        serde_json::from_slice(&fs::read(self.claim_path()).ok()?).ok()
    }

    fn write_claim(&self, claim: &Claim) -> Result<(), Failure> {
        let path = self.claim_path();
        let bytes = serde_json::to_vec(claim).unwrap_or_default();
        disk::replace(&path, &bytes).map_err(|e| failed("cannot write", &path, &e))
    }

    pub fn dir(&self) -> PathBuf {
        plugin_dir(self.tree, self.plugin)
    }

    pub fn holds(&self, digest: &Digest) -> bool {
        let found = hash_release(&self.dir(), self.plugin, &self.tree.join(TREE_LUA), &self.extras);
        found.is_ok_and(|(found, ..)| found == *digest)
    }

    /// Whether removing the release would take files out of the tree.
    pub fn is_ours(&self, digest: &Digest) -> bool {
        self.claim().is_some_and(|c| c.digest == *digest && c.owners.contains(self.owner))
    }

    /// Whether the tree could take the plugin, without changing anything but making the tree's own directories.
    ///
    /// # Errors
    /// `LUAROCKS_NOT_FOUND`, `TREE_NOT_WRITABLE`, `TREE_BUSY`, `MODULE_OWNED_BY`.
    pub async fn check(&self, work: &Path, package: &Package) -> Result<(), Failure> {
        self.luarocks.find()?;
        let _lock = self.lock().await?;
        self.owned_by_others(work, package).await
    }

    /// Makes the tree hold the release.
    ///
    /// # Errors
    /// As [`Self::check`] and [`Luarocks::install`], `DIGEST_MISMATCH`.
    pub async fn deploy(&self, work: &Path, package: &Package, make: bool) -> Result<(), Failure> {
        let digest = package.digest();
        let rock = Rock::of(self.plugin, &package.version);
        let claim = self.claim();
        if claim.as_ref().is_some_and(|c| c.digest == digest && c.owners.contains(self.owner))
            && is_settled(self.tree, &rock)
            && self.holds(&digest)
        {
            return Ok(());
        }
        let _lock = self.lock().await?;
        self.owned_by_others(work, package).await?;
        let claim = self.claim();
        let known = is_settled(self.tree, &rock) && self.holds(&digest);
        if claim.is_none() && known {
            // Somebody else's, and just what is wanted: used, and left alone in the end.
            return Ok(());
        }
        // An agent that was killed in the middle of this had begun it.
        let resumed = claim.as_ref().is_some_and(|c| c.digest == digest && c.owners.contains(self.owner));
        let former: BTreeSet<String> =
            claim.iter().flat_map(|c| c.former.iter().chain([&c.version])).cloned().collect();
        let (mut owners, before) = claim.map(|c| (c.owners, c.extras)).unwrap_or_default();
        owners.insert(self.owner.to_path_buf());
        let extras: BTreeSet<String> = self.extras.iter().cloned().collect();
        // Until the former ones are gone they are ours too.
        let both = extras.union(&before).cloned().collect();
        let mut claim = Claim { version: package.version.clone(), digest, owners, extras: both, former };
        self.write_claim(&claim)?;
        if known {
            return Ok(());
        }
        if !claim.former.is_empty() {
            self.mend(work, &rock).await?;
        }
        self.luarocks.install(work, self.tree, package, make).await?;
        let dir = self.dir();
        disk::sync_all(&dir).map_err(|e| failed("cannot sync", &dir, &e))?;
        for extra in &self.extras {
            let path = self.tree.join(TREE_LUA).join(extra);
            let file = File::open(&path).map_err(|e| failed("cannot sync", &path, &e))?;
            durable::sync(&file);
        }
        if resumed {
            // LuaRocks keeps what it finds under another name, and what it found was half of the same release.
            let own = package.files.iter().map(|f| dir.join(format!("{}~", f.entry.path)));
            let beside = self.extras.iter().map(|e| self.tree.join(TREE_LUA).join(format!("{e}~")));
            own.chain(beside).for_each(|backup| drop(fs::remove_file(backup)));
        }
        if self.holds(&digest) {
            self.sweep(&claim)?;
            claim.extras = extras;
            claim.former = BTreeSet::new();
            return self.write_claim(&claim);
        }
        let message = format!(
            "{} is not {} {} after LuaRocks installed it; what is there beside it belongs to nobody",
            dir.display(),
            self.plugin,
            package.version
        );
        Err(Failure::new("DIGEST_MISMATCH", message))
    }

    /// Takes the release out of the tree if kctl put it there and nobody else needs it; `files` are its own. What is left
    /// of the plugin's directory, relative to it, was never kctl's.
    ///
    /// # Errors
    /// `LUAROCKS_…`, `TREE_NOT_WRITABLE`, `TREE_BUSY`, `REMOVE_INCOMPLETE`.
    pub async fn undeploy(
        &self,
        work: &Path,
        digest: &Digest,
        files: &[FileEntry],
        extras: &[FileEntry],
    ) -> Result<Vec<String>, Failure> {
        if !self.is_ours(digest) {
            return Ok(Vec::new());
        }
        let _lock = self.lock().await?;
        let Some(mut claim) = self.claim() else { return Ok(Vec::new()) };
        claim.owners.remove(self.owner);
        if !claim.owners.is_empty() {
            self.write_claim(&claim)?;
            return Ok(Vec::new());
        }
        let rock = Rock::of(self.plugin, &claim.version);
        self.mend(work, &rock).await?;
        // An upgrade that was stopped leaves the former version too.
        for version in installed(self.tree).into_iter().filter(|r| r.name == rock.name) {
            self.luarocks.remove(work, self.tree, &version).await?;
        }
        self.mend(work, &rock).await?;
        self.sweep(&claim)?;
        let dir = self.dir();
        let (left, own) = self.left(files);
        let beside = self.unchanged(extras);
        for path in own.into_iter().map(|path| dir.join(path)).chain(beside) {
            // LuaRocks was stopped in the middle before, and has forgotten the rest.
            fs::remove_file(&path).map_err(|e| failed("cannot delete", &path, &e))?;
            disk::prune(path.parent().unwrap_or(&dir), &self.tree.join(TREE_LUA));
        }
        if rock.dir(self.tree).is_dir() {
            let message = format!("{} still lists {} {}", self.tree.display(), rock.name, rock.version);
            return Err(Failure::new("REMOVE_INCOMPLETE", message));
        }
        disk::prune(&dir, &self.tree.join(TREE_LUA));
        let claim = self.claim_path();
        fs::remove_file(&claim).map_err(|e| failed("cannot delete", &claim, &e))?;
        disk::prune(claim.parent().unwrap_or(&claim), &self.tree.join("lib/luarocks"));
        Ok(left)
    }

    /// Makes what the tree tells of the rock true again after LuaRocks was stopped in the middle.
    async fn mend(&self, work: &Path, rock: &Rock) -> Result<(), Failure> {
        self.forget_half(rock);
        if is_stale(self.tree, &rock.name) {
            self.luarocks.rebuild(work, self.tree).await?;
        }
        Ok(())
    }

    /// Takes away what LuaRocks moved aside while it replaced one version by another and was stopped.
    fn sweep(&self, claim: &Claim) -> Result<(), Failure> {
        let versions = claim.former.iter().chain([&claim.version]);
        let aside: Vec<String> = versions.map(|v| Rock::of(self.plugin, v).aside()).collect();
        let root = self.tree.join(TREE_LUA);
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if aside.iter().any(|prefix| name.starts_with(prefix.as_str())) {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(|e| failed("cannot delete", &path, &e))?;
            }
        }
        Ok(())
    }

    /// Takes away what LuaRocks noted of a version whose install was cut off: it stumbles over a rock without a manifest.
    fn forget_half(&self, rock: &Rock) {
        let place = rock.dir(self.tree);
        let versions = place.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
        for version in versions.map(|e| e.path()).filter(|v| v.is_dir() && !v.join("rock_manifest").exists())
        {
            if let Err(error) = fs::remove_dir_all(&version) {
                tracing::warn!(%error, path = %version.display(), "half a rock stays");
            }
        }
    }

    /// Files in the plugin's directory: those that are not `files`, and those that are.
    fn left(&self, files: &[FileEntry]) -> (Vec<String>, Vec<String>) {
        let found = hash_tree(&self.dir(), self.plugin).map(|(_, found)| found).unwrap_or_default();
        let (own, left): (Vec<FileEntry>, Vec<FileEntry>) =
            found.into_iter().partition(|f| files.contains(f));
        let paths = |list: Vec<FileEntry>| list.into_iter().map(|f| f.path).collect();
        (paths(left), paths(own))
    }

    /// Where those of `extras` lie that are still as they were placed.
    fn unchanged(&self, extras: &[FileEntry]) -> Vec<PathBuf> {
        let root = self.tree.join(TREE_LUA);
        let same = |extra: &&FileEntry| {
            fs::read(root.join(&extra.path)).is_ok_and(|bytes| Digest::of(&bytes) == extra.sha256)
        };
        extras.iter().filter(same).map(|extra| root.join(&extra.path)).collect()
    }

    /// One at a time, whoever drives LuaRocks: before 3.10 it has no lock of its own.
    async fn lock(&self) -> Result<Lock, Failure> {
        let closed = |e: io::Error| {
            let message = format!("the agent cannot write to the tree {} ({e})", self.tree.display());
            Failure::new("TREE_NOT_WRITABLE", message)
        };
        for place in [TREE_LUA, "lib/luarocks/rocks-5.1"] {
            let place = self.tree.join(place);
            disk::make_dirs(&place).map_err(closed)?;
            // Trying is the only test that also sees read-only mounts and quotas.
            drop(tempfile::tempfile_in(&place).map_err(closed)?);
        }
        let file = File::open(self.tree).map_err(closed)?;
        let until = Instant::now() + LOCK;
        while file.try_lock().is_err() {
            if Instant::now() > until {
                let message = format!("somebody else works on the tree {}", self.tree.display());
                return Err(Failure::new("TREE_BUSY", message));
            }
            tokio::time::sleep(POLL).await;
        }
        // LuaRocks inherits it: one that outlives the agent that started it keeps others out until it ends.
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).map_err(|e| closed(e.into()))?;
        Ok(Lock(file))
    }

    /// Nothing but kctl's own may lie where the plugin goes.
    async fn owned_by_others(&self, work: &Path, package: &Package) -> Result<(), Failure> {
        let claim = self.claim();
        let ours = claim.as_ref().map(|c| Rock::of(self.plugin, &c.version));
        let wanted = Rock::of(self.plugin, &package.version);
        let same = claim.is_none() && wanted.dir(self.tree).is_dir() && self.holds(&package.digest());
        for rock in installed(self.tree) {
            if Some(&rock) == ours.as_ref() || same && rock == wanted {
                continue;
            }
            // A claim covers any version of the rock: an upgrade that was stopped leaves the former one too.
            if rock.name == wanted.name {
                if claim.is_some() {
                    continue;
                }
                return Err(self.owned(&format!("the rock {} {}", rock.name, rock.version)));
            }
            if !self.may_name(&rock) {
                continue;
            }
            let (dotted, slashed) =
                (format!("kong.plugins.{}.", self.plugin), format!("kong/plugins/{}/", self.plugin));
            let modules = self.luarocks.modules(work, self.tree, &rock).await?;
            if modules.iter().any(|m| m.starts_with(&dotted) || m.starts_with(&slashed)) {
                return Err(self.owned(&format!("the rock {} {}", rock.name, rock.version)));
            }
        }
        for extra in self.extras.iter().filter(|e| self.tree.join(TREE_LUA).join(e.as_str()).exists()) {
            if claim.as_ref().is_some_and(|c| c.extras.contains(extra)) || same {
                continue;
            }
            let message = format!(
                "{extra} is in {} already and is not this plugin's; take it away there first, or choose another tree",
                self.tree.display()
            );
            return Err(Failure::new("MODULE_OWNED_BY", message));
        }
        let lib = self.tree.join("lib/lua/5.1/kong/plugins").join(self.plugin.as_str());
        let copies = [self.dir(), self.dir().with_extension("lua"), lib];
        match copies.into_iter().find(|copy| copy.exists()) {
            Some(copy) if claim.is_none() && !same => {
                Err(self.owned(&format!("no rock: somebody copied files to {}", copy.display())))
            }
            _ => Ok(()),
        }
    }

    fn owned(&self, owner: &str) -> Failure {
        let message = format!(
            "kong.plugins.{} in {} belongs to {owner}; take it away there first, or choose another tree",
            self.plugin,
            self.tree.display()
        );
        Failure::new("MODULE_OWNED_BY", message)
    }

    /// Whether it is worth asking LuaRocks for the rock's modules: its list of files has the plugin's name in it.
    fn may_name(&self, rock: &Rock) -> bool {
        let manifest = fs::read_to_string(rock.dir(self.tree).join("rock_manifest")).unwrap_or_default();
        manifest.contains(self.plugin.as_str()) && manifest.contains("plugins")
    }
}
