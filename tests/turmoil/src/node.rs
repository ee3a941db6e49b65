//! A node without its agent: the two configurations of a Kong, and what its workers run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use kctl_node_agent::gateway::{KongObserved, Wanted};
use kctl_shared::digest::Digest;
use kctl_shared::name::PluginName;
use kctl_shared::spec::{KongFacts, KongState, ReleaseRef};

/// Listed by hand on every node; kctl was never given it.
pub const FOREIGN: &str = "byhand";
/// Until every worker forgot a deleted entity.
const PROPAGATION_MS: u64 = 200;

/// What a generation of workers has loaded: releases of ours by digest.
pub type Workers = BTreeMap<PluginName, Option<Digest>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    pub listed: BTreeSet<PluginName>,
    pub generation: Option<PathBuf>,
}

impl Conf {
    /// The set operation on the current file.
    #[must_use]
    pub fn edited(&self, wanted: &Wanted) -> Self {
        let kept = self.listed.iter().filter(|name| !wanted.unlisted.contains(*name));
        let listed = kept.chain(wanted.listed.keys()).cloned().collect();
        Self { listed, generation: wanted.generation.clone() }
    }

    fn names(&self) -> Vec<String> {
        self.listed.iter().map(ToString::to_string).collect()
    }
}

#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub admin: bool,
    pub up: bool,
    pub pid: u32,
    /// kong.conf.
    pub conf: Conf,
    /// What the next reload or start loads.
    pub armed: Conf,
    pub loaded: Workers,
    /// Workers of former configurations that still serve, and until when, in milliseconds of the run.
    pub old: Vec<(Workers, u64)>,
    /// Names of an edit that is neither proven nor taken back.
    pub unproven: BTreeSet<PluginName>,
    pub state_dir: PathBuf,
    pub lua_dir: PathBuf,
}

impl Node {
    pub fn new(name: &str, admin: bool, root: &Path) -> Self {
        let foreign: PluginName = FOREIGN.parse().expect("a valid name");
        let conf = Conf { listed: BTreeSet::from([foreign.clone()]), generation: None };
        Self {
            name: name.to_owned(),
            admin,
            up: true,
            pid: 1,
            armed: conf.clone(),
            conf,
            loaded: Workers::from([(foreign, None)]),
            old: Vec::new(),
            unproven: BTreeSet::new(),
            state_dir: root.join(name).join("state"),
            lua_dir: root.join(name).join("lua"),
        }
    }

    pub fn has_admin_api(&self) -> bool {
        self.admin && self.up
    }

    /// Where the agent keeps a release.
    pub fn release(&self, plugin: &PluginName, digest: &Digest) -> PathBuf {
        let slot = self.lua_dir.join("store").join(plugin.as_str()).join(digest.hex());
        slot.join("kong/plugins").join(plugin.as_str())
    }

    /// Releases on the disk, by digest.
    pub fn stored(&self, plugin: &PluginName) -> BTreeSet<Digest> {
        let entries = fs::read_dir(self.lua_dir.join("store").join(plugin.as_str())).into_iter().flatten();
        entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
    }

    /// What workers of this configuration would load; `None` when Kong refuses it.
    fn resolve(&self, conf: &Conf, in_use: &BTreeSet<PluginName>, poison: bool) -> Option<Workers> {
        if !in_use.is_subset(&conf.listed) {
            return None;
        }
        let load = |name: &PluginName| {
            if name.as_str() == FOREIGN {
                return Some((name.clone(), None));
            }
            let digest = linked(conf.generation.as_deref()?, name)?;
            (!poison || !self.is_poisoned(name, &digest)).then(|| (name.clone(), Some(digest)))
        };
        conf.listed.iter().map(load).collect()
    }

    /// Whether the release loads in every preflight, and not in a reload of this node.
    fn is_poisoned(&self, plugin: &PluginName, digest: &Digest) -> bool {
        let handler = fs::read_to_string(self.release(plugin, digest).join("handler.lua"));
        handler.is_ok_and(|text| text.contains(&format!("poison for {}\n", self.name)))
    }

    /// Whether a scratch Kong takes `wanted`.
    pub fn tries(&self, wanted: &Wanted) -> bool {
        let links = |(name, release): (&PluginName, &ReleaseRef)| {
            let generation = wanted.generation.as_deref();
            generation.and_then(|g| linked(g, name)) == Some(release.digest)
        };
        wanted.listed.iter().all(links)
    }

    /// A reload; `false` when Kong threw the new configuration away. Old workers go `lingers` milliseconds later.
    pub fn hup(&mut self, in_use: &BTreeSet<PluginName>, until: u64) -> bool {
        let Some(new) = self.resolve(&self.armed, in_use, true).filter(|_| self.up) else { return false };
        let former = std::mem::replace(&mut self.loaded, new);
        self.old.push((former, until));
        true
    }

    pub fn stop(&mut self) {
        self.up = false;
        self.loaded.clear();
        self.old.clear();
    }

    /// Whether it runs now.
    pub fn start(&mut self, in_use: &BTreeSet<PluginName>) -> bool {
        if let Some(loaded) = self.resolve(&self.armed, in_use, false) {
            (self.up, self.loaded) = (true, loaded);
            self.pid += 1;
        }
        self.up
    }

    /// The proof: what runs, is armed and is written is what is wanted.
    pub fn proves(&self, wanted: &Wanted) -> bool {
        let is_loaded = |(name, release): (&PluginName, &ReleaseRef)| {
            self.loaded.get(name) == Some(&Some(release.digest))
        };
        self.up
            && self.conf == self.armed
            && self.conf.generation == wanted.generation
            && wanted.listed.iter().all(is_loaded)
            && !wanted.unlisted.iter().any(|n| self.loaded.contains_key(n) || self.conf.listed.contains(n))
    }

    /// All releases that workers of any age run.
    pub fn running(&self) -> impl Iterator<Item = (&PluginName, &Digest)> {
        let all = std::iter::once(&self.loaded).chain(self.old.iter().map(|(workers, _)| workers));
        all.flatten().filter_map(|(name, digest)| Some((name, digest.as_ref()?)))
    }

    pub fn observe(&self, in_use: &BTreeSet<PluginName>) -> KongObserved {
        let names = |set: &BTreeSet<PluginName>| set.iter().map(ToString::to_string).collect();
        KongObserved {
            facts: KongFacts {
                version: "3.9.1".into(),
                state: if self.up { KongState::Running } else { KongState::Down },
                ready: self.up,
                has_admin_api: self.has_admin_api(),
                database: "postgres".into(),
                datastore: "d".into(),
                old_workers: u32::try_from(self.old.len()).unwrap_or(u32::MAX),
                propagation_ms: PROPAGATION_MS,
                master_pid: self.pid,
                ..KongFacts::default()
            },
            conf_plugins: Some(self.conf.names()),
            armed_plugins: Some(self.armed.names()),
            conf_generation: self.conf.generation.clone(),
            armed_generation: self.armed.generation.clone(),
            conf_nginx: Some(BTreeSet::new()),
            loaded: self.up.then(|| self.loaded.keys().map(|n| (n.to_string(), None)).collect()),
            enabled_in_cluster: self.has_admin_api().then(|| names(in_use)),
            unproven: names(&self.unproven),
            ..KongObserved::default()
        }
    }
}

/// The release that a generation links under a name, if its files are there.
fn linked(generation: &Path, plugin: &PluginName) -> Option<Digest> {
    let dir = fs::canonicalize(generation.join("kong/plugins").join(plugin.as_str())).ok()?;
    dir.ancestors().filter_map(Path::file_name).find_map(|name| name.to_str()?.parse().ok())
}
