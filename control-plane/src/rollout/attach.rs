//! The step that brings entities back: who works on it, and when it is over.

use kctl_shared::name::NodeId;
use kctl_shared::spec::{Grant, NodeStatus};

use super::detach::{applier_report, busy_until, waiting_on};
use super::{Round, WaitingOn};
use crate::desired::node_spec;
use crate::state::command::Command;
use crate::state::model::ClusterState;

/// Complete scans in sequence that must show every entity, or Kong's refusal to take it.
const COMPLETE_SCANS: u64 = 2;
/// Refusals that are named one by one; more are counted.
const NAMED: usize = 20;

pub(crate) fn plan(round: &mut Round<'_>) -> Option<Command> {
    let operation = round.operation;
    let applier = operation.applier.as_ref()?.node.clone();
    let Some((task, _)) = applier_report(round) else {
        let message = format!("{applier} is about to bring plugin configurations back");
        round.waiting.push(waiting_on(round, &applier, "IN_PROGRESS", message));
        return None;
    };
    for (id, why) in task.refused.iter().take(NAMED) {
        let what = operation.entities.get(id).map(String::as_str).unwrap_or_default();
        let message = format!("{what} {id} cannot be brought back: {}", why.message);
        let waiting = WaitingOn { node: None, ..waiting_on(round, &applier, &why.code, message) };
        round.waiting.push(waiting);
    }
    if let Some(w) = &task.waiting {
        round.waiting.push(waiting_on(round, &applier, &w.code, w.message.clone()));
        return None;
    }
    if task.attached_in_a_row < COMPLETE_SCANS {
        let message =
            format!("{applier} is bringing {} plugin configurations back", operation.entities.len());
        round.waiting.push(waiting_on(round, &applier, "IN_PROGRESS", message));
        return None;
    }
    if let Some(former) = lingering(round) {
        let message = format!("{former} worked on it before and has not said that it knows better");
        round.waiting.push(waiting_on(round, &former, "IN_PROGRESS", message));
        return None;
    }
    let (all, lost) = (operation.entities.len(), task.refused.len());
    let mut summary =
        format!("{} of {all} configurations are there again (checked twice)", all - lost.min(all));
    if lost > 0 {
        summary.push_str(&format!("; {lost} refused by Kong"));
    }
    Some(Command::ConcludeAttach {
        operation: operation.id.clone(),
        from: operation.cursor,
        refused: task.refused.clone(),
        summary,
    })
}

/// A former applier that may still re-create what somebody deletes once the operation is over.
fn lingering(round: &Round<'_>) -> Option<NodeId> {
    let applier = round.operation.applier.as_ref()?;
    let knows = |node: &NodeId, since: Grant| {
        round.heard(node).is_some_and(|r| follows(round.state, node, &r.status, since))
            || round.now >= busy_until(round, node)
    };
    applier.replaced.iter().find(|(node, since)| !knows(node, **since)).map(|(node, _)| node.clone())
}

/// Whether what the agent says is of a spec that is not older than `grant`. One that asks for the same as the one before is
/// not sent again, whatever was decided in between.
fn follows(state: &ClusterState, node: &NodeId, status: &NodeStatus, grant: Grant) -> bool {
    status.observed_generation >= grant.index || status.spec_hash == node_spec(state, node).hash()
}
