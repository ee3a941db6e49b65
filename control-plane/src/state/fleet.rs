//! Nodes that present themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use kctl_shared::mutant;
use kctl_shared::name::{GroupName, NodeId};
use kctl_shared::spec::{KongFacts, KongState};

use super::command::{Command, Event, LogStamp, Rejection};
use super::model::{ClusterState, Node, NodeFacts, Target, any_admin_api, has_admin_api};
use super::operation::{Operation, OperationKind, Phase, Step, StepKind};

/// What has to be committed of a node that presents itself or reports, if decisions would see anything new.
pub fn presented(
    state: &ClusterState,
    node: &NodeId,
    group: &GroupName,
    nonce: &str,
    boot: u64,
    kong: &KongFacts,
) -> Option<Command> {
    let known = state.nodes.get(node);
    let facts = match known {
        // A Kong that does not run says nothing about itself; what was known stays.
        Some(known) if kong.state != KongState::Running => known.facts.clone(),
        _ => NodeFacts {
            has_admin_api: kong.has_admin_api,
            datastore: kong.datastore.clone(),
            propagation_ms: kong.propagation_ms,
        },
    };
    let same =
        known.is_some_and(|k| &k.group == group && k.nonce == nonce && k.boot == boot && k.facts == facts);
    (!same).then(|| Command::RegisterNode {
        node: node.clone(),
        group: group.clone(),
        nonce: nonce.to_owned(),
        boot,
        facts,
    })
}

pub(super) fn register_node(
    state: &mut ClusterState,
    at: LogStamp,
    id: NodeId,
    group: GroupName,
    nonce: String,
    boot: u64,
    facts: NodeFacts,
) -> Result<Vec<Event>, Rejection> {
    let gone = state.gone.get(&id).filter(|g| g.nonce == nonce);
    if gone.is_some_and(|g| g.let_in.is_none()) {
        return Err(Rejection::new("NODE_DECOMMISSIONED", format!("node {id} was decommissioned"))
            .hint(format!("kctl node approve {id} lets it come back")));
    }
    let known = state.nodes.get(&id);
    let latest = known.map(|k| k.boot).or(gone.and_then(|g| g.let_in));
    if let Some(known) = known {
        if known.nonce != nonce {
            return Err(Rejection::new(
                "NODE_ID_IN_USE",
                format!("node {id} is known with another installation of its agent"),
            )
            .hint(format!(
                "give this node another id, restore the agent's state directory, or, if the former one is no more, kctl node approve {id}"
            )));
        }
        if known.group != group {
            return Err(Rejection::new(
                "WRONG_GROUPING",
                format!("node {id} belongs to group {}, not {group}", known.group),
            )
            .hint("give the agent the group it was registered with"));
        }
    }
    if latest.is_some_and(|latest| boot < latest) && !mutant::is("no-incarnation-check") {
        return Err(Rejection::new("SUPERSEDED", format!("a later start of node {id}'s agent is known"))
            .hint("stop the older copy of the agent"));
    }
    let joined = known.is_none();
    let turns = known.is_some_and(|k| k.facts.has_admin_api != facts.has_admin_api);
    // Those with an Admin API look for what is left over.
    let looks = turns && state.groups.get(&group).is_some_and(|g| !g.leftovers.is_empty());
    // One copy of the name for all its nodes.
    let shared = state.groups.get_key_value(&group).map(|(known, _)| known.clone());
    let group = shared.unwrap_or(group);
    match state.nodes.get_mut(&id) {
        Some(node) => (node.boot, node.facts) = (boot, facts),
        None => {
            let node = Node::new(group.clone(), nonce, boot, at.proposed_at, facts);
            drop(state.nodes.insert(id.clone(), Node { since: at.grant(), ..node }));
        }
    }
    state.gone.remove(&id);
    if looks || joined {
        state.generation = at.index;
    }
    if turns {
        let removals = state.operations.values_mut().filter(|o| o.kind == OperationKind::Remove);
        removals.filter(|o| !o.phase.has_ended()).for_each(|o| reorder(o, &state.nodes, &id));
    }
    if joined {
        state.groups.entry(group.clone()).or_default();
        for operation in state.operations.values_mut().filter(|o| !o.phase.has_ended() && o.group == group) {
            include(operation, &state.nodes, &id);
        }
    }
    Ok(vec![Event::NodeRegistered { node: id, joined }])
}

/// Its agent may go from a cluster of `epoch` to this one; what is on the node stays as it is.
pub(super) fn approve(
    state: &mut ClusterState,
    at: LogStamp,
    node: NodeId,
    epoch: u64,
) -> Result<Vec<Event>, Rejection> {
    if epoch == state.epoch || epoch == 0 {
        return Err(Rejection::new(
            "NOTHING_TO_APPROVE",
            format!("node {node} follows no cluster of another epoch"),
        )
        .hint("kctl node list"));
    }
    if state.approved.insert(node.clone(), epoch) != Some(epoch) {
        state.generation = at.index;
    }
    Ok(vec![Event::NodeApproved { node }])
}

/// A node turned out to have an Admin API, as when its agent was there before its Kong, or to have none any more, as when
/// another machine has its name. A removal takes a plugin from Admin APIs, which take entities of it, first, and gives it
/// back to them last: as far as steps have not begun, the node goes where it belongs now.
fn reorder(operation: &mut Operation, nodes: &BTreeMap<NodeId, Node>, node: &NodeId) {
    let admin = |id: &NodeId| has_admin_api(nodes, id);
    for (kind, admins_first) in [(StepKind::Disable, true), (StepKind::Restore, false)] {
        let open = |s: &Step| s.kind == kind && !s.is_over();
        let waits = |s: &Step| s.nodes.get(node).is_some_and(|n| n.grant.is_none() && n.verdict.is_none());
        let Some(from) = operation.steps.iter().rposition(|s| open(s) && waits(s)) else { continue };
        let early = |id: &NodeId| admin(id) == admins_first;
        let others = |s: &Step, wanted| s.nodes.keys().any(|id| id != node && early(id) == wanted);
        if early(node) {
            let begun = |s: &Step| s.started_at.is_some();
            let first = operation.steps.iter().position(|s| open(s) && !begun(s) && others(s, false));
            if let Some(first) = first.filter(|first| *first <= from) {
                operation.steps[from].nodes.remove(node);
                let own = Step::new(kind, operation.steps[first].wave, [node.clone()]);
                operation.steps.insert(first, own);
            }
        } else {
            let last = operation.steps.iter().rposition(|s| open(s) && others(s, true));
            if let Some(last) = last.filter(|last| from <= *last) {
                operation.steps[from].nodes.remove(node);
                stand_behind(operation, last, node);
            }
        }
    }
}

/// Puts the steps of a removal that is about to begin in order, should they have been expanded before it was known which
/// nodes have an Admin API.
pub(super) fn admins_first(steps: &mut Vec<Step>, nodes: &BTreeMap<NodeId, Node>) {
    let disables = |s: &Step| s.kind == StepKind::Disable;
    let Some(first) = steps.iter().position(|s| disables(s) && any_admin_api(nodes, s, false)) else {
        return;
    };
    let mixed = steps[first..].iter().any(|s| disables(s) && any_admin_api(nodes, s, true));
    if !mixed || mutant::is("disable-order-reversed") {
        return;
    }
    let at = steps.iter().position(disables).unwrap_or_default();
    let (mixed, rest): (Vec<_>, Vec<_>) = std::mem::take(steps).into_iter().partition(disables);
    let half = |admin| {
        let of = move |s: &Step| {
            let ids = s.nodes.keys().filter(|id| has_admin_api(nodes, id) == admin);
            ids.cloned().collect::<Vec<_>>()
        };
        mixed.iter().map(of).filter(|ids| !ids.is_empty())
    };
    let waves = half(true).chain(half(false)).zip(1..);
    let ordered: Vec<_> = waves.map(|(ids, wave)| Step::new(StepKind::Disable, wave, ids)).collect();
    *steps = rest;
    drop(steps.splice(at..at, ordered));
}

/// Names the node behind a step: in the next one of its kind, or in one of its own.
fn stand_behind(operation: &mut Operation, at: usize, node: &NodeId) {
    let (kind, wave) = (operation.steps[at].kind, operation.steps[at].wave);
    match operation.steps.get_mut(at + 1).filter(|next| next.kind == kind) {
        Some(next) => drop(next.nodes.insert(node.clone(), Arc::default())),
        None => operation.steps.insert(at + 1, Step::new(kind, wave + 1, [node.clone()])),
    }
}

/// A node that joins during an operation becomes a member of it at the phase it is in: the step that changes what runs,
/// or the last of them that is not over, names it. Its agent stages and preflights on its own before it enables.
pub(super) fn include(operation: &mut Operation, nodes: &BTreeMap<NodeId, Node>, node: &NodeId) {
    if operation.target != Target::AllNodes || operation.interventions.excused.contains_key(node) {
        return;
    }
    let kinds: &[StepKind] = match operation.kind {
        _ if mutant::is("frozen-members") => &[],
        OperationKind::Remove if mutant::is("joiner-straight-to-active") => &[],
        // A removal that was called off: nothing is attached before the node has it.
        OperationKind::Remove if operation.phase == Phase::RollingBack => &[StepKind::Restore],
        OperationKind::Install | OperationKind::Upgrade => &[StepKind::Enable],
        OperationKind::Remove => &[StepKind::Disable, StepKind::Purge],
    };
    let admin = |id: &NodeId| has_admin_api(nodes, id);
    for kind in kinds {
        // One that is let in again may be named where files go, and run again what its former wave has dropped.
        let named = |s: &Step| s.kind == *kind && !s.is_over() && s.nodes.contains_key(node);
        let last = operation.steps.iter().rposition(|s| s.kind == *kind && !s.is_over());
        let Some(at) = last.filter(|_| !operation.steps.iter().any(named)) else { continue };
        let step = &operation.steps[at];
        // Nodes of a step go in any order, and no node drops the plugin before an Admin API that takes entities of it.
        if *kind == StepKind::Disable && !admin(node) && step.nodes.keys().any(admin) {
            stand_behind(operation, at, node);
        } else {
            operation.steps[at].nodes.insert(node.clone(), Arc::default());
        }
    }
}
