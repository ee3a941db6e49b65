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

use super::operation::{Operation, OperationId};

/// Ended operations that are kept for `operation list`; the oldest go first, and their request ids with them.
pub const KEPT_OPERATIONS: usize = 500;
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

    /// Operations that have not ended.
    pub fn live_operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values().filter(|o| !o.phase.has_ended())
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
