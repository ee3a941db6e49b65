//! What is outside of the product in one run: nodes, the entities they share, and what people asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kctl_shared::digest::Digest;
use kctl_shared::name::PluginName;
use kctl_shared::spec::Entity;
use kctl_shared::time::Timestamp;
use rand::rngs::SmallRng;

use crate::node::Node;

/// When a run begins, in milliseconds of the Unix epoch.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

/// What people want of one plugin, as far as they know what became of it.
#[derive(Debug, Default)]
pub struct Wish {
    /// The release that the last operation that ended left behind.
    pub present: Option<Digest>,
    /// Releases that were tried since; a node that was not heard may still come with one of them.
    pub tried: BTreeSet<Digest>,
    /// Entities of it that people made and did not have removed.
    pub configured: BTreeSet<String>,
    /// What is asked for at the moment.
    pub asked: Option<Asked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Install(Digest),
    Remove(Digest),
}

#[derive(Debug)]
pub struct World {
    pub rng: SmallRng,
    pub nodes: BTreeMap<String, Node>,
    /// Of the whole group, by id.
    pub entities: BTreeMap<String, (PluginName, Entity)>,
    pub wishes: BTreeMap<PluginName, Wish>,
    /// What the handler of each release that was ever asked for holds.
    pub releases: BTreeMap<Digest, Vec<u8>>,
    /// The faults have stopped.
    pub calm: bool,
    /// The first invariant that was broken.
    pub violated: Option<String>,
    pub trace: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

pub type Shared = Arc<Mutex<World>>;

pub fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds of the run.
pub fn now_ms() -> u64 {
    Timestamp::now().0.saturating_sub(EPOCH_MS)
}

impl World {
    pub fn new(rng: SmallRng, nodes: BTreeMap<String, Node>) -> Self {
        Self {
            rng,
            nodes,
            entities: BTreeMap::new(),
            wishes: BTreeMap::new(),
            releases: BTreeMap::new(),
            calm: false,
            violated: None,
            trace: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    pub fn say(&mut self, what: impl AsRef<str>) {
        let line = format!("{:>7} {}", now_ms(), what.as_ref());
        tracing::info!(target: "turmoil_trace", "{line}");
        self.trace.push(line);
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// An invariant is broken; the first one counts.
    pub fn broken(&mut self, law: &str, detail: impl AsRef<str>) {
        let what = format!("{law}: {}", detail.as_ref());
        self.say(format!("BROKEN {what}"));
        self.violated.get_or_insert(what);
    }

    pub fn in_use(&self) -> BTreeSet<PluginName> {
        self.entities.values().map(|(plugin, _)| plugin.clone()).collect()
    }

    pub fn wish(&mut self, plugin: &PluginName) -> &mut Wish {
        self.wishes.entry(plugin.clone()).or_default()
    }

    /// A node by its name, which is one of the run's.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).expect("a node of this run")
    }
}
