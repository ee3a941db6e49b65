//! What each node should be: a view of the replicated decisions, never stored twice.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::spec::{EntityTask, HoldSpec, NodeSpec, PluginSpec};

use crate::state::leftovers;
use crate::state::model::{ClusterState, Plugin};
use crate::state::operation::{EntityWork, Operation, OperationKind, Phase, Step, StepKind, StepPhase};

/// The spec of `node`; empty for a node that is not registered.
pub fn node_spec(state: &ClusterState, node: &NodeId) -> NodeSpec {
    let mut spec = NodeSpec {
        node: node.clone(),
        epoch: state.epoch,
        supersedes: state.approved.get(node).copied(),
        generation: state.generation,
        plugins: BTreeMap::new(),
        task: None,
        hold: None,
    };
    let Some(record) = state.nodes.get(node) else { return spec };
    let Some(group) = state.groups.get(&record.group) else { return spec };
    spec.hold = record.hold.as_ref().map(|h| HoldSpec { drain: h.drain });
    if let Some(grant) = record.leaves_under() {
        // Nothing of what kctl put there stays.
        let nothing = |name: &PluginName| (name.clone(), PluginSpec { grant, ..PluginSpec::default() });
        let left = group.leftovers.iter().filter(|(_, nodes)| nodes.contains_key(node));
        spec.plugins = group.plugins.keys().chain(left.map(|(name, _)| name)).map(nothing).collect();
        spec.task = group
            .plugins
            .values()
            .find_map(|p| entity_task(state.operations.get(p.operation.as_ref()?)?, node));
        return spec;
    }
    for (name, nodes) in &group.leftovers {
        if let Some(grant) = nodes.get(node) {
            // Neither listed nor staged: what the operation that ended without this node would have made of it.
            spec.plugins.insert(name.clone(), PluginSpec { grant: *grant, ..PluginSpec::default() });
        }
    }
    for (name, plugin) in &group.plugins {
        let operation = plugin.operation.as_ref().and_then(|id| state.operations.get(id));
        if let Some(plugin_spec) = plugin_spec(state, node, plugin, operation) {
            spec.plugins.insert(name.clone(), plugin_spec);
        }
        if let Some(task) = operation.and_then(|o| entity_task(o, node)) {
            spec.task = Some(task);
        }
    }
    if spec.task.is_none() && !group.leftovers.is_empty() {
        spec.task = leftovers::watch(state, &record.group, group, node);
    }
    spec
}

fn plugin_spec(
    state: &ClusterState,
    node: &NodeId,
    plugin: &Plugin,
    operation: Option<&Operation>,
) -> Option<PluginSpec> {
    let record = state.nodes.get(node);
    let (anew, joined) = (record.and_then(|n| n.anew).unwrap_or_default(), record.map(|n| n.joined_at));
    let mut spec = PluginSpec {
        grant: plugin.grant.max(anew),
        // What the installation that it succeeds had listed.
        adopt: record.is_some_and(|n| n.succeeds && plugin.grant < n.since),
        ..PluginSpec::default()
    };
    let at_rest =
        plugin.release.filter(|_| plugin.target.includes(node) && !comes_late(state, node, operation));
    let at_rest = at_rest.and_then(|d| state.release_ref(&d, &plugin.method, plugin.set_nginx));
    let mut named = at_rest.is_some();
    spec.staged.extend(at_rest.clone());
    spec.enabled = at_rest;
    let Some(operation) = operation else { return named.then_some(spec) };
    // Whoever joins while an undo re-creates entities finds no step that would name it, and needs the plugin for them.
    let joins = operation.current().is_some_and(|s| s.kind == StepKind::Attach)
        && operation.kind != OperationKind::Remove
        && operation.target.includes(node);
    if let Some(applier) = operation.applier.as_ref().filter(|_| joins) {
        spec.grant = applier.grant;
        spec.enabled = state.release_ref(&operation.release, &operation.method, operation.set_nginx);
        spec.staged.extend(spec.enabled.clone());
        named = true;
    }

    // Each step that was dispatched to the node moves its spec; what it ends at is what the node should be.
    let release = state.release_ref(&operation.release, &operation.method, operation.set_nginx);
    let previous = operation.before().filter(|_| plugin.target.includes(node));
    let previous = previous.and_then(|(d, method, set_nginx)| state.release_ref(&d, method, set_nginx));
    for step in &operation.steps {
        // A node that left and joined again begins anew.
        let entry = step.nodes.get(node).filter(|n| n.dispatched_at >= joined);
        let Some(grant) = entry.and_then(|n| n.grant) else { continue };
        named = true;
        spec.grant = grant;
        spec.operation = operation.id.clone();
        (spec.preflight, spec.boot) = (None, false);
        match step.kind {
            StepKind::Stage => spec.staged.extend(release.clone()),
            StepKind::Preflight => {
                spec.staged.extend(release.clone());
                spec.preflight = release.clone();
                spec.boot = operation.boots_on(node);
            }
            StepKind::Enable => {
                spec.staged.extend(release.clone());
                spec.enabled = release.clone();
                spec.adopt |= operation.adopt;
            }
            StepKind::Detach | StepKind::Attach => {}
            StepKind::Disable => {
                // Files stay until no node runs them, also those that a node brought along.
                spec.staged.extend(release.clone());
                spec.enabled = None;
            }
            StepKind::Purge => {
                spec.enabled = None;
                spec.staged.clear();
            }
            StepKind::Restore => spec.enabled = previous.clone(),
            StepKind::Unstage => {
                spec.enabled = previous.clone();
                spec.staged = previous.iter().cloned().collect();
            }
        }
    }
    named.then_some(spec)
}

/// A node that joined after nothing referred to the plugin any more is not given it. What it brought along stays until it
/// is told to take it away, or the removal is called off.
fn comes_late(state: &ClusterState, node: &NodeId, operation: Option<&Operation>) -> bool {
    let Some(joined) = state.nodes.get(node).map(|n| n.joined_at) else { return false };
    let detached =
        |s: &Step| s.kind == StepKind::Detach && s.phase == StepPhase::Done && s.finished_at <= Some(joined);
    let removal = operation.filter(|o| o.kind == OperationKind::Remove && o.phase != Phase::RollingBack);
    removal.is_some_and(|o| o.steps.iter().any(detached))
}

fn entity_task(operation: &Operation, node: &NodeId) -> Option<EntityTask> {
    let applier = operation.applier.as_ref().filter(|a| &a.node == node)?;
    let work = operation.entity_work()?;
    let recorded = |wanted| operation.entities.keys().filter(move |_| work == wanted).cloned().collect();
    Some(EntityTask {
        grant: applier.grant,
        operation: operation.id.clone(),
        plugin: operation.plugin.clone(),
        delete: recorded(EntityWork::Detach),
        attach: recorded(EntityWork::Attach),
        scan_only: work == EntityWork::Watch,
    })
}
