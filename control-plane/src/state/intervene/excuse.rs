//! `excuse`: barriers pass without a node. The fences do not: scans for plugin configurations are of the group, not of a
//! node, and go on.

use crate::state::command::{Event, LogStamp, Rejection};
use crate::state::entities;
use crate::state::model::ClusterState;
use crate::state::operation::{Excuse, Operation, Step, Verdict};

pub(super) fn excuse(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    node: &kctl_shared::name::NodeId,
    reason: String,
) -> Result<Vec<Event>, Rejection> {
    let operation = state.operation(&id.to_owned())?;
    if !operation.nodes().contains(node) {
        return Err(Rejection::new("NODE_NOT_FOUND", format!("node {node} is not part of operation {id}"))
            .hint(format!("kctl operation status {id}")));
    }
    if !waited_for(operation, node) {
        return Err(Rejection::new("NOTHING_TO_EXCUSE", format!("operation {id} does not wait for {node}"))
            .hint(format!("kctl operation status {id}")));
    }
    let excused = &operation.interventions.excused;
    if operation.nodes().iter().all(|other| other == node || excused.contains_key(other)) {
        let message = format!("{node} is the last node of operation {id}: nothing would be left to do");
        return Err(Rejection::new("EXCUSE_LAST_NODE", message).hint(format!("kctl operation abort {id}")));
    }
    if let Some(operation) = state.operations.get_mut(id) {
        let excuse = Excuse { reason, at: at.proposed_at };
        operation.interventions.excused.insert(node.clone(), excuse);
        let open = operation.steps.iter_mut().filter(|step| !step.is_over());
        open.for_each(|step| step.excuse(node, at.proposed_at));
        if entities::scan_anew(operation, at, operation.cursor) {
            state.generation = at.index;
        }
    }
    Ok(Vec::new())
}

/// A step that is not over waits for the node, or would because it failed there.
fn waited_for(operation: &Operation, node: &kctl_shared::name::NodeId) -> bool {
    let waits = |step: &Step| {
        let entry = step.nodes.get(node);
        entry.is_some_and(|e| !matches!(e.verdict, Some(Verdict::Verified | Verdict::Excused)))
    };
    operation.steps.iter().any(|step| !step.is_over() && waits(step))
}
