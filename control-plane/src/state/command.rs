//! What goes into the log and what comes out of applying it.

use std::collections::BTreeMap;

use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::name::{GroupName, NodeId, PluginName};
use kctl_shared::spec::{Failure, Grant};
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::duty::{GroupChange, NodeChange};
use super::members::MemberAddress;
use super::model::{NodeFacts, Release, SealingKey};
use super::operation::{Cause, Intervention, Operation, OperationId, Phase, RequestKey, Step, Verdict};

/// Where in the log a command stands, and when its proposer says it was proposed. `apply` clamps the time so that it
/// never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStamp {
    pub index: u64,
    /// Position within the log entry, 0-based.
    pub offset: u32,
    pub proposed_at: Timestamp,
}

impl LogStamp {
    pub fn grant(&self) -> Grant {
        Grant { index: self.index, offset: self.offset }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// An agent presented itself, restarted, or its Kong's facts changed.
    RegisterNode { node: NodeId, group: GroupName, nonce: String, boot: u64, facts: NodeFacts },
    /// A majority of members holds the artifact.
    RegisterRelease { release: Release },
    /// Already expanded into steps by the leader, so that members of different versions cannot expand differently.
    StartOperation { operation: Box<Operation> },
    /// All of them begin, or none does.
    StartBatch { operations: Vec<Operation> },
    /// Lets nodes of the current step act.
    Dispatch { operation: OperationId, step: usize, nodes: Vec<NodeId> },
    /// What became of nodes of the current step, as their agents proved it.
    Settle {
        operation: OperationId,
        step: usize,
        verdicts: BTreeMap<NodeId, Verdict>,
        /// Sum of the start numbers of the nodes' agents that they rest on, which only grow; `None` in logs of before it
        /// was said.
        #[serde(default)]
        starts: Option<u64>,
    },
    /// The barrier after step `from` is passed.
    AdvanceCursor {
        operation: OperationId,
        from: usize,
        summary: String,
        /// The applier's grant whose scan found nothing that refers to the plugin, where the barrier asks for that; `None`
        /// in logs of before it was said.
        #[serde(default)]
        scanned: Option<Grant>,
    },
    /// Interrupts the current step and goes on with other steps: a rollback, or a removal that must detach again.
    Reroute { operation: OperationId, from: usize, phase: Phase, error: Option<Failure>, steps: Vec<Step> },
    /// Chooses the node that works on plugin entities in place of the applier that has this grant.
    AssignApplier {
        operation: OperationId,
        node: NodeId,
        #[serde(default)]
        replaces: Option<Grant>,
    },
    /// Records entities as deletable, id to "scope target". A majority of members holds them whole, sealed, as `saved`.
    RecordEntities {
        operation: OperationId,
        step: usize,
        entities: BTreeMap<String, String>,
        #[serde(default)]
        saved: Option<Digest>,
    },
    /// The recorded entities are there again, but for those that Kong refused: id to its words.
    ConcludeAttach {
        operation: OperationId,
        from: usize,
        refused: BTreeMap<String, Failure>,
        summary: String,
    },
    /// The only version that the plugin may be changed to; `None`: any.
    Pin { group: GroupName, plugin: PluginName, version: Option<String> },
    /// What saved entities are sealed with where members are not given a key of their own.
    MintSealingKey { key: SealingKey },
    /// Ends an operation whose steps are all over.
    FinishOperation { operation: OperationId, phase: Phase },
    /// Nodes of the current wave that were verified and are not healthy any more, before the barrier was passed.
    Relapse { operation: OperationId, step: usize, failures: BTreeMap<NodeId, Failure> },
    /// The policy pauses the operation: after a wave, or because nodes failed.
    Hold { operation: OperationId, from: usize, cause: Cause },
    /// A person steps in.
    Intervene { operation: OperationId, request: RequestKey, reason: String, what: Intervention },
    /// A node that an operation ended without is rid of the plugin after all.
    ForgetLeftover { group: GroupName, plugin: PluginName, node: NodeId },
    /// A person lets another member in.
    AdmitMember { id: u64, address: MemberAddress, reason: String },
    /// A person takes a member out for ever.
    DismissMember { id: u64, reason: String },
    /// A person lets a node follow this cluster that followed one of another epoch.
    ApproveNode { node: NodeId, epoch: u64, reason: String },
    /// A person says what is to become of a node, or the leader that a leaving one is done.
    ChangeNode { node: NodeId, change: NodeChange, reason: String },
    /// A person says when and whether a group's nodes may be changed.
    ChangeGroup { group: GroupName, change: GroupChange, reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    NodeRegistered { node: NodeId, joined: bool },
    ReleaseRegistered { plugin: String, version: String, digest: String },
    OperationStarted { operation: OperationId },
    Dispatched { operation: OperationId, step: usize, nodes: Vec<NodeId> },
    Settled { operation: OperationId, step: usize, nodes: Vec<NodeId> },
    BarrierPassed { operation: OperationId, step: usize },
    Rerouted { operation: OperationId, step: usize },
    ApplierAssigned { operation: OperationId, node: NodeId },
    EntitiesRecorded { operation: OperationId, count: usize },
    EntitiesAttached { operation: OperationId, refused: usize },
    SealingKeyMinted,
    Pinned { plugin: String, version: Option<String> },
    OperationFinished { operation: OperationId, phase: Phase },
    Relapsed { operation: OperationId, step: usize, nodes: Vec<NodeId> },
    Held { operation: OperationId, step: usize },
    Intervened { operation: OperationId, verb: String },
    LeftoverForgotten { node: NodeId, plugin: String },
    MemberAdmitted { id: u64 },
    MemberDismissed { id: u64 },
    NodeApproved { node: NodeId },
    NodeChanged { node: NodeId, verb: String },
    GroupChanged { group: GroupName, verb: String },
}

/// The domain's "no": the same type that clients see.
pub type Rejection = Fault;
