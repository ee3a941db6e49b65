//! What the members agree on: the state after the whole log.

use std::fmt;

use crate::mask::{Mask, NODES, bit, has, nodes};

/// The replicated state. One group, one plugin, one release of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    /// Rises with every command that changes a spec; stands for the log index.
    pub generation: u8,
    /// Nodes with an Admin API: facts that agents told when they registered.
    pub admins: Mask,
    /// The registered start of each node's agent; 0: not registered.
    pub boots: [u8; NODES],
    /// Decommissioned, and out.
    pub gone: Mask,
    /// The grant under which each node that is to leave takes away what it has; 0: it stays.
    pub leaving: [u8; NODES],
    /// The plugin is in the group at rest.
    pub installed: bool,
    /// Grant of the rest state.
    pub rest: u8,
    /// The operation that holds the plugin.
    pub lock: Option<usize>,
    pub operations: Vec<Operation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Install,
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Progressing,
    RollingBack,
    Succeeded,
    Failed,
    Aborted,
    Compensated,
}

impl Phase {
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Progressing | Self::RollingBack)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    pub kind: Kind,
    pub phase: Phase,
    pub aborted: bool,
    pub steps: Vec<Step>,
    pub cursor: usize,
    pub applier: Option<Applier>,
    /// Nodes that have been the applier.
    pub appliers: Mask,
    /// Entities that may be deleted.
    pub recorded: Mask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Applier {
    pub node: usize,
    pub grant: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepKind {
    Stage,
    Enable,
    Detach,
    Disable,
    Purge,
    /// Undo of `Enable` or of `Disable`: what ran before the operation.
    Restore,
    Unstage,
    /// Undo of `Detach`: the recorded entities under the same ids.
    Reattach,
}

impl StepKind {
    pub fn waits_for_ever(self) -> bool {
        !matches!(self, Self::Stage | Self::Enable)
    }

    pub fn reloads(self) -> bool {
        matches!(self, Self::Enable | Self::Disable | Self::Restore)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepPhase {
    Pending,
    Running,
    Done,
    Failed,
    Skipped,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    pub kind: StepKind,
    pub phase: StepPhase,
    pub members: Mask,
    /// The grant under which each node acts; 0: not let act yet.
    pub grants: [u8; NODES],
    pub verified: Mask,
    pub failed: Mask,
}

impl Step {
    pub fn new(kind: StepKind, members: Mask) -> Self {
        Self { kind, phase: StepPhase::Pending, members, grants: [0; NODES], verified: 0, failed: 0 }
    }

    pub fn is_over(&self) -> bool {
        !matches!(self.phase, StepPhase::Pending | StepPhase::Running)
    }

    pub fn is_pending(&self) -> bool {
        self.phase == StepPhase::Pending
    }

    /// Nodes without a verdict.
    pub fn open(&self) -> Mask {
        self.members & !self.verified & !self.failed
    }

    pub fn granted(&self) -> Mask {
        nodes(self.members).filter(|n| self.grants[*n] != 0).map(bit).sum()
    }
}

/// Short while nothing has happened in it, so that what is proposed can be read in a line.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.kind, nodes(self.members).collect::<Vec<_>>())?;
        if self.phase == StepPhase::Pending && self.granted() == 0 {
            return Ok(());
        }
        write!(f, " {:?} grants {:?}", self.phase, self.grants)?;
        write!(f, " verified {:03b} failed {:03b}", self.verified, self.failed)
    }
}

impl Operation {
    pub fn current(&self) -> Option<&Step> {
        self.steps.get(self.cursor)
    }

    /// Nodes that were let act in a step of one of these kinds.
    pub fn touched(&self, kinds: &[StepKind]) -> Mask {
        let steps = self.steps.iter().filter(|s| kinds.contains(&s.kind));
        steps.fold(0, |all, step| all | step.granted())
    }

    pub fn members(&self) -> Mask {
        self.steps.iter().fold(0, |all, step| all | step.members)
    }

    /// Deleting files has begun.
    pub fn is_past_return(&self) -> bool {
        self.steps.iter().any(|s| s.kind == StepKind::Purge && s.granted() != 0)
    }

    /// The last step of this kind that was taken up ended well.
    pub fn passed(&self, kind: StepKind) -> bool {
        let last = self.steps.iter().rev().find(|s| s.kind == kind && s.phase != StepPhase::Pending);
        last.is_some_and(|s| s.phase == StepPhase::Done)
    }

    pub fn is_untouched(&self) -> bool {
        self.recorded == 0 && self.touched(&[StepKind::Disable]) == 0
    }
}

impl Cluster {
    pub fn registered(&self) -> Mask {
        (0..NODES).filter(|n| self.boots[*n] != 0).map(bit).sum()
    }

    /// Those that are not on their way out.
    pub fn staying(&self) -> Mask {
        nodes(self.registered()).filter(|n| self.leaving[*n] == 0).map(bit).sum()
    }

    pub fn live(&self) -> Option<(usize, &Operation)> {
        let id = self.lock?;
        Some((id, self.operations.get(id)?))
    }

    pub fn is_admin(&self, node: usize) -> bool {
        has(self.admins, node) && self.boots[node] != 0
    }
}
