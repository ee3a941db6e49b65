//! What an operation that ended without a node leaves to be done there.
//!
//! A plugin that left its group is in no spec any more, and agents leave alone what no spec names. So the group remembers
//! which nodes were excused, until their agents prove that nothing of it is left.

use kctl_shared::name::{GroupName, NodeId, PluginName};

use super::command::{Event, LogStamp, Rejection};
use super::model::{ClusterState, Group};
use super::operation::Operation;

/// `operation` took its plugin out of the group.
pub(super) fn keep(group: &mut Group, at: LogStamp, operation: &Operation) {
    let excused = operation.interventions.excused.keys();
    let nodes: Vec<_> = excused.map(|node| (node.clone(), at.grant())).collect();
    if !nodes.is_empty() {
        group.leftovers.entry(operation.plugin.clone()).or_default().extend(nodes);
    }
}

/// `operation` made its plugin what its targets are at rest: that says more than what was left over.
pub(super) fn supersede(group: &mut Group, operation: &Operation) {
    if let Some(nodes) = group.leftovers.get_mut(&operation.plugin) {
        nodes.retain(|node, _| !operation.target.includes(node));
        if nodes.is_empty() {
            group.leftovers.remove(&operation.plugin);
        }
    }
}

pub(super) fn forget(
    state: &mut ClusterState,
    at: LogStamp,
    group: &GroupName,
    plugin: &PluginName,
    node: &NodeId,
) -> Result<Vec<Event>, Rejection> {
    let left = state.groups.get_mut(group).and_then(|g| g.leftovers.get_mut(plugin));
    let Some(nodes) = left.filter(|nodes| nodes.contains_key(node)) else {
        return Err(Rejection::new("SUPERSEDED", format!("nothing of {plugin} is left over on {node}")));
    };
    nodes.remove(node);
    let empty = nodes.is_empty();
    if let Some(group) = state.groups.get_mut(group).filter(|_| empty) {
        group.leftovers.remove(plugin);
    }
    state.generation = at.index;
    Ok(vec![Event::LeftoverForgotten { node: node.clone(), plugin: plugin.to_string() }])
}
