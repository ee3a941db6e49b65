//! What each node should be: a view of the agreed state, as in the product.

use crate::cluster::{Cluster, Kind, Operation, Phase, StepKind, StepPhase};
use crate::mask::Mask;
use crate::setup::{Mutant, Setup};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spec {
    pub generation: u8,
    /// 0: the plugin is not named, and left exactly as it is.
    pub grant: u8,
    pub staged: bool,
    pub enabled: bool,
    pub task: Option<Task>,
}

/// Work on plugin entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    pub grant: u8,
    /// Those to delete; or to bring back.
    pub entities: Mask,
    pub back: bool,
}

impl Spec {
    /// Whether another spec asks for the same; how new it is does not matter.
    pub fn asks_as(&self, other: &Self) -> bool {
        Self { generation: 0, ..*self } == Self { generation: 0, ..*other }
    }
}

pub fn node_spec(setup: &Setup, cluster: &Cluster, node: usize) -> Spec {
    let mut spec = Spec { generation: cluster.generation, ..Spec::default() };
    if cluster.boots[node] == 0 {
        return spec;
    }
    let live = cluster.live().map(|(_, operation)| operation);
    if cluster.leaving[node] != 0 {
        // Nothing of what was put there stays; work on entities is the group's.
        spec.grant = cluster.leaving[node];
        spec.task = live.and_then(|operation| task(operation, node));
        return spec;
    }
    if cluster.installed {
        (spec.grant, spec.staged, spec.enabled) = (cluster.rest, true, true);
    }
    let Some(operation) = live else { return spec };
    if is_leaving(operation) && !setup.is(Mutant::JoinerEnabledAfterB2) {
        // Who joins when all the others are rid of the plugin does not begin with it.
        (spec.staged, spec.enabled) = (false, false);
    }
    for step in &operation.steps {
        let grant = step.grants[node];
        if grant == 0 {
            continue;
        }
        spec.grant = grant;
        match step.kind {
            StepKind::Stage => spec.staged = true,
            StepKind::Enable => (spec.staged, spec.enabled) = (true, true),
            StepKind::Disable => (spec.staged, spec.enabled) = (true, false),
            StepKind::Purge | StepKind::Unstage => (spec.staged, spec.enabled) = (false, false),
            StepKind::Restore => {
                spec.enabled = operation.kind == Kind::Remove;
                spec.staged = true;
            }
            StepKind::Detach | StepKind::Reattach => {}
        }
    }
    spec.task = task(operation, node);
    spec
}

/// All nodes have dropped the plugin: its files are what is left.
fn is_leaving(operation: &Operation) -> bool {
    operation.kind == Kind::Remove
        && operation.phase == Phase::Progressing
        && operation.current().is_none_or(|s| s.kind == StepKind::Purge)
        && operation.passed(StepKind::Disable)
}

fn task(operation: &Operation, node: usize) -> Option<Task> {
    let applier = operation.applier.filter(|a| a.node == node)?;
    let step = operation.current()?;
    let back = step.kind == StepKind::Reattach;
    let running = step.phase == StepPhase::Running;
    let wanted = match step.kind {
        StepKind::Reattach => running,
        StepKind::Detach | StepKind::Disable | StepKind::Purge => !operation.is_past_return(),
        _ => false,
    };
    wanted.then_some(Task { grant: applier.grant, entities: operation.recorded, back })
}
