//! What must hold in every reachable state; checked by tests, simulation and model, never repaired.

use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::spec::Stage;

use super::batch;
use super::model::ClusterState;
use super::operation::{OnFailure, Operation, OperationKind, Phase, StepKind, StepPhase};
use crate::desired::node_spec;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Short name of the law.
    pub law: &'static str,
    pub detail: String,
}

/// Everything that is wrong with `state`; empty when all is well.
pub fn check(state: &ClusterState) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut fail = |law, detail: String| found.push(Violation { law, detail });
    for (group, record) in &state.groups {
        for (name, plugin) in &record.plugins {
            match plugin.operation.as_ref().map(|id| state.operations.get(id)) {
                None if plugin.release.is_none() => {
                    fail("nothing-at-rest-without-release", format!("{group}/{name}"))
                }
                Some(Some(o)) if !o.phase.has_ended() && &o.plugin == name && &o.group == group => {}
                None => {}
                Some(_) => fail("lock-iff-live", format!("{group}/{name}: {:?}", plugin.operation)),
            }
            if let Some(digest) = plugin.release
                && !state.releases.contains_key(&digest)
            {
                fail("release-in-catalogue", format!("{group}/{name}: {digest}"));
            }
        }
    }
    for operation in state.live_operations() {
        let holder = state.plugin(&operation.group, &operation.plugin).and_then(|p| p.operation.as_ref());
        if holder != Some(&operation.id) {
            fail("live-operation-holds-lock", operation.id.clone());
        }
        check_steps(operation, &mut fail);
        check_leavers(state, operation, &mut fail);
        check_interventions(operation, &mut fail);
        check_specs(state, operation, &mut fail);
    }
    for operation in state.operations.values() {
        let back = batch::gone_back(state, operation).filter(|_| batch::goes_only_forward(operation));
        if let Some(back) = back {
            fail("a-batch-ends-as-one", format!("{} goes back, {} cannot", back.id, operation.id));
        }
    }
    found
}

fn check_steps(operation: &Operation, fail: &mut impl FnMut(&'static str, String)) {
    for (index, step) in operation.steps.iter().enumerate() {
        if (index < operation.cursor) != step.is_over() {
            fail("steps-before-the-cursor-are-over", format!("{} step {index}", operation.id));
        }
        if step.phase == StepPhase::Done && step.open_nodes().next().is_some() {
            fail("barrier-passed-with-open-nodes", format!("{} step {index}", operation.id));
        }
    }
}

/// No barrier waits for a node that is on its way out, or has left.
fn check_leavers(state: &ClusterState, operation: &Operation, fail: &mut impl FnMut(&'static str, String)) {
    let open = operation.steps.iter().filter(|s| !s.is_over()).flat_map(|s| s.open_nodes());
    if let Some((node, _)) = open.into_iter().find(|(node, _)| !state.stays(node)) {
        fail("nobody-waits-for-those-who-leave", format!("{} {node}", operation.id));
    }
}

/// What people decided shows in the operation, and nothing else does.
fn check_interventions(operation: &Operation, fail: &mut impl FnMut(&'static str, String)) {
    let hand = &operation.interventions;
    if (operation.phase == Phase::Paused) != hand.hold.is_some() {
        fail("paused-iff-held", operation.id.clone());
    }
    if hand.aborted && operation.phase != Phase::RollingBack {
        fail("aborted-goes-back", operation.id.clone());
    }
    for step in operation.steps.iter().filter(|s| !s.is_over()) {
        if let Some((node, _)) = step.open_nodes().find(|(node, _)| hand.excused.contains_key(*node)) {
            fail("nobody-waits-for-the-excused", format!("{} {node}", operation.id));
        }
    }
    for step in operation.steps.iter().filter(|s| s.phase == StepPhase::Done) {
        let tolerated = operation.policy.on_failure == OnFailure::Continue;
        if step.failed_nodes().count() > operation.policy.max_failures && !tolerated {
            fail("barrier-passed-with-too-many-failures", operation.id.clone());
        }
    }
}

/// While a removal has not passed its detach barrier, and while entities are being re-created, no node's spec shows the
/// plugin below `Enabled`.
fn check_specs(state: &ClusterState, operation: &Operation, fail: &mut impl FnMut(&'static str, String)) {
    let detached = operation.steps.iter().any(|s| s.kind == StepKind::Detach && s.phase == StepPhase::Done);
    let attaching = operation.current().is_some_and(|s| s.kind == StepKind::Attach);
    if !attaching && (operation.kind != OperationKind::Remove || detached) {
        return;
    }
    let excused = &operation.interventions.excused;
    let bound = |node: &NodeId| operation.target.includes(node) && !(attaching && excused.contains_key(node));
    for (node, _) in state.staying_in(&operation.group).filter(|(n, _)| bound(n)) {
        if stage_in_spec(state, node, &operation.plugin) < Stage::Enabled {
            fail("enabled-while-configuration-may-refer", format!("{node}: {}", operation.plugin));
        }
    }
}

fn stage_in_spec(state: &ClusterState, node: &NodeId, plugin: &PluginName) -> Stage {
    match node_spec(state, node).plugins.get(plugin) {
        Some(p) if p.enabled.is_some() => Stage::Enabled,
        Some(p) if !p.staged.is_empty() => Stage::Installed,
        _ => Stage::Absent,
    }
}
