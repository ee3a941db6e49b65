//! Operations that begin together, or not at all, and end alike.

use kctl_control_plane::rollout::fleet::Fleet;
use kctl_control_plane::rollout::{self, runbook};
use kctl_control_plane::state::operation::{Intervention, Operation, Phase, RequestKey, Verdict};
use kctl_control_plane::state::{ClusterState, Command, LogStamp, apply, invariants};
use kctl_shared::name::PluginName;
use kctl_shared::time::Timestamp;

use crate::world::World;

const BATCH: &str = "batch-1";

/// The world's present operation, as one of `plugin` in a batch that has not begun.
fn part(world: &World, plugin: &str) -> Operation {
    Operation {
        id: format!("op-{plugin}"),
        request_id: format!("request-{plugin}"),
        plugin: PluginName::parse(plugin).unwrap(),
        batch: Some(BATCH.into()),
        phase: Phase::Pending,
        ..world.operation().clone()
    }
}

/// A world in which an install has just begun, and the parts of a batch of other plugins with the same release.
fn world_and_parts(plugins: &[&str]) -> (World, Vec<Operation>) {
    let mut world = World::new(1, 4);
    world.install("1.0.0");
    let parts = plugins.iter().map(|plugin| part(&world, plugin)).collect();
    (world, parts)
}

#[test]
fn all_of_them_begin_with_a_record_each() {
    let (world, parts) = world_and_parts(&["a", "b", "c"]);
    let mut state = world.state.clone();
    let at = LogStamp { index: 1_000, offset: 0, proposed_at: world.now };
    let command = Command::StartBatch { operations: parts };
    assert_eq!(apply(&mut state, at, command.clone()).unwrap().len(), 3);
    assert_eq!(state.audit.count, world.state.audit.count + 3);
    let begun = state.live_operations().filter(|o| o.batch.as_deref() == Some(BATCH)).count();
    assert_eq!(begun, 3);
    // A retry is recognised and changes nothing.
    let before = state.clone();
    assert_eq!(apply(&mut state, at, command).unwrap().len(), 3);
    assert_eq!(state, before);
}

#[test]
fn one_that_is_refused_refuses_all_and_is_named() {
    let (mut world, parts) = world_and_parts(&["a", "golden"]);
    let mut state = world.state.clone();
    let at = LogStamp { index: 1_000, offset: 0, proposed_at: world.now };
    let refused = apply(&mut state, at, Command::StartBatch { operations: parts.clone() }).unwrap_err();
    assert_eq!(refused.code, "PLUGIN_BUSY");
    assert!(refused.message.contains("golden: operation ") && !refused.message.contains("a: "), "{refused}");
    assert_eq!(state, world.state);
    for wrong in [
        Vec::new(),
        vec![Operation { batch: None, ..parts[0].clone() }],
        vec![parts[0].clone(), Operation { batch: Some("other".into()), ..parts[0].clone() }],
        vec![parts[0].clone(); 33],
    ] {
        let command = Command::StartBatch { operations: wrong };
        assert_eq!(world.try_propose(command).unwrap_err(), "INVALID_OPERATION");
    }
    // The same plugin twice: the second finds the first.
    let twice = Command::StartBatch {
        operations: vec![
            parts[0].clone(),
            Operation { id: "x".into(), request_id: "x".into(), ..parts[0].clone() },
        ],
    };
    assert_eq!(world.try_propose(twice).unwrap_err(), "PLUGIN_BUSY");
}

#[test]
fn a_request_id_is_not_used_again_for_other_plugins() {
    let (world, parts) = world_and_parts(&["a", "b"]);
    let mut state = world.state.clone();
    let at = LogStamp { index: 1_000, offset: 0, proposed_at: world.now };
    apply(&mut state, at, Command::StartBatch { operations: vec![parts[0].clone()] }).unwrap();
    let more = Command::StartBatch { operations: parts };
    assert_eq!(apply(&mut state, at, more).unwrap_err().code, "REQUEST_ID_REUSED");
}

/// Two operations that began together, and what the members decide about them.
struct Together {
    state: ClusterState,
    now: Timestamp,
    index: u64,
}

impl Together {
    fn begun(plugins: &[&str]) -> Self {
        let (world, parts) = world_and_parts(plugins);
        let mut together = Self { state: world.state, now: world.now, index: 1_000 };
        together.propose(Command::StartBatch { operations: parts }).unwrap();
        together
    }

    fn propose(&mut self, command: Command) -> Result<(), String> {
        self.index += 1;
        let at = LogStamp { index: self.index, offset: 0, proposed_at: self.now };
        let outcome = apply(&mut self.state, at, command).map(drop).map_err(|rejection| rejection.code);
        assert_eq!(invariants::check(&self.state), []);
        outcome
    }

    fn of(&self, plugin: &str) -> &Operation {
        &self.state.operations[&format!("op-{plugin}")]
    }

    /// All nodes of its present step act and are verified.
    fn verify(&mut self, plugin: &str) {
        let (operation, step) = (self.of(plugin).id.clone(), self.of(plugin).cursor);
        let nodes: Vec<_> = self.of(plugin).steps[step].nodes.keys().cloned().collect();
        let verdicts = nodes.iter().map(|node| (node.clone(), Verdict::Verified)).collect();
        self.propose(Command::Dispatch { operation: operation.clone(), step, nodes }).unwrap();
        self.propose(Command::Settle { operation, step, verdicts, starts: None }).unwrap();
        // Long enough for any wave to bake.
        self.now = self.now.plus_ms(600_000);
    }

    fn advance(&mut self, plugin: &str) -> Result<(), String> {
        let (operation, from) = (self.of(plugin).id.clone(), self.of(plugin).cursor);
        self.propose(Command::AdvanceCursor { operation, from, summary: String::new(), scanned: None })
    }

    /// Up to its last step, the nodes of which are verified.
    fn reach_the_last_step(&mut self, plugin: &str) {
        while self.of(plugin).cursor + 1 < self.of(plugin).steps.len() {
            self.verify(plugin);
            self.advance(plugin).unwrap();
        }
        self.verify(plugin);
    }

    fn abort(&mut self, plugin: &str) -> Result<(), String> {
        let operation = self.of(plugin);
        let (from, steps) = (operation.cursor, runbook::abort(&self.state, operation));
        let request = RequestKey { id: format!("abort-{}", self.index), body: String::new() };
        let (operation, what) = (operation.id.clone(), Intervention::Abort { from, steps });
        self.propose(Command::Intervene { operation, request, reason: "enough".into(), what })
    }

    /// What the leader would propose about it, and the reasons it gives.
    fn plan(&self, plugin: &str) -> (Option<Command>, Vec<String>) {
        let plan = rollout::plan(&self.state, &Fleet::default(), self.now);
        let id = &self.of(plugin).id;
        let reasons = plan.report[id].iter().map(|w| w.reason.to_string()).collect();
        let about = |c: &Command| matches!(c, Command::Reroute { operation, .. } | Command::AdvanceCursor { operation, .. } if operation == id);
        (plan.commands.into_iter().find(about), reasons)
    }
}

#[test]
fn none_takes_its_last_step_before_the_others_may() {
    let mut both = Together::begun(&["a", "b"]);
    both.reach_the_last_step("a");
    assert_eq!(both.advance("a").unwrap_err(), "SUPERSEDED");
    assert_eq!(both.plan("a"), (None, vec!["BATCH_BEHIND".to_owned()]));
    both.reach_the_last_step("b");
    both.advance("a").unwrap();
    // From here on both go only forward.
    assert_eq!(both.abort("b").unwrap_err(), "PAST_POINT_OF_NO_RETURN");
    both.advance("b").unwrap();
    for plugin in ["a", "b"] {
        let operation = both.of(plugin).id.clone();
        both.propose(Command::FinishOperation { operation, phase: Phase::Succeeded }).unwrap();
    }
}

#[test]
fn what_one_goes_back_from_the_others_do_too() {
    for paused in [false, true] {
        let mut both = Together::begun(&["a", "b"]);
        both.reach_the_last_step("a");
        if paused {
            let request = RequestKey { id: "pause".into(), body: String::new() };
            let (operation, reason) = (both.of("a").id.clone(), String::new());
            let what = Intervention::Pause;
            both.propose(Command::Intervene { operation, request, reason, what }).unwrap();
        }
        both.verify("b");
        both.abort("b").unwrap();
        assert_eq!(both.advance("a").unwrap_err(), "SUPERSEDED");
        let (command, _) = both.plan("a");
        both.propose(command.unwrap()).unwrap();
        let operation = both.of("a");
        let error = operation.error.clone().unwrap();
        assert_eq!((operation.phase, error.code.as_str()), (Phase::RollingBack, "BATCH_WENT_BACK"));
        assert!(error.message.contains("ABORTED called off: enough"), "{}", error.message);
        assert!(operation.interventions.aborted, "it is called off as the other one is");
    }
}
