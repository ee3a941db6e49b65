//! What people ask for, as the API expands it on the state that the member knows.

use std::collections::BTreeMap;

use kctl_control_plane::rollout::runbook;
use kctl_control_plane::state::history::taken_away;
use kctl_control_plane::state::model::{Release, Target};
use kctl_control_plane::state::operation::{
    Intervention, Interventions, Operation, OperationKind, Phase, Policy, RequestKey, Step, StepKind,
};
use kctl_control_plane::state::{ClusterState, Command};
use kctl_shared::digest::Digest;
use kctl_shared::method::Method;
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::time::Timestamp;

use super::control::group;

pub const PLUGINS: [&str; 2] = ["alpha", "beta"];

pub fn plugin(n: usize) -> PluginName {
    PluginName::parse(PLUGINS[n]).unwrap()
}

pub fn digest(plugin: &PluginName, version: u32) -> Digest {
    Digest::of(format!("{plugin} {version}").as_bytes())
}

/// Registers a release and brings it onto all nodes; `None` when they have it, or something is under way.
pub fn install(state: &ClusterState, plugin: &PluginName, version: u32, ask: &Ask) -> Option<Vec<Command>> {
    let release = digest(plugin, version);
    let operation = bring(state, plugin, release, ask)?;
    let register = Command::RegisterRelease {
        release: Release {
            plugin: plugin.clone(),
            version: format!("{version}.0.0"),
            digest: release,
            files: Vec::new(),
            registered_at: ask.now,
            retained: false,
            extras: Vec::new(),
            nginx: Vec::new(),
        },
    };
    Some(vec![register, Command::StartOperation { operation: Box::new(operation) }])
}

/// The operation that brings a release that is known onto all nodes.
fn bring(state: &ClusterState, plugin: &PluginName, release: Digest, ask: &Ask) -> Option<Operation> {
    let present = state.plugin(&group(), plugin);
    let previous = present.and_then(|p| p.release);
    if previous == Some(release) || present.is_some_and(|p| p.operation.is_some()) {
        return None;
    }
    let nodes: Vec<NodeId> = state.staying_in(&group()).map(|(id, _)| id.clone()).collect();
    let steps = runbook::install(state, &nodes, &ask.waves).ok()?;
    let kind = if previous.is_some() { OperationKind::Upgrade } else { OperationKind::Install };
    (!nodes.is_empty()).then(|| Operation { kind, release, previous, steps, ..blank(plugin, ask) })
}

/// Back to what the plugin was before its newest operation; what a removal took away comes back with it.
pub fn undo(state: &ClusterState, plugin: &PluginName, ask: &Ask) -> Option<Vec<Command>> {
    let record = state.groups.get(&group())?;
    let history = record.history.get(plugin)?;
    let newest = history.last()?;
    let wanted = if newest.is_removal() { newest } else { history.iter().rev().nth(1)? };
    if (wanted.is_removal() && wanted.number != newest.number)
        || !state.releases.contains_key(&wanted.release)
    {
        return None;
    }
    let mut operation = bring(state, plugin, wanted.release, ask)?;
    operation.undo_to = Some(wanted.number);
    if let Some(removal) = taken_away(record, plugin) {
        operation.entities.clone_from(&removal.entities);
        operation.saved.clone_from(&removal.saved);
        operation.steps.push(Step::new(StepKind::Attach, 0, []));
    }
    Some(vec![Command::StartOperation { operation: Box::new(operation) }])
}

pub fn remove(state: &ClusterState, plugin: &PluginName, ask: &Ask) -> Option<Vec<Command>> {
    let present = state.plugin(&group(), plugin).filter(|p| p.operation.is_none())?;
    let release = present.release?;
    if !state.staying_in(&group()).any(|(_, n)| n.facts.has_admin_api) {
        return None;
    }
    let nodes: Vec<NodeId> = state.staying_in(&group()).map(|(id, _)| id.clone()).collect();
    let steps = runbook::remove(state, &nodes, &ask.waves).ok()?;
    let operation = Operation { kind: OperationKind::Remove, release, steps, ..blank(plugin, ask) };
    Some(vec![Command::StartOperation { operation: Box::new(operation) }])
}

/// What requests for several plugins would begin, begun together.
pub fn together(requests: impl IntoIterator<Item = Vec<Command>>, id: &str) -> Vec<Command> {
    let (mut commands, mut operations) = (Vec::new(), Vec::new());
    for command in requests.into_iter().flatten() {
        match command {
            Command::StartOperation { operation } => {
                operations.push(Operation { batch: Some(id.to_owned()), ..*operation });
            }
            other => commands.push(other),
        }
    }
    commands.push(Command::StartBatch { operations });
    commands
}

/// Calls a live removal off, or what began together with others, whatever it has done.
pub fn call_off(state: &ClusterState, serial: u64) -> Option<Command> {
    let operation = state.live_operations().find(|o| o.kind == OperationKind::Remove || o.batch.is_some())?;
    let (from, steps) = (operation.cursor, runbook::abort(state, operation));
    Some(Command::Intervene {
        operation: operation.id.clone(),
        request: RequestKey { id: format!("request-{serial}"), body: "b".into() },
        reason: String::new(),
        what: Intervention::Abort { from, steps },
    })
}

#[derive(Clone)]
pub struct Ask {
    pub id: String,
    pub now: Timestamp,
    pub waves: Vec<String>,
    pub max_parallel: usize,
    pub node_deadline_ms: u64,
}

fn blank(plugin: &PluginName, ask: &Ask) -> Operation {
    Operation {
        id: ask.id.clone(),
        kind: OperationKind::Install,
        plugin: plugin.clone(),
        group: group(),
        target: Target::AllNodes,
        release: digest(plugin, 0),
        version: String::new(),
        previous_version: String::new(),
        previous: None,
        policy: Policy {
            waves: ask.waves.clone(),
            max_parallel: ask.max_parallel,
            max_failures: 0,
            node_deadline_ms: ask.node_deadline_ms,
            ..Policy::default()
        },
        request_id: ask.id.clone(),
        request_body: "b".into(),
        reason: String::new(),
        created_at: ask.now,
        finished_at: None,
        phase: Phase::Pending,
        error: None,
        steps: Vec::new(),
        cursor: 0,
        applier: None,
        entities: BTreeMap::new(),
        rerecorded: 0,
        method: Method::Store,
        previous_method: Method::Store,
        adopt: false,
        set_nginx: false,
        previous_set_nginx: false,
        interventions: Interventions::default(),
        saved: Vec::new(),
        refused: BTreeMap::new(),
        undo_to: None,
        batch: None,
        allow_downgrade: true,
    }
}
