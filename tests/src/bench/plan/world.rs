//! A state as a cluster comes to it: by the commands of 50 installs that ended well on every node, and one more that runs.

use std::collections::BTreeMap;

use kctl_control_plane::desired::node_spec;
use kctl_control_plane::rollout::fleet::{Alike, Fleet, Report};
use kctl_control_plane::rollout::runbook;
use kctl_control_plane::state::model::{NodeFacts, Release, Target};
use kctl_control_plane::state::operation::{Operation, OperationKind, Phase, Policy, StepKind, Verdict};
use kctl_control_plane::state::{ClusterState, Command, LogStamp, apply};
use kctl_shared::digest::Digest;
use kctl_shared::method::Method;
use kctl_shared::name::{GroupName, NodeId, PluginName};
use kctl_shared::package::FileEntry;
use kctl_shared::spec::{KongFacts, KongState, NodeStatus};
use kctl_shared::time::Timestamp;

use super::EPOCH;
use crate::bench::fanout::agent::answers;
use crate::bench::figures::millis;

pub const PLUGINS: usize = 50;
/// Nodes that present themselves in one log entry.
const JOINING: usize = 500;
/// Files of a release.
const FILES: usize = 10;

pub struct World {
    pub state: ClusterState,
    pub fleet: Fleet,
    pub now: Timestamp,
    index: u64,
    nodes: usize,
    took: BTreeMap<&'static str, Vec<f64>>,
}

pub fn group() -> GroupName {
    GroupName::parse("default").unwrap()
}

fn node(number: usize) -> NodeId {
    NodeId::parse(&format!("gateway-{number:05}")).unwrap()
}

fn digest(plugin: usize) -> Digest {
    Digest::of(format!("plugin {plugin}").as_bytes())
}

fn plugin(number: usize) -> PluginName {
    PluginName::parse(&format!("plugin-{number}")).unwrap()
}

pub fn release(number: usize) -> Command {
    let file = |n: usize| FileEntry {
        path: format!("kong/plugins/plugin-{number}/part{n}.lua"),
        sha256: Digest::of(format!("{number}.{n}").as_bytes()),
        size: 10_000,
    };
    Command::RegisterRelease {
        release: Release {
            plugin: plugin(number),
            version: "1.0.0".into(),
            digest: digest(number),
            files: (0..FILES).map(file).collect(),
            registered_at: EPOCH,
            retained: false,
            extras: Vec::new(),
            nginx: Vec::new(),
        },
    }
}

fn join(number: usize) -> Command {
    Command::RegisterNode {
        node: node(number),
        group: group(),
        nonce: format!("{number:032x}"),
        boot: 1,
        facts: NodeFacts { has_admin_api: true, datastore: "d".repeat(64), propagation_ms: 5_000 },
    }
}

fn operation(number: usize, nodes: usize) -> Operation {
    let nodes: Vec<_> = (0..nodes).map(node).collect();
    let waves = vec!["100%".to_owned()];
    let steps = runbook::install(&ClusterState::default(), &nodes, &waves).unwrap();
    let id = format!("0195e3a8-0000-7000-8000-{number:012}");
    Operation {
        id: id.clone(),
        kind: OperationKind::Install,
        plugin: plugin(number),
        group: group(),
        target: Target::AllNodes,
        release: digest(number),
        version: "1.0.0".into(),
        previous_version: String::new(),
        previous: None,
        policy: Policy { waves, max_parallel: nodes.len(), node_deadline_ms: 300_000, ..Policy::default() },
        request_id: id,
        request_body: "b".repeat(64),
        reason: String::new(),
        created_at: EPOCH,
        finished_at: None,
        phase: Phase::Pending,
        error: None,
        steps,
        cursor: 0,
        applier: None,
        entities: BTreeMap::new(),
        rerecorded: 0,
        method: Method::default(),
        previous_method: Method::default(),
        adopt: false,
        set_nginx: false,
        previous_set_nginx: false,
        interventions: Default::default(),
        saved: Vec::new(),
        refused: BTreeMap::new(),
        undo_to: None,
        allow_downgrade: false,
        batch: Default::default(),
    }
}

fn dispatch(number: usize, nodes: usize, step: usize) -> Command {
    let operation = operation(number, 0).id;
    Command::Dispatch { operation, step, nodes: (0..nodes).map(node).collect() }
}

/// Log entries that lead to the state, made as they are asked for.
pub fn commands(nodes: usize) -> impl Iterator<Item = Vec<Command>> {
    let joins =
        (0..nodes).step_by(JOINING).map(move |from| (from..nodes.min(from + JOINING)).map(join).collect());
    let installs = (0..PLUGINS).flat_map(move |number| install(number, nodes));
    joins.chain(installs)
}

fn install(number: usize, nodes: usize) -> impl Iterator<Item = Vec<Command>> {
    let started = operation(number, nodes);
    let (id, steps) = (started.id.clone(), started.steps.len());
    let begin = [release(number), Command::StartOperation { operation: Box::new(started) }];
    let on_the_way = (0..steps).flat_map({
        let id = id.clone();
        move |step| {
            let verdicts = (0..nodes).map(|n| (node(n), Verdict::Verified)).collect();
            let summary = format!("{nodes}/{nodes} nodes run it");
            [
                dispatch(number, nodes, step),
                Command::Settle { operation: id.clone(), step, verdicts, starts: None },
                Command::AdvanceCursor { operation: id.clone(), from: step, summary, scanned: None },
            ]
        }
    });
    let finish = Command::FinishOperation { operation: id, phase: Phase::Succeeded };
    begin.into_iter().chain(on_the_way).chain([finish]).map(|command| vec![command])
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::RegisterNode { .. } => "RegisterNode",
        Command::RegisterRelease { .. } => "RegisterRelease",
        Command::StartOperation { .. } => "StartOperation (all nodes)",
        Command::Dispatch { .. } => "Dispatch (all nodes)",
        Command::Settle { .. } => "Settle (all nodes)",
        Command::AdvanceCursor { .. } => "AdvanceCursor",
        Command::FinishOperation { .. } => "FinishOperation",
        _ => "other",
    }
}

impl World {
    pub fn new(nodes: usize) -> Self {
        let state = ClusterState::default();
        let mut world =
            Self { state, fleet: Fleet::default(), now: EPOCH, index: 0, nodes, took: BTreeMap::new() };
        for entry in commands(nodes) {
            world.apply(entry);
        }
        world
    }

    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Milliseconds that each kind of command took.
    pub fn took(&self) -> impl Iterator<Item = (&'static str, &[f64])> {
        self.took.iter().map(|(name, took)| (*name, took.as_slice()))
    }

    fn apply(&mut self, entry: Vec<Command>) {
        self.index += 1;
        for (command, offset) in entry.into_iter().zip(0..) {
            let name = name(&command);
            let at = LogStamp { index: self.index, offset, proposed_at: self.now };
            let start = std::time::Instant::now();
            apply(&mut self.state, at, command).unwrap();
            self.took.entry(name).or_default().push(millis(start.elapsed()));
        }
    }

    /// All nodes report that they are what they should be.
    pub fn report(&mut self) {
        self.answer(1);
    }

    /// Every `nth` node does.
    pub fn answer(&mut self, nth: usize) {
        let mut alike = Alike::default();
        for id in self.state.nodes.keys().step_by(nth) {
            let spec = node_spec(&self.state, id);
            let plugins = alike.share(answers(&spec).into());
            let status = NodeStatus { plugins, kong: kong(), ..NodeStatus::default() };
            let report = Report { status, boot: 1, last_seen: self.now, ..Report::default() };
            self.fleet.reports.insert(id.clone(), report);
        }
    }

    /// One more install begins.
    pub fn begin(&mut self) {
        let started = operation(PLUGINS, self.nodes);
        self.apply(vec![release(PLUGINS), Command::StartOperation { operation: Box::new(started) }]);
    }

    /// All nodes are let act in the step of that kind.
    pub fn dispatch(&mut self, kind: StepKind) {
        let steps = &self.state.operations[&operation(PLUGINS, 0).id].steps;
        let step = steps.iter().position(|s| s.kind == kind).unwrap();
        self.apply(vec![dispatch(PLUGINS, self.nodes, step)]);
    }
}

/// A Kong that serves.
pub fn kong() -> KongFacts {
    KongFacts {
        version: "3.9.1".into(),
        state: KongState::Running,
        ready: true,
        has_admin_api: true,
        database: "postgres".into(),
        datastore: "d".repeat(64),
        propagation_ms: 5_000,
        ..KongFacts::default()
    }
}
