//! What the members agree on. Decisions only: progress bars, heartbeats and reports are the leader's soft state.

use std::collections::{BTreeMap, BTreeSet};

use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::method::Method;
use kctl_shared::name::{GroupName, NodeId, PluginName};
use kctl_shared::nginx::NginxSetting;
use kctl_shared::package::FileEntry;
use kctl_shared::spec::{Grant, ReleaseRef};
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::audit::Audit;
use super::history::Revision;
use super::members::Member;
use super::operation::{Operation, OperationId, Step};
use super::window::Window;

/// Ended operations that are kept for `operation list`; the oldest go first, and their request ids with them.
pub const KEPT_OPERATIONS: usize = 500;
/// Of those, the newest that say what each node did in each step; of older ones only what did not go well is kept.
pub const DETAILED_OPERATIONS: usize = 20;
/// Releases the catalogue may name at once.
pub const MAX_RELEASES: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Raised when a cluster is restored from a backup: agents refuse anything older.
    pub epoch: u64,
    /// Log index of the last entry that changed any node's spec.
    pub generation: u64,
    /// Latest time any command brought; never goes back.
    pub clock: Timestamp,
    pub groups: BTreeMap<GroupName, Group>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub releases: BTreeMap<Digest, Release>,
    pub operations: BTreeMap<OperationId, Operation>,
    /// Ended operations, oldest first.
    pub ended: Vec<OperationId>,
    pub requests: BTreeMap<String, RequestRecord>,
    /// What saved entities are sealed with where members are not given a key of their own.
    #[serde(default)]
    pub sealing_key: Option<SealingKey>,
    /// Every member there ever was, by its id.
    #[serde(default)]
    pub members: BTreeMap<u64, Member>,
    /// Nodes that followed a cluster of another epoch, which, and may follow this one.
    #[serde(default)]
    pub approved: BTreeMap<NodeId, u64>,
    #[serde(default)]
    pub audit: Audit,
    /// Nodes that were decommissioned, so that the agents of then do not come back by themselves.
    #[serde(default)]
    pub gone: BTreeMap<NodeId, Gone>,
}

/// Somebody's word that nothing is to be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub reason: String,
    pub since: Timestamp,
    /// Of a node: it is taken out of its load balancer meanwhile.
    #[serde(default)]
    pub drain: bool,
}

/// A node that is on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Under which its agent takes away what kctl put there.
    pub grant: Grant,
    pub since: Timestamp,
    pub reason: String,
}

/// A node that was decommissioned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Of the installation that is not taken in again unasked.
    pub nonce: String,
    pub at: Timestamp,
    /// A person let that installation in again, from this start of its agent on; it has not presented itself since.
    #[serde(default)]
    pub let_in: Option<u64>,
}

/// A key that no log line shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingKey(pub [u8; 32]);

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey")
    }
}

impl Default for ClusterState {
    fn default() -> Self {
        Self {
            epoch: 1,
            generation: 0,
            clock: Timestamp(0),
            groups: BTreeMap::new(),
            nodes: BTreeMap::new(),
            releases: BTreeMap::new(),
            operations: BTreeMap::new(),
            ended: Vec::new(),
            requests: BTreeMap::new(),
            sealing_key: None,
            members: BTreeMap::new(),
            approved: BTreeMap::new(),
            audit: Audit::default(),
            gone: BTreeMap::new(),
        }
    }
}

/// Nodes that share one Kong configuration store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub plugins: BTreeMap<PluginName, Plugin>,
    /// Plugins that are gone from the group, and the nodes that were excused from taking them away, with the grant under
    /// which they still do so when they are back.
    #[serde(default)]
    pub leftovers: BTreeMap<PluginName, BTreeMap<NodeId, Grant>>,
    /// What operations made of plugins, oldest first; of plugins that are gone too.
    #[serde(default)]
    pub history: BTreeMap<PluginName, Vec<Revision>>,
    /// Operations begin nothing new on its nodes.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// When running plugins may be changed; none: always.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// How many nodes there are, as somebody said: nothing begins while kctl knows of more or fewer.
    #[serde(default)]
    pub expected_nodes: Option<u32>,
    /// Another group's nodes use the same database, and are meant to.
    #[serde(default)]
    pub shares_database: bool,
}

/// A plugin in a group: what its nodes have at rest, and which operation holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// What the target nodes have enabled at rest; `None` while the first install runs.
    pub release: Option<Digest>,
    pub target: Target,
    /// Grant of the rest state: the entry that ended the latest operation.
    pub grant: Grant,
    /// The lock: one live operation per plugin and group.
    pub operation: Option<OperationId>,
    pub installed_at: Timestamp,
    /// How `release` got onto the nodes.
    #[serde(default)]
    pub method: Method,
    /// Agents set what `release` needs of nginx.
    #[serde(default)]
    pub set_nginx: bool,
    /// The only version that it may be changed to.
    #[serde(default)]
    pub pinned: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Standing: nodes that join later are included.
    AllNodes,
    Nodes(BTreeSet<NodeId>),
}

impl Target {
    pub fn includes(&self, node: &NodeId) -> bool {
        match self {
            Self::AllNodes => true,
            Self::Nodes(nodes) => nodes.contains(node),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub group: GroupName,
    /// Drawn once per installation of an agent; tells a clone from a restart.
    pub nonce: String,
    pub boot: u64,
    pub joined_at: Timestamp,
    pub facts: NodeFacts,
    /// Its agent leaves everything as it is.
    #[serde(default)]
    pub hold: Option<Hold>,
    #[serde(default)]
    pub leaving: Option<Leaving>,
    /// What it should be at rest is to be tried again under this grant, whatever failed before.
    #[serde(default)]
    pub anew: Option<Grant>,
    /// Since when it is the installation that it is: what was proven before says nothing of it.
    #[serde(default)]
    pub since: Grant,
    /// Somebody let it in in place of another installation: what that one placed is kctl's still.
    #[serde(default)]
    pub succeeds: bool,
}

impl Node {
    pub fn new(group: GroupName, nonce: String, boot: u64, joined_at: Timestamp, facts: NodeFacts) -> Self {
        Self {
            group,
            nonce,
            boot,
            joined_at,
            facts,
            hold: None,
            leaving: None,
            anew: None,
            since: Grant::default(),
            succeeds: false,
        }
    }

    /// The grant under which it takes away what it has, if it is on its way out; another one since somebody had it try
    /// again.
    pub fn leaves_under(&self) -> Option<Grant> {
        let leaving = self.leaving.as_ref()?;
        Some(leaving.grant.max(self.anew.unwrap_or_default()))
    }
}

/// Whether Kong on the node takes entities; no node, no.
pub fn has_admin_api(nodes: &BTreeMap<NodeId, Node>, node: &NodeId) -> bool {
    nodes.get(node).is_some_and(|record| record.facts.has_admin_api)
}

/// Whether Kong takes entities on one of the step's nodes; with `admin` false, whether it takes none on one of them.
pub fn any_admin_api(nodes: &BTreeMap<NodeId, Node>, step: &Step, admin: bool) -> bool {
    step.nodes.keys().any(|node| has_admin_api(nodes, node) == admin)
}

/// What decisions need to know about a node's Kong; changes are committed, everything livelier stays soft.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    pub has_admin_api: bool,
    /// Hash over the datastore's address; empty without one.
    pub datastore: String,
    pub propagation_ms: u64,
}

/// An immutable (plugin, version, digest).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub plugin: PluginName,
    pub version: String,
    pub digest: Digest,
    pub files: Vec<FileEntry>,
    pub registered_at: Timestamp,
    /// An operation with it has succeeded once: it stays in the catalogue, for going back to.
    pub retained: bool,
    /// Modules that travel with it beside its own directory, paths relative to a Lua root.
    #[serde(default)]
    pub extras: Vec<FileEntry>,
    /// What it needs of nginx, as it declares it.
    #[serde(default)]
    pub nginx: Vec<NginxSetting>,
}

impl Release {
    pub fn reference(&self, method: &Method, set_nginx: bool) -> ReleaseRef {
        ReleaseRef {
            version: self.version.clone(),
            digest: self.digest,
            method: method.clone(),
            nginx: self.nginx.iter().cloned().collect(),
            set_nginx,
        }
    }
}

/// Makes a retry of a request find what the first try did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Hash over the request's body.
    pub body: String,
    pub operation: OperationId,
}

impl ClusterState {
    pub fn plugin(&self, group: &GroupName, plugin: &PluginName) -> Option<&Plugin> {
        self.groups.get(group)?.plugins.get(plugin)
    }

    pub fn plugin_mut(&mut self, group: &GroupName, plugin: &PluginName) -> Option<&mut Plugin> {
        self.groups.get_mut(group)?.plugins.get_mut(plugin)
    }

    /// Nodes of a group, in order of their ids.
    pub fn nodes_of<'a>(&'a self, group: &'a GroupName) -> impl Iterator<Item = (&'a NodeId, &'a Node)> {
        self.nodes.iter().filter(move |(_, n)| &n.group == group)
    }

    /// Whether the node is one of the cluster's, and not on its way out.
    pub fn stays(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|n| n.leaving.is_none())
    }

    /// Nodes of a group that are to stay, in order of their ids.
    pub fn staying_in<'a>(&'a self, group: &'a GroupName) -> impl Iterator<Item = (&'a NodeId, &'a Node)> {
        self.nodes_of(group).filter(|(_, n)| n.leaving.is_none())
    }

    /// Operations that have not ended.
    pub fn live_operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values().filter(|o| !o.phase.has_ended())
    }

    /// Artifacts with saved entities that somebody may still want: those of operations that are kept, and of removals that
    /// can be undone.
    pub fn saved_entities(&self) -> BTreeSet<Digest> {
        let revisions = self.groups.values().flat_map(|g| g.history.values().flatten());
        let operations = self.operations.values().flat_map(|o| &o.saved);
        operations.chain(revisions.flat_map(|r| &r.saved)).copied().collect()
    }

    /// Everything that a member has to hold: releases of the catalogue, and saved entities.
    pub fn artifacts(&self) -> BTreeSet<Digest> {
        self.releases.keys().copied().chain(self.saved_entities()).collect()
    }

    /// Whether calling the operation off has to bring entities back. Without a datastore there is nothing that kctl
    /// could have deleted: configuration is in files of the nodes' own.
    pub fn has_to_attach(&self, operation: &Operation) -> bool {
        !operation.entities.is_empty()
            && self.nodes_of(&operation.group).any(|(_, n)| !n.facts.datastore.is_empty())
    }

    /// Live operation that holds `plugin` in `group`.
    pub fn operation_on(&self, group: &GroupName, plugin: &PluginName) -> Option<&Operation> {
        self.operations.get(self.plugin(group, plugin)?.operation.as_ref()?)
    }

    pub fn release_ref(&self, digest: &Digest, method: &Method, set_nginx: bool) -> Option<ReleaseRef> {
        self.releases.get(digest).map(|release| release.reference(method, set_nginx))
    }

    /// # Errors
    /// `OPERATION_NOT_FOUND`.
    pub fn operation(&self, id: &OperationId) -> Result<&Operation, Fault> {
        self.operations.get(id).ok_or_else(|| {
            Fault::new("OPERATION_NOT_FOUND", format!("there is no operation {id}"))
                .hint("kctl operation list")
        })
    }
}
