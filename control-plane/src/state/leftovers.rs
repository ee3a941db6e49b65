//! What an operation that ended without a node leaves to be done there.
//!
//! A plugin that left its group is in no spec any more, and agents leave alone what no spec names. So the group remembers
//! which nodes were excused, or are on their way out and were not waited for, until their agents prove that nothing of it is
//! left. Until then somebody can refer to the plugin through such a node, which breaks the ones that have dropped it, so Kong's
//! configuration is looked through meanwhile.

use std::collections::BTreeSet;

use kctl_shared::name::{GroupName, NodeId, PluginName};
use kctl_shared::spec::{EntityReport, EntityTask};

use super::command::{Event, LogStamp, Rejection};
use super::model::{ClusterState, Group};
use super::operation::Operation;

/// `operation` took its plugin out of the group, from which nodes are `leaving`.
pub(super) fn keep(group: &mut Group, at: LogStamp, operation: &Operation, leaving: Vec<NodeId>) {
    let excused = operation.interventions.excused.keys().cloned();
    let nodes: Vec<_> = excused.chain(leaving).map(|node| (node, at.grant())).collect();
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

/// Nodes that look, so that one of them may be away.
const WATCHERS: usize = 2;

/// What `node` looks for, if it is one of the few that do: the first ones with an Admin API, rather not those that were excused.
pub(crate) fn watch(
    state: &ClusterState,
    name: &GroupName,
    group: &Group,
    node: &NodeId,
) -> Option<EntityTask> {
    let gone = group.leftovers.iter().find(|(plugin, _)| !group.plugins.contains_key(*plugin));
    let (plugin, excused) = gone?;
    let able = |left: bool| {
        let able = state.staying_in(name).filter(|(_, n)| n.facts.has_admin_api).map(|(id, _)| id);
        able.filter(move |id| excused.contains_key(*id) == left)
    };
    // Each node of the group is asked about: none looks further than to the last of the few.
    able(false).chain(able(true)).take(WATCHERS).find(|id| *id == node)?;
    Some(EntityTask {
        grant: excused.values().copied().max()?,
        operation: String::new(),
        plugin: plugin.clone(),
        delete: BTreeSet::new(),
        attach: BTreeSet::new(),
        scan_only: true,
    })
}

/// How many of Kong's plugin configurations refer to a plugin that is left over somewhere, as `report` says.
pub(crate) fn referring<'a>(group: &'a Group, report: &EntityReport) -> Option<(&'a PluginName, usize)> {
    let (plugin, excused) = group.leftovers.get_key_value(report.plugin.as_ref()?)?;
    let answers = excused.values().any(|grant| *grant == report.grant) && !report.entities.is_empty();
    (answers && !group.plugins.contains_key(plugin)).then_some((plugin, report.entities.len()))
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
