//! Policies and people, each rule by itself and all of them under chaos.

use kctl_control_plane::rollout::{self, runbook};
use kctl_control_plane::state::model::Group;
use kctl_control_plane::state::operation::{
    Intervention, OnFailure, Operation, OperationKind, Phase, Policy, Step, StepKind, Verdict,
};

use crate::world::World;

fn with(seed: u64, nodes: usize, policy: Policy) -> World {
    let mut world = World::new(seed, nodes);
    world.policy = policy;
    world.install("1.0.0");
    world
}

fn enabled(world: &World, nodes: usize) -> usize {
    (0..nodes).filter(|n| world.has(*n)).count()
}

#[test]
fn anything_people_do_under_chaos_keeps_the_laws_and_ends() {
    let mut taken = [0; 6];
    let mut phases = std::collections::BTreeMap::<&str, usize>::new();
    let seeds = match std::env::var("CORE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..400).collect::<Vec<u64>>(),
    };
    for seed in &seeds {
        let nodes = 3 + (seed % 5) as usize;
        let mut world = World::new(*seed, nodes);
        world.policy = world.any_policy();
        world.install("1.0.0");
        world.chaos_and_people(400, nodes, &mut taken);
        world.heal();
        assert!(world.phase().has_ended(), "seed {seed}: {:#?}", world.operation());
        *phases.entry(world.phase().as_str()).or_default() += 1;
        if world.phase() == Phase::Succeeded {
            world.assert_converged("1.0.0");
            world.policy = world.any_policy();
            world.configure();
            world.remove();
            world.chaos_and_people(400, nodes, &mut taken);
            world.heal();
            *phases.entry(world.phase().as_str()).or_default() += 1;
            match world.phase() {
                // Called off before it did anything.
                Phase::Aborted => world.assert_converged("1.0.0"),
                // Called off, and what it did undone.
                Phase::Compensated => {
                    world.assert_converged("1.0.0");
                    world.assert_attached();
                }
                Phase::Succeeded => world.assert_gone(),
                other => panic!("seed {seed}: {other:?}"),
            }
        } else {
            world.assert_gone();
        }
        assert!(
            world.state.groups.values().all(|g| g.leftovers.is_empty()),
            "seed {seed}: {:?}",
            world.state.groups
        );
    }
    if seeds.len() > 1 {
        assert!(taken.iter().all(|n| *n > 20), "verbs that nobody took: {taken:?}");
        assert!(phases.len() == 4 && phases.values().all(|n| *n > 10), "{phases:?}");
    }
}

#[test]
fn a_paused_operation_lets_nobody_act_and_goes_on_where_it_was() {
    let mut world = with(1, 6, Policy::default());
    world.run_until("enabled", |w| enabled(w, 6) >= 1);
    world.pause().unwrap();
    assert_eq!(world.pause().unwrap_err(), "OPERATION_PAUSED");
    world.run(200);
    let before = enabled(&world, 6);
    assert!(before < 6 && world.waits_for("PAUSED"), "{before} {:?}", world.waiting());
    assert!(rollout::plan(&world.state, &world.fleet, world.now).commands.is_empty());
    assert_eq!(world.retry(true).unwrap_err(), "NOTHING_TO_RETRY");
    world.resume().unwrap();
    assert_eq!(world.resume().unwrap_err(), "OPERATION_NOT_PAUSED");
    world.heal();
    world.assert_everywhere("1.0.0");
    assert_eq!(world.pause().unwrap_err(), "OPERATION_ENDED");
}

#[test]
fn a_failure_can_pause_and_what_failed_be_tried_again() {
    let mut world = with(2, 6, Policy { on_failure: OnFailure::Pause, ..Policy::default() });
    world.break_node(4);
    world.run_until("paused", |w| w.phase() == Phase::Paused);
    world.run(100);
    assert!(world.waits_for("FAILURE_PAUSED"));
    assert_eq!(world.resume().unwrap_err(), "FAILED_NODES");
    assert_eq!(world.promote().unwrap_err(), "NOTHING_TO_PROMOTE");
    world.mend_node(4);
    world.retry(true).unwrap();
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    assert!(!world.operation().is_partial());
    world.assert_everywhere("1.0.0");
    let failed = world.operation().steps.iter().flat_map(|s| s.nodes.values());
    assert!(failed.into_iter().any(|n| matches!(n.verdict, Some(Verdict::Failed(_)))), "history is kept");
}

#[test]
fn going_on_without_those_that_fail_is_partial_and_never_without_all() {
    let policy = Policy { on_failure: OnFailure::Continue, ..Policy::default() };
    let mut world = with(3, 6, policy.clone());
    world.break_node(4);
    world.heal_but_broken();
    assert_eq!(world.phase(), Phase::Succeeded);
    assert!(world.operation().is_partial());
    assert_eq!(enabled(&world, 6), 5);
    let mut world = with(3, 4, policy);
    (0..4).for_each(|n| world.break_node(n));
    world.heal_but_broken();
    assert_eq!(world.phase(), Phase::Failed);
    world.assert_gone();
}

#[test]
fn a_wave_bakes_and_what_is_lost_meanwhile_counts_as_failed() {
    let policy = Policy { bake_ms: 60_000, ..Policy::default() };
    let mut world = with(4, 6, policy.clone());
    world.run_until("baking", |w| w.waits_for("BAKING"));
    let canary = (0..6).find(|n| world.has(*n)).unwrap();
    world.run(100);
    assert_eq!(enabled(&world, 6), 1, "a wave waits for the bake of the one before");
    world.lose(canary);
    world.run_until("rolling back", |w| w.phase() == Phase::RollingBack);
    world.heal();
    assert_eq!(world.phase(), Phase::Failed);
    assert_eq!(world.operation().error.as_ref().unwrap().code, "PROOF_LOST");
    world.assert_gone();
    // A Kong that is not ready for a moment is no failure, for longer it is.
    let mut world = with(4, 6, policy);
    world.run_until("baking", |w| w.waits_for("BAKING"));
    world.unready(canary, true);
    world.run(20);
    assert!(world.waits_for("NOT_READY"), "{:?}", world.waiting());
    world.unready(canary, false);
    world.run(10);
    world.promote().unwrap();
    world.run_until("in the second wave", |w| enabled(w, 6) == 2);
    world.run_until("baking again", |w| w.waits_for("BAKING"));
    world.unready((0..6).filter(|n| world.has(*n)).find(|n| *n != canary).unwrap(), true);
    world.run_until("rolling back", |w| w.phase() == Phase::RollingBack);
    assert_eq!(world.operation().error.as_ref().unwrap().code, "NOT_READY");
}

#[test]
fn a_canary_waits_for_a_person() {
    let mut world = with(5, 6, Policy { pause_after: [1].into(), bake_ms: 5_000, ..Policy::default() });
    world.run_until("paused", |w| w.phase() == Phase::Paused);
    world.run(200);
    assert!(world.waits_for("CANARY_PAUSED"), "{:?}", world.waiting());
    assert_eq!(enabled(&world, 6), 1);
    world.promote().unwrap();
    for _ in 0..6_000 {
        assert_ne!(world.phase(), Phase::Paused, "asked once");
        if world.phase().has_ended() {
            break;
        }
        world.run(1);
    }
    world.assert_everywhere("1.0.0");
}

#[test]
fn without_progress_the_policy_decides() {
    for (on_failure, phase) in [(OnFailure::Rollback, Phase::Failed), (OnFailure::Pause, Phase::Paused)] {
        let policy = Policy { progress_deadline_ms: 20_000, on_failure, ..Policy::default() };
        let mut world = with(6, 4, policy);
        world.run(2);
        world.freeze(1);
        world.run_until("stopped", |w| !matches!(w.phase(), Phase::Progressing));
        world.thaw(1);
        world.run(400);
        assert_eq!(world.phase(), phase);
        let said = format!("{:?} {:?}", world.operation().error, world.waiting());
        assert!(said.contains("PROGRESS_DEADLINE"), "{said}");
    }
}

#[test]
fn an_excused_node_is_not_waited_for_and_converges_when_it_is_back() {
    let mut world = World::new(7, 5);
    world.freeze(2);
    world.install("1.0.0");
    world.run(200);
    assert_eq!(world.phase(), Phase::Progressing);
    world.excuse(2).unwrap();
    assert_eq!(world.excuse(2).unwrap_err(), "NOTHING_TO_EXCUSE");
    world.run(600);
    assert_eq!(world.phase(), Phase::Succeeded);
    assert!(world.operation().is_partial());
    assert_eq!((enabled(&world, 5), world.has(2)), (4, false));
    world.thaw(2);
    world.run(100);
    world.assert_everywhere("1.0.0");
    // A removal that ended without a node is carried out there all the same, and only then forgotten.
    world.freeze(2);
    world.remove();
    world.run_until("waiting", |w| w.waits_for("AGENT_UNREACHABLE"));
    world.excuse(2).unwrap();
    world.run(600);
    assert_eq!(world.phase(), Phase::Succeeded, "{:?}", world.waiting());
    assert!(world.operation().is_partial() && world.has(2));
    // Where it still is somebody can refer to it, which is told until it is gone.
    let said = |node: &str, code: &str| (node.to_owned(), code.to_owned());
    assert!(world.conditions().contains(&said("n2", "LEFT_OVER")));
    let (first, second) = (said("n0", "REFERENCED_AFTER_REMOVAL"), said("n1", "REFERENCED_AFTER_REMOVAL"));
    assert!(!world.conditions().contains(&first));
    world.configure();
    world.run_until("told", |w| w.conditions().is_superset(&[first.clone(), second.clone()].into()));
    world.unconfigure();
    world.run_until("mended", |w| w.conditions() == [said("n2", "LEFT_OVER")].into());
    world.thaw(2);
    world.run(100);
    world.assert_gone();
    assert!(world.state.groups.values().all(|g| g.leftovers.is_empty()));
    assert!(world.conditions().is_empty(), "{:?}", world.conditions());
}

#[test]
fn the_last_node_cannot_be_excused() {
    let mut world = with(8, 2, Policy::default());
    world.freeze(0);
    world.freeze(1);
    world.run(5);
    world.excuse(0).unwrap();
    assert_eq!(world.excuse(1).unwrap_err(), "EXCUSE_LAST_NODE");
    assert_eq!(world.excuse(7).unwrap_err(), "NODE_NOT_FOUND");
}

#[test]
fn an_aborted_install_leaves_what_was_before() {
    let mut world = World::new(9, 5);
    world.install("1.0.0");
    world.heal();
    world.install("2.0.0");
    world.run_until("in its first wave", |w| {
        w.operation().steps.iter().any(|s| s.kind == StepKind::Enable && s.is_over())
    });
    world.abort().unwrap();
    assert_eq!(world.abort().unwrap_err(), "OPERATION_ROLLING_BACK");
    assert_eq!(world.pause().unwrap_err(), "OPERATION_ROLLING_BACK");
    world.heal();
    assert_eq!(world.phase(), Phase::Aborted);
    assert_eq!(world.operation().kind, OperationKind::Upgrade);
    world.assert_everywhere("1.0.0");
}

fn in_use(seed: u64) -> World {
    let mut world = World::new(seed, 5);
    world.install("1.0.0");
    world.heal();
    world.configure();
    world.configure();
    world
}

#[test]
fn a_removal_that_did_nothing_yet_just_ends_when_it_is_called_off() {
    let mut world = in_use(10);
    world.remove();
    world.abort().unwrap();
    assert_eq!(world.phase(), Phase::Aborted);
    world.run(50);
    world.assert_everywhere("1.0.0");
}

#[test]
fn a_removal_that_is_called_off_brings_everything_back_in_the_reverse_of_its_order() {
    let kinds = |w: &World| -> Vec<_> {
        let open = w.operation().steps.iter().filter(|s| !s.is_over());
        open.map(|s| (s.kind.as_str(), s.nodes.keys().map(|n| n.to_string()).collect::<Vec<_>>())).collect()
    };
    // Entities were recorded, no node was touched.
    let mut world = in_use(10);
    world.remove();
    world.run_until("deleting", |w| !w.operation().entities.is_empty());
    world.abort().unwrap();
    assert_eq!(kinds(&world), [("attach", vec![])]);
    assert_eq!(world.abort().unwrap_err(), "OPERATION_ROLLING_BACK");
    world.heal();
    assert_eq!(world.phase(), Phase::Compensated);
    world.assert_attached();
    // All have dropped it; n2 has no Admin API and gets it first.
    world.remove();
    world.run_until("at its last barrier", |w| {
        w.operation()
            .current()
            .is_some_and(|s| s.nodes.contains_key(&"n2".parse().unwrap()) && s.verified_nodes().count() == 1)
    });
    world.abort().unwrap();
    let steps = kinds(&world);
    assert_eq!(steps[0], ("restore", vec!["n2".to_owned()]));
    assert_eq!(steps.last().unwrap().0, "attach");
    assert_eq!(steps.iter().map(|(_, nodes)| nodes.len()).sum::<usize>(), 5, "{steps:?}");
    world.heal();
    assert_eq!(world.phase(), Phase::Compensated);
    world.assert_everywhere("1.0.0");
    world.assert_attached();
    // Nothing was used, so there is nothing to attach.
    let mut world = World::new(12, 5);
    world.install("1.0.0");
    world.heal();
    world.remove();
    world.run_until_disabling();
    world.abort().unwrap();
    assert!(kinds(&world).iter().all(|(kind, _)| *kind == "restore"));
    world.heal();
    assert_eq!(world.phase(), Phase::Compensated);
    world.assert_everywhere("1.0.0");
}

#[test]
fn without_a_datastore_directives_come_back_and_nothing_is_attached() {
    let mut world = in_use(16);
    world.without_datastore();
    world.remove();
    world.run_until_disabling();
    world.abort().unwrap();
    let open: Vec<_> = world.operation().steps.iter().filter(|s| !s.is_over()).map(|s| s.kind).collect();
    assert!(!open.is_empty() && open.iter().all(|kind| *kind == StepKind::Restore), "{open:?}");
    world.heal();
    assert_eq!(world.phase(), Phase::Compensated);
    world.assert_everywhere("1.0.0");
}

#[test]
fn what_kong_does_not_take_again_is_told_and_kept() {
    let mut world = in_use(13);
    world.remove();
    world.run_until_disabling();
    world.orphan();
    world.abort().unwrap();
    world.run_until("refused", |w| w.waits_for("ENTITY_REFUSED"));
    world.heal();
    assert_eq!(world.phase(), Phase::Compensated);
    assert_eq!(world.operation().refused.len(), 2);
    assert_eq!(world.state.saved_entities().len(), 1);
}

#[test]
fn steps_that_do_not_lead_back_are_refused() {
    let mut world = in_use(14);
    world.remove();
    world.run_until_disabling();
    let from = world.operation().cursor;
    let good = runbook::abort(&world.state, world.operation());
    let attach = good.len() - 1;
    for steps in [
        vec![],
        good[..attach].to_vec(),
        good[1..].to_vec(),
        [&good[attach..], &good[..attach]].concat(),
        [&good[..1], &good[..]].concat(),
        vec![Step::new(StepKind::Unstage, 0, [])],
    ] {
        let refused = world.intervene(Intervention::Abort { from, steps }).unwrap_err();
        assert_eq!(refused, "SUPERSEDED");
    }
    world.intervene(Intervention::Abort { from, steps: good }).unwrap();
}

#[test]
fn a_removal_whose_files_go_is_not_called_off() {
    let mut world = in_use(15);
    world.remove();
    world.run_until("purging", |w| w.operation().is_past_return());
    assert_eq!(world.abort().unwrap_err(), "PAST_POINT_OF_NO_RETURN");
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    world.assert_gone();
}

#[test]
fn what_was_written_before_policies_and_people_still_loads() {
    let world = with(11, 3, Policy::default());
    let mut old = serde_json::to_value(world.operation()).unwrap();
    let operation = old.as_object_mut().unwrap();
    for field in ["interventions", "saved", "refused"] {
        operation.remove(field).unwrap();
    }
    let policy = operation["policy"].as_object_mut().unwrap();
    for field in ["bake_ms", "progress_deadline_ms", "pause_after", "on_failure"] {
        policy.remove(field).unwrap();
    }
    let read: Operation = serde_json::from_value(old).unwrap();
    assert_eq!(&read, world.operation());
    let group: Group = serde_json::from_str(r#"{"plugins": {}}"#).unwrap();
    assert_eq!(group, Group::default());
}
