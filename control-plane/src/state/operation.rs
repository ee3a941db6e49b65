//! A requested change, its ordered steps, and where it stands.

mod details;
mod intervention;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kctl_shared::digest::Digest;
use kctl_shared::method::Method;
use kctl_shared::name::{GroupName, NodeId, PluginName};
use kctl_shared::spec::{Failure, Grant};
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::model::Target;

pub use intervention::{Cause, Excuse, Hold, Intervention, Interventions, MAX_NOTES, Note, RequestKey};
pub use policy::{OnFailure, Policy, Preflight};

/// Minted by whoever asks, so that a retry is recognised.
pub type OperationId = String;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub id: OperationId,
    pub kind: OperationKind,
    pub plugin: PluginName,
    pub group: GroupName,
    pub target: Target,
    /// What is being installed; for a removal what is being removed.
    pub release: Digest,
    /// Of `release` and `previous`, for people: the catalogue may forget a release that never worked.
    pub version: String,
    pub previous_version: String,
    /// What the nodes had before, if anything.
    pub previous: Option<Digest>,
    pub policy: Policy,
    pub request_id: String,
    pub request_body: String,
    pub reason: String,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub phase: Phase,
    pub error: Option<Failure>,
    /// Steps are only ever appended; history is never edited.
    pub steps: Vec<Step>,
    /// Index of the step that runs or comes next; `steps.len()` when all are over.
    pub cursor: usize,
    pub applier: Option<Applier>,
    /// Plugin entities that may be deleted: those an applier found and the log recorded. Id to "scope target".
    pub entities: BTreeMap<String, String>,
    /// How often entities had to be recorded after the first time.
    pub rerecorded: u32,
    /// How `release` gets onto the nodes, or got there when it is being removed.
    #[serde(default)]
    pub method: Method,
    #[serde(default)]
    pub previous_method: Method,
    /// What the nodes list under this name already becomes kctl's.
    #[serde(default)]
    pub adopt: bool,
    /// Agents set what `release`, and what `previous`, needs of nginx.
    #[serde(default)]
    pub set_nginx: bool,
    #[serde(default)]
    pub previous_set_nginx: bool,
    #[serde(default)]
    pub interventions: Interventions,
    /// Artifacts that hold `entities` whole, sealed.
    #[serde(default)]
    pub saved: Vec<Digest>,
    /// Of `entities`, what Kong refused to take again, with its words.
    #[serde(default)]
    pub refused: BTreeMap<String, Failure>,
    /// The revision of the plugin's history that is brought back.
    #[serde(default)]
    pub undo_to: Option<u32>,
    /// Operations with the same id began together, by one request of this id.
    #[serde(default)]
    pub batch: Option<String>,
    /// A lower version than the present one is meant.
    #[serde(default)]
    pub allow_downgrade: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationKind {
    Install,
    Upgrade,
    Remove,
}

impl OperationKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Upgrade => "upgrade",
            Self::Remove => "remove",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Pending,
    Progressing,
    Paused,
    RollingBack,
    Succeeded,
    Failed,
    Aborted,
    /// A removal that was called off after it had begun: what it took away is there again.
    Compensated,
}

impl Phase {
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Aborted | Self::Compensated)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Progressing => "Progressing",
            Self::Paused => "Paused",
            Self::RollingBack => "RollingBack",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Aborted => "Aborted",
            Self::Compensated => "Compensated",
        }
    }
}

/// The node that reads and deletes plugin entities for the operation, under a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applier {
    pub node: NodeId,
    /// Renewed whenever what it has to do changes.
    pub grant: Grant,
    /// Who worked on it before, and since which grant not any more: they may not have heard of it.
    #[serde(default)]
    pub replaced: BTreeMap<NodeId, Grant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub kind: StepKind,
    /// 1-based among steps of a kind that come in waves; 0 otherwise.
    pub wave: u32,
    pub phase: StepPhase,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Nodes that were let act by one entry and settled by one share theirs.
    pub nodes: BTreeMap<NodeId, Arc<NodeStep>>,
    pub summary: String,
    /// Nodes whose entries were dropped when the operation had long ended; nothing went wrong there.
    #[serde(default)]
    pub forgotten: usize,
}

impl Step {
    pub fn new(kind: StepKind, wave: u32, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let fresh = Arc::<NodeStep>::default();
        Self {
            kind,
            wave,
            phase: StepPhase::Pending,
            started_at: None,
            finished_at: None,
            nodes: nodes.into_iter().map(|n| (n, fresh.clone())).collect(),
            summary: String::new(),
            forgotten: 0,
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.phase, StepPhase::Done | StepPhase::Failed | StepPhase::Skipped)
    }

    /// The barrier no longer waits for the node, whether it failed or says nothing.
    pub fn excuse(&mut self, node: &NodeId, at: Timestamp) {
        if let Some(entry) = self.nodes.get_mut(node).filter(|n| n.verdict != Some(Verdict::Verified)) {
            let entry = Arc::make_mut(entry);
            entry.verdict = Some(Verdict::Excused);
            entry.finished_at = Some(at);
        }
    }

    /// The nodes and their entries, in order of their ids.
    pub fn entries(&self) -> impl Iterator<Item = (&NodeId, &NodeStep)> {
        self.nodes.iter().map(|(node, entry)| (node, &**entry))
    }

    /// Nodes without a verdict.
    pub fn open_nodes(&self) -> impl Iterator<Item = (&NodeId, &NodeStep)> {
        self.entries().filter(|(_, s)| s.verdict.is_none())
    }

    pub fn verified_nodes(&self) -> impl Iterator<Item = (&NodeId, &NodeStep)> {
        self.entries().filter(|(_, s)| s.verdict == Some(Verdict::Verified))
    }

    pub fn failed_nodes(&self) -> impl Iterator<Item = (&NodeId, &Failure)> {
        self.nodes.iter().filter_map(|(n, s)| match &s.verdict {
            Some(Verdict::Failed(f)) => Some((n, f)),
            _ => None,
        })
    }
}

/// A node that gave up in a step that must end well is let try again after this many milliseconds.
pub const RETRY_MS: u64 = 15_000;

/// What the applier does with entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityWork {
    /// Delete what is recorded.
    Detach,
    /// Delete nothing any more; look.
    Watch,
    /// Re-create what is recorded.
    Attach,
}

/// What a step asks of a node, or, for `Detach` and `Attach`, of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepKind {
    /// The release's files are on disk, re-hashed.
    Stage,
    /// The node's list with the release in it loads in a scratch Kong.
    Preflight,
    /// Listed and proven loaded.
    Enable,
    /// No plugin entity refers to the plugin, by two complete scans in sequence.
    Detach,
    /// Not listed, proven gone from every running worker.
    Disable,
    /// No files left.
    Purge,
    /// Undo of `Enable` and of `Disable`: as before the operation.
    Restore,
    /// Undo of `Stage`: only what was there before.
    Unstage,
    /// Undo of `Detach`: the recorded entities are there again, by two complete scans in sequence.
    Attach,
}

impl StepKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Preflight => "preflight",
            Self::Enable => "enable",
            Self::Detach => "detach",
            Self::Disable => "disable",
            Self::Purge => "purge",
            Self::Restore => "restore",
            Self::Unstage => "unstage",
            Self::Attach => "attach",
        }
    }

    /// Whether Kong is reloaded, so that only a few nodes may be at it together.
    pub fn reloads(self) -> bool {
        matches!(self, Self::Enable | Self::Disable | Self::Restore)
    }

    /// Whether its nodes come in waves, so that there is something to wait for between them.
    pub fn in_waves(self) -> bool {
        matches!(self, Self::Enable | Self::Disable)
    }

    /// Steps that must end well on every node, however long it takes: an undo, and a removal on its way.
    pub fn waits_for_ever(self) -> bool {
        matches!(
            self,
            Self::Detach | Self::Disable | Self::Purge | Self::Restore | Self::Unstage | Self::Attach
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepPhase {
    Pending,
    Running,
    Done,
    Failed,
    Skipped,
}

impl StepPhase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Done => "Done",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStep {
    /// Set once the node may act; its spec shows the step from then on.
    pub grant: Option<Grant>,
    pub started_at: Option<Timestamp>,
    /// When the present grant was given; later than `started_at` after a repeated dispatch.
    pub dispatched_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub verdict: Option<Verdict>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Verified,
    Failed(Failure),
    /// A person decided that the barrier passes without this node.
    Excused,
}

impl Operation {
    /// Whether the preflight on this node starts a scratch Kong.
    pub fn boots_on(&self, node: &NodeId) -> bool {
        match self.policy.preflight {
            Preflight::Boot => true,
            Preflight::Parse => false,
            Preflight::Canary => {
                let first = self.steps.iter().find(|s| s.kind == StepKind::Enable);
                first.is_some_and(|wave| wave.nodes.contains_key(node))
            }
        }
    }

    pub fn current(&self) -> Option<&Step> {
        self.steps.get(self.cursor)
    }

    /// Nodes that any step so far has been dispatched to.
    pub fn touched(&self, kinds: &[StepKind]) -> BTreeSet<NodeId> {
        let steps = self.steps.iter().filter(|s| kinds.contains(&s.kind));
        steps
            .flat_map(|s| s.nodes.iter())
            .filter(|(_, n)| n.grant.is_some())
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// The steps take everything back that nodes were let do, and nothing else. Whoever composed them may have seen fewer
    /// nodes at work than there are by now.
    pub fn is_way_back(&self, steps: &[Step]) -> bool {
        let named = |kind: StepKind| -> BTreeSet<_> {
            steps.iter().filter(|s| s.kind == kind).flat_map(|s| s.nodes.keys().cloned()).collect()
        };
        let fits = |s: &Step| matches!(s.kind, StepKind::Restore | StepKind::Unstage) && !s.is_over();
        let enabled = self.touched(&[StepKind::Enable]);
        let staged = self.touched(&[StepKind::Stage, StepKind::Preflight, StepKind::Enable]);
        self.kind != OperationKind::Remove
            && !steps.is_empty()
            && steps.iter().all(fits)
            && named(StepKind::Restore).is_superset(&enabled)
            && named(StepKind::Unstage).is_superset(&staged)
    }

    /// A removal that has not looked for entities yet.
    pub fn is_untouched(&self) -> bool {
        self.applier.is_none() && self.cursor == 0 && self.entities.is_empty()
    }

    /// Entities are being re-created: what they need may not be taken away again.
    pub fn has_begun_to_attach(&self) -> bool {
        self.steps.iter().any(|s| s.kind == StepKind::Attach && s.started_at.is_some())
    }

    /// What nodes had before: release, its method, and whether agents set what it needs of nginx.
    pub fn before(&self) -> Option<(Digest, &Method, bool)> {
        match self.kind {
            OperationKind::Remove => Some((self.release, &self.method, self.set_nginx)),
            OperationKind::Install | OperationKind::Upgrade => {
                self.previous.map(|d| (d, &self.previous_method, self.previous_set_nginx))
            }
        }
    }

    /// What the applier does at present. Scanning goes on from the detach step until files are deleted, so that a
    /// re-created entity is found at once; and from the moment a removal is called off, so that the applier is known to
    /// have put the deletions down before anything is re-created.
    pub fn entity_work(&self) -> Option<EntityWork> {
        let step = self.current()?;
        let attaches = self.steps[self.cursor..].iter().any(|s| s.kind == StepKind::Attach);
        let removes = self.kind == OperationKind::Remove && !self.is_past_return();
        match step.kind {
            StepKind::Attach => Some(EntityWork::Attach),
            _ if attaches && self.phase == Phase::RollingBack => Some(EntityWork::Watch),
            StepKind::Detach | StepKind::Disable | StepKind::Purge if removes => Some(EntityWork::Detach),
            _ => None,
        }
    }

    /// All nodes that any step names.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.steps.iter().flat_map(|s| s.nodes.keys().cloned()).collect()
    }

    /// Deleting files has begun: there is no way back.
    pub fn is_past_return(&self) -> bool {
        self.steps.iter().any(|s| s.kind == StepKind::Purge && s.started_at.is_some())
    }
}
