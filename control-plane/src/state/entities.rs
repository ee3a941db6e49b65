//! Plugin entities: who may touch them, and which ids may be deleted.

use std::collections::BTreeMap;

use kctl_shared::name::NodeId;

use super::command::{Event, LogStamp, Rejection};
use super::model::ClusterState;
use super::operation::{Applier, OperationKind, Phase, StepKind, StepPhase};
use super::progress::at_step;

/// Entities one operation may record; beyond it somebody should look.
const MAX_ENTITIES: usize = 100_000;

pub(super) fn assign_applier(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    node: NodeId,
) -> Result<Vec<Event>, Rejection> {
    let operation = state.operation(&id.to_owned())?;
    let fits = operation.kind == OperationKind::Remove
        && !operation.phase.has_ended()
        && state.nodes.get(&node).is_some_and(|n| n.group == operation.group && n.facts.has_admin_api);
    if !fits {
        return Err(Rejection::new("SUPERSEDED", format!("node {node} cannot work on entities for {id}")));
    }
    if let Some(operation) = state.operations.get_mut(id) {
        operation.applier = Some(Applier { node: node.clone(), grant: at.grant() });
        let cursor = operation.cursor;
        if let Some(step) = operation.steps.get_mut(cursor).filter(|s| s.kind == StepKind::Detach) {
            step.phase = StepPhase::Running;
            step.started_at.get_or_insert(at.proposed_at);
        }
    }
    state.generation = at.index;
    Ok(vec![Event::ApplierAssigned { operation: id.to_owned(), node }])
}

pub(super) fn record(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    step: usize,
    entities: BTreeMap<String, String>,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, step)?;
    if operation.phase == Phase::Paused {
        return Err(Rejection::new("SUPERSEDED", format!("operation {id} is paused")));
    }
    if operation.steps[step].kind != StepKind::Detach || operation.applier.is_none() {
        return Err(Rejection::new("SUPERSEDED", format!("operation {id} does not detach now")));
    }
    if operation.entities.len() + entities.len() > MAX_ENTITIES {
        return Err(Rejection::new("RESOURCE_EXHAUSTED", format!("more than {MAX_ENTITIES} entities"))
            .hint("delete plugin configurations in Kong first"));
    }
    let count = entities.len();
    if let Some(operation) = state.operations.get_mut(id) {
        if !operation.entities.is_empty() {
            operation.rerecorded += 1;
        }
        operation.entities.extend(entities);
        // A new grant for the new set: scans made under the former one prove nothing about it.
        if let Some(applier) = &mut operation.applier {
            applier.grant = at.grant();
        }
    }
    state.generation = at.index;
    Ok(vec![Event::EntitiesRecorded { operation: id.to_owned(), count }])
}
