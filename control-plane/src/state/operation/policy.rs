//! How an operation goes from wave to wave, and what becomes of it when a node fails.

use std::collections::BTreeSet;

use kctl_shared::name::NodeId;
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Cause, Operation, Phase, Step, StepKind, StepPhase, Verdict};

/// How a rollout goes; already resolved to numbers where the request had percentages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// As asked for, e.g. `["1", "25%", "100%"]`; a canary is the first of them.
    pub waves: Vec<String>,
    /// Nodes of a wave that may be between dispatch and verdict at the same time; at least 1.
    pub max_parallel: usize,
    pub max_failures: usize,
    pub node_deadline_ms: u64,
    #[serde(default)]
    pub preflight: Preflight,
    /// How long a wave must stay healthy before the next step.
    #[serde(default)]
    pub bake_ms: u64,
    /// With no node settled for so long, it is as if too many had failed; 0 for never.
    #[serde(default)]
    pub progress_deadline_ms: u64,
    /// Waves after which a person is waited for.
    #[serde(default)]
    pub pause_after: BTreeSet<u32>,
    #[serde(default)]
    pub on_failure: OnFailure,
    /// The step of a removal after which a person is waited for.
    #[serde(default)]
    pub stop_after: Option<StepKind>,
}

/// What follows when more nodes failed than may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    #[default]
    Rollback,
    /// Wait for a person: retry, excuse or abort.
    Pause,
    /// Go on without the nodes that failed, as long as one is left.
    Continue,
}

impl OnFailure {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "rollback" => Some(Self::Rollback),
            "pause" => Some(Self::Pause),
            "continue" => Some(Self::Continue),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Pause => "pause",
            Self::Continue => "continue",
        }
    }
}

/// Where a release is tried in a scratch Kong that is started for a moment. Where merely loading the list fails one is
/// started anyhow, because loading errs both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preflight {
    /// On the nodes of the first wave.
    #[default]
    Canary,
    /// Everywhere.
    Boot,
    /// Nowhere.
    Parse,
}

impl Preflight {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "canary" => Some(Self::Canary),
            "boot" => Some(Self::Boot),
            "parse" => Some(Self::Parse),
            _ => None,
        }
    }
}

impl Operation {
    /// What the failures of `step` lead to; `None` while the barrier may be passed in spite of them.
    pub fn stops_at(&self, step: &Step) -> Option<OnFailure> {
        let failures = step.failed_nodes().count();
        if failures == 0 || (failures <= self.policy.max_failures && !self.is_hopeless()) {
            return None;
        }
        match self.policy.on_failure {
            // With nobody left to go on with, going on would call nothing a success.
            OnFailure::Continue => self.is_hopeless().then_some(OnFailure::Rollback),
            other => Some(other),
        }
    }

    /// Every node has failed or was excused.
    fn is_hopeless(&self) -> bool {
        let unserved = self.unserved();
        self.nodes().iter().all(|node| unserved.contains(node))
    }

    /// Nodes whose latest verdict on the way forward is not `Verified`.
    pub fn unserved(&self) -> BTreeSet<NodeId> {
        let mut nodes = BTreeSet::new();
        let forward = |s: &&Step| !matches!(s.kind, StepKind::Restore | StepKind::Unstage | StepKind::Attach);
        for (node, entry) in self.steps.iter().filter(forward).flat_map(|s| &s.nodes) {
            match entry.verdict {
                Some(Verdict::Failed(_) | Verdict::Excused) => nodes.insert(node.clone()),
                Some(Verdict::Verified) => nodes.remove(node),
                None => false,
            };
        }
        nodes
    }

    /// Ended well, but not on every node, or without configurations that Kong refused.
    pub fn is_partial(&self) -> bool {
        self.phase == Phase::Succeeded && !(self.unserved().is_empty() && self.refused.is_empty())
    }

    /// Until when the wave of step `index` has to stay healthy before the next step; `None` when nothing follows it that
    /// would want it to, or a person ended it.
    pub fn baking_until(&self, index: usize) -> Option<Timestamp> {
        let step = self.steps.get(index).filter(|s| s.kind.in_waves())?;
        let follows = index + 1 < self.steps.len();
        let bakes = self.policy.bake_ms > 0 && follows && self.interventions.promoted != Some(index);
        let settled = step.nodes.values().filter_map(|n| n.finished_at).max();
        settled.filter(|_| bakes).map(|at| at.plus_ms(self.policy.bake_ms))
    }

    /// Why a person is to be asked before the barrier of step `index` is passed; `None` once one has answered.
    pub fn asks_after(&self, index: usize) -> Option<Cause> {
        let step = self.steps.get(index).filter(|_| self.interventions.promoted != Some(index))?;
        if self.stops_after(index) {
            return Some(Cause::Step(step.kind));
        }
        let asked = step.kind.in_waves() && self.policy.pause_after.contains(&step.wave);
        asked.then_some(Cause::Wave(step.wave))
    }

    /// The step, with its last wave, is the one to stop after. Who has let it pass once is not asked again when an entity
    /// that came back makes the removal begin anew.
    fn stops_after(&self, index: usize) -> bool {
        let ends = |i: usize, step: &Step| {
            let next = self.steps.get(i + 1);
            Some(step.kind) == self.policy.stop_after && next.is_none_or(|n| n.kind != step.kind)
        };
        let mut before = self.steps.iter().enumerate().take(index);
        self.steps.get(index).is_some_and(|step| ends(index, step))
            && !before.any(|(i, step)| step.phase == StepPhase::Done && ends(i, step))
    }

    /// Latest moment at which anything was settled, or a person did something.
    pub fn progressed_at(&self) -> Timestamp {
        let settled = self.steps.iter().flat_map(|s| s.nodes.values()).filter_map(|n| n.finished_at);
        let steps = self.steps.iter().flat_map(|s| [s.started_at, s.finished_at]).flatten();
        let notes = self.interventions.notes.iter().map(|n| n.at);
        settled.chain(steps).chain(notes).max().unwrap_or_default().max(self.created_at)
    }
}
