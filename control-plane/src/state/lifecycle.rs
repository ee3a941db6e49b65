//! How an operation begins and ends.

use kctl_shared::mutant;
use kctl_shared::spec::Grant;
use kctl_shared::version;

use super::catalogue;
use super::command::{Event, LogStamp, Rejection};
use super::duty;
use super::fleet;
use super::grouping;
use super::history;
use super::leftovers;
use super::model::{ClusterState, DETAILED_OPERATIONS, KEPT_OPERATIONS, Plugin, RequestRecord};
use super::operation::{Operation, OperationKind, Phase, StepKind};
use super::pin;
use super::share;

pub(super) fn start(
    state: &mut ClusterState,
    at: LogStamp,
    mut operation: Operation,
) -> Result<Vec<Event>, Rejection> {
    if let Some(record) = state.requests.get(&operation.request_id) {
        return if record.body == operation.request_body {
            Ok(vec![Event::OperationStarted { operation: record.operation.clone() }])
        } else {
            Err(Rejection::new(
                "REQUEST_ID_REUSED",
                format!("request id {} was used for another request", operation.request_id),
            )
            .hint("use a new --request-id for a new request"))
        };
    }
    check(state, &operation)?;
    grouping::check(state, &operation.group)?;
    let members: Vec<_> = state.staying_in(&operation.group).map(|(id, _)| id.clone()).collect();
    fleet::admins_first(&mut operation.steps, &state.nodes);
    share::steps(&state.nodes, &mut operation.steps);
    share::target(&state.nodes, &mut operation.target);
    for node in &members {
        fleet::include(&mut operation, &state.nodes, node);
    }
    operation.phase = Phase::Progressing;
    operation.created_at = at.proposed_at;
    operation.finished_at = None;
    operation.cursor = 0;
    let id = operation.id.clone();
    let record = RequestRecord { body: operation.request_body.clone(), operation: id.clone() };
    state.requests.insert(operation.request_id.clone(), record);
    let group = state.groups.entry(operation.group.clone()).or_default();
    let plugin = group.plugins.entry(operation.plugin.clone()).or_insert_with(|| Plugin {
        release: None,
        target: operation.target.clone(),
        grant: Grant::default(),
        operation: None,
        installed_at: at.proposed_at,
        method: operation.method.clone(),
        set_nginx: operation.set_nginx,
        pinned: None,
    });
    plugin.operation = Some(id.clone());
    // Whoever is on the way out is told of every plugin there is, and what is left over is not looked for any more.
    let is_told = group.leftovers.contains_key(&operation.plugin)
        || state.nodes_of(&operation.group).any(|(_, n)| n.leaving.is_some());
    state.operations.insert(id.clone(), operation);
    if is_told {
        state.generation = at.index;
    }
    duty::leave_out(state, &id);
    Ok(vec![Event::OperationStarted { operation: id }])
}

fn check(state: &ClusterState, operation: &Operation) -> Result<(), Rejection> {
    let Operation { plugin, group, .. } = operation;
    if state.operations.contains_key(&operation.id) {
        return Err(Rejection::new("REQUEST_ID_REUSED", format!("operation {} exists", operation.id)));
    }
    let present = state.plugin(group, plugin);
    if let Some(live) = present.and_then(|p| p.operation.as_ref()) {
        return Err(Rejection::new(
            "PLUGIN_BUSY",
            format!("operation {live} holds {plugin} in group {group}"),
        )
        .hint(format!("kctl operation status {live} -w")));
    }
    let release = present.and_then(|p| p.release);
    match operation.kind {
        OperationKind::Remove if release != Some(operation.release) => {
            return Err(Rejection::new(
                "PLUGIN_NOT_INSTALLED",
                format!("{plugin} is not installed in group {group}"),
            )
            .hint("kctl plugin list"));
        }
        OperationKind::Install | OperationKind::Upgrade if release != operation.previous => {
            return Err(Rejection::new(
                "PLUGIN_BUSY",
                format!("{plugin} changed in group {group} meanwhile"),
            )
            .hint("try again"));
        }
        _ => {}
    }
    let mut named = [Some(operation.release), operation.previous].into_iter().flatten();
    if let Some(missing) = named.find(|d| !state.releases.contains_key(d)) {
        return Err(Rejection::new("ARTIFACT_NOT_FOUND", format!("no release {missing} is registered"))
            .hint("upload it again: kctl plugin install PATH"));
    }
    if operation.kind != OperationKind::Remove {
        catalogue::no_conflict(state, group, plugin, &operation.release)?;
        changes_version(state, operation)?;
    }
    if !attaches_what_was_taken(state, operation) {
        let message = format!("the configurations of {plugin} that were taken away changed meanwhile");
        return Err(Rejection::new("SUPERSEDED", message).hint("try again"));
    }
    if operation.steps.is_empty() || operation.steps.iter().any(super::operation::Step::is_over) {
        return Err(Rejection::new(
            "INVALID_OPERATION",
            "an operation starts with steps that are all pending",
        ));
    }
    if let Some(stranger) =
        operation.nodes().iter().find(|n| state.nodes.get(n).is_none_or(|r| &r.group != group))
    {
        return Err(Rejection::new("NODE_NOT_FOUND", format!("node {stranger} is not in group {group}"))
            .hint("kctl node list"));
    }
    Ok(())
}

/// Neither against a pin nor, unasked, to a lower version.
fn changes_version(state: &ClusterState, operation: &Operation) -> Result<(), Rejection> {
    let Operation { plugin, group, .. } = operation;
    let version = |d: &kctl_shared::digest::Digest| state.releases.get(d).map(|r| r.version.as_str());
    let Some(new) = version(&operation.release) else { return Ok(()) };
    pin::not_pinned(state, group, plugin, new)?;
    let Some(old) = operation.previous.as_ref().and_then(version) else { return Ok(()) };
    let lower = version::compare(new, old) == Some(std::cmp::Ordering::Less);
    if lower && !operation.allow_downgrade {
        let message = format!("{new} is lower than the installed {old} of {plugin}");
        return Err(Rejection::new("DOWNGRADE", message).hint("add --allow-downgrade if it is meant"));
    }
    Ok(())
}

/// Only what the newest removal of the plugin recorded and saved is re-created, as the last step, on a group whose nodes
/// all have it by then.
fn attaches_what_was_taken(state: &ClusterState, operation: &Operation) -> bool {
    let attaches = operation.steps.iter().any(|s| s.kind == StepKind::Attach);
    if !attaches {
        return operation.entities.is_empty() && operation.saved.is_empty();
    }
    let taken = state.groups.get(&operation.group).and_then(|g| history::taken_away(g, &operation.plugin));
    let last =
        operation.steps.iter().position(|s| s.kind == StepKind::Attach) == Some(operation.steps.len() - 1);
    let covers = state.staying_in(&operation.group).all(|(node, _)| operation.target.includes(node));
    let same = |r: &history::Revision| r.entities == operation.entities && r.saved == operation.saved;
    operation.kind != OperationKind::Remove && last && covers && taken.is_some_and(same)
}

pub(super) fn finish(
    state: &mut ClusterState,
    at: LogStamp,
    id: &str,
    phase: Phase,
) -> Result<Vec<Event>, Rejection> {
    let operation = state.operation(&id.to_owned())?;
    if operation.phase.has_ended() {
        return Err(Rejection::new("SUPERSEDED", format!("operation {id} has ended")));
    }
    let fits = match phase {
        Phase::Succeeded => operation.phase == Phase::Progressing,
        Phase::Failed => operation.phase == Phase::RollingBack && !operation.interventions.aborted,
        Phase::Aborted | Phase::Compensated => {
            operation.phase == Phase::RollingBack
                && operation.interventions.aborted
                && (phase == Phase::Compensated) == (operation.kind == OperationKind::Remove)
        }
        _ => false,
    };
    if !fits || operation.cursor < operation.steps.len() {
        return Err(Rejection::new("SUPERSEDED", format!("operation {id} is not at its end")));
    }
    Ok(end(state, at, id, phase))
}

/// Ends an operation that may end; releases its lock.
pub(super) fn end(state: &mut ClusterState, at: LogStamp, id: &str, phase: Phase) -> Vec<Event> {
    let Some(operation) = state.operations.get(id).cloned() else { return Vec::new() };
    settle_plugin(state, at, &operation, phase);
    if let Some(operation) = state.operations.get_mut(id) {
        operation.phase = phase;
        operation.finished_at = Some(at.proposed_at);
        operation.applier = None;
    }
    state.generation = at.index;
    state.ended.push(id.to_owned());
    catalogue::collect(state, &operation.plugin);
    forget_oldest(state);
    forget_details(state);
    vec![Event::OperationFinished { operation: id.to_owned(), phase }]
}

/// What the plugin is at rest from here on, and the release of its lock.
fn settle_plugin(state: &mut ClusterState, at: LogStamp, operation: &Operation, phase: Phase) {
    let succeeded = phase == Phase::Succeeded;
    if succeeded && let Some(release) = state.releases.get_mut(&operation.release) {
        release.retained = true;
    }
    let gone = match operation.kind {
        OperationKind::Remove => succeeded,
        OperationKind::Install | OperationKind::Upgrade => !succeeded && operation.previous.is_none(),
    };
    let leaving = state.nodes_of(&operation.group).filter(|(_, n)| n.leaving.is_some());
    let leaving: Vec<_> = leaving.map(|(id, _)| id.clone()).collect();
    let Some(group) = state.groups.get_mut(&operation.group) else { return };
    if gone {
        group.plugins.remove(&operation.plugin);
        leftovers::keep(group, at, operation, if mutant::is("leavers-keep") { Vec::new() } else { leaving });
    } else if let Some(plugin) = group.plugins.get_mut(&operation.plugin) {
        plugin.operation = None;
        plugin.grant = at.grant();
        if succeeded {
            leftovers::supersede(group, operation);
        }
        if succeeded && let Some(plugin) = group.plugins.get_mut(&operation.plugin) {
            plugin.release = Some(operation.release);
            plugin.method = operation.method.clone();
            plugin.set_nginx = operation.set_nginx;
            plugin.target = operation.target.clone();
            plugin.installed_at = at.proposed_at;
        }
    }
    if succeeded {
        history::record(group, at, operation);
    }
}

fn forget_oldest(state: &mut ClusterState) {
    while state.ended.len() > KEPT_OPERATIONS {
        let oldest = state.ended.remove(0);
        state.operations.remove(&oldest);
        state.requests.retain(|_, record| record.operation != oldest);
    }
}

/// Of operations that ended long ago; once more is once.
pub(super) fn forget_details(state: &mut ClusterState) {
    let old = state.ended.len().saturating_sub(DETAILED_OPERATIONS);
    for id in &state.ended[..old] {
        if let Some(operation) = state.operations.get_mut(id) {
            operation.forget_details();
        }
    }
}
