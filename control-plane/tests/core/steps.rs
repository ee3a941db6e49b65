//! A removal that stops after one of its steps.

use kctl_control_plane::rollout;
use kctl_control_plane::state::Command;
use kctl_control_plane::state::operation::{Phase, Policy, StepKind, StepPhase};
use kctl_shared::spec::EntityReport;

use crate::world::World;

const NODES: usize = 4;

/// Runs until the removal has stopped after `step`, with nothing left to propose.
fn stopped(seed: u64, step: StepKind) -> World {
    let mut world = World::new(seed, NODES);
    world.install("1.0.0");
    world.heal();
    world.configure();
    world.policy = Policy { stop_after: Some(step), ..Policy::default() };
    world.remove();
    world.run_until("paused", |w| w.phase() == Phase::Paused);
    world.run(200);
    assert_eq!(world.phase(), Phase::Paused);
    assert!(world.waiting().iter().any(|w| w.reason == "STEP_DONE"), "{:?}", world.waiting());
    assert!(rollout::plan(&world.state, &world.fleet, world.now).commands.is_empty());
    world.assert_files_everywhere();
    world
}

fn enabled(world: &World) -> usize {
    (0..NODES).filter(|n| world.has(*n)).count()
}

fn goes_to_its_end(world: &mut World) {
    world.resume().unwrap();
    for _ in 0..6_000 {
        assert_ne!(world.phase(), Phase::Paused, "asked once");
        if world.phase().has_ended() {
            break;
        }
        world.run(1);
    }
    assert_eq!(world.phase(), Phase::Succeeded, "{:?}", world.waiting());
    world.assert_gone();
}

#[test]
fn after_detach_every_node_still_has_the_plugin() {
    for seed in 0..10 {
        let mut world = stopped(seed, StepKind::Detach);
        assert_eq!(enabled(&world), NODES);
        assert!(!world.operation().entities.is_empty());
        assert_eq!(world.promote().unwrap_err(), "NOTHING_TO_PROMOTE");
        assert_eq!(world.retry(false).unwrap_err(), "NOTHING_TO_RETRY");
        goes_to_its_end(&mut world);
    }
}

#[test]
fn what_is_configured_while_it_stands_still_is_found_before_it_goes_on() {
    for (seed, step) in (0..10).flat_map(|s| [(s, StepKind::Detach), (s, StepKind::Disable)]) {
        let mut world = stopped(seed, step);
        let before = world.operation().entities.len();
        world.configure();
        world.run(50);
        world.assert_files_everywhere();
        world.resume().unwrap();
        // After disabling it has to begin anew, and stops there again.
        if step == StepKind::Disable {
            world.run_until("paused", |w| w.phase() == Phase::Paused);
            world.resume().unwrap();
        }
        world.heal();
        assert_eq!(world.phase(), Phase::Succeeded, "seed {seed}");
        assert_eq!(world.operation().entities.len(), before + 1, "seed {seed}");
        world.assert_gone();
    }
}

#[test]
fn after_disable_no_node_runs_it_and_calling_it_off_brings_it_back() {
    for seed in 0..10 {
        let mut world = stopped(seed, StepKind::Disable);
        assert_eq!(enabled(&world), 0);
        assert!(!world.operation().is_past_return());
        let passed = world.operation().steps.iter().filter(|s| s.phase == StepPhase::Done).count();
        world.abort().unwrap();
        world.heal();
        assert_eq!(world.phase(), Phase::Compensated, "seed {seed}, after {passed} steps");
        world.assert_converged("1.0.0");
        world.assert_attached();
    }
}

#[test]
fn after_disable_it_can_also_go_on() {
    for seed in 0..10 {
        goes_to_its_end(&mut stopped(seed, StepKind::Disable));
    }
}

#[test]
fn nobody_stops_it_after_a_step_that_was_not_named() {
    use kctl_control_plane::state::Command;
    use kctl_control_plane::state::operation::Cause;
    let mut world = World::new(1, NODES);
    world.install("1.0.0");
    world.heal();
    world.remove();
    let (operation, from) = (world.operation().id.clone(), world.operation().cursor);
    let hold = Command::Hold { operation, from, cause: Cause::Step(StepKind::Detach) };
    assert_eq!(world.try_propose(hold).unwrap_err(), "SUPERSEDED");
}

/// A node may apply for two operations, and one decision, as that a node is no more, may have both scan anew.
#[test]
fn what_was_scanned_for_another_operation_opens_no_fence() {
    let mut world = World::new(3, 4);
    world.install("1.0.0");
    world.heal();
    world.configure();
    world.remove();
    world.run_until("all have dropped it", |w| w.waits_for("SCANNING"));
    let applier = world.operation().applier.clone().unwrap();
    let advances = |operation: &str| {
        let mut fleet = world.fleet.clone();
        let scanned = EntityReport {
            grant: applier.grant,
            operation: operation.to_owned(),
            scans: 2,
            empty_in_a_row: 2,
            ..EntityReport::default()
        };
        fleet.reports.get_mut(&applier.node).unwrap().status.task = Some(scanned);
        let plan = rollout::plan(&world.state, &fleet, world.now);
        plan.commands.iter().any(|c| matches!(c, Command::AdvanceCursor { .. }))
    };
    assert!(advances(&world.current), "nothing else is in the way");
    assert!(!advances("another"));
}
