//! Plugin entities: who may touch them, which ids may be deleted, and when they are there again.

use std::collections::BTreeMap;

use kctl_shared::digest::Digest;
use kctl_shared::name::NodeId;
use kctl_shared::spec::{Failure, Grant};

use super::command::{Event, LogStamp, Rejection};
use super::model::{ClusterState, SealingKey};
use super::operation::{Applier, Operation, Phase, Step, StepKind, StepPhase};
use super::progress::{at_step, pass};

/// Entities one operation may record; beyond it somebody should look.
const MAX_ENTITIES: usize = 100_000;

pub(super) fn assign_applier(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    node: NodeId,
    replaces: Option<Grant>,
) -> Result<Vec<Event>, Rejection> {
    let operation = state.operation(&id.to_owned())?;
    // Whoever proposed it may have missed that the former applier is at work again.
    let fits = operation.entity_work().is_some()
        && operation.applier.as_ref().map(|a| a.grant) == replaces
        && !operation.phase.has_ended()
        && state.nodes.get(&node).is_some_and(|n| n.group == operation.group && n.facts.has_admin_api);
    if !fits {
        return Err(Rejection::new("SUPERSEDED", format!("node {node} cannot work on entities for {id}")));
    }
    if let Some(operation) = state.operations.get_mut(id) {
        let former = operation.applier.take();
        let mut replaced = former.map_or_else(BTreeMap::new, |a| {
            let last = (a.node, at.grant());
            a.replaced.into_iter().chain([last]).collect()
        });
        replaced.remove(&node);
        operation.applier = Some(Applier { node: node.clone(), grant: at.grant(), replaced });
        hand_on(operation, at);
    }
    state.generation = at.index;
    Ok(vec![Event::ApplierAssigned { operation: id.to_owned(), node }])
}

/// The applier has something else to do than before: what it reports of its former task proves nothing about this one.
pub(super) fn hand_on(operation: &mut Operation, at: LogStamp) {
    let Some(applier) = &mut operation.applier else { return };
    applier.grant = at.grant();
    let own = |step: &&mut Step| matches!(step.kind, StepKind::Detach | StepKind::Attach);
    if let Some(step) = operation.steps.get_mut(operation.cursor).filter(own) {
        step.phase = StepPhase::Running;
        step.started_at.get_or_insert(at.proposed_at);
    }
}

/// The last node of a step that drops the plugin has dropped it. A scan that began before may have missed what was
/// created until then, so only one under a new grant counts. Says whether that is so.
pub(super) fn scan_anew(operation: &mut Operation, at: LogStamp, step: usize) -> bool {
    let over = |s: &Step| s.kind == StepKind::Disable && s.open_nodes().next().is_none();
    let last = operation.steps.get(step).is_some_and(over);
    if last {
        hand_on(operation, at);
    }
    last
}

pub(super) fn record(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    step: usize,
    entities: BTreeMap<String, String>,
    saved: Option<Digest>,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, step)?;
    if operation.phase == Phase::Paused {
        return Err(Rejection::new("SUPERSEDED", format!("operation {id} is paused")));
    }
    if operation.steps[step].kind != StepKind::Detach || operation.applier.is_none() {
        return Err(Rejection::new("SUPERSEDED", format!("operation {id} does not detach now")));
    }
    let Some(saved) = saved else {
        let message =
            format!("the entities of operation {id} were not saved: they could not be brought back");
        return Err(Rejection::new("SUPERSEDED", message).hint("update the agents"));
    };
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
        operation.saved.push(saved);
        hand_on(operation, at);
    }
    state.generation = at.index;
    Ok(vec![Event::EntitiesRecorded { operation: id.to_owned(), count }])
}

pub(super) fn conclude_attach(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    from: usize,
    refused: BTreeMap<String, Failure>,
    summary: String,
) -> Result<Vec<Event>, Rejection> {
    let operation = at_step(state, id, from)?;
    let fits = operation.phase != Phase::Paused
        && operation.steps[from].kind == StepKind::Attach
        && operation.applier.is_some()
        && refused.keys().all(|id| operation.entities.contains_key(id));
    if !fits {
        return Err(Rejection::new("SUPERSEDED", format!("operation {id} does not attach now")));
    }
    let count = refused.len();
    if let Some(operation) = state.operations.get_mut(id) {
        operation.refused = refused;
        pass(operation, at, from, summary);
    }
    state.generation = at.index;
    Ok(vec![Event::EntitiesAttached { operation: id.to_owned(), refused: count }])
}

pub(super) fn mint_key(state: &mut ClusterState, key: SealingKey) -> Result<Vec<Event>, Rejection> {
    if state.sealing_key.is_some() {
        return Err(Rejection::new("SUPERSEDED", "the cluster has a key for saved entities"));
    }
    state.sealing_key = Some(key);
    Ok(vec![Event::SealingKeyMinted])
}
