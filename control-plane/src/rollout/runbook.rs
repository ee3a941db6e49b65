//! Which steps an operation has. The leader expands them before proposing, so that members of different versions can
//! never expand the same request differently.

use std::collections::BTreeSet;

use kctl_shared::fault::Fault;
use kctl_shared::mutant;
use kctl_shared::name::NodeId;

use super::waves;
use crate::state::model::{ClusterState, Target, has_admin_api};
use crate::state::operation::{Operation, OperationKind, Step, StepKind, Verdict};

/// Stage and preflight everywhere, then enable in waves; nodes without an Admin API first, because an Admin API must not
/// accept configuration that some node could not run.
///
/// # Errors
/// `INVALID_ROLLOUT`.
pub fn install(state: &ClusterState, nodes: &[NodeId], waves: &[String]) -> Result<Vec<Step>, Fault> {
    let mut steps = vec![
        Step::new(StepKind::Stage, 0, nodes.iter().cloned()),
        Step::new(StepKind::Preflight, 0, nodes.iter().cloned()),
    ];
    let order = by_admin(state, nodes, false);
    steps.extend(in_waves(state, StepKind::Enable, &order, waves)?);
    Ok(steps)
}

/// Detach once per group, disable in waves (nodes with an Admin API first), delete the files everywhere.
///
/// # Errors
/// `INVALID_ROLLOUT`.
pub fn remove(state: &ClusterState, nodes: &[NodeId], waves: &[String]) -> Result<Vec<Step>, Fault> {
    let mut steps = vec![Step::new(StepKind::Detach, 0, [])];
    let order = by_admin(state, nodes, !mutant::is("disable-order-reversed"));
    steps.extend(in_waves(state, StepKind::Disable, &order, waves)?);
    steps.push(Step::new(StepKind::Purge, 0, nodes.iter().cloned()));
    Ok(steps)
}

/// Back to what was before: what runs first, then the files.
pub fn rollback(operation: &Operation) -> Vec<Step> {
    let enabled = operation.touched(&[StepKind::Enable]);
    let staged = operation.touched(&[StepKind::Stage, StepKind::Preflight, StepKind::Enable]);
    let restore = (!enabled.is_empty()).then(|| Step::new(StepKind::Restore, 0, enabled));
    restore.into_iter().chain([Step::new(StepKind::Unstage, 0, staged)]).collect()
}

/// What a removal took away, in the reverse of its order: nodes that may have dropped the plugin, those with an Admin API
/// last, and then the entities. Empty when it took nothing away.
pub fn compensation(state: &ClusterState, operation: &Operation) -> Vec<Step> {
    let mut named = BTreeSet::new();
    let mut again: Vec<Vec<NodeId>> = Vec::new();
    for step in operation.steps.iter().rev().filter(|s| s.kind == StepKind::Disable) {
        let dropped =
            step.nodes.iter().filter(|(_, entry)| entry.grant.is_some()).map(|(node, _)| node.clone());
        let (admin, plain): (Vec<_>, Vec<_>) = dropped
            .filter(|node| named.insert(node.clone()))
            .partition(|node| has_admin_api(&state.nodes, node));
        again.extend([plain, admin].into_iter().filter(|nodes| !nodes.is_empty()));
    }
    again.sort_by_key(|nodes| nodes.iter().any(|node| has_admin_api(&state.nodes, node)));
    let restore = again.into_iter().zip(1..).map(|(nodes, wave)| Step::new(StepKind::Restore, wave, nodes));
    let attach = state.has_to_attach(operation).then(|| Step::new(StepKind::Attach, 0, []));
    restore.chain(attach).collect()
}

/// How an operation is called off.
pub fn abort(state: &ClusterState, operation: &Operation) -> Vec<Step> {
    match operation.kind {
        OperationKind::Remove => compensation(state, operation),
        OperationKind::Install | OperationKind::Upgrade => rollback(operation),
    }
}

/// The step that is interrupted once more, and all that was to follow. Nodes that failed begin anew, or all that are not
/// verified; the others stay as they are.
pub fn retry(operation: &Operation, failed_only: bool) -> Vec<Step> {
    let rest = operation.steps.get(operation.cursor..).unwrap_or_default();
    let again = rest.iter().map(|step| Step::new(step.kind, step.wave, step.nodes.keys().cloned()));
    let mut steps: Vec<_> = again.collect();
    if let (Some(first), Some(before)) = (steps.first_mut(), rest.first()) {
        for (node, entry) in &before.nodes {
            let anew = match &entry.verdict {
                Some(Verdict::Failed(_)) => true,
                Some(Verdict::Verified | Verdict::Excused) => false,
                None => !failed_only,
            };
            if !anew {
                first.nodes.insert(node.clone(), entry.clone());
            }
        }
    }
    steps
}

/// An entity turned up after the detach barrier: everything again. Nodes that dropped the plugin already only prove it
/// again, they are not reloaded.
pub fn detach_again(state: &ClusterState, operation: &Operation) -> Vec<Step> {
    let mut nodes: BTreeSet<_> = operation.nodes();
    if operation.target == Target::AllNodes {
        nodes.extend(state.staying_in(&operation.group).map(|(id, _)| id.clone()));
    }
    let nodes: Vec<_> = nodes.into_iter().collect();
    let waves = operation.policy.waves.clone();
    // The waves were valid when the operation began; one wave is the fallback that needs no parsing.
    remove(state, &nodes, &waves).unwrap_or_else(|_| {
        vec![
            Step::new(StepKind::Detach, 0, []),
            Step::new(StepKind::Disable, 1, nodes.iter().cloned()),
            Step::new(StepKind::Purge, 0, nodes.iter().cloned()),
        ]
    })
}

fn by_admin(state: &ClusterState, nodes: &[NodeId], admin_first: bool) -> Vec<NodeId> {
    let mut order = nodes.to_vec();
    order.sort_by_key(|n| (has_admin_api(&state.nodes, n) != admin_first, n.clone()));
    order
}

/// Nodes of a wave go in any order, so no wave has nodes with an Admin API and nodes without: where one kind ends and the
/// other begins is a barrier of its own.
fn in_waves(
    state: &ClusterState,
    kind: StepKind,
    nodes: &[NodeId],
    waves: &[String],
) -> Result<Vec<Step>, Fault> {
    let split = waves::split(nodes, waves)?;
    let alike = |a: &NodeId, b: &NodeId| has_admin_api(&state.nodes, a) == has_admin_api(&state.nodes, b);
    let pure = split.iter().flat_map(|wave| wave.chunk_by(alike));
    Ok(pure.zip(1..).map(|(nodes, wave)| Step::new(kind, wave, nodes.iter().cloned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::model::{Node, NodeFacts};

    #[test]
    fn no_wave_mixes_nodes_with_and_without_an_admin_api() {
        let mut state = ClusterState::default();
        let nodes: Vec<_> = (0..5).map(|n| NodeId::parse(&format!("n{n}")).unwrap()).collect();
        for (n, id) in nodes.iter().enumerate() {
            let facts = NodeFacts { has_admin_api: n % 2 == 0, ..NodeFacts::default() };
            let group = kctl_shared::name::GroupName::parse("default").unwrap();
            let record = Node::new(group, String::new(), 1, Default::default(), facts);
            state.nodes.insert(id.clone(), record);
        }
        let waves = |steps: Vec<Step>, kind| -> Vec<String> {
            let of_kind = steps.into_iter().filter(|s| s.kind == kind);
            of_kind.map(|s| s.nodes.keys().map(NodeId::as_str).collect::<Vec<_>>().join(" ")).collect()
        };
        let all = ["100%".to_owned()];
        assert_eq!(waves(remove(&state, &nodes, &all).unwrap(), StepKind::Disable), ["n0 n2 n4", "n1 n3"]);
        assert_eq!(waves(install(&state, &nodes, &all).unwrap(), StepKind::Enable), ["n1 n3", "n0 n2 n4"]);
        let few = ["2".to_owned(), "4".to_owned()];
        assert_eq!(
            waves(remove(&state, &nodes, &few).unwrap(), StepKind::Disable),
            ["n0 n2", "n4", "n1", "n3"]
        );
    }
}
