//! What nodes' Kongs answer while a wave bakes.

use kctl_control_plane::state::operation::{OnFailure, Phase, Policy, Verdict};

use crate::world::World;

const NODES: usize = 6;

fn policy(on_failure: OnFailure) -> Policy {
    Policy { bake_ms: 60_000, on_failure, ..Policy::default() }
}

/// The node of the first wave, while it bakes.
fn baking(world: &mut World, policy: Policy) -> usize {
    world.policy = policy;
    world.install("1.0.0");
    world.run_until("baking", |w| w.waits_for("BAKING"));
    (0..NODES).find(|n| world.has(*n)).unwrap()
}

#[test]
fn a_wave_that_fails_more_requests_than_before_goes_back() {
    let mut world = World::new(1, NODES);
    let canary = baking(&mut world, policy(OnFailure::Rollback));
    world.answers(canary, (300, 0), (40, 4));
    world.run(20);
    assert_eq!(world.phase(), Phase::Progressing, "too few to say anything");
    assert_eq!(
        world.waiting().iter().map(|w| &*w.reason).collect::<Vec<_>>(),
        ["BAKING"],
        "nothing more to see"
    );
    world.answers(canary, (300, 0), (40, 12));
    world.run_until("rolling back", |w| w.phase() == Phase::RollingBack);
    world.heal();
    assert_eq!(world.phase(), Phase::Failed);
    let error = world.operation().error.clone().unwrap();
    assert_eq!(error.code, "ERRORS_ROSE");
    let figures = "12 of 40 answers were 5xx since the reload, 0 of 300 in the 60 s before";
    assert!(error.message.contains(figures) && error.message.contains(&format!("n{canary}")), "{error}");
    world.assert_gone();
}

#[test]
fn an_upgrade_goes_back_to_the_release_before_and_nothing_stops_it() {
    let mut world = World::new(2, NODES);
    world.install("1.0.0");
    world.heal();
    world.policy = policy(OnFailure::Rollback);
    world.install("2.0.0");
    world.run_until("baking", |w| w.waits_for("BAKING"));
    (0..NODES).for_each(|n| world.answers(n, (100, 1), (100, 90)));
    world.run_until("rolling back", |w| w.phase() == Phase::RollingBack);
    // It goes on failing, whatever runs there.
    for _ in 0..2_000 {
        if world.phase().has_ended() {
            break;
        }
        (0..NODES).for_each(|n| world.answers(n, (100, 1), (100, 90)));
        world.run(1);
    }
    assert_eq!(world.operation().error.as_ref().unwrap().code, "ERRORS_ROSE");
    assert_eq!(world.phase(), Phase::Failed);
    world.assert_everywhere("1.0.0");
}

#[test]
fn the_policy_says_what_follows() {
    let mut world = World::new(3, NODES);
    let canary = baking(&mut world, policy(OnFailure::Pause));
    world.answers(canary, (300, 0), (40, 12));
    world.run_until("paused", |w| w.phase() == Phase::Paused);
    assert!(world.waits_for("FAILURE_PAUSED"));
    assert!(format!("{:?}", world.waiting()).contains("ERRORS_ROSE"), "{:?}", world.waiting());
    // Somebody looked at it. What was counted since a reload for another try says nothing of this one.
    world.retry(true).unwrap();
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    world.assert_everywhere("1.0.0");

    let mut world = World::new(3, NODES);
    let canary = baking(&mut world, Policy { max_failures: 1, ..policy(OnFailure::Continue) });
    world.answers(canary, (300, 0), (40, 12));
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    let verdicts: Vec<_> = world.operation().steps.iter().flat_map(|s| s.nodes.values()).collect();
    let failed = |v: &Option<Verdict>| matches!(v, Some(Verdict::Failed(f)) if f.code == "ERRORS_ROSE");
    assert_eq!(verdicts.iter().filter(|n| failed(&n.verdict)).count(), 1);
    assert!(world.operation().is_partial());
}

#[test]
fn what_nobody_can_tell_or_asks_for_is_not_judged() {
    // Kong counts nothing.
    let mut world = World::new(4, NODES);
    baking(&mut world, policy(OnFailure::Rollback));
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    // No worse than before.
    let mut world = World::new(5, NODES);
    let canary = baking(&mut world, policy(OnFailure::Rollback));
    world.answers(canary, (1_000, 20), (1_000, 25));
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    // Nothing bakes.
    let mut world = World::new(6, NODES);
    world.policy = Policy { bake_ms: 0, ..policy(OnFailure::Rollback) };
    world.install("1.0.0");
    for _ in 0..2_000 {
        if world.phase().has_ended() {
            break;
        }
        (0..NODES).for_each(|n| world.answers(n, (100, 0), (100, 90)));
        world.run(1);
    }
    assert_eq!(world.phase(), Phase::Succeeded);
}
