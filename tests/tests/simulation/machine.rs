//! A node without its agent: files, the two configurations of a Kong, and what its workers run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kctl_node_agent::gateway::{KongObserved, Wanted};
use kctl_shared::digest::Digest;
use kctl_shared::name::PluginName;
use kctl_shared::spec::{KongFacts, KongState, Placement, ReleaseRef};

/// Listed by hand on every node; kctl was never given it.
pub const FOREIGN: &str = "byhand";

/// What a generation of workers has loaded, and from which files of ours.
pub type Workers = BTreeMap<PluginName, Option<Placement>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    pub listed: BTreeSet<PluginName>,
    pub generation: Option<PathBuf>,
}

impl Conf {
    /// The agent's set operation on the current file.
    pub fn edit(&mut self, wanted: &Wanted) {
        self.listed.retain(|name| !wanted.unlisted.contains(name));
        self.listed.extend(wanted.listed.keys().cloned());
        self.generation.clone_from(&wanted.generation);
    }

    pub fn names(&self) -> Vec<String> {
        self.listed.iter().map(ToString::to_string).collect()
    }
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub admin: bool,
    pub up: bool,
    pub pid: u32,
    pub conf: Conf,
    /// What the next reload or start loads.
    pub armed: Conf,
    pub loaded: Workers,
    /// Workers of former configurations that still serve.
    pub old: Vec<Workers>,
    pub stored: BTreeMap<PluginName, BTreeSet<Placement>>,
    pub generations: BTreeMap<PathBuf, BTreeMap<PluginName, Placement>>,
    /// Releases that do not load on this node.
    pub broken: BTreeSet<Digest>,
    /// It is not as the cluster knows it: set up anew or set back, and not taken in since.
    pub is_strange: bool,
    /// It may have what was removed from the others while it was out of the cluster, or before it was set back.
    pub may_have_more: bool,
    /// Its owner has commands that take it out of a load balancer.
    pub drains: bool,
}

impl Machine {
    pub fn new(admin: bool) -> Self {
        let foreign = PluginName::parse(FOREIGN).unwrap();
        let conf = Conf { listed: BTreeSet::from([foreign.clone()]), generation: None };
        Self {
            admin,
            up: true,
            pid: 1,
            armed: conf.clone(),
            conf,
            loaded: Workers::from([(foreign, None)]),
            old: Vec::new(),
            stored: BTreeMap::new(),
            generations: BTreeMap::new(),
            broken: BTreeSet::new(),
            is_strange: false,
            may_have_more: false,
            drains: false,
        }
    }

    pub fn has(&self, plugin: &PluginName, release: &ReleaseRef) -> bool {
        self.stored.get(plugin).is_some_and(|s| s.contains(&release.placement()))
    }

    /// What workers of this configuration would load; `None` when Kong refuses it.
    fn resolve(&self, conf: &Conf, in_use: &BTreeSet<PluginName>) -> Option<Workers> {
        if !in_use.is_subset(&conf.listed) {
            return None;
        }
        let links = conf.generation.as_ref().and_then(|g| self.generations.get(g));
        let load = |name: &PluginName| {
            if name.as_str() == FOREIGN {
                return Some((name.clone(), None));
            }
            let placement = links?.get(name)?;
            let whole = self.stored.get(name).is_some_and(|s| s.contains(placement));
            (whole && !self.broken.contains(&placement.digest))
                .then(|| (name.clone(), Some(placement.clone())))
        };
        conf.listed.iter().map(load).collect()
    }

    /// Whether a scratch Kong takes `wanted`.
    pub fn tries(&self, wanted: &Wanted) -> bool {
        wanted.listed.iter().all(|(name, r)| self.has(name, r) && !self.broken.contains(&r.digest))
    }

    /// A reload; `false` when Kong threw the new configuration away.
    pub fn hup(&mut self, in_use: &BTreeSet<PluginName>) -> bool {
        let Some(new) = self.resolve(&self.armed, in_use).filter(|_| self.up) else { return false };
        let former = std::mem::replace(&mut self.loaded, new);
        self.old.push(former);
        true
    }

    pub fn stop(&mut self) {
        self.up = false;
        self.loaded.clear();
        self.old.clear();
    }

    pub fn start(&mut self, in_use: &BTreeSet<PluginName>) {
        if let Some(loaded) = self.resolve(&self.armed, in_use) {
            (self.up, self.loaded) = (true, loaded);
            self.pid += 1;
        }
    }

    /// The proof: what runs, is armed and is written is what is wanted.
    pub fn proves(&self, wanted: &Wanted) -> bool {
        let is_loaded = |(name, release): (&PluginName, &ReleaseRef)| {
            self.loaded.get(name).is_some_and(|l| l.as_ref() == Some(&release.placement()))
        };
        self.up
            && self.conf == self.armed
            && self.conf.generation == wanted.generation
            && wanted.listed.iter().all(is_loaded)
            && !wanted.unlisted.iter().any(|n| self.loaded.contains_key(n) || self.conf.listed.contains(n))
    }

    /// The former proof still holds, by what is loaded alone.
    pub fn still_runs(&self, proven: &Wanted) -> bool {
        proven.listed.is_empty()
            || (self.up
                && proven.listed.iter().all(|(name, release)| {
                    self.loaded.get(name).is_some_and(|l| l.as_ref() == Some(&release.placement()))
                }))
    }

    /// Whether workers of any age run the plugin.
    pub fn runs(&self, plugin: &PluginName) -> bool {
        self.loaded.contains_key(plugin) || self.old.iter().any(|w| w.contains_key(plugin))
    }

    pub fn link(&mut self, number: u64, wanted: &Wanted) -> Option<PathBuf> {
        if wanted.listed.is_empty() {
            return None;
        }
        let path = PathBuf::from(format!("/opt/kctl/gen/{number}"));
        self.generations.insert(path.clone(), links(wanted));
        Some(path)
    }

    pub fn links_exactly(&self, generation: &PathBuf, wanted: &Wanted) -> bool {
        self.generations.get(generation).is_some_and(|there| *there == links(wanted))
    }

    /// Generation directories that something may still read.
    pub fn used(&self, proven: &Wanted) -> BTreeSet<PathBuf> {
        [&self.conf.generation, &self.armed.generation, &proven.generation]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    pub fn observe(&self, in_use: &BTreeSet<PluginName>) -> KongObserved {
        let names = |set: &BTreeSet<PluginName>| set.iter().map(ToString::to_string).collect();
        KongObserved {
            facts: KongFacts {
                state: if self.up { KongState::Running } else { KongState::Down },
                ready: self.up,
                has_admin_api: self.admin && self.up,
                datastore: "d".into(),
                old_workers: self.old.len() as u32,
                propagation_ms: 1_000,
                master_pid: self.pid,
                ..KongFacts::default()
            },
            conf_plugins: Some(self.conf.names()),
            armed_plugins: Some(self.armed.names()),
            conf_generation: self.conf.generation.clone(),
            armed_generation: self.armed.generation.clone(),
            conf_nginx: Some(BTreeSet::new()),
            loaded: self.up.then(|| self.loaded.keys().map(|n| (n.to_string(), None)).collect()),
            enabled_in_cluster: (self.admin && self.up).then(|| names(in_use)),
            ..KongObserved::default()
        }
    }
}

fn links(wanted: &Wanted) -> BTreeMap<PluginName, Placement> {
    wanted.listed.iter().map(|(name, release)| (name.clone(), release.placement())).collect()
}
